"""What every test of this room returns, and how many prompts would settle what one leaves open."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MOST: Final = 100_000
"""More prompts than this and no number is promised."""
PRECISION: Final = 1e-4
"""How finely bounds of shares, gaps and ratios are searched: a hundredth of a percentage point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """An estimate, its one-sided bounds at some alpha, and the p-values at some margin.

    ``p_pass`` belongs to the hypothesis that the quantity is not within what is accepted (a PASS rejects it),
    ``p_fail`` to the one that it is. A bound lies beyond the margin exactly when the p-value of that side is below
    alpha.
    """

    estimate: float
    lower: float
    upper: float
    p_pass: float
    p_fail: float


def smallest_total(n: int, settles: Callable[[int], bool]) -> int | None:
    """Return the smallest total from ``n`` on that settles, ``None`` when even :data:`MOST` does not.

    ``settles`` must stay true once it is true.
    """
    if not settles(MOST):
        return None
    return bisect_left(range(MOST), True, lo=n, key=settles)


def nearest_rejected(rejects: Callable[[float], bool], *, kept: float, rejected: float) -> float:
    """Return a value that is rejected, at most :data:`PRECISION` beyond one that is not, between two such values."""
    while abs(rejected - kept) > PRECISION:
        middle = (rejected + kept) / 2
        if rejects(middle):
            rejected = middle
        else:
            kept = middle
    return rejected


def check_alpha(alpha: float) -> None:
    """Raise ``ValueError`` for an error rate that no one-sided test can have."""
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"alpha lies between 0 and 0.5, not {alpha!r}")


def check_quantile(quantile: float, alpha: float) -> None:
    """Raise ``ValueError`` for a quantile outside 0..1 or an alpha outside 0..0.5."""
    if not 0.0 < quantile < 1.0:
        raise ValueError(f"a quantile lies between 0 and 1 (p95 is 0.95), not {quantile!r}")
    check_alpha(alpha)
