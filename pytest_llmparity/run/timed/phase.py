"""The timed phase of a gathering: each unit with a latency check is put under load once, engines in turn (A B B A).

Engines that are in memory together are measured in one sitting, which takes their turns itself. Of engines that are
not, every turn is a sitting of its own, with its engine loaded and warmed up before anything is timed.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle, islice
from typing import Annotated

import msgspec

from pytest_llmparity.core import visits
from pytest_llmparity.core.errors import EngineDied, EngineError, LLMParityError, Unreachable
from pytest_llmparity.core.prompts import Case, unseen
from pytest_llmparity.core.recorded.playing import Purpose
from pytest_llmparity.core.sample import Phase, Sample, WireRequest
from pytest_llmparity.core.words import explain
from pytest_llmparity.engines.played import Played
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.ledger import Ledger
from pytest_llmparity.run.plan import Job, Unit, request_of, requests_of, shuffled
from pytest_llmparity.run.sending.sender import answered, failed, limits_of, named
from pytest_llmparity.run.timed import measure
from pytest_llmparity.settings.specification import DEFAULT_TIMED_CHANGES
from pytest_llmparity.store.ownership import TIMED
from pytest_llmparity.store.runs import Store

AWAY = (Unreachable.__name__, EngineDied.__name__)
"""Failures of requests that found nobody: their server was away, and what it did before and after is not one load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sitting:
    """Engines that are measured at one go, in ``blocks`` blocks each, the first of which has the number ``first``.

    ``span`` has the places of the requests among all that are timed. ``load`` counts how often the engine was loaded
    before, -1 for engines that stay in memory.
    """

    names: tuple[str, ...]
    span: range
    blocks: int
    first: int = 0
    load: int = -1


