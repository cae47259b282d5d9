"""sha256 of model files: gigabytes are read once, and once more only when the file has changed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

REMEMBERED: Final = 64 * 1024 * 1024
"""From this size on (bytes) a digest is kept in the user's cache; what is smaller is read in a blink."""


def sha256(path: Path) -> str:
    """Return the hex sha256 of a file. Asked again for an unchanged one it is not read again, by no later run either.

    Unchanged means: the same path, size, inode, and times of its last change. Raises ``OSError`` where it cannot be
    read.
    """
    stat = path.stat()
    return _sha256(path.absolute(), (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))


def of_files(paths: Sequence[Path]) -> str:
    """Return ``sha256:…`` of the weights in these files.

    One file: its own. Several: that of the list ``sha256sum`` prints for them in the order of their names, so
    ``sha256sum model-*.safetensors | sha256sum`` repeats it.
    """
    if len(paths) == 1:
        return "sha256:" + sha256(paths[0])
    lines = "".join(f"{sha256(path)}  {path.name}\n" for path in sorted(paths, key=lambda path: path.name))
    return "sha256:" + hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, stamp: tuple[int, ...]) -> str:
    import platformdirs  # here: most runs read no file of a model

    name = hashlib.sha256(os.fsencode(path)).hexdigest()
    entry = platformdirs.user_cache_path("pytest-llmparity") / "sha256" / f"{name}.json"
    known = {"path": str(path), "stamp": list(stamp)}
    big = stamp[0] >= REMEMBERED
    if big and (remembered := _remembered(entry, known)):
        return remembered
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if big:
        _remember(entry, {**known, "sha256": digest})
    return digest


def _remembered(entry: Path, known: Mapping[str, object]) -> str:
    try:
        content = json.loads(entry.read_bytes())
    except (OSError, ValueError):
        return ""
    if not isinstance(content, dict) or any(content.get(key) != value for key, value in known.items()):
        return ""
    return str(content.get("sha256", ""))


def _remember(entry: Path, content: Mapping[str, object]) -> None:
    """Write a cache entry in one step, so that readers see a whole one; where it cannot be written nothing is lost."""
    with contextlib.suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=entry.parent)
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(content, file)
        Path(name).replace(entry)
