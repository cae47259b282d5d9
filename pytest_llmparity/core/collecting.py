"""How often Python looks for garbage while a run is read or judged."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Final

YOUNG: Final = 250_000
"""Objects that are made before Python looks for garbage among them: so much may lie about in circles meanwhile."""

_before: Final[list[tuple[int, int, int]]] = []
"""What was set before, once, and once more for each block that is open."""


@contextlib.contextmanager
def seldom_collected() -> Iterator[None]:
    """Let Python look for garbage seldom in a ``with`` block, or in a function this decorates.

    A run makes hundreds of thousands of objects that all stay, and at Python's usual 700 or 2,000 each of them is
    looked at again and again: a fifth of what judging 100,000 answers takes. Where it never looks, it does not here.
    """
    if not _before:
        _before.append(gc.get_threshold())
        young, *older = _before[0]
        gc.set_threshold(max(young, YOUNG) if young else 0, *older)
    _before.append(_before[0])
    try:
        yield
    finally:
        _before.pop()
        if len(_before) == 1:  # whoever began first, the last one to end restores what was there before
            gc.set_threshold(*_before.pop())
