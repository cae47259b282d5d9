"""JSON answers: strict reading, differences by field, and the order in which keys came."""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Absent(enum.Enum):
    """The one value :data:`ABSENT`: a field that is not there, which is not the same as ``null``."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent.ABSENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """An answer read as JSON, or why it is none.

    With an ``error`` the ``value`` is ``None``.
    """

    value: Any = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDiff:
    """One field whose values differ; :data:`ABSENT` on the side that lacks it. ``path`` reads ``$.items[0].name``."""

    path: str
    baseline: Any
    candidate: Any


class _NotJson(ValueError):
    """Accepted by Python's reader, but not JSON an application can rely on."""


def parse_json(text: str) -> Parsed:
    """Read the whole answer as one JSON value; never raises.

    White space around it is fine. Anything else around it, NaN, Infinity, numbers beyond a double's range and duplicate
    keys are errors. Keys keep their order. ``compare.wrapped`` reads what has something round it.
    """
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        reason = "empty" if not text.strip() else f"{error.msg} at line {error.lineno} column {error.colno}"
        return Parsed(error=reason)
    except _NotJson as error:
        return Parsed(error=str(error))
    except RecursionError:
        return Parsed(error="nested too deeply")
    return Parsed(value=value)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _NotJson(f"duplicate key {_shorten(key)!r}")
        found[key] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise _NotJson(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _NotJson(f"number {_shorten(text)} is out of range")
    return value


def _integer(text: str) -> int:
    if len(text) > 400:  # a double ends at 309 digits, and Python refuses to convert beyond 4,300
        raise _NotJson(f"number {_shorten(text)} is out of range")
    return int(text)


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def diff_values(a: Any, b: Any) -> list[FieldDiff]:
    """Return the fields in which two parsed values differ, in the baseline's order, its extra and then the other's.

    The order of keys does not matter, the order of array items does. ``1`` equals ``1.0``; ``true`` is no number;
    strings must be the same to the character. Objects and arrays on both sides are descended into, anything else is
    reported whole.
    """
    found: list[FieldDiff] = []
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
            found.append(FieldDiff(path=path, baseline=ours, candidate=theirs))
    return found


def _item(values: list[Any], index: int) -> Any:
    return values[index] if index < len(values) else ABSENT


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return bool(a == b)


def child(path: str, key: str) -> str:
    """Return the path of a key below ``path``: ``.name`` where that is unambiguous, else ``["odd key"]``."""
    return f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}[{json.dumps(key)}]"


def key_order(value: Any, schema: Mapping[str, Any]) -> list[str]:
    """Return the paths of objects whose keys come in another order than the schema's ``properties`` declare them.

    Keys the schema does not name are passed over. Follows ``properties``, ``items``, ``prefixItems``,
    ``additionalProperties`` and local ``$ref``; of ``anyOf``, ``oneOf`` and ``allOf`` only a branch that alone fits the
    value, so an ambiguous union is never reported. A constrained decoder writes the declared order; an engine that
    answers in another one forces its own (ENGINES 1.9).
    """
    found: list[str] = []
    waiting: list[tuple[str, Any, Any]] = [("$", value, schema)]
    while waiting:
        path, part, rule = waiting.pop()
        rule = _resolve(rule, part, schema)
        if rule is None:
            continue
        parts: list[tuple[str, Any, Any]] = []
        if isinstance(part, Mapping):
            declared = rule.get("properties")
            properties: Mapping[str, Any] = declared if isinstance(declared, Mapping) else {}
            if [key for key in part if key in properties] != [key for key in properties if key in part]:
                found.append(path)
            other = rule.get("additionalProperties")
            parts = [(child(path, key), item, properties.get(key, other)) for key, item in part.items()]
        elif isinstance(part, list):
            parts = [(f"{path}[{index}]", item, _item_rule(rule, index)) for index, item in enumerate(part)]
        waiting.extend(reversed(parts))
    return found


def _item_rule(rule: Mapping[str, Any], index: int) -> Any:
    first = rule.get("prefixItems")
    if isinstance(first, list) and index < len(first):
        return first[index]
    return rule.get("items")


def _resolve(rule: Any, value: Any, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Follow references and unions until a plain schema is reached; ``None`` where there is none or several fit."""
    for _ in range(32):  # references may go in circles
        if not isinstance(rule, Mapping):
            return None
        if "$ref" in rule:
            rule = _lookup(rule["$ref"], root)
            continue
        branches = [branch for union in ("anyOf", "oneOf", "allOf") for branch in _as_list(rule.get(union))]
        if not branches or isinstance(rule.get("properties"), Mapping):
            return rule
        fitting = [branch for branch in branches if _fits(branch, value, root)]
        if len(fitting) != 1:
            return None
        rule = fitting[0]
    return None


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _lookup(reference: Any, root: Mapping[str, Any]) -> Any:
    """Resolve a JSON Pointer into the same document (RFC 6901); ``None`` for anything else."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found: Any = root
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found


def _fits(branch: Any, value: Any, root: Mapping[str, Any]) -> bool:
    """Whether a branch of a union can describe the value, by its type, required keys and constants alone."""
    for _ in range(32):
        if not (isinstance(branch, Mapping) and "$ref" in branch):
            break
        branch = _lookup(branch["$ref"], root)
    if not isinstance(branch, Mapping):
        return False
    kinds = branch.get("type")
    if kinds is not None and not _has_type(value, kinds if isinstance(kinds, list) else [kinds]):
        return False
    if not isinstance(value, Mapping):
        return True
    declared = branch.get("properties")
    properties: Mapping[str, Any] = declared if isinstance(declared, Mapping) else {}
    if any(key not in value for key in _as_list(branch.get("required"))):
        return False
    if branch.get("additionalProperties") is False and any(key not in properties for key in value):
        return False
    return all(_constant_agrees(properties[key], item) for key, item in value.items() if key in properties)


def _constant_agrees(rule: Any, value: Any) -> bool:
    if not isinstance(rule, Mapping):
        return True
    if "const" in rule and not _same(rule["const"], value):
        return False
    return "enum" not in rule or any(_same(option, value) for option in _as_list(rule["enum"]))


def _has_type(value: Any, kinds: Sequence[Any]) -> bool:
    return any(kind in kinds for kind in _type_names(value))


def _type_names(value: Any) -> Iterator[str]:
    if value is None:
        yield "null"
    elif isinstance(value, bool):
        yield "boolean"
    elif isinstance(value, str):
        yield "string"
    elif isinstance(value, list):
        yield "array"
    elif isinstance(value, Mapping):
        yield "object"
    else:
        yield "number"
        if value == int(value):
            yield "integer"
