"""The timed phase of a gathering: each unit with a latency check is put under load once, engines in turn (A B B A)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pytest_llmparity.core.errors import EngineError, LLMParityError
from pytest_llmparity.core.sample import Phase, Sample, WireRequest
from pytest_llmparity.engines.base import Adapter
from pytest_llmparity.run import timed
from pytest_llmparity.run.gather import Allowance, Job, answered, failed, named
from pytest_llmparity.run.plan import Unit, shuffled
from pytest_llmparity.run.wires import limits_of, requests_of
from pytest_llmparity.store import Store

BLOCKS = 16
"""Most A B B A blocks per engine in the timed phase: pairs of them are what the ratio's bootstrap resamples."""


class TimedPhase:
    """Times units into one run of the store. ``words`` gets what the reader should know, ``begin`` each engine."""

    def __init__(
        self,
        *,
        run: str,
        store: Store,
        allowance: Allowance,
        words: list[str],
        begin: Callable[[str, int], None],
    ) -> None:
        self._run = run
        self._store = store
        self._allowance = allowance
        self._words = words
        self._begin = begin

    def time(self, unit: Unit, adapters: Sequence[Adapter]) -> None:
        """Time one unit on these engines side by side, unless it was; what goes wrong concerns this unit alone."""
        ready = {adapter.name: adapter for adapter in adapters}
        if all(self._store.note(self._run, timed_note(name, unit)) for name in ready):
            return
        wanted = unit.needs.timed * len(ready)
        if not self._allowance.take(wanted, what="the timed phase"):
            return
        self._allowance.give_back(wanted - self._measure(unit, ready))

    def _measure(self, unit: Unit, ready: Mapping[str, Adapter]) -> int:
        """Return how many requests were sent."""
        cases = shuffled(unit.prompts.cases, seed=f"{unit.prompts.digest}/{Phase.TIMED}")
        wires = {name: requests_of(adapter, unit) for name, adapter in ready.items()}
        for name in ready:
            self._begin(f"{name} (timed)", unit.needs.timed)
        try:
            result = timed.measure(
                [target_of(ready[name], [(case.id, wires[name][case.id]) for case in cases]) for name in ready],
                concurrency=unit.concurrency,
                per_engine=unit.needs.timed,
                blocks=blocks_of(unit),
                deadline_s=self._allowance.left_s,
            )
        except LLMParityError as error:
            self._words.append(f"{unit.prompts.name} could not be timed: {error}")
            for name in ready:
                self._store.put_note(self._run, timed_note(name, unit), {"first": 0, "count": 0, "error": str(error)})
            return 0
        self._words.append(instrument(result.calibration))
        if result.stopped:
            self._allowance.out_of_time()
        first = {name: self._first(name, unit) for name in ready}
        asked = Counter[str]()
        samples = []
        for record in result.records:
            adapter, place = ready[record.engine], first[record.engine] + asked[record.engine]
            samples.append(timed_sample(adapter, wires[adapter.name][record.case], unit, place, record))
            asked[record.engine] += 1
        self._store.put(self._run, samples)
        for name in ready:
            span = {"first": first[name], "count": asked[name]}
            self._store.put_note(self._run, timed_note(name, unit), span)
        return len(samples)

    def _first(self, engine: str, unit: Unit) -> int:
        """Return the first free place: units that share cases must not write over each other's timed answers."""
        stored = self._store.get(self._run, engine, phases=[Phase.TIMED])
        return max((s.repeat + 1 for s in stored if s.concurrency == unit.concurrency), default=0)


def timed_note(engine: str, unit: Unit) -> str:
    """Name of the run's note that says which of this engine's timed answers belong to a unit."""
    return f"timed/{engine}/{unit.key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """What became of one unit's timed phase on one engine: its answers by ``repeat``, or why there are none."""

    places: range = range(0)
    error: str | None = None


def timed_of(store: Store, run: str, engine: str, unit: Unit) -> Timed:
    """Return which of this engine's timed answers were asked for this unit; none where nobody tried."""
    span = store.note(run, timed_note(engine, unit)) or {"first": 0, "count": 0}
    return Timed(places=range(span["first"], span["first"] + span["count"]), error=span.get("error"))


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
