"""The entries of a YAML file: text as it is written, numbers where numbers are meant, and nothing that explodes.

YAML's own reading of plain scalars turns ``02142`` into 1122, ``3.10`` into 3.1 and ``no`` into false. A prompt file is
mostly text, so what a scalar is follows from where it stands (:class:`Meant`), not from how it looks.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_llmparity.core.words.problems import dotted, given

MAX_DEPTH: Final = 64
"""Levels of nesting in an entry; deeper ones are refused before they exhaust the interpreter's stack."""
MAX_VALUES: Final = 200_000
"""Values in an entry, counted after YAML aliases: a few lines of nested aliases can stand for billions."""
MAX_TEXT: Final = 16 * 2**20
"""Characters in an entry, counted after YAML aliases and variables."""
MAX_FILE: Final = 32 * 2**20
"""Characters of a YAML file; JSON Lines are read line by line and may be larger."""
MAX_ALIASED: Final = 1_000_000
"""Values that the aliases of a whole file may stand for; the limit of their characters is four times ``MAX_TEXT``."""


class Meant(enum.Enum):
    """What a scalar in one place of an entry is meant to be.

    ``TEXT``: what is written. ``NAME``: the same, but null means that the key should not be there. ``ANSWER``: the
    content of an assistant's turn, where null is null. ``NUMBER``: a number, true, false or null; other words stay
    text, which is then refused. ``SCHEMA``: JSON, most of it JSON Schema, whose keywords say what is text;
    ``PROPERTIES``: schemas by the user's own names. ``DATA``: JSON. In these three a word that JSON does not read, but
    YAML readers take for a number or a truth value, is refused.
    """

    TEXT = enum.auto()
    NAME = enum.auto()
    ANSWER = enum.auto()
    NUMBER = enum.auto()
    SCHEMA = enum.auto()
    PROPERTIES = enum.auto()
    DATA = enum.auto()


Rules = Mapping[str, "Meant | Rules"]
"""What stands below each key; a rule holds for the items of a list too."""

_CALL: Final[Rules] = {
    "id": Meant.TEXT,
    "type": Meant.TEXT,
    "function": {"name": Meant.TEXT, "arguments": Meant.DATA},
}
_TURN: Final[Rules] = {
    "role": Meant.TEXT,
    "content": Meant.TEXT,
    "name": Meant.NAME,
    "tool_call_id": Meant.NAME,
    "refusal": Meant.ANSWER,
    "tool_calls": _CALL,
}
_ENTRY: Final[Rules] = {
    "id": Meant.TEXT,
    "group": Meant.NAME,
    "prompt": Meant.TEXT,
    "vars": Meant.TEXT,
    "tags": Meant.TEXT,
    "messages": _TURN,
    "sampling": {"stop": Meant.NAME},
    "tools": Meant.SCHEMA,
    "tool_choice": Meant.SCHEMA,
    "tool_results": Meant.DATA,
    "response_format": Meant.SCHEMA,
    "stop": Meant.NAME,
    "parallel_tool_calls": Meant.SCHEMA,
    "extra_body": Meant.SCHEMA,
    "reasoning_effort": Meant.TEXT,
    "chat_template_kwargs": Meant.SCHEMA,
    "expect": {"schema": Meant.SCHEMA, "answer": Meant.TEXT, "tool": Meant.TEXT, "contains": Meant.TEXT},
}

