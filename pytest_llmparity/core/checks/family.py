"""What becomes of verdicts once their checks have judged: what they rest on is named, and one test is one family."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from pytest_llmparity.core.checks.base import worded
from pytest_llmparity.core.checks.missing import COUNTING, JUDGED, Missing
from pytest_llmparity.core.evidence import Evidence
from pytest_llmparity.core.sample import MOVED
from pytest_llmparity.core.verdict import READER, LeftOut, Lenience, Outcome, Verdict
from pytest_llmparity.core.words import explain

WEIGHTS: Final = {"text": 1.8, "text.repeat": 0.2}
"""How verdicts share the error rate of a test; others have 1. Whether a candidate repeats itself is seldom in doubt, so
most of what the two verdicts of a text check share belongs to drift from the baseline."""


def settle(verdicts: Sequence[Verdict], alpha: float, *, to_come: float = 0.0) -> list[Verdict]:
    """Return the verdicts of one test item (its checks times its candidates), in order, as they count.

    A test passes only if all of them pass, so PASS needs no correction (intersection-union). A FAIL must survive Holm's
    weighted correction over every verdict that was tested, or it becomes INCONCLUSIVE; so the chance that a test with
    nothing wrong fails is at most ``alpha`` however many checks and engines it has. Exact findings are not tests:
    untouched.
    ``to_come`` is the weight of verdicts of the family that are not there yet: what fails now will then fail with them
    too.
    """
    tested = [index for index, verdict in enumerate(verdicts) if verdict.p_fail is not None]
    known = [
        (p, weight)
        for verdict, weight in zip(verdicts, weights_of(verdicts), strict=True)
        if (p := verdict.p_fail) is not None
    ]
    unknown = [(1.0, to_come)] if to_come else []
    adjusted = holm([p for p, _ in (*known, *unknown)], [weight for _, weight in (*known, *unknown)])
    settled = list(verdicts)
    for index, p in zip(tested, adjusted, strict=False):
        verdict = settled[index] = dataclasses.replace(settled[index], p_family=p, family=len(tested))
        if verdict.outcome is not Outcome.FAIL or p < min(alpha, verdict.alpha):
            continue
        others = explain.count(len(tested) - 1, "other judgement")
        reason = f"alone it would fail, but with {others} in this test that happens too often by chance"
        if verdict.reason:
            reason = f"{verdict.reason}; {reason}"
        settled[index] = worded(dataclasses.replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason))
    return settled


def weights_of(verdicts: Sequence[Verdict]) -> list[float]:
    """Return the weights of verdicts in their family: 1 on average of those on all prompts.

    The verdicts on tags of one check on one engine share as much as the one on all prompts has.
    """
    sharing = Counter(_on_tags(verdict) for verdict in verdicts if verdict.tag)
    return [WEIGHTS.get(v.quantity, 1.0) / (sharing[_on_tags(v)] if v.tag else 1) for v in verdicts]


def _on_tags(verdict: Verdict) -> tuple[str | None, ...]:
    """Return what verdicts on the tags of one check on one engine have in common."""
    return verdict.check, verdict.where, verdict.quantity, verdict.engine, verdict.baseline


def holm(p: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """Return Holm's adjusted p-values in the order given: reject those at most alpha, family-wise error at most alpha.

    A test's share of alpha goes by its weight, all alike where none are given. Valid whatever the dependence between
    the tests (Holm 1979, Scand J Stat 6:65, section 4 for weights). Raises ``ValueError`` for a p-value outside 0..1,
    or a weight that is not positive.
    """
    weights = [1.0] * len(p) if weights is None else weights
    if len(weights) != len(p) or not all(weight > 0.0 for weight in weights):
        raise ValueError(f"{len(p)} p-values take as many positive weights, not {list(weights)}")
    for value in p:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"a p-value lies in 0..1, not {value!r}")
    adjusted = [0.0] * len(p)
    worst = 0.0
    order = sorted(range(len(p)), key=lambda index: p[index] / weights[index])
    for rank, index in enumerate(order):
        left = math.fsum(weights[other] for other in order[rank:])
        worst = max(worst, min(1.0, left / weights[index] * p[index]))
        adjusted[index] = worst
    return adjusted


def without_left_out(verdict: Verdict, evidence: Evidence, *, required: bool = False) -> Verdict:
    """Return the verdict with the prompts that one of its engines cannot be asked named, whatever its outcome.

    Where they are more than 5 % of the set, a statistical PASS or FAIL and an exact PASS become INCONCLUSIVE: they
    speak for other prompts than were declared. Checks that count them among what is missing have judged that
    themselves. Where nothing is left the check is SKIPPED, an ERROR if ``required``.
    """
    names = (verdict.baseline, verdict.engine)
    engines = [evidence.engines[name] for name in names if name is not None and name in evidence.engines]
    missing = {case: (engine.name, why) for engine in reversed(engines) for case, why in engine.left_out.items()}
    if not missing or any(engine.error or engine.incomparable or engine.lacking for engine in engines):
        return verdict
    by_reason: dict[tuple[str, str], list[str]] = {}
    cases = [
        case
        for case in evidence.prompts.cases
        if (not verdict.tag or verdict.tag in case.tags) and (not verdict.arm or verdict.arm == case.arm)
    ]
    for case in cases:
        if case.id in missing:
            by_reason.setdefault(missing[case.id], []).append(case.id)
    if not by_reason:
        return verdict
    left_out = tuple(LeftOut(engine=e, reason=why, cases=tuple(ids)) for (e, why), ids in by_reason.items())
    verdict = dataclasses.replace(verdict, left_out=left_out)
    total, lost = len(cases), sum(len(part.cases) for part in left_out)
    first = left_out[0].reason
    if lost == total:
        outcome = Outcome.ERROR if required else Outcome.SKIPPED
        wanted = ", and --parity-required asks for a verdict" if required else ""
        reason = f"no prompt is left that both engines can be asked; first: {first}{wanted}"
        return worded(dataclasses.replace(verdict, outcome=outcome, reason=reason, estimate=None))
    exact_failure = verdict.outcome is Outcome.FAIL and verdict.p_fail is None
    enough = Missing(of=total, used=total - lost).enough
    if verdict.quantity in COUNTING or enough or exact_failure or verdict.outcome not in JUDGED:
        return verdict
    left = explain.count(lost, "prompt")
    before = verdict.reason if verdict.outcome is Outcome.INCONCLUSIVE else ""
    rests = f"it rests on {total - lost} of {explain.count(total, 'prompt')}: {left} left out: {first}"
    reason = "; ".join(filter(None, [before, rests]))
    taken_back = dataclasses.replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason)
    return worded(dataclasses.replace(taken_back, needed=None, advice="", open=False))


def with_notes(verdict: Verdict, evidence: Evidence) -> Verdict:
    """Return the verdict with what the reader put right in the answers it rests on, by engine.

    What a schema check counts itself is not counted again, nor is what stands with the verdict on all prompts.
    """
    if verdict.tag:
        return verdict
    names = [name for name in (verdict.baseline, verdict.engine) if name is not None and name in evidence.engines]
    of_schema = verdict.kind.startswith("schema")
    remarks = [remark for name in names for remark in _put_right(name, evidence, of_schema=of_schema)]
    return dataclasses.replace(verdict, lenience=(*verdict.lenience, *remarks)) if remarks else verdict


def _put_right(name: str, evidence: Evidence, *, of_schema: bool) -> Iterable[Lenience]:
    answers = evidence.engines[name].answers()
    remarks = Counter(
        remark for answer in answers.values() if answer.normalised for remark in dict.fromkeys(answer.normalised)
    )
    for remark, count in remarks.items():
        if not (of_schema and remark.endswith(MOVED)):
            yield Lenience(engine=name, what=f"{READER}: {remark}", count=count, of=len(answers), accepted=True)
