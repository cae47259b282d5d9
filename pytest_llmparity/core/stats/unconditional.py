"""Exact unconditional tests of a difference of paired proportions, ordered by Tango's score.

Write p_b and p_c for the chances of the two kinds of discordant case. A null hypothesis fixes their difference
``delta`` and leaves p_c open; the p-value is the largest probability, over every p_c, of a table at least as extreme as
the one seen.

*The tail.* For each c the tail "below" holds every b up to a limit that grows with c (Barnard's convexity). Tango's
score has this shape; the limits are forced into it, which can only enlarge the tail. Then the chance of the tail falls
with p_b and rises with p_c, so its largest value over "gap at least delta" lies at the edge, gap = delta.

*The maximum.* Along the edge only p_c = q is open, between ``low`` and ``low + L``. With q = low + L (1 - cos φ)/2 the
second derivative of any tail's chance with respect to φ is at most 3nL. (It is the expectation of S² + S' over the
tail, S the score of φ; over all tables that is 0, so over the tail at most half of E[S²] + E|S'|. E[S²] is the Fisher
information n(1/p_b + 1/p_c + 4/(1 - p_b - p_c)) times (dq/dφ)², at most 2nL; E|S'| is at most that plus 4n·|d²q/dφ²|,
at most 4nL.) So between two points h apart the chance is at most the larger of both plus 3nL·h²/8. Stretches whose
bound is too loose are halved until the largest bound exceeds the largest chance by one part in two hundred and 1e-4 at
most; that bound is returned. A p-value is therefore never too small.

*Many cases.* The work grows faster than the cases. Above :data:`MANY` of them the maximum is taken over a confidence
set for q (Berger, Boos 1994, JASA 89:1012), and the chance that it misses q is added to the p-value. The set is that
of the share of discordant cases, by Clopper and Pearson: on the edge it is 2q + delta. A point inside the hypothesis
has no larger chance of the tail than the point of the edge with the same share (or with the nearest that the edge
has), so what holds on the edge holds inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pytest_llmparity.core.late import np, special
from pytest_llmparity.core.stats.shares import clopper_pearson

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from pytest_llmparity.core.late import Floats

RELATIVE, ABSOLUTE = 0.005, 1e-4
"""How far a p-value may lie above the largest probability that was actually computed: a share of it, and a bit."""
NEGLIGIBLE = 2e-13
"""Added to every probability for the terms left out: by Bernstein's inequality a binomial count lies further than
8 standard deviations + 20 from its mean with less than this probability."""
_FIRST_STEPS = 48
MANY = 1000
"""Up to so many cases the maximum is taken over every value of the open parameter."""
MISSED = 1e-6
"""Chance that a confidence set for the open parameter does not hold it; added to the p-value."""


def tango_score(b: ArrayLike, c: ArrayLike, n: int, delta: float) -> Floats:
    """Return Tango's score: by how many standard errors, taken where the gap is ``delta``, (b - c)/n lies above it.

    Positive when b - c is more than ``n * delta``. Equations (24)-(26) of Tango 1998 with the sign of delta turned;
    McNemar's (b - c)/√(b + c) at delta 0. Takes numbers or arrays. 0 where there is no discordant case and delta is 0.
    """
    b, c = np.asarray(b, dtype=np.float64), np.asarray(c, dtype=np.float64)
    linear = -b - c + (2 * n - b + c) * delta
    root = np.sqrt(np.maximum(linear * linear + 8 * n * c * delta * (1 - delta), 0.0))
    # Two forms of the same root, each without cancellation on its side of zero.
    with np.errstate(divide="ignore", invalid="ignore"):
        tame = np.where(linear + root > 0, 2 * c * delta * (1 - delta) / (linear + root), 0.0)
    restricted = np.where(linear > 0, tame, (root - linear) / (4 * n))
    variance = np.maximum(n * (2 * restricted + delta * (1 - delta)), 0.0)
    distance = b - c - n * delta
    with np.errstate(divide="ignore", invalid="ignore"):
        score: Floats = np.where(distance == 0.0, 0.0, distance / np.sqrt(variance))
    return score


def score_at(b: int, c: int, n: int, delta: float) -> float:
    """Return :func:`tango_score` of one table, to the last bit: numpy takes fifty times as long for one number."""
    linear = -b - c + (2 * n - b + c) * delta
    root = math.sqrt(max(linear * linear + 8 * n * c * delta * (1 - delta), 0.0))
    restricted = (root - linear) / (4 * n) if linear <= 0 else 2 * c * delta * (1 - delta) / (linear + root)
    variance = max(n * (2 * restricted + delta * (1 - delta)), 0.0)
    distance = b - c - n * delta
    if distance == 0.0:
        return 0.0
    return distance / math.sqrt(variance) if variance else math.copysign(math.inf, distance)


class _Tail:
    """The tables at least as extreme as (b, c) towards a small b - c, for one ``delta``: b at most a limit for each c.

    Counts c are looked at from ``first`` to ``last``: all that have a chance worth mentioning.
    """

    def __init__(self, b: int, c: int, n: int, delta: float, *, first: int, last: int) -> None:
        self._n = n
        self._least, self._last = first, last
        counts = np.arange(first, last + 1)
        self._log_choose = special.gammaln(n + 1) - special.gammaln(counts + 1) - special.gammaln(n - counts + 1)
        seen = float(tango_score(b, c, n, delta))
        seen += 1e-9 * (1 + abs(seen))  # tables with the same score belong to the tail, whatever the rounding
        low, high = np.full(len(counts), -1), n - counts
        while np.any(low < high):  # the score grows with b: find the last b inside, for every c at once
            middle = (low + high + 1) // 2
            inside = tango_score(middle, counts, n, delta) <= seen
            low, high = np.where(inside, middle, low), np.where(inside, high, middle - 1)
        self._limits = np.minimum(np.maximum.accumulate(low), n - counts)
        self._first = first + int(np.argmax(self._limits >= 0))  # no b at all belongs to the tail for smaller c

    def chance(self, p_b: Floats, p_c: Floats) -> Floats:
        """Return the probability of the tail for each pair of chances (arrays of one length)."""
        p_b, p_c = np.clip(p_b, 0.0, 1.0), np.clip(p_c, 0.0, 1.0)
        low, high = _likely(self._n, p_c)
        first = np.maximum(low, self._first)
        width = np.maximum(np.minimum(high, self._last) - first + 1, 0)
        row = np.repeat(np.arange(len(p_c)), width)
        c = np.arange(len(row)) - np.repeat(np.cumsum(width) - width, width) + first[row]
        weight = np.exp(
            self._log_choose[c - self._least] + special.xlogy(c, p_c[row]) + special.xlog1py(self._n - c, -p_c[row])
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(p_c < 1.0, np.minimum(p_b / (1.0 - p_c), 1.0), 0.0)
        inner = special.bdtr(self._limits[c - self._least].astype(np.float64), self._n - c, share[row])
        return np.bincount(row, weights=weight * inner, minlength=len(p_c)).astype(np.float64) + NEGLIGIBLE


def _likely(n: int, p: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return between which counts of ``n`` lie all that are not :data:`NEGLIGIBLE` at each of these chances."""
    mean = n * p
    reach = 8.0 * np.sqrt(mean * (1.0 - p)) + 20.0
    return (
        np.maximum(np.floor(mean - reach), 0.0).astype(np.intp),
        np.minimum(np.ceil(mean + reach), n).astype(np.intp),
    )


