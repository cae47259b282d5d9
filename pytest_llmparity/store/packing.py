"""Values as bytes of the store: JSON, and the token records of an answer, of which one is read without the others.

Model text is kept as UTF-8 bytes in a BLOB: SQLite cuts TEXT at a NUL byte in some of its functions, and lone
surrogates are not text to it at all.
"""

from __future__ import annotations

import array
import contextlib
import io
import itertools
import json
import math
import re
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeAlias, overload

import msgspec

from pytest_llmparity.core.errors import StoreError
from pytest_llmparity.core.sample import LateTokens, TokenLogprob, to_json

DEEPEST: Final = 100
"""How deep JSON in a store may be nested. What we write is flatter, but for schemas and arguments of tools."""
_ENCODER: Final = msgspec.json.Encoder()


def pack(value: object) -> bytes:
    """Return a dataclass of ours, or builtins, as JSON bytes."""
    # Not by msgspec, which writes infinity as null, nor escaped: two half characters would come back as one.
    return json.dumps(to_json(value), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def unpack(packed: bytes) -> Any:
    """Return the JSON value in bytes that :func:`pack` made."""
    try:
        return msgspec.json.decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError):  # half characters, infinity: Python's reader takes them
        return json.loads(packed.decode("utf-8", "surrogatepass"), parse_constant=_infinite)


def _infinite(text: str) -> float:
    if text == "NaN":
        raise ValueError("it holds NaN, which is no number")
    return float(text)


def refuse_deep(packed: bytes) -> None:
    """Raise ``ValueError`` for JSON that is nested deeper than :data:`DEEPEST`."""
    if packed.count(b"[") + packed.count(b"{") <= DEEPEST:
        return
    left = _TEXT.sub(b"", packed).translate(_ONE_KIND, delete=_NO_BRACKETS)
    for _ in range(DEEPEST):
        left = left.replace(b"[]", b"")
    if left:
        raise ValueError(f"nested deeper than {DEEPEST} levels, or cut off")


_TEXT: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")


# token records --------------------------------------------------------------------------------------------------------


class Content(Protocol):
    """Bytes of which only some are read."""

    def __len__(self) -> int: ...
    def seek(self, offset: int, /) -> object:
        """Go on reading here."""

    def read(self, length: int, /) -> bytes:
        """Return the next bytes, so many."""


UseTokens: TypeAlias = "Callable[[Content], list[TokenLogprob | None]]"
"""Makes records of the bytes that :func:`pack_tokens` made."""
ReadTokens: TypeAlias = Callable[[int, UseTokens], "list[TokenLogprob | None]"]
"""Returns what it is given makes of the bytes in the store that belong to the sample of this number."""


class StoredTokens(LateTokens):
    """The token records of one answer in the store.

    They are nine tenths of an answer, and of most nobody asks for more than where they end: so ``read`` is called with
    the sample's number when one of them is asked for, and with what it is to make of the bytes :func:`pack_tokens`
    made, of which one token takes few. ``spelled`` may be given as the answer's text, which most of them spell.
    """

    __slots__ = ("_ends", "_number", "_read", "_spelled")

    def __init__(self, read: ReadTokens, number: int, ends: bytes, spelled: bytes | str) -> None:
        self._read, self._number, self._ends, self._spelled = read, number, ends, spelled

    @property
    def spelled(self) -> bytes:  # type: ignore[override]  # not kept: the text is, and so are the ends
        """The bytes of all tokens in a row."""
        return self._spelled if isinstance(self._spelled, bytes) else encoded(self._spelled)

    @property
    def ends(self) -> Sequence[int]:  # type: ignore[override]
        """The place in them where each token ends."""
        return numbers_from(self._ends)

    def __len__(self) -> int:
        return len(self._ends) // WIDTH

    @overload
    def __getitem__(self, index: int) -> TokenLogprob: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[TokenLogprob, ...]: ...
    def __getitem__(self, index: int | slice) -> TokenLogprob | tuple[TokenLogprob, ...]:
        count = len(self)
        places = range(count)[index]  # raises IndexError as a tuple does
        ends = self.ends
        if isinstance(places, int):
            (record,) = self._read(self._number, lambda content: [_record(content, places, count)])
            return self._checked(record, places, ends)
        records = self._read(self._number, lambda content: _records(content, places, count))
        return tuple(self._checked(record, place, ends) for place, record in zip(places, records, strict=True))

    def _checked(self, record: TokenLogprob | None, place: int, ends: Sequence[int]) -> TokenLogprob:
        """Return a record that was read for the token at this place; ``StoreError`` where it is another answer's."""
        begin = ends[place - 1] if place else 0
        if record is None or len(record.token) != ends[place] - begin:
            raise StoreError(
                f"answer {self._number} in the store was replaced by another one while it was judged, so its tokens "
                "are not those of its text; do not go on with a run that another process judges, and judge it again "
                "(--parity-mode replay)"
            )
        return record

    def __iter__(self) -> Iterator[TokenLogprob]:
        return iter(self[:])


