"""Items of two arrays, put together whatever their order: which have no equal in the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_llmparity.core.compare.paths import EVERYWHERE, Steps

MOST: Final = 64
"""Items that are alike but for numbers with a tolerance, of which every pairing is tried; of more, the one by size."""


@dataclass(slots=True, kw_only=True)
class Alike:
    """Names values so that those of one name are equal, but for numbers that have a tolerance.

    ``counts`` says which paths are compared, ``unordered`` at which arrays have no order, ``tolerated`` at which
    numbers have a tolerance. Numbers are equal by value, ``true`` is none.
    """

    counts: Callable[[Steps], bool]
    unordered: Collection[Steps]
    tolerated: Mapping[Steps, float]
    _names: dict[object, int] = field(default_factory=dict)

    def name(self, value: Any, below: Steps) -> tuple[int, tuple[float, ...]]:
        """Return the name of a value that stands at a path, and its numbers that have a tolerance, in order.

        Values are taken apart by a stack of our own: they may be nested deeper than ours.
        """
        numbers: list[float] = []
        waiting: list[tuple[Any, Steps, bool]] = [(value, below, False)]
        ready: list[int] = []
        while waiting:
            part, here, entered = waiting.pop()
            if isinstance(part, Mapping):
                keys = sorted(key for key in part if self.counts((*here, key)))
                if entered:
                    ready.append(self._known(("object", tuple(keys), tuple(_taken(ready, len(keys))))))
                else:
                    waiting.append((part, here, True))
                    waiting += [(part[key], (*here, key), False) for key in reversed(keys)]
            elif isinstance(part, list):
                items = part if self.counts((*here, EVERYWHERE)) else []
                if entered:
                    names = _taken(ready, len(items))
                    ready.append(self._known(("array", tuple(sorted(names) if here in self.unordered else names))))
                else:
                    waiting.append((part, here, True))
                    waiting += [(item, (*here, EVERYWHERE), False) for item in reversed(items)]
            elif here in self.tolerated and isinstance(part, (int, float)) and not isinstance(part, bool):
                numbers.append(part)
                ready.append(self._known(("tolerated",)))
            else:
                ready.append(self._known((isinstance(part, bool), part)))
        return ready[0], tuple(numbers)

    def _known(self, key: object) -> int:
        return self._names.setdefault(key, len(self._names))


def matched(
    ours: Sequence[Any], theirs: Sequence[Any], below: Steps, alike: Alike, equal: Callable[[Any, Any], bool]
) -> tuple[list[int], list[int]]:
    """Return the places of items that have no equal on the other side, each item being the equal of one at most.

    As many as can be are put together. Only of more than :data:`MOST` items that are alike but for numbers with a
    tolerance those are compared that have the same rank by these numbers, which is best where each has one of them.
    """
    groups: dict[int, tuple[list[_Numbered], list[_Numbered]]] = defaultdict(lambda: ([], []))
    for side, items in enumerate((ours, theirs)):
        for place, item in enumerate(items):
            name, numbers = alike.name(item, below)
            groups[name][side].append((numbers, place))
    left: list[int] = []
    right: list[int] = []
    for mine, other in groups.values():
        if not any(numbers for numbers, _ in mine):  # all of them are equal
            found_none = ([place for _, place in mine[len(other) :]], [place for _, place in other[len(mine) :]])
        else:
            found_none = _by_numbers(sorted(mine), sorted(other), lambda a, b: equal(ours[a], theirs[b]))
        left += found_none[0]
        right += found_none[1]
    return sorted(left), sorted(right)


_Numbered = tuple[tuple[float, ...], int]


def _by_numbers(
    mine: Sequence[_Numbered], other: Sequence[_Numbered], equal: Callable[[int, int], bool]
) -> tuple[list[int], list[int]]:
    partner = {b: a for (_, a), (_, b) in zip(mine, other, strict=False) if equal(a, b)}
    small = max(len(mine), len(other)) <= MOST
    if small and len(partner) < min(len(mine), len(other)):
        near = {a: [b for _, b in other if equal(a, b)] for _, a in mine}
        for _, a in mine:
            if a not in partner.values():
                _augment(a, near, partner)
    paired = set(partner.values())
    return [a for _, a in mine if a not in paired], [b for _, b in other if b not in partner]


def _augment(a: int, near: Mapping[int, Sequence[int]], partner: dict[int, int]) -> None:
    """Find an equal for one more item, where need be by finding others for those that have one (Kuhn 1955)."""
    came_from: dict[int, int] = {}
    waiting = [a]
    while waiting:
        asking = waiting.pop()
        for b in near[asking]:
            if b in came_from:
                continue
            came_from[b] = asking
            if b in partner:
                waiting.append(partner[b])
                continue
            while True:  # it is free: hand it down the way that led here
                giver = came_from[b]
                before = next((other for other, owner in partner.items() if owner == giver), None)
                partner[b] = giver
                if before is None:
                    return
                b = before


def _taken(ready: list[int], n: int) -> list[int]:
    """Take the last ``n`` names, in the order in which they were put there."""
    start = len(ready) - n
    names = ready[start:]
    del ready[start:]
    return names