_WORDS: Final = frozenset(
    {
        *("$anchor", "$comment", "$id", "$ref", "$schema", "contentEncoding", "contentMediaType", "description"),
        *("format", "name", "pattern", "title", "type"),
    }
)
"""Keywords of JSON Schema and of tools whose value is text."""
_NUMBERS: Final = frozenset({"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"})
"""Keywords whose value is a number that may be a fraction."""
_VALUES: Final = frozenset({"const", "default", "enum", "examples"})
"""Keywords whose value is one the schema describes."""
_NAMED: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords below which the keys are names."""

_JSON_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_DECIMAL: Final = re.compile(r"[-+]?(?:[1-9][0-9]*\.?[0-9]*|0(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SCIENTIFIC: Final = re.compile(r"-?[0-9]\.[0-9]+[eE][+-][0-9]+")  # a number to every reader of YAML
_CONSTANTS: Final = {"true": True, "false": False, "null": None}
_NULLS: Final = frozenset({"null", "Null", "NULL", "~", ""})
_TRUTHS: Final = frozenset({"yes", "no", "on", "off", "true", "false"})
_OTHER_NUMBER: Final = re.compile(
    r"[-+]?(?:0[0-7_]+|0b[01_]+|0o[0-7]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?|[0-9][0-9_]*"
    r"|[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)
"""What YAML 1.1 or 1.2 takes for a number."""


@dataclass(frozen=True, slots=True)
class _Scalar:
    """``plain`` scalars stand without quotes and without a tag."""

    text: str
    plain: bool
    line: int
    depth: int = 0
    size: int = 1

    @property
    def chars(self) -> int:
        return len(self.text)


@dataclass(slots=True)
class _List:
    line: int
    items: list[_Node] = field(default_factory=list)
    depth: int = 1
    size: int = 1
    chars: int = 0


@dataclass(slots=True)
class _Map:
    line: int
    items: dict[str, _Node] = field(default_factory=dict)
    merged: list[_Map] = field(default_factory=list)
    key: _Scalar | None = None
    depth: int = 1
    size: int = 1
    chars: int = 0


_Node = _Scalar | _List | _Map


class _Refused(Exception):
    """The file cannot be read on: line and reason."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line, self.reason = line, reason


def yaml_entries(text: str, problems: list[tuple[int, str]]) -> Iterator[tuple[int, object]]:
    """Yield line and value of every entry of a YAML list; what is wrong goes to ``problems`` with its line.

    A file that cannot be read on (no YAML, nested too deeply, aliases that stand for too much) ends there.
    """
    import yaml  # only who writes YAML pays for it

    if len(text) > MAX_FILE:
        problems.append((1, f"has {len(text)} characters, more than the {MAX_FILE} read as YAML; use JSON Lines"))
        return
    try:
        # Whole before the first is read: what its aliases stand for is counted.
        entries = list(_entries(text, problems))
        for line, entry in entries:
            before = len(problems)
            value = _Reading(problems).value(entry, _ENTRY, ())
            if len(problems) == before:
                yield line, value
    except _Refused as refused:
        problems.append((refused.line, refused.reason))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        problems.append((mark.line + 1 if mark else _line_of(error, text), f"not YAML: {problem}"))
    except UnicodeEncodeError as error:
        line = 1 + text.count("\n", 0, error.start)
        problems.append((line, "holds half a character (a lone surrogate), which no server can be sent"))


def _line_of(error: Exception, text: str) -> int:
    """Return the line of an error that only knows its offset (an unprintable character): bytes, in libyaml's reader."""
    return 1 + text.encode()[: getattr(error, "position", 0)].count(b"\n")


def _entries(text: str, problems: list[tuple[int, str]]) -> Iterator[tuple[int, _Node]]:
    """Yield line and node of each item of the list a YAML text holds, as it ends."""
    import yaml

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # libyaml is forty times as fast, and not in every build
    tree = _Tree(problems)
    stack: list[_List | _Map] = []
    root, documents = None, 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _Refused(_line(event), "a second YAML document begins; a prompt file is one list")
        if not isinstance(event, yaml.NodeEvent):
            if not isinstance(event, yaml.CollectionEndEvent):
                continue
            closed = stack.pop()
            node: _Node = tree.ended(closed) if stack else closed
        elif isinstance(event, yaml.CollectionStartEvent):
            if root is None and not isinstance(event, yaml.SequenceStartEvent):
                raise _Refused(_line(event), "expected a list of cases, each starting with '- id: …'")
            stack.append(tree.began(event, len(stack)))
            root = root or stack[0]
            continue
        else:
            node = tree.leaf(event)
        if stack and stack[-1] is root:
            yield (_line(event) if isinstance(event, yaml.AliasEvent) else node.line), node
        elif stack:
            tree.put(stack[-1], node, _line(event))
        elif node is not root and not (isinstance(node, _Scalar) and node.plain and not node.text):
            raise _Refused(node.line, "expected a list of cases, each starting with '- id: …'")


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


