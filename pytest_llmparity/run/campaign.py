"""One gathering: engines in turn, units in seeded order, samples into the store as they finish, timed phase last."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from pytest_llmparity.core.checks.base import FLOOR_PHASES
from pytest_llmparity.core.errors import EngineError, ParameterNotHonoured, UnsupportedParameter
from pytest_llmparity.core.sample import Phase, Sample, WireRequest, to_json
from pytest_llmparity.core.settings import EngineSpec, Settings
from pytest_llmparity.engines.base import Adapter
from pytest_llmparity.run import timed
from pytest_llmparity.run.evidence import EngineNote, note
from pytest_llmparity.run.fleet import Engaged, Fleet
from pytest_llmparity.run.gather import Allowance, Job, answered, failed, gather, named
from pytest_llmparity.run.loop import LoopThread
from pytest_llmparity.run.plan import Plan, Step, Unit, shuffled
from pytest_llmparity.store import Key, Store
from pytest_llmparity.transport.client import Client
from pytest_llmparity.transport.limits import Limits

GATHERED = "gathered"
"""Name of the run's note that says: gathering has ended, this is what happened."""
BLOCKS = 16
"""Most A B B A blocks per engine in the timed phase: pairs of them are what the ratio's bootstrap resamples."""

PROVEN = ({"quantization", "digest"}, {"version", "build"})
"""What a server must tell of its weights and of its program before a noise floor is reused: a name proves neither."""


