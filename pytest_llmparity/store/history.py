"""The history that a project commits: a file with a line for each run, added by the controlling process alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from pytest_llmparity.core.errors import StoreError
from pytest_llmparity.core.history.entries import FORMAT, Entry
from pytest_llmparity.core.sample import from_json, to_json
from pytest_llmparity.core.words.printable import elide, printable
from pytest_llmparity.store.whole import replace

_MOST: Final = 64 * 1024 * 1024
"""Bytes that a history may have: a hundred thousand runs."""


def read(path: Path) -> list[Entry]:
    """Return the runs of a history in the order of the file, none where there is no file.

    It may be somebody else's: ``StoreError`` names the line that is none of a history, and files that are too large.
    """
    try:
        if not path.exists():
            return []
        if path.stat().st_size > _MOST:
            raise StoreError(f"{path} is no history: it has more than {_MOST // 1024 // 1024} MiB")
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    lines = content.split(b"\n")
    return [_entry(line, f"{path}:{n}", cut=n == len(lines)) for n, line in enumerate(lines, 1) if line.strip()]


def _entry(line: bytes, where: str, *, cut: bool) -> Entry:
    """Return the run of one line; ``cut`` says that no end of line follows it. Raises ``StoreError`` with ``where``."""
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        if cut and line.lstrip().startswith(b"{"):
            raise StoreError(
                f"{where}: no line of a history: it is the last one and was cut off while it was written; delete this "
                "line, and the runs before it stay"
            ) from None
        raise StoreError(f"{where}: no line of a history: {error}") from None
    if (number := fields.get("format", FORMAT)) != FORMAT:
        raise StoreError(f"{where}: format {elide(printable(str(number)), 20)}, and this version reads {FORMAT}")
    try:
        return from_json(Entry, fields)
    except (msgspec.MsgspecError, RecursionError, ValueError, TypeError) as error:
        raise StoreError(f"{where}: no line of a history: {error}") from None


def refuse_unusable(path: Path) -> None:
    """Raise ``StoreError`` for a file that a run cannot be added to, before the run."""
    if path.is_dir() or not path.parent.is_dir():
        raise StoreError(f"{path} names no file in a folder that is there")
    read(path)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise StoreError(f"{path} cannot be written by this account")


def add(path: Path, entry: Entry) -> None:
    """Add a run to a history, in one write; the line of the same run, if there is one, is replaced.

    Raises ``StoreError`` where the file cannot be used, ``OSError`` where it cannot be written.
    """
    refuse_unusable(path)
    line = json.dumps(to_json(entry), ensure_ascii=True, separators=(",", ":")) + "\n"
    kept = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    same = f'"run":{json.dumps(entry.run)},'
    if any(same in text for text in kept):
        replace(path, [line if same in text else text for text in kept], shared=True)
        return
    unended = bool(kept) and not kept[-1].endswith("\n")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, ("\n" if unended else "").encode() + line.encode())
    finally:
        os.close(descriptor)