def sittings(unit: Unit, names: Sequence[str], *, changes: int | None) -> list[Sitting]:
    """Return in which sittings a unit is timed on these engines, in order of time.

    With ``changes`` engines are loaded in turn, the first of them first, and the engine in memory changes at most so
    often; without, all of them are measured in one sitting.
    """
    n, blocks = unit.needs.timed, visits.most_blocks(unit.needs.timed, unit.concurrency)
    if changes is None:
        return [Sitting(names=tuple(names), span=range(n), blocks=blocks)]
    each_visited = blocks if len(names) == 1 else min(blocks, visits.blocks_within(len(names), changes))
    ends = [0, *accumulate(visits.block_sizes(n, each_visited))]
    loads = Counter[int]()
    in_order = []
    for engine, of_visit in visits.visits(len(names), each_visited):
        span, each = range(ends[of_visit.start], ends[of_visit.stop]), blocks // each_visited
        in_order.append(
            Sitting(
                names=(names[engine],),
                span=span,
                blocks=max(1, min(each * len(of_visit), len(span) // unit.concurrency)),
                first=each * of_visit.start,
                load=loads[engine],
            )
        )
        loads[engine] += 1
    return in_order


@dataclass
class TimedPhase:
    """Times units into one run of the store.

    ``ledger`` gets notes for the reader, ``begin`` each engine and how often it is asked. ``hold`` waits for a server
    that went away and says why it cannot be asked again, ``None`` when it can. ``changes`` is how often the engine in
    memory may change where engines are loaded in turn.
    """

    run: str
    store: Store
    ledger: Ledger
    begin: Callable[[str, int], None]
    hold: Callable[[Adapter], str | None] = lambda adapter: None
    changes: int = DEFAULT_TIMED_CHANGES

    def time(self, unit: Unit, adapters: Sequence[Adapter], *, fetch: Callable[[str], Adapter] | None = None) -> None:
        """Time one unit on these engines, unless it was; what goes wrong concerns this unit alone.

        Engines that cannot be in memory together take turns: ``fetch`` loads the one it names and returns its
        adapter. They begin with the first, which is best the one in memory.
        """
        ready = {adapter.name: adapter for adapter in adapters}
        done = (self.store.has_document(self.run, timed_name(name, unit.key)) for name in ready)
        if not unit.prompts.cases or all(done):
            return
        wanted = unit.needs.timed * len(ready)
        if not self.ledger.allowance.take(wanted, purpose="the timed phase"):
            return
        self.ledger.allowance.give_back(max(0, wanted - self._measure(unit, ready, fetch)))

    def _measure(self, unit: Unit, ready: Mapping[str, Adapter], fetch: Callable[[str], Adapter] | None) -> int:
        """Return how many requests were sent. A sitting that met a restart counts once more."""
        cases = timed_cases(unit)
        asked = _Asked(
            cases={name: list(self._asked(adapter, unit, cases)) for name, adapter in ready.items()},
            warm_up={name: self._warm_up(adapter, unit, cases[-1]) for name, adapter in ready.items()},
            wires={name: requests_of(adapter, unit) for name, adapter in ready.items()},
            ids=[case.id for case in cases],
            first={name: self._first(name, unit) for name in ready},
        )
        for name in ready:
            self.begin(f"{name} (timed)", unit.needs.timed)
        lost: dict[str, str] = {}
        calibrations: list[measure.Calibration] = []
        sent, samples, counts = 0, list[Sample](), Counter[str]()
        for sitting in sittings(unit, list(ready), changes=None if fetch is None else self.changes):
            if lost.keys() & set(sitting.names):
                continue
            try:
                there = ready if fetch is None else {name: fetch(name) for name in sitting.names}
                result, requests = self._sit(unit, sitting, there, asked)
            except LLMParityError as error:
                self.ledger.notes.append(f"{unit.prompts.name} could not be timed: {error}")
                lost |= dict.fromkeys(sitting.names, str(error))
                continue
            sent += requests
            calibrations.append(result.calibration)
            samples += self._samples(unit, sitting, there, asked, result, counts)
            if result.stopped:
                self.ledger.allowance.out_of_time()
                break
        if calibrations:
            self.ledger.notes.append(instrument(max(calibrations, key=lambda measured: measured.ttft_error_p99_s)))
        self.ledger.notes += _loads(samples)
        self.store.put(self.run, samples)
        for name in ready:
            span = {"first": asked.first[name], "count": counts[name]}
            broken = {"error": lost[name]} if name in lost else {}
            self.store.put_document(self.run, timed_name(name, unit.key), span | broken)
        return sent

    def _sit(
        self, unit: Unit, sitting: Sitting, there: Mapping[str, Adapter], asked: _Asked, *, again: bool = False
    ) -> tuple[measure.TimedResult, int]:
        """Return what a sitting brought and how many requests were sent for it."""
        result = measure.measure(
            [
                target_of(
                    adapter,
                    [(asked.ids[place], asked.cases[name][place][0]) for place in sitting.span],
                    warm_up=asked.warm_up[name],
                )
                for name, adapter in there.items()
            ],
            concurrency=unit.concurrency,
            per_engine=len(sitting.span),
            blocks=sitting.blocks,
            deadline_s=self.ledger.allowance.left_s,
        )
        attached = {name for name, adapter in there.items() if adapter.spec.launch == "attach"}
        away = {r.engine for r in result.records if r.failure is not None and r.failure.kind in AWAY} & attached
        if not away or again or not self._all_back([there[name] for name in sorted(away)], unit):
            return result, len(result.records)
        wanted = len(sitting.span) * len(there)
        if not self.ledger.allowance.take(wanted, purpose="the timed phase, measured again,"):
            return dataclasses.replace(result, records=()), len(result.records)
        repeated, requests = self._sit(unit, sitting, there, asked, again=True)
        return repeated, len(result.records) + requests

    def _samples(
        self,
        unit: Unit,
        sitting: Sitting,
        there: Mapping[str, Adapter],
        asked: _Asked,
        result: measure.TimedResult,
        counts: Counter[str],
    ) -> list[Sample]:
        """Return the samples of a sitting; ``counts`` has how many of each engine there are so far."""
        loading = {(w.engine, w.block) for w in result.watched if met_load(there[w.engine], w)}
        sizes = visits.block_sizes(len(sitting.span), sitting.blocks)
        samples = []
        for record in result.records:
            name, place = record.engine, sitting.span.start + sum(sizes[: record.block]) + record.index
            moved = dataclasses.replace(record, block=sitting.first + record.block)
            wire = asked.wires[name][record.case]
            sample = timed_sample(there[name], wire, unit, asked.first[name] + counts[name], moved)
            counts[name] += 1
            samples.append(
                _placed(
                    sample,
                    prefix=asked.cases[name][place][1],
                    load=sitting.load,
                    loading=(name, record.block) in loading,
                )
            )
        return samples

    def _all_back(self, away: Sequence[Adapter], unit: Unit) -> bool:
        """Wait for servers that went away while they were timed; tell whether all are there again, as they were."""
        lost = [why for adapter in away if (why := self.hold(adapter)) is not None]
        names = ", ".join(adapter.name for adapter in away)
        self.ledger.notes += lost or [f"{names} restarted while {unit.prompts.name} was timed: it was measured again"]
        return not lost

    def _asked(self, adapter: Adapter, unit: Unit, cases: Sequence[Case]) -> Iterator[tuple[WireRequest, str]]:
        """Yield each timed request and what stands before its first text, so that no prefix cache holds the prompt."""
        as_they_are = requests_of(adapter, unit)
        paths = adapter.timed_paths(unit.key) if isinstance(adapter, Played) else None
        for place, case in enumerate(cases):
            prefix = "" if unit.needs.timed_cached else unseen.number(self.run, adapter.name, unit.key, place)
            wire = request_of(adapter, unit, case, prefix=prefix) if prefix else None
            sent, before = (as_they_are[case.id], "") if wire is None else (wire, prefix)
            yield (sent if paths is None else dataclasses.replace(sent, path=paths[place])), before

    def _warm_up(self, adapter: Adapter, unit: Unit, case: Case) -> WireRequest:
        """Return the request that is sent and dropped: what is timed must not find it in a cache."""
        number = unseen.number(self.run, adapter.name, unit.key, "warm-up")
        wire = request_of(adapter, unit, case, prefix=number) or requests_of(adapter, unit)[case.id]
        purpose = Purpose(phase=Phase.TIMED, concurrency=unit.concurrency, dropped=True)
        return dataclasses.replace(wire, path=adapter.addressed(wire.path, purpose))

    def _first(self, engine: str, unit: Unit) -> int:
        """Return the first free place: units that share cases must not write over each other's timed answers."""
        stored = self.store.get(self.run, engine, phases=[Phase.TIMED])
        return max((s.repeat + 1 for s in stored if s.concurrency == unit.concurrency), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What each engine is asked in a timed phase, by name: requests with their prefixes, and what warms it up.

    ``ids`` are the cases in order; ``wires`` are the requests without prefixes, ``first`` the first free place of its
    timed answers.
    """

    cases: Mapping[str, Sequence[tuple[WireRequest, str]]]
    warm_up: Mapping[str, WireRequest]
    wires: Mapping[str, Mapping[str, WireRequest]]
    ids: Sequence[str]
    first: Mapping[str, int]


def timed_cases(unit: Unit) -> tuple[Case, ...]:
    """Return the case of each timed request of a unit, in the order of asking."""
    cases = shuffled(unit.prompts.cases, seed=f"{unit.prompts.digest}/{Phase.TIMED}")
    return tuple(islice(cycle(cases), unit.needs.timed))


def untimed(adapter: Adapter, unit: Unit) -> str | None:
    """Say why a recording has no times for what a unit asks, ``None`` of one that has, and of an engine."""
    if not isinstance(adapter, Played):
        return None
    wires = requests_of(adapter, unit)
    asked = [wires[case.id] for case in timed_cases(unit)]
    return adapter.untimed(unit.key, asked, concurrency=unit.concurrency, cached=unit.needs.timed_cached)


def timed_name(engine: str, key: str) -> str:
    """Name of the run's document that says which of this engine's timed answers belong to a unit, by its key."""
    return f"{TIMED}{engine}/{key}"


class Span(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which timed answers of an engine are those of a unit, or the ``error`` for which there are none."""

    first: Annotated[int, msgspec.Meta(ge=0)]
    count: Annotated[int, msgspec.Meta(ge=0)]
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """What became of one unit's timed phase on one engine: its answers by ``repeat``, or why there are none."""

    places: range = range(0)
    error: str | None = None


def timed_of(store: Store, run: str, engine: str, unit: Unit) -> Timed:
    """Return which of this engine's timed answers were asked for this unit; none where nobody tried."""
    span = span_of(store, run, engine, unit.key)
    return Timed() if span is None else Timed(places=range(span.first, span.first + span.count), error=span.error)


def span_of(store: Store, run: str, engine: str, key: str) -> Span | None:
    """Return which timed answers of an engine are those of a unit, ``None`` where nobody tried."""
    return store.document(run, timed_name(engine, key), Span)


def met_load(adapter: Adapter, watched: measure.Watched) -> bool:
    """Tell whether the model was out of memory before or after a block, so that requests of it may have loaded it."""
    answers = [answer for answer in (watched.before, watched.after) if answer is not None]
    return any(adapter.resident(answer) is False for answer in answers)


def _placed(sample: Sample, *, prefix: str, load: int, loading: bool) -> Sample:
    """Return a timed sample with what stood before its prompt, and marked where a load makes its times worthless."""
    timing = sample.timing
    if timing is not None:
        timing = dataclasses.replace(timing, load=load, met_load=timing.met_load or loading)
    return msgspec.structs.replace(sample, prefix=prefix, timing=timing)


def _loads(samples: Sequence[Sample]) -> list[str]:
    """Return a sentence for each engine whose server loaded a model while it was timed."""
    counts = Counter(sample.engine for sample in samples if sample.timing is not None and sample.timing.met_load)
    return [
        f"{name}: its model was not in memory all the time it was timed; {explain.count(count, 'request')} that may "
        "have waited for a load do not count"
        for name, count in counts.items()
    ]


def timed_sample(adapter: Adapter, wire: WireRequest, unit: Unit, order: int, record: measure.Record) -> Sample:
    """Turn one record of the timed phase into a sample; ``order`` is its place among this engine's requests."""
    job = Job(
        case=record.case,
        wire=wire,
        phase=Phase.TIMED,
        repeat=order,
        concurrency=unit.concurrency,
        cached=unit.needs.timed_cached,
    )
    if record.exchange is None:
        sample = failed(adapter.name, job, EngineError("no answer"), attempts=1)
        return msgspec.structs.replace(sample, failure=record.failure)
    try:
        sample = answered(adapter, job, record.exchange, attempts=1, block=record.block)
    except EngineError as error:
        return failed(adapter.name, job, named(error, adapter.name, job.case), attempts=1)
    if sample.completion is None or sample.timing is None or not adapter.met_load(sample.completion):
        return sample
    return msgspec.structs.replace(sample, timing=dataclasses.replace(sample.timing, met_load=True))


def instrument(calibration: measure.Calibration) -> str:
    """Return the sentence that says how wrong the clock was just before the timed phase."""
    median, p99 = (1000 * late for late in (calibration.ttft_error_p50_s, calibration.ttft_error_p99_s))
    return (
        f"timed phase: at {calibration.concurrency} streams our client saw a paced server's first token "
        f"{median:.2f} ms late at the median, {p99:.2f} ms at p99 ({calibration.clock} clock)"
    )


def target_of(adapter: Adapter, requests: Sequence[tuple[str, WireRequest]], *, warm_up: WireRequest) -> measure.Target:
    """Return one engine as the timed phase needs it."""
    return measure.Target(
        name=adapter.name,
        base_url=adapter.base_url,
        headers=dict(adapter.headers),
        limits=limits_of(adapter.spec),
        ca_bundle=adapter.spec.ca_bundle,
        proxy=adapter.spec.proxy,
        requests=tuple(requests),
        warm_up=warm_up,
        watch=adapter.residence(),
    )