class _Tree:
    """Builds nodes from the parser's events; what aliases stand for is counted before anything is copied."""

    def __init__(self, problems: list[tuple[int, str]]) -> None:
        self._problems = problems
        self._anchors: dict[str, _Node] = {}
        self._open: dict[int, str] = {}
        self._aliased = self._aliased_chars = 0

    def began(self, event: Any, depth: int) -> _List | _Map:
        import yaml

        line = _line(event)
        if depth > MAX_DEPTH:
            raise _Refused(line, f"nested deeper than {MAX_DEPTH} levels")
        _no_tag(event, line)
        node: _List | _Map = _List(line) if isinstance(event, yaml.SequenceStartEvent) else _Map(line)
        if event.anchor:
            self._open[id(node)] = event.anchor
            self._anchors.pop(event.anchor, None)
        return node

    def leaf(self, event: Any) -> _Node:
        import yaml

        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), line)
        _no_tag(event, line)
        node = _Scalar(event.value, plain=bool(event.implicit[0]) and event.tag is None, line=line)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, name: str, line: int) -> _Node:
        node = self._anchors.get(name)
        if node is None:
            inside = name in self._open.values()
            raise _Refused(line, f"*{name} {'stands inside what it names' if inside else 'names no anchor above it'}")
        self._aliased += node.size
        self._aliased_chars += node.chars
        if self._aliased > MAX_ALIASED or self._aliased_chars > 4 * MAX_TEXT:
            raise _Refused(
                line, f"the aliases of this file stand for more than {MAX_ALIASED} values or {4 * MAX_TEXT} characters"
            )
        return node

    def put(self, into: _List | _Map, node: _Node, line: int) -> None:
        if isinstance(into, _List):
            into.items.append(node)
            _grow(into, node)
        elif into.key is None:
            if not isinstance(node, _Scalar):
                raise _Refused(line, "a key is a list or a mapping; keys are text")
            into.key = node
        else:
            key, into.key = into.key, None
            if key.plain and key.text == "<<":
                parts = node.items if isinstance(node, _List) else [node]
                into.merged += [part for part in parts if isinstance(part, _Map)]
                if not all(isinstance(part, _Map) for part in parts):
                    raise _Refused(line, "<< takes over the keys of a mapping, and what stands there is none")
            elif key.text in into.items:
                self._problems.append((key.line, f"key {given(key.text)} is given twice"))
            else:
                into.items[key.text] = node
                into.chars += key.chars
                _grow(into, node)

    def ended(self, node: _List | _Map) -> _List | _Map:
        if isinstance(node, _Map):
            for key, value in ((key, value) for part in node.merged for key, value in part.items.items()):
                if key not in node.items:  # what a mapping says itself wins over what it takes over
                    node.items[key] = value
                    _grow(node, value)
        if node.depth > MAX_DEPTH:
            raise _Refused(node.line, f"nested deeper than {MAX_DEPTH} levels")
        if node.size > MAX_VALUES:
            raise _Refused(node.line, f"holds more than {MAX_VALUES} values")
        if node.chars > MAX_TEXT:
            raise _Refused(node.line, f"holds more than {MAX_TEXT} characters")
        if (anchor := self._open.pop(id(node), None)) is not None:
            self._anchors[anchor] = node
        return node


def _grow(into: _List | _Map, node: _Node) -> None:
    into.size += node.size
    into.chars += node.chars
    into.depth = max(into.depth, node.depth + 1)


