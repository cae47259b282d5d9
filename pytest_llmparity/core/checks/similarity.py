"""Whether answers mean the same: facts first, then closeness by embeddings or edit distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from pytest_llmparity.core import diagnosis, explain
from pytest_llmparity.core.checks import gathered
from pytest_llmparity.core.checks.base import FLOOR_PHASES, EngineEvidence, Evidence, Needs
from pytest_llmparity.core.checks.gathered import Gathered
from pytest_llmparity.core.checks.shares import judge_cases, least_perfect
from pytest_llmparity.core.compare.facts import FactDiff
from pytest_llmparity.core.compare.text import edit_similarity, fact_diff
from pytest_llmparity.core.ports import Embedder
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.verdict import Outcome, Verdict

ALIKE: Final = 0.90
"""Share of pairs that must be alike. The calibrated limit is the 5 % quantile of the baseline's own repeats, so even
the baseline falls short of it in 5 % of prompts; twice that is accepted of a candidate."""
QUANTILE: Final = 0.05
LEAST_REPEATS: Final = 20
"""Repeats of the baseline below which a 5 % quantile is just the smallest one."""

Texts = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarityCheck:
    """Judges the share of pairs that are alike: no other number, no flipped negation, and close enough.

    Made by ``check.similarity()``. *Close* is the cosine of embeddings where an embedder is configured, else edit
    similarity (1 for equal texts, 0 for strangers); the verdict says which. ``at_least`` is the limit for it, taken as
    given and called uncalibrated; ``None`` takes the 5 % quantile of what the baseline scores against its own repeats.
    A baseline that repeats itself word for word gives no such limit: INCONCLUSIVE until ``at_least`` is given.

    This is no equivalence gate for open text: in 200 of 200 draws of 64 free-text prompts ``at_least=0.85`` failed an
    honest BF16 against F16 of the same model. Ask it of answers that are short or nearly fixed; whether two engines are
    equivalent on open text is what :class:`~pytest_llmparity.core.checks.text.TextCheck` asks.

    Every case counts as one piece of evidence, whatever its ``group``. PASS when at least 90 % of pairs are shown to be
    alike (Clopper-Pearson; 29 prompts at the least), FAIL when fewer are. A pair whose candidate failed to answer is
    not alike; above 5 % of pairs without two answers nothing is judged: ERROR.
    """

    at_least: float | None = None
    where: str = field(default="", compare=False)

    @property
    def kind(self) -> str:
        """Short name."""
        return "similarity"

    @property
    def pairwise(self) -> bool:
        """It says nothing about a single engine."""
        return True

    @property
    def sequential(self) -> bool:
        """The share of alike pairs has a sequential test."""
        return True

    def __str__(self) -> str:
        return "similarity()" if self.at_least is None else f"similarity(at_least={self.at_least:g})"

    def needs(self) -> Needs:
        """The main phase; without a given limit the baseline's repeats too."""
        return Needs() if self.at_least is not None else Needs(phases=frozenset({Phase.MAIN, *FLOOR_PHASES}))

    def problem(self, *, cases: int, groups: int, engines: int, sequential: bool = False) -> str | None:
        """Refuse a set so small that not even equal answers would pass."""
        needed = least_perfect(ALIKE, 0.05, sequential=sequential)
        assert needed is not None
        if cases >= needed:
            return None
        return (
            f"{explain.count(cases, 'prompt')} can never show that {explain.percent(ALIKE)} of answers are "
            f"alike, not even if all are equal; it takes {needed}"
        )

    def power(self, *, cases: int, groups: int, sequential: bool = False) -> str:
        """What it asks of how many prompts."""
        return f"{self}: at least {explain.percent(ALIKE)} of {explain.count(cases, 'prompt')} alike"

    def judge(self, evidence: Evidence) -> list[Verdict]:
        """One verdict per candidate."""
        verdicts = gathered.alone(self, evidence, self.kind)
        baseline = evidence.engines[evidence.baseline]
        for candidate, verdict in gathered.candidates(self, evidence, self.kind):
            both = gathered.gather(evidence, candidate)
            refused = gathered.blocked(verdict, baseline, candidate)
            refused = refused or gathered.unanswered(verdict, both, evidence)
            verdicts.append(refused or self._judge(verdict, evidence, candidate, both))
        return verdicts

    def _judge(self, verdict: Verdict, evidence: Evidence, candidate: EngineEvidence, both: Gathered) -> Verdict:
        measure = "edit similarity" if evidence.embedder is None else f"cosine of {evidence.embedder.name}"
        limit, origin = self._limit(evidence, measure)
        if limit is None:
            return gathered.finish(verdict, outcome=Outcome.INCONCLUSIVE, reason=origin, n=len(both.pairs))
        texts = [(pair.baseline.text, pair.candidate.text) for pair in both.pairs]
        facts = [fact_diff(ours, theirs) for ours, theirs in texts]
        scores = scored(texts, evidence.embedder)
        alike = [not fact.blocking and score >= limit for fact, score in zip(facts, scores, strict=True)]
        by_case = {case.id: False for case in both.failed}
        by_case |= {pair.case.id: same for pair, same in zip(both.pairs, alike, strict=True)}
        in_order = [by_case[case.id] for case in evidence.prompts.cases if case.id in by_case]
        changes: dict[str, Any] = judge_cases(in_order, at_least=ALIKE, evidence=evidence)
        if evidence.single:
            changes["reason"] = _single(facts[0], scores[0], measure, limit)
        changes |= {
            "measures": "of answers are alike",
            "requests": 2 * len(both.pairs),
            "differs": diagnosis.layers(evidence, candidate),
            "details": (
                f"alike: no other number or negation, {measure} at least {limit:.3f} ({origin})",
                *_counts(facts, scores, limit, both),
                *_first(verdict, both, facts, alike),
            ),
        }
        return gathered.settled(gathered.finish(verdict, **changes), evidence, absent=both.absent)

    def _limit(self, evidence: Evidence, measure: str) -> tuple[float | None, str]:
        """Return the limit and where it comes from, or ``None`` and what the user must do."""
        if self.at_least is not None:
            return self.at_least, "as given, uncalibrated"
        baseline = evidence.engines[evidence.baseline]
        main = gathered.answers(baseline)
        texts = [
            (main[case].text, again.text)
            for phase in FLOOR_PHASES
            for case, again in gathered.answers(baseline, phase).items()
            if case in main
        ]
        if len(texts) < LEAST_REPEATS:
            return None, (
                f"no limit: {baseline.name} has {explain.count(len(texts), 'repeated answer')} and a 5 % quantile "
                f"takes {LEAST_REPEATS}; give at_least="
            )
        if all(ours == again for ours, again in texts):
            return None, f"no limit: {baseline.name} repeats itself word for word, which gives no scale; give at_least="
        limit = float(np.quantile(scored(texts, evidence.embedder), QUANTILE, method="lower"))
        return limit, f"5 % quantile of {explain.count(len(texts), 'repeat')} of {baseline.name}"


