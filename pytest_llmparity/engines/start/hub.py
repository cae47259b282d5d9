"""Models by their Hugging Face name: what is on this machine, and nothing is fetched that nobody asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pytest_llmparity.engines.start import inside
from pytest_llmparity.settings.specification import EngineSpec

OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""Environment of a program that must not download."""


def served(spec: EngineSpec, environ: Mapping[str, str]) -> str:
    """Return what a program that takes a hub id or a folder is told to serve: the local folder, else the id.

    Without ``spec.download`` an id has to be in the local cache: ``LaunchError`` says how to fetch it.
    """
    if spec.model_path is not None:
        return inside.place(spec, spec.model_path, environ)
    if not spec.model:
        raise spec.launch_error("give model = a Hugging Face id or folder to serve.")
    looks_local = spec.model.startswith((".", "/", "~")) or spec.model.count("/") > 1
    if not looks_local and (spec.download or (_cached(spec.model, environ) / "snapshots").is_dir()):
        return spec.model
    advice = (
        "correct the path."
        if looks_local
        else f"fetch it with: hf download {spec.model}{f' --revision {spec.revision}' if spec.revision else ''} "
        "(or set download = true)."
    )
    raise spec.launch_error(f"the model {spec.model!r} is not on this machine; {advice}")


def snapshot(spec: EngineSpec, environ: Mapping[str, str]) -> Path | None:
    """Return the folder a program reads this model from: a local one, else the hub cache's for the spec's revision.

    ``None`` where it is not known. Without a revision a program reads what the ``main`` of the last download was
    (huggingface_hub, ``try_to_load_from_cache``).
    """
    if spec.model_path is not None:
        return spec.model_path if spec.model_path.is_dir() else None
    model = _cached(spec.model or "", environ)
    revision = spec.revision or "main"
    ref = model / "refs" / revision
    commit = ref.read_text("utf-8", "replace").strip() if ref.is_file() else revision
    folder = model / "snapshots" / commit
    return folder if spec.model and folder.is_dir() else None


def environ_of(spec: EngineSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which an engine's models are found on this machine; a container's own mean its inside."""
    return {**environ, **({} if spec.launch == "container" else spec.env)}


def _cached(model: str, environ: Mapping[str, str]) -> Path:
    return inside.hub_cache(environ) / f"models--{model.replace('/', '--')}"