class _Edge:
    """The edge of a hypothesis, gap = ``delta``: what is left open there, p_c, lies between ``low`` and ``high``."""

    def __init__(self, b: int, c: int, n: int, delta: float) -> None:
        self._n, self._delta = n, delta
        self._low, self._high = max(0.0, -delta), (1.0 - delta) / 2
        self._from, self._to, self._missed = self._low, self._high, 0.0
        if n > MANY:
            self._missed = MISSED
            for_discordant = clopper_pearson(b + c, n, MISSED / 2)
            self._from, self._to = (min(max((share - delta) / 2, self._low), self._high) for share in for_discordant)

    def tail(self, b: int, c: int, *, mirrored: bool = False) -> _Tail:
        """Return the tail of (b, c) with all counts that matter here; ``mirrored``: for gaps of -delta too."""
        ends = np.array([self._from, self._to + (self._delta if mirrored else 0.0)])
        low, high = _likely(self._n, np.clip(ends, 0.0, 1.0))
        delta = -self._delta if mirrored else self._delta
        return _Tail(b, c, self._n, delta, first=int(low.min()), last=int(high.max()))

    def maximum(self, chance: Callable[[Floats], Floats], alpha: float | None) -> float:
        """Return the largest value of ``chance``, rounded up by a two-hundredth and 1e-4 at most.

        With ``alpha`` the search stops as soon as it is known on which side of alpha the maximum lies.
        """
        length, low = self._high - self._low, self._low
        alpha = None if alpha is None else alpha - self._missed
        start, end = (math.acos(1.0 - 2.0 * (q - low) / length) for q in (self._from, self._to))
        step = (end - start) / _FIRST_STEPS
        points = np.linspace(start, end, _FIRST_STEPS + 1)
        values = chance(low + length * (1.0 - np.cos(points)) / 2)
        left, at_left, at_right = points[:-1], values[:-1], values[1:]
        best, settled = float(values.max()), 0.0
        while True:
            bounds = np.maximum(at_left, at_right) + 3 * self._n * length * step * step / 8
            ceiling = max(settled, float(bounds.max(initial=best)))
            loose = bounds > best * (1 + RELATIVE) + ABSOLUTE
            known = alpha is not None and (best >= alpha or ceiling < alpha)
            if known or best >= 1.0 or not np.any(loose):
                return min(ceiling + self._missed, 1.0)
            settled = max(settled, float(bounds[~loose].max(initial=0.0)))
            step /= 2
            left, at_left, at_right = left[loose], at_left[loose], at_right[loose]
            middle = chance(low + length * (1.0 - np.cos(left + step)) / 2)
            best = max(best, float(middle.max()))
            left = np.concatenate((left, left + step))
            at_left, at_right = np.concatenate((at_left, middle)), np.concatenate((middle, at_right))


