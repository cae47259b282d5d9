"""Whether both engines saw the same prompt, uncut: an exact comparison of prompt token counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from pytest_llmparity.core.checks import gathered
from pytest_llmparity.core.checks.gathered import Gathered
from pytest_llmparity.core.diagnosis import layers
from pytest_llmparity.core.diagnosis.counts import compare_counts
from pytest_llmparity.core.evidence import EngineEvidence, Evidence, Needs
from pytest_llmparity.core.verdict import Difference, Outcome, Verdict
from pytest_llmparity.core.words import explain


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptsCheck:
    """Compares the number of prompt tokens each engine reports, case by case.

    Made by ``check.prompts()``. Any difference, and any prompt refused as too long, is FAIL: an exact finding without
    p-values. PASS needs counts for every prompt that was asked, and 0 is none; a prompt nobody counted leaves it
    INCONCLUSIVE, whether its count or its answer is missing. ``estimate`` is
    the number of prompts that differ, were cut or were refused by one of the engines, ``margin`` is 0.
    """

    where: str = field(default="", compare=False)

    @property
    def kind(self) -> str:
        """Short name."""
        return "prompts"

    @property
    def pairwise(self) -> bool:
        """It says nothing about a single engine."""
        return True

    @property
    def sequential(self) -> bool:
        """An exact comparison: it speaks for the prompts that were asked, however many."""
        return False

    def __str__(self) -> str:
        return "prompts()"

    def needs(self) -> Needs:
        """The main phase."""
        return Needs()

    def problem(self, *, cases: int, groups: int, engines: int, sequential: bool = False) -> str | None:
        """Nothing: one prompt is enough to find a difference."""
        return None

    def power(self, *, cases: int, groups: int, sequential: bool = False) -> str:
        """What it compares."""
        return f"{self}: exact, token counts of {explain.count(cases, 'prompt')}"

    def judge(self, evidence: Evidence) -> list[Verdict]:
        """One verdict per candidate."""
        verdicts = gathered.alone(self, evidence, self.kind)
        baseline = evidence.engines[evidence.baseline]
        for candidate, verdict in gathered.candidates(self, evidence, self.kind):
            refused = gathered.blocked(verdict, baseline, candidate)
            verdicts.append(self._compare(verdict, evidence, candidate) if refused is None else refused)
        return verdicts

    def _compare(self, verdict: Verdict, evidence: Evidence, candidate: EngineEvidence) -> Verdict:
        both = gathered.gather(evidence, candidate)
        rows = layers.prompt_counts(evidence, candidate)
        known = layers.known_of(evidence, candidate)
        counts = compare_counts(rows, known)
        findings = layers.counts_in_words(counts, evidence.baseline, candidate.name, known)
        refusals = self._too_long(evidence, candidate)
        findings += refusals.sentences
        missing = both.missing(evidence, used=len(rows))
        uncounted = self._uncounted(evidence, candidate, both)
        details = [*findings, *([uncounted] if findings and uncounted else []), *missing.reasons]
        if differing := [row for row in rows if row[1] != row[2]][:3]:
            details += [
                f"{explain.plain(case, 40)}: {evidence.baseline} {ours}, {candidate.name} {theirs}"
                for case, ours, theirs in differing
            ]
        changes: dict[str, object] = {
            "n": len(rows),
            "requests": 2 * len(both.pairs),
            "unit": "prompts",
            "measures": "prompts differ",
            "side": "either",
            "differs": layers.layers(evidence, candidate),
        }
        words = {case: f"{ours} and {theirs} prompt tokens" for case, ours, theirs in rows if ours != theirs}
        words |= refusals.cases
        words |= {case: "cut" for cut in counts.cuts for case in cut.cases if case not in words}
        listed = tuple(Difference(case=c.id, what=words[c.id]) for c in evidence.prompts.cases if c.id in words)
        if findings:
            changes |= {"estimate": float(len(listed)), "margin": 0.0, "details": tuple(details[1:])}
            changes["differing"] = listed
            return gathered.finish(verdict, **changes, outcome=Outcome.FAIL, reason=findings[0])
        changes["details"] = tuple(details)
        if (refused := gathered.unanswered(verdict, both, evidence)) is not None:
            return refused
        if uncounted or (both.lost and evidence.incomplete is None):
            reason = "; ".join(filter(None, [uncounted, *missing.reasons]))
            return gathered.finish(verdict, **changes, outcome=Outcome.INCONCLUSIVE, reason=reason)
        reason = f"equal token counts on {explain.count(len(rows), 'prompt')}"
        changes |= {"estimate": 0.0, "margin": 0.0}
        passed = gathered.finish(verdict, **changes, outcome=Outcome.PASS, reason=reason)
        return gathered.settled(gathered.rested(passed, missing), evidence, absent=both.absent)

    def _uncounted(self, evidence: Evidence, candidate: EngineEvidence, both: Gathered) -> str:
        """Say of which answers an engine did not count the prompt; empty when of none."""
        sides = {
            evidence.baseline: {pair.case.id: pair.baseline.prompt_tokens for pair in both.pairs},
            candidate.name: {pair.case.id: pair.candidate.prompt_tokens for pair in both.pairs},
        }
        missing = {name: [case for case, n in counts.items() if not n or n < 0] for name, counts in sides.items()}
        silent = [name for name, cases in missing.items() if len(cases) == len(both.pairs) > 0]
        said = [f"{' and '.join(silent)} did not say how many tokens each prompt has"] if silent else []
        said += [
            f"{name} did not count {len(cases)} of {explain.count(len(both.pairs), 'prompt')} "
            f"({explain.plain(cases[0], 40)}{', …' if len(cases) > 1 else ''})"
            for name, cases in missing.items()
            if cases and name not in silent
        ]
        return "; ".join(said)

    def _too_long(self, evidence: Evidence, candidate: EngineEvidence) -> _Refusals:
        """Return the prompts that one engine refused as too long and the other one answered."""
        sentences: list[str] = []
        cases: dict[str, str] = {}
        sides = (evidence.engines[evidence.baseline], candidate)
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


class _Refusals(NamedTuple):
    """What is said of prompts that one engine refused, and of each of them."""

    sentences: list[str]
    cases: dict[str, str]
