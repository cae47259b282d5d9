"""How two texts differ, in few numbers: by tokens, by characters, and by the fields of JSON and of tool calls."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from pytest_llmparity.core.compare.answers import token_ends
from pytest_llmparity.core.compare.json import ABSENT, diff_values, parse_json
from pytest_llmparity.core.late import distance
from pytest_llmparity.core.sample import Completion, ToolCall

LONGEST: Final = 6_000
"""Characters of the longer text up to which it is said how texts differ character by character."""
FIELDS: Final = 100
"""Fields that differ of which both values are shown."""
_VALUE: Final = 600
_WORDS: Final = re.compile(r"\s*\w+|\s*[^\w\s]|\s+")


def units(text: str) -> int:
    """Return the length of a text as JavaScript counts it.

    >>> units("né"), units("😀")
    (2, 2)
    """
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def by_characters(ours: str, theirs: str) -> list[int] | None:
    """Return :func:`edits` of the characters, ``None`` of texts so long that nobody would read it."""
    return None if max(len(ours), len(theirs)) > LONGEST else edits(ours, theirs)


def by_tokens(ours: Completion, theirs: Completion, texts: tuple[str, str]) -> tuple[str, list[int]]:
    """Return what the pieces are (``tokens``, where both engines told theirs, else ``words``) and their :func:`edits`.

    ``texts`` are the answers as they are shown.
    """
    if texts == (ours.text, theirs.text):
        pieces = _tokens(ours), _tokens(theirs)
        if pieces[0] and pieces[1]:
            return "tokens", edits(*pieces)
    return "words", edits(_WORDS.findall(texts[0]), _WORDS.findall(texts[1]))


def edits(ours: Sequence[str], theirs: Sequence[str]) -> list[int]:
    """Return lengths in turn: what both have, what only ours has, what only theirs has, then again.

    >>> edits(["one ", "two ", "three"], ["one ", "2 ", "three", "!"])
    [4, 4, 2, 5, 0, 1]
    """
    lengths = [0, 0, 0]
    for step in distance.Indel.opcodes(ours, theirs):
        kept, gone = "".join(ours[step.src_start : step.src_end]), step.tag == "delete"
        come = "".join(theirs[step.dest_start : step.dest_end])
        if step.tag == "equal":
            if any(lengths[-2:]):
                lengths += [0, 0, 0]
            lengths[-3] += units(kept)
        elif gone:
            lengths[-2] += units(kept)
        else:
            lengths[-1] += units(come)
    return lengths


def fields(ours: Completion, theirs: Completion) -> list[list[str]]:
    """Return path and both values of each field in which two answers differ, as JSON or as the arguments of calls."""
    if ours.tool_calls or theirs.tool_calls:
        return _calls(ours.tool_calls, theirs.tool_calls)[:FIELDS]
    values = parse_json(ours.text), parse_json(theirs.text)
    if any(parsed.error is not None or not isinstance(parsed.value, (dict, list)) for parsed in values):
        return []
    return _rows("", values[0].value, values[1].value)[:FIELDS]


def _calls(ours: Sequence[ToolCall], theirs: Sequence[ToolCall]) -> list[list[str]]:
    rows: list[list[str]] = []
    for place in range(max(len(ours), len(theirs))):
        here = ours[place] if place < len(ours) else None
        there = theirs[place] if place < len(theirs) else None
        name = f"call {place + 1}"
        if here is None or there is None or here.name != there.name:
            rows.append([name, _call(here), _call(there)])
            continue
        arguments = parse_json(here.arguments), parse_json(there.arguments)
        if all(parsed.error is None for parsed in arguments):
            rows += _rows(f"{name}, {here.name} ", arguments[0].value, arguments[1].value)
        elif here.arguments != there.arguments:
            rows.append([f"{name}, {here.name}", _cut(here.arguments), _cut(there.arguments)])
    return rows


def _call(call: ToolCall | None) -> str:
    return "absent" if call is None else _cut(f"{call.name} {call.arguments}")


def _rows(before: str, ours: Any, theirs: Any) -> list[list[str]]:
    differing = diff_values(ours, theirs)
    return [[before + field.path, _value(field.baseline), _value(field.candidate)] for field in differing]


def _value(value: Any) -> str:
    return "absent" if value is ABSENT else _cut(json.dumps(value, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= _VALUE else text[: _VALUE - 1] + "…"


def _tokens(answer: Completion) -> list[str]:
    """Return the tokens of an answer's text, none where they are not known; those that split a character are one."""
    ends = token_ends(answer)
    if not ends:
        return []
    spelled, begin, pieces = answer.text.encode("utf-8", "surrogatepass"), 0, list[str]()
    for end in ends:
        if end < len(spelled) and spelled[end] & 0xC0 == 0x80:
            continue
        pieces.append(spelled[begin:end].decode("utf-8", "surrogatepass"))
        begin = end
    return pieces
