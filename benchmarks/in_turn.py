"""What a relative latency limit settles where engines are loaded in turn: the tables of docs/verdicts.md.

    python -m benchmarks.in_turn [DRAWS]

Draws are simulated with a fixed seed: 128 requests of each engine whose logarithms spread by 0.2, loads that differ by
so much on top. Takes a minute or two of one core with 2,000 draws, as in the docs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator

import numpy as np

from pytest_llmparity.core.stats.quantiles import VisitsResult, ratio_in_turn, spread_settled
from pytest_llmparity.core.visits import requests_of_loads

LIMIT = 1.25
REQUESTS = 128
SCATTER = 0.2


def settled() -> Iterator[str]:
    """Yield by how much loads may differ, by changes and limit."""
    for changes in (3, 4, 8, 16):
        loads = requests_of_loads(2, changes, REQUESTS)
        spreads = [spread_settled(loads, math.log(limit), alpha=0.05) for limit in (1.05, 1.1, 1.25, 1.5, 2.0)]
        counts = " + ".join(str(len(of_engine)) for of_engine in loads)
        yield f"| {changes} | {counts} | {' | '.join(f'{100 * spread:.2g} %' for spread in spreads)} |"


def drawn(rng: np.random.Generator, spread: float, ratio: float, changes: int, quantile: float) -> VisitsResult:
    """Return what is said of one run in which the candidate is ``ratio`` times as slow."""
    values: list[list[float]] = [[], []]
    places: list[list[int]] = [[], []]
    for side, counts in enumerate(requests_of_loads(2, changes, REQUESTS)):
        for load, count in enumerate(counts):
            centre = side * math.log(ratio) + rng.normal(0, spread)
            values[side] += list(rng.lognormal(centre, SCATTER, count))
            places[side] += [load] * count
    (ours, theirs), (our_loads, their_loads) = values, places
    return ratio_in_turn(ours, theirs, our_loads, their_loads, quantile=quantile, limit=LIMIT)


def outcomes(draws: int, spread: float, changes: int, quantile: float) -> str:
    """Return false PASS and FAIL at the limit, then PASS of an equal engine and FAIL of one at 1.6."""
    rng = np.random.default_rng(1)
    at_limit = [drawn(rng, spread, LIMIT, changes, quantile) for _ in range(draws)]
    equal = [drawn(rng, spread, 1.0, changes, quantile) for _ in range(draws)]
    slow = [drawn(rng, spread, 1.6, changes, quantile) for _ in range(draws)]
    passed, failed = (sum(r.upper < LIMIT for r in at_limit), sum(r.lower > LIMIT for r in at_limit))
    powers = (sum(r.upper < LIMIT for r in equal), sum(r.lower > LIMIT for r in slow))
    return f"{passed / draws:.3f} / {failed / draws:.3f}, {powers[0] / draws:.2f} / {powers[1] / draws:.2f}"


def main() -> None:
    """Print both tables."""
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    print(*settled(), sep="\n")
    for spread in (0.0, 0.03, 0.05, 0.1):
        cells = [outcomes(draws, spread, changes, quantile) for quantile in (0.5, 0.95) for changes in (4, 8)]
        print(f"| {100 * spread:g} % | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
