"""Which fields of two JSON values an application reads, and when it takes them for equal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from pytest_llmparity.core.compare.json import ABSENT, FieldDiff, child, diff_values

_PLACE: Final = re.compile(r"\[\d+\]")
_STEP: Final = re.compile(r'\.([A-Za-z_][A-Za-z0-9_]*)|\[(\d*|"(?:[^"\\]|\\.)*")\]')
_WRITTEN: Final = re.compile(r'\$(?:\.[A-Za-z_][A-Za-z0-9_]*|\[(?:\d*|"(?:[^"\\]|\\.)*")\])*')


class Fields(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared of two values: all of them, or what stands at some paths and below.

    A path reads ``$.items[].price``: ``[]`` is every place of an array. ``tolerance`` is the largest difference of two
    numbers at a path that does not count; at the paths of ``unordered`` arrays are compared whatever the order of their
    items.
    """

    read: tuple[str, ...] = ()
    tolerance: tuple[tuple[str, float], ...] = ()
    unordered: tuple[str, ...] = ()

    def differences(self, ours: Any, theirs: Any) -> list[FieldDiff]:
        """Return the fields in which two values differ for who reads these, as :func:`diff_values` does.

        >>> fields = Fields(read=("$.total", "$.tags"), tolerance=(("$.total", 0.01),), unordered=("$.tags",))
        >>> a, b = {"total": 1.0, "tags": ["x", "y"], "note": "a"}, {"total": 1.005, "tags": ["y", "x"], "note": "b"}
        >>> fields.differences(a, b), [diff.path for diff in fields.differences(a, {**b, "total": 2})]
        ([], ['$.total'])
        """
        if self.unordered:
            ours, theirs = self._sorted(ours, "$"), self._sorted(theirs, "$")
        return [difference for difference in diff_values(ours, theirs) if self._counts(difference)]

    def unseen(self, values: Iterable[Any]) -> tuple[str, ...]:
        """Return the paths that are read and lead to nothing in any of these values: nobody would compare anything."""
        left = list(self.read)
        for value in values:
            left = [path for path in left if not leads_somewhere(value, path)]
            if not left:
                break
        return tuple(left)

    def _counts(self, difference: FieldDiff) -> bool:
        path = anywhere(difference.path)
        if self.read and not any(_beside(path, read) for read in self.read):
            return False
        allowed = dict(self.tolerance).get(path)
        return allowed is None or not _near(difference.baseline, difference.candidate, allowed)

    def _sorted(self, value: Any, path: str) -> Any:
        if isinstance(value, Mapping):
            return {key: self._sorted(inner, child(path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            items = [self._sorted(inner, f"{path}[]") for inner in value]
            return sorted(items, key=_canonical) if path in self.unordered else items
        return value


EVERYTHING: Final = Fields()


def anywhere(path: str) -> str:
    """Return a path with the places of arrays left out: ``$.items[].price``."""
    return _PLACE.sub("[]", path)


def refused(path: object) -> str | None:
    """Say why something is no path, ``None`` where it is one.

    >>> refused("$.items[].price"), refused('$["odd key"]'), refused("$")
    (None, None, None)
    >>> refused("price")
    "'price' is no path: it begins with $, such as $.price or $.items[].price"
    """
    if isinstance(path, str) and _WRITTEN.fullmatch(path):
        return None
    return f"{path!r} is no path: it begins with $, such as $.price or $.items[].price"


def leads_somewhere(value: Any, path: str) -> bool:
    """Whether there is anything at a path of a value, in one place of an array at least.

    >>> leads_somewhere({"items": [{"id": 1}, {"price": None}]}, "$.items[].price"), leads_somewhere({}, "$.total")
    (True, False)
    """
    standing = [value]
    for name, place in _STEP.findall(path):
        below: list[Any] = []
        for inner in standing:
            key = name or (json.loads(place) if place.startswith('"') else None)
            if key is not None and isinstance(inner, Mapping) and key in inner:
                below.append(inner[key])
            elif key is None and isinstance(inner, list):
                below += inner if not place else inner[int(place) : int(place) + 1]
        standing = below
    return bool(standing)


def _beside(path: str, read: str) -> bool:
    """Whether a path is one that is read, lies below it, or holds it."""
    upper, lower = (path, read) if len(path) <= len(read) else (read, path)
    return lower.startswith(upper) and lower[len(upper) : len(upper) + 1] in ("", ".", "[")


def _near(ours: Any, theirs: Any, allowed: float) -> bool:
    numbers = (int, float)
    if ours is ABSENT or theirs is ABSENT or isinstance(ours, bool) or isinstance(theirs, bool):
        return False
    if not isinstance(ours, numbers) or not isinstance(theirs, numbers):
        return False
    # A little more than was asked for: 0.1 + 0.2 is as far from 0.3 as a double can tell.
    return abs(ours - theirs) <= allowed * (1 + 1e-9)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
