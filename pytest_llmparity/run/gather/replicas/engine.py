"""One engine of a run while it is asked: what of a step is missing goes to its replicas, and samples into the store."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec

from pytest_llmparity.core.evidence import FLOOR_PHASES
from pytest_llmparity.core.sample import Sample
from pytest_llmparity.engines.played import Played
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.application import Application
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.gather.calling import CalledLine
from pytest_llmparity.run.ledger import Ledger
from pytest_llmparity.run.loop import outside
from pytest_llmparity.run.plan import Job, Step
from pytest_llmparity.run.sending.lines import Line, OwnLine, Replicas, homes_of
from pytest_llmparity.run.sending.reconnect import Watch
from pytest_llmparity.run.sending.sender import Ready
from pytest_llmparity.store.runs import Key, Store, key_of

_ON_THEIR_WAY_S: Final = 0.1
"""So long after the first of them the first requests have left: even hundreds take no longer."""


class EngineAsked:
    """Asks one engine what is missing of a step, of its noise floor every replica, else each what is its own.

    ``answered`` is told of every answer, ``meanwhile`` that requests are on their way. What one replica answers of the
    noise floor is stored under :func:`own_name` too.
    """

    def __init__(
        self,
        name: str,
        ready: Ready,
        *,
        run: str,
        store: Store,
        fleet: Fleet,
        ledger: Ledger,
        watch: Watch | None,
        answered: Callable[[str], None],
        meanwhile: Callable[[], None],
        another: Callable[[str], None],
    ) -> None:
        self._name = name
        self._ready = ready
        self._run = run
        self._store = store
        self._fleet = fleet
        self._ledger = ledger
        self._watch = watch
        self._answered = answered
        self._meanwhile = meanwhile
        self._another = another
        self._have = store.have(run, name)
        self._own = have_own(store, run, name, ready)
        self._homes: Mapping[str, int] = {}
        self._of_each = False
        self._in_floor = False
        self._floor_of: dict[tuple[str, str], set[tuple[str, int]]] = {}
        self._own_of: dict[tuple[int, str, str], set[int]] = {}
        self._starts: Counter[str] = Counter()
        self._adapters = {each.name: each for each in ready.replicas}
        there = [each for each in ready.replicas if not fleet.lost(each)]
        self._replicas = Replicas(
            [each.name for each in ready.replicas],
            {each.name: self._line_to(each) for each in there},
            deliver=self._deliver,
            note=self._note,
            again=self._anew,
        )

    @property
    def over(self) -> bool:
        """Whether every machine that the engine ran on is gone, and it is not started on another one."""
        return bool(self._replicas.over)

    async def aclose(self) -> None:
        """Hang up."""
        await self._replicas.aclose()

    def torn(self, steps: Sequence[Step]) -> list[Job]:
        """Return the requests of a round of the noise floor whose cases were answered before and after a new start.

        What two machines differ by is not what the engine differs from itself, so these cases are to be asked anew:
        from now on nothing is known of them, here and in the store. A request without an answer is of neither start.
        """
        torn = {asked for asked, by in self._floor_of.items() if len(by) > 1}
        jobs = [job for step in steps for job in self._ready.jobs(step) if (job.request_sha256, job.case) in torn]
        if jobs:
            keys = set(map(key_of_job, jobs))
            self._have -= keys
            self._store.forget(self._run, self._name, keys)
            self._forget_own(steps)
        for asked in torn:
            del self._floor_of[asked]
        return jobs

    def _forget_own(self, steps: Sequence[Step]) -> None:
        """Forget what a replica answered for itself in part before it was started again."""
        keys: dict[tuple[str, str], set[Key]] = {}
        for job in (job for step in steps for job in self._ready.jobs(step)):
            keys.setdefault((job.request_sha256, job.case), set()).add(key_of_job(job))
        for place, own in enumerate(self._own):
            if not self._starts[self._replicas.names[place]]:
                continue
            for asked, of_case in keys.items():
                if len(self._own_of.get((place, *asked), ())) > 1 or not of_case <= own:
                    own -= of_case
                    self._store.forget(self._run, own_name(self._name, place), of_case)
                    self._own_of.pop((place, *asked), None)

    async def send(self, step: Step, *, floor: bool = False) -> None:
        """Send what is missing of a step; ``floor``: it measures what the engine differs from itself."""
        self._in_floor = floor
        self._homes = homes_of(step.unit.prompts, len(self._ready.replicas))
        allowance, mixed = self._ledger.allowance, 0
        if floor and self._own and step.unit.application is None:
            names = self._replicas.names
            each = {n: missing(self._ready, step, self._own[place]) for place, n in enumerate(names)}
            self._begun(any(each.values()))
            self._of_each = True
            try:
                mixed = await self._replicas.ask_each(each, concurrency=step.concurrency, allowance=allowance)
            finally:
                self._of_each = False
            await outside(lambda: self._adopt(step))
        jobs = missing(self._ready, step, self._have)
        self._begun(bool(jobs))
        through = None if (called := step.unit.application) is None else functools.partial(self._line_for, called, step)
        mixed += await self._replicas.share(
            jobs, self._homes, concurrency=step.concurrency, allowance=allowance, through=through
        )
        if mixed:
            self._ledger.notes.append(
                f"{self._name} sent more answers than it was asked for: {mixed} that may have been other prompts' were "
                "asked again, each on a connection of its own"
            )

    def _adopt(self, step: Step) -> None:
        """Take what a replica that is lost left of the noise floor from one that has answered it for itself.

        The whole case, as the floor of one case is of one replica.
        """
        names, there = self._replicas.names, self._replicas.there
        left: dict[str, set[tuple[str, str]]] = {}
        for job in missing(self._ready, step, self._have) if there else ():
            left.setdefault(there[self._homes[job.case] % len(there)], set()).add((job.request_sha256, job.case))
        for survivor, asked in left.items():
            own = self._store.get(self._run, own_name(self._name, names.index(survivor)))
            taken = [msgspec.structs.replace(s, engine=self._name) for s in own if (s.request_sha256, s.case) in asked]
            self._store.put(self._run, taken)
            keys = set(map(key_of, taken))
            kept = {(key.request_sha256, key.case) for key in self._have - keys}
            self._have |= keys
            for case in asked:
                starts = self._own_of.get((names.index(survivor), *case), {self._starts[survivor]})
                before = self._floor_of.get(case, set()) if case in kept else set()
                self._floor_of[case] = before | {(survivor, start) for start in starts}

    def _begun(self, any_sent: bool) -> None:
        if any_sent:
            asyncio.get_running_loop().call_later(_ON_THEIR_WAY_S, self._meanwhile)

    def _deliver(self, replica: str, samples: Sequence[Sample]) -> None:
        """Store what one replica answered, as the engine's unless it is another's to answer."""
        as_engine = [msgspec.structs.replace(sample, engine=self._name) for sample in samples]
        if self._of_each:
            place = self._replicas.names.index(replica)
            own = [msgspec.structs.replace(sample, engine=own_name(self._name, place)) for sample in samples]
            self._own[place].update(map(key_of, own))
            for sample in _answers(own):
                self._own_of.setdefault((place, sample.request_sha256, sample.case), set()).add(self._starts[replica])
            self._store.put(self._run, own)
            as_engine = [sample for sample in as_engine if self._homes[sample.case] == place]
        if self._in_floor:
            for sample in _answers(as_engine):
                self._floor_of.setdefault((sample.request_sha256, sample.case), set()).add(
                    (replica, self._starts[replica])
                )
        self._have.update(map(key_of, as_engine))
        self._store.put(self._run, as_engine)
        for _ in samples:
            self._answered(self._name)

    def _note(self, sentence: str) -> None:
        """Write down what became of a replica; why it is not started again is the same for every step."""
        if sentence not in self._ledger.notes:
            self._ledger.notes.append(sentence)

    def _line_to(self, adapter: Adapter) -> Line:
        """Return what sends one replica its requests, from here or beside it."""
        return self._fleet.line(adapter) or OwnLine(adapter, lambda: self._fleet.gone(adapter.name), self._watch)

    def _anew(self, name: str) -> Line:
        """Start an engine again whose machines are gone; return what asks it. ``LaunchError`` says why not."""
        try:
            self._adapters[name] = adapter = self._fleet.anew(name)
        finally:
            self._another(self._name)
        self._starts[name] += 1
        return self._line_to(adapter)

    def _line_for(self, application: Application, step: Step, name: str) -> Line:
        """Return what calls an application with one of the replicas."""
        adapter = self._adapters[name]
        return CalledLine(
            application,
            adapter,
            step.unit.prompts.by_id,
            gone=lambda: self._fleet.gone(name),
            lost=lambda: self._fleet.lost(adapter),
        )


def _answers(samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.completion is not None]


def own_name(engine: str, place: int) -> str:
    """Return under which name the store has what one replica answers, counted from 0, when it repeats itself.

    >>> own_name("vllm", 0), own_name("vllm", 1)
    ('vllm@1', 'vllm@2')
    """
    return f"{engine}@{place + 1}"


def have_own(store: Store, run: str, name: str, ready: Ready) -> list[set[Key]]:
    """Return of each replica what it answered for itself; nothing of an engine that was started once."""
    return [store.have(run, own_name(name, place)) for place in range(len(ready.replicas))] if ready.further else []


def missing(ready: Ready, step: Step, have: Collection[Key]) -> list[Job]:
    """Return the requests of a step that ``have`` lacks. A recording can be asked as often as it was recorded only."""
    jobs = [job for job in ready.jobs(step) if key_of_job(job) not in have]
    played = ready.adapter
    if not isinstance(played, Played):
        return jobs
    return [job for job in jobs if job.phase not in FLOOR_PHASES or played.has(job.wire, job.purpose)]


def key_of_job(job: Job) -> Key:
    """Return what the store calls this job's sample."""
    return Key(job.request_sha256, job.case, job.phase, job.repeat, job.concurrency)
