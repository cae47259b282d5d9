"""Which margin is proposed for a pair whose shift was measured."""

from __future__ import annotations

import math
from typing import Final

FACTOR: Final = 1.5
"""Times the upper bound of the measured shift: room for prompts unlike the measured ones."""
LEAST: Final = 0.005
"""Nats below which nobody is held: what rounding and batches do (``docs/calibrate.md``)."""


def proposed(upper: float) -> float:
    """Return the margin for a shift of at most ``upper`` nats, two digits that count, rounded up.

    >>> proposed(0.036), proposed(0.0402), proposed(0.0001), proposed(1.21)
    (0.054, 0.061, 0.005, 1.9)
    """
    margin = max(LEAST, FACTOR * upper)
    digits = 1 - math.floor(math.log10(margin))
    scale = 10.0**digits
    return round(math.ceil(round(margin * scale, 6)) / scale, digits)
