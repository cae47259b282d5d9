"""Exact unconditional tests of a difference of paired proportions, ordered by Tango's score.

Write p_b and p_c for the chances of the two kinds of discordant case. A null hypothesis fixes their difference
``delta`` and leaves p_c open; the p-value is the largest probability, over every p_c, of a table at least as extreme as
the one seen.

*The tail.* For each c the tail "below" holds every b up to a limit that grows with c (Barnard's convexity). Tango's
score has this shape; the limits are forced into it, which can only enlarge the tail. Then the chance of the tail falls
with p_b and rises with p_c, from which two things follow. The largest value over "gap at least delta" lies at the edge,
gap = delta. And between q1 and q2 the chance is at most that at the corner (p_b = q1 + delta, p_c = q2).

*The maximum.* Those corners bound every stretch between two neighbours of a grid over p_c. Stretches whose bound
exceeds the best value seen by more than ``TOLERANCE`` are divided until none is left; the largest bound is returned.
So a p-value is never too small, and too large by 2e-5 at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, gammaln, xlog1py, xlogy

Floats = NDArray[np.float64]

TOLERANCE = 2e-5
"""How far the p-value may lie above the largest probability that was actually computed."""
NEGLIGIBLE = 1e-13
"""Terms of a distribution below this are left out; their sum is added back."""
_FIRST_GRID = 33
_SPLIT = 4


def tango_score(b: ArrayLike, c: ArrayLike, n: int, delta: float) -> Floats:
    """Tango's score: how many standard errors (b - c)/n lies above ``delta``, its error taken where the gap is delta.

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


class _Tail:
    """The tables at least as extreme as (b, c) towards a small b - c, for one ``delta``: b at most ``limits[c]``."""

    def __init__(self, b: int, c: int, n: int, delta: float) -> None:
        self._n = n
        self._counts = np.arange(n + 1)
        self._log_choose = gammaln(n + 1) - gammaln(self._counts + 1) - gammaln(n - self._counts + 1)
        seen = float(tango_score(b, c, n, delta))
        seen += 1e-9 * (1 + abs(seen))  # tables with the same score belong to the tail, whatever the rounding
        low, high = np.full(n + 1, -1), n - self._counts
        while np.any(low < high):  # the score grows with b: find the last b inside, for every c at once
            middle = (low + high + 1) // 2
            inside = tango_score(middle, self._counts, n, delta) <= seen
            low, high = np.where(inside, middle, low), np.where(inside, high, middle - 1)
        self.limits = np.minimum(np.maximum.accumulate(low), n - self._counts)

    def chance(self, p_b: Floats, p_c: Floats) -> Floats:
        """Probability of the tail for each pair of chances (arrays of one length)."""
        p_c = np.clip(p_c, 0.0, 1.0)[:, None]
        log_weight = self._log_choose + xlogy(self._counts, p_c) + xlog1py(self._n - self._counts, -p_c)
        weight = np.exp(log_weight)
        rows, cols = np.nonzero((weight > NEGLIGIBLE / (self._n + 1)) & (self.limits >= 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(p_c < 1.0, p_b[:, None] / (1.0 - p_c), 0.0)[rows, 0]
        inner = bdtr(self.limits[cols].astype(np.float64), self._n - cols, np.clip(share, 0.0, 1.0))
        total: Floats = np.bincount(rows, weights=weight[rows, cols] * inner, minlength=len(p_b)) + NEGLIGIBLE
        return total


Probability = Callable[[Floats, Floats], Floats]
"""Probability of the tail as a function of two ends of the open parameter; equal ends give the exact value."""


def _maximum(bound: Probability, low: float, high: float, alpha: float | None) -> float:
    """Largest value of ``bound(q, q)`` for q in [low, high], rounded up by at most :data:`TOLERANCE`.

    With ``alpha`` the search stops as soon as it is known on which side of alpha the maximum lies.
    """
    # Near its lower end, where discordant cases are rare, the probability changes fastest.
    points = low + (high - low) * np.linspace(0.0, 1.0, _FIRST_GRID) ** 2
    left, right = points[:-1], points[1:]
    best = float(bound(points, points).max())
    bounds = bound(left, right)
    settled = 0.0
    while True:
        ceiling = max(best, settled, float(bounds.max(initial=0.0)))
        if alpha is not None and (best >= alpha or ceiling < alpha):
            return min(ceiling, 1.0)
        still_open = bounds > best + TOLERANCE
        settled = max(settled, float(bounds[~still_open].max(initial=0.0)))
        if best >= 1.0 or not np.any(still_open):
            return min(ceiling, 1.0)
        steps = np.linspace(0.0, 1.0, _SPLIT + 1)
        cuts = left[still_open, None] + (right - left)[still_open, None] * steps
        inner = cuts[:, 1:-1].ravel()
        best = max(best, float(bound(inner, inner).max()))
        left, right = cuts[:, :-1].ravel(), cuts[:, 1:].ravel()
        bounds = bound(left, right)


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
        tail = _Tail(self._b, self._c, self._n, delta)
        return _maximum(
            lambda low, high: tail.chance(low + delta, high), max(0.0, -delta), (1.0 - delta) / 2, alpha
        )

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
        """Return the p-value at ``delta`` (0 to below 1); with ``alpha`` only its side of alpha is exact."""
        tail = _Tail(self._c, self._b, self._n, -delta)
        return _maximum(
            lambda low, high: tail.chance(low - delta, high) + tail.chance(low, high - delta),
            delta,
            (1.0 + delta) / 2,
            alpha,
        )

    def rejects(self, delta: float, alpha: float) -> bool:
        """Whether the hypothesis is rejected at ``alpha``."""
        return self.p(delta, alpha) < alpha
