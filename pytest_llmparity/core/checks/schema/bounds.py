"""How much work a schema can make of one value: a few lines that refer to each other can ask for years of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

MOST_TRIES: Final = 100_000
"""How many schemas one value may be held against, those of its parts aside: milliseconds."""
LONGEST_CHAIN: Final = 400
"""How many references and branches may lead on from one another before something is asked of the value."""
_LISTS: Final = ("allOf", "anyOf", "oneOf")
_SINGLE: Final = ("not", "if", "then", "else")


def unbounded(schema: Mapping[str, Any]) -> str | None:
    """Say why no answer can be held against a schema in bounded time, ``None`` where it can.

    Counted is what is asked of one value: references and branches that stand for the same value, each as often as it is
    come to. What goes in a circle is come to once. References to other documents are nobody's business here.

    >>> doubled = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)}
    >>> unbounded({"$defs": {**doubled, "d30": {}}, "$ref": "#/$defs/d0"})
    'it holds one value against more than 100000 schemas, which refer to each other again and again'
    """
    places = list(_tables(schema))
    anchors = {table["$anchor"]: table for table in places if isinstance(table.get("$anchor"), str)}
    counted: dict[int, int] = {}
    under_way: set[int] = set()

    def tries(table: Mapping[str, Any], chain: int) -> int:
        if id(table) in under_way:
            return 1
        if id(table) not in counted:
            if chain > LONGEST_CHAIN:
                raise OverflowError
            under_way.add(id(table))
            total = 1 + sum(tries(part, chain + 1) for part in _same_value(schema, table, anchors))
            under_way.discard(id(table))
            counted[id(table)] = min(total, MOST_TRIES + 1)
        return counted[id(table)]

    try:
        if any(tries(table, 0) > MOST_TRIES for table in places):
            return (
                f"it holds one value against more than {MOST_TRIES} schemas, which refer to each other again and again"
            )
    except OverflowError:
        return f"more than {LONGEST_CHAIN} references lead on from one another"
    return None


def _tables(schema: object) -> Iterator[Mapping[str, Any]]:
    """Yield every object of a schema, whatever it stands for."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _same_value(
    document: Mapping[str, Any], table: Mapping[str, Any], anchors: Mapping[str, Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """Yield the schemas that the value of a schema is held against too."""
    for name in _LISTS:
        branches = table.get(name)
        for branch in branches if isinstance(branches, list) else ():
            if isinstance(branch, Mapping):
                yield branch
    for name in _SINGLE:
        if isinstance(part := table.get(name), Mapping):
            yield part
    for name in ("$ref", "$dynamicRef"):
        reference = table.get(name)
        if isinstance(reference, str) and reference.startswith("#"):
            meant = anchors.get(reference[1:]) or _at(document, reference[1:])
            if meant is not None:
                yield meant


def _at(document: Mapping[str, Any], pointer: str) -> Mapping[str, Any] | None:
    """Return what stands at a JSON Pointer, ``None`` where no schema does."""
    standing: Any = document
    for step in unquote(pointer).split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(standing, Mapping):
            standing = standing.get(key)
        elif isinstance(standing, list) and key.isdigit() and int(key[:9]) < len(standing):
            standing = standing[int(key[:9])]
        else:
            return None
    return standing if isinstance(standing, Mapping) else None
