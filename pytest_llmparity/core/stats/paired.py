"""Contracts kept or broken: the gap between two engines asked the same cases.

Of ``n`` cases, ``b`` are kept by the baseline only and ``c`` by the candidate only; the gap is (b - c)/n. Only an
unconditional test judges it at the stated error rate: exact probabilities of (b, c), cases ordered by
Tango's score (Tango 1998, Stat Med 17:891), the p-value maximised over the one parameter the hypothesis leaves open
(Hsueh, Liu, Chen 2001, Biometrics 57:478; Fagerland, Lydersen, Laake 2014, Stat Med 33:2850). See ``unconditional``.
"""

from __future__ import annotations

import functools
import math
from typing import Literal

from pytest_llmparity.core.late import special
from pytest_llmparity.core.stats.bounds import Bounds, check_alpha, nearest_rejected, smallest_total
from pytest_llmparity.core.stats.unconditional import OneSided, TwoSided, score_at, tango_score

__all__ = ["Side", "gap", "gap_needed", "min_cases", "score_at", "score_interval", "tango_score"]

Side = Literal["either", "worse"]


@functools.lru_cache(maxsize=256)
def gap(b: int, c: int, n: int, *, margin: float, alpha: float = 0.05, side: Side = "either") -> Bounds:
    """Judge the gap between two engines on the same ``n`` cases against ``margin`` (a share: 0.05 is 5 points).

    ``side="worse"``: the gap is (b - c)/n, a better candidate never fails. ``side="either"``: it is |b - c|/n; PASS
    needs both directions below the margin, and for FAIL the chances of wrongly failing in either direction are added
    up, so that both kinds of error keep to ``alpha``. Bounds invert the same tests, to a hundredth of a point; as
    p-values of exact tests rise and fall a little with the margin, a bound is one point where they cross alpha, and the
    p-values at the margin are what decides. Raises ``ValueError`` for impossible counts, a margin outside 0..1 or an
    alpha outside 0..0.5.
    """
    _check_counts(b, c, n)
    check_alpha(alpha)
    if not 0.0 < margin < 1.0:
        raise ValueError(f"a margin lies between 0 and 1 (5 points are 0.05), not {margin!r}")
    if side == "either":
        b, c = max(b, c), min(b, c)
    below = OneSided(b, c, n, tail="below")
    above = TwoSided(b, c, n) if side == "either" else OneSided(b, c, n, tail="above")
    estimate = (b - c) / n
    p_pass, p_fail = below.p(margin), above.p(margin)
    floor = 0.0 if side == "either" else -1.0
    if p_pass < alpha:
        upper = _search(below, alpha, inside=max(estimate, floor), outside=margin)
    else:
        upper = _search(below, alpha, inside=max(estimate, margin), outside=1.0)
    if p_fail < alpha:
        lower = _search(above, alpha, inside=estimate, outside=margin)
    else:
        lower = _search(above, alpha, inside=min(estimate, margin), outside=floor)
    return Bounds(estimate=estimate, lower=lower, upper=upper, p_pass=p_pass, p_fail=p_fail)


def _search(test: OneSided | TwoSided, alpha: float, *, inside: float, outside: float) -> float:
    """Find where the p-value falls below alpha on the way from ``inside`` (not rejected) to ``outside``.

    A gap of 0 (for an absolute gap) is returned when even that is not rejected; gaps of -1 and 1 are rejected unless
    every case says so.
    """
    if outside == 0.0 and not test.rejects(outside, alpha):
        return outside
    return nearest_rejected(lambda delta: test.rejects(delta, alpha), kept=inside, rejected=outside)


def score_interval(b: int, c: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Return Tango's two-sided asymptotic interval of (b - c)/n at level 1 - alpha, for display beside exact results.

    The solutions of ``tango_score(b, c, n, delta) = ±z``. R's ``PropCIs::scoreci.mp(c, b, n)`` gives the same numbers
    (its argument names are the other way round). Raises ``ValueError`` for impossible counts or alpha outside 0..1.
    """
    _check_counts(b, c, n)
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha lies between 0 and 1, not {alpha!r}")
    z = -float(special.ndtri(alpha / 2))
    estimate = (b - c) / n

    def solve(target: float, outside: float) -> float:
        inside = estimate
        for _ in range(64):  # down to the last bit of a double
            middle = (inside + outside) / 2
            if abs(score_at(b, c, n, middle)) < target:
                inside = middle
            else:
                outside = middle
        return outside

    return solve(z, -1.0), solve(z, 1.0)


@functools.lru_cache(maxsize=64)
def min_cases(margin: float, alpha: float) -> int:
    """Return the fewest cases with which a gap test can pass at all: without one discordant case (59 at 5 points)."""
    check_alpha(alpha)
    if not 0.0 < margin < 1.0:
        raise ValueError(f"a margin lies between 0 and 1 (5 points are 0.05), not {margin!r}")
    n = max(1, math.ceil(math.log(alpha) / math.log1p(-margin)))
    while not OneSided(0, 0, n, tail="below").rejects(margin, alpha):
        n += 1
    return n


def gap_of_effective(
    b: int, c: int, n: int, *, effective: float, margin: float, alpha: float = 0.05, side: Side = "either"
) -> Bounds:
    """Judge a gap of which ``n`` cases that go together count for ``effective`` independent ones.

    The exact test takes whole numbers, so discordant cases are rounded against each side: up against PASS, down against
    FAIL. Raises what :func:`gap` raises.
    """
    _check_counts(b, c, n)
    total = max(1, math.floor(effective))
    if side == "either":
        b, c = max(b, c), min(b, c)
    more, less = b * total / n, c * total / n
    passing = gap(math.ceil(more), math.floor(less), total, margin=margin, alpha=alpha, side=side)
    fewer = min(math.floor(more), total - math.ceil(less))
    failing = gap(fewer, math.ceil(less), total, margin=margin, alpha=alpha, side=side)
    return Bounds(
        estimate=(b - c) / n,
        lower=min(failing.lower, (b - c) / n),
        upper=max(passing.upper, (b - c) / n),
        p_pass=passing.p_pass,
        p_fail=failing.p_fail,
    )


def gap_needed(b: float, c: float, n: int, margin: float, alpha: float, side: Side) -> int | None:
    """Return how many cases in all, more than ``n``, would settle a gap that stays as it is, by Tango's interval.

    ``b`` and ``c`` need not be whole: cases that go together count for fewer. They are rounded against each side then,
    as :func:`gap_of_effective` rounds them.
    """
    whole = float(b).is_integer() and float(c).is_integer()
    if side == "either" and not whole:
        b, c = max(b, c), min(b, c)

    def settles(total: int) -> bool:
        more, less = b * total / n, c * total / n
        most_more = round(more) if whole else math.ceil(more)
        # Two halves may both go up, beyond all cases there are.
        against_pass = against_fail = (most_more, min(round(less) if whole else math.floor(less), total - most_more))
        if not whole:
            against_fail = (min(math.floor(more), total - math.ceil(less)), math.ceil(less))
        least, most = score_interval(*against_pass, total, 2 * alpha)
        lower, upper = score_interval(*against_fail, total, 2 * alpha)
        if side == "worse":
            return most < margin or lower > margin
        return max(most, -least) < margin or lower > margin or -upper > margin

    return smallest_total(n + 1, settles)


def _check_counts(b: int, c: int, n: int) -> None:
    if b < 0 or c < 0 or n < 1 or b + c > n:
        raise ValueError(f"{b} + {c} discordant of {n} cases is impossible")
