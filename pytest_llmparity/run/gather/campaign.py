"""One gathering: who can be used, what each can do, what is asked of whom; the timed phase last.

Engines of different lanes are asked at the same time. What one of them is sent, and in which order, does not depend on
the others; samples go into the store as they finish.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from pytest_llmparity.core.errors import LLMParityError
from pytest_llmparity.core.evidence import FLOOR_PHASES
from pytest_llmparity.core.ports import Progress
from pytest_llmparity.core.sample import Sample
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.gather.company import Company, selves
from pytest_llmparity.run.gather.lanes import Lane, lanes_of
from pytest_llmparity.run.gather.ledger import Ledger
from pytest_llmparity.run.gather.reconnect import Watch
from pytest_llmparity.run.gather.sender import Ready, client_of, send
from pytest_llmparity.run.gather.waves import Waves
from pytest_llmparity.run.judge.judging import Judging
from pytest_llmparity.run.judge.state import RunState, write_state
from pytest_llmparity.run.locking import Guard
from pytest_llmparity.run.loop import LoopThread, all_of, outside
from pytest_llmparity.run.plan import (
    Declaration,
    Job,
    Plan,
    Step,
    Unit,
    first_words,
    jobs_of,
    narrowed,
    unsent_fields,
    wires_name,
)
from pytest_llmparity.run.probe.preflight import Prepared, prepare
from pytest_llmparity.run.records import proven, record_of
from pytest_llmparity.run.timed.phase import BLOCKS_APART, TimedPhase
from pytest_llmparity.settings.specification import EngineSpec, Settings
from pytest_llmparity.store.runs import Key, RunHandle, Store

T = TypeVar("T")


class Campaign:
    """Gathers everything a plan needs into one run of the store.

    ``declarations`` are the tests the plan was made of, ``lock`` is what engines are held against. With ``judging``,
    which reads what the store holds by now, the run is sequential: it is asked in waves until nothing is open.
    """

    def __init__(
        self,
        settings: Settings,
        plan: Plan,
        declarations: Sequence[Declaration],
        *,
        begun: RunHandle,
        store: Store,
        fleet: Fleet,
        lock: Guard,
        loop: LoopThread,
        progress: Progress,
        version: str,
        judging: Callable[[str, RunState], Judging] | None,
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._begun = begun
        self._store = store
        self._fleet = fleet
        self._lock = lock
        self._progress = progress
        self._version = version
        self._ledger = ledger = Ledger(settings, guard=lock.fingerprint())
        self._allowance = ledger.allowance
        self._asking = Asking(
            settings,
            run=begun.id,
            store=store,
            fleet=fleet,
            ledger=ledger,
            loop=loop,
            progress=progress,
            version=version,
        )
        self._company = self._asking.company
        self._waves = None
        if judging is not None:
            self._waves = Waves(
                run=begun.id,
                store=store,
                plan=plan,
                declarations=declarations,
                engines=len(settings.engines),
                judging=lambda: judging(begun.id, ledger.state()),
                asks=self._asking,
            )
        self._one_at_a_time = settings.residency == "one-at-a-time"
        self._order = settings.in_turn()
        """The baseline first: when it cannot be used nobody is asked for what only a comparison needs."""
        self._timing = TimedPhase(
            run=begun.id, store=store, ledger=ledger, begin=progress.begin, hold=self._asking.returns.hold_again
        )

    def go(self) -> None:
        """Gather; the run is marked finished unless a hard stop left something out."""
        notes, run = self._ledger.notes, self._begun.id
        if self._begun.resumed:
            notes.append(f"resumed run {run}: its earlier answers are kept, their timings are not")
        if self._begun.retried:
            notes.append(f"run {run} is gone on with: only what had failed or was missing is asked")
        self._fleet.slots = max([self._settings.concurrency, *(unit.concurrency for unit in self._plan.units)])
        if any(unit.concurrency > 1 for unit in self._plan.timed):
            self._fleet.may_probe = self._allowance.take
        self._fleet.time_left = lambda: self._allowance.left_s
        try:
            if self._one_at_a_time:
                self._each_in_its_time()
            else:
                self._all_together()
        finally:
            self._allowance.close()
            # What tests ask of an engine afterwards is their own affair.
            self._fleet.time_left, self._fleet.may_probe = lambda: None, lambda count: True
            self._progress.end()
        notes += self._lock.twins() + selves(self._settings.engines)
        if self._allowance.reason is not None:
            notes.append(f"incomplete: {self._allowance.reason}")
        left_open = self._waves is not None and self._waves.open
        write_state(self._store, run, self._ledger.state(open=left_open))
        if self._allowance.reason is None and not left_open:
            self._store.finish(run)

    def _all_together(self) -> None:
        """Start every engine, prepare all, ask all, time all."""
        self._fleet.engage_all()
        self._asking.apart = self._fleet.apart()
        for why in dict.fromkeys(self._asking.apart.values()):
            self._ledger.notes.append(
                f"{why}. So they are asked one after the other, timed in at most {BLOCKS_APART} blocks each and warmed "
                "up again after every change; no request that waits for a load is timed"
            )
            self._progress.say(self._ledger.notes[-1])
        names = [spec.name for spec in self._order]
        self._prepare([(spec, self._enter(spec)) for spec in self._order])
        if self._waves is None:
            self._asking.everything(names, list(self._plan.steps()))
        elif self._asking.apart:  # waves that alternate between them would load a model for each
            for name in names:
                self._in_waves([name])
        else:
            self._in_waves(names)
        self._time(self._order)

    def _each_in_its_time(self) -> None:
        """Start, prepare, ask and time one engine after the other; each has gone before the next one comes.

        Before, the baseline is started, and of the others is found out what can be known without loading a model: who
        listens, whose key is refused, which program is missing.
        """
        for spec in self._order[1:]:
            self._fleet.glance(spec.name)
        for spec in reversed(self._order):
            if spec.name == self._settings.baseline and self._is_needed(spec):
                self._fleet.engage(spec.name)
            engaged = self._fleet.known(spec.name)
            if engaged is not None and (why := engaged.record.unusable):
                self._company.unusable[spec.name] = why
        for spec in self._order:
            self._prepare([(spec, self._enter(spec))])
            if self._waves is None:
                self._asking.everything([spec.name], list(self._plan.steps()))
            else:
                self._in_waves([spec.name])
            self._time([spec])

    def _is_needed(self, spec: EngineSpec) -> bool:
        """Whether anything is asked of an engine."""
        return any(self._company.needs(spec.name, unit) is not None for unit in self._plan.units)

    def _enter(self, spec: EngineSpec) -> Adapter | None:
        """Take an engine into the ledger, started if anything may be asked of it; return what asks it, if anything."""
        spared = self._one_at_a_time and not self._is_needed(spec)  # its model is not loaded for nothing
        engaged = self._fleet.known(spec.name) if spared else self._fleet.engage(spec.name)
        if engaged is None:
            self._ledger.engines[spec.name] = record_of(spec, baseline=self._settings.baseline)
            self._ledger.amend(spec.name, lonely=self._company.lonely(spec.name, self._plan.units))
            return None
        adapter, record = engaged.adapter, engaged.record
        record = dataclasses.replace(record, baseline=spec.name == self._settings.baseline)
        self._ledger.engines[spec.name] = record
        self._ledger.notes += record.notes
        if adapter is None:  # nobody is there to be another engine than the one that answered before
            if self._allowance.left_s == 0:
                self._allowance.out_of_time()  # it may be there when the run goes on
            return None
        if self._store.put_engine(self._begun.id, spec.name, spec.spec_hash, record.identity):
            self._ledger.notes.append(
                f"{spec.name} is not the engine the interrupted run asked: its answers are asked again"
            )
            if self._waves is not None:
                self._waves.anew()
        self._ledger.engines[spec.name] = first_words(adapter, record, self._plan.units)
        return None if self._ledger.engines[spec.name].unusable else adapter

    def _prepare(self, entered: Sequence[tuple[EngineSpec, Adapter | None]]) -> None:
        """Prepare engines, lanes at the same time, and leave out what nothing can be compared with."""
        adapters = {spec.name: adapter for spec, adapter in entered if adapter is not None}

        async def prepare_one(name: str) -> Prepared:
            return await outside(lambda: self._prepared(adapters[name]))

        prepared = self._asking.in_lanes(adapters, prepare_one)
        for name in adapters:  # in the order of the engines, whoever was ready first
            self._ledger.engines[name] = prepared[name].record
            self._ledger.notes += prepared[name].notes
        for name, adapter in adapters.items():
            lonely = self._company.lonely(name, self._plan.units)
            record = self._ledger.amend(name, lonely=lonely)
            if record.error is not None:
                continue
            wires = {key: by_case for key, by_case in prepared[name].wires.items() if key not in lonely}
            self._asking.ready[name] = Ready(adapter, wires)
            for key, by_case in wires.items():
                sent = {case: wire.sha256 for case, wire in by_case.items()}
                self._store.put_document(self._begun.id, wires_name(name, key), sent)
            self._ledger.notes += unsent_fields(name, wires)

    def _prepared(self, adapter: Adapter) -> Prepared:
        """Prepare one engine; called in a thread of its own."""
        record = self._ledger.engines[adapter.name]
        return prepare(
            adapter,
            record,
            self._plan.units,
            asked=any(
                unit.key not in record.refused and self._company.needs(adapter.name, unit) is not None
                for unit in self._plan.units
            ),
            store=self._store,
            version=self._version,
            fresh=self._settings.resume == "fresh",
            take=self._allowance.take,
        )

    def _in_waves(self, names: Sequence[str]) -> None:
        """Ask these engines wave by wave."""
        assert self._waves is not None
        ready = [name for name in names if name in self._asking.ready]
        for name in ready:
            if self._asking.begin(name, self._waves.all_steps()):
                self._asking.warm_again(name)
        # Whoever is asked before the others come cannot know when they will be settled.
        before_the_others = self._one_at_a_time or bool(self._asking.apart)
        whole = before_the_others and ready == [self._settings.baseline]
        for unit in self._plan.units:
            self._waves.go(unit, [name for name in ready if unit.key in self._asking.ready[name].wires], whole=whole)

    def _time(self, specs: Sequence[EngineSpec]) -> None:
        """Measure latency of every unit that asks for it on those of these engines that can be asked, all resident."""
        for unit in map(self._askable, self._plan.timed):
            self._timing.time(unit, self._comparable(unit, specs), apart=self._asking.apart.keys())

    def _askable(self, unit: Unit) -> Unit:
        """Return the unit with the cases that every engine asked any of them can be asked: timed side by side."""
        asked = [engine.wires[unit.key] for engine in self._asking.ready.values() if unit.key in engine.wires]
        return narrowed(unit, (case for case in unit.prompts.cases if all(case.id in wires for wires in asked)))

    def _comparable(self, unit: Unit, specs: Collection[EngineSpec]) -> list[Adapter]:
        """Return those of the engines that can be asked this unit, in their order."""
        adapters = []
        for spec in specs:
            engaged = self._fleet.engage(spec.name)
            needs = self._company.needs(spec.name, unit)
            asked = spec.name in self._asking.ready and unit.key in self._asking.ready[spec.name].wires
            if engaged.adapter is not None and asked and needs is not None and needs.timed:
                adapters.append(engaged.adapter)
        return adapters


class Asking:
    """Asks the engines of one run.

    ``ready`` has those that can be asked by now, ``apart`` why some cannot stay in memory beside another one.
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
    ) -> None:
        self.ready: dict[str, Ready] = {}
        self.apart: Mapping[str, str] = {}
        self.company = Company(settings, ledger.engines)
        self.returns = Returns(fleet, ledger)
        self._settings = settings
        self._run = run
        self._store = store
        self._fleet = fleet
        self._ledger = ledger
        self._loop = loop
        self._progress = progress
        self._version = version

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

    def everything(self, names: Collection[str], steps: Sequence[Step]) -> None:
        """Ask these engines what is missing of all steps."""

        async def ask(name: str) -> None:
            adapter, jobs = self.ready[name].adapter, self.begin(name, steps)
            if jobs:
                await outside(lambda: self.warm_again(name))
                await self._send(adapter, jobs)

        self.in_lanes([name for name in names if name in self.ready], ask)

    def warm_again(self, name: str) -> None:
        """Have an engine's model loaded before its first prompt where another's may have pushed it out."""
        if name in self.apart:
            with contextlib.suppress(LLMParityError):  # the requests themselves will say what is wrong
                self.ready[name].adapter.warm_up()

    def begin(self, name: str, steps: Sequence[Step]) -> list[tuple[Step, list[Job]]]:
        """Reuse what may be reused of an engine's noise floor; return what is missing, nothing where nothing is."""
        wires = self.ready[name].wires
        steps = [step for step in steps if step.unit.key in wires and self._wants(name, step)]
        self._reuse_floor(name, steps)
        have = self._store.have(self._run, name)
        jobs = [(step, self._missing(name, step, have)) for step in steps]
        total = sum(len(missing) for _, missing in jobs)
        if total:
            self._progress.begin(name, total)
        return jobs if total else []

    def _wants(self, name: str, step: Step) -> bool:
        """Whether a phase is worth asking: the noise floor serves comparisons only."""
        needs = self.company.needs(name, step.unit)
        return needs is not None and step.phase in needs.phases

    def missing(self, engine: str, step: Step) -> int:
        """How many requests of a step have no sample yet."""
        return len(self._missing(engine, step, self._store.have(self._run, engine)))

    def ask(self, engines: Sequence[str], steps: Sequence[Step]) -> bool:
        """Send these engines what is missing of some steps; False when a hard stop left something out."""
        jobs: dict[str, list[tuple[Step, list[Job]]]] = {}
        for name in engines:
            have = self._store.have(self._run, name)
            missing = [(step, self._missing(name, step, have)) for step in steps]
            if any(of_step for _, of_step in missing):
                jobs[name] = missing
        self.in_lanes(jobs, lambda name: self._send(self.ready[name].adapter, jobs[name]))
        return self._ledger.allowance.reason is None or not jobs

    def _missing(self, engine: str, step: Step, have: Collection[Key]) -> list[Job]:
        wires = self.ready[engine].wires[step.unit.key]
        return [job for job in jobs_of(step, wires) if key_of(job) not in have]

    def _reuse_floor(self, name: str, steps: Sequence[Step]) -> None:
        """Copy the noise floor an earlier run measured on this very server, where nothing about it has changed.

        Only of a server that somebody else keeps running: one that we start is measured as it is this time. Timings
        stay behind, they are evidence of their own run alone.
        """
        spec, identity = self.ready[name].adapter.spec, self._ledger.engines[name].identity
        if spec.launch != "attach" or self._settings.resume == "fresh" or not proven(identity):
            return
        have, reused = self._store.have(self._run, name), 0
        for step in steps:
            if step.phase not in FLOOR_PHASES:
                continue
            wanted = {key_of(job) for job in jobs_of(step, self.ready[name].wires[step.unit.key])}
            if not wanted or wanted & have:
                continue
            samples = self._store.reusable_floor(
                spec_hash=spec.spec_hash,
                identity=identity,
                concurrency=step.concurrency,
                version=self._version,
                wanted=wanted,
            )
            copies = [dataclasses.replace(sample, engine=name, timing=None) for sample in samples]
            self._store.put(self._run, copies)
            reused += len(copies)
        if reused:
            self._ledger.notes.append(
                f"{name}: {reused} answers of its noise floor come from an earlier run on the same server; "
                "--parity-fresh measures it again"
            )

    async def _send(self, adapter: Adapter, steps: Sequence[tuple[Step, list[Job]]]) -> None:
        client, watch = client_of(adapter), self.returns.watch(adapter)
        try:
            for step, jobs in steps:
                again = await send(
                    adapter,
                    client,
                    jobs,
                    concurrency=step.concurrency,
                    allowance=self._ledger.allowance,
                    gone=lambda: self._fleet.gone(adapter.name),
                    deliver=self._deliver,
                    watch=watch,
                )
                if again:
                    self._ledger.notes.append(
                        f"{adapter.name} sent more answers than it was asked for: {again} that may have been other "
                        "prompts' were asked again, each on a connection of its own"
                    )
        finally:
            await client.aclose()
            if watch is not None:
                self.returns.came_back(adapter.name, watch)

    def _deliver(self, sample: Sample) -> None:
        self._store.put(self._run, [sample])
        self._progress.advance(sample.engine)


