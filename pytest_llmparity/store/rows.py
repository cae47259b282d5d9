"""How runs, engines and samples lie in the store's tables.

Model text is kept as UTF-8 bytes in a BLOB: SQLite cuts TEXT at a NUL byte in some of its functions, and lone
surrogates are not text to it at all. What a run writes down beside its samples, its documents, lies in the table that
was named ``notes`` when the format was made.
"""

from __future__ import annotations

import array
import contextlib
import io
import itertools
import json
import math
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeAlias, overload

import msgspec

from pytest_llmparity.core.errors import StoreError
from pytest_llmparity.core.sample import (
    Completion,
    Failure,
    Identity,
    LateTokens,
    Phase,
    Sample,
    Timing,
    TokenLogprob,
    from_json,
    to_json,
)

SCHEMA = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY, plan_hash TEXT NOT NULL, session TEXT NOT NULL UNIQUE, started REAL NOT NULL, finished REAL,
    host TEXT NOT NULL, version TEXT NOT NULL, resumed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE holders (
    run TEXT NOT NULL REFERENCES runs, pid INTEGER NOT NULL, born REAL NOT NULL, PRIMARY KEY (run, pid, born)
) WITHOUT ROWID;
CREATE TABLE engines (
    run TEXT NOT NULL REFERENCES runs, name TEXT NOT NULL, spec_hash TEXT NOT NULL, identity BLOB NOT NULL,
    earlier INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (run, name)
) WITHOUT ROWID;
CREATE TABLE samples (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL REFERENCES runs, engine TEXT NOT NULL, request_sha256 TEXT NOT NULL, case_id TEXT NOT NULL,
    phase TEXT NOT NULL, repeat INTEGER NOT NULL, concurrency INTEGER NOT NULL, completion BLOB, ends BLOB,
    spelled BLOB, failure BLOB, timing BLOB, attempts INTEGER NOT NULL, omitted TEXT NOT NULL,
    prefix TEXT NOT NULL,
    UNIQUE (run, engine, request_sha256, case_id, phase, repeat, concurrency)
);
CREATE TABLE tokens (
    number INTEGER PRIMARY KEY REFERENCES samples ON DELETE CASCADE, content BLOB NOT NULL
);
CREATE TRIGGER another_answer AFTER UPDATE OF completion ON samples BEGIN
    DELETE FROM tokens WHERE number = NEW.number;
