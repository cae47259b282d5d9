"""The process that measures: calibrates itself, then puts the engines under load in turn.

Reads a ``Schedule`` from standard input, writes a ``TimedResult`` to standard output, ends when standard input does.
Standard library, httptools and our transport only.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import os
import pickle
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Collection, Sequence
from itertools import cycle, islice
from math import ceil

from pytest_llmparity.core.errors import EngineError, LLMParityError
from pytest_llmparity.core.sample import Failure, WireRequest
from pytest_llmparity.core.visits import block_sizes, order
from pytest_llmparity.run.timed.measure import (
    BOOT,
    Calibration,
    Record,
    Schedule,
    Target,
    TimedResult,
    Watched,
)
from pytest_llmparity.run.timed.mock import end_with_stdin
from pytest_llmparity.transport.client import MIXED, Client
from pytest_llmparity.transport.exchange import Exchange, sse

Asked = Sequence[tuple[str, WireRequest]]

STAGGER_S = 0.001
"""Streams of a block start this far apart: a herd of requests in one turn of the loop would wait for each other."""

_MOCK_FIRST_MS = 20.0
_MOCK_GAP_MS = 5.0
_MOCK_GAP_MS_PER_STREAM = 0.3  # a paced server in Python carries some 3,000 events per second beside us
_MOCK_EVENTS = 12
_MOCK_LEAST_REQUESTS = 8


async def block(
    client: Client, name: str, number: int, asked: Asked, concurrency: int, deadline_s: float = float("inf")
) -> list[Record]:
    """Send ``asked`` with ``concurrency`` requests under way and return their records in order of asking.

    No request is sent after ``deadline_s`` on ``time.monotonic``'s clock.
    """
    with contextlib.suppress(EngineError):  # the requests themselves will say what is wrong
        await client.open(min(concurrency, len(asked)))
    left = iter(enumerate(asked))
    records: list[Record] = []

    async def stream(position: int) -> None:
        await asyncio.sleep(position * STAGGER_S)
        for index, (case, wire) in left:
            if time.monotonic() >= deadline_s:
                return
            exchange: Exchange | None = None
            failure: Failure | None = None
            try:
                exchange = await client.send(wire.method, wire.path, wire.body, most_bytes=wire.answer_bytes)
            except EngineError as error:
                failure = Failure(kind=type(error).__name__, message=str(error), status=error.status)
            records.append(
                Record(engine=name, block=number, index=index, case=case, exchange=exchange, failure=failure)
            )

    await asyncio.gather(*(stream(position) for position in range(concurrency)))
    return sorted(records, key=lambda record: record.index)


async def load(schedule: Schedule, clients: Sequence[Client]) -> tuple[list[Record], list[Watched], bool]:
    """Run all blocks in their order; returns records, what was watched, and whether the deadline cut them short."""
    deadline_s = float("inf") if schedule.deadline_s is None else time.monotonic() + schedule.deadline_s
    sizes = block_sizes(schedule.per_engine, schedule.blocks)
    records: list[Record] = []
    watched: list[Watched] = []
    for engine, number in order(len(schedule.targets), schedule.blocks):
        target, client = schedule.targets[engine], clients[engine]
        start = sum(sizes[:number])
        asked = list(islice(cycle(target.requests), start, start + sizes[number]))
        before = await ask_around(client, target)
        records += await block(client, target.name, number, asked, schedule.concurrency, deadline_s)
        if target.watch is not None:
            after = await ask_around(client, target)
            watched.append(Watched(engine=target.name, block=number, before=before, after=after))
    return records, watched, len(records) < schedule.per_engine * len(schedule.targets)


async def warm_up(client: Client, target: Target, concurrency: int) -> None:
    """Open the connections and send one request whose answer is dropped; a server may load its model for it."""
    with contextlib.suppress(EngineError):
        await client.open(concurrency)
        wire = target.warm_up
        await client.send(wire.method, wire.path, wire.body, most_bytes=wire.answer_bytes)


async def ask_around(client: Client, target: Target) -> Exchange | None:
    """Return the answer to what is asked around a block, ``None`` where nothing is, or none came."""
    if target.watch is None:
        return None
    try:
        return await client.send(target.watch.method, target.watch.path, target.watch.body)
    except EngineError:
        return None


@contextlib.asynccontextmanager
async def mock(concurrency: int) -> AsyncIterator[str]:
    """Run the paced server for a block, and yield its base URL."""
    gap_ms = max(_MOCK_GAP_MS, concurrency * _MOCK_GAP_MS_PER_STREAM)
    argv = [sys.executable, "-P", "-c", BOOT, sys.argv[1], "pytest_llmparity.run.timed.mock"]
    argv += [str(_MOCK_FIRST_MS), str(gap_ms), str(_MOCK_EVENTS)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            port = server.stdout.readline().strip().decode()
            if not port:
                raise LLMParityError("the paced server for self-calibration did not start")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


async def calibrate(concurrency: int, *, tls: bool) -> Calibration:
    """Return how late the paced server's first events are seen; ``tls`` picks the reader that TLS engines get."""
    request = ("", WireRequest(path="/", body=b"", sha256="", method="GET"))
    count = max(2 * concurrency, _MOCK_LEAST_REQUESTS)
    async with mock(concurrency) as base_url, Client(base_url, reader="transport" if tls else "auto") as client:
        await block(client, "", 0, [request] * concurrency, concurrency)  # warms connections and code
        records = await block(client, "", 0, [request] * count, concurrency)
    exchanges = [record.exchange for record in records if record.exchange is not None]
    if len(exchanges) < count:
        raise LLMParityError(f"self-calibration lost {count - len(exchanges)} of {count} answers on loopback")
    return judge(exchanges, concurrency)


