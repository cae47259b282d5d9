"""How many prompts in all would settle a question, for every bound that narrows with more of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MOST: Final = 100_000
"""More prompts than this and no number is promised."""


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
