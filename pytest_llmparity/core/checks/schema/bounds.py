"""How much work a schema can make of one value: a few lines that refer to each other can ask for years of it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote, urljoin

MOST_TRIES: Final = 100_000
"""How many schemas one value may be held against, those of its parts aside: milliseconds."""
LONGEST_CHAIN: Final = 400
"""How many references and branches may lead on from one another before something is asked of the value."""
_LISTS: Final = ("allOf", "anyOf", "oneOf")
_SINGLE: Final = ("not", "if", "then", "else")
_BY_KEY: Final = ("dependentSchemas", "dependencies")
_ANCHORS: Final = ("$anchor", "$dynamicAnchor")
_NAMES: Final = ("$id", "id", *_ANCHORS)
_HERE: Final = "http:///"
"""The address of a schema that has none."""


def unbounded(schema: Mapping[str, Any]) -> str | None:
    """Say why no answer can be held against a schema in bounded time, ``None`` where it can.

    Counted is what is asked of one value: references and branches that stand for the same value, each as often as it is
    come to. What goes in a circle is come to once. References to other documents are nobody's business here; those by
    ``$id`` to what stands in this one are followed.

    >>> doubled = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)}
    >>> unbounded({"$defs": {**doubled, "d30": {}}, "$ref": "#/$defs/d0"})
    'it holds one value against more than 100000 schemas, which refer to each other again and again'
    """
    places = list(_tables(schema))
    references = _References(schema)
    counted: dict[int, int] = {}
    under_way: set[int] = set()

    def tries(table: Mapping[str, Any], chain: int) -> int:
        if id(table) in under_way:
            return 1
        if id(table) not in counted:
            if chain > LONGEST_CHAIN:
                raise OverflowError
            under_way.add(id(table))
            total = 1 + sum(tries(part, chain + 1) for part in _same_value(table, references))
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
    except RecursionError:  # whoever asks may be deep in calls himself
        return "more references lead on from one another than Python follows from here"
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


class _References:
    """The schemas of a document by what references call them: their ``$id``, their anchor, a place below either.

    Where two schemas have one name all of them are meant, and a schema that changes its base is read by both bases:
    drafts differ in which counts, and what is bounded for all is bounded for one.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._roots: dict[str, list[Mapping[str, Any]]] = {_HERE: [schema]}
        self._anchors: dict[str, list[Mapping[str, Any]]] = {}
        self._bases: dict[int, set[str]] = {}
        waiting: list[tuple[Any, str]] = [(schema, _HERE)]
        while waiting:
            part, base = waiting.pop()
            if isinstance(part, Mapping):
                bases = self._bases.setdefault(id(part), set())
                bases.add(base)
                for name in _NAMES:
                    if isinstance(named := part.get(name), str):
                        base = self._name(part, named, base, anchor=name in _ANCHORS)
                bases.add(base)
                waiting.extend((below, base) for below in part.values())
            elif isinstance(part, list):
                waiting.extend((below, base) for below in part)

    def _name(self, part: Mapping[str, Any], named: str, base: str, *, anchor: bool) -> str:
        """Write down what a schema is called, and return the base of what stands below it."""
        if anchor or named.startswith("#"):
            self._anchors.setdefault(named.removeprefix("#"), []).append(part)
            return base
        base = _joined(base, named).partition("#")[0]
        self._roots.setdefault(base, []).append(part)
        return base

    def meant(self, table: Mapping[str, Any], reference: str) -> Iterator[Mapping[str, Any]]:
        """Yield the schemas of this document that a reference in ``table`` may stand for, each once."""
        yielded: set[int] = set()
        for base in self._bases.get(id(table), {_HERE}):
            address, _, fragment = _joined(base, reference).partition("#")
            for root in self._roots.get(address, ()):
                below: Sequence[Mapping[str, Any] | None] = [root] if not fragment else self._anchors.get(fragment, [])
                for schema in [_at(root, fragment)] if fragment.startswith("/") else below:
                    if schema is not None and id(schema) not in yielded:
                        yielded.add(id(schema))
                        yield schema


def _joined(base: str, reference: str) -> str:
    """Return the address of a reference, the same for all spellings of one: the scheme does not count."""
    address, hash_, fragment = reference.partition("#")
    address = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*:/*", "http://", unquote(address))
    try:
        whole = urljoin(base, address) if address else base
    except ValueError:  # no address that anybody can read ("order:[1]" of an example): it names nothing but itself
        whole = f"http:///{quote(address, safe='')}"
    authority, slash, path = whole.removeprefix("http://").partition("/")
    path = posixpath.normpath((slash or "/") + path)
    return f"http://{authority.lower()}{path}{hash_}{fragment}"


def _same_value(table: Mapping[str, Any], references: _References) -> Iterator[Mapping[str, Any]]:
    """Yield the schemas that the value of a schema is held against too."""
    for name in _LISTS:
        branches = table.get(name)
        for branch in branches if isinstance(branches, list) else ():
            if isinstance(branch, Mapping):
                yield branch
    for name in _SINGLE:
        if isinstance(part := table.get(name), Mapping):
            yield part
    for name in _BY_KEY:
        listed = table.get(name)
        for part in listed.values() if isinstance(listed, Mapping) else ():
            if isinstance(part, Mapping):  # a list of names asks for no more than they
                yield part
    for name in ("$ref", "$dynamicRef", "$recursiveRef"):
        if isinstance(reference := table.get(name), str):
            yield from references.meant(table, reference)


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