class Returns:
    """Waits for servers of a run that go away while they are asked, and writes down what became of them."""

    def __init__(self, fleet: Fleet, ledger: Ledger) -> None:
        self._fleet = fleet
        self._ledger = ledger

    def watch(self, adapter: Adapter) -> Watch | None:
        """Return what waits for a server that somebody else runs; a process of ours that ends has ended for good."""
        if adapter.spec.launch != "attach":
            return None
        return Watch(
            adapter,
            hold=lambda within_s, stop: self._fleet.hold_again(adapter.name, within_s, stop),
            patience_s=adapter.spec.reconnect_s,
            left_s=lambda: self._ledger.allowance.left_s,
        )

    def came_back(self, name: str, watch: Watch) -> None:
        """Write down that a server restarted, and what became of it."""
        if (sentence := watch.sentence()) is not None:
            self._ledger.notes.append(sentence)
        self._is_another(name)

    def hold_again(self, adapter: Adapter) -> str | None:
        """Wait for a server that went away in the timed phase; return why it cannot be asked again."""
        left_s = self._ledger.allowance.left_s
        patience_s = adapter.spec.reconnect_s if left_s is None else min(left_s, adapter.spec.reconnect_s)
        why = self._fleet.hold_again(adapter.name, patience_s, lambda: None)
        self._is_another(adapter.name)
        return why

    def _is_another(self, name: str) -> None:
        """Write down that a server came back as another engine: answers of two engines are none of either."""
        engaged = self._fleet.known(name)
        if engaged is not None and engaged.record.incomparable:
            self._ledger.amend(name, incomparable=engaged.record.incomparable)


def key_of(job: Job) -> Key:
    """Return what the store calls this job's sample."""
    return Key(job.wire.sha256, job.case, job.phase, job.repeat, job.concurrency)
