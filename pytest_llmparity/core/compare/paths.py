"""Paths into JSON values, such as ``$.items[].price``: the one reader of how they are written."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from pytest_llmparity.core.compare.json import child

_QUOTED: Final = re.compile(r'\[("(?:[^"\\]|\\.)*")\]', re.DOTALL)
_NAME: Final = re.compile(r"\.([^.\[\]]+)")
_PLACE: Final = re.compile(r"\[([0-9]*)\]")
_DIGITS: Final = 9
"""Digits of a place at most: no array is longer."""


class Everywhere(enum.Enum):
    """The one step :data:`EVERYWHERE`: every place of an array, written ``[]``."""

    EVERYWHERE = "[]"
    __hash__ = object.__hash__  # an enum's own is Python, and paths of deep values are hashed step by step


EVERYWHERE: Final = Everywhere.EVERYWHERE
Step: TypeAlias = str | int | Everywhere
"""A name, one place of an array, or every place."""
Steps: TypeAlias = tuple[Step, ...]


def steps(path: str, *, places: bool = False) -> Steps:
    """Return the steps of a path from the top of a value; ``ValueError`` says why it is none.

    A key stands behind a dot, or in brackets as a JSON string. ``[]`` is every place of an array; with ``places`` a
    number in brackets is one place, and every place cannot be meant.

    >>> steps('$.items[]["odd.key"]'), steps("$.items[0]", places=True)
    (('items', <Everywhere.EVERYWHERE: '[]'>, 'odd.key'), ('items', 0))
    >>> steps('$["size"]') == steps("$.size")
    True
    """
    if not path.startswith("$"):
        example = "$.price or $.items[0].price" if places else "$.price or $.items[].price"
        raise ValueError(f"{path!r} is no path: it begins with $, such as {example}")
    walked: list[Step] = []
    position = 1
    while position < len(path):
        step, position = _next(path, position, places)
        walked.append(step)
    return tuple(walked)


def refused(path: object, *, places: bool = False) -> str | None:
    """Say why something is no path, ``None`` where it is one.

    >>> refused("$.items[].price"), refused('$["odd key"]'), refused("$")
    (None, None, None)
    >>> refused("price")
    "'price' is no path: it begins with $, such as $.price or $.items[].price"
    >>> refused("$.items[0].price")
    "'$.items[0].price' names one place of an array: [] is every place, and no other can be named"
    """
    if not isinstance(path, str):
        return f"{path!r} is no path: it is text such as $.price"
    try:
        steps(path, places=places)
    except ValueError as error:
        return str(error)
    return None


def at(value: Any, walked: Steps) -> list[Any]:
    """Return what stands at a path of a value: one thing at most, but for every place of an array.

    >>> at({"items": [{"id": 1}, {"price": None}]}, steps("$.items[].price")), at({}, steps("$.total"))
    ([None], [])
    """
    standing = [value]
    for step in walked:
        below: list[Any] = []
        for inner in standing:
            if isinstance(step, str):
                below += [inner[step]] if isinstance(inner, Mapping) and step in inner else []
            elif isinstance(inner, list):
                below += inner[step : step + 1] if isinstance(step, int) else inner
        standing = below
    return standing


def written(walked: Steps) -> str:
    """Return steps as a path that :func:`steps` reads.

    >>> written(steps('$["items"][]["odd key"]'))
    '$.items[]["odd key"]'
    """
    path = "$"
    for step in walked:
        path = child(path, step) if isinstance(step, str) else f"{path}[{step if isinstance(step, int) else ''}]"
    return path


def anywhere(path: str) -> str:
    """Return a path with the places of arrays left out: ``$.items[].price``."""
    return written(tuple(EVERYWHERE if isinstance(step, int) else step for step in steps(path, places=True)))


def _next(path: str, position: int, places: bool) -> tuple[Step, int]:
    if match := _NAME.match(path, position):
        if match[1] != match[1].strip():
            raise ValueError(f"{path!r} is no path: there is white space beside a name")
        return match[1], match.end()
    if match := _QUOTED.match(path, position):
        try:
            return str(json.loads(match[1])), match.end()
        except ValueError as error:
            raise ValueError(f"{path!r} is no path: {match[1]} is no JSON string") from error
    match = _PLACE.match(path, position)
    if match is None:
        raise ValueError(
            f'{path!r} is no path: a name stands behind a dot or in brackets and double quotes, as $.size or $["size"]'
        )
    if places and not match[1]:
        raise ValueError(f"{path!r} names every place of an array, and one is wanted, such as [0]")
    if match[1] and not places:
        raise ValueError(f"{path!r} names one place of an array: [] is every place, and no other can be named")
    if len(match[1]) > _DIGITS:
        raise ValueError(f"{path[:40]!r}… names a place that no array has")
    return (int(match[1]) if match[1] else EVERYWHERE), match.end()
