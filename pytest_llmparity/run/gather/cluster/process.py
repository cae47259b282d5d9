"""What runs on a node of a cluster for one replica of an engine: starts it, asks it, carries bytes to it.

Knows nothing of Ray: an object whose asynchronous methods are called from another machine. What crosses is the
specification, the requests of a step, and samples as msgspec's bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from pytest_llmparity.core.errors import LaunchError, reason_of
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.sample import Sample, from_json
from pytest_llmparity.engines import registry
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.keeper.client import Keeper, log_tail
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.ledger import Allowance
from pytest_llmparity.run.loop import LoopThread, in_thread, outside
from pytest_llmparity.run.plan import Job
from pytest_llmparity.run.sending.sender import OwnLine
from pytest_llmparity.settings.specification import EngineSpec

GATHERED_S: Final = 0.1
"""Answers of so long cross together: one at a time they would cost a call each."""
_READ: Final = 65536
_LOG_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How a replica is started.

    ``secrets`` are values of the variables that its specification names, ``slots`` how many requests it has to answer
    at once, ``left_s`` what is left of the run's time.
    """

    spec: EngineSpec
    slots: int
    secrets: Mapping[str, str]
    left_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What became of a start: what the starter found out, or why there is none."""

    info: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of one step that a replica is sent, at most ``concurrency`` at a time.

    ``allowed`` is how many requests may be sent, retries among them, ``None`` for any number; ``can`` is what probes
    learnt of the engine.
    """

    jobs: Sequence[Job]
    concurrency: int
    allowed: int | None
    left_s: float | None
    can: Mapping[str, Any]


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """Samples that have come since the last time, and how many requests were sent so far.

    With ``done`` what there is to say of the whole.
    """

    samples: Sequence[Sample] = ()
    done: bool = False
    mixed: int = 0
    sent: int = 0
    retries: int = 0
    late: bool = False
    error: str = ""


class _Sending:
    """Requests under way. Samples come from the thread of the loop that sends, and leave in another one."""

    def __init__(self, work: Future[int], allowance: Allowance) -> None:
        self.work = work
        self.allowance = allowance
        self.samples: list[Sample] = []
        self.guard = threading.Lock()

    def take(self) -> list[Sample]:
        with self.guard:
            taken, self.samples = self.samples, []
        return taken


