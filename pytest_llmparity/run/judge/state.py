"""What a run says besides verdicts: what it wrote down of its gathering, and what its answers tell a reader."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_llmparity.core.checks.latency import WORDS, unknown
from pytest_llmparity.core.identity.record import EngineRecord, FailureRecord, LatencyQuantiles
from pytest_llmparity.core.prompts.portion import ALL, Portion
from pytest_llmparity.core.sample import Phase, Sample, Timing, from_json, to_json
from pytest_llmparity.core.stats.quantiles import describe
from pytest_llmparity.core.verdict import Verdict
from pytest_llmparity.store.runs import GATHERED, Store

MERGED: Final = "merged"
"""Name of a run's document that says of which runs it was put together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """The state of one run.

    ``cases`` are the ids it was restricted to, ``incomplete`` says which hard stop left something out, ``requests`` and
    ``retries`` count what was sent, in ``seconds``, ``notes`` are for the reader. ``guard`` is the fingerprint of the
    lock file engines were held against. ``open``: a sequential run that more prompts could settle. ``shard`` says which
    share of the cases it asked, empty where it was all of them, ``portion`` to which prompts of each set it kept.
    """

    engines: Mapping[str, EngineRecord] = field(default_factory=dict)
    baseline: str | None = None
    cases: tuple[str, ...] = ()
    incomplete: str | None = None
    requests: int = 0
    seconds: float = 0.0
    retries: int = 0
    notes: tuple[str, ...] = ()
    guard: str = ""
    open: bool = False
    shard: str = ""
    portion: Portion = ALL

    @property
    def no_whole(self) -> str:
        """Why what it asked is less than its tests ask, empty where it is all of that."""
        if self.shard:
            return f"it is {self.shard}, and llmparity merge makes the whole of all"
        return self.incomplete or self.chosen

    @property
    def chosen(self) -> str:
        """How a person chose what it asked of all that its tests ask, empty where nobody did."""
        if self.cases:
            return "it asked single cases (--parity-case)"
        return f"it asked a part of the prompts ({self.portion})" if self.portion else ""


def read_state(store: Store, run: str) -> RunState | None:
    """Return the state of a run, ``None`` of one that was interrupted while gathering."""
    return store.noted(run, GATHERED, RunState)


def state_of(document: Mapping[str, Any]) -> RunState:
    """Return the state that stands in a document of the store; older versions wrote down less."""
    return from_json(RunState, document)


def write_state(store: Store, run: str, state: RunState) -> None:
    """Write down that a run was gathered, and with it what there is to say of that."""
    store.put_document(run, GATHERED, to_json(state))


def can_be_judged(state: RunState, guard: str) -> bool:
    """Whether what was gathered can be judged as it is: every engine was there, and is held against the same.

    ``guard`` is what engines are held against now. Another lock file, or a lock that is now binding, may say otherwise
    of an engine: that takes the live one.
    """
    return not any(engine.unusable for engine in state.engines.values()) and state.guard == guard


def note_kept(store: Store, run: str) -> None:
    """Say in a run that was gathered by another session that its answers are judged here."""
    state = read_state(store, run) or RunState()
    kept = f"run {run} had gathered everything: its answers are judged, nobody was asked (--parity-fresh asks again)"
    notes = (kept, *(note for note in state.notes if note != kept))
    write_state(store, run, dataclasses.replace(state, requests=0, seconds=0.0, retries=0, notes=notes))


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


def unknown_latency(samples: Mapping[str, Sequence[Sample]], verdicts: Iterable[Verdict]) -> list[str]:
    """Return a sentence for every engine and metric of the timed phase that has no row, unless a verdict says why."""
    given = {verdict.reason for verdict in verdicts}
    return [
        f"no {metric} of {engine} is shown: {why}"
        for engine, timings in _timed(samples).items()
        for metric in WORDS
        if (why := unknown(engine, metric, timings)) and why not in given
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
