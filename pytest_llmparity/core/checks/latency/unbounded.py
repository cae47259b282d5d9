"""Why the ratio of two latencies is not known: a request that failed is a quantile, or it rests on too little."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pytest_llmparity.core.checks.designs import ONE_BLOCK
from pytest_llmparity.core.stats.quantiles import nearest_rank
from pytest_llmparity.core.words import explain

ONE_LOAD: Final = "an engine was loaded once, which says nothing of how its loads differ; raise timed_changes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The latencies of the engine ``name`` and which of its blocks, or of its loads, each belongs to.

    ``silent`` says that of some block every request failed, so that nobody knows of which load it was.
    """

    name: str
    values: Sequence[float]
    parts: Sequence[int]
    silent: bool


def unbounded(sides: Sequence[Side], *, rank: str, quantile: float, in_turn: bool) -> str:
    """Return why the ratio of the sides' ``rank`` is not known; ``in_turn`` where they rest on loads, not on blocks."""
    for side in sides:
        if math.isinf(nearest_rank(side.values, quantile)):
            return f"{side.name}'s {rank} is a request that failed"
    for side in sides:
        if len(set(side.parts)) > 1:
            continue
        if in_turn and side.silent:
            return f"{side.name} has answers of one load only, which says nothing of how its loads differ"
        return ONE_LOAD if in_turn else ONE_BLOCK
    for side in sides if in_turn else ():
        by_load = [
            [value for value, its in zip(side.values, side.parts, strict=True) if its == load]
            for load in set(side.parts)
        ]
        if failed := sum(math.isinf(nearest_rank(values, quantile)) for values in by_load):
            loads = explain.count(len(by_load), "load")
            return f"of {failed} of {loads} of {side.name} the {rank} is a request that failed"
    return f"too few answers to bound {rank}"