class Progress(Protocol):
    """Shows how far gathering is; silent where nobody watches."""

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
        run: str,
        resumed: bool,
        store: Store,
        fleet: Fleet,
        version: str,
        loop: LoopThread,
        progress: Progress,
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._run = run
        self._resumed = resumed
        self._store = store
        self._fleet = fleet
        self._version = version
        self._loop = loop
        self._progress = progress
        self._allowance = Allowance(requests=settings.max_requests, seconds=settings.budget_s)
        self._notes: dict[str, EngineNote] = {}
        self._words: list[str] = []

    def go(self) -> None:
        """Gather; the run is marked finished unless a hard stop left something out."""
        if self._resumed:
            self._words.append(f"resumed run {self._run}: its earlier answers are kept, their timings are not")
        in_turn = self._settings.residency == "one-at-a-time"
        if not in_turn:
            self._fleet.engage_all()
        try:
            for spec in self._order():
                self._one(spec)
                if in_turn:
                    self._time([spec])
            if not in_turn:
                self._time(self._order())
        finally:
            self._progress.end()
        self._store.put_note(
            self._run,
            GATHERED,
            {
                "engines": {name: to_json(entry) for name, entry in self._notes.items()},
                "baseline": self._settings.baseline,
                "incomplete": self._allowance.reason,
                "requests": self._allowance.sent,
                "retries": self._allowance.retries,
                "notes": self._words,
            },
        )
        if self._allowance.reason is None:
            self._store.finish(self._run)

    def _order(self) -> list[EngineSpec]:
        """The baseline first: when its pins are contradicted nobody is asked anything."""
        return sorted(self._settings.engines, key=lambda spec: spec.name != self._settings.baseline)

    def _one(self, spec: EngineSpec) -> None:
        engaged = self._fleet.engage(spec.name)
        kind = engaged.adapter.kind if engaged.adapter else spec.kind or "unknown"
        entry = note(
            spec,
            kind=kind,
            identity=engaged.identity,
            address=engaged.adapter.base_url if engaged.adapter else "",
            error=engaged.error,
            incomparable=self._incomparable(engaged),
            notes=engaged.notes,
            log=engaged.log,
        )
        if entry.model is None and engaged.adapter is not None:
            entry = dataclasses.replace(entry, model=engaged.adapter.model)
        self._words.extend(engaged.notes)
        self._notes[spec.name] = entry
        if self._store.put_engine(self._run, spec.name, spec.spec_hash, engaged.identity):
            self._words.append(f"{spec.name} is not the engine the interrupted run asked: its answers are asked again")
        if engaged.adapter is None or entry.incomparable:
            return
        wires = self._build(engaged.adapter)
        self._gather(engaged.adapter, wires)

    def _incomparable(self, engaged: Engaged) -> str | None:
        """A contradicted pin of the baseline stands for every pair: there is nothing left to compare with."""
        if engaged.incomparable or engaged.spec.name == self._settings.baseline:
            return engaged.incomparable
        baseline = self._notes.get(self._settings.baseline or "")
        return baseline.incomparable if baseline is not None else None

    def _build(self, adapter: Adapter) -> dict[str, Mapping[str, WireRequest]]:
        """Put every request into the engine's words before the first one is sent; refused units are written down."""
        built: dict[str, Mapping[str, WireRequest]] = {}
        refused: dict[str, str] = {}
        for unit in self._plan.units:
            try:
                built[unit.key] = requests_of(adapter, unit)
            except (ParameterNotHonoured, UnsupportedParameter) as error:
                refused[unit.key] = str(error)
                continue
            self._store.put_note(
                self._run, wires_note(adapter.name, unit), {c: w.sha256 for c, w in built[unit.key].items()}
            )
        if refused:
            self._notes[adapter.name] = dataclasses.replace(self._notes[adapter.name], refused=refused)
        return built

    def _gather(self, adapter: Adapter, wires: Mapping[str, Mapping[str, WireRequest]]) -> None:
        self._reuse_floor(adapter, wires)
        have = self._store.have(self._run, adapter.name)
        steps: list[tuple[Step, list[Job]]] = []
        for step in self._plan.steps():
            if step.unit.key in wires:
                jobs = [job for job in jobs_of(step, wires[step.unit.key]) if key_of(job) not in have]
                steps.append((step, jobs))
        total = sum(len(jobs) for _, jobs in steps)
        if total == 0:
            return
        self._progress.begin(adapter.name, total)
        self._loop.run(self._send(adapter, steps))

    def _reuse_floor(self, adapter: Adapter, wires: Mapping[str, Mapping[str, WireRequest]]) -> None:
        """Copy the noise floor an earlier run measured on this very server, where nothing about it has changed.

        Only of a server that somebody else keeps running: one that we start is measured as it is this time. Timings
        stay behind, they are evidence of their own run alone.
        """
        facts = self._notes[adapter.name].identity.facts
        if adapter.spec.launch != "attach" or self._settings.resume == "fresh":
            return
        if not all(names & facts.keys() for names in PROVEN):
            return
        have, found = self._store.have(self._run, adapter.name), 0
        for step in self._plan.steps():
            if step.phase not in FLOOR_PHASES or step.unit.key not in wires:
                continue
            wanted = {key_of(job) for job in jobs_of(step, wires[step.unit.key])}
            if wanted & have:
                continue
            samples = self._store.reusable_floor(
                spec_hash=adapter.spec.spec_hash,
                identity=self._notes[adapter.name].identity,
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
        client = client_of(adapter)
        try:
            for step, jobs in steps:
                await gather(
                    adapter,
                    client,
                    jobs,
                    concurrency=step.concurrency,
                    allowance=self._allowance,
                    gone=lambda: self._fleet.gone(adapter.name),
                    deliver=self._deliver,
                )
        finally:
            await client.aclose()

    def _deliver(self, sample: Sample) -> None:
        self._store.put(self._run, [sample])
        self._progress.advance(sample.engine)

    def _time(self, specs: Sequence[EngineSpec]) -> None:
        for unit in self._plan.timed:
            self._timed(unit, specs)

    def _timed(self, unit: Unit, specs: Sequence[EngineSpec]) -> None:
        """Measure latency in A B B A blocks over the same cases, these engines resident."""
        ready = {adapter.name: adapter for adapter in self._comparable(unit, specs)}
        missing = [name for name, a in ready.items() if not self._has_timed(a, unit)]
        if not missing or not self._allowance.take(unit.needs.timed * len(ready)):
            return
        cases = shuffled(unit.prompts.cases, seed=f"{unit.prompts.digest}/{Phase.TIMED}")
        wires = {name: requests_of(adapter, unit) for name, adapter in ready.items()}
        for name in ready:
            self._progress.begin(f"{name} (timed)", unit.needs.timed)
        result = timed.measure(
            [target_of(ready[name], [(case.id, wires[name][case.id]) for case in cases]) for name in ready],
            concurrency=unit.concurrency,
            per_engine=unit.needs.timed,
            blocks=blocks_of(unit),
        )
        self._words.append(instrument(result.calibration))
        asked = Counter[str]()
        samples = []
        for record in result.records:
            adapter = ready[record.engine]
            samples.append(timed_sample(adapter, wires[adapter.name][record.case], unit, asked[record.engine], record))
            asked[record.engine] += 1
        self._store.put(self._run, samples)

    def _comparable(self, unit: Unit, specs: Sequence[EngineSpec]) -> list[Adapter]:
        """Return those of the engines that can be asked this unit, in their order."""
        found = []
        for spec in specs:
            engaged, entry = self._fleet.engage(spec.name), self._notes[spec.name]
            if engaged.adapter is not None and not entry.incomparable and unit.key not in entry.refused:
                found.append(engaged.adapter)
        return found

    def _has_timed(self, adapter: Adapter, unit: Unit) -> bool:
        wires = {wire.sha256 for wire in requests_of(adapter, unit).values()}
        stored = self._store.get(self._run, adapter.name, phases=[Phase.TIMED])
        return sum(s.request_sha256 in wires for s in stored) >= unit.needs.timed


def blocks_of(unit: Unit) -> int:
    """Return how many blocks the timed phase has: each must keep the declared concurrency busy."""
    return max(1, min(BLOCKS, unit.needs.timed // unit.concurrency))


def timed_sample(adapter: Adapter, wire: WireRequest, unit: Unit, order: int, record: timed.Record) -> Sample:
    """Turn one record of the timed phase into a sample; ``order`` is its place among this engine's requests."""
    job = Job(case=record.case, wire=wire, phase=Phase.TIMED, repeat=order, concurrency=unit.concurrency)
    if record.exchange is None:
        sample = failed(adapter.name, job, EngineError("no answer"), attempts=1)
        return dataclasses.replace(sample, failure=record.failure)
    try:
        return answered(adapter, job, record.exchange, attempts=1, block=record.block)
    except EngineError as error:
        return failed(adapter.name, job, named(error, adapter.name, job.case), attempts=1)


def instrument(calibration: timed.Calibration) -> str:
    """Return the sentence that says how wrong the clock was just before the timed phase."""
    median, p99 = (1000 * late for late in (calibration.ttft_error_p50_s, calibration.ttft_error_p99_s))
    return (
        f"timed phase: at {calibration.concurrency} streams our client saw a paced server's first token "
        f"{median:.2f} ms late at the median, {p99:.2f} ms at p99 ({calibration.clock} clock)"
    )


def wires_note(engine: str, unit: Unit) -> str:
    """Name of the run's note that says which request of this engine belongs to which case of a unit."""
    return f"wires/{engine}/{unit.key}"


def requests_of(adapter: Adapter, unit: Unit) -> dict[str, WireRequest]:
    """Return the unit's requests in the engine's words, by case.

    Logprobs only grade forks, so an engine that may refuse them is not asked, nor any engine beside tools: llama.cpp
    does not stream the two together.
    """
    wanted = unit.needs.top_logprobs if adapter.reports_logprobs else None
    return {
        case.id: adapter.build(case.request(unit.sampling, top_logprobs=None if case.tools else wanted))
        for case in unit.prompts.cases
    }


def jobs_of(step: Step, wires: Mapping[str, WireRequest]) -> list[Job]:
    """Return the jobs of one step in the order they are sent."""
    return [
        Job(case=case.id, wire=wires[case.id], phase=step.phase, repeat=repeat, concurrency=step.concurrency)
        for repeat in range(step.repeats)
        for case in step.cases
    ]


def key_of(job: Job) -> Key:
    """Return what the store calls this job's sample."""
    return Key(job.wire.sha256, job.case, job.phase, job.repeat, job.concurrency)


def client_of(adapter: Adapter) -> Client:
    """Return a measuring client for one engine, with its headers, limits and route to the server."""
    return Client(
        adapter.base_url,
        headers=adapter.headers,
        limits=limits_of(adapter.spec),
        ca_bundle=adapter.spec.ca_bundle,
        proxy=adapter.spec.proxy,
    )


def limits_of(spec: EngineSpec) -> Limits:
    """Return the transport's limits under the deadlines of the configuration."""
    return Limits(
        connect_s=spec.connect_timeout_s,
        first_byte_s=spec.request_timeout_s,
        idle_s=spec.idle_timeout_s,
        total_s=spec.request_timeout_s,
    )


def target_of(adapter: Adapter, requests: Sequence[tuple[str, WireRequest]]) -> timed.Target:
    """Return one engine as the timed phase needs it."""
    return timed.Target(
        name=adapter.name,
        base_url=adapter.base_url,
        headers=dict(adapter.headers),
        limits=limits_of(adapter.spec),
        ca_bundle=adapter.spec.ca_bundle,
        proxy=adapter.spec.proxy,
        requests=tuple(requests),
    )
