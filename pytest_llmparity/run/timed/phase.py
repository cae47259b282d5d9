"""The timed phase of a gathering: each unit with a latency check is put under load once, engines in turn (A B B A)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import msgspec

from pytest_llmparity.core.errors import EngineDied, EngineError, LLMParityError, Unreachable
from pytest_llmparity.core.prompts import Case, unseen
from pytest_llmparity.core.sample import Phase, Sample, WireRequest
from pytest_llmparity.core.words import explain
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.gather.ledger import Ledger
from pytest_llmparity.run.gather.sender import answered, failed, limits_of, named
from pytest_llmparity.run.plan import Job, Unit, request_of, requests_of, shuffled
from pytest_llmparity.run.timed import measure
from pytest_llmparity.store.ownership import TIMED
from pytest_llmparity.store.runs import Store

BLOCKS = 16
"""Most A B B A blocks per engine in the timed phase: pairs of them are what the ratio's bootstrap resamples."""
BLOCKS_APART = 4
"""Most blocks per engine where engines make each other's server drop its model: two engines change places four times,
and each change loads a model."""


AWAY = (Unreachable.__name__, EngineDied.__name__)
"""Failures of requests that found nobody: their server was away, and what it did before and after is not one load."""


@dataclass
class TimedPhase:
    """Times units into one run of the store.

    ``ledger`` gets notes for the reader, ``begin`` each engine and how often it is asked. ``hold`` waits for a server
    that went away and says why it cannot be asked again, ``None`` when it can.
    """

    run: str
    store: Store
    ledger: Ledger
    begin: Callable[[str, int], None]
    hold: Callable[[Adapter], str | None] = lambda adapter: None

    def time(self, unit: Unit, adapters: Sequence[Adapter], *, apart: Collection[str] = ()) -> None:
        """Time one unit on these engines side by side, unless it was; what goes wrong concerns this unit alone.

        ``apart`` names engines that cannot be in memory beside another one of them: they are timed in fewer, longer
        blocks and warmed up again whenever another had its turn.
        """
        ready = {adapter.name: adapter for adapter in adapters}
        if not unit.prompts.cases or all(self.store.document(self.run, timed_name(name, unit.key)) for name in ready):
            return
        wanted = unit.needs.timed * len(ready)
        if not self.ledger.allowance.take(wanted, what="the timed phase"):
            return
        self.ledger.allowance.give_back(
            max(0, wanted - self._measure(unit, ready, {name for name in ready if name in apart}))
        )

    def _measure(self, unit: Unit, ready: Mapping[str, Adapter], apart: Collection[str], *, again: bool = False) -> int:
        """Return how many requests were sent. A phase that met a restart counts once more, ``again``."""
        attached = {name for name, adapter in ready.items() if adapter.spec.launch == "attach"}
        cases = shuffled(unit.prompts.cases, seed=f"{unit.prompts.digest}/{Phase.TIMED}")
        cases = tuple(islice(cycle(cases), unit.needs.timed))
        asked_as = {name: list(self._asked(adapter, unit, cases)) for name, adapter in ready.items()}
        wires = {name: requests_of(adapter, unit) for name, adapter in ready.items()}
        blocks = blocks_of(unit, apart=bool(apart))
        for name in ready:
            self.begin(f"{name} (timed)", unit.needs.timed)
        try:
            result = measure.measure(
                [
                    target_of(
                        adapter,
                        [(case.id, wire) for case, (wire, _) in zip(cases, asked_as[name], strict=True)],
                        warm_up=self._warm_up(adapter, unit, cases[-1]),
                        evicted=name in apart,
                    )
                    for name, adapter in ready.items()
                ],
                concurrency=unit.concurrency,
                per_engine=unit.needs.timed,
                blocks=blocks,
                deadline_s=self.ledger.allowance.left_s,
            )
        except LLMParityError as error:
            self.ledger.notes.append(f"{unit.prompts.name} could not be timed: {error}")
            for name in ready:
                self.store.put_document(
                    self.run, timed_name(name, unit.key), {"first": 0, "count": 0, "error": str(error)}
                )
            return 0
        away = sorted({r.engine for r in result.records if r.failure is not None and r.failure.kind in AWAY} & attached)
        if away and not again and self._all_back([ready[name] for name in away], unit):
            return len(result.records) + self._measure_again(unit, ready, apart)
        self.ledger.notes.append(instrument(result.calibration))
        if result.stopped:
            self.ledger.allowance.out_of_time()
        first = {name: self._first(name, unit) for name in ready}
        loading = {(w.engine, w.block) for w in result.watched if met_load(ready[w.engine], w)}
        sizes = measure.block_sizes(unit.needs.timed, blocks)
        asked = Counter[str]()
        samples = []
        for record in result.records:
            adapter, place = ready[record.engine], first[record.engine] + asked[record.engine]
            sample = timed_sample(adapter, wires[adapter.name][record.case], unit, place, record)
            prefix = asked_as[adapter.name][sum(sizes[: record.block]) + record.index][1]
            samples.append(_placed(sample, prefix=prefix, loading=(record.engine, record.block) in loading))
            asked[record.engine] += 1
        self.ledger.notes += _loads(samples)
        self.store.put(self.run, samples)
        for name in ready:
            span = {"first": first[name], "count": asked[name]}
            self.store.put_document(self.run, timed_name(name, unit.key), span)
        return len(samples)

    def _all_back(self, away: Sequence[Adapter], unit: Unit) -> bool:
        """Wait for servers that went away while they were timed; tell whether all are there again, as they were."""
        lost = [why for adapter in away if (why := self.hold(adapter)) is not None]
        names = ", ".join(adapter.name for adapter in away)
        self.ledger.notes += lost or [f"{names} restarted while {unit.prompts.name} was timed: it was measured again"]
        return not lost

    def _measure_again(self, unit: Unit, ready: Mapping[str, Adapter], apart: Collection[str]) -> int:
        if not self.ledger.allowance.take(unit.needs.timed * len(ready), what="the timed phase, measured again,"):
            return 0
        return self._measure(unit, ready, apart, again=True)

    def _asked(self, adapter: Adapter, unit: Unit, cases: Sequence[Case]) -> Iterator[tuple[WireRequest, str]]:
        """Yield each timed request and what stands before its first text, so that no prefix cache holds the prompt."""
        as_they_are = requests_of(adapter, unit)
        for place, case in enumerate(cases):
            prefix = "" if unit.needs.timed_cached else unseen.number(self.run, adapter.name, unit.key, place)
            wire = request_of(adapter, unit, case, prefix=prefix) if prefix else None
            yield (as_they_are[case.id], "") if wire is None else (wire, prefix)

    def _warm_up(self, adapter: Adapter, unit: Unit, case: Case) -> WireRequest:
        """Return the request that is sent and dropped: what is timed must not find it in a cache."""
        number = unseen.number(self.run, adapter.name, unit.key, "warm-up")
        return request_of(adapter, unit, case, prefix=number) or requests_of(adapter, unit)[case.id]

    def _first(self, engine: str, unit: Unit) -> int:
        """Return the first free place: units that share cases must not write over each other's timed answers."""
        stored = self.store.get(self.run, engine, phases=[Phase.TIMED])
        return max((s.repeat + 1 for s in stored if s.concurrency == unit.concurrency), default=0)


