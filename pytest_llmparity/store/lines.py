"""Files of JSON lines that may be anybody's: sizes, depths and types are looked at before anything is used."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeVar

import msgspec

from pytest_llmparity.core.errors import LLMParityError
from pytest_llmparity.core.words.printable import elide, printable

MOST_BYTES: Final = 256 * 2**20
MOST_OF_A_LINE: Final = 32 * 2**20
MOST_LINES: Final = 200_000

D = TypeVar("D")


def read(path: Path, *, where: str, error: type[LLMParityError]) -> list[bytes] | None:
    """Return the lines of a file, ``None`` where there is none; raises ``error``, which names the file ``where``."""
    try:
        if not path.is_file():
            return None
        if (size := path.stat().st_size) > MOST_BYTES:
            raise error(f"{where} has {size} bytes, and files of up to {MOST_BYTES} are read")
        lines = path.read_bytes().split(b"\n")
    except OSError as trouble:
        raise error(f"{where} cannot be read: {trouble.strerror}") from trouble
    if not lines[-1]:
        del lines[-1]
    if len(lines) > MOST_LINES:
        raise error(f"{where} has {len(lines)} lines, and up to {MOST_LINES} are read")
    return lines


def decode(line: bytes, kind: type[D], *, where: str, error: type[LLMParityError]) -> D:
    """Return what a line holds; raises ``error``, which names file and line ``where``."""
    if len(line) > MOST_OF_A_LINE:
        raise error(f"{where}: has {len(line)} bytes; a line has up to {MOST_OF_A_LINE}")
    if line.startswith((b"<<<<<<<", b"=======", b">>>>>>>")):
        raise error(f"{where}: a merge was not finished; take one side, then record what is missing")
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as trouble:
        why = "nested too deeply" if isinstance(trouble, RecursionError) else elide(printable(str(trouble)), 200)
        raise error(f"{where}: {why}; take the file from version control, or delete it and record it anew") from None
