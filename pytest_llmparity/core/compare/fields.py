"""Which fields of two JSON values an application reads, and when it takes them for equal."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from pytest_llmparity.core.compare.json import ABSENT, FieldDiff, child, diff_values
from pytest_llmparity.core.compare.matching import Alike, matched
from pytest_llmparity.core.compare.paths import EVERYWHERE, Steps, at, steps
from pytest_llmparity.core.compare.paths import refused as not_a_path
from pytest_llmparity.core.errors import DesignError

_Work: TypeAlias = tuple[str, Steps, Any, Any]


class Fields(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared of two values: all of them, or what stands at some paths and below.

    A path reads ``$.items[].price``: ``[]`` is every place of an array. ``tolerance`` is the largest difference of two
    numbers at a path that does not count; at the paths of ``unordered`` arrays are compared whatever the order of their
    items, these by what is read of them and by the same tolerance. ``within`` is the tolerance of every other number,
    where no array is without order.
    """

    read: tuple[str, ...] = ()
    tolerance: tuple[tuple[str, float], ...] = ()
    unordered: tuple[str, ...] = ()
    within: float | None = None

    def differences(self, ours: Any, theirs: Any) -> list[FieldDiff]:
        """Return the fields in which two values differ for who reads these, as :func:`diff_values` does.

        Items of an array without order that no item of the other equals are compared in the order in which they stand.

        >>> fields = Fields(read=("$.total", "$.tags"), tolerance=(("$.total", 0.01),), unordered=("$.tags",))
        >>> a, b = {"total": 1.0, "tags": ["x", "y"], "note": "a"}, {"total": 1.005, "tags": ["y", "x"], "note": "b"}
        >>> fields.differences(a, b), [diff.path for diff in fields.differences(a, {**b, "total": 2})]
        ([], ['$.total'])
        """
        if self == EVERYTHING:
            return diff_values(ours, theirs)
        return list(_reading(self).differences(ours, theirs))

    def seen(self, value: Any) -> tuple[str, ...]:
        """Return the paths that are read and lead to something in a value, in one place of an array at least."""
        return tuple(path for path in self.read if at(value, steps(path)))


EVERYTHING: Final = Fields()


def fields_of(check: str, read: Sequence[str], tolerance: object, unordered: Sequence[str]) -> Fields:
    """Return what of two values a check compares; ``DesignError`` for a path that is none, or a tolerance below 0.

    ``check.value`` takes one tolerance for all numbers, too.
    """
    for name, paths in (("fields", read), ("unordered", unordered)):
        if not isinstance(paths, (list, tuple)):
            raise DesignError(f'{check}({name}={paths!r}): {name} is a list of paths, such as ["$.price"]')
    if check == "value" and not isinstance(tolerance, Mapping):
        if unordered:
            raise DesignError('value(): beside unordered, tolerance names its paths, such as {"$.items[].price": 0.01}')
        within = _tolerated(tolerance, f"value(tolerance={tolerance!r})")
        return msgspec.structs.replace(fields_of(check, read, {}, unordered), within=within)
    if not isinstance(tolerance, Mapping):
        raise DesignError(f'{check}(tolerance={tolerance!r}): tolerance is a dictionary such as {{"$.total": 0.01}}')
    for path in (*read, *tolerance, *unordered):
        if why := not_a_path(path):
            raise DesignError(f"{check}(): {why}")
    apart = {path: _tolerated(most, f"{check}(tolerance={{{path!r}: {most!r}}})") for path, most in tolerance.items()}
    return Fields(read=tuple(read), tolerance=tuple(apart.items()), unordered=tuple(unordered))


def _tolerated(most: object, written: str) -> float:
    if isinstance(most, bool) or not isinstance(most, (int, float)) or not 0.0 <= most < math.inf:
        raise DesignError(f"{written}: a tolerance is a number of at least 0")
    return float(most)


class _Reading:
    """The paths of :class:`Fields` as steps, and how two values are walked by them."""

    def __init__(self, fields: Fields) -> None:
        self._read = [steps(path) for path in fields.read]
        self._tolerance = {steps(path): allowed for path, allowed in fields.tolerance}
        self._unordered = {steps(path) for path in fields.unordered}
        self._within = fields.within

    def differences(self, ours: Any, theirs: Any, below: Steps = ()) -> Iterator[FieldDiff]:
        """Yield the fields that differ of two values that stand at a path."""
        waiting: list[_Work] = [("$", below, ours, theirs)]  # a stack of our own: values may be nested deeper than ours
        while waiting:
            path, here, a, b = waiting.pop()
            if isinstance(a, Mapping) and isinstance(b, Mapping):
                keys = [*a, *(key for key in b if key not in a)]
                parts = [
                    (child(path, key), (*here, key), a.get(key, ABSENT), b.get(key, ABSENT))
                    for key in keys
                    if self._counts((*here, key))
                ]
                waiting.extend(reversed(parts))
            elif isinstance(a, list) and isinstance(b, list):
                items = (*here, EVERYWHERE)
                if self._counts(items):
                    waiting.extend(reversed([(f"{path}[{n}]", items, x, y) for n, x, y in self._items(a, b, here)]))
            elif diff_values(a, b) and not _near(a, b, self._tolerance.get(here, self._within)):
                yield FieldDiff(path=path, baseline=a, candidate=b)

    def _items(self, ours: Sequence[Any], theirs: Sequence[Any], here: Steps) -> Iterable[tuple[int, Any, Any]]:
        """Return the items of two arrays that are compared with each other, with their places."""
        if here not in self._unordered:
            length = max(len(ours), len(theirs))
            return [(n, _item(ours, n), _item(theirs, n)) for n in range(length)]
        below = (*here, EVERYWHERE)
        alike = Alike(counts=self._counts, unordered=self._unordered, tolerated=self._tolerance)
        left, right = matched(ours, theirs, below, alike, lambda a, b: self._equal(a, b, below))
        length = max(len(left), len(right))
        pairs = [(_item(left, n), _item(right, n)) for n in range(length)]
        return [
            (a if isinstance(a, int) else b, _of(ours, a), _of(theirs, b))
            for a, b in pairs
            if isinstance(a, int) or isinstance(b, int)
        ]

    def _equal(self, ours: Any, theirs: Any, below: Steps) -> bool:
        return next(self.differences(ours, theirs, below), None) is None

    def _counts(self, here: Steps) -> bool:
        """Whether a path is one that is read, lies below it, or holds it."""
        return not self._read or any(here[: len(path)] == path[: len(here)] for path in self._read)


@functools.lru_cache(maxsize=8)
def _reading(fields: Fields) -> _Reading:
    """Return how values are walked by these paths, which are read once."""
    return _Reading(fields)


def _item(values: Sequence[Any], index: int) -> Any:
    return values[index] if index < len(values) else ABSENT


def _of(values: Sequence[Any], place: Any) -> Any:
    return values[place] if isinstance(place, int) else ABSENT


def _near(ours: Any, theirs: Any, allowed: float | None) -> bool:
    numbers = (int, float)
    if allowed is None or isinstance(ours, bool) or isinstance(theirs, bool):
        return False
    if not isinstance(ours, numbers) or not isinstance(theirs, numbers):
        return False
    try:
        # A little more than was asked for: 0.1 + 0.2 is as far from 0.3 as a double can tell.
        return abs(ours - theirs) <= allowed * (1 + 1e-9)
    except OverflowError:  # an integer beyond a double, beside one
        return False
