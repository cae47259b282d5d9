"""Whether drift goes away: one check's quantity on the same prompts before and after something was taken away. Pure."""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pytest_llmparity.core.compare.answers import compare_answers, cut_in_call, no_evidence
from pytest_llmparity.core.compare.shift import find_shift
from pytest_llmparity.core.evidence import Check, EngineEvidence, Evidence
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Phase, Sample
from pytest_llmparity.core.stats.medians import sign_test
from pytest_llmparity.core.verdict import Outcome, Verdict

ALPHA: Final = 0.05
"""Error rate of one question: has this drift gone?"""
ONE_OF: Final = 20
"""At most one prompt of so many may say nothing any more where drift is said to have gone, as beneath a verdict."""
TRIES: Final = 10
"""Most experiments that look for the same cause; whether drift is less in one is asked at a part of the error rate."""

NOTHING: Final = 5e-4
"""Nats. Twice as far, and a bit, as an engine was seen to move where nothing changed: warm, beside others, in another
batch or another build it is 0.0002 at most. So little counts as no change also of an engine whose own shift is 0."""

Answers = Mapping[str, Mapping[str, Sample]]
"""What was answered in one experiment, by engine and case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What one check says of some answers, and how far each case's two answers are apart (more is worse).

    ``groups`` has the group of each case; a case without one is a group of its own. ``noise`` is how far a case's
    distance is another one with nothing changed, as far as that was measured. ``silent`` are cases with two answers
    that say nothing about each other.
    """

    verdict: Verdict
    by_case: Mapping[str, float]
    groups: Mapping[str, str] = field(default_factory=dict)
    noise: float = 0.0
    silent: frozenset[str] = frozenset()

    @property
    def above(self) -> bool:
        """Whether the estimate lies beyond the margin, as far as the check has one."""
        estimate, margin = self.verdict.estimate, self.verdict.margin
        if self.verdict.outcome is Outcome.FAIL:
            return True
        if estimate is None or margin is None or self.verdict.outcome is Outcome.PASS:
            return False
        return estimate < margin if self.verdict.side == "at_least" else estimate > margin

    @property
    def fails(self) -> bool:
        """Whether the check fails it, as far as its bounds say: experiments measure no noise floor of the baseline."""
        lower, margin = self.verdict.lower, self.verdict.margin
        if self.verdict.outcome is Outcome.FAIL:
            return True
        return self.verdict.side != "at_least" and lower is not None and margin is not None and lower > margin


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What became of drift: ``gone`` below the margin, ``less`` by the paired test over groups, or neither."""

    before: float | None
    after: float | None
    n: int
    groups: int
    p: float
    gone: bool
    less: bool

    @property
    def outcome(self) -> str:
        """The word of an ``Experiment``."""
        return "gone" if self.gone else "less" if self.less else "stays"


def evidence_of(evidence: Evidence, candidate: str, cases: Sequence[Case], answers: Answers) -> Evidence:
    """Return the evidence of one experiment on one pair: these answers to these cases, everything else as it was."""

    def of(engine: EngineEvidence) -> EngineEvidence:
        samples = {case.id: [answers[engine.name][case.id]] for case in cases if case.id in answers[engine.name]}
        return dataclasses.replace(engine, samples={Phase.MAIN: samples}, left_out={})

    return dataclasses.replace(
        evidence,
        prompts=PromptSet(name=evidence.prompts.name, cases=tuple(cases), digest="experiment"),
        engines={name: of(evidence.engines[name]) for name in (evidence.baseline, candidate)},
        incomplete=None,
        sequential=False,
    )


def noise_of(evidence: Evidence, verdict: Verdict, own_shift: Callable[[EngineEvidence], float | None]) -> float:
    """Return what engines differ from themselves by when they are asked again, in the unit of a verdict's drift.

    In nats the larger of both engines' own shift, and at least :data:`NOTHING`; else the verdict's noise floor.
    """
    if verdict.kind != "logprobs":
        return verdict.floor or 0.0
    engines = [evidence.engines[name] for name in (evidence.baseline, verdict.engine)]
    return max(NOTHING, *(own_shift(engine) or 0.0 for engine in engines))


def drift_of(check: Check, kind: str, evidence: Evidence, *, noise: float = 0.0) -> Drift | None:
    """Return what a check says of an experiment's answers, ``None`` where it gives no such verdict on them."""
    (candidate,) = evidence.candidates
    verdict = next((v for v in check.judge(evidence) if v.kind == kind and v.engine == candidate.name), None)
    if verdict is None or verdict.estimate is None:
        return None
    baseline = evidence.engines[evidence.baseline].answers()
    both = {case: (baseline[case], answer) for case, answer in candidate.answers().items() if case in baseline}
    by_case: dict[str, float] = {}
    differing = {difference.case for difference in verdict.differing if difference.counted}
    if kind == "text":
        horizon = verdict.horizon or 1
        for case, (ours, theirs) in both.items():
            if compared := compare_answers(ours, theirs, horizon=horizon):
                # What the check does not count, such as near-ties that it leaves aside, is no drift of its verdict.
                by_case[case] = 1.0 / compared.fork.at_risk if case in differing else 0.0
    elif kind == "logprobs":
        for case, (ours, theirs) in both.items():
            if shift := find_shift(ours, theirs):
                by_case[case] = shift.most
    elif kind == "tools.agree":
        for case, pair in both.items():
            if evidence.prompts.by_id[case].tools and not (no_evidence(*pair) or cut_in_call(*pair)):
                by_case[case] = float(case in differing)  # calls that were not compared do not agree by that
    else:
        by_case = {case: float(case in differing) for case in both}
    groups = {case.id: case.group for case in evidence.prompts.cases}
    silent = frozenset(both.keys() - by_case.keys())
    return Drift(verdict=verdict, by_case=by_case, groups=groups, noise=noise, silent=silent)


