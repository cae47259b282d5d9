"""Answers are noted as they come in, for a recording: each in a line of a file that whoever records reads afterwards.

The file lies in a folder of this account alone and is gone when the recording is written. It is added to by every
process of a run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pytest_llmparity.core.ports import AdapterProtocol
from pytest_llmparity.core.prompts.parts import without_bytes
from pytest_llmparity.core.recording import Exchanged, chunk
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.transport.exchange import Exchange

if TYPE_CHECKING:
    from pytest_llmparity.run.plan import Job


def overhear(adapter: AdapterProtocol, job: Job, exchange: Exchange) -> None:
    """Note an answer where its engine is recorded; of a timed request what was asked without its number."""
    recorder = adapter.spec.recorder if isinstance(adapter, Adapter) else None
    if recorder is not None:
        write_down(recorder, exchanged(adapter, job, exchange))


def exchanged(adapter: AdapterProtocol, job: Job, exchange: Exchange) -> Exchanged:
    """Return an answer as a recording keeps it, what the server repeats of its key hidden."""
    body, start = bytes(adapter.mask.binary(exchange.body)), 0
    moved = len(body) != len(exchange.body)  # a key was in it: what came when is not known to the byte any more
    chunks = []
    for read in exchange.reads[-1:] if moved else exchange.reads:
        end = len(body) if moved else read.end
        chunks.append(chunk(max(0, read.arrived_ns - exchange.sent_ns) / 1e9, body[start:end]))
        start = end
    return Exchanged(
        case=job.case,
        phase=job.phase,
        concurrency=job.concurrency,
        method="GET" if job.wire.method == "GET" else "POST",
        path=job.wire.path,
        request=without_bytes(json.loads(job.wire.body)),
        status=exchange.status,
        type=exchange.headers.get("content-type", ""),
        chunks=tuple(chunks),
        repeat=job.repeat,
        cached=job.cached,
    )


def write_down(file: Path, line: Exchanged) -> None:
    """Add a line to a file in one write."""
    with file.open("ab", buffering=0) as lines:
        lines.write(msgspec.json.encode(line) + b"\n")


def overheard(file: Path) -> list[Exchanged]:
    """Return the lines of a file that :func:`write_down` wrote."""
    if not file.exists():
        return []
    return [msgspec.json.decode(line, type=Exchanged) for line in file.read_bytes().splitlines()]
