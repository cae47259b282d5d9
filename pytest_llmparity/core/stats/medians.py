"""The median of what groups of prompts say, by the sign test: exact whatever the values' distribution.

A group is above or below a limit, each with a chance of one half if the limit is the median. So the p-value is a
binomial tail, and the bounds are order statistics (Conover, *Practical Nonparametric Statistics*, 3rd ed., sections 3.1
and 3.2). In a sequential run the same question, *are most groups below*, is bet on; see ``sequential``.

Of a value that is known only to lie between two numbers, the larger one counts for PASS and the smaller for FAIL.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from pytest_llmparity.core.stats import sequential
from pytest_llmparity.core.stats.bounds import Bounds, check_alpha, smallest_total
from pytest_llmparity.core.stats.shares import binomial_tails

HALF = 0.5


def median(most: Sequence[float], least: Sequence[float], *, margin: float, alpha: float = 0.05) -> Bounds:
    """Return bounds of the median of values, each between ``least`` and ``most``, and p-values at ``margin``.

    There is one value of each group. With fewer than can settle anything (five at 5 %) the bounds are 0 and infinite.
    The estimate is the median of ``most``, of ``least`` where that is infinite. Raises ``ValueError`` for no value at
    all, a margin that is not positive or an alpha outside 0..0.5.
    """
    n = len(most)
    _check(n, len(least), margin, alpha)
    enough = _enough(n, alpha)
    below, above = sum(value < margin for value in most), sum(value > margin for value in least)
    return Bounds(
        estimate=_estimate(most, least),
        lower=sorted(least, reverse=True)[enough - 1] if enough is not None else 0.0,
        upper=sorted(most)[enough - 1] if enough is not None else float("inf"),
        p_pass=binomial_tails(below, n, HALF)[1],
        p_fail=binomial_tails(above, n, HALF)[1],
    )


def sign_test(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[float, int]:
    """Return the one-sided exact p-value of "drift is not less after than before", and how many cases have both.

    Cases that are equal in both count for neither side.

    >>> sign_test({"a": 1.0, "b": 1.0, "c": 0.5, "d": 0.0}, {"a": 0.0, "b": 0.5, "c": 0.0, "d": 0.0})
    (0.125, 4)
    """
    both = [(before[case], after[case]) for case in before if case in after]
    fell, rose = sum(a > b for a, b in both), sum(a < b for a, b in both)
    if not fell + rose:
        return 1.0, len(both)
    return binomial_tails(fell, fell + rose, HALF)[1], len(both)


def median_sequential(
    most: Sequence[float], least: Sequence[float], *, margin: float, alpha: float = 0.05
) -> sequential.SequentialResult:
    """Hold the median of values as they come against ``margin``, by evidence that holds whenever one stops."""
    n = len(most)
    _check(n, len(least), margin, alpha)

    below, above = [value < margin for value in most], [value > margin for value in least]
    p_pass, p_fail = sequential.most_are(below), sequential.most_are(above)
    upper = _first(sorted(set(most)), lambda limit: sequential.most_are([value <= limit for value in most]) <= alpha)
    lower = _first(
        sorted(set(least), reverse=True),
        lambda limit: sequential.most_are([value >= limit for value in least]) <= alpha,
    )
    passed, failed = p_pass <= alpha, p_fail <= alpha
    if passed and failed:  # prompts came in no exchangeable order: what was shown first stands
        passed = sequential.most_after(below, alpha) < sequential.most_after(above, alpha)
        failed = not passed
    further = [] if passed or failed else [sequential.units_for_most(side, alpha) for side in (below, above)]
    return sequential.SequentialResult(
        estimate=_estimate(most, least),
        lower=0.0 if lower is None else lower,
        upper=float("inf") if upper is None else upper,
        p_pass=p_pass,
        p_fail=p_fail,
        n=n,
        passed=passed,
        failed=failed,
        needed=min((count for count in further if count is not None), default=None),
    )


def groups_needed(most: Sequence[float], least: Sequence[float], *, margin: float, alpha: float) -> int | None:
    """Return how many groups in all would settle a median, if as many of them lie on either side as did so far."""
    n = len(most)
    shares = (sum(value < margin for value in most) / n, sum(value > margin for value in least) / n)

    def settles(total: int) -> bool:
        return any(binomial_tails(round(share * total), total, HALF)[1] < alpha for share in shares)

    return smallest_total(n, settles) if max(shares) > HALF else None


def least_groups(alpha: float, *, sequential_run: bool = False) -> int:
    """Return the fewest groups that can settle a median, all of them on one side (5 at 5 %)."""
    check_alpha(alpha)
    if sequential_run:
        least = sequential.least_units(HALF, most=1.0, alpha=alpha)
        assert least is not None
        return least
    n = 1
    while HALF**n >= alpha:
        n += 1
    return n


def _estimate(most: Sequence[float], least: Sequence[float]) -> float:
    above = statistics.median(most)
    return above if above != float("inf") else statistics.median(least)


@cache
def _enough(n: int, alpha: float) -> int | None:
    """Return the fewest of ``n`` values on one side that show the median to lie there, ``None`` when not even all."""
    return next((count for count in range(n // 2, n + 1) if binomial_tails(count, n, HALF)[1] < alpha), None)


def _first(limits: Sequence[float], shown: Callable[[float], bool]) -> float | None:
    """Return the first of these limits that is shown; whatever follows one that is shown is shown too."""
    place = bisect_left(limits, True, key=shown)
    return limits[place] if place < len(limits) else None


def _check(n: int, others: int, margin: float, alpha: float) -> None:
    check_alpha(alpha)
    if n < 1 or others != n:
        raise ValueError(f"a median takes values, each with its least and its most: not {n} and {others}")
    if not margin > 0.0:
        raise ValueError(f"a margin of a median is positive, not {margin!r}")