def scored(texts: Texts, embedder: Embedder | None) -> list[float]:
    """Return how close the two texts of each pair are: cosine of embeddings, or edit similarity without an embedder."""
    if embedder is None:
        return [edit_similarity(ours, theirs) for ours, theirs in texts]
    unique = list(dict.fromkeys(text for both in texts for text in both))
    vectors = dict(zip(unique, embedder.embed(unique), strict=True))
    return [1.0 if ours == theirs else _cosine(vectors[ours], vectors[theirs]) for ours, theirs in texts]


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    value = math.fsum(x * y for x, y in zip(a, b, strict=True))
    if not math.isfinite(value):
        return -1.0  # an embedder that returns no number has not shown that anything is close
    return value


def _counts(facts: Sequence[FactDiff], scores: Sequence[float], limit: float, both: Gathered) -> list[str]:
    blocked = sum(fact.blocking for fact in facts)
    below = sum(score < limit for score in scores)
    line = f"{blocked} with another number or negation, {below} below the limit, median {float(np.median(scores)):.3f}"
    lines = [line]
    if both.note:
        lines.append(both.note)
    return lines


def _first(verdict: Verdict, both: Gathered, facts: Sequence[FactDiff], alike: Sequence[bool]) -> list[str]:
    for pair, fact, same in zip(both.pairs, facts, alike, strict=True):
        if not same:
            what = f": {explain.plain(fact.describe(), 160)}" if fact.blocking else ""
            width = max(len(verdict.engine), len(str(verdict.baseline)))
            return [
                f"first: {explain.plain(pair.case.id, 40)}{what}",
                f"  {verdict.baseline:<{width}} {explain.quote(pair.baseline.text)}",
                f"  {verdict.engine:<{width}} {explain.quote(pair.candidate.text)}",
            ]
    return []


def _single(fact: FactDiff, score: float, measure: str, limit: float) -> str:
    if fact.blocking:
        return f"{explain.plain(fact.describe(), 160)} (single)"
    return f"{measure} {score:.3f}, at least {limit:.3f} asked (single)"