def _record(content: Content, place: int, count: int) -> TokenLogprob | None:
    """Return the record at a place among so many in what :func:`pack_tokens` made.

    ``None`` if it was made of more or fewer: the number that says where the last one ends is then another.
    """
    head, size = count * WIDTH, len(content)
    if size < head:
        return None
    content.seek(head - WIDTH)
    if head + _FIRST.unpack(content.read(WIDTH))[0] != size:
        return None
    content.seek(max(0, place - 1) * WIDTH)
    begin, end = _BETWEEN.unpack(content.read(2 * WIDTH)) if place else (0, *_FIRST.unpack(content.read(WIDTH)))
    content.seek(head + begin)
    token, logprob, number, top = unpack(content.read(end - begin))
    return TokenLogprob(
        token=token.encode("latin-1"),
        logprob=logprob,
        top=tuple([(other.encode("latin-1"), value) for other, value in top]),
        id=number,
    )


def _records(content: Content, places: Iterable[int], count: int) -> list[TokenLogprob | None]:
    """Return the records at these places, as :func:`_record` does."""
    content.seek(0)
    whole = Whole(content.read(len(content)))
    return [_record(whole, place, count) for place in places]


class Whole(io.BytesIO):
    """Bytes that were read already, as :class:`Content`."""

    def __len__(self) -> int:
        return self.getbuffer().nbytes


_FIRST: Final = struct.Struct("<I")
_BETWEEN: Final = struct.Struct("<II")
WIDTH: Final = _FIRST.size
"""Bytes of a number in a row of numbers."""


def numbers(values: Iterable[int]) -> bytes:
    """Return numbers in a row, as 32 bits each, the lowest first on every machine."""
    row = array.array("I", values)
    if sys.byteorder == "big":
        row.byteswap()
    return row.tobytes()


def numbers_from(packed: bytes) -> Sequence[int]:
    """Return the numbers that :func:`numbers` packed."""
    row = array.array("I", packed)
    if sys.byteorder == "big":
        row.byteswap()
    return row


def encoded(text: str) -> bytes:
    """Return a model's text as bytes, lone surrogates too."""
    return text.encode("utf-8", "surrogatepass")


def pack_tokens(tokens: Sequence[TokenLogprob]) -> bytes:
    """Return token records so that one of them is read without the others: where each ends, then one after the other.

    A record holds bytes as Latin-1 text.
    """
    records = [_packed_token(token) for token in tokens]
    return numbers(itertools.accumulate(map(len, records))) + b"".join(records)


def _packed_token(token: TokenLogprob) -> bytes:
    top = [(other.decode("latin-1"), logprob) for other, logprob in token.top]
    record = (token.token.decode("latin-1"), token.logprob, token.id, top)
    if math.isfinite(sum((logprob for _, logprob in top), token.logprob or 0.0)):
        with contextlib.suppress(TypeError):  # numbers of numpy
            return _ENCODER.encode(record)
    return pack(record)
