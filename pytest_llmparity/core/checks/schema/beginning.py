"""The beginning of an answer that its token limit cut: whether anything that could follow would keep its schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeAlias

from pytest_llmparity.core.checks.schema.contract import Contract
from pytest_llmparity.core.compare.json import child
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.core.words import explain


@dataclass(frozen=True, slots=True)
class _Whole:
    value: Any


@dataclass(frozen=True, slots=True)
class _Open:
    """A value whose end is not there: its ``kind`` as schemas name it, what it holds so far."""

    kind: str
    text: str | None = None
    members: Sequence[tuple[str, _Value]] = field(default=())
    items: Sequence[_Value] = field(default=())


_Value: TypeAlias = _Whole | _Open | None


class _Broken(ValueError):
    """What stands there is no beginning of JSON, or holds a key twice."""


def broken_already(text: str, schema: Mapping[str, Any]) -> str | None:
    """Say why nothing that follows a beginning makes it JSON that keeps its schema, ``None`` where something may.

    Careful: of keywords that choose (``anyOf``, ``oneOf``, ``if``, ``not``) only values that are there whole say
    anything, a beginning in a code block or of reasoning says nothing, and so does one whose schema refers to anything
    but its own definitions.

    >>> integer = {"properties": {"n": {"type": "integer"}}, "additionalProperties": False}
    >>> broken_already('{"n": "abc', integer), broken_already('{"n": 1, "n": ', integer)
    ('$.n: begins as a string, and its type is integer', "$: the key 'n' stands there twice")
    >>> broken_already('{"n": 1', integer), broken_already('{"m', integer)
    (None, None)
    """
    stripped = text.lstrip()
    if not stripped or stripped[0] in "`<" or not _refers_to_its_own(schema):
        return None
    try:
        value, _ = _read(stripped, 0, "$")
        return next(_faults(value, schema, schema, "$"), None)
    except _Broken as error:
        return str(error)
    except (RecursionError, DesignError, re.error):  # re.error: a pattern that only ECMA-262 has
        return None


BLANK: Final = 40
"""White space at the end of a cut answer that is told: a grammar that allows it endlessly lets a model stay there."""


def blank_end(text: str) -> str:
    """Say how much white space a cut answer ends with, empty where it is little.

    >>> blank_end('{"n":' + 50 * " "), blank_end('{"n": ')
    ('; its last 50 characters are white space, which its constraint allows without end', '')
    """
    blank = len(text) - len(text.rstrip())
    ending = f"; its last {blank} characters are white space, which its constraint allows without end"
    return ending if blank >= BLANK else ""


_NUMBER_TO_THE_END: Final = re.compile(r"-?(?:[0-9][0-9.eE+-]*)?(?<=[0-9.eE+-])\Z")


# reading --------------------------------------------------------------------------------------------------------------


def _read(text: str, at: int, path: str) -> tuple[_Value, int]:
    """Return the value that begins at a place, and where it ends; ``None`` where nothing of it is there."""
    at = _past_blank(text, at)
    if at == len(text):
        return None, at
    if _NUMBER_TO_THE_END.match(text, at):
        return _Open("number"), len(text)
    try:
        value, end = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant).raw_decode(text, at)
    except json.JSONDecodeError:
        return _begun(text, at, path), len(text)
    return _Whole(value), end


def _begun(text: str, at: int, path: str) -> _Open:
    first, rest = text[at], text[at:]
    if first == "{":
        return _object(text, at + 1, path)
    if first == "[":
        return _array(text, at + 1, path)
    if first == '"':
        try:
            whole = re.sub(r"(?<!\\)((?:\\\\)*)\\(?:u[0-9a-fA-F]{0,3})?\Z", r"\1", rest)
            # Half of a pair of escapes is no character yet.
            return _Open("string", re.sub(r"[\ud800-\udbff]\Z", "", json.loads(whole + '"')))
        except json.JSONDecodeError:
            return _Open("string")
    for word, kind in (("true", "boolean"), ("false", "boolean"), ("null", "null")):
        if word.startswith(rest):
            return _Open(kind)
    raise _Broken(f"{path}: {explain.quote(rest, 40)} begins no JSON")


def _object(text: str, at: int, path: str) -> _Open:
    members: list[tuple[str, _Value]] = []
    while (at := _past_blank(text, at)) < len(text):
        try:
            key, at = json.JSONDecoder().raw_decode(text, at)
        except json.JSONDecodeError:
            if text[at] == '"':
                break  # the key is cut itself
            raise _Broken(f"{path}: {explain.quote(text[at:], 40)} is no key") from None
        if not isinstance(key, str):
            raise _Broken(f"{path}: {explain.quote(json.dumps(key), 40)} is no key")
        if key in dict(members):
            raise _Broken(f"{path}: the key {explain.quote(key, 40)} stands there twice")
        at = _past_blank(text, at)
        at = _past(text, at, ":", path)
        value, at = _read(text, at, child(path, key))
        members.append((key, value))
        at = _past(text, _past_blank(text, at), ",", path)
    return _Open("object", members=members)


def _array(text: str, at: int, path: str) -> _Open:
    items: list[_Value] = []
    while (at := _past_blank(text, at)) < len(text):
        value, at = _read(text, at, f"{path}[{len(items)}]")
        items.append(value)
        at = _past(text, _past_blank(text, at), ",", path)
    return _Open("array", items=items)


def _past(text: str, at: int, sign: str, path: str) -> int:
    """Return the place behind a sign that has to stand there, or the end."""
    if at < len(text) and text[at] != sign:
        raise _Broken(f"{path}: {explain.quote(text[at:], 40)} stands where {sign} is due")
    return min(at + 1, len(text))


def _past_blank(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise _Broken(f"the key {explain.quote(key, 40)} stands there twice")
        members[key] = value
    return members


def _no_constant(word: str) -> NoReturn:
    raise _Broken(f"{word} is no JSON")


# against the schema ---------------------------------------------------------------------------------------------------


def _faults(value: _Value, schema: object, root: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the faults of a beginning of JSON that no ending mends."""
    if value is None or schema is True:
        return
    if schema is False:
        yield f"{path}: nothing may stand here"
    if not isinstance(schema, Mapping):
        return
    if isinstance(value, _Whole):
        yield from _of_whole(value.value, schema, root, path)
        return
    if isinstance(named := schema.get("$ref"), str):
        yield from _faults(value, _named(named, root), root, path)
    for part in schema.get("allOf", ()):
        yield from _faults(value, part, root, path)
    yield from _of_kind(value, schema, path)
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for key, inner in value.members:
        own = [known[key]] if key in known else []
        own += [part for pattern, part in patterns.items() if re.search(pattern, key)]
        for part in own or [schema.get("additionalProperties", True)]:
            if part is False:
                yield f"{path}: the key {explain.quote(key, 40)} may not stand here"
            else:
                yield from _faults(inner, part, root, child(path, key))
    first = schema.get("prefixItems", ())
    for place, inner in enumerate(value.items):
        part = first[place] if place < len(first) else schema.get("items", True)
        yield from _faults(inner, part, root, f"{path}[{place}]")


