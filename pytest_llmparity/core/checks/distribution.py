"""Sampled answers: whether two engines draw them from one distribution, shown and not judged unless asked to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pytest_llmparity.core.checks.arguments import REPEATS
from pytest_llmparity.core.checks.base import BaseCheck, Pairing
from pytest_llmparity.core.compare.calls import in_words
from pytest_llmparity.core.diagnosis import layers
from pytest_llmparity.core.evidence import EngineEvidence, Evidence, Needs, Tokens
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.stats.permutation import DRAWS, Difference, difference
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributionCheck(BaseCheck):
    """Tests whether ``repeats`` sampled answers to each prompt could come from either engine.

    Where a prompt asks for several choices (``n``) each of them is a draw, so that one answer may be enough. Made by
    ``check.distribution()``. It never passes: that nothing is seen does not show that nothing is there. Without
    ``gate`` it is advice, SKIPPED with what was seen; with it a difference that is shown is FAIL, anything else
    INCONCLUSIVE.
    """

    kind: ClassVar[str] = "distribution"
    reads_last: ClassVar[bool] = True
    reads_choices: ClassVar[bool] = True
    sequential: ClassVar[bool] = False
    repeats: int = REPEATS
    gate: bool = False

    def __str__(self) -> str:
        given = [f"repeats={self.repeats}"] if self.repeats != REPEATS else []
        return f"distribution({', '.join([*given, *(['gate=True'] if self.gate else [])])})"

    def needs(self) -> Needs:
        """Return what to gather: the main phase, each prompt several times, sampled."""
        return Needs(repeats=self.repeats, sampled=True)

    def problem(
        self, *, cases: int, groups: int, engines: int, sequential: bool = False, tokens: Tokens = ()
    ) -> str | None:
        """Return nothing: it never settles that engines are alike, whatever the number of prompts."""
        return None

    def prompt_problem(self, prompts: PromptSet) -> str | None:
        """Return why single answers compare nothing, ``None`` where each prompt, or the check, asks for several."""
        alone = [case.id for case in prompts.cases if case.n < 2]
        if self.repeats > 1 or not alone:
            return None
        return (
            f"prompt {explain.plain(alone[0], 40)} would be drawn once, and draws are compared with one another: give "
            "repeats=2 or more, or n = 2 or more in every prompt"
        )

    def power(self, *, cases: int, groups: int, sequential: bool = False, tokens: Tokens = ()) -> str:
        """Return one line for the plan: how much is drawn, and that an 8-bit copy is beyond it."""
        drawn = explain.count(cases * self.repeats, "answer")
        drawn += "" if self.repeats > 1 else ", each of several choices,"
        return f"{self}: {drawn} of each engine; sees a 4-bit copy seldom and an 8-bit one hardly ever"

    def verdicts(self, evidence: Evidence) -> Iterable[Verdict]:
        """Return one verdict per candidate."""
        return self.each_pairing(
            evidence, self.kind, lambda opened, engine, pairing: [self._compare(opened, evidence, engine, pairing)]
        )

    def _compare(self, verdict: Verdict, evidence: Evidence, candidate: EngineEvidence, pairing: Pairing) -> Verdict:
        sides = (evidence.engines[evidence.baseline], candidate)
        drawn = [tuple(_answers(engine, pair.case.id) for engine in sides) for pair in pairing.pairs]
        usable = [(ours, theirs) for ours, theirs in drawn if min(len(ours), len(theirs)) > 1]
        once = len(drawn) - len(usable)
        also = [f"{explain.count(once, 'prompt')} drawn only once on an engine"] if once else []
        missing = pairing.missing(evidence, used=len(usable), also=also)
        verdict = dataclasses.replace(verdict, outcome=Outcome.INCONCLUSIVE if self.gate else Outcome.SKIPPED)
        if not missing.enough:
            return dataclasses.replace(verdict, reason=f"too few answers to compare: {missing.reason}")
        seen = difference(usable, seed=evidence.seed)
        verdict = dataclasses.replace(
            verdict,
            estimate=seen.within - seen.across,
            unit="share",
            measures="more of a text is shared within an engine than across",
            n=len(usable),
            groups=len({pair.case.group for pair in pairing.pairs}),
            requests=sum(len(ours) + len(theirs) for ours, theirs in usable),
            differs=layers.layers(evidence, candidate),
            details=(_shared(seen), *missing.reasons),
        )
        if seen.copies:
            reason = "every answer was repeated word for word, so nothing was drawn: raise the temperature"
            return dataclasses.replace(verdict, reason=reason)
        outcome, reason = self._outcome(seen, alpha=evidence.alpha)
        p_fail = seen.p_value if self.gate else None
        return dataclasses.replace(verdict, outcome=outcome, reason=reason, p_fail=p_fail)

    def _outcome(self, seen: Difference, *, alpha: float) -> tuple[Outcome, str]:
        """Return the outcome and what to say of it."""
        p_value = f"p = {seen.p_value:.4f} of {DRAWS} permutations within prompts"
        words = f"sampled answers differ ({p_value})" if seen.p_value < alpha else f"no difference is shown ({p_value})"
        if not self.gate:
            return Outcome.SKIPPED, f"advice, not judged: {words}; {_shared(seen)}"
        if seen.p_value < alpha:
            return Outcome.FAIL, words
        return Outcome.INCONCLUSIVE, f"{words}, which does not show that there is none"


def _answers(engine: EngineEvidence, case: str) -> list[str]:
    """Return what an engine answered to a case each time, every choice of it, calls written out."""
    samples = engine.samples.get(Phase.MAIN, {}).get(case, ())
    answers = [sample.completion for sample in samples if sample.completion is not None]
    return [in_words(choice) for answer in answers for choice in (answer, *answer.choices)]


def _shared(seen: Difference) -> str:
    """Say how much of their texts answers share."""
    within, across = explain.percent(seen.within), explain.percent(seen.across)
    return f"two answers of one engine share {within} of their beginning, two of both engines {across}"
