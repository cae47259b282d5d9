"""Cases dealt out to shards: which machine asks which, the same in every process that knows the prompts. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

MOST = 1000
"""Shards of one run: more of them would be slower to start than to ask."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of the machines that a run's cases are dealt out to, counted from 1.

    >>> print(Shard(2, 5))
    shard 2 of 5
    """

    index: int
    of: int

    def __str__(self) -> str:
        return f"shard {self.index} of {self.of}"


def parse_shard(text: str) -> Shard:
    """Read ``2/5``; ``ValueError`` says what is wrong with another text.

    >>> parse_shard("2/5")
    Shard(index=2, of=5)
    """
    index, slash, of = text.strip().partition("/")
    if not slash or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in (index, of)):
        raise ValueError(f"{text[:40]!r} is no shard; expected N/M such as 2/5: the second of five")
    shard = Shard(int(index), int(of))
    if not 1 <= shard.of <= MOST:
        raise ValueError(f"{text[:40]!r} is no shard: a run has from 1 to {MOST} of them")
    if not 1 <= shard.index <= shard.of:
        raise ValueError(f"{text[:40]!r} is no shard: the first is 1/{shard.of} and the last {shard.of}/{shard.of}")
    return shard


def dealt(sizes: Mapping[str, int], of: int) -> dict[str, int]:
    """Return which of so many shards asks each group; ``sizes`` says what a group costs.

    The largest groups are dealt first, those of one size in the order of their hashes, each to the shard that has least
    so far. So shards cost about the same, and none is empty where there are groups enough.

    >>> sorted(dealt({"a": 3, "b": 1, "c": 1, "d": 1}, 2).items())
    [('a', 1), ('b', 2), ('c', 2), ('d', 2)]
    """
    load = dict.fromkeys(range(1, of + 1), 0)
    shards: dict[str, int] = {}
    for group in sorted(sizes, key=lambda name: (-sizes[name], _draw(name))):
        least = min(load, key=lambda shard: (load[shard], shard))
        shards[group] = least
        load[least] += max(1, sizes[group])
    return shards


def _draw(text: str) -> str:
    """Return the text's lot: as good as random, the same on every machine."""
    return hashlib.sha256(f"pytest-llmparity shard 1/{text}".encode("utf-8", "surrogatepass")).hexdigest()
