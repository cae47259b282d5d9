"""The share of cases that keep a contract: exact binomial bounds, and how many cases they need."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from pytest_llmparity.core.late import special
from pytest_llmparity.core.stats.bounds import Bounds, check_alpha, smallest_total
from pytest_llmparity.core.stats.cluster import clustered_ratio, t_quantile


def clopper_pearson(k: float, n: float, alpha: float) -> tuple[float, float]:
    """Return exact one-sided bounds of a share where ``k`` of ``n`` were seen (Clopper, Pearson 1934).

    Neither number need be whole, so that a share may be extrapolated to other sizes.
    """
    lower = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, alpha))
    return lower, 1.0 if k == n else float(special.betainccinv(k + 1, n - k, alpha))


def effective_cases(values: Sequence[float], groups: Sequence[Hashable], alpha: float) -> float:
    """Return how many independent cases say as much about a mean as these do, whose cases of one group go together.

    n/deff · (t(n-1)/t(G-1))² with deff what grouping makes of the mean's variance (Korn and Graubard 1998, Survey
    Methodology 24:193), at most n; where all values are equal nothing is known of it, and it is G. One group counts as
    one case.
    """
    n, several = len(values), len(set(groups))
    if several < 2:
        return 1.0
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / n
    se = clustered_ratio(values, [1.0] * n, groups).se
    if variance == 0.0 or se is None:
        return float(several)
    deff = max(1.0, se**2 / (variance / (n - 1)))
    return max(1.0, n / deff * (t_quantile(alpha, n - 1) / t_quantile(alpha, several - 1)) ** 2)


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
