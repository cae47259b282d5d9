"""Which engine is visited when in a timed phase: blocks in the order A B B A, and how often each is loaded for them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

LEAST_BLOCKS: Final = 3
"""With fewer blocks of engines that take turns there is one that is loaded once: A, B B, A."""
MOST_BLOCKS: Final = 16
"""Most blocks per engine: pairs of them are what the bootstrap of a ratio resamples, or loads where they take turns."""


def order(engines: int, blocks: int) -> list[tuple[int, int]]:
    """Return (engine index, block number) in order of time: each block visits all engines, every other one mirrored.

    >>> order(2, 2)
    [(0, 0), (1, 0), (1, 1), (0, 1)]
    """
    orders = [range(engines) if block % 2 == 0 else reversed(range(engines)) for block in range(blocks)]
    return [(engine, block) for block, in_order in enumerate(orders) for engine in in_order]


def block_sizes(per_engine: int, blocks: int) -> list[int]:
    """Return how many requests each block holds; they differ by one at most, larger ones first.

    >>> block_sizes(10, 4)
    [3, 3, 2, 2]
    """
    least, more = divmod(per_engine, blocks)
    return [least + (block < more) for block in range(blocks)]


def most_blocks(per_engine: int, concurrency: int) -> int:
    """Return into how many blocks so many requests of an engine are cut at most: each keeps ``concurrency`` busy.

    >>> most_blocks(128, 8), most_blocks(512, 4), most_blocks(4, 8)
    (16, 16, 1)
    """
    return max(1, min(MOST_BLOCKS, per_engine // concurrency))


def visits(engines: int, blocks: int) -> list[tuple[int, range]]:
    """Return (engine index, its blocks) of every visit: an engine stays for blocks that follow one another.

    >>> visits(2, 2)
    [(0, range(0, 1)), (1, range(0, 2)), (0, range(1, 2))]
    """
    by_visit = groupby(order(engines, blocks), key=lambda place: place[0])
    numbers = [(engine, [block for _, block in places]) for engine, places in by_visit]
    return [(engine, range(of_visit[0], of_visit[-1] + 1)) for engine, of_visit in numbers]


def blocks_within(engines: int, changes: int) -> int:
    """Return how many blocks per engine fit into so many changes of the engine in memory, one at least.

    >>> blocks_within(2, 4), blocks_within(3, 4), blocks_within(1, 4)
    (4, 2, 4)
    """
    return max(1, changes // max(1, engines - 1))


def changes_for(engines: int, blocks: int) -> int:
    """Return how often engines that take turns change places for so many blocks each.

    >>> changes_for(2, 4), changes_for(3, LEAST_BLOCKS)
    (4, 6)
    """
    return len(visits(engines, blocks)) - 1


def requests_of_loads(engines: int, blocks: int, per_engine: int) -> list[list[int]]:
    """Return of each engine how many requests it answers each time it is loaded.

    >>> requests_of_loads(2, 4, 128)
    [[32, 64, 32], [64, 64]]
    """
    sizes: Sequence[int] = block_sizes(per_engine, blocks)
    loads: list[list[int]] = [[] for _ in range(engines)]
    for engine, of_visit in visits(engines, blocks):
        loads[engine].append(sum(sizes[block] for block in of_visit))
    return loads
