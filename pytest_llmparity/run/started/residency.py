"""One engine in memory at a time: before one starts, every other has gone and what it held has come back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from pytest_llmparity.core.errors import LaunchError, LLMParityError, MemoryHeld, TlsFailure, Unreachable
from pytest_llmparity.engines.start import memory
from pytest_llmparity.engines.start.memory import GpuMemory, Gpus
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.control import Control
from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.settings.specification import EngineSpec

BACK_S: Final = 60.0
"""How long memory may take to come back once an engine was told to go. Chosen: a process that has ended holds nothing,
and the keeper kills what does not end; what is left after this long is a hung driver or somebody else's."""
POLL_S: Final = 0.1
SLACK: Final = 0.01
"""Part of a GPU's memory that others may have taken meanwhile (a desktop, say) without it counting as not returned.
Chosen, not measured."""


@dataclass
class Residency:
    """Lets every other engine go before one is started.

    A started engine is stopped; an attached one is told to unload. Then its processes have to be gone (their resident
    memory is what the error names) and, where ``gpus`` can be read, each GPU has to be back at what was in use before
    the engine was started. ``attached`` makes an adapter around a server that runs elsewhere; ``stop`` says why nobody
    waits any more.
    """

    specs: Mapping[str, EngineSpec]
    keeper: Callable[[], Keeper]
    attached: Callable[[EngineSpec], Adapter]
    gpus: Gpus | None = None
    deadline_s: float = BACK_S
    stop: Callable[[], str | None] = lambda: None
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    _before: dict[str, Mapping[str, GpuMemory]] = field(default_factory=dict, init=False)
    _unloaded: set[str] = field(default_factory=set, init=False)

    def make_room(self, name: str, *, left: Callable[[str], None]) -> None:
        """Return when no other engine is in memory; ``left`` is told of each that was there until now.

        Raises ``MemoryHeld`` when one cannot be made to go, or still holds memory at the deadline.
        """
        began = self.clock()
        others = {other: spec for other, spec in self.specs.items() if other != name}
        for other, spec in others.items():
            if spec.launch == "attach" and self._unload(spec, wanted=name, since=began):
                left(other)
            if spec.launched:
                self.let_go(other, left=left)
        for other, spec in others.items():
            if is_here(spec):
                self._wait(other, wanted=name, since=began)

    def let_go(self, name: str, *, left: Callable[[str], None]) -> None:
        """Stop one engine that was started here, if it is up; ``left`` is told."""
        if self.keeper().state(name).state in ("starting", "ready"):
            self.keeper().stop(name)
            left(name)

    def starts(self, name: str) -> None:
        """Take note of what is in use right before an engine is started."""
        if self.gpus is not None:
            self._before[name] = self.gpus.read()

    def loads(self, name: str) -> None:
        """Take note that an attached engine is about to be used: it has to be unloaded before another's turn.

        What is in use on this machine's GPUs is noted too: a server that had its model loaded by then is not measured.
        """
        self._unloaded.discard(name)
        if is_here(self.specs[name]):
            self.starts(name)

    def _unload(self, spec: EngineSpec, *, wanted: str, since: float) -> bool:
        """Make an attached server give its memory back, also one this run has not asked yet.

        Only where nothing listens is nothing in memory. A server that is not ready may be loading, so it is waited for.
        """
        if spec.name in self._unloaded or not _listens(spec):
            return False
        try:
            adapter = self.attached(spec)
            while (why := adapter.ready()) is not None:
                if not _listens(spec):
                    return False
                self._be_patient(since, f"{spec.name} was asked to make room, it is not ready ({why})", wanted=wanted)
            adapter.unload()
        except LLMParityError as error:
            if isinstance(error, MemoryHeld) or self.stop() is not None:
                raise
            raise MemoryHeld(
                f"{wanted} is not started: {spec.name} is in memory, and residency is one-at-a-time. {error}",
                engine=wanted,
            ) from error
        self._unloaded.add(spec.name)
        return True

    def _be_patient(self, since: float, event: str, *, wanted: str) -> None:
        """Pause; raises when nobody waits any more, or so long after ``event`` that nobody should."""
        why = self.stop()
        if why is not None:
            raise LaunchError(f"{wanted} was not started: {why}", engine=wanted)
        took = self.clock() - since
        if took >= self.deadline_s:
            raise MemoryHeld(
                f"{wanted} is not started: {took:.0f} s after {event}. End what holds it, or run with residency = "
                '"together" if both fit.',
                engine=wanted,
            )
        self.pause(POLL_S)

    def _wait(self, other: str, *, wanted: str, since: float) -> None:
        while held := self._held(other):
            self._be_patient(since, f"{other} was told to go, {held}", wanted=wanted)
        self._before.pop(other, None)  # what others take from now on is not this engine's

    def _held(self, other: str) -> str:
        """Say what an engine that was told to go still holds; empty when it is nothing."""
        pids = self.keeper().members(other) if self.specs[other].launched else ()
        if pids:
            there = memory.resident(pids)
            total = sum(size for _, size in there.values())
            names = ", ".join(f"{pid} ({name}, {memory.shown(size)})" for pid, (name, size) in there.items())
            return f"its processes still hold {memory.shown(total)}: {names or pids}"
        if self.gpus is None or other not in self._before:
            return ""
        held = []
        for gpu, now in self.gpus.read().items():
            before = self._before[other].get(gpu)
            if before is not None and now.used - before.used > SLACK * now.total:
                held.append(
                    f"{gpu} has {memory.shown(now.used - before.used)} more in use than before {other} was started"
                    f"{_by(now)}"
                )
        return "; ".join(held)


def is_here(spec: EngineSpec) -> bool:
    """Tell whether an engine uses this machine's memory, as far as its address says (a tunnel's says so too)."""
    return spec.launched or is_loopback(spec.base_url or "")


def is_loopback(url: str) -> bool:
    """Tell whether a URL names this machine."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _listens(spec: EngineSpec) -> bool:
    """Tell whether anything answers at an attached engine's address, whatever it says."""
    there = Control(
        engine=spec.name, base_url=spec.base_url or "", headers={}, ca_bundle=spec.ca_bundle, proxy=spec.proxy
    )
    try:
        there.get("/")
    except TlsFailure:
        return True
    except Unreachable:
        return False
    except LLMParityError:
        return True
    return True


def _by(gpu: GpuMemory) -> str:
    if not gpu.holders:
        return " (its driver names no process)"
    there = memory.resident(gpu.holders)
    parts = []
    for pid, size in gpu.holders.items():
        name = there[pid][0] if pid in there else "not seen from here"
        parts.append(f"{pid} ({name}{'' if size is None else f', {memory.shown(size)}'})")
    return f", in use by {', '.join(parts)}"
