"""The share of cases that keep a contract: exact binomial bounds, and how many cases they need."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Final

from pytest_llmparity.core.late import special
from pytest_llmparity.core.stats.bounds import Bounds, check_alpha, smallest_total
from pytest_llmparity.core.stats.cluster import clustered_ratio, t_quantile

UNEQUAL: Final = 0.2
"""Correlation that is taken for granted within groups as far as their sizes differ (tests/core/checks)."""


def clopper_pearson(k: float, n: float, alpha: float) -> tuple[float, float]:
    """Return exact one-sided bounds of a share where ``k`` of ``n`` were seen (Clopper, Pearson 1934).

    Neither number need be whole, so that a share may be extrapolated to other sizes.
    """
    lower = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, alpha))
    return lower, 1.0 if k == n else float(special.betainccinv(k + 1, n - k, alpha))


def effective_cases(values: Sequence[float], groups: Sequence[Hashable], alpha: float) -> float:
    """Return how many independent cases say as much about a mean as these do, whose cases of one group go together.

    n/deff · (t(n-1)/t(G-1))² with deff what grouping makes of the mean's variance (Korn and Graubard 1998, Survey
    Methodology 24:193), at most what groups of these sizes can count for (:func:`most_effective`); where all values are
    equal nothing is known of deff, and it is G. One group counts as one case.

    Groups of other sizes are as many as equal ones would be that say as much, G = n²/Σm².
    """
    sizes = list(Counter(groups).values())
    n = len(values)
    if len(sizes) < 2:
        return 1.0
    several = _equal_groups(sizes)
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / n
    se = clustered_ratio(values, [1.0] * n, groups).se
    if variance == 0.0 or se is None:
        return float(round(several))
    deff = max(1.0, se**2 / (variance / (n - 1)))
    counted = n / deff * (t_quantile(alpha, n - 1) / t_quantile(alpha, several - 1)) ** 2
    return max(1.0, min(counted, most_effective(sizes, alpha)))


def most_effective(sizes: Sequence[int], alpha: float) -> float:
    """Return how many independent cases groups of these sizes count for at most.

    Where some are larger than others the few that hold most cases may keep a contract by chance while single cases, on
    which the variance is seen, break it seldom: so many of them are taken to answer alike as sizes differ, by a
    correlation of :data:`UNEQUAL` · (1 - G/groups). Equal groups count for n at most.

    >>> [round(most_effective(sizes, 0.05), 1) for sizes in ([5] * 30, [1] * 20 + [13] * 10, [1] * 150)]
    [142.3, 59.8, 150.0]
    """
    n, several = sum(sizes), _equal_groups(sizes)
    if several <= 1.0:
        return 1.0
    deff = 1.0 + (n / several - 1.0) * UNEQUAL * (1.0 - several / len(sizes))
    return n / deff * (t_quantile(alpha, n - 1) / t_quantile(alpha, several - 1)) ** 2


def _equal_groups(sizes: Sequence[int]) -> float:
    """Return how many groups of one size say as much as groups of these sizes."""
    return sum(sizes) ** 2 / sum(size * size for size in sizes)


def rate(k: float, n: float, *, at_least: float, alpha: float = 0.05) -> Bounds:
    """Judge the share ``k/n`` of cases that keep a contract against ``at_least``, by Clopper and Pearson.

    Neither number need be whole: cases that go together count for fewer independent ones (:func:`effective_cases`).

    ``lower > at_least`` exactly when ``p_pass < alpha``, ``upper < at_least`` exactly when ``p_fail < alpha``.
    ``at_least=1`` can be failed but never passed: no number of cases shows that none will ever break it. Raises
    ``ValueError`` for impossible counts, ``at_least`` outside 0..1 or an alpha outside 0..0.5.
    """
    if not (0 <= k <= n and n > 0):
        raise ValueError(f"{k} of {n} cases is impossible")
    check_alpha(alpha)
    if not 0.0 < at_least <= 1.0:
        raise ValueError(f"a rate lies above 0 and at most at 1, not {at_least!r}")
    lower, upper = clopper_pearson(k, n, alpha)
    at_most, more = binomial_tails(k, n, at_least)
    return Bounds(estimate=k / n, lower=lower, upper=upper, p_pass=more, p_fail=at_most)


def binomial_tails(k: float, n: float, share: float) -> tuple[float, float]:
    """Return the chance of at most ``k`` of ``n`` at this share, and of at least ``k``; neither need be whole."""
    at_most = 1.0 if k == n else float(special.betaincc(k + 1, n - k, share))
    return at_most, 1.0 if k == 0 else float(special.betainc(k, n - k + 1, share))


def least_perfect(at_least: float, alpha: float) -> int | None:
    """Return how many cases, all kept, show that at least this share is (59 for 0.95); ``None`` when none can (1.0).

    >>> least_perfect(0.95, 0.05), least_perfect(0.98, 0.05), least_perfect(1.0, 0.05)
    (59, 149, None)
    """
    if at_least >= 1.0:
        return None
    n = max(1, math.floor(math.log(alpha) / math.log(at_least)))
    while at_least**n >= alpha:
        n += 1
    return n


def share_needed(kept: float, n: float, at_least: float, alpha: float) -> int | None:
    """Return how many cases in all would settle a share that stays as it is; ``None`` when no number in reach does."""

    def settles(total: int) -> bool:  # by p-values, which say what bounds say and are computed faster
        return min(binomial_tails(total if kept == n else kept / n * total, total, at_least)) < alpha

    return smallest_total(math.ceil(n), settles)
