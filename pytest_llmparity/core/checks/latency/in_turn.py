"""Relative latency budgets on engines that are loaded in turn: whether they can be settled, and what a plan says of it.

Requests of one load share whatever that load made of the engine, so loads count, and changes of the engine in memory
are dear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pytest_llmparity.core import visits
from pytest_llmparity.core.stats.quantiles import SETTLED, VisitsResult, spread_settled
from pytest_llmparity.core.words import explain

STEADY: Final = 0.03
"""By how much a plan takes loads of one engine to differ at least, as a standard deviation."""
_RUNS: Final = f"{10 * SETTLED:.0f} of 10 runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visits:
    """How so many ``engines`` take turns: ``n`` timed requests of each, ``concurrency`` of them under way.

    The engine in memory changes at most ``changes`` times.
    """

    engines: int
    n: int
    concurrency: int
    changes: int

    @property
    def blocks(self) -> int:
        """Blocks per engine, as the timed phase makes them."""
        return min(visits.blocks_within(self.engines, self.changes), visits.most_blocks(self.n, self.concurrency))

    def problem(self) -> str | None:
        """Say why nothing relative can be settled, ``None`` where something can."""
        least = visits.changes_for(self.engines, visits.LEAST_BLOCKS)
        if self.changes < least:
            return (
                "engines that are in memory one at a time have to be loaded twice each for a ratio of their latencies, "
                f"which takes {least} changes of the engine in memory, and timed_changes is {self.changes}; set "
                f'timed_changes = {least} or more, or give an absolute limit such as check.latency(ttft_p50="1s")'
            )
        if self.blocks < visits.LEAST_BLOCKS:
            return (
                f"{self.n} timed requests per engine cannot keep concurrency={self.concurrency} busy in "
                f"{visits.LEAST_BLOCKS} blocks, which engines that are in memory one at a time take; give "
                f"n={visits.LEAST_BLOCKS * self.concurrency} or more, or a lower concurrency"
            )
        return None

    def settles(self, name: str, limit: float) -> str:
        """Return what a plan says of a limit on a ratio above 1: how much loads may differ, and what would do.

        ``name`` is that of the quantile.
        """
        most = visits.most_blocks(self.n, self.concurrency)
        spread = self._spread(self.blocks, limit)
        most_apart = explain.percent(round(spread, 3))
        where = f"in {_RUNS} where {name} differs by up to {most_apart} from one load of an engine to its next"
        changes = explain.count(visits.changes_for(self.engines, self.blocks), "change")
        if spread >= STEADY:
            twice = min(2 * self.blocks, most)
            more = f"with {self._setting(twice)} also by up to {explain.percent(round(self._spread(twice, limit), 3))}"
            passes = f"with {changes} of the engine in memory an engine as fast as the baseline passes {where}"
            return f"{passes}; {more}" if twice > self.blocks else passes
        enough = next((more for more in range(self.blocks, most + 1) if self._spread(more, limit) >= STEADY), None)
        steady = explain.percent(STEADY)
        if enough is not None:
            remedy = f"{self._setting(enough)} would settle {steady}"
        elif most < visits.MOST_BLOCKS:
            remedy = f"no number of changes settles {steady} with n={self.n}: raise n, or widen the limit"
        else:
            most_changes = explain.count(visits.changes_for(self.engines, most), "change")
            remedy = f"{most_changes}, the most there are, would not settle {steady} either: widen the limit"
        return f"with {changes} of the engine in memory it is settled {where}; {remedy}"

    def _spread(self, blocks: int, limit: float) -> float:
        return _spread(self.engines, blocks, self.n, abs(math.log(limit)), alpha=0.05)

    def _setting(self, blocks: int) -> str:
        return f"timed_changes = {visits.changes_for(self.engines, blocks)}"


def of_loads(
    result: VisitsResult, *, names: Sequence[str], limit: float, engines: int, n: int, concurrency: int, alpha: float
) -> list[str]:
    """Return how many loads a ratio rests on and how they differed; where it is open, what would settle one like it.

    ``names`` are those of the baseline and the candidate.
    """
    if not result.bounded:
        return []
    loaded = " and ".join(f"{explain.count(n, 'load')} of {name}" for n, name in zip(result.loads, names, strict=True))
    of = f"{loaded}; loads of one engine differ by {explain.percent(round(result.spread, 3))}"
    if result.upper < limit or result.lower > limit or result.estimate == limit:
        return [of]
    distance = abs(math.log(limit / result.estimate))
    most = visits.most_blocks(n, concurrency)
    for blocks in range(visits.LEAST_BLOCKS, most + 1):
        if _spread(engines, blocks, n, distance, alpha=alpha) >= result.spread:
            changes = visits.changes_for(engines, blocks)
            return [f"{of}: timed_changes = {changes} settles a ratio like this in {_RUNS}"]
    if most < visits.MOST_BLOCKS:
        return [f"{of}: no number of changes settles a ratio this close to the limit with n={n}: raise n"]
    most_changes = explain.count(visits.changes_for(engines, most), "change")
    return [
        f"{of}: {most_changes} of the engine in memory, the most there are, settle no ratio this close to the limit"
    ]


def _spread(engines: int, blocks: int, n: int, distance: float, *, alpha: float) -> float:
    """Return by how much loads may differ, of the two engines that are loaded most and least often."""
    loads = sorted(visits.requests_of_loads(engines, blocks, n), key=len)
    return spread_settled([loads[0], loads[-1]], distance, alpha=alpha)