class OneSided:
    """Tests one direction of a gap.

    ``tail="below"`` tests "the gap is at least delta", ``tail="above"`` "at most delta".
    """

    def __init__(self, b: int, c: int, n: int, *, tail: Literal["below", "above"]) -> None:
        # The score of (b, c) at delta is minus the score of (c, b) at -delta: one tail is the other's mirror image.
        self._b, self._c, self._sign = (b, c, 1) if tail == "below" else (c, b, -1)
        self._n = n

    def p(self, delta: float, alpha: float | None = None) -> float:
        """Return the p-value at ``delta`` (between -1 and 1); with ``alpha`` only its side of alpha is exact."""
        delta *= self._sign
        edge = _Edge(self._b, self._c, self._n, delta)
        tail = edge.tail(self._b, self._c)
        return edge.maximum(lambda q: tail.chance(q + delta, q), alpha)

    def rejects(self, delta: float, alpha: float) -> bool:
        """Whether the hypothesis is rejected at ``alpha``."""
        return self.p(delta, alpha) < alpha


class TwoSided:
    """Tests "the absolute gap is at most delta"; ``b`` must be at least ``c``.

    The tail is what lies as far above delta as (b, c), together with its mirror image. For a fixed number of discordant
    cases it is two-sided and excludes the middle, so its chance grows with the absolute gap, and with the share of
    discordant cases where only one kind occurs: the edge, gap = delta, has the largest chance of both.
    """

    def __init__(self, b: int, c: int, n: int) -> None:
        self._b, self._c, self._n = b, c, n

    def p(self, delta: float, alpha: float | None = None) -> float:
        """Return the p-value at ``delta`` (0 to below 1); with ``alpha`` only its side of alpha is exact.

        1 where the gap seen does not exceed delta: nothing speaks against the hypothesis then.
        """
        if self._b - self._c <= self._n * delta:
            return 1.0
        edge = _Edge(self._b, self._c, self._n, delta)
        tail = edge.tail(self._c, self._b, mirrored=True)
        return edge.maximum(lambda q: tail.chance(q, q + delta) + tail.chance(q + delta, q), alpha)

    def rejects(self, delta: float, alpha: float) -> bool:
        """Whether the hypothesis is rejected at ``alpha``."""
        return self.p(delta, alpha) < alpha
