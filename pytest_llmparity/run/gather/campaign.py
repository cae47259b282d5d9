"""One gathering: units in seeded order on every engine, samples into the store as they finish, timed phase last.

Engines of different lanes (``gather.lanes``) are asked at the same time. What one of them is sent, and in which order,
does not depend on the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from pytest_llmparity.core.errors import (
    KeeperError,
    LLMParityError,
    StoreError,
    told,
)
from pytest_llmparity.core.evidence import FLOOR_PHASES, Needs
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.sample import Sample, WireRequest, to_json
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.gather.company import alone, needs_alone, selves
from pytest_llmparity.run.gather.lanes import Lane, lanes_of
from pytest_llmparity.run.gather.reconnect import Watch
from pytest_llmparity.run.gather.requests import client_of, jobs_of, key_of, narrowed, requests_by_case, wires_note
from pytest_llmparity.run.gather.sender import Allowance, Job, gather
from pytest_llmparity.run.gather.waves import Waves
from pytest_llmparity.run.judge.evidence import pointless
from pytest_llmparity.run.loop import LoopThread, all_of, outside
from pytest_llmparity.run.plan import Plan, Step, Unit
from pytest_llmparity.run.probe.preflight import compare_routes, learn, remarks, some_requests, wanted
from pytest_llmparity.run.records import proven, record_of
from pytest_llmparity.run.timed.phase import BLOCKS_APART, TimedPhase
from pytest_llmparity.settings.specification import EngineSpec, Settings
from pytest_llmparity.store.runs import GATHERED, Key, RunHandle, Store

UNPROVEN = "repetition_penalty"
"""The one neutral value left out of requests that could change a greedy answer where a server's default is another."""


class Progress(Protocol):
    """Shows how far gathering is; silent where nobody watches."""

    def say(self, text: str) -> None:
        """Something is going to take its time."""

    def begin(self, engine: str, total: int) -> None:
        """An engine starts on so many requests."""

    def advance(self, engine: str) -> None:
        """One request of this engine has ended."""

    def end(self) -> None:
        """Everything is gathered, or gathering was interrupted."""


