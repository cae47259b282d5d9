"""Asks the engines of one run what is missing in the store: lanes at the same time, the noise floor round by round."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from pytest_llmparity.core.checks.drift.floor import MOST, needs_more
from pytest_llmparity.core.errors import LLMParityError
from pytest_llmparity.core.evidence import FLOOR_PHASES, EngineEvidence, floor_stages
from pytest_llmparity.core.ports import Progress
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.words.explain import count
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.gather.company import Company
from pytest_llmparity.run.gather.lanes import Lane, lanes_of
from pytest_llmparity.run.gather.replicas.differing import unlike
from pytest_llmparity.run.gather.replicas.engine import EngineAsking, have_own, key_of_job, missing, own_name
from pytest_llmparity.run.judge.judging import select
from pytest_llmparity.run.ledger import Ledger
from pytest_llmparity.run.loop import LoopThread, all_of, outside
from pytest_llmparity.run.plan import Step, Unit, rounds, step_of
from pytest_llmparity.run.records import proven
from pytest_llmparity.run.sending.reconnect import Watch
from pytest_llmparity.run.sending.sender import Ready
from pytest_llmparity.settings.specification import Settings
from pytest_llmparity.store.runs import Key, Store

T = TypeVar("T")


class Asking:
    """Asks the engines of one run.

    ``ready`` has those that can be asked by now, ``apart`` why some cannot stay in memory beside another one.
    ``meanwhile`` is called when the first requests are on their way: this process has little to do until answers come.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        run: str,
        store: Store,
        fleet: Fleet,
        ledger: Ledger,
        loop: LoopThread,
        progress: Progress,
        version: str,
        meanwhile: Callable[[], None],
    ) -> None:
        self.ready: dict[str, Ready] = {}
        self.apart: Mapping[str, str] = {}
        self.company = Company(settings, ledger.engines)
        self.absences = Absences(fleet, ledger)
        self._settings = settings
        self._run = run
        self._store = store
        self._fleet = fleet
        self._ledger = ledger
        self._loop = loop
        self._progress = progress
        self._version = version
        self._meanwhile = meanwhile

    @property
    def lanes(self) -> list[Lane]:
        """The engines that are asked in turn, and beside each other."""
        return lanes_of(self._settings, apart=self.apart)

    def in_lanes(self, names: Collection[str], do: Callable[[str], Coroutine[Any, Any, T]]) -> dict[str, T]:
        """Do something with these engines: those of a lane in turn, lanes at the same time. Returns what came of each.

        The first error ends the others and is raised as it is; so does an interruption.
        """
        results: dict[str, T] = {}

        async def in_turn(lane: Lane) -> None:
            for name in lane.names:
                if name in names:
                    results[name] = await do(name)

        self._loop.run(all_of(in_turn(lane) for lane in self.lanes))
        return results

    def everything(self, names: Collection[str], units: Sequence[Unit]) -> None:
        """Ask these engines what is missing of all units, of each the noise floor first."""

        async def ask(name: str) -> None:
            orders = [(unit, unit.repeated) for unit in units]
            if not self.begin(name, orders):
                return
            await outside(lambda: self.warm_again(name))
            async with self._line(name) as asking:
                for unit, order in orders:
                    if (of_engine := self._of(name, unit)) is not None:
                        await self._floor(name, of_engine, order, asking)
                        await asking.send(step_of(of_engine, Phase.MAIN, of_engine.prompts.cases))

        self.in_lanes([name for name in names if name in self.ready], ask)

    def warm_again(self, name: str) -> None:
        """Have an engine's model loaded before its first prompt where another's may have pushed it out."""
        if name in self.apart:
            with contextlib.suppress(LLMParityError):  # the requests themselves will say what is wrong
                self.ready[name].adapter.warm_up()

    def begin(self, name: str, orders: Sequence[tuple[Unit, Sequence[Case]]]) -> bool:
        """Show how many requests an engine is going to get, as far as that is known; return whether any is missing.

        ``orders`` has with each unit the order in which its cases measure the noise floor.
        """
        units = [(self._of(name, unit), order) for unit, order in orders]
        self._reuse_floor(name, [(unit, order) for unit, order in units if unit is not None])
        have, own = self._store.have(self._run, name), have_own(self._store, self._run, name, self.ready[name])
        due: set[tuple[int, Key]] = set()
        for unit, order in units:
            shared: set[Key] = set()
            for step, floor in self._due(name, unit, order, have) if unit is not None else ():
                if floor and own and step.unit.application is None:
                    shared.update(map(key_of_job, self.ready[name].jobs(step)))
                    each = ((place, job) for place, h in enumerate(own) for job in missing(self.ready[name], step, h))
                    due.update((place, key_of_job(job)) for place, job in each)
                else:
                    keys = map(key_of_job, missing(self.ready[name], step, have))
                    due.update((0, key) for key in keys if key not in shared)
        if due:
            self._progress.begin(name, len(due))
        return bool(due)

    def _of(self, name: str, unit: Unit) -> Unit | None:
        """Return a unit as it is asked of one engine: the noise floor serves comparisons only."""
        needs = self.company.needs(name, unit)
        if needs is None or unit.key not in self.ready[name].wires:
            return None
        return dataclasses.replace(unit, needs=needs)

    def _askable(self, name: str, unit: Unit, cases: Sequence[Case]) -> list[Case]:
        """Return the cases that an engine has a request for: others would make a round of the floor smaller."""
        return [case for case in cases if case.id in self.ready[name].wires[unit.key]]

    def _due(self, name: str, unit: Unit, order: Sequence[Case], have: Collection[Key]) -> Iterator[tuple[Step, bool]]:
        """Yield what an engine is to be asked of a unit as far as it is known: a later round follows from answers.

        With each step whether it is one of the noise floor.
        """
        for steps in self._rounds(name, unit, order):
            yield from ((step, True) for step in steps)
            if any(missing(self.ready[name], step, have) for step in steps):
                break
        yield step_of(unit, Phase.MAIN, unit.prompts.cases), False

    def _rounds(self, name: str, unit: Unit, order: Sequence[Case]) -> Iterator[list[Step]]:
        """Yield the rounds of the noise floor, a further one only where the answers to those before it call for it."""
        begun: list[Sequence[Case]] = []
        for steps in rounds(unit, self._askable(name, unit, order[:MOST])):
            enough = sum(map(len, begun)) >= max(1, unit.needs.floor_cases)
            if enough and not self._needs_more(name, unit, begun):
                return
            yield steps
            begun.append(steps[0].cases)

    def _needs_more(self, name: str, unit: Unit, begun: Sequence[Sequence[Case]]) -> bool:
        if not unit.floor_grows or self._ledger.allowance.reason is not None:
            return False
        ready = self.ready[name]
        sent = {case: wire.sha256 for case, wire in ready.wires[unit.key].items()}
        names = [own_name(name, place) for place in range(len(ready.replicas))] if ready.further else [name]
        stages = floor_stages(len(unit.prompts.cases), unit.concurrency)
        return any(
            needs_more(begun, self._evidence(each, ready, sent, unit), held=unit.needs.floor_held, stages=stages)
            for each in names
        )

    async def _floor(self, name: str, unit: Unit, order: Sequence[Case], asking: EngineAsking) -> bool:
        """Ask the cases that measure an engine's noise floor, with their answers, until there are enough.

        False when a hard stop left something of it out. Further rounds of an engine that is gone for good would bring
        nothing.
        """
        of_floor = self._rounds(name, unit, order)
        counted, begun = False, list[Step]()
        # Answers are read and compared in another thread: other engines are asked meanwhile.
        while (steps := await outside(lambda: next(of_floor, None))) is not None:
            own = have_own(self._store, self._run, name, self.ready[name])
            due = {step.phase: self._missing_of_floor(name, step, own) for step in steps}
            if counted:  # what began with the run was counted when it did
                self._progress.more(name, sum(n for phase, n in due.items() if own or phase is not Phase.MAIN))
            counted = counted or any(due.values())
            for step in steps:
                await asking.send(step, floor=True)
            while torn := await outside(lambda: asking.torn(steps)):
                self._progress.more(name, len(torn))
                prompts = count(len({job.case for job in torn}), "prompt")
                self._ledger.notes.append(
                    f"{name} was started again on another machine while its noise floor was measured: "
                    + (
                        f"what two machines answered to {prompts} of it is left out, and there is none to ask them anew"
                        if asking.over
                        else f"{prompts} of it asked anew there, warm from the first on"
                    )
                )
                for step in steps:
                    await asking.send(step, floor=True)
            begun += steps
            if asking.over:
                break
        return not any(self.missing(name, step) for step in begun)

    def _missing_of_floor(self, name: str, step: Step, own: Sequence[Collection[Key]]) -> int:
        """How many requests of a step of the noise floor are to be sent, to every replica together."""
        if not own or step.unit.application is not None:
            return self.missing(name, step)
        return sum(len(missing(self.ready[name], step, have)) for have in own)

    def floor(self, names: Sequence[str], unit: Unit, order: Sequence[Case]) -> bool:
        """Measure the noise floor of these engines on the first of these cases; return False if a stop cut it short."""

        async def ask(name: str) -> bool:
            if (of_engine := self._of(name, unit)) is None:
                return True
            async with self._line(name) as asking:
                return await self._floor(name, of_engine, order, asking)

        return all(self.in_lanes(names, ask).values())

    def measured(self, names: Sequence[str], unit: Unit) -> int:
        """Return of how many cases the largest noise floor of these engines is."""
        floors = (
            {key.case for key in self._store.have(self._run, name) if key.phase in FLOOR_PHASES}
            & unit.prompts.by_id.keys()
            for name in names
        )
        return max(map(len, floors), default=0)

    def missing(self, engine: str, step: Step) -> int:
        """Return how many requests of a step have no sample yet."""
        return len(missing(self.ready[engine], step, self._store.have(self._run, engine)))

    def ask(self, engines: Sequence[str], step: Step) -> bool:
        """Send these engines what is missing of a step; return False when a hard stop left something out."""
        wanting = [name for name in engines if self.missing(name, step)]

        async def ask_one(name: str) -> None:
            async with self._line(name) as asking:
                await asking.send(step)

        self.in_lanes(wanting, ask_one)
        return self._ledger.allowance.reason is None or not wanting

    def _reuse_floor(self, name: str, units: Sequence[tuple[Unit, Sequence[Case]]]) -> None:
        """Copy the noise floor an earlier run measured on this very server, where nothing about it has changed.

        Only of a server that somebody else keeps running: one that we start is measured as it is this time. Timings
        stay behind, they are evidence of their own run alone.
        """
        spec, identity = self.ready[name].adapter.spec, self._ledger.engines[name].identity
        if spec.launch != "attach" or self._settings.resume == "fresh" or not proven(identity):
            return
        have, reused = self._store.have(self._run, name), 0
        for unit, order in units:
            for steps in rounds(unit, self._askable(name, unit, order[:MOST])):
                copied = sum(self._reuse_step(name, step, have) for step in steps if step.phase in FLOOR_PHASES)
                reused += copied
                if not copied:  # who has not measured this round has not measured a later one either
                    break
        if reused:
            self._ledger.notes.append(
                f"{name}: {reused} answers of its noise floor come from an earlier run on the same server; "
                "--parity-fresh measures it again"
            )

    def _reuse_step(self, name: str, step: Step, have: Collection[Key]) -> int:
        """Copy one phase of a noise floor from an earlier run that has it whole; return how many answers these are."""
        wanted = {key_of_job(job): job.wire.max_tokens or 0 for job in self.ready[name].jobs(step)}
        if not wanted or wanted.keys() & set(have):
            return 0
        samples = self._store.reusable_floor(
            spec_hash=self.ready[name].adapter.spec.spec_hash,
            identity=self._ledger.engines[name].identity,
            concurrency=step.concurrency,
            version=self._version,
            wanted=wanted,
        )
        self._store.put(self._run, [msgspec.structs.replace(sample, engine=name, timing=None) for sample in samples])
        return len(samples)

    @contextlib.asynccontextmanager
    async def _line(self, name: str) -> AsyncIterator[EngineAsking]:
        """Yield who asks an engine what is missing of a step, over one client; a server that went away is known."""
        ready = self.ready[name]
        watch = self.absences.watch(ready.adapter)
        asking = EngineAsking(
            name,
            ready,
            run=self._run,
            store=self._store,
            fleet=self._fleet,
            ledger=self._ledger,
            watch=watch,
            answered=self._progress.advance,
            meanwhile=self._meanwhile,
            another=self.absences.is_another,
        )
        try:
            yield asking
        finally:
            await asking.aclose()
            if watch is not None:
                self.absences.came_back(name, watch)

    def differing(self, units: Sequence[Unit]) -> list[str]:
        """Return what is to be known of how the replicas of an engine differ from each other, a sentence each."""
        sentences: list[str] = []
        for name, ready in self.ready.items():
            for unit in units if ready.further else ():
                if (of_engine := self._of(name, unit)) is not None and unit.application is None:
                    sent = {case: wire.sha256 for case, wire in ready.wires[unit.key].items()}
                    each = [self._evidence(own_name(name, k), ready, sent, unit) for k in range(len(ready.replicas))]
                    sentences += unlike(name, of_engine, each)
        return sentences

    def _evidence(self, name: str, ready: Ready, sent: Mapping[str, str], unit: Unit) -> EngineEvidence:
        samples = self._store.get(self._run, name, phases=(Phase.MAIN, *FLOOR_PHASES))
        answers = select(samples, sent, concurrency=unit.concurrency)
        return EngineEvidence(name=name, kind=ready.adapter.kind, samples=answers)


