"""A run as reports are given it: as it was judged now, or as an earlier session wrote down what it came to."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pytest_llmparity.core.checks.latency import unknown
from pytest_llmparity.core.checks.latency.timed import WORDS
from pytest_llmparity.core.errors import StoreError
from pytest_llmparity.core.identity.ladder import Ladder
from pytest_llmparity.core.identity.record import (
    DecisionRecord,
    FailureRecord,
    LatencyQuantiles,
    RunRecord,
    SampleOrigin,
)
from pytest_llmparity.core.sample import Phase, Sample, Timing, to_json
from pytest_llmparity.core.stats.quantiles import describe
from pytest_llmparity.core.verdict import SEVERITY, Outcome, Verdict
from pytest_llmparity.run.judge.asked import origins
from pytest_llmparity.run.judge.judging import Judging
from pytest_llmparity.run.ledger import RunState, read_state
from pytest_llmparity.settings.specification import Settings
from pytest_llmparity.store.database import readable
from pytest_llmparity.store.runs import Store

REPORTED: Final = "reported"
"""Name of a run's document that has the verdicts its session came to, and the commands that repeat its tests."""

DECISIONS: Final = "decisions"
"""Name of a run's document that says by which policy it was judged, and what was decided."""


def forget_decisions(store: Store, run: str) -> None:
    """Take away what a policy decided about a run that is judged without one now: its verdicts are others."""
    if store.raw_document(run, DECISIONS):
        store.put_document(run, DECISIONS, {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What a session came to, as :func:`keep` writes it down; older versions did not note the ``tests``."""

    verdicts: tuple[Verdict, ...]
    reproduce: Mapping[str, str]
    tests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """By which policy a run was judged, and what it decided; ``limits`` is the hash of those, ``None`` of old."""

    sha256: str = ""
    limits: str | None = None
    policy: str = ""
    decisions: tuple[DecisionRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeRun:
    """Everything a report is made of: the run, its answers, and a function that says whose question an answer is.

    ``tests`` has every test by its node id, and why it failed where no verdict says so, else nothing. It is empty where
    nobody noted it (runs stored by an older version).
    """

    record: RunRecord
    samples: Sequence[Sample]
    origin: Callable[[Sample], SampleOrigin | None]
    tests: Mapping[str, str] = field(default_factory=dict)


def record_of_run(
    run: str,
    version: str,
    judging: Judging | None,
    state: RunState,
    verdicts: Sequence[Verdict],
    *,
    reproduce: Mapping[str, str],
    tests: Mapping[str, str],
    replayed: bool = False,
) -> RunRecord:
    """Return everything about a run; without a ``judging`` nothing was gathered.

    ``tests`` has every test, and why it failed where no verdict says so, else nothing.
    """
    engines, samples = ({}, {}) if judging is None else (judging.records, judging.samples)
    return RunRecord(
        run=run,
        version=version,
        engines=tuple(engines.values()),
        verdicts=tuple(verdicts),
        latency=tuple(latency_quantiles(samples)),
        failures=tuple(failure_records(samples)),
        requests=state.requests,
        retries=state.retries,
        replayed=replayed,
        notes=(*state.notes, *unknown_latency(samples, verdicts, asked=True), *read_otherwise(samples)),
        unshown=tuple(unknown_latency(samples, verdicts, asked=False)),
        reproduce=reproduce,
        ladder=None if judging is None else _ladder(judging),
        errors={test: why for test, why in tests.items() if why},
        portion=str(state.portion),
    )


def keep(
    store: Store,
    run: str,
    verdicts: Sequence[Verdict],
    reproduce: Mapping[str, str],
    tests: Mapping[str, str] | None = None,
) -> Outcome | None:
    """Write down what a run came to, so that it can be reported again, and why tests failed beside their verdicts.

    Return its worst outcome, that of such a test ERROR; ``None`` where there is none.
    """
    content = {
        "verdicts": [to_json(verdict) for verdict in verdicts],
        "reproduce": dict(reproduce),
        "tests": dict(tests or {}),
    }
    store.put_document(run, REPORTED, content)
    outcomes = [*(verdict.outcome for verdict in verdicts), *(Outcome.ERROR for why in (tests or {}).values() if why)]
    return max(outcomes, key=SEVERITY.index, default=None)


def newest_judged(store: Store) -> str:
    """Return the newest run that was judged; ``StoreError`` where there is none."""
    for info in reversed(store.runs()):
        if store.has_document(info.id, REPORTED):
            return info.id
    raise StoreError(
        f"no run in {store.path.parent} was judged to its end; "
        "pytest --parity-mode replay --parity-report html judges one and writes the page"
    )


def stored(store: Store, run: str, *, root: Path) -> WholeRun:
    """Return a run as its session reported it; ``StoreError`` where it was not judged to its end, or is not there."""
    info = store.info(run)
    state, reported = read_state(store, run), store.document(run, REPORTED, Reported)
    if state is not None and state.shard:
        raise StoreError(f"run {run} is {state.shard}; llmparity merge puts the shards together and judges them")
    if state is None or reported is None:
        why = "was interrupted while gathering" if state is None else "was not judged to its end by this version"
        raise StoreError(
            f"run {run} {why}; pytest --parity-mode replay={run} --parity-report html judges it and writes the page"
        )
    judging = Judging.of(store, run, state, settings=Settings(), root=root, embedder=lambda: None)
    verdicts, tests = reported.verdicts, reported.tests
    with readable(run):
        record = record_of_run(run, info.version, judging, state, verdicts, reproduce=reported.reproduce, tests=tests)
    decided = store.document(run, DECISIONS, Ruling) or Ruling()
    record = dataclasses.replace(record, decisions=decided.decisions)
    samples = [sample for ours in judging.samples.values() for sample in ours]
    asked = origins(store, run, judging.records, verdicts)
    return WholeRun(record=record, samples=samples, origin=asked, tests=tests)


def latency_quantiles(samples: Mapping[str, Sequence[Sample]]) -> list[LatencyQuantiles]:
    """Return quantiles of the timed answers per engine and metric; engines without timed answers have none.

    What a verdict would not be based on has no row: a metric that is not known, and requests that met a load.
    """
    rows = []
    for engine, timings in _timed(samples).items():
        for metric in WORDS:
            values = [v for t in timings if (v := getattr(t, f"{metric}_s")) is not None]
            if values and not unknown(engine, metric, timings):
                p50, p95, p99 = describe(values)
                rows.append(LatencyQuantiles(engine=engine, metric=metric, p50=p50, p95=p95, p99=p99, n=len(values)))
    return rows


def unknown_latency(
    samples: Mapping[str, Sequence[Sample]], verdicts: Collection[Verdict], *, asked: bool
) -> list[str]:
    """Return a sentence for every engine and metric of the timed phase that has no row, unless a verdict says why.

    Those of metrics that a limit ``asked`` for, or of the others.
    """
    given = {verdict.reason for verdict in verdicts}
    limited = {metric for metric in WORDS for v in verdicts if v.kind.startswith(f"latency.{metric}_")}
    return [
        f"no {metric} of {engine} is shown: {why}"
        for engine, timings in _timed(samples).items()
        for metric in WORDS
        if (metric in limited) is asked and (why := unknown(engine, metric, timings)) and why not in given
    ]


def _timed(samples: Mapping[str, Sequence[Sample]]) -> dict[str, list[Timing]]:
    return {
        engine: [s.timing for s in ours if s.phase is Phase.TIMED and s.timing is not None and not s.timing.met_load]
        for engine, ours in samples.items()
    }


def read_otherwise(samples: Mapping[str, Sequence[Sample]]) -> list[str]:
    """Return a sentence for each thing the reader changed or guessed in an engine's judged answers, and how often."""
    sentences = []
    for engine, ours in samples.items():
        answers = [s.completion for s in ours if s.phase is Phase.MAIN and s.completion is not None]
        counts = Counter(note for answer in answers for note in answer.normalised)
        sentences += [f"{engine}: {note} ({n} of {len(answers)} answers)" for note, n in counts.items()]
    return sentences


def failure_records(samples: Mapping[str, Sequence[Sample]]) -> list[FailureRecord]:
    """Return every answer that never came."""
    return [
        FailureRecord(
            engine=engine,
            case=sample.case,
            phase=sample.phase.value,
            kind=sample.failure.kind,
            message=sample.failure.message,
            status=sample.failure.status,
        )
        for engine, all_samples in samples.items()
        for sample in all_samples
        if sample.failure is not None
    ]


def _ladder(judging: Judging) -> Ladder | None:
    """Return the ladder of the baseline's model, where the lock has one."""
    baseline = judging.records.get(judging.baseline)
    return None if baseline is None else judging.agreed.ladder(baseline.identity)
