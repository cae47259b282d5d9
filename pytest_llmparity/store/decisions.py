"""Decisions whether a candidate may replace a baseline, one line each in a file beside the run store.

They outlive the runs they were made on, so the file holds all that ``--history`` shows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pytest_llmparity.core.errors import StoreError

FILE_NAME: Final = "decisions.jsonl"
FORMAT: Final = 1
_MOST: Final = 16 * 1024 * 1024
"""Bytes at the end of the file that are read: thousands of decisions."""


def append(folder: Path, decision: Mapping[str, Any]) -> None:
    """Add a decision, which is given as JSON builtins, to the file in the store's folder, in one write."""
    line = json.dumps(decision, ensure_ascii=True, separators=(",", ":")) + "\n"
    path = folder / FILE_NAME
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreError(f"the decision could not be written to {path}: {error.strerror}") from None


def newest(folder: Path, count: int) -> list[dict[str, Any]]:
    """Return the last decisions, oldest first; a line that cannot be read is left out."""
    try:
        with (folder / FILE_NAME).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _MOST))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"{folder / FILE_NAME} cannot be read: {error.strerror}") from None
    decisions = []
    for line in lines:
        try:
            decision = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(decision, dict) and decision.get("format") == FORMAT:
            decisions.append(decision)
    return decisions[-count:]
