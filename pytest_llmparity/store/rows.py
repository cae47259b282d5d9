"""How runs, engines and samples lie in the store's tables.

Model text is kept as UTF-8 bytes in a BLOB: SQLite cuts TEXT at a NUL byte in some of its functions, and lone
surrogates are not text to it at all. What a run writes down beside its samples, its documents, lies in the table that
was named ``notes`` when the format was made.
"""

from __future__ import annotations

import array
import dataclasses
import functools
import itertools
import json
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, overload

import msgspec

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
    run TEXT NOT NULL REFERENCES runs, engine TEXT NOT NULL, request_sha256 TEXT NOT NULL, case_id TEXT NOT NULL,
    phase TEXT NOT NULL, repeat INTEGER NOT NULL, concurrency INTEGER NOT NULL, completion BLOB, failure BLOB,
    timing BLOB, attempts INTEGER NOT NULL, omitted TEXT NOT NULL,
    prefix TEXT NOT NULL,
    PRIMARY KEY (run, engine, request_sha256, case_id, phase, repeat, concurrency)
);
CREATE TABLE notes (
    run TEXT NOT NULL REFERENCES runs, name TEXT NOT NULL, content BLOB NOT NULL, PRIMARY KEY (run, name)
) WITHOUT ROWID;
CREATE TABLE probes (key TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE looks (
    test TEXT NOT NULL, check_name TEXT NOT NULL, pair TEXT NOT NULL, prompt_digest TEXT NOT NULL,
    outcome TEXT NOT NULL, earlier INTEGER NOT NULL, PRIMARY KEY (test, check_name, pair)
) WITHOUT ROWID;
"""

SAMPLE_COLUMNS = (
    "engine, case_id, phase, repeat, concurrency, request_sha256, completion, failure, timing, attempts, "
    "omitted, prefix"
)
KEY_COLUMNS = "engine, case_id, phase, repeat, concurrency, request_sha256"


class StoredToken(msgspec.Struct, array_like=True, gc=False):
    """A token record as it lies in the store: bytes as Latin-1 text, the alternatives not read yet."""

    token: str
    logprob: float | None
    id: int | None
    top: msgspec.Raw


_BESIDES: Final = tuple(field.name for field in dataclasses.fields(Completion) if field.name != "logprobs")


def _answer() -> Any:
    """Return the reader of an answer as it lies in the store; what an older version did not write has its default."""
    hints = typing.get_type_hints(Completion) | {"logprobs": list[StoredToken]}
    blank = Completion(text="")
    fields = [(name, hints[name], getattr(blank, name)) for name in _BESIDES if name not in ("text", "server")]
    server: tuple[str, Any, Any] = ("server", hints["server"], msgspec.field(default_factory=dict))
    return msgspec.json.Decoder(
        msgspec.defstruct("Answer", [("text", str), *fields, server, ("logprobs", hints["logprobs"], [])], gc=False)
    )


_ANSWER: Final = _answer()
_TOKENS: Final = b',"logprobs":['
_LAST_BEFORE: Final = f',"{_BESIDES[-1]}":'.encode()
"""What :func:`_pack_completion` writes last before the token records; earlier versions may not have."""


class StoredTokens(LateTokens):
    """The token records of one answer in the store; ``read`` returns them as they lie there."""

    __slots__ = ("_read", "ends", "spelled")

    def __init__(self, read: Callable[[], Sequence[StoredToken]]) -> None:
        self._read = read

    def __getattr__(self, name: str) -> Any:
        """Read the spelling when somebody asks for it: of equal texts that is one of the two at most."""
        if name not in ("ends", "spelled"):
            raise AttributeError(name)
        texts = [token.token for token in self._read()]
        self.spelled = "".join(texts).encode("latin-1")
        self.ends = array.array("I", itertools.accumulate(map(len, texts)))
        return getattr(self, name)

    @overload
    def __getitem__(self, index: int) -> TokenLogprob: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[TokenLogprob, ...]: ...
    def __getitem__(self, index: int | slice) -> TokenLogprob | tuple[TokenLogprob, ...]:
        tokens = self._read()
        return tuple(map(_record, tokens[index])) if isinstance(index, slice) else _record(tokens[index])

    def __iter__(self) -> Iterator[TokenLogprob]:
        return iter(self[:])


def _record(token: StoredToken) -> TokenLogprob:
    top = tuple((other.encode("latin-1"), logprob) for other, logprob in unpack(token.top))
    return TokenLogprob(token=token.token.encode("latin-1"), logprob=token.logprob, top=top, id=token.id)


def identity_from(data: bytes) -> Identity:
    """Return an identity as :func:`pack` wrote it."""
    return from_json(Identity, unpack(data))


def pack(value: object) -> bytes:
    """Return a dataclass of ours, or builtins, as JSON bytes."""
    # Not by msgspec, which writes infinity as null, nor escaped: two half characters would come back as one.
    return json.dumps(to_json(value), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def unpack(data: bytes) -> Any:
    """Return the JSON value in bytes that :func:`pack` made."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):  # half characters, infinity: Python's reader takes them
        return json.loads(data.decode("utf-8", "surrogatepass"))


def row_of(run: str, sample: Sample) -> tuple[object, ...]:
    """Return the run and the values of :data:`SAMPLE_COLUMNS`."""
    return (
        run,
        sample.engine,
        sample.case,
        str(sample.phase),
        sample.repeat,
        sample.concurrency,
        sample.request_sha256,
        None if sample.completion is None else _pack_completion(sample.completion),
        *(None if part is None else pack(part) for part in (sample.failure, sample.timing)),
        sample.attempts,
        json.dumps(sample.omitted),
        sample.prefix,
    )


def tokens_from(completion: bytes) -> Sequence[StoredToken]:
    """Return the token records of an answer as they lie in the store."""
    tokens: Sequence[StoredToken] = _stored(completion).logprobs
    return tokens


def sample_from(
    row: tuple[Any, ...], read: Callable[[Sequence[object]], Sequence[StoredToken]] | None = None
) -> Sample:
    """Return the sample from the values of :data:`SAMPLE_COLUMNS`.

    With ``read``, which returns the :func:`tokens_from` the answer in the row with these values of
    :data:`KEY_COLUMNS`, its token records are read when somebody asks for them.
    """
    engine, case, phase, repeat, concurrency, sha, completion, failure, timing, attempts, omitted, prefix = row
    later = None if read is None else functools.partial(read, (engine, case, phase, repeat, concurrency, sha))
    return Sample(
        engine=engine,
        case=case,
        phase=Phase(phase),
        repeat=repeat,
        concurrency=concurrency,
        request_sha256=sha,
        completion=None if completion is None else _completion_from(completion, later),
        failure=None if failure is None else from_json(Failure, unpack(failure)),
        timing=None if timing is None else from_json(Timing, unpack(timing)),
        attempts=attempts,
        omitted=() if omitted == "[]" else tuple(json.loads(omitted)),
        prefix=prefix,
    )


def _pack_completion(completion: Completion) -> bytes:
    content = {name: getattr(completion, name) for name in _BESIDES}
    content["logprobs"] = [
        (t.token.decode("latin-1"), t.logprob, t.id, [(other.decode("latin-1"), lp) for other, lp in t.top])
        for t in completion.logprobs
    ]
    return pack(content)


def _completion_from(data: bytes, read: Callable[[], Sequence[StoredToken]] | None) -> Completion:
    tokens: Sequence[TokenLogprob] = ()
    if read is not None and (begin := _tokens_begin(data)) is not None:
        stored, tokens = _stored(data[:begin] + b"}"), StoredTokens(read)
    else:
        stored = _stored(data)
        if stored.logprobs:
            tokens = tuple(map(_record, stored.logprobs)) if read is None else StoredTokens(read)
    return Completion(logprobs=tokens, **{name: getattr(stored, name) for name in _BESIDES})


def _tokens_begin(data: bytes) -> int | None:
    """Return where the token records of an answer begin if they are all that is left; ``None`` where there are none.

    They are nine tenths of an answer, and of most nobody asks for them. No string holds the marks: its quotes are
    escaped.
    """
    begin = data.find(_TOKENS)
    filled = begin > 0 and data[begin + len(_TOKENS) : begin + len(_TOKENS) + 1] != b"]"
    return begin if filled and data.find(_LAST_BEFORE, 0, begin) > 0 else None


def _stored(data: bytes) -> Any:
    """Return an answer as it lies in the store, the alternatives of its tokens unread."""
    try:
        return _ANSWER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        content = unpack(data)
        tokens = [(*token[:3], msgspec.Raw(json.dumps(token[3]).encode())) for token in content.pop("logprobs", ())]
        stored = msgspec.convert(content, _ANSWER.type)
        stored.logprobs = [StoredToken(*token) for token in tokens]
        return stored
