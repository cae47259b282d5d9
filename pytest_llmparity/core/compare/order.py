"""The order in which the keys of JSON answers came, held against the order in which a schema declares them.

A constrained decoder writes the declared order; an engine that answers in another one forces its own (ENGINES 1.9).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeAlias
from urllib.parse import unquote

from pytest_llmparity.core.compare.json import child
from pytest_llmparity.core.late import jsonschema_rs

if TYPE_CHECKING:
    from jsonschema_rs import Validator

NOT_FETCHED: Final = "no schema is fetched"
_SHARED: Final = ("$schema", "$defs", "definitions")
"""What of a document its parts refer to."""
_STEPS: Final = 32
"""How many references and unions are followed from one place: they may go in circles."""


class _Rule(NamedTuple):
    """One plain schema: the places in the document of what its properties and items must be, or of its branches."""

    properties: Mapping[str, str]
    names: Sequence[str]
    others: str | None
    first: Sequence[str]
    items: str | None
    branches: Sequence[str]


_Path: TypeAlias = "tuple[()] | tuple[_Path, str | int]"
"""A place in a value: the place above it, and the key or index there; put in words only where keys have moved."""


def _in_words(path: _Path) -> str:
    """Return a place as ``$.items[0].name``."""
    steps: list[str | int] = []
    while path:
        path, step = path
        steps.append(step)
    words = "$"
    for step in reversed(steps):
        words = child(words, step) if isinstance(step, str) else f"{words}[{step}]"
    return words


class KeyOrder:
    """Tells which objects of a value have their keys in another order than a schema's ``properties`` declare them.

    Keys the schema does not name are passed over. Follows ``properties``, ``items``, ``prefixItems``,
    ``additionalProperties`` and local ``$ref``; of ``anyOf``, ``oneOf`` and ``allOf`` only a branch that alone is valid
    for the value, so an ambiguous union is never reported. Nothing is fetched.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._rules: dict[str, _Rule | None] = {}
        self._telling: dict[str, bool] = {}
        self._validators: dict[str, Validator | None] = {}

    def moved(self, value: Any) -> list[str]:
        """Return the paths of objects whose keys come in another order, outer ones first."""
        paths: list[str] = []
        waiting: list[tuple[_Path, Any, str]] = [((), value, "")] if isinstance(value, (dict, list)) else []
        while waiting:
            path, part, place = waiting.pop()
            rule = self._rules.get(place)
            if rule is None or rule.branches:
                rule = self._plain(place, part)
            if rule is None:
                continue
            parts: list[tuple[_Path, Any, str]] = []
            if isinstance(part, dict):
                properties = rule.properties
                if list(part) != rule.names and (
                    [key for key in part if key in properties] != [key for key in rule.names if key in part]
                ):
                    paths.append(_in_words(path))
                for key, item in part.items():
                    if isinstance(item, (dict, list)):
                        below = properties.get(key, rule.others)
                        if below is not None and self._tells(below):
                            parts.append(((path, key), item, below))
            else:
                for index, item in enumerate(part):
                    if not isinstance(item, (dict, list)):
                        continue
                    below = rule.first[index] if index < len(rule.first) else rule.items
                    if below is not None:
                        parts.append(((path, index), item, below))
            waiting.extend(reversed(parts))
        return paths

    def _tells(self, place: str, steps: int = _STEPS) -> bool:
        """Whether two keys may be declared at a place or below it, so many steps deep: a single one has no order."""
        if place not in self._telling:
            self._telling[place] = True  # as long as it is looked for: a schema may hold itself
            rule = self._rule(place)
            below = [] if rule is None else [*rule.first, *rule.branches, *rule.properties.values()]
            below += [] if rule is None else filter(None, (rule.others, rule.items))
            declares = not steps or (rule is not None and len(rule.names) > 1)
            self._telling[place] = declares or any(self._tells(inner, steps - 1) for inner in below)
        return self._telling[place]

    def _plain(self, place: str, value: Any) -> _Rule | None:
        """Follow unions until a plain schema is reached; ``None`` where there is none or several branches fit."""
        for _ in range(_STEPS):
            rule = self._rule(place)
            if rule is None or not rule.branches:
                return rule
            fitting = [branch for branch in rule.branches if self._fits(branch, value)]
            if len(fitting) != 1:
                return None
            (place,) = fitting
        return None

    def _rule(self, place: str) -> _Rule | None:
        if place not in self._rules:
            self._rules[place] = self._read(place)
        return self._rules[place]

    def _read(self, place: str) -> _Rule | None:
        """Return the schema at a place (a JSON Pointer), references followed; ``None`` where there is none."""
        for _ in range(_STEPS):
            schema = self._at(place)
            if not isinstance(schema, Mapping):
                return None
            if "$ref" not in schema:
                break
            reference = schema["$ref"]
            if not isinstance(reference, str) or not reference.startswith("#"):
                return None
            place = unquote(reference[1:])
        else:
            return None
        declared, first = schema.get("properties"), schema.get("prefixItems")
        unions = [(name, schema[name]) for name in ("anyOf", "oneOf", "allOf") if isinstance(schema.get(name), list)]
        return _Rule(
            properties={key: f"{place}/properties/{_escaped(key)}" for key in declared}
            if isinstance(declared, Mapping)
            else {},
            names=list(declared) if isinstance(declared, Mapping) else [],
            others=f"{place}/additionalProperties" if "additionalProperties" in schema else None,
            first=[f"{place}/prefixItems/{index}" for index in range(len(first))] if isinstance(first, list) else [],
            items=f"{place}/items" if "items" in schema else None,
            branches=[]
            if isinstance(declared, Mapping)
            else [f"{place}/{name}/{index}" for name, union in unions for index in range(len(union))],
        )

    def _at(self, place: str) -> Any:
        part: Any = self._schema
        for step in place.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(part, Mapping) and name in part:
                part = part[name]
            elif isinstance(part, list) and name.isdecimal() and int(name) < len(part):
                part = part[int(name)]
            else:
                return None
        return part

    def _fits(self, place: str, value: Any) -> bool:
        """Whether a value is valid for one branch; false for a branch that is no usable schema."""
        if place not in self._validators:
            shared = {name: self._schema[name] for name in _SHARED if name in self._schema}
            try:
                branch = {**shared, "allOf": [self._at(place)]}
                self._validators[place] = jsonschema_rs.validator_for(branch, retriever=refuse_to_fetch)
            except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError):
                self._validators[place] = None
        validator = self._validators[place]
        return validator is not None and validator.is_valid(value)