def _no_tag(event: Any, line: int) -> None:
    if event.tag not in (None, "!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"):
        tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
        raise _Refused(line, f"not YAML that is read here: the tag {given(tag)}; write the value without it")


class _Reading:
    """Turns nodes into values by what is meant in their place."""

    def __init__(self, problems: list[tuple[int, str]]) -> None:
        self._problems = problems

    def value(self, node: _Node, rule: Meant | Rules, place: tuple[str | int, ...]) -> Any:
        """Return a node as JSON builtins; what cannot be told is a problem."""
        if isinstance(node, _List):
            return [self.value(item, rule, (*place, index)) for index, item in enumerate(node.items)]
        if isinstance(node, _Map):
            return {key: self.value(item, _below(rule, key, node), (*place, key)) for key, item in node.items.items()}
        if not node.plain:
            return node.text
        return self._scalar(node, rule if isinstance(rule, Meant) else Meant.NUMBER, place)

    def _scalar(self, node: _Scalar, meant: Meant, place: tuple[str | int, ...]) -> Any:
        text = node.text
        if text in _NULLS and meant in (Meant.NAME, Meant.ANSWER, Meant.NUMBER):
            return None
        if text == "":
            return self._problem(node, place, 'has no value; write "" for an empty text, or leave the key out')
        if meant in (Meant.TEXT, Meant.NAME, Meant.ANSWER):
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if meant is Meant.NUMBER:
            return _number(text) if _DECIMAL.fullmatch(text) else text
        if _JSON_NUMBER.fullmatch(text):
            number = _number(text)
            if json.dumps(number) == text or place[-1] in _NUMBERS or _SCIENTIFIC.fullmatch(text):
                return number
            advice = f"as a number it is {given(number)}: write that, or put it in quotes if it is text"
            return self._problem(node, place, f"is {given(text)}; {advice}")
        if text in _NULLS or text.lower() in _TRUTHS or _OTHER_NUMBER.fullmatch(text):
            advice = "write it as JSON has it (true, false, null, 12), or put it in quotes if it is text"
            return self._problem(node, place, f"is {text}, which YAML readers do not take for text; {advice}")
        return text

    def _problem(self, node: _Scalar, place: tuple[str | int, ...], words: str) -> None:
        self._problems.append((node.line, f"{dotted(place) or 'the case'} {words}"))


def _number(text: str) -> int | float | str:
    """Return the number; digits beyond any number a server reads stay text, which is refused where it stands."""
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return int(text) if len(text) <= 400 else text
    return float(text)


def _below(rule: Meant | Rules, key: str, node: _Map) -> Meant | Rules:
    """Return what is meant below a key of a mapping."""
    if not isinstance(rule, Meant):
        if rule is _TURN and key == "content":
            role = node.items.get("role")
            return Meant.ANSWER if isinstance(role, _Scalar) and role.text == "assistant" else Meant.TEXT
        return rule.get(key, Meant.NUMBER)
    if rule is Meant.PROPERTIES:
        return Meant.SCHEMA
    if rule is not Meant.SCHEMA:
        return rule
    inner = node.items[key]
    if key in _NAMED and isinstance(inner, _Map):
        return Meant.PROPERTIES
    if not isinstance(inner, _Map) and (key in _WORDS or (key == "required" and isinstance(inner, _List))):
        return Meant.TEXT
    if key in _VALUES:
        kinds = _texts(node.items.get("type"))
        return {("string",): Meant.TEXT, ("null", "string"): Meant.ANSWER}.get(kinds, Meant.DATA)
    return rule


def _texts(node: _Node | None) -> tuple[str, ...]:
    parts: Sequence[_Node] = node.items if isinstance(node, _List) else [node] if isinstance(node, _Scalar) else []
    return tuple(sorted(part.text for part in parts if isinstance(part, _Scalar)))