END;
CREATE TABLE notes (
    run TEXT NOT NULL REFERENCES runs, name TEXT NOT NULL, content BLOB NOT NULL, PRIMARY KEY (run, name)
) WITHOUT ROWID;
CREATE TABLE probes (key TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE looks (
    test TEXT NOT NULL, check_name TEXT NOT NULL, pair TEXT NOT NULL, prompt_digest TEXT NOT NULL,
    outcome TEXT NOT NULL, earlier INTEGER NOT NULL, PRIMARY KEY (test, check_name, pair)
) WITHOUT ROWID;
"""

KEY_COLUMNS: Final = "run, engine, request_sha256, case_id, phase, repeat, concurrency"
_CONTENT: Final = ("completion", "ends", "spelled", "failure", "timing", "attempts", "omitted", "prefix")
SAMPLE_COLUMNS: Final = f"{KEY_COLUMNS}, {', '.join(_CONTENT)}"
PUT_SAMPLE: Final = (
    f"INSERT INTO samples ({SAMPLE_COLUMNS}) VALUES ({', '.join('?' * 15)})"  # noqa: S608 - our own names
    f" ON CONFLICT ({KEY_COLUMNS}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _CONTENT)}"
)
"""Takes a :func:`row_of`. A sample that is replaced keeps its number, by which whoever judges it reads its tokens."""
PUT_TOKENS: Final = (
    f"INSERT OR REPLACE INTO tokens (number, content) SELECT number, ? FROM samples"  # noqa: S608 - our own names
    f" WHERE ({KEY_COLUMNS}) = (?, ?, ?, ?, ?, ?, ?)"
)
"""Takes a row of :func:`token_rows`."""

_BESIDES: Final = tuple(name for name in Completion.__struct_fields__ if name not in ("logprobs", "token_ends"))
_BLANK: Final = Completion(text="")
_ANSWER: Final = msgspec.json.Decoder(Completion)
_ENCODER: Final = msgspec.json.Encoder()
_PHASES: Final = {str(phase): phase for phase in Phase}


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
        return self._spelled if isinstance(self._spelled, bytes) else _bytes(self._spelled)

    @property
    def ends(self) -> Sequence[int]:  # type: ignore[override]
        """The place in them where each token ends."""
        return _numbers_from(self._ends)

    def __len__(self) -> int:
        return len(self._ends) // _WIDTH

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
    head, size = count * _WIDTH, len(content)
    if size < head:
        return None
    content.seek(head - _WIDTH)
    if head + _FIRST.unpack(content.read(_WIDTH))[0] != size:
        return None
    content.seek(max(0, place - 1) * _WIDTH)
    begin, end = _BETWEEN.unpack(content.read(2 * _WIDTH)) if place else (0, *_FIRST.unpack(content.read(_WIDTH)))
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
_WIDTH: Final = _FIRST.size
"""Bytes of a number in a row of numbers."""


def _numbers(values: Iterable[int]) -> bytes:
    """Return numbers in a row, as 32 bits each, the lowest first on every machine."""
    row = array.array("I", values)
    if sys.byteorder == "big":
        row.byteswap()
    return row.tobytes()


def _numbers_from(packed: bytes) -> Sequence[int]:
    row = array.array("I", packed)
    if sys.byteorder == "big":
        row.byteswap()
    return row


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def pack_tokens(tokens: Sequence[TokenLogprob]) -> bytes:
    """Return token records so that one of them is read without the others: where each ends, then one after the other.

    A record holds bytes as Latin-1 text.
    """
    records = [_packed_token(token) for token in tokens]
    return _numbers(itertools.accumulate(map(len, records))) + b"".join(records)


def _packed_token(token: TokenLogprob) -> bytes:
    top = [(other.decode("latin-1"), logprob) for other, logprob in token.top]
    record = (token.token.decode("latin-1"), token.logprob, token.id, top)
    if math.isfinite(sum((logprob for _, logprob in top), token.logprob or 0.0)):
        with contextlib.suppress(TypeError):  # numbers of numpy
            return _ENCODER.encode(record)
    return pack(record)


def identity_from(packed: bytes) -> Identity:
    """Return an identity as :func:`pack` wrote it."""
    return from_json(Identity, unpack(packed))


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


def row_of(run: str, sample: Sample) -> tuple[object, ...]:
    """Return the values of :data:`SAMPLE_COLUMNS`; the token records themselves are not among them."""
    completion = sample.completion
    tokens = () if completion is None else tuple(completion.logprobs)
    spelled = b"".join(token.token for token in tokens)
    alike = completion is None or spelled == _bytes(completion.text)
    return (
        *_key_of(run, sample),
        None if completion is None else _pack_completion(completion),
        _numbers(itertools.accumulate(len(token.token) for token in tokens)) if tokens else None,
        spelled if tokens and not alike else None,
        *(None if part is None else pack(part) for part in (sample.failure, sample.timing)),
        sample.attempts,
        json.dumps(sample.omitted),
        sample.prefix,
    )


def token_rows(run: str, samples: Iterable[Sample]) -> list[tuple[object, ...]]:
    """Return the values of :data:`PUT_TOKENS` for every sample that has token records."""
    return [
        (pack_tokens(sample.completion.logprobs), *_key_of(run, sample))
        for sample in samples
        if sample.completion is not None and sample.completion.logprobs
    ]


def _key_of(run: str, sample: Sample) -> tuple[object, ...]:
    """Return the values of :data:`KEY_COLUMNS`."""
    asked = (sample.request_sha256, sample.case, str(sample.phase), sample.repeat, sample.concurrency)
    return (run, sample.engine, *asked)


def sample_from(row: tuple[Any, ...], read: ReadTokens) -> Sample:
    """Return the sample from its number and the values of :data:`SAMPLE_COLUMNS`, but for the run.

    ``read`` is called with its number when somebody asks for its tokens, see :class:`StoredTokens`.
    """
    number, engine, sha, case, phase, repeat, concurrency, packed, ends, spelled, *others = row
    failure, timing, attempts, omitted, prefix = others
    _refuse_other_types((sha, case, prefix, omitted), (repeat, concurrency, attempts), ends, spelled)
    completion = None if packed is None else _completion_from(packed)
    if completion is not None and ends:
        tokens = StoredTokens(read, number, ends, completion.text if spelled is None else spelled)
        msgspec.structs.force_setattr(
            completion, "logprobs", tokens
        )  # nobody else has it yet; a copy takes as long as reading it
    return Sample(
        engine=engine,
        case=case,
        phase=_PHASES[phase],
        repeat=repeat,
        concurrency=concurrency,
        request_sha256=sha,
        completion=completion,
        failure=None if failure is None else from_json(Failure, unpack(failure)),
        timing=None if timing is None else from_json(Timing, unpack(timing)),
        attempts=attempts,
        omitted=() if omitted == "[]" else msgspec.json.decode(omitted, type=tuple[str, ...]),
        prefix=prefix,
    )


def _refuse_other_types(texts: Iterable[object], counts: Iterable[object], ends: Any, spelled: Any) -> None:
    """Raise ``ValueError`` for a row that SQLite kept though we never wrote it: its columns take every type."""
    if not all(type(text) is str for text in texts):
        raise ValueError("a text of an answer is none")
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("a count of an answer is none")
    for part in (ends, spelled):
        if part is not None and type(part) is not bytes:
            raise ValueError("the tokens of an answer are no bytes")
    if ends is not None and len(ends) % _WIDTH:
        raise ValueError("it is not said where the tokens of an answer end")


def _pack_completion(completion: Completion) -> bytes:
    """Return an answer without its token records; what has its default is not written down."""
    values = {name: getattr(completion, name) for name in _BESIDES}
    return pack({name: value for name, value in values.items() if name == "text" or value != getattr(_BLANK, name)})


def _completion_from(packed: bytes) -> Completion:
    try:
        return _ANSWER.decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return from_json(Completion, unpack(packed))
