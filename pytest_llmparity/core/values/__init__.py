"""What an application returned, or what it raised, as an answer: written down as JSON, and read again."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from pytest_llmparity.core.compare.json import ABSENT, child, parse_json
from pytest_llmparity.core.sample import ApplicationCall, Completion

RETURNED: Final = "returned"
RAISED: Final = "raised"
"""How the ``finish_reason`` of such an answer says what its text is: a value as JSON, or an exception in words."""
DEEPEST: Final = 100
"""Levels of a value at most: what is deeper holds itself, or no application reads it."""
MOST: Final = 1_000_000
"""Parts of a value at most."""


class NotJson(ValueError):
    """A value has a part that JSON has no word for; the text says where, and of which type it is."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of an application came to: a ``value``, or the name of the type of exception that it ``raised``.

    ``text`` is the value as JSON, or the exception in words. ``calls`` are what it asked its engine, ``None``
    where that is not known.
    """

    value: Any = ABSENT
    raised: str = ""
    text: str = ""
    calls: tuple[ApplicationCall, ...] | None = None

    @property
    def returned(self) -> bool:
        """Whether there is a value."""
        return not self.raised

    @property
    def empty(self) -> bool:
        """Whether nothing was returned: ``None``, or a text or collection that holds nothing."""
        return self.returned and (self.value is None or (isinstance(self.value, (str, list, dict)) and not self.value))


def returned(value: object) -> Completion:
    """Return the answer that holds what an application returned; ``NotJson`` where JSON cannot.

    >>> returned({"queue": "billing", "score": 0.5}).text
    '{"queue": "billing", "score": 0.5}'
    """
    return Completion(text=json.dumps(plain(value), ensure_ascii=False), finish_reason=RETURNED)


def raised(error: BaseException) -> Completion:
    """Return the answer that an exception is: the name of its type, and what it says.

    >>> raised(KeyError("queue")).text
    "KeyError: 'queue'"
    """
    words = str(error).encode("utf-8", "replace").decode().strip()
    name = type(error).__name__
    return Completion(text=f"{name}: {words}" if words else name, finish_reason=RAISED)


def outcome_of(answer: Completion) -> Outcome:
    """Return what an answer of an application holds.

    >>> outcome_of(returned([1])).value, outcome_of(raised(KeyError("queue"))).raised
    ([1], 'KeyError')
    """
    if answer.finish_reason == RAISED:
        return Outcome(raised=answer.text.partition(":")[0], text=answer.text, calls=answer.calls)
    parsed = parse_json(answer.text)
    if parsed.error is not None:  # stored by another hand: never written by :func:`returned`
        return Outcome(raised="no JSON", text=answer.text)
    return Outcome(value=parsed.value, text=answer.text, calls=answer.calls)


def plain(value: object) -> Any:
    """Return a value as JSON has it: models of pydantic, data classes, tuples and enumerations taken apart.

    ``NotJson`` says where something stands that JSON has no word for. Nothing is guessed: a set has no order, a date no
    one form.

    >>> plain({"at": {1, 2}})
    Traceback (most recent call last):
    ...
    pytest_llmparity.core.values.NotJson: $.at is a set; JSON has none: return sorted(…)
    """
    left = MOST

    def taken(part: object, path: str, depth: int) -> Any:
        nonlocal left
        left -= 1
        if depth > DEEPEST or left < 0:
            why = f"nested deeper than {DEEPEST} levels" if depth > DEEPEST else f"of more than {MOST} parts"
            raise NotJson(f"the value is {why}")
        if isinstance(part, enum.Enum):
            part = part.value
        if part is None or isinstance(part, (bool, int, str)):
            if isinstance(part, int) and abs(part) >= _LONGEST:
                raise NotJson(f"{path} is a whole number of more than {_DIGITS} digits: return its str()")
            return _text(part, path) if isinstance(part, str) else part
        if isinstance(part, float):
            if not math.isfinite(part):
                raise NotJson(f"{path} is {part}; JSON has finite numbers only")
            return float(part)
        if isinstance(part, Mapping):
            return {_key(key, path): taken(inner, child(path, str(key)), depth + 1) for key, inner in part.items()}
        if isinstance(part, (list, tuple)):
            return [taken(inner, f"{path}[{place}]", depth + 1) for place, inner in enumerate(part)]
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
            return taken(fields, path, depth + 1)
        dump = getattr(part, "model_dump", None)
        if callable(dump) and not isinstance(part, type):
            return taken(dump(mode="json"), path, depth + 1)
        raise NotJson(f"{path} is {_named(part)}; JSON has none{_HINTS.get(type(part).__name__, '')}")

    return taken(value, "$", 0)


_DIGITS: Final = 308
"""A longer whole number may be beyond the range of a double, which no reader of JSON can rely on, nor does ours."""
_LONGEST: Final = 10**_DIGITS
_HINTS: Final = {
    "set": ": return sorted(…)",
    "frozenset": ": return sorted(…)",
    "bytes": ": return text",
    "datetime": ": return its isoformat()",
    "date": ": return its isoformat()",
    "Decimal": ": return str(…) or float(…)",
    "coroutine": ": await it",
    "generator": ": return list(…)",
}


def _key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise NotJson(f"{path} has the key {key!r}, which is {_named(key)}; keys of JSON are text")
    return _text(key, path)


def _text(text: str, path: str) -> str:
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise NotJson(f"{path} holds half a character (a lone surrogate)")
    return str(text)


def _named(value: object) -> str:
    kind = type(value)
    plainly = kind.__module__ in ("builtins", "datetime", "decimal")
    name = kind.__name__ if plainly else f"{kind.__module__}.{kind.__name__}"
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
