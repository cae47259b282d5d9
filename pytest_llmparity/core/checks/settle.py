"""The family rule: what becomes of the verdicts of one test once all of them are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pytest_llmparity.core.stats.multiple import holm
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain


def settle(verdicts: Sequence[Verdict], alpha: float, *, to_come: int = 0) -> list[Verdict]:
    """Return the verdicts of one test item (its checks times its candidates), in order, as they count.

    A test passes only if all of them pass, so PASS needs no correction (intersection-union). A FAIL must survive Holm's
    correction over every verdict that was tested, or it becomes INCONCLUSIVE; so the chance that a test with nothing
    wrong fails is at most ``alpha`` however many checks and engines it has. Exact findings are not tests: untouched.
    ``to_come`` counts verdicts of the family that are not there yet: what fails now will then fail with them too.
    """
    tested = [index for index, verdict in enumerate(verdicts) if verdict.p_fail is not None]
    adjusted = holm([*(p for verdict in verdicts if (p := verdict.p_fail) is not None), *[1.0] * to_come])
    settled = list(verdicts)
    for index, p in zip(tested, adjusted, strict=False):
        verdict = settled[index]
        if verdict.outcome is not Outcome.FAIL or p < min(alpha, verdict.alpha):
            continue
        others = explain.count(len(tested) - 1, "other judgement")
        reason = f"alone it would fail, but with {others} in this test that happens too often by chance"
        if verdict.reason:
            reason = f"{verdict.reason}; {reason}"
        changed = dataclasses.replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason)
        settled[index] = dataclasses.replace(changed, message=explain.headline(changed))
    return settled
