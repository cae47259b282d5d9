"""What is behind a URL: cheap tells by which servers give themselves away, asked in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pytest_llmparity.core.errors import ProtocolError, Timeout, Unreachable
from pytest_llmparity.engines.control import Control, Reply

GENERIC: Final = "openai"
"""What a server is called that gives itself away by nothing."""

_OWNERS: Final = {"llamacpp": "llamacpp", "vllm": "vllm", "sglang": "sglang", "me": "llama-cpp-python"}


def recognise(
    base_url: str,
    headers: Mapping[str, str] | None = None,
    *,
    name: str = "",
    ca_bundle: Path | None = None,
    proxy: str | None = None,
) -> str:
    """Return what the server at a URL looks like: ``llamacpp``, ``vllm``, ``ollama``, ``sglang``, … else ``openai``.

    The answer may be a kind for which there is no adapter yet (``registry.adapter_for`` falls back to ``openai``).
    Raises ``Unreachable`` or ``Timeout`` when nothing answers at all.
    """
    control = Control(
        engine=name or base_url, base_url=base_url.rstrip("/"), headers=headers or {}, ca_bundle=ca_bundle, proxy=proxy
    )
    listed = control.get("/v1/models")
    if any(header.startswith("x-litellm-") for header in listed.headers):
        return "litellm"  # first of all: it speaks for a server we cannot see
    seen = _by_list(listed)
    if seen:
        return seen
    root = _try(control, "/")
    if root is not None and b"Ollama is running" in root.body[:200]:
        return "ollama"
    if "build_info" in control.ask("/props") or listed.headers.get("server") == "llama.cpp":
        return "llamacpp"
    # SGLang imitates Ollama's and others' routes, so its own comes before theirs.
    if control.ask("/server_info").keys() & {"sglang_version", "mem_fraction_static", "internal_states"}:
        return "sglang"
    if "model_sha" in control.ask("/info"):
        return "tgi"
    if control.ask("/api/version").get("version") and control.ask("/api/tags"):
        return "ollama"
    for path in ("/api/v1/models", "/api/v0/models"):
        if control.ask(path).keys() & {"models", "data"}:
            return "lmstudio"
    return _by_words(listed)


def models(
    base_url: str,
    headers: Mapping[str, str] | None = None,
    *,
    name: str = "",
    ca_bundle: Path | None = None,
    proxy: str | None = None,
) -> tuple[str, ...]:
    """Return the names a server lists at ``/v1/models``, in its order; raises as :func:`recognise` does."""
    control = Control(
        engine=name or base_url, base_url=base_url.rstrip("/"), headers=headers or {}, ca_bundle=ca_bundle, proxy=proxy
    )
    return tuple(str(entry["id"]) for entry in _entries(control.get("/v1/models")) if entry.get("id"))


def _entries(listed: Reply) -> list[Mapping[str, object]]:
    data = listed.json().get("data")
    return [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []


def _by_list(listed: Reply) -> str:
    for entry in _entries(listed):
        owner = entry.get("owned_by")
        if isinstance(owner, str) and owner in _OWNERS:
            return _OWNERS[owner]
    return ""


def _by_words(listed: Reply) -> str:
    """Tell the servers apart that only their list of models gives away."""
    entries = _entries(listed)
    if "openai-processing-ms" in listed.headers:
        return GENERIC
    for entry in entries:
        model, owner = entry.get("id"), entry.get("owned_by")
        if isinstance(model, str) and isinstance(owner, str) and owner and model.startswith(f"{owner}/"):
            return "transformers"
    server = listed.headers.get("server", "").lower()
    # mlx-lm serves from Python's own http.server and names no owner.
    if entries and server.startswith("basehttp") and all("owned_by" not in entry for entry in entries):
        return "mlx"
    return GENERIC


def _try(control: Control, path: str) -> Reply | None:
    try:
        return control.get(path)
    except (Unreachable, Timeout, ProtocolError):
        return None
