"""Whether drift between engines exceeds what the baseline differs from itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_llmparity.core.late import np

EXACT_GROUPS = 12
"""Up to this many groups every assignment of signs is tried (4,096 at most)."""
FLIPS = 9_999


@dataclass(frozen=True, slots=True, kw_only=True)
class ExcessResult:
    """Mean of cross minus own drift per case, and the one-sided p-value of "cross is no more than own".

    ``groups`` counts what was permuted: groups, or cases where all belong to one group.
    """

    estimate: float
    p: float
    groups: int


def excess(cross: Sequence[float], own: Sequence[float], groups: Sequence[str], alpha: float = 0.05) -> ExcessResult:
    """Compare drift to another engine with the baseline's drift from itself, case by case.

    ``cross`` and ``own`` hold each case's contribution (for the hazard: forks per token at risk, in one common unit).
    If the other engine were just another copy of the baseline, the two numbers of a group could be swapped; so the test
    flips the signs of the groups' total differences: all 2^G of them up to 12 groups that differ, else 9,999 seeded
    random ones. It assumes no distribution, and few groups cannot make a small p-value: at least 1/2^G. Nothing there
    to compare gives p 1. ``alpha`` must be one the random flips can resolve. Raises ``ValueError`` for lengths that
    differ or numbers that are not finite.
    """
    if not 1.0 / (FLIPS + 1) < alpha < 0.5:
        raise ValueError(f"alpha lies between {1 / (FLIPS + 1):g} and 0.5, not {alpha!r}")
    differences = [a - b for a, b in zip(cross, own, strict=True)]
    if any(not math.isfinite(value) for value in differences):
        raise ValueError("drift per case must be finite")
    if not differences:
        return ExcessResult(estimate=0.0, p=1.0, groups=0)
    several = len(set(groups)) > 1
    totals: dict[object, list[float]] = {}
    for index, (difference, group) in enumerate(zip(differences, groups, strict=True)):
        totals.setdefault(group if several else index, []).append(difference)
    sums = np.array([math.fsum(parts) for parts in totals.values()])
    estimate = math.fsum(differences) / len(differences)
    return ExcessResult(estimate=estimate, p=_sign_flip_p(sums[sums != 0.0]), groups=len(sums))


def _sign_flip_p(sums: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """Return the share of sign assignments whose sum is at least the observed one."""
    if sums.size == 0:
        return 1.0
    seen = float(sums.sum())
    slack = 1e-9 * float(np.abs(sums).sum())  # the same sum in another order must count as a tie
    if sums.size <= EXACT_GROUPS:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=sums.size)))
        return float(np.mean(signs @ sums >= seen - slack))
    rng = np.random.default_rng(0)
    signs = rng.choice(np.array([1.0, -1.0]), size=(FLIPS, sums.size))
    return (1 + int(np.count_nonzero(signs @ sums >= seen - slack))) / (FLIPS + 1)
