"""The timed phase: latency and load, measured in a process of its own, engines in turn (A B B A).

The process is spawned, not forked, and imports the standard library, httptools and our transport only, so that other
plugins' garbage, imports and coverage tracing cannot touch the stamps. Before the load it measures itself against a
small paced server in yet another process, and says how late it sees what that server sent.
"""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest_llmparity
from pytest_llmparity.core.errors import DesignError, LLMParityError, MachineError, advice
from pytest_llmparity.core.sample import Failure, WireRequest
from pytest_llmparity.transport.exchange import Exchange, Limits

BOOT = "import importlib, sys; sys.path.append(sys.argv[1]); importlib.import_module(sys.argv[2]).main()"
"""What a child of the timed phase runs. Takes the folder our package lies in and the module whose ``main`` to call."""

_ROOT = str(Path(pytest_llmparity.__file__).resolve().parents[1])
_SHOWN_LINES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One engine under load: where it listens and what it is asked, as (case id, request) in the order of asking.

    ``headers`` may hold keys: they travel through a pipe only and stay out of ``repr``. All targets of one
    measurement ask the same cases in the same order. ``warm_up`` is sent and dropped before anything counts; a server
    may load its model for it. ``watch`` is asked before and after every block, unmeasured.
    """

    name: str
    base_url: str
    requests: tuple[tuple[str, WireRequest], ...]
    warm_up: WireRequest
    watch: WireRequest | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    limits: Limits = field(default_factory=Limits)
    ca_bundle: Path | None = None
    proxy: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One timed request. ``block`` is the A/B block (blocks of the same number form a pair), ``index`` its place in it.

    Exactly one of ``exchange`` and ``failure`` is set.
    """

    engine: str
    block: int
    index: int
    case: str
    exchange: Exchange | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What an engine's ``watch`` brought around one block; ``None`` where no answer came."""

    engine: str
    block: int
    before: Exchange | None
    after: Exchange | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How wrong this process was on this machine, just before the load, at the same concurrency.

    ``ttft_error_*``: seconds between the paced server's own stamp before it sent an answer's first event and our
    arrival stamp of it; they include loopback. ``clock`` is ``kernel`` only if every answer had kernel stamps.
    """

    concurrency: int
    clock: str
    ttft_error_p50_s: float
    ttft_error_p99_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedResult:
    """What the timed phase brought: records in order of asking within each block, blocks in order of time.

    ``stopped`` tells that the deadline passed before every request was sent; unsent ones have no record. ``watched``
    has one entry per block of every engine that is watched.
    """

    records: tuple[Record, ...]
    calibration: Calibration
    stopped: bool = False
    watched: tuple[Watched, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What the measuring process is told."""

    targets: tuple[Target, ...]
    concurrency: int
    per_engine: int
    blocks: int
    deadline_s: float | None = None


def measure(
    targets: Sequence[Target], *, concurrency: int, per_engine: int, blocks: int, deadline_s: float | None = None
) -> TimedResult:
    """Time ``per_engine`` requests on every target, ``concurrency`` at once, in ``blocks`` blocks per engine.

    Engines take turns: A B B A for two blocks, their order and its mirror for more engines or blocks. In every block
    all engines get the same cases in the same order, starting where the block before ended and going round. Each
    block keeps ``concurrency`` requests under way (closed loop, staggered start); connections are opened and one
    request per engine is sent and dropped before anything counts. ``deadline_s`` ends the sending of new requests.

    A request that fails is a record with its failure; nothing is retried. Raises ``DesignError`` for numbers that
    cannot be run, ``LLMParityError`` if the measuring process breaks.
    """
    schedule = Schedule(
        targets=tuple(targets), concurrency=concurrency, per_engine=per_engine, blocks=blocks, deadline_s=deadline_s
    )
    _validate(schedule)
    return _in_child(schedule)


def _validate(schedule: Schedule) -> None:
    cases = {tuple(case for case, _ in target.requests) for target in schedule.targets}
    if len(cases) != 1 or not all(cases):
        raise DesignError("the timed phase needs at least one engine, and the same cases in the same order on each")
    if min(schedule.concurrency, schedule.blocks) < 1 or schedule.per_engine < schedule.blocks * schedule.concurrency:
        raise DesignError(
            f"{schedule.per_engine} timed requests per engine in {schedule.blocks} blocks cannot keep "
            f"{schedule.concurrency} under way; that takes {max(schedule.blocks, 1) * max(schedule.concurrency, 1)}. "
            "Raise the number of requests or lower the concurrency"
        )


def _in_child(schedule: Schedule) -> TimedResult:
    try:
        return _from_child(schedule)
    except OSError as error:
        raise MachineError(f"the process that measures latency could not be started: {advice(error)}") from error


def _from_child(schedule: Schedule) -> TimedResult:
    # -P: a file of the user's project called like a module of the standard library must not be imported there.
    argv = [sys.executable, "-P", "-c", BOOT, _ROOT, "pytest_llmparity.run.timed.child"]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C is the parent's to handle; the child ends with its standard input
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it broke before it read the schedule: its log says why
                child.stdin.write(framed(schedule))
                child.stdin.flush()
            answer = child.stdout.read()
            child.wait()  # before its standard input closes, which would cut its shutdown short
        except BaseException:
            child.kill()  # on Ctrl-C nobody waits for the load to end
            raise
        finally:
            with contextlib.suppress(BrokenPipeError):  # closing sends what it was to be told and did not wait for
                child.stdin.close()
        if not answer:
            log.seek(0)
            tail = "\n".join(log.read().decode("utf-8", "replace").splitlines()[-_SHOWN_LINES:])
            raise LLMParityError(f"the process that measures latency broke; its last lines:\n{tail}")
    result = pickle.loads(answer)  # noqa: S301 - written by our own child through a private pipe
    if isinstance(result, LLMParityError):
        raise result
    assert isinstance(result, TimedResult)
    return result


def framed(schedule: Schedule) -> bytes:
    """Return a schedule as the measuring process reads it: its length in eight bytes, then the pickle."""
    body = pickle.dumps(schedule)
    return len(body).to_bytes(8, "big") + body