def _of_whole(value: object, schema: Mapping[str, Any], root: Mapping[str, Any], path: str) -> Iterator[str]:
    defined = {key: root[key] for key in _DEFINITIONS if key in root}
    problem = Contract({**defined, **schema}, "schema").hold(Completion(text=json.dumps(value))).problem
    if problem is not None:
        yield path + problem.removeprefix("$")


def _of_kind(value: _Open, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    kinds = [schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type")
    taken = {value.kind, "integer"} if value.kind == "number" else {value.kind}
    if kinds is not None and taken.isdisjoint(kinds):
        yield f"{path}: begins as {_AN.get(value.kind, 'a')} {value.kind}, and its type is {' or '.join(kinds)}"
    allowed = [schema["const"]] if "const" in schema else schema.get("enum")
    if allowed is not None and not any(_may_become(value, wanted) for wanted in allowed):
        shown = explain.quote(", ".join(json.dumps(wanted, ensure_ascii=False) for wanted in allowed), 60)
        yield f"{path}: begins none of {shown}"
    for key, size in (
        ("maxLength", len(value.text or "")),
        ("maxItems", len(value.items)),
        ("maxProperties", len(value.members)),
    ):
        if isinstance(limit := schema.get(key), int) and size > limit:
            yield f"{path}: is larger already than its {key}, {limit}"


_AN: Final = {"object": "an", "array": "an"}
_DEFINITIONS: Final = ("$schema", "$defs", "definitions")


def _may_become(value: _Open, wanted: object) -> bool:
    if isinstance(wanted, str):
        return value.kind == "string" and wanted.startswith(value.text or "")
    kinds: dict[type, str] = {bool: "boolean", type(None): "null", dict: "object", list: "array"}
    return value.kind == kinds.get(type(wanted), "number")


def _named(reference: str, root: Mapping[str, Any]) -> object:
    part: object = root
    for step in reference.removeprefix("#/").split("/"):
        part = part.get(step.replace("~1", "/").replace("~0", "~"), True) if isinstance(part, Mapping) else True
    return part


def _refers_to_its_own(schema: object) -> bool:
    if isinstance(schema, Mapping):
        named = schema.get("$ref")
        own = not isinstance(named, str) or named.startswith(("#/$defs/", "#/definitions/"))
        return own and "$dynamicRef" not in schema and all(map(_refers_to_its_own, schema.values()))
    return not isinstance(schema, list) or all(map(_refers_to_its_own, schema))
