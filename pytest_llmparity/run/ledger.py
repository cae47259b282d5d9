"""What one gathering may still send, what it has found out so far, and what it writes down of that when it ends."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.prompts.portion import ALL, Portion
from pytest_llmparity.core.sample import from_json, to_json
from pytest_llmparity.core.words import explain
from pytest_llmparity.run.plan import Unit, Wires
from pytest_llmparity.settings.specification import Settings
from pytest_llmparity.store.runs import GATHERED, Store

MERGED: Final = "merged"
"""Name of a run's document that says of which runs it was put together."""
UNPROVEN = "repetition_penalty"
"""The one neutral value left out of requests that could change a greedy answer where a server's default is another."""


class Allowance:
    """How much may still be sent: a number of requests and a moment in time, shared by all engines of a run.

    Without limits anything may. ``reason`` is ``None`` until one was hit, then the sentence that verdicts carry.
    ``option`` sets the number of requests, ``used_s`` is how many of the ``seconds`` the run took before.
    Threads may share it.
    """

    def __init__(
        self,
        *,
        requests: int | None = None,
        seconds: float | None = None,
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

    def take(self, count: int = 1, *, purpose: str = "") -> bool:
        """Take this many requests from the allowance; False, and none taken, when there are not so many left.

        ``purpose`` names a phase that is asked as a whole or not at all.
        """
        with self._lock:
            if self.reason is None and self._left is not None and self._left < count:
                self.reason = f"stopped after {self._limit} requests ({self._option})"
                if purpose:
                    self.reason = f"{purpose} needs {count} requests and {self._left} are left ({self._option})"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """The state of one run.

    ``cases`` are the ids it was restricted to, ``incomplete`` says which hard stop left something out, ``requests`` and
    ``retries`` count what was sent, in ``seconds``, ``notes`` are for the reader. ``guard`` is the fingerprint of the
    lock file engines were held against. ``open``: a sequential run that more prompts could settle. ``shard`` says which
    share of the cases it asked, empty where it was all of them, ``portion`` to which prompts of each set it kept.
    """

    engines: Mapping[str, EngineRecord] = field(default_factory=dict)
    baseline: str | None = None
    cases: tuple[str, ...] = ()
    incomplete: str | None = None
    requests: int = 0
    seconds: float = 0.0
    retries: int = 0
    notes: tuple[str, ...] = ()
    guard: str = ""
    open: bool = False
    shard: str = ""
    portion: Portion = ALL

    @property
    def no_whole(self) -> str:
        """Why what it asked is less than its tests ask, empty where it is all of that."""
        if self.shard:
            return f"it is {self.shard}, and llmparity merge makes the whole of all"
        return self.incomplete or self.chosen

    @property
    def chosen(self) -> str:
        """How a person chose what it asked of all that its tests ask, empty where nobody did."""
        if self.cases:
            return "it asked single cases (--parity-case)"
        return f"it asked a part of the prompts ({self.portion})" if self.portion else ""


def read_state(store: Store, run: str) -> RunState | None:
    """Return the state of a run, ``None`` of one that was interrupted while gathering."""
    return store.document(run, GATHERED, RunState)


def state_of(document: Mapping[str, Any]) -> RunState:
    """Return the state that stands in a document of the store; older versions wrote down less."""
    return from_json(RunState, document)


def write_state(store: Store, run: str, state: RunState) -> None:
    """Write down that a run was gathered, and with it what there is to say of that."""
    store.put_document(run, GATHERED, to_json(state))


def can_be_judged(state: RunState, guard: str) -> bool:
    """Whether what was gathered can be judged as it is: every engine was there, and is held against the same.

    ``guard`` is what engines are held against now. Another lock file, or a lock that is now binding, may say otherwise
    of an engine: that takes the live one.
    """
    return not any(engine.unusable for engine in state.engines.values()) and state.guard == guard


def note_kept(store: Store, run: str) -> None:
    """Say in a run that was gathered by another session that its answers are judged here."""
    state = read_state(store, run) or RunState()
    kept = f"run {run} had gathered everything: its answers are judged, nobody was asked (--parity-fresh asks again)"
    notes = (kept, *(note for note in state.notes if note != kept))
    write_state(store, run, dataclasses.replace(state, requests=0, seconds=0.0, retries=0, notes=notes))


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
        """Return the state of the gathering so far; ``open``: more prompts could settle something."""
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