def timed_name(engine: str, key: str) -> str:
    """Name of the run's document that says which of this engine's timed answers belong to a unit, by its key."""
    return f"{TIMED}{engine}/{key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """What became of one unit's timed phase on one engine: its answers by ``repeat``, or why there are none."""

    places: range = range(0)
    error: str | None = None


def timed_of(store: Store, run: str, engine: str, unit: Unit) -> Timed:
    """Return which of this engine's timed answers were asked for this unit; none where nobody tried."""
    span = store.document(run, timed_name(engine, unit.key)) or {"first": 0, "count": 0}
    return Timed(places=range(span["first"], span["first"] + span["count"]), error=span.get("error"))


def blocks_of(unit: Unit, *, apart: bool = False) -> int:
    """Return how many blocks the timed phase has: each must keep the declared concurrency busy.

    ``apart``: some of the engines cannot be in memory side by side.
    """
    return max(1, min(BLOCKS_APART if apart else BLOCKS, unit.needs.timed // unit.concurrency))


def met_load(adapter: Adapter, watched: measure.Watched) -> bool:
    """Tell whether the model was out of memory before or after a block, so that requests of it may have loaded it."""
    answers = [answer for answer in (watched.before, watched.after) if answer is not None]
    return any(adapter.resident(answer) is False for answer in answers)


def _placed(sample: Sample, *, prefix: str, loading: bool) -> Sample:
    """Return a timed sample with what stood before its prompt, and marked where a load makes its times worthless."""
    timing = sample.timing
    if timing is not None and loading:
        timing = dataclasses.replace(timing, met_load=True)
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
    job = Job(case=record.case, wire=wire, phase=Phase.TIMED, repeat=order, concurrency=unit.concurrency)
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


def target_of(
    adapter: Adapter, requests: Sequence[tuple[str, WireRequest]], *, warm_up: WireRequest, evicted: bool = False
) -> measure.Target:
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
        evicted=evicted,
        watch=adapter.residence(),
    )