def judge(exchanges: Sequence[Exchange], concurrency: int) -> Calibration:
    """Return how late first events arrived after the stamps of sending that the paced server put inside them."""
    late: list[int] = []
    for exchange in exchanges:
        first = next(iter(sse(exchange.body)))
        arrived_ns = next(read.arrived_ns for read in exchange.reads if read.end >= first.end)
        late.append(arrived_ns - int(first.data))
    return Calibration(
        concurrency=concurrency,
        clock="kernel" if all(exchange.clock == "kernel" for exchange in exchanges) else "user",
        ttft_error_p50_s=_quantile(late, 0.50),
        ttft_error_p99_s=_quantile(late, 0.99),
    )


def _quantile(values_ns: Sequence[int], share: float) -> float:
    """Return the nearest-rank quantile of nanoseconds, in seconds."""
    return sorted(values_ns)[max(ceil(share * len(values_ns)), 1) - 1] / 1e9


async def run(schedule: Schedule) -> TimedResult:
    """Calibrate, warm up, put the engines under load; return all records with the calibration."""
    tls = any(target.base_url.startswith("https:") for target in schedule.targets)
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                Client(
                    target.base_url,
                    headers=target.headers,
                    limits=target.limits,
                    ca_bundle=target.ca_bundle,
                    proxy=target.proxy,
                )
            )
            for target in schedule.targets
        ]
        gc.collect()
        gc.freeze()
        gc.disable()
        calibration = await calibrate(schedule.concurrency, tls=tls)
        for client, target in zip(clients, schedule.targets, strict=True):
            await warm_up(client, target, schedule.concurrency)
        records, watched, stopped = await load(schedule, clients)
        mixed = {
            target.name for client, target in zip(clients, schedule.targets, strict=True) if not await client.part()
        }
        records = [without_mixed(record, mixed) for record in records]
    return TimedResult(records=tuple(records), calibration=calibration, stopped=stopped, watched=tuple(watched))


def without_mixed(record: Record, mixed: Collection[str]) -> Record:
    """Return a record whose answer is surely its own, else one of a failure."""
    if record.engine not in mixed or record.exchange is None or not record.exchange.reused:
        return record
    return dataclasses.replace(record, exchange=None, failure=Failure(kind="ProtocolError", message=MIXED))


def main() -> None:
    """Do what the schedule on standard input says (the entry of the process)."""
    out = os.dup(1)
    os.dup2(2, 1)  # whatever prints must not print into the result
    length = int.from_bytes(sys.stdin.buffer.read(8), "big")
    schedule = pickle.loads(sys.stdin.buffer.read(length))  # noqa: S301 - written by our own parent
    assert isinstance(schedule, Schedule)
    end_with_stdin()
    result: TimedResult | LLMParityError
    try:
        result = asyncio.run(run(schedule))
    except LLMParityError as error:  # typed errors cross the pipe; anything else breaks this process and is reported
        result = error
    with os.fdopen(out, "wb") as stream:
        stream.write(pickle.dumps(result))
