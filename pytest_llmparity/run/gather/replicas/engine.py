"""One engine of a run while it is asked: what of a step is missing goes to its replicas, and samples into the store."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from pytest_llmparity.core.errors import LLMParityError, NotAsked
from pytest_llmparity.core.evidence import FLOOR_PHASES
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.sample import Sample
from pytest_llmparity.core.shards import dealt
from pytest_llmparity.core.words import explain
from pytest_llmparity.engines.played import Played
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.application import Application
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.gather.calling import CalledLine
from pytest_llmparity.run.ledger import Allowance, Ledger
from pytest_llmparity.run.loop import all_of, outside
from pytest_llmparity.run.plan import Job, Step
from pytest_llmparity.run.sending.lines import Line, NodeLost
from pytest_llmparity.run.sending.reconnect import Watch
from pytest_llmparity.run.sending.sender import OwnLine, Ready, failed
from pytest_llmparity.store.runs import Key, Store, key_of

_ON_THEIR_WAY_S: Final = 0.1
"""So long after the first of them the first requests have left: even hundreds take no longer."""


class EngineAsking:
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
            tell=self._tell,
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

    def _tell(self, sentence: str) -> None:
        """Write down what became of a replica; why it is not started again is the same for every step."""
        if sentence not in self._ledger.notes:
            self._ledger.notes.append(sentence)

    def _line_to(self, adapter: Adapter) -> Line:
        """Return the line by which one replica is sent its requests, from here or beside it."""
        return self._fleet.line(adapter) or OwnLine(adapter, lambda: self._fleet.gone(adapter.name), self._watch)

    def _anew(self, name: str) -> Line:
        """Start an engine again whose machines are gone; return a line to it. ``LaunchError`` says why not."""
        try:
            self._adapters[name] = adapter = self._fleet.anew(name)
        finally:
            self._another(self._name)
        self._starts[name] += 1
        return self._line_to(adapter)

    def _line_for(self, application: Application, step: Step, name: str) -> Line:
        """Return a line that calls an application with one of the replicas."""
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
    """Return the key by which the store has this job's sample."""
    return Key(job.request_sha256, job.case, job.phase, job.repeat, job.concurrency)


def homes_of(prompts: PromptSet, replicas: int) -> dict[str, int]:
    """Return which replica, counted from 0, answers each case: cases of one group the same one.

    Of groups the same number of cases goes to each as far as that can be, the same in every run.
    """
    if replicas == 1:
        return dict.fromkeys(prompts.by_id, 0)
    places = dealt(Counter(case.group for case in prompts.cases), replicas)
    return {case.id: places[case.group] - 1 for case in prompts.cases}


class Replicas:
    """Asks the replicas of one engine; ``lines`` lead to those that are there.

    A replica whose machine is gone is asked nothing more: what it had not answered is asked of the others, dealt anew.
    Where none is left ``again`` starts one on another machine and returns its line; ``LaunchError`` says why not.
    ``tell`` is told what became of them. ``deliver`` gets samples with the name of the replica that gave them.
    ``over`` says why nobody is left and none is started again, empty until then.
    """

    def __init__(
        self,
        names: Sequence[str],
        lines: Mapping[str, Line],
        *,
        deliver: Callable[[str, Sequence[Sample]], None],
        tell: Callable[[str], None],
        again: Callable[[str], Line],
    ) -> None:
        self.names = tuple(names)
        self.over = ""
        self._lines: dict[str, Line] = dict(lines)
        self._deliver = deliver
        self._tell = tell
        self._again = again

    @property
    def there(self) -> list[str]:
        """The replicas that can be asked."""
        return [name for name in self.names if name in self._lines]

    async def aclose(self) -> None:
        """Hang up."""
        for line in self._lines.values():
            await line.aclose()

    async def ask_each(self, jobs: Mapping[str, Sequence[Job]], *, concurrency: int, allowance: Allowance) -> int:
        """Send every replica that is there its jobs, at the same time; what one leaves behind nobody is asked.

        Returns how many answers were asked for again because they may have been other requests'.
        """
        theirs = {name: jobs[name] for name in self._lines if jobs.get(name)}
        return (await self._send(theirs, self._lines, concurrency, allowance)).mixed

    async def share(
        self,
        jobs: Sequence[Job],
        homes: Mapping[str, int],
        *,
        concurrency: int,
        allowance: Allowance,
        through: Callable[[str], Line] | None = None,
    ) -> int:
        """Have each job answered once, by its case's home replica while that is there; return how many came mixed up.

        ``through`` makes the line to a replica that is there where it is not the one for prompts. What was under way
        on one that is lost counts as sent again.
        """
        mixed, left = 0, list(jobs)
        while left:
            if not self._lines:
                await self._revive()
            if self.over:
                words = f"not asked: every machine that the engine ran on is gone; {self.over}"
                for job in left:
                    unsent = NotAsked(words, case=job.case)
                    self._deliver(self.names[0], [failed(self.names[0], job, unsent, attempts=0)])
                break
            there = self.there
            dealt_to: dict[str, list[Job]] = {name: [] for name in there}
            for job in left:
                home = self.names[homes[job.case]]
                dealt_to[home if home in dealt_to else there[homes[job.case] % len(there)]].append(job)
            lines = self._lines if through is None else {name: through(name) for name in there}
            sent = await self._send(dealt_to, lines, concurrency, allowance)
            left, mixed = sent.left, mixed + sent.mixed
            allowance.retries += sent.under_way
        return mixed

    async def _revive(self) -> None:
        """Start the first replica anew, whose machine may be another, unless that could not be done before."""
        if self.over:
            return
        try:
            self._lines[self.names[0]] = await outside(lambda: self._again(self.names[0]))
        except LLMParityError as error:
            self.over = str(error)
            self._tell(f"{self.names[0]} is not started again: {error}")

    async def _send(
        self, jobs: Mapping[str, Sequence[Job]], lines: Mapping[str, Line], concurrency: int, allowance: Allowance
    ) -> _Sent:
        sent = _Sent()

        async def send_one(name: str) -> None:
            answered: set[tuple[str, int]] = set()

            def deliver(samples: Sequence[Sample]) -> None:
                answered.update((sample.case, sample.repeat) for sample in samples)
                self._deliver(name, samples)

            line = lines[name]
            try:
                sent.mixed += await line.send(jobs[name], concurrency=concurrency, allowance=allowance, deliver=deliver)
            except NodeLost as error:
                del self._lines[name]
                left = [job for job in jobs[name] if (job.case, job.repeat) not in answered]
                sent.left += left
                sent.under_way += error.under_way
                which = f", at least {error.under_way} of them under way" if error.under_way else ""
                self._tell(f"{error}; {explain.count(len(left), 'request')} had no answer by then{which}")

        await all_of(send_one(name) for name in jobs if jobs[name])
        return sent


@dataclass
class _Sent:
    """What became of jobs that were sent to several replicas.

    ``left`` were not answered by those that are lost, ``under_way`` is how many requests had been sent there for them,
    ``mixed`` how many answers were asked for again because they may have been other requests'.
    """

    left: list[Job] = field(default_factory=list)
    under_way: int = 0
    mixed: int = 0
