"""Samples become evidence: which answers a check reads, and what is known about the engines that gave them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pytest_llmparity.core.checks.base import left_out
from pytest_llmparity.core.checks.latency import WORDS, unknown
from pytest_llmparity.core.checks.pairing import LOST
from pytest_llmparity.core.errors import NotAsked
from pytest_llmparity.core.evidence import Check, EngineEvidence, Evidence
from pytest_llmparity.core.identity.record import EngineRecord, FailureRecord, LatencyRow
from pytest_llmparity.core.ports import Embedder
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.sample import Phase, Sample, Timing
from pytest_llmparity.core.stats.quantiles import describe
from pytest_llmparity.core.verdict import Verdict
from pytest_llmparity.core.words import explain
from pytest_llmparity.run.gather.course import Course
from pytest_llmparity.run.plan import Declaration
from pytest_llmparity.run.timed.phase import Timed


def collect(
    declaration: Declaration,
    *,
    check: Check,
    required: bool,
    unit_key: str,
    baseline: str,
    records: Mapping[str, EngineRecord],
    wires: Mapping[str, Mapping[str, str]],
    timed: Mapping[str, Timed],
    samples: Mapping[str, Sequence[Sample]],
    alpha: float,
    incomplete: str | None,
    embedder: Embedder | None,
    course: Course | None = None,
) -> Evidence:
    """Return what one check of a test judges: for every engine the samples of exactly these requests.

    A capability the check needs and an engine lacks keeps a case from being judged there, also where the engine's route
    has no word for it; where that is every case ``required`` makes it an error. ``timed`` says for every engine which
    of its timed answers were asked for this very unit. With a ``course`` the cases stand in its order, and of each
    engine the main phase ends with its last whole wave.
    """
    engines = {}
    for name in [baseline, *(other for other in records if other != baseline)]:
        if name not in records:
            continue
        engine = records[name]
        clocked = timed.get(name, Timed())
        ours = [s for s in samples.get(name, ()) if s.phase is not Phase.TIMED or s.repeat in clocked.places]
        able = {"can": engine.capabilities, "declares": engine.declares}
        apart = {**engine.unasked.get(unit_key, {}), **left_out(name, check, declaration.prompts, **able)}
        missing = engine.left_out.get(unit_key)
        if missing is None and len(apart) == len(declaration.prompts.cases):
            missing = next(iter(apart.values()))
        chosen = select(ours, wires.get(name, {}), concurrency=declaration.concurrency)
        chosen = {
            phase: {case: found for case, found in by_case.items() if case not in apart}
            for phase, by_case in chosen.items()
        }
        if course is not None:
            main = chosen.get(Phase.MAIN, {})
            chosen[Phase.MAIN] = {case: main[case] for case in course.ids[: course.asked.get(name, 0)] if case in main}
        unsent = never_asked(chosen, len(declaration.prompts.cases))
        engines[name] = EngineEvidence(
            name=name,
            kind=engine.kind,
            identity=engine.identity,
            quantization=engine.quantization,
            samples=chosen,
            incomparable=engine.incomparable or (None if missing else engine.refused.get(unit_key)),
            error=engine.error
            or unsent
            or (f"{missing}, and --parity-required asks for a verdict" if missing and required else None),
            untimed=clocked.error,
            lacking=missing,
            left_out=apart,
            capabilities=engine.capabilities,
            declares=engine.declares,
            route=engine.route_check.sentence(name) if engine.route_check else "",
        )
    return Evidence(
        test=declaration.test,
        prompts=declaration.prompts if course is None else in_order(declaration.prompts, course),
        sampling=declaration.sampling,
        concurrency=declaration.concurrency,
        baseline=baseline,
        engines=engines,
        alpha=alpha,
        incomplete=incomplete,
        embedder=embedder,
        sequential=course is not None,
    )


def never_asked(chosen: dict[Phase, dict[str, list[Sample]]], cases: int) -> str | None:
    """Take prompts that were never sent out of what is judged; say so where they are too many to judge the rest."""
    main = chosen.get(Phase.MAIN, {})
    unsent = {
        case: failure
        for case, samples in main.items()
        if (failure := samples[0].failure) is not None and failure.kind == NotAsked.__name__
    }
    chosen[Phase.MAIN] = {case: samples for case, samples in main.items() if case not in unsent}
    first = next(iter(unsent.values()), None)
    if first is None or len(unsent) <= LOST * cases:
        return None
    why = first.message.removeprefix("not asked: ")
    return f"{len(unsent)} of {explain.count(cases, 'prompt')} were not asked: {why}"


def in_order(prompts: PromptSet, course: Course) -> PromptSet:
    """Return the set with its cases in the order they are asked."""
    return dataclasses.replace(prompts, cases=tuple(prompts.by_id[case] for case in course.ids))


def select(
    samples: Iterable[Sample], wires: Mapping[str, str], *, concurrency: int
) -> dict[Phase, dict[str, list[Sample]]]:
    """Sort samples by phase and case, keeping those that answer exactly these requests at this concurrency.

    ``wires`` maps case ids to the sha256 of the request's body.
    """
    found: dict[Phase, dict[str, list[Sample]]] = {}
    for sample in sorted(samples, key=lambda s: s.repeat):
        if wires.get(sample.case) != sample.request_sha256:
            continue
        alone = sample.phase in (Phase.COLD, Phase.WARM)
        if sample.concurrency != (1 if alone else concurrency):
            continue
        found.setdefault(sample.phase, {}).setdefault(sample.case, []).append(sample)
    return found


def latency_rows(samples: Mapping[str, Sequence[Sample]]) -> list[LatencyRow]:
    """Return quantiles of the timed answers per engine and metric; engines without timed answers have none.

    What a verdict would not be based on has no row: a metric that is not known, and requests that met a load.
    """
    rows = []
    for engine, timings in _timed(samples).items():
        for metric in WORDS:
            values = [v for t in timings if (v := getattr(t, f"{metric}_s")) is not None]
            if values and not unknown(engine, metric, timings):
                p50, p95, p99 = describe(values)
                rows.append(LatencyRow(engine=engine, metric=metric, p50=p50, p95=p95, p99=p99, n=len(values)))
    return rows


def unknown_latency(samples: Mapping[str, Sequence[Sample]], verdicts: Iterable[Verdict]) -> list[str]:
    """Return a sentence for every engine and metric of the timed phase that has no row, unless a verdict says why."""
    told = {verdict.reason for verdict in verdicts}
    return [
        f"no {metric} is shown: {why}"
        for engine, timings in _timed(samples).items()
        for metric in WORDS
        if (why := unknown(engine, metric, timings)) and why not in told
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
