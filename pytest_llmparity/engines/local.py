"""GGUF files that a first configuration can name: in the project, and in the caches of other programs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

DEEPEST: Final = 4
"""How many folders deep files are looked for: a project's own models lie near its top, and a disk is large."""
MOST_FOLDERS: Final = 5000
NO_GENERATOR: Final = ("embed", "mmproj", "rerank")
"""Words in the names of models that are no generators: embeddings, projectors of images, rerankers."""


def generates(name: str) -> bool:
    """Tell whether a model's name gives no sign that it makes something else than text."""
    return not any(word in name.lower() for word in NO_GENERATOR)


def caches(environ: Mapping[str, str], home: Path) -> Sequence[Path]:
    """Return the folders where llama.cpp, Hugging Face and LM Studio keep what they downloaded.

    Ollama's blobs are no files to name: its daemon is asked.
    """
    xdg = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    hub = environ.get("HF_HUB_CACHE") or Path(environ.get("HF_HOME") or xdg / "huggingface") / "hub"
    return (
        Path(environ.get("LLAMA_CACHE") or xdg / "llama.cpp"),
        Path(hub),
        home / ".lmstudio/models",
        home / ".cache/lm-studio/models",
    )


def gguf_files(folders: Sequence[Path]) -> tuple[Path, ...]:
    """Return the GGUF files of models that generate, folder by folder, the largest of each first.

    A split file is named by its first part. Folders that cannot be read hold nothing.
    """
    models: dict[Path, None] = {}
    for folder in folders:
        files = [path for path in _below(folder) if generates(path.name) and _first_part(path) and _is_gguf(path)]
        models |= dict.fromkeys(sorted(files, key=lambda path: (-path.stat().st_size, path.name)))
    return tuple(models)


def _below(folder: Path) -> Iterator[Path]:
    for number, (place, below, names) in enumerate(os.walk(folder)):
        deep = len(Path(place).relative_to(folder).parts)
        below[:] = [] if deep >= DEEPEST or number >= MOST_FOLDERS else sorted(_worth_entering(below))
        yield from (Path(place) / name for name in names if name.endswith(".gguf"))


def _worth_entering(names: Sequence[str]) -> Iterator[str]:
    return (name for name in names if not name.startswith(".") and name not in ("node_modules", "__pycache__"))


def _first_part(path: Path) -> bool:
    return "-of-" not in path.stem or "-00001-of-" in path.stem


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False
