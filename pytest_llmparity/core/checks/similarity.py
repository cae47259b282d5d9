"""Whether answers mean the same: facts first, then closeness by embeddings or edit distance."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec

from pytest_llmparity.core.checks.base import BaseCheck, Pair, Pairing
from pytest_llmparity.core.checks.designs import least_kept
from pytest_llmparity.core.checks.missing import Silence
from pytest_llmparity.core.checks.shares import Best, share_judged
from pytest_llmparity.core.checks.tags import (
    By,
    Tags,
    beside,
    left_to_all,
    no_tag,
    plan_line,
    tags_of,
)
from pytest_llmparity.core.compare.answers import cut_in_call, digest, edit_similarity, no_evidence
from pytest_llmparity.core.compare.calls import same_calls, written_out
from pytest_llmparity.core.diagnosis import layers
from pytest_llmparity.core.evidence import FLOOR_PHASES, EngineEvidence, Evidence, Needs, Tokens
from pytest_llmparity.core.late import np
from pytest_llmparity.core.ports import Embedder
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.sample import Phase, limited_lower
from pytest_llmparity.core.verdict import Difference, Outcome, Verdict
from pytest_llmparity.core.words import explain

if TYPE_CHECKING:
    from pytest_llmparity.core.compare.facts import FactDiff

ALIKE: Final = 0.90
"""Share of pairs that must be alike. The calibrated limit is the 5 % quantile of the baseline's own repeats, so even
the baseline falls short of it in 5 % of prompts; twice that is accepted of a candidate."""
QUANTILE: Final = 0.05
CALIBRATED_BY: Final = 32
"""Cases whose repeats give the limit, all of a smaller set."""
LEAST_REPEATS: Final = 20
"""Repeats of the baseline below which a 5 % quantile is just the smallest one."""

Texts = Sequence[tuple[str, str]]


_EXAMPLES: Final = 3
"""Cases that are shown with both answers."""
_LEAD: Final = 20
"""Characters shown before the place where two answers part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarityCheck(BaseCheck):
    """Judges the share of pairs that are alike: no other number, no flipped negation, and close enough.

    Made by ``check.similarity()``. *Close* is the cosine of embeddings where an embedder is configured, else edit
    similarity (1 for equal texts, 0 for strangers); the verdict says which. ``at_least`` is the limit for it, taken as
    given and called uncalibrated; ``None`` takes the 5 % quantile of what the baseline scores against its own repeats.
    A baseline that repeats itself word for word gives no such limit: INCONCLUSIVE until ``at_least`` is given.

    This is no equivalence gate for open text: in 200 of 200 draws of 64 free-text prompts ``at_least=0.85`` failed an
    honest BF16 against F16 of the same model. Ask it of answers that are short or nearly fixed; whether two engines are
    equivalent on open text is what :class:`~pytest_llmparity.core.checks.drift.text.TextCheck` asks.

    Two answers that call tools are alike when they call the same functions in the same order with the same arguments,
    as JSON values; where one calls and the other speaks they are not. A pair that says nothing (no text and no call) is
    neither alike nor unlike.

    Of cases of one ``group`` one counts; with too few groups for that all of them do, as fewer. PASS when at least 90 %
    of pairs are shown to be alike (Clopper-Pearson; 29 prompts at the least), FAIL when fewer are. A pair whose
    candidate failed to answer is not alike; above 5 % of pairs without two answers nothing is judged: ERROR.
    ``by="tag"`` adds a verdict on the prompts of each tag that has 29 groups of them, by the same limit.
    """

    kind: ClassVar[str] = "similarity"
    reads_last: ClassVar[bool] = True
    at_least: float | None = None
    by: By | None = None

    def __str__(self) -> str:
        given = [f"at_least={self.at_least:g}"] if self.at_least is not None else []
        given += [f'by="{self.by}"'] if self.by else []
        return f"similarity({', '.join(given)})"

    def needs(self) -> Needs:
        """Return what to gather: the main phase; without a given limit the baseline's repeats too."""
        if self.at_least is not None:
            return Needs()
        return Needs(phases=frozenset({Phase.MAIN, *FLOOR_PHASES}), floor_cases=CALIBRATED_BY)

    def problem(
        self, *, cases: int, groups: int, engines: int, sequential: bool = False, tokens: Tokens = ()
    ) -> str | None:
        """Return why not even equal answers would pass, as prompts are so few, ``None`` where they would."""
        needed = least_kept(ALIKE, sequential_run=sequential)
        assert needed is not None
        grouped = sequential and groups < cases
        counted, noun = (groups, "group") if grouped else (cases, "prompt")
        if counted >= needed:
            return None
        return (
            f"{explain.count(counted, noun)} can never show that {explain.percent(ALIKE)} of answers are "
            f"alike, not even if all are equal; it takes {needed}"
        )

    def power(self, *, cases: int, groups: int, sequential: bool = False, tokens: Tokens = ()) -> str:
        """Return one line for the plan: what it asks of how many prompts."""
        line = f"{self}: at least {explain.percent(ALIKE)} of {explain.count(cases, 'prompt')} alike"
        if groups == cases:
            return line
        needed = least_kept(ALIKE, sequential_run=sequential) or 0
        how = (
            "one of each counts" if sequential or groups >= needed else f"all count as fewer: it takes {needed} groups"
        )
        return f"{line}; they come from {explain.count(groups, 'group')}, {how}"

    def verdicts(self, evidence: Evidence) -> Iterable[Verdict]:
        """Return one verdict per candidate; with ``by`` those on tags too."""
        limit = self._limit(evidence)
        scores: dict[tuple[str, str], float] = {}

        def judged(some: Evidence, *, layered: bool = False) -> Iterable[Verdict]:
            return self.each_pairing(
                some,
                self.kind,
                lambda opened, engine, pairing: [
                    self._compare(opened, some, engine, pairing, limit, scores, layered=layered)
                ],
            )

        whole = list(judged(evidence, layered=True))
        if not self.by or evidence.single:
            return whole
        tags = self._tags(evidence.prompts, evidence.sequential)
        left = left_to_all(tags, self._wanted(evidence.sequential))
        with_tags_left = [dataclasses.replace(verdict, remarks=(*verdict.remarks, *left)) for verdict in whole]
        return [*with_tags_left, *beside(whole, evidence, tags.judged, judged)]

    def tag_problem(self, prompts: PromptSet, *, sequential: bool = False, tokens: Tokens = ()) -> str | None:
        """Return why ``by="tag"`` judges nothing: no tag has prompts enough; ``None`` where one has."""
        if self.by is None:
            return None
        return no_tag(prompts, self._tags(prompts, sequential), self._wanted(sequential))

    def tag_line(self, prompts: PromptSet, *, sequential: bool = False, tokens: Tokens = ()) -> str:
        """Return for the plan which tags are judged by themselves."""
        if self.by is None:
            return ""
        return plan_line(str(self), self._tags(prompts, sequential), self._wanted(sequential))

    def _tags(self, prompts: PromptSet, sequential: bool) -> Tags:
        needed = least_kept(ALIKE, sequential_run=sequential)
        assert needed is not None
        return tags_of(prompts, lambda sizes: len(sizes) >= needed)

    def _wanted(self, sequential: bool) -> str:
        return f"{explain.count(least_kept(ALIKE, sequential_run=sequential) or 0, 'group')} of prompts"

    def _compare(
        self,
        verdict: Verdict,
        evidence: Evidence,
        candidate: EngineEvidence,
        pairing: Pairing,
        limited: tuple[float | None, str],
        known: dict[tuple[str, str], float],
        *,
        layered: bool,
    ) -> Verdict:
        silence = Silence()
        telling: list[Pair] = []
        for pair in pairing.pairs:
            if no_evidence(pair.baseline, pair.candidate) or cut_in_call(pair.baseline, pair.candidate):
                silence.add({evidence.baseline: pair.baseline, candidate.name: pair.candidate})
            else:
                telling.append(pair)
        spoken = [pair for pair in telling if not (pair.baseline.tool_calls or pair.candidate.tool_calls)]
        measure = "edit similarity" if evidence.embedder is None else f"cosine of {evidence.embedder.name}"
        limit, origin = limited
        if limit is None and spoken:
            return dataclasses.replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=origin, n=len(telling))
        texts = [(pair.baseline.text, pair.candidate.text) for pair in spoken]
        new = [both for both in dict.fromkeys(texts) if both not in known]
        known.update(zip(new, scored(new, evidence.embedder), strict=True))
        scores = iter([known[both] for both in texts])
        compared = [_of(pair, scores, limit) for pair in telling]
        kept_by_case: dict[str, bool] = {comparison.pair.case.id: comparison.alike for comparison in compared}
        kept_by_case |= dict.fromkeys((case.id for case in pairing.failed), False)
        kept = [kept_by_case.get(case.id) for case in pairing.cases]
        missing = pairing.missing(evidence, used=len(telling) + len(pairing.failed), also=silence.reasons())
        cases = pairing.cases
        head = [f"alike: no other number or negation, {measure} at least {limit:.3f} ({origin})"] if spoken else []
        shown = dataclasses.replace(
            verdict,
            measures="of answers are alike",
            requests=2 * len(pairing.pairs),
            differs=layers.layers(evidence, candidate) if layered else (),
            details=(*head, *_counts(compared, limit), *missing.reasons, *_unlike(verdict, compared)),
            differing=tuple(comparison.difference for comparison in compared if not comparison.alike),
        )
        done = share_judged(
            shown,
            evidence,
            kept,
            at_least=ALIKE,
            cases=cases,
            about=pairing.cases,
            missing=missing,
            best=Best(cases, [keeps is not False for keeps in kept]),
        )
        if evidence.single and compared:
            done = dataclasses.replace(done, reason=compared[0].single(measure, limit))
        return done

    def _limit(self, evidence: Evidence) -> tuple[float | None, str]:
        """Return the limit and where it comes from, or ``None`` and what the user must do."""
        if self.at_least is not None:
            return self.at_least, "as given, uncalibrated"
        baseline = evidence.engines[evidence.baseline]
        main, cases = baseline.answers(), evidence.prompts.by_id
        texts = [
            (main[case].text, again.text)
            for phase in FLOOR_PHASES
            for case, again in baseline.answers(phase).items()
            if case in main
            and not limited_lower(again, main[case])
            and _both_speak(Pair(case=cases[case], baseline=main[case], candidate=again))
        ]
        if len(texts) < LEAST_REPEATS:
            return None, (
                f"no limit: {baseline.name} has {explain.count(len(texts), 'repeated answer')} and a 5 % quantile "
                f"takes {LEAST_REPEATS}; give at_least="
            )
        if all(ours == again for ours, again in texts):
            return None, f"no limit: {baseline.name} repeats itself word for word, which gives no scale; give at_least="
        limit = float(np.quantile(scored(texts, evidence.embedder), QUANTILE, method="lower"))
        if limit >= 1.0:
            return None, (
                f"no limit: fewer than one in twenty of {explain.count(len(texts), 'repeat')} of {baseline.name} "
                "differ, so their 5 % quantile is 1, which no honest copy keeps; give at_least="
            )
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


