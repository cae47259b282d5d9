"""What every test of this room returns, and how many prompts would settle what one leaves open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MOST: Final = 100_000
"""More prompts than this and no number is promised."""


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
    low, high = n, MOST
    while low < high:
        middle = (low + high) // 2
        if settles(middle):
            high = middle
        else:
            low = middle + 1
    return low


def check_alpha(alpha: float) -> None:
    """Raise ``ValueError`` for an error rate that no one-sided test can have."""
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"alpha lies between 0 and 0.5, not {alpha!r}")