class ReplicaProcess:
    """One replica on this machine. Its keeper ends it when this process ends, however that comes."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="llmparity-node-"))
        self._name = ""
        self._keeper: Keeper | None = None
        self._fleet: Fleet | None = None
        self._adapter: Adapter | None = None
        self._started: Started | None = None
        self._starting = asyncio.Lock()
        self._loop = LoopThread()
        self._sending: dict[str, _Sending] = {}
        self._lines: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
        self._dialled = 0

    async def here(self) -> None:
        """Return as soon as this process can be called."""

    async def start(self, order: Order) -> Started:
        """Start the engine, once; whoever asks again is told what became of it."""
        async with self._starting:
            if self._started is None:
                self._started = await outside(lambda: self._start(order))
        return self._started

    def _start(self, order: Order) -> Started:
        registry.discover()
        self._name = order.spec.name
        try:
            spec = with_gpus(dataclasses.replace(order.spec, replicas=1), os.environ)
        except LaunchError as error:
            return Started(error=reason_of(error, order.spec.name))
        self._keeper = keeper = Keeper.spawn(self._folder, apart=True)
        self._fleet = Fleet(
            {spec.name: spec},
            keeper=lambda: keeper,
            workdir=self._folder,
            environ={**os.environ, **order.secrets},
            slots=order.slots,
        )
        self._fleet.allowance = Allowance(seconds=order.left_s)
        engaged = self._fleet.engage(spec.name)
        if engaged.adapter is None:
            return Started(error=engaged.record.error)
        self._adapter = engaged.adapter
        return Started(info=keeper.state(spec.name).info)

    async def gone(self) -> str | None:
        """Say why the engine is no more, ``None`` while it runs."""
        fleet, adapter = self._fleet, self._adapter
        if fleet is None or adapter is None:
            return "it was never started"
        return await outside(lambda: fleet.gone(adapter.name))

    async def stop(self) -> bytes:
        """End the engine and return the end of its log."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await outside(keeper.close)
        self._loop.close()
        log = b""
        with contextlib.suppress(OSError):  # an engine that never began has none
            log = (self._folder / "logs" / f"{self._name}.log").read_bytes()[-_LOG_BYTES:]
        shutil.rmtree(self._folder, ignore_errors=True)
        return log

    # asking ----------------------------------------------------------------------------------------------------------

    async def ask(self, number: str, asked: bytes) -> None:
        """Begin to send requests; :meth:`more` brings what is answered."""
        fleet, adapter = self._fleet, self._adapter
        assert fleet is not None
        assert adapter is not None
        order = msgspec.msgpack.decode(asked, type=Asked)
        adapter.learnt(from_json(Capabilities, order.can))
        allowance = Allowance(requests=order.allowed, seconds=order.left_s)
        line = OwnLine(adapter, lambda: fleet.gone(adapter.name))
        sending = _Sending(Future(), allowance)

        def deliver(samples: Sequence[Sample]) -> None:
            with sending.guard:
                sending.samples += samples

        async def send_all() -> int:
            try:
                return await line.send(order.jobs, concurrency=order.concurrency, allowance=allowance, deliver=deliver)
            finally:
                await line.aclose()

        sending.work = in_thread(lambda: self._loop.run(send_all()), name=f"llmparity-asking-{number}")
        self._sending[number] = sending

    async def more(self, number: str) -> bytes:
        """Return what was answered since the last time, at most a moment later; when all was sent that it was."""
        sending = self._sending[number]
        await asyncio.wait([asyncio.wrap_future(sending.work)], timeout=GATHERED_S)
        done = sending.work.done()
        samples = sending.take()
        if not done:
            return msgspec.msgpack.encode(Answered(samples=samples, sent=sending.allowance.sent))
        del self._sending[number]
        error = sending.work.exception()
        allowance = sending.allowance
        return msgspec.msgpack.encode(
            Answered(
                samples=samples,
                done=True,
                mixed=0 if error is not None else sending.work.result(),
                sent=allowance.sent,
                retries=allowance.retries,
                late=allowance.left_s == 0,
                error="" if error is None else f"{type(error).__name__}: {error}",
            )
        )

    async def halt(self, number: str) -> None:
        """Send nothing more: whoever asked does not wait any longer."""
        sending = self._sending.pop(number, None)
        if sending is not None:
            sending.allowance.close()

    # bytes for who asks from far: control calls, experiments, applications --------------------------------------------

    async def dial(self) -> int:
        """Connect to the engine; return the number of the connection."""
        assert self._adapter is not None
        port = int(self._adapter.base_url.rpartition(":")[2])
        self._dialled += 1
        number = self._dialled
        self._lines[number] = await asyncio.open_connection("127.0.0.1", port)
        return number

    async def tell(self, number: int, sent: bytes) -> None:
        """Write to a connection; nothing says that no more will come. To one that was hung up nothing is told."""
        if number not in self._lines:
            return
        _, writer = self._lines[number]
        if not sent:
            writer.write_eof()
            return
        writer.write(sent)
        await writer.drain()

    async def hear(self, number: int) -> bytes:
        """Return what comes next on a connection, nothing at its end: both ends may hang up at the same time."""
        if number not in self._lines:
            return b""
        reader, _ = self._lines[number]
        return await reader.read(_READ)

    async def hang_up(self, number: int) -> None:
        """Close a connection."""
        line = self._lines.pop(number, None)
        if line is not None:
            line[1].close()

    async def tail(self) -> str:
        """Return the last lines of the engine's log."""
        return "" if self._adapter is None else log_tail(self._folder / "logs" / f"{self._adapter.name}.log")


def with_gpus(spec: EngineSpec, environ: Mapping[str, str]) -> EngineSpec:
    """Return a specification whose container sees the GPUs that this process was given, and no others.

    A process inherits ``CUDA_VISIBLE_DEVICES``, a container does not. ``LaunchError`` where nobody says which they are.
    Never tried with a GPU.
    """
    if spec.launch != "container" or not spec.num_gpus:
        return spec
    given = environ.get("CUDA_VISIBLE_DEVICES", "")
    if not given:
        raise spec.launch_error(
            f"num_gpus is {spec.num_gpus:g} and Ray does not say which GPUs those are (CUDA_VISIBLE_DEVICES is not "
            "set), so its container would see none or all."
        )
    return dataclasses.replace(spec, gpus=given)
