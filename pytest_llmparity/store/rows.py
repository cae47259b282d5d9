"""How runs, engines and samples lie in the store's tables.

Model text is kept as UTF-8 bytes in a BLOB: SQLite cuts TEXT at a NUL byte in some of its functions, and lone
surrogates are not text to it at all. What a run writes down beside its samples, its documents, lies in the table that
was named ``notes`` when the format was made.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from pytest_llmparity.core.sample import (
    Completion,
    Failure,
    Identity,
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


def identity_from(data: bytes) -> Identity:
    """Return an identity as :func:`pack` wrote it."""
    return from_json(Identity, unpack(data))


def pack(value: object) -> bytes:
    """Return a dataclass of ours, or a dictionary of builtins, as JSON bytes."""
    content = value if isinstance(value, dict) else to_json(value)
    # Not ASCII-escaped: two lone surrogates in a row would come back as one character.
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def unpack(data: bytes) -> Any:
    """Return the JSON value in bytes that :func:`pack` made."""
    return json.loads(data.decode("utf-8", "surrogatepass"))


def row_of(run: str, sample: Sample) -> tuple[object, ...]:
    """Return the run and the values of :data:`SAMPLE_COLUMNS`."""
    rest = (sample.failure, sample.timing)
    return (
        run,
        sample.engine,
        sample.case,
        str(sample.phase),
        sample.repeat,
        sample.concurrency,
        sample.request_sha256,
        None if sample.completion is None else _pack_completion(sample.completion),
        *(None if part is None else pack(part) for part in rest),
        sample.attempts,
        json.dumps(sample.omitted),
        sample.prefix,
    )


def sample_from(row: tuple[Any, ...]) -> Sample:
    """Return the sample from the values of :data:`SAMPLE_COLUMNS`."""
    engine, case, phase, repeat, concurrency, sha, completion, failure, timing, attempts, omitted, prefix = row
    return Sample(
        engine=engine,
        case=case,
        phase=Phase(phase),
        repeat=repeat,
        concurrency=concurrency,
        request_sha256=sha,
        completion=None if completion is None else _completion_from(completion),
        failure=None if failure is None else from_json(Failure, unpack(failure)),
        timing=None if timing is None else from_json(Timing, unpack(timing)),
        attempts=attempts,
        omitted=tuple(json.loads(omitted)),
        prefix=prefix,
    )


def _pack_completion(completion: Completion) -> bytes:
    # Token records are most of a completion; as plain lists they are written and read several times faster.
    content = to_json(dataclasses.replace(completion, logprobs=()))
    content["logprobs"] = [
        (t.token.decode("latin-1"), t.logprob, t.id, [(other.decode("latin-1"), lp) for other, lp in t.top])
        for t in completion.logprobs
    ]
    return pack(content)


def _completion_from(data: bytes) -> Completion:
    content = unpack(data)
    logprobs = tuple(
        TokenLogprob(
            token=token.encode("latin-1"),
            logprob=logprob,
            top=tuple((other.encode("latin-1"), lp) for other, lp in top),
            id=number,
        )
        for token, logprob, number, top in content.pop("logprobs")
    )
    return dataclasses.replace(from_json(Completion, content), logprobs=logprobs)