class _Compared(msgspec.Struct, frozen=True):
    """One pair as it was judged; ``fact`` and ``score`` are those of two texts, ``None`` where calls were compared."""

    pair: Pair
    alike: bool
    fact: FactDiff | None = None
    score: float | None = None

    @property
    def shown(self) -> tuple[str, str]:
        """What was compared: the texts, or the calls written out."""
        if self.fact is None:
            return written_out(self.pair.baseline, self.pair.candidate)
        return self.pair.baseline.text, self.pair.candidate.text

    @property
    def why(self) -> str:
        """Why they are not alike, empty where they are merely not close enough."""
        if self.fact is None:
            called = [bool(answer.tool_calls) for answer in (self.pair.baseline, self.pair.candidate)]
            return "other tool calls" if all(called) else "one calls a tool, the other does not"
        if not _both_speak(self.pair):
            return "one has no text"
        return self.fact.describe() if self.fact.blocking else ""

    @property
    def difference(self) -> Difference:
        """The case as a report lists it."""
        ours, theirs = self.shown
        words = self.why or f"closeness {self.score:.3f}"
        return Difference(
            case=self.pair.case.id, what=words, baseline_sha256=digest(ours), candidate_sha256=digest(theirs)
        )

    def single(self, measure: str, limit: float | None) -> str:
        """Say the verdict on this pair alone."""
        if self.fact is None:
            return "the same tool calls (single)" if self.alike else f"{self.why} (single)"
        if self.fact.blocking:
            return f"{explain.plain(self.fact.describe(), 160)} (single)"
        return f"{measure} {self.score:.3f}, at least {limit or 0.0:.3f} asked (single)"