class Campaign:
    """Gathers everything a plan needs into one run of the store."""

    def __init__(
        self,
        settings: Settings,
        plan: Plan,
        *,
        begun: RunHandle,
        guard: str = "",
        store: Store,
        fleet: Fleet,
        twins: Callable[[], list[str]] = list,
        version: str,
        loop: LoopThread,
        progress: Progress,
        sequential: Callable[[Campaign], Waves] | None = None,
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._run = begun.id
        self._begun = begun
        self._guard = guard
        self._store = store
        self._fleet = fleet
        self._twins = twins
        self._version = version
        self._loop = loop
        self._progress = progress
        self._allowance = Allowance(requests=settings.max_requests, seconds=settings.budget_s)
        self._records: dict[str, EngineRecord] = {}
        self._apart: Mapping[str, str] = {}
        self._words: list[str] = []
        self._unusable: dict[str, str] = {}
        self._ready: dict[str, tuple[Adapter, Mapping[str, Mapping[str, WireRequest]]]] = {}
        self._waves = sequential(self) if sequential is not None else None
        self._timing = TimedPhase(
            run=begun.id,
            store=store,
            allowance=self._allowance,
            words=self._words,
            begin=progress.begin,
            hold=self._held_again,
        )

    def go(self) -> None:
        """Gather; the run is marked finished unless a hard stop left something out."""
        if self._begun.resumed:
            self._words.append(f"resumed run {self._run}: its earlier answers are kept, their timings are not")
        if self._begun.retried:
            self._words.append(f"run {self._run} is gone on with: only what had failed or was missing is asked")
        self._fleet.slots = max([self._settings.concurrency, *(unit.concurrency for unit in self._plan.units)])
        if any(unit.concurrency > 1 for unit in self._plan.timed):
            self._fleet.may_probe = self._allowance.take
        one_at_a_time = self._settings.residency == "one-at-a-time"
        self._fleet.time_left = lambda: self._allowance.left_s
        try:
            self._look(in_turn=one_at_a_time)
            if not one_at_a_time:
                self._stand_apart()
            for spec in self._order():
                self._one(spec)
                if one_at_a_time:
                    self._ask_all([Lane((spec.name,))])
                    self._time([spec])
            if not one_at_a_time:
                self._part()
                self._ask_all(lanes_of(self._settings, apart=self._apart))
                self._time(self._order())
        finally:
            self._fleet.time_left = lambda: None  # what tests ask of an engine afterwards is their own affair
            self._progress.end()
        self._words += self._twins() + selves(self._settings.engines)
        if self._allowance.reason is not None:
            self._words.append(f"incomplete: {self._allowance.reason}")
        left_open = self._waves is not None and self._waves.open
        self._store.put_document(self._run, GATHERED, {**self.state(), "open": left_open})
        if self._allowance.reason is None and not left_open:
            self._store.finish(self._run)

    def _stand_apart(self) -> None:
        """Find out which engines cannot stay in memory beside another, and say what follows from that."""
        self._apart = self._fleet.apart()
        for why in dict.fromkeys(self._apart.values()):
            self._words.append(
                f"{why}. So they are asked one after the other, timed in at most {BLOCKS_APART} blocks each and warmed "
                "up again after every change; no request that waits for a load is timed"
            )
            self._progress.say(self._words[-1])

    def state(self) -> dict[str, Any]:
        """Return what there is to say of the gathering so far, as builtins."""
        return {
            "cases": list(self._settings.cases),
            "engines": {name: to_json(entry) for name, entry in self._records.items()},
            "baseline": self._settings.baseline,
            "incomplete": self._allowance.reason,
            "requests": self._allowance.sent,
            "retries": self._allowance.retries,
            "notes": self._words,
            "guard": self._guard,
        }

    def _order(self) -> list[EngineSpec]:
        """The baseline first: when it cannot be used nobody is asked for what only a comparison needs."""
        return self._settings.in_turn()

    def _look(self, *, in_turn: bool) -> None:
        """Find out which engines cannot be used before anybody is asked anything.

        Where all may be in memory every one of them is started, identified and held against its pins. Where they take
        turns the baseline is, and of the others what can be known without loading a model: who listens, whose key is
        refused, which program is missing.
        """
        if not in_turn:
            self._fleet.engage_all()
        for spec in self._order()[1:] if in_turn else ():
            self._fleet.glance(spec.name)
        for spec in reversed(self._order()):
            if in_turn and spec.name == self._settings.baseline and self._needed(spec.name):
                self._fleet.engage(spec.name)
            engaged = self._fleet.known(spec.name)
            if engaged is not None and (why := engaged.record.unusable):
                self._unusable[spec.name] = why

    def _needed(self, name: str) -> bool:
        """Whether anything is asked of an engine."""
        return any(self._needs(name, unit) is not None for unit in self._plan.units)

    def _alone(self, name: str, unit: Unit) -> str | None:
        """Say why nothing of a unit can be compared on an engine, ``None`` where something can."""
        unusable = dict(self._unusable)
        for other, entry in self._records.items():
            why = entry.unusable or entry.refused.get(unit.key) or entry.left_out.get(unit.key)
            if why is not None:
                unusable[other] = why
        engines = [spec.name for spec in self._settings.engines]
        return alone(name, baseline=self._settings.baseline or "", engines=engines, unusable=unusable)

    def _needs(self, name: str, unit: Unit) -> Needs | None:
        """Return what a unit needs of an engine; ``None``: nothing, because whom it is compared with is not there."""
        return unit.needs if self._alone(name, unit) is None else needs_alone(unit)

    def _part(self) -> None:
        """Leave out what turned out to have nothing to be compared with, before the first prompt."""
        for name, (adapter, wires) in list(self._ready.items()):
            entry = self._records[name]
            lonely = {unit.key: why for unit in self._plan.units if (why := self._unasked(name, unit)) is not None}
            self._records[name] = dataclasses.replace(entry, lonely=lonely)
            self._ready[name] = (adapter, {key: found for key, found in wires.items() if key not in lonely})

    def _unasked(self, name: str, unit: Unit) -> str | None:
        """Say why an engine is not asked a unit at all, ``None`` where it is."""
        return self._alone(name, unit) if self._needs(name, unit) is None else None

    def _one(self, spec: EngineSpec) -> None:
        spared = self._settings.residency == "one-at-a-time" and not self._needed(spec.name)
        engaged = self._fleet.known(spec.name) if spared else self._fleet.engage(spec.name)
        if engaged is None:  # its model is not loaded for nothing
            lonely = {unit.key: self._unasked(spec.name, unit) or "" for unit in self._plan.units}
            record = record_of(spec, baseline=self._settings.baseline)
            self._records[spec.name] = dataclasses.replace(record, lonely=lonely)
            return
        entry = dataclasses.replace(engaged.record, baseline=spec.name == self._settings.baseline)
        self._words.extend(entry.notes)
        self._records[spec.name] = entry
        if engaged.adapter is None:  # nobody is there to be another engine than the one that answered before
            if self._allowance.left_s == 0:
                self._allowance.out_of_time()  # it may be there when the run goes on
            return
        if self._store.put_engine(self._run, spec.name, spec.spec_hash, entry.identity):
            self._words.append(f"{spec.name} is not the engine the interrupted run asked: its answers are asked again")
            if self._waves is not None:
                self._waves.anew()
        try:
            if entry.model is None:
                self._records[spec.name] = dataclasses.replace(entry, model=engaged.adapter.model)
            if entry.incomparable:
                return
            units = {unit.key: unit for unit in self._plan.units}
            built = [key for key in self._built(engaged.adapter)[0] if self._needs(spec.name, units[key]) is not None]
            self._prepare(engaged.adapter, asked=bool(built))
            self._ready[spec.name] = (engaged.adapter, self._build(engaged.adapter))
        except (StoreError, KeeperError):
            raise
        except Exception as error:  # noqa: BLE001 - one engine's trouble is not the run's, whatever it is
            self._records[spec.name] = dataclasses.replace(self._records[spec.name], error=told(error, spec.name))

    def _prepare(self, adapter: Adapter, *, asked: bool) -> None:
        """Find out what the server does with what it will be sent, before the first prompt; nothing if none will be."""
        entry = self._records[adapter.name]
        learnt = learn(
            adapter,
            entry.identity,
            names=wanted(self._plan.units, context=entry.context_length) if asked else (),
            store=self._store,
            version=self._version,
            fresh=self._settings.resume == "fresh",
            take=self._allowance.take,
        )
        self._words.extend(remarks(adapter, learnt))
        entry = dataclasses.replace(entry, declares=learnt.declares, capabilities=learnt.capabilities)
        judged = [(unit, pointless(entry, unit)) for unit in self._plan.units]
        units = [narrowed(unit, (c for c in unit.prompts.cases if c.id not in lacks)) for unit, lacks in judged]
        units = [unit for unit in units if unit.prompts.cases]
        some, take, say = some_requests(units), self._allowance.take, self._words.append
        routes = compare_routes(adapter, some, take=take, say=say) if asked and units else None
        if routes is not None:
            alike = f"{adapter.name}: its {routes.measured} and {routes.other} routes answer {routes.cases} cases alike"
            self._words.append(routes.sentence(adapter.name) or alike)
        self._records[adapter.name] = dataclasses.replace(entry, route_check=routes)

    def _build(self, adapter: Adapter) -> dict[str, Mapping[str, WireRequest]]:
        """Put every request into the engine's words before the first one is sent; what is not asked is written down.

        That is what the route has no words for, and what no check could judge for want of what it needs: a unit where
        that holds for all of its cases, else the cases.
        """
        entry = self._records[adapter.name]
        built, words_missing = self._built(adapter)
        refused: dict[str, str] = {}
        left_out: dict[str, str] = {}
        unasked: dict[str, Mapping[str, str]] = {}
        for unit in self._plan.units:
            lacks = pointless(entry, unit)
            wires = {case: wire for case, wire in built.get(unit.key, {}).items() if case not in lacks}
            missing = {**words_missing.get(unit.key, {}), **lacks}
            if wires:
                built[unit.key] = wires
                unasked |= {unit.key: missing} if missing else {}
                continue
            built.pop(unit.key, None)
            if len(lacks) == len(unit.prompts.cases):
                left_out[unit.key] = next(iter(lacks.values()))
            else:
                refused[unit.key] = next(why for case, why in missing.items() if case not in lacks)
        lonely = {unit.key: why for unit in self._plan.units if (why := self._unasked(adapter.name, unit))}
        built = {key: wires for key, wires in built.items() if key not in lonely}
        for unit in self._plan.units:
            if unit.key in built:
                sent = {case: wire.sha256 for case, wire in built[unit.key].items()}
                self._store.put_document(self._run, wires_note(adapter.name, unit), sent)
        omitted = {name for wires in built.values() for wire in wires.values() for name in wire.omitted}
        if UNPROVEN in omitted:
            self._words.append(
                f"{adapter.name}: {UNPROVEN} was not sent, this kind of engine has no field for it; a server whose "
                "default is not 1 answers differently"
            )
        self._records[adapter.name] = dataclasses.replace(
            entry, refused=refused, left_out=left_out, unasked=unasked, lonely=lonely
        )
        return built

    def _built(self, adapter: Adapter) -> tuple[dict[str, Mapping[str, WireRequest]], dict[str, Mapping[str, str]]]:
        """Return, by unit, the requests in the engine's words, and why some cases cannot be put into them."""
        built: dict[str, Mapping[str, WireRequest]] = {}
        refused: dict[str, Mapping[str, str]] = {}
        for unit in self._plan.units:
            wires, missing = requests_by_case(adapter, unit)
            if wires:
                built[unit.key] = wires
            if missing:
                refused[unit.key] = missing
        return built, refused

    def _ask_all(self, lanes: Sequence[Lane]) -> None:
        """Ask the engines of these lanes, those that can be asked, everything but the timed phase."""
        if self._waves is None:
            self._loop.run(self._in_lanes(lanes, self._ask_everything))
            return
        for names in self._groups([name for lane in lanes for name in lane.names if name in self._ready]):
            for name in names:
                self._begin(name, self._waves.all_steps())
            # Whoever is asked before the others come cannot know when they will be settled.
            alone = self._settings.residency == "one-at-a-time" or bool(self._apart)
            whole = alone and names == [self._settings.baseline]
            for unit in self._plan.units:
                self._waves.go(unit, [name for name in names if unit.key in self._ready[name][1]], whole=whole)

    def _groups(self, names: list[str]) -> list[list[str]]:
        """Return who shares the waves: everybody, unless engines drop each other's model: each wave would load it."""
        return [[name] for name in names] if self._apart else [names]

    async def _in_lanes(self, lanes: Sequence[Lane], ask: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        """Ask the engines of each lane in turn, and the lanes at the same time."""

        async def in_turn(lane: Lane) -> None:
            for name in lane.names:
                if name in self._ready:
                    await ask(name)

        await all_of(in_turn(lane) for lane in lanes)

    async def _ask_everything(self, name: str) -> None:
        """Ask one engine what is missing of the whole plan."""
        adapter = self._ready[name][0]
        jobs = self._begin(name, list(self._plan.steps()))
        if not jobs:
            return
        if name in self._apart:
            with contextlib.suppress(LLMParityError):  # the requests themselves will say what is wrong
                await outside(adapter.warm_up)
        await self._send(adapter, jobs)

    def _begin(self, name: str, asked: Sequence[Step]) -> list[tuple[Step, list[Job]]]:
        """Reuse what may be reused of an engine's noise floor; return what is missing, nothing where nothing is."""
        adapter, wires = self._ready[name]
        steps = [step for step in asked if step.unit.key in wires and self._wants(name, step)]
        self._reuse_floor(adapter, wires, steps)
        have = self._store.have(self._run, name)
        jobs = [(step, self._missing(name, step, have)) for step in steps]
        total = sum(len(missing) for _, missing in jobs)
        if total:
            self._progress.begin(name, total)
        return jobs if total else []

    def _wants(self, name: str, step: Step) -> bool:
        """Whether a phase is worth asking: the noise floor serves comparisons only."""
        needs = self._needs(name, step.unit)
        return needs is not None and step.phase in needs.phases

    def missing(self, engine: str, step: Step) -> int:
        """How many requests of a step have no sample yet. For ``run.gather.waves``."""
        return len(self._missing(engine, step, self._store.have(self._run, engine)))

    def ask(self, engines: Sequence[str], steps: Sequence[Step]) -> bool:
        """Send these engines what is missing of some steps; False when a hard stop left something out.

        For ``run.gather.waves``.
        """
        jobs = {
            name: [(step, self._missing(name, step, self._store.have(self._run, name))) for step in steps]
            for name in engines
        }
        jobs = {name: missing for name, missing in jobs.items() if any(of_step for _, of_step in missing)}

        async def ask(name: str) -> None:
            if name in jobs:
                await self._send(self._ready[name][0], jobs[name])

        self._loop.run(self._in_lanes(lanes_of(self._settings, apart=self._apart), ask))
        return self._allowance.reason is None or not jobs

    def _missing(self, engine: str, step: Step, have: Collection[Key]) -> list[Job]:
        wires = self._ready[engine][1][step.unit.key]
        return [job for job in jobs_of(step, wires) if key_of(job) not in have]

    def _reuse_floor(
        self, adapter: Adapter, wires: Mapping[str, Mapping[str, WireRequest]], steps: Sequence[Step]
    ) -> None:
        """Copy the noise floor an earlier run measured on this very server, where nothing about it has changed.

        Only of a server that somebody else keeps running: one that we start is measured as it is this time. Timings
        stay behind, they are evidence of their own run alone.
        """
        if adapter.spec.launch != "attach" or self._settings.resume == "fresh":
            return
        if not proven(self._records[adapter.name].identity):
            return
        have, found = self._store.have(self._run, adapter.name), 0
        for step in steps:
            if step.phase not in FLOOR_PHASES:
                continue
            wanted = {key_of(job) for job in jobs_of(step, wires[step.unit.key])}
            if not wanted or wanted & have:
                continue
            samples = self._store.reusable_floor(
                spec_hash=adapter.spec.spec_hash,
                identity=self._records[adapter.name].identity,
                concurrency=step.concurrency,
                version=self._version,
                wanted=wanted,
            )
            copies = [dataclasses.replace(sample, engine=adapter.name, timing=None) for sample in samples]
            self._store.put(self._run, copies)
            found += len(copies)
        if found:
            self._words.append(
                f"{adapter.name}: {found} answers of its noise floor come from an earlier run on the same server; "
                "--parity-fresh measures it again"
            )

    async def _send(self, adapter: Adapter, steps: Sequence[tuple[Step, list[Job]]]) -> None:
        client, watch = client_of(adapter), self._watch(adapter)
        try:
            for step, jobs in steps:
                again = await gather(
                    adapter,
                    client,
                    jobs,
                    concurrency=step.concurrency,
                    allowance=self._allowance,
                    gone=lambda: self._fleet.gone(adapter.name),
                    deliver=self._deliver,
                    watch=watch,
                )
                if again:
                    self._words.append(
                        f"{adapter.name} sent more answers than it was asked for: {again} that may have been other "
                        "prompts' were asked again, each on a connection of its own"
                    )
        finally:
            await client.aclose()
            if watch is not None:
                self._came_back(adapter.name, watch)

    def _watch(self, adapter: Adapter) -> Watch | None:
        """Return what waits for a server that somebody else runs; a process of ours that ends has ended for good."""
        if adapter.spec.launch != "attach":
            return None
        return Watch(
            adapter,
            hold=lambda within_s, stop: self._fleet.hold_again(adapter.name, within_s, stop),
            patience_s=adapter.spec.reconnect_s,
            left_s=lambda: self._allowance.left_s,
        )

    def _held_again(self, adapter: Adapter) -> str | None:
        """Wait for a server that went away in the timed phase; return why it cannot be asked again."""
        left = self._allowance.left_s
        patience = adapter.spec.reconnect_s if left is None else min(left, adapter.spec.reconnect_s)
        why = self._fleet.hold_again(adapter.name, patience, lambda: None)
        engaged = self._fleet.known(adapter.name)
        if engaged is not None and engaged.record.incomparable:
            self._records[adapter.name] = dataclasses.replace(
                self._records[adapter.name], incomparable=engaged.record.incomparable
            )
        return why

    def _came_back(self, name: str, watch: Watch) -> None:
        """Write down that a server restarted, and what became of it: answers of two engines are none of either."""
        if (sentence := watch.sentence()) is not None:
            self._words.append(sentence)
        engaged = self._fleet.known(name)
        if engaged is not None and engaged.record.incomparable:
            self._records[name] = dataclasses.replace(self._records[name], incomparable=engaged.record.incomparable)

    def _deliver(self, sample: Sample) -> None:
        self._store.put(self._run, [sample])
        self._progress.advance(sample.engine)

    def _time(self, specs: Sequence[EngineSpec]) -> None:
        """Measure latency of every unit that asks for it on those of these engines that can be asked, all resident."""
        for unit in map(self._askable, self._plan.timed):
            self._timing.time(unit, self._comparable(unit, specs), apart=self._apart.keys())

    def _askable(self, unit: Unit) -> Unit:
        """Return the unit with the cases that every engine asked any of them can be asked: timed side by side."""
        asked = [wires[unit.key] for _, wires in self._ready.values() if unit.key in wires]
        return narrowed(unit, (case for case in unit.prompts.cases if all(case.id in wires for wires in asked)))

    def _comparable(self, unit: Unit, specs: Sequence[EngineSpec]) -> list[Adapter]:
        """Return those of the engines that can be asked this unit, in their order."""
        found = []
        for spec in specs:
            engaged = self._fleet.engage(spec.name)
            needs = self._needs(spec.name, unit)
            asked = spec.name in self._ready and unit.key in self._ready[spec.name][1]
            if engaged.adapter is not None and asked and needs is not None and needs.timed:
                found.append(engaged.adapter)
        return found
