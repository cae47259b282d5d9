"""Whether both engines saw the same prompt, uncut: an exact comparison of prompt token counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from pytest_llmparity.core.checks.base import BaseCheck, Pairing, pair_answers
from pytest_llmparity.core.checks.missing import rested
from pytest_llmparity.core.diagnosis import layers
from pytest_llmparity.core.diagnosis.counts import compare_counts
from pytest_llmparity.core.evidence import EngineEvidence, Evidence, Tokens
from pytest_llmparity.core.verdict import Difference, Outcome, Verdict
from pytest_llmparity.core.words import explain


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptsCheck(BaseCheck):
    """Compares the number of prompt tokens each engine reports, case by case.

    Made by ``check.prompts()``. Any difference, and any prompt refused as too long, is FAIL: an exact finding without
    p-values. PASS needs counts for every prompt that was asked, and 0 is none; a prompt nobody counted leaves it
    INCONCLUSIVE, whether its count or its answer is missing. ``estimate`` is
    the number of prompts that differ, were cut or were refused by one of the engines, ``margin`` is 0.
    """

    kind: ClassVar[str] = "prompts"
    sequential: ClassVar[bool] = False
    """An exact comparison: it speaks for the prompts that were asked, however many."""

    def __str__(self) -> str:
        return "prompts()"

    def problem(
        self, *, cases: int, groups: int, engines: int, sequential: bool = False, tokens: Tokens = ()
    ) -> str | None:
        """Return nothing: one prompt is enough to find a difference."""
        return None

    def power(self, *, cases: int, groups: int, sequential: bool = False, tokens: Tokens = ()) -> str:
        """Return one line for the plan: what it compares."""
        return f"{self}: exact, token counts of {explain.count(cases, 'prompt')}"

    def verdicts(self, evidence: Evidence) -> Iterable[Verdict]:
        """Return one verdict per candidate."""
        return self.each_pair(evidence, self.kind, lambda opened, engine: [self._compare(opened, evidence, engine)])

    def _compare(self, verdict: Verdict, evidence: Evidence, candidate: EngineEvidence) -> Verdict:
        pairing = pair_answers(evidence, candidate)
        pairs = layers.prompt_counts(evidence, candidate)
        known = layers.known_of(evidence, candidate)
        counts = compare_counts(pairs, known)
        refusals = _refused(evidence.engines[evidence.baseline], candidate)
        findings = [*layers.counts_in_words(counts, evidence.baseline, candidate.name, known), *refusals.sentences]
        missing = pairing.missing(evidence, used=len(pairs))
        uncounted = _uncounted(evidence.baseline, pairing)
        details = [*findings, *([uncounted] if findings and uncounted else []), *missing.reasons]
        apart = [(case, ours, theirs) for case, ours, theirs in pairs if ours != theirs]
        details += [
            f"{explain.plain(case, 40)}: {evidence.baseline} {ours}, {candidate.name} {theirs}"
            for case, ours, theirs in apart[:3]
        ]
        compared = dataclasses.replace(
            verdict,
            n=len(pairs),
            requests=2 * len(pairing.pairs),
            unit="prompts",
            measures="prompts differ",
            side="either",
            differs=layers.layers(evidence, candidate),
            details=tuple(details[1:] if findings else details),
        )
        if findings:
            words = {case: f"{ours} and {theirs} prompt tokens" for case, ours, theirs in apart} | refusals.cases
            words |= {case: "cut" for cut in counts.cuts for case in cut.cases if case not in words}
            listed = tuple(Difference(case=c.id, what=words[c.id]) for c in evidence.prompts.cases if c.id in words)
            return dataclasses.replace(
                compared,
                outcome=Outcome.FAIL,
                reason=findings[0],
                estimate=float(len(listed)),
                margin=0.0,
                differing=listed,
            )
        if (refused := pairing.unanswered(verdict, evidence)) is not None:
            return refused
        if uncounted or (pairing.lost and evidence.incomplete is None):
            reason = "; ".join(filter(None, [uncounted, *missing.reasons]))
            return dataclasses.replace(compared, outcome=Outcome.INCONCLUSIVE, reason=reason)
        reason = f"equal token counts on {explain.count(len(pairs), 'prompt')}"
        passed = dataclasses.replace(compared, outcome=Outcome.PASS, reason=reason, estimate=0.0, margin=0.0)
        return rested(passed, missing)


class _Refusals(NamedTuple):
    """What is said of prompts that one engine refused, and of each of them."""

    sentences: list[str]
    cases: dict[str, str]


def _uncounted(baseline: str, pairing: Pairing) -> str:
    """Say of which answers an engine did not count the prompt; empty when of none."""
    sides = {
        baseline: [(pair.case.id, pair.baseline.conversation[0].prompt_tokens) for pair in pairing.pairs],
        pairing.candidate: [(pair.case.id, pair.candidate.conversation[0].prompt_tokens) for pair in pairing.pairs],
    }
    missing = {name: [case for case, n in counts if not n or n < 0] for name, counts in sides.items()}
    silent = [name for name, cases in missing.items() if len(cases) == len(pairing.pairs) > 0]
    sentences = [f"{' and '.join(silent)} did not say how many tokens each prompt has"] if silent else []
    sentences += [
        f"{name} did not count {len(cases)} of {explain.count(len(pairing.pairs), 'prompt')} "
        f"({explain.plain(cases[0], 40)}{', …' if len(cases) > 1 else ''})"
        for name, cases in missing.items()
        if cases and name not in silent
    ]
    return "; ".join(sentences)


def _refused(*sides: EngineEvidence) -> _Refusals:
    """Return the prompts that one of two engines refused as too long and the other one answered."""
    sentences: list[str] = []
    cases: dict[str, str] = {}
    for engine, other in (sides, sides[::-1]):
        answered = other.answers()
        refused = [
            case
            for case, failure in engine.failures().items()
            if failure.kind == "ContextOverflow" and case in answered
        ]
        cases |= dict.fromkeys(refused, f"{engine.name} refused it as longer than its context")
        if refused:
            sentences.append(
                f"{engine.name} refused {explain.count(len(refused), 'prompt')} as longer than its context "
                f"({explain.plain(refused[0], 40)}), {other.name} answered them"
            )
    return _Refusals(sentences, cases)