def _of(pair: Pair, scores: Iterator[float], limit: float | None) -> _Compared:
    """Compare two answers: by their calls where one of them calls tools, else by their texts and the next score."""
    ours, theirs = pair.baseline, pair.candidate
    if ours.tool_calls or theirs.tool_calls:
        return _Compared(pair, same_calls(ours.tool_calls, theirs.tool_calls))
    from pytest_llmparity.core.compare.facts import blocking_diff  # its expressions take long to compile

    fact, score = blocking_diff(ours.text, theirs.text), next(scores)
    return _Compared(pair, _both_speak(pair) and not fact.blocking and score >= (limit or 0.0), fact, score)


def _both_speak(pair: Pair) -> bool:
    ours, theirs = pair.baseline, pair.candidate
    return not (ours.tool_calls or theirs.tool_calls) and bool(ours.text.strip() and theirs.text.strip())


def _counts(compared: Sequence[_Compared], limit: float | None) -> list[str]:
    lines: list[str] = []
    scores = [comparison.score for comparison in compared if comparison.score is not None]
    if scores:
        blocked = sum(comparison.fact.blocking for comparison in compared if comparison.fact is not None)
        below = sum(score < (limit or 0.0) for score in scores)
        median = float(np.median(scores))
        lines.append(f"{blocked} with another number or negation, {below} below the limit, median {median:.3f}")
    if calls := [comparison for comparison in compared if comparison.fact is None]:
        unlike = sum(not comparison.alike for comparison in calls)
        lines.append(f"{explain.count(len(calls), 'pair')} compared as tool calls, {unlike} of them differ")
    return lines