class KeyOrders:
    """Tells of many values which have keys in another order than their schema; each value is looked at once.

    Several lines count the same answers, and cases with a schema of their own often have the same one.
    """

    def __init__(self) -> None:
        self._orders: dict[str, KeyOrder] = {}
        self._by_schema: dict[int, tuple[Mapping[str, Any], KeyOrder]] = {}
        self._known: dict[tuple[int, int], tuple[Any, bool]] = {}  # with the value, whose number would be used again

    def moved(self, value: Any, schema: Mapping[str, Any]) -> bool:
        """Whether an object in a value has its keys in another order."""
        key = (id(value), id(schema))
        if key not in self._known:
            self._known[key] = (value, bool(self._order(schema).moved(value)))
        return self._known[key][1]

    def _order(self, schema: Mapping[str, Any]) -> KeyOrder:
        if id(schema) not in self._by_schema:
            text = json.dumps(schema, default=dict)
            order = self._orders[text] if text in self._orders else self._orders.setdefault(text, KeyOrder(schema))
            self._by_schema[id(schema)] = (schema, order)
        return self._by_schema[id(schema)][1]


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def refuse_to_fetch(uri: str) -> NoReturn:
    """Raise ``ValueError``: what a schema refers to elsewhere is never looked up."""
    raise ValueError(f"{NOT_FETCHED}: {uri}")
