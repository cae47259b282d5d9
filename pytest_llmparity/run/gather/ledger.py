"""What one gathering may still send, and what it has found out so far: shared by everything that takes part in it."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.prompts.portion import ALL, Portion
from pytest_llmparity.core.words import explain
from pytest_llmparity.run.judge.state import RunState
from pytest_llmparity.run.plan import Unit, Wires
from pytest_llmparity.settings.specification import Settings

UNPROVEN = "repetition_penalty"
"""The one neutral value left out of requests that could change a greedy answer where a server's default is another."""


class Allowance:
    """How much may still be sent: a number of requests and a moment in time, shared by all engines of a run.

    ``reason`` is ``None`` until a limit was hit, then the sentence that verdicts carry. ``option`` sets the number
    of requests, ``used_s`` is how many of the ``seconds`` the run took before. Threads may share it.
    """

    def __init__(
        self,
        *,
        requests: int | None,
        seconds: float | None,
        now: Callable[[], float] = time.monotonic,
        option: str = "--parity-max-requests",
        used_s: float = 0.0,
    ) -> None:
        self._left = requests
        self._limit = requests
        self._option = option
        self._seconds = seconds
        self._now = now
        self._began = now()
        self._end = None if seconds is None else self._began + max(0.0, seconds - used_s)
        self._closed = False
        self._lock = threading.RLock()
        self.sent = 0
        self.retries = 0
        self.reason: str | None = None

    def take(self, count: int = 1, *, what: str = "") -> bool:
        """Take this many requests from the allowance; False, and none taken, when there are not so many left.

        ``what`` names a phase that is asked as a whole or not at all.
        """
        with self._lock:
            if self.reason is None and self._left is not None and self._left < count:
                self.reason = f"stopped after {self._limit} requests ({self._option})"
                if what:
                    self.reason = f"{what} needs {count} requests and {self._left} are left ({self._option})"
            if self.reason is None and self._end is not None and self._now() >= self._end:
                self.out_of_time()
            if self._closed or self.reason is not None:
                return False
            if self._left is not None:
                self._left -= count
            self.sent += count
            return True

    def grant(self, most: int) -> int:
        """Take as many requests as are left, at most so many, for somebody who sends them; 0 when there are none."""
        with self._lock:
            count = most if self._left is None else min(most, max(1, self._left))
            return count if self.take(count) else 0

    @property
    def limited(self) -> bool:
        """Whether requests are counted out, retries among them."""
        return self._left is not None

    def give_back(self, count: int) -> None:
        """Return requests that were taken and not sent; below zero are those that were sent beyond."""
        with self._lock:
            self.sent -= count
            if self._left is not None:
                self._left += count

    @property
    def passed_s(self) -> float:
        """Seconds since it was made."""
        return self._now() - self._began

    @property
    def left_s(self) -> float | None:
        """Seconds until the moment to stop, never below zero; ``None`` when there is no such moment."""
        return None if self._end is None else max(0.0, self._end - self._now())

    def out_of_time(self) -> None:
        """Say that the time is up; nothing more is allowed."""
        self.reason = f"stopped after {self._seconds:g} s (--parity-budget)"

    def close(self) -> None:
        """Allow nothing more, because the gathering has ended: a thread that was left behind may not know."""
        self._closed = True


class Ledger:
    """The records of the engines and the notes for the reader, as they are known by now."""

    def __init__(self, settings: Settings, *, guard: str = "", portion: Portion = ALL) -> None:
        self.allowance = Allowance(requests=settings.max_requests, seconds=settings.budget_s)
        self.engines: dict[str, EngineRecord] = {}
        self.notes: list[str] = []
        self._settings = settings
        self._guard = guard
        self._portion = portion

    def amend(
        self,
        name: str,
        *,
        lonely: Mapping[str, str] | None = None,
        incomparable: str | None = None,
        untimed: Mapping[str, str] | None = None,
    ) -> EngineRecord:
        """Write down why nothing of an engine can be compared; return its record."""
        record = self.engines[name]
        self.engines[name] = dataclasses.replace(
            record,
            lonely=lonely or record.lonely,
            incomparable=incomparable or record.incomparable,
            untimed={**record.untimed, **(untimed or {})},
        )
        return self.engines[name]

    def state(self, *, open: bool = False) -> RunState:
        """Return what there is to say of the gathering so far; ``open``: more prompts could settle something."""
        return RunState(
            engines=dict(self.engines),
            baseline=self._settings.baseline,
            cases=self._settings.cases,
            incomplete=self.allowance.reason,
            requests=self.allowance.sent,
            seconds=self.allowance.passed_s,
            retries=self.allowance.retries,
            notes=tuple(self.notes),
            guard=self._guard,
            open=open,
            portion=self._portion,
            shard="" if self._settings.shard is None else str(self._settings.shard),
        )


def unread_fields(name: str, units: Iterable[Unit], can: Capabilities) -> Iterator[str]:
    """Yield what the reader should know of fields that are passed through: whether the engine tells if it read them."""
    passed = sorted({field for unit in units for case in unit.prompts.cases for field in case.extra_body})
    if passed and can.unknown_fields == "dropped":
        yield (
            f"{name}: {', '.join(map(explain.plain, passed))} sent as given; fields it does not know are dropped "
            "without a word, so only its answers tell whether it read them"
        )
    if passed and can.unknown_fields == "refused":
        yield (
            f"{name}: {', '.join(map(explain.plain, passed))} sent as given; a request with a field that it does not "
            "know is refused as a whole"
        )


def unsent_fields(name: str, wires: Wires) -> Iterator[str]:
    """Yield what the reader should know of fields that requests leave out."""
    omitted = {field for by_case in wires.values() for wire in by_case.values() for field in wire.omitted}
    if UNPROVEN in omitted:
        yield (
            f"{name}: {UNPROVEN} was not sent, this kind of engine has no field for it; a server whose default is not "
            "1 answers differently"
        )