class Absences:
    """Waits for servers of a run that go away while they are asked, and writes down what became of them."""

    def __init__(self, fleet: Fleet, ledger: Ledger) -> None:
        self._fleet = fleet
        self._ledger = ledger

    def watch(self, adapter: Adapter) -> Watch | None:
        """Return a watch on a server that somebody else runs; a process of ours that ends has ended for good."""
        if adapter.spec.launch != "attach":
            return None
        return Watch(
            adapter,
            hold=functools.partial(self._fleet.hold_again, adapter.name),
            patience_s=adapter.spec.reconnect_s,
            allowance=self._ledger.allowance,
        )

    def came_back(self, name: str, watch: Watch) -> None:
        """Write down that a server restarted, and what became of it."""
        if (sentence := watch.sentence()) is not None:
            self._ledger.notes.append(sentence)
        self.is_another(name)

    def hold_again(self, adapter: Adapter) -> str | None:
        """Wait for a server that went away in the timed phase; return why it cannot be asked again."""
        left_s = self._ledger.allowance.left_s
        patience_s = adapter.spec.reconnect_s if left_s is None else min(left_s, adapter.spec.reconnect_s)
        why = self._fleet.hold_again(adapter.name, patience_s, lambda: None)
        self.is_another(adapter.name)
        return why

    def is_another(self, name: str) -> None:
        """Write down that a server came back as another engine: answers of two engines are none of either."""
        engaged = self._fleet.known(name)
        if engaged is not None and engaged.record.incomparable:
            self._ledger.amend(name, incomparable=engaged.record.incomparable)
