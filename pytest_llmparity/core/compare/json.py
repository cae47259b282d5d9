"""JSON: the one strict reader of it, and the fields in which two values differ."""

from __future__ import annotations

import enum
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import msgspec

_DIGIT = re.compile(r"[0-9]")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Absent(enum.Enum):
    """The one value :data:`ABSENT`: a field that is not there, which is not the same as ``null``."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent.ABSENT


class Parsed(msgspec.Struct, frozen=True, kw_only=True):
    """An answer read as JSON, or why it is none.

    With an ``error`` the ``value`` is ``None``.
    """

    value: Any = None
    error: str | None = None


class FieldDiff(msgspec.Struct, frozen=True, kw_only=True):
    """One field whose values differ; :data:`ABSENT` on the side that lacks it. ``path`` reads ``$.items[0].name``."""

    path: str
    baseline: Any
    candidate: Any


class NotJsonError(ValueError):
    """Accepted by Python's reader, but not JSON that anybody can rely on."""


def strict_json(text: str) -> Any:
    """Return the value of a JSON text; white space around it is fine, keys keep their order.

    NaN, Infinity, numbers beyond a double's range and duplicate keys raise ``NotJsonError``; what is no JSON at all
    ``json.JSONDecodeError``, what is nested too deeply ``RecursionError``.
    """
    # An integer that is out of range has a digit at one of those places.
    if "\\u" not in text and (len(text) <= _LONGEST_INTEGER or not _DIGIT.search(text[::_LONGEST_INTEGER])):
        try:
            value = _FAST.decode(text)
            # It takes a key twice and keeps one: quotes are then missing in what it writes.
            if _FAST_ENCODER.encode(value).count(b'"') == text.count('"'):
                return value
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
            pass  # the reader below takes it all the same, or says what is wrong
    return _slow_json(text)


def _slow_json(text: str) -> Any:
    """Return what :func:`strict_json` does, by Python's reader."""
    if text.startswith("\ufeff"):
        raise json.JSONDecodeError("Unexpected UTF-8 BOM", text, 0)
    return (_STRICT_SHORT if len(text) <= _LONGEST_INTEGER else _STRICT).decode(text)


def parse_json(text: str) -> Parsed:
    """Read the whole answer as one JSON value by :func:`strict_json`; never raises.

    ``compare.wrapped`` reads what has something round it.
    """
    try:
        return Parsed(value=strict_json(text))
    except json.JSONDecodeError as error:
        reason = "empty" if not text.strip() else f"{error.msg} at line {error.lineno} column {error.colno}"
        return Parsed(error=reason)
    except NotJsonError as error:
        return Parsed(error=str(error))
    except RecursionError:
        return Parsed(error="nested too deeply")


_FAULTS: Final = (
    ("empty", "no text"),
    ("is given twice", "a key twice"),
    ("numbers must be finite", "NaN or infinity"),
    ("is out of range", "a number out of range"),
    ("nested too deeply", "nested too deeply"),
    ("Extra data", "text after the JSON"),
)


def fault_of(error: str, *, cut: bool) -> str:
    """Return the class of what keeps an answer from being JSON, by the words of :func:`parse_json`.

    ``cut``: its token limit ended it, so that what is missing may be all that is wrong.

    >>> fault_of("Extra data at line 1 column 3", cut=False), fault_of("Expecting value at line 1 column 9", cut=True)
    ('text after the JSON', 'cut JSON')
    """
    for words, fault in _FAULTS:
        if words in error:
            return fault
    return "cut JSON" if cut else "no JSON"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key in counts if counts[key] > 1)
        raise NotJsonError(f'key "{_shorten(twice)}" is given twice')
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise NotJsonError(f"{name} is not JSON; numbers must be finite")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise NotJsonError(f"number {_shorten(text)} is out of range")
    return value


_LONGEST_INTEGER: Final = 400


def _integer(text: str) -> int:
    if len(text) > _LONGEST_INTEGER:  # a double ends at 309 digits, and Python refuses to convert beyond 4,300
        raise NotJsonError(f"number {_shorten(text)} is out of range")
    return int(text)


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


_FAST: Final = msgspec.json.Decoder()
_FAST_ENCODER: Final = msgspec.json.Encoder()
_STRICT: Final[Any] = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_integer
)
_STRICT_SHORT: Final[Any] = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite
)
"""For a text too short to hold an integer that is out of range."""


def diff_values(a: Any, b: Any) -> list[FieldDiff]:
    """Return the fields in which two parsed values differ, in the baseline's order, its extra and then the other's.

    The order of keys does not matter, the order of array items does. ``1`` equals ``1.0``; ``true`` is no number;
    strings must be the same to the character. Objects and arrays on both sides are descended into, anything else is
    reported whole.
    """
    differences: list[FieldDiff] = []
    waiting: list[tuple[str, Any, Any]] = [("$", a, b)]  # a stack of our own: values may be nested deeper than ours
    while waiting:
        path, ours, theirs = waiting.pop()
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            keys = [*ours, *(key for key in theirs if key not in ours)]
            parts = [(child(path, key), ours.get(key, ABSENT), theirs.get(key, ABSENT)) for key in keys]
            waiting.extend(reversed(parts))
        elif isinstance(ours, list) and isinstance(theirs, list):
            length = max(len(ours), len(theirs))
            parts = [(f"{path}[{index}]", _item(ours, index), _item(theirs, index)) for index in range(length)]
            waiting.extend(reversed(parts))
        elif not _same(ours, theirs):
            differences.append(FieldDiff(path=path, baseline=ours, candidate=theirs))
    return differences


def _item(values: list[Any], index: int) -> Any:
    return values[index] if index < len(values) else ABSENT


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return bool(a == b)


def child(path: str, key: str) -> str:
    """Return the path of a key below ``path``: ``.name`` where that is unambiguous, else ``["odd key"]``."""
    return f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}[{json.dumps(key)}]"
