"""The header of a GGUF file: metadata and tensors, without their data.

The ``gguf`` package reads the same, with an array of numpy for every entry: a vocabulary of 152 thousand tokens took it
9 s on two cores, this reader 0.4 s, and every start of an engine waits for it. The layout is ggml's ``docs/gguf.md``.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_ALIGNMENT: Final = 32
_DEEPEST: Final = 4


class NotWhole(ValueError):
    """The file is no GGUF file, ends early, or is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor: ``kind`` is ggml's number of its type, ``offset`` is in bytes.

    ``shape`` begins with the dimension that changes fastest.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    offset: int

    @property
    def elements(self) -> int:
        """How many weights it has."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What stands before the tensors' data, which begins ``data_at`` bytes into the file of ``size`` bytes."""

    metadata: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    data_at: int
    size: int


def read_header(path: Path) -> Header:
    """Return a file's header. Raises ``NotWhole``, or ``OSError`` where the file cannot be read."""
    with path.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _Reader(content).header()
        except ValueError as error:  # an empty file cannot be mapped
            raise NotWhole(str(error)) from None


class _Reader:
    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._at = 0

    def header(self) -> Header:
        if self._take(4) != b"GGUF" or self._number("I") not in (2, 3):
            raise NotWhole("it does not begin as a GGUF file of version 2 or 3 does")
        tensors, entries = self._number("Q"), self._number("Q")
        metadata = {}
        for _ in range(entries):
            key = self._text()
            metadata[key] = self._value(self._number("I"))
        listed = tuple(self._tensor() for _ in range(tensors))
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise NotWhole("its alignment is no number")
        data_at = math.ceil(self._at / alignment) * alignment if listed else self._at
        return Header(metadata=metadata, tensors=listed, data_at=data_at, size=len(self._content))

    def _take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._content):
            raise NotWhole("it ends early")
        taken = self._content[self._at : end]
        self._at = end
        return taken

    def _number(self, code: str) -> Any:
        return struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))[0]

    def _text(self) -> str:
        return self._take(self._number("Q")).decode("utf-8", "surrogateescape")

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _TEXT:
            return self._text()
        if kind != _ARRAY or depth > _DEEPEST:
            raise NotWhole(f"it holds a value of type {kind}")
        inner, length = self._number("I"), self._number("Q")
        if length > len(self._content):
            raise NotWhole("an array has more entries than the file has bytes")
        if inner in _SCALARS:
            code = f"<{length}{_SCALARS[inner]}"
            return list(struct.unpack(code, self._take(struct.calcsize(code))))
        return [self._value(inner, depth + 1) for _ in range(length)]

    def _tensor(self) -> Tensor:
        name, dimensions = self._text(), self._number("I")
        if dimensions > len(self._content):
            raise NotWhole("a tensor has more dimensions than the file has bytes")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        return Tensor(name=name, kind=self._number("I"), shape=shape, offset=self._number("Q"))
