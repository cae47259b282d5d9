"""One gathering: who can be used, what each can do, what is asked of whom; the timed phase last.

Engines of different lanes are asked at the same time. What one of them is sent, and in which order, does not depend on
the others; samples go into the store as they finish.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from pytest_llmparity.core import late
from pytest_llmparity.core.errors import LaunchError
from pytest_llmparity.core.identity.canaries import compare
from pytest_llmparity.core.identity.pins import changes
from pytest_llmparity.core.ports import Progress
from pytest_llmparity.core.words import explain
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.gather.asking import Asking
from pytest_llmparity.run.gather.company import selves
from pytest_llmparity.run.gather.waves import Waves
from pytest_llmparity.run.golden.entering import Goldens, held_against
from pytest_llmparity.run.golden.requests import LOCKED, engines_document
from pytest_llmparity.run.judge.judging import Judging
from pytest_llmparity.run.ledger import Allowance, Ledger, RunState, unread_fields, unsent_fields, write_state
from pytest_llmparity.run.locking import Guard
from pytest_llmparity.run.loop import LoopThread, outside
from pytest_llmparity.run.plan import (
    Declaration,
    Plan,
    Unit,
    first_words,
    narrowed,
    wires_name,
)
from pytest_llmparity.run.probe import canaries
from pytest_llmparity.run.probe.preflight import Prepared, prepare
from pytest_llmparity.run.records import record_of
from pytest_llmparity.run.sending.sender import Ready
from pytest_llmparity.run.timed.phase import TimedPhase, untimed
from pytest_llmparity.settings.specification import EngineSpec, Settings
from pytest_llmparity.store.runs import RunHandle, Store


class Campaign:
    """Gathers everything a plan needs into one run of the store.

    ``declarations`` are the tests the plan was made of, ``lock`` is what engines are held against, ``goldens`` are
    those of them that are golden answers. With ``judging``,
    which reads what the store holds by now, the run is sequential: it is asked in waves until nothing is open.
    ``meanwhile`` is called when the first requests are on their way, which leaves this process time for it.
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
        goldens: Goldens,
        loop: LoopThread,
        progress: Progress,
        version: str,
        meanwhile: Callable[[], None],
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
        self._goldens = goldens
        self._ledger = ledger = Ledger(settings, guard=held_against(lock, goldens), portion=plan.portion)
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
            meanwhile=meanwhile,
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
                judging=judging,
                ledger=ledger,
                asking=self._asking,
            )
        self._one_at_a_time = settings.residency == "one-at-a-time"
        self._order = settings.in_turn()
        """The baseline first: when it cannot be used nobody is asked for what only a comparison needs."""
        self._timing = TimedPhase(
            run=begun.id,
            store=store,
            ledger=ledger,
            begin=progress.begin,
            hold=self._asking.absences.hold_again,
            changes=settings.timed_changes,
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
            self._fleet.may_probe = True
        self._fleet.allowance = self._allowance
        self._enter_goldens()
        try:
            if self._one_at_a_time:
                self._each_in_its_time()
            else:
                self._all_together()
        finally:
            self._allowance.close()
            # What tests ask of an engine afterwards is their own affair.
            self._fleet.allowance, self._fleet.may_probe = Allowance(), True
            self._progress.end()
        secrets = [name for spec in self._order for name in spec.secret_variables]
        notes += self._asking.differing(self._plan.units)
        self._store.put_document(run, LOCKED, engines_document({**self._lock.seen, **self._goldens.locked}, secrets))
        notes += self._lock.twins() + selves(self._settings.engines)
        if self._allowance.reason is not None:
            notes.append(f"incomplete: {self._allowance.reason}")
        left_open = self._waves is not None and self._waves.open
        write_state(self._store, run, self._ledger.state(open=left_open))
        if self._allowance.reason is None and not left_open:
            self._store.finish(run)

    def _enter_goldens(self) -> None:
        """Take the golden answers into the run before anybody is asked: what they do not answer nobody needs."""
        units = self._plan.whole or self._plan.units  # a shard too has all golden answers: nobody is asked for them
        records = self._goldens.enter(units, run=self._begun.id, store=self._store)
        self._ledger.engines |= records
        self._ledger.notes += [remark for record in records.values() for remark in record.notes]

    def _all_together(self) -> None:
        """Start every engine, prepare all, ask all, time all."""
        self._fleet.engage_all()
        self._asking.apart = self._fleet.apart()
        for why in dict.fromkeys(self._asking.apart.values()):
            self._ledger.notes.append(
                f"{why}. So they are asked one after the other and timed in turn, with at most "
                f"{explain.count(self._settings.timed_changes, 'change')} of the model in memory (timed_changes), and "
                "warmed up again after every change; no request that waits for a load is timed"
            )
            self._progress.say(self._ledger.notes[-1])
        names = [spec.name for spec in self._order]
        self._prepare([(spec, self._enter(spec)) for spec in self._order])
        if self._waves is None:
            self._asking.everything(names, self._plan.units)
        elif self._asking.apart:  # waves that alternate between them would load a model for each
            for name in names:
                self._in_waves([name])
        else:
            self._in_waves(names)
        self._time(self._order)

    def _each_in_its_time(self) -> None:
        """Start, prepare, ask and time one engine after the other; each has gone before the next one comes.

        What is timed against another engine comes last, when each is loaded again for its turns.

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
                self._asking.everything([spec.name], self._plan.units)
            else:
                self._in_waves([spec.name])
            self._time([spec])
        self._time_in_turn()

    def _is_needed(self, spec: EngineSpec) -> bool:
        """Whether anything is asked of an engine."""
        return any(self._company.needs(spec.name, unit) is not None for unit in self._plan.units)

    def _enter(self, spec: EngineSpec) -> Adapter | None:
        """Take an engine into the ledger, started if it may be asked anything; return its adapter if it can be."""
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
        if not self._settings.update_golden:  # what becomes golden is asked whatever it can be held against
            for reason in self._company.hold(self._plan.units, self._lock.agreed()):
                self._progress.say(reason)
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
            if record.unusable is not None:
                continue
            wires = {key: by_case for key, by_case in prepared[name].wires.items() if key not in lonely}
            engaged = self._fleet.known(name)
            further = () if engaged is None else engaged.further
            for other in further:
                other.learnt(adapter.can)
            self._asking.ready[name] = Ready(adapter, wires, prepared[name].shorter, further)
            for key, by_case in wires.items():
                sent = {case: wire.sha256 for case, wire in by_case.items()}
                self._store.put_document(self._begun.id, wires_name(name, key), sent)
            self._ledger.notes += unsent_fields(name, wires)
            asked = [unit for unit in self._plan.units if unit.key in wires]
            self._ledger.notes += unread_fields(name, asked, record.capabilities)

    def _prepared(self, adapter: Adapter) -> Prepared:
        """Prepare one engine; called in a thread of its own."""
        record = self._ledger.engines[adapter.name]
        asked = any(
            unit.key not in record.refused and self._company.needs(adapter.name, unit) is not None
            for unit in self._plan.units
        )
        prepared = prepare(
            adapter,
            record,
            self._plan.units,
            asked=asked,
            store=self._store,
            version=self._version,
            fresh=self._settings.resume == "fresh",
            whole=self._settings.update_golden is not None or adapter.spec.recorder is not None,
            take=self._allowance.take,
        )
        # A frozen run tells all engines that changed, also where one of them leaves the others nothing to be asked.
        held = asked or self._settings.frozen
        heard = held and not record.recording and prepared.record.error is None
        return self._heard(adapter, prepared) if heard else prepared

    def _heard(self, adapter: Adapter, prepared: Prepared) -> Prepared:
        """Ask an engine its canaries, where the lock has them, and hold it against them."""
        kept = self._lock.canaries(adapter.name)
        if kept is None:
            return prepared
        seen = compare(kept, canaries.ask(adapter, take=self._allowance.take))
        held = self._lock.heard(adapter.spec, seen, stopped=bool(self._allowance.reason))
        record = dataclasses.replace(prepared.record, canaries=str(seen))
        if held.wrong:
            record = dataclasses.replace(record, incomparable=f"{adapter.name}: {'; '.join(held.wrong)}")
        notes = (*prepared.notes, *(f"{adapter.name}: {note}" for note in held.notes))
        return dataclasses.replace(prepared, record=record, notes=notes)

    def _in_waves(self, names: Sequence[str]) -> None:
        """Ask these engines wave by wave."""
        assert self._waves is not None
        ready = [name for name in names if name in self._asking.ready]
        for name in ready:
            if self._asking.begin(name, self._waves.orders()):
                self._asking.warm_again(name)
        # Whoever is asked before the others come cannot know when they will be settled.
        before_the_others = self._one_at_a_time or bool(self._asking.apart)
        whole = before_the_others and ready == [self._settings.baseline]
        for unit in self._plan.units:
            self._waves.go(unit, [name for name in ready if unit.key in self._asking.ready[name].wires], whole=whole)

    def _time(self, specs: Sequence[EngineSpec]) -> None:
        """Measure latency of every unit that asks for it on those of these engines that can be asked, all resident.

        Of engines that are in memory one at a time what is held against another one waits for :meth:`_time_in_turn`.
        """
        if self._plan.timed:
            late.load()  # nothing of ours is busy beside what is timed
        for unit in map(self._askable, self._plan.timed):
            if self._one_at_a_time and unit.needs.timed_relative:
                continue
            adapters = [self._fleet.engage(spec.name).adapter for spec in self._timed(unit, specs)]
            there = {adapter.name: adapter for adapter in adapters if adapter is not None}
            in_turn = self._one_at_a_time or bool(self._asking.apart.keys() & there)
            self._timing.time(unit, list(there.values()), fetch=there.__getitem__ if in_turn else None)

    def _time_in_turn(self) -> None:
        """Measure latencies that are held against another engine's, each engine loaded for its turns."""
        self._fleet.may_probe = False  # what it finds out is known since each engine was first loaded
        for unit in map(self._askable, self._plan.timed):
            if unit.needs.timed_relative:
                specs = self._timed(unit, self._order)
                specs.sort(key=lambda spec: self._fleet.known(spec.name) is None)  # who is in memory begins
                self._timing.time(unit, [self._asking.ready[spec.name].adapter for spec in specs], fetch=self._loaded)

    def _loaded(self, name: str) -> Adapter:
        """Load an engine for its turn, every other one gone, and return its adapter; it must be what it was."""
        engaged = self._fleet.engage(name)
        if engaged.adapter is None or engaged.record.unusable:
            raise LaunchError(f"{name} could not be loaded for its turn: {engaged.record.unusable}", engine=name)
        if changed := changes(self._ledger.engines[name].identity, engaged.record.identity):
            raise LaunchError(f"{name} is another engine since it was loaded again: {'; '.join(changed)}", engine=name)
        return engaged.adapter

    def _askable(self, unit: Unit) -> Unit:
        """Return the unit with the cases that every engine asked any of them can be asked: timed side by side."""
        asked = [engine.wires[unit.key] for engine in self._asking.ready.values() if unit.key in engine.wires]
        return narrowed(unit, (case for case in unit.prompts.cases if all(case.id in wires for wires in asked)))

    def _timed(self, unit: Unit, specs: Sequence[EngineSpec]) -> list[EngineSpec]:
        """Return who of these is timed on a unit: none that is only held against a recording without times."""
        timed = [spec for spec in specs if self._is_timed(unit, spec)]
        names = {spec.name for spec in timed}
        held = self._settings.baseline in names and len(names) > 1
        recorded = any(spec.recording is not None and spec.name not in names for spec in specs)
        alone = any(check.needs().timed and not check.pairwise for check in unit.checks)
        return timed if held or alone or not recorded else []

    def _is_timed(self, unit: Unit, spec: EngineSpec) -> bool:
        """Tell whether an engine that can be asked this unit is timed on it."""
        needs = self._company.needs(spec.name, unit)
        ready = self._asking.ready.get(spec.name)
        if ready is None or unit.key not in ready.wires or needs is None or needs.timed == 0:
            return False
        why = untimed(ready.adapter, unit)
        if why is not None:
            self._ledger.amend(spec.name, untimed={unit.key: why})
        return why is None
