"""What a run came to, small enough to be kept for years: no answers, no folders, no secrets.

A line of a history file is an :class:`Entry` as JSON.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from pytest_llmparity.core.identity.record import RunRecord
from pytest_llmparity.core.verdict import SEVERITY, Outcome, Verdict

FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineThen:
    """An engine as it was in a run; ``version`` is what it told of its version or build.

    ``answers`` is the engine or the recording whose answers these are, where nobody was asked.
    """

    name: str
    kind: str
    version: str | None = None
    quantization: str | None = None
    baseline: bool = False
    answers: str | None = None

    @property
    def which(self) -> str:
        """Its version and quantisation, as far as it told them."""
        return " ".join(filter(None, (self.version, self.quantization)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A verdict: its ``check`` as text, its numbers in its ``unit``, ``None`` for what is not known or has no end."""

    test: str
    check: str = ""
    kind: str
    engine: str
    baseline: str | None
    outcome: Outcome
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None
    margin: float | None = None
    unit: str = ""
    side: str = "worse"
    n: int = 0

    @property
    def aside(self) -> bool:
        """Whether it passed and says nothing about drift that no other does: an exact count, or an engine's repeats."""
        return self.outcome is Outcome.PASS and (self.kind == "prompts" or self.kind.endswith(".repeat"))

    @property
    def verdict(self) -> Verdict:
        """The verdict, as far as its numbers go."""
        return Verdict(
            test=self.test,
            check=self.check,
            kind=self.kind,
            engine=self.engine,
            baseline=self.baseline,
            outcome=self.outcome,
            estimate=self.estimate,
            lower=self.lower,
            upper=self.upper,
            margin=self.margin,
            unit=self.unit,
            side=self.side,
            n=self.n,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Quantiles of one metric (``ttft``, ``tpot``, ``e2e``) of one engine, in seconds, over ``n`` requests."""

    engine: str
    metric: str
    p50: float
    p95: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One run: its id, when it ``began`` (UTC), the worst ``outcome``; ``version`` is that of this package."""

    format: int = FORMAT
    run: str
    began: str
    version: str
    outcome: Outcome | None
    engines: tuple[EngineThen, ...] = ()
    verdicts: tuple[Judged, ...] = ()
    latency: tuple[Timed, ...] = ()

    def engine(self, name: str) -> EngineThen | None:
        """Return what an engine was in this run."""
        return next((engine for engine in self.engines if engine.name == name), None)

    @property
    def origins(self) -> dict[str, str]:
        """By the name of each engine that was not asked itself whose answers stood for it."""
        return {engine.name: engine.answers for engine in self.engines if engine.answers}


def entry_of(record: RunRecord) -> Entry:
    """Return the entry by which the history keeps a run."""
    outcomes = [*(verdict.outcome for verdict in record.verdicts), *(Outcome.ERROR for _ in record.errors)]
    return Entry(
        run=record.run,
        began=began(record.run),
        version=record.version,
        outcome=max(outcomes, key=SEVERITY.index, default=None),
        engines=tuple(
            EngineThen(
                name=engine.name,
                kind=engine.kind,
                version=engine.version,
                quantization=engine.quantization,
                baseline=engine.baseline,
                answers=engine.golden or engine.recording or None,
            )
            for engine in record.engines
        ),
        verdicts=tuple(
            Judged(
                test=v.test,
                check=v.check,
                kind=v.kind,
                engine=v.engine,
                baseline=v.baseline,
                outcome=v.outcome,
                estimate=_finite(v.estimate),
                lower=_finite(v.lower),
                upper=_finite(v.upper),
                margin=_finite(v.margin),
                unit=v.unit,
                side=v.side,
                n=v.n,
            )
            for v in record.verdicts
        ),
        latency=tuple(
            Timed(engine=row.engine, metric=row.metric, p50=row.p50, p95=row.p95, n=row.n)
            for row in record.latency
            if math.isfinite(row.p50) and math.isfinite(row.p95)
        ),
    )


def began(run: str) -> str:
    """Return when a run began, as its id says it, empty where that is no id of ours.

    >>> began("20261121-034501-ab12"), began("")
    ('2026-11-21T03:45:01+00:00', '')
    """
    match = re.match(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)", run, re.ASCII)
    return "{}-{}-{}T{}:{}:{}+00:00".format(*match.groups()) if match else ""


def in_order(*sources: Iterable[Entry]) -> list[Entry]:
    """Return runs of several sources, each once, the oldest first; of one that several have the last one counts."""
    by_run = {entry.run: entry for source in sources for entry in source}
    return sorted(by_run.values(), key=lambda entry: entry.began)


def repeated(runs: Iterable[Iterable[Judged | Verdict]]) -> frozenset[tuple[str, str]]:
    """Return the tests and kinds that several checks of one run judge, so that only the check tells which is meant.

    Elsewhere the kind does, and a check whose margin moved stays what it was.
    """
    return frozenset(
        (test, kind)
        for verdicts in runs
        for (test, kind, *_), times in Counter(
            (v.test, v.kind, v.engine, v.baseline, v.unit, _tag(v)) for v in verdicts
        ).items()
        if times > 1
    )


class Question(NamedTuple):
    """What a verdict is about, the same in every run that judged it."""

    test: str
    check: str
    kind: str
    engine: str
    baseline: str | None
    unit: str
    tag: str


def question(verdict: Judged | Verdict, twice: Collection[tuple[str, str]], origins: Mapping[str, str]) -> Question:
    """Return what a verdict is about: ``twice`` is what :func:`repeated` says of all the runs, ``origins`` of its run.

    A baseline is the engine whose answers it has, so that one held against golden answers or a recording of an engine
    is held against that engine.
    """
    check = verdict.check if (verdict.test, verdict.kind) in twice else ""
    baseline = None if verdict.baseline is None else origins.get(verdict.baseline, verdict.baseline)
    return Question(verdict.test, check, verdict.kind, verdict.engine, baseline, verdict.unit, _tag(verdict))


def _tag(verdict: Judged | Verdict) -> str:
    """Return the tag that a verdict is on; a kept one has it in its kind, or is older than that."""
    return verdict.tag if isinstance(verdict, Verdict) else ""


def about(entries: Iterable[Entry], test: str) -> list[Entry]:
    """Return the runs that judged a test, with its verdicts alone; it is named by its node id or a piece of that."""
    chosen = []
    for entry in entries:
        if verdicts := tuple(verdict for verdict in entry.verdicts if test in verdict.test):
            chosen.append(dataclasses.replace(entry, verdicts=verdicts))
    return chosen


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
