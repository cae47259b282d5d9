"""Shares of cases judged against what is asked of them, and how many cases would settle what they leave open."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from scipy.stats import beta

from pytest_llmparity.core.checks.sequence import numbers
from pytest_llmparity.core.evidence import Evidence
from pytest_llmparity.core.stats.paired import Side, rate, score_interval
from pytest_llmparity.core.stats.sequential import least_units, share
from pytest_llmparity.core.stats.totals import smallest_total
from pytest_llmparity.core.verdict import Outcome


def judge_cases(kept: Sequence[bool | None], *, at_least: float, evidence: Evidence) -> dict[str, Any]:
    """Return the verdict fields that follow from which cases are kept, in their order, like :func:`judge_share`.

    ``None`` stands for a case that says nothing: it was asked, and counts neither way. In a sequential run bounds and
    p-values are sequential.
    """
    telling = [keeps for keeps in kept if keeps is not None]
    if evidence.single or not evidence.sequential or not telling:
        return judge_share(sum(telling), len(telling), at_least=at_least, evidence=evidence)
    changes: dict[str, Any] = {"unit": "share", "margin": at_least, "side": "at_least", "n": len(telling)}
    found = share(telling, at_least=at_least, alpha=evidence.alpha)
    return changes | numbers(found, evidence, asked=len(kept))


def proven(kept: Sequence[bool | None], *, at_least: float, evidence: Evidence) -> float | None:
    """Return the p-value of a FAIL that stands even if every case that says nothing is kept, ``None`` if none does."""
    if evidence.single:
        return None
    best = judge_cases([keeps is not False for keeps in kept], at_least=at_least, evidence=evidence)
    return float(best["p_fail"]) if best["outcome"] is Outcome.FAIL else None


def judge_share(kept: int, n: int, *, at_least: float, evidence: Evidence) -> dict[str, Any]:
    """Return the verdict fields that follow from ``kept`` of ``n`` cases where ``at_least`` (a share) is asked.

    Exact binomial bounds. Of a single question only the outcome is said; of no case at all nothing is.
    """
    changes: dict[str, Any] = {"unit": "share", "margin": at_least, "side": "at_least", "n": n}
    if n == 0:
        return changes | {"outcome": Outcome.INCONCLUSIVE}
    if evidence.single:
        outcome = Outcome.PASS if kept == n else Outcome.FAIL
        return changes | {"outcome": outcome, "estimate": kept / n, "reason": "single"}
    result = rate(kept, n, at_least=at_least, alpha=evidence.alpha)
    changes |= dataclasses.asdict(result)
    if result.lower > at_least:
        return changes | {"outcome": Outcome.PASS}
    if result.upper < at_least:
        return changes | {"outcome": Outcome.FAIL}
    return changes | {"outcome": Outcome.INCONCLUSIVE, "needed": share_needed(kept, n, at_least, evidence.alpha)}


def least_perfect(at_least: float, alpha: float, *, sequential: bool = False) -> int | None:
    """Return how many cases, all kept, show that at least this share is (59 for 0.95); ``None`` when none can (1.0).

    >>> least_perfect(0.95, 0.05), least_perfect(0.98, 0.05), least_perfect(1.0, 0.05)
    (59, 149, None)
    """
    if at_least >= 1.0:
        return None
    if sequential:
        return least_units(1.0 - at_least, most=1.0, alpha=alpha)
    n = max(1, math.ceil(math.log(alpha) / math.log(at_least)))
    return n if at_least**n < alpha else n + 1


def share_needed(kept: int, n: int, at_least: float, alpha: float) -> int | None:
    """Return how many cases in all would settle a share that stays as it is; ``None`` when no number in reach does."""

    def settles(total: int) -> bool:
        k = kept / n * total
        lower = 0.0 if k == 0 else float(beta.ppf(alpha, k, total - k + 1))
        upper = 1.0 if kept == n else float(beta.isf(alpha, k + 1, total - k))
        return lower > at_least or upper < at_least

    return smallest_total(n, settles)


def gap_needed(b: int, c: int, n: int, margin: float, alpha: float, side: Side) -> int | None:
    """Return how many cases in all would settle a gap that stays as it is, by Tango's asymptotic interval."""

    def settles(total: int) -> bool:
        factor = total / n
        lower, upper = score_interval(round(b * factor), round(c * factor), total, 2 * alpha)
        if side == "worse":
            return upper < margin or lower > margin
        return max(upper, -lower) < margin or lower > margin or -upper > margin

    return smallest_total(n, settles)
