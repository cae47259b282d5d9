"""Recordings on disk: ``recordings/NAME.jsonl``, read with the same care as golden answers, written in one step."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from pytest_llmparity.core.errors import RecordingError
from pytest_llmparity.core.recording import FORMAT, Exchanged, Header, Recorded
from pytest_llmparity.core.words.printable import elide, printable
from pytest_llmparity.settings.specification import RECORDINGS as FOLDER
from pytest_llmparity.store import lines
from pytest_llmparity.store.whole import replace

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
SUFFIX: Final = ".jsonl"


def place(root: Path, name: str) -> Path:
    """Return the path of a recording; ``RecordingError`` for a name that leads anywhere else than into the folder."""
    if not _NAME.fullmatch(name):
        shown = elide(printable(name), 60)
        raise RecordingError(f"{shown!r} can be no name of a recording: it would be part of a file's name")
    folder = root / FOLDER
    path = folder / f"{name}{SUFFIX}"
    if not path.resolve().is_relative_to(folder.resolve()):
        raise RecordingError(f"{named(path)} leads out of {FOLDER}/ by a symbolic link; put the file itself there")
    return path


def named(path: Path) -> str:
    """Return a recording as messages name it: from the project's root."""
    return printable(f"{FOLDER}/{path.name}")


def header(path: Path) -> Header:
    """Return whose answers a recording has; ``RecordingError`` where it is not there or cannot be used."""
    return _header(path, _lines(path))


def digest(path: Path) -> str:
    """Return a hash of the file, by which another recording of the same name is known; empty where it is not there."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def read(path: Path) -> Recorded:
    """Return a recording; ``RecordingError`` names the line that cannot be used."""
    content = _lines(path)
    about = _header(path, content)
    exchanges = [
        lines.decode(line, Exchanged, where=f"{named(path)}:{number}", error=RecordingError)
        for number, line in enumerate(content[1:], 2)
    ]
    if len(exchanges) != about.exchanges:
        raise RecordingError(
            f"{named(path)} says that it has {about.exchanges} answers and has {len(exchanges)}: it was cut or "
            "changed; take the file from version control, or record it anew"
        )
    return Recorded(header=about, exchanges=exchanges)


def write(path: Path, recorded: Recorded) -> None:
    """Write a recording in one step; ``RecordingError`` when it cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, _texts(recorded), shared=True)
    except OSError as error:
        raise RecordingError(f"{named(path)} cannot be written: {error.strerror or error}") from error


def _lines(path: Path) -> list[bytes]:
    content = lines.read(path, where=named(path), error=RecordingError)
    if content is None:
        raise RecordingError(f"there is no {named(path)}; record it: llmparity record ENGINE -o {named(path)}")
    return content


def _header(path: Path, content: list[bytes]) -> Header:
    first, where = content[0] if content else b"", f"{named(path)}:1"
    number = lines.decode(first, dict[str, Any], where=where, error=RecordingError).get("format")
    if number != FORMAT:
        raise RecordingError(
            f"{named(path)} has format {elide(printable(str(number)), 20)}, and this version reads {FORMAT}; update "
            "pytest-llmparity, or record it anew"
        )
    return lines.decode(first, Header, where=where, error=RecordingError)


def _texts(recorded: Recorded) -> Iterator[str]:
    for line in (recorded.header, *recorded.exchanges):
        yield json.dumps(msgspec.to_builtins(line), ensure_ascii=False, allow_nan=False) + "\n"