def _unlike(verdict: Verdict, compared: Sequence[_Compared]) -> list[str]:
    """Return the first cases whose answers are not alike, with both answers from shortly before they part."""
    width = max(len(verdict.engine), len(str(verdict.baseline)))
    lines: list[str] = []
    for comparison in [comparison for comparison in compared if not comparison.alike][:_EXAMPLES]:
        reason = f": {explain.plain(comparison.why, 160)}" if comparison.why else ""
        ours, theirs = _from_where_they_part(*comparison.shown)
        lines += [
            f"{'and' if lines else 'first'}: {explain.plain(comparison.pair.case.id, 40)}{reason}",
            f"  {verdict.baseline:<{width}} {ours}",
            f"  {verdict.engine:<{width}} {theirs}",
        ]
    return lines


def _from_where_they_part(ours: str, theirs: str) -> tuple[str, str]:
    """Return two answers, quoted from shortly before the place where they part: they may begin alike for long."""
    shorter = min(len(ours), len(theirs))
    alike = next((place for place in range(shorter) if ours[place] != theirs[place]), shorter)
    begin = max(0, alike - _LEAD) if alike + _LEAD >= explain.QUOTED else 0
    before = "…" if begin else ""
    return before + explain.quote(ours[begin:]), before + explain.quote(theirs[begin:])