def effect(before: Drift, after: Drift, *, tries: int = TRIES) -> Effect:
    """Compare drift before and after something was taken away, on the same prompts.

    ``less``: the sign test over their groups says so, at 5 % divided by ``tries``: prompts of one group drift together
    and are one piece of evidence, the mean of theirs. A case whose distance changed by no more than the noise did not
    change; a fork that comes or goes did. ``gone``: what is left is less, and
    not above the margin, or no case differs any more; where the check fails what was there and passes what is left, or
    nothing is left, 5 % are enough: drift that is there by chance goes away by chance. Nothing is gone where more than
    one in 20 of the prompts have answers now that say nothing about each other: what ends answers early ends drift too.
    """
    both = before.by_case.keys() & after.by_case.keys()
    now = {case: before.by_case[case] if _same(before, after, case) else after.by_case[case] for case in both}
    p, groups = sign_test(_by_group(before, before.by_case, both), _by_group(before, now, both))
    less = p <= ALPHA / tries
    nothing_left = not after.above or not any(after.by_case.values())
    passed = after.verdict.outcome is Outcome.PASS or not any(after.by_case.values())
    passes = before.fails and passed
    enough = ONE_OF * len(before.by_case.keys() & after.silent) <= len(before.by_case)
    return Effect(
        before=before.verdict.estimate,
        after=after.verdict.estimate,
        n=len(both),
        groups=groups,
        p=p,
        gone=enough and ((passes and p <= ALPHA) or (less and nothing_left)),
        less=less,
    )


def _same(before: Drift, after: Drift, case: str) -> bool:
    """Whether a case's distance is another one by no more than noise."""
    then, now = before.by_case[case], after.by_case[case]
    if before.verdict.kind.startswith("text") and (then == 0.0) != (now == 0.0):
        return False  # a late fork is a small number, and a fork for all that
    return abs(then - now) <= before.noise


def _by_group(drift: Drift, by_case: Mapping[str, float], cases: Collection[str]) -> dict[str, float]:
    """Return how far the answers to some cases are apart on average, by group."""
    values: dict[str, list[float]] = defaultdict(list)
    for case in cases:
        values[drift.groups.get(case, case)].append(by_case[case])
    return {group: statistics.fmean(of_group) for group, of_group in values.items()}
