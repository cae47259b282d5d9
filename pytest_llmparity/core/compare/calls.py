"""Tool calls of answers: held against each other, written out as text, and found in a text that nobody read."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from pytest_llmparity.core.compare.json import diff_values, parse_json
from pytest_llmparity.core.sample import Completion, ToolCall

_BETWEEN: Final = re.compile(r'("(?:[^"\\]|\\.)*(?:"|\Z))|\s+', re.DOTALL)
"""A JSON string, kept as it is, or white space between two tokens; a string may be cut."""


def same_calls(ours: Sequence[ToolCall], theirs: Sequence[ToolCall]) -> bool:
    """Whether two answers call the same functions in the same order with the same arguments, as JSON values.

    >>> same_calls([ToolCall(name="f", arguments='{"a": 1}')], [ToolCall(name="f", arguments='{"a":1.0}')])
    True
    """
    if [call.name for call in ours] != [call.name for call in theirs]:
        return False
    return all(_same_arguments(a.arguments, b.arguments) for a, b in zip(ours, theirs, strict=True))


def in_words(answer: Completion) -> str:
    """Return an answer as one text, its calls written out with their arguments' keys in order."""
    return _written(answer, answer.text, sort=True)


def written_out(baseline: Completion, candidate: Completion) -> tuple[str, str]:
    """Return two answers, of which at least one calls tools, as texts that differ exactly where the answers do.

    A call is a line of its own: ``[call] name {"key":"value"}``. Text beside calls is left out where both call.
    """
    if not (baseline.tool_calls and candidate.tool_calls):
        return _written(baseline, baseline.text, sort=True), _written(candidate, candidate.text, sort=True)
    if same_calls(baseline.tool_calls, candidate.tool_calls):
        return (alike := _written(baseline, "", sort=True)), alike
    calls = (*baseline.tool_calls, *candidate.tool_calls)
    whole = all(parse_json(call.arguments).error is None for call in calls)  # of a cut call the order written is known
    return _written(baseline, "", sort=whole), _written(candidate, "", sort=whole)


def _written(answer: Completion, text: str, *, sort: bool) -> str:
    lines = [text] if text.strip() else []
    lines += [f"[call] {call.name} {_arguments(call.arguments, sort=sort)}" for call in answer.tool_calls]
    return "\n".join(lines)


def _arguments(text: str, *, sort: bool) -> str:
    parsed = parse_json(text)
    if parsed.error is not None or not sort:
        return _BETWEEN.sub(lambda match: match[1] or "", text)
    try:
        return json.dumps(parsed.value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except RecursionError:  # Python's writer gives up before the reader does
        return _BETWEEN.sub(lambda match: match[1] or "", text)


def _same_arguments(ours: str, theirs: str) -> bool:
    a, b = parse_json(ours), parse_json(theirs)
    if a.error is not None or b.error is not None:
        return ours == theirs
    return not diff_values(a.value, b.value)


def begin_alike(ours: str, theirs: str) -> bool:
    """Whether of two texts of arguments one goes on where the other ends, white space between their tokens aside.

    >>> begin_alike('{"a": 1', '{"a":12}'), begin_alike('{"a": 1', '{"a": 2}')
    (True, False)
    """
    a, b = (_BETWEEN.sub(lambda match: match[1] or "", text) for text in (ours, theirs))
    return a.startswith(b) or b.startswith(a)


# calls in the text ----------------------------------------------------------------------------------------------------

_BEGIN, _END = "<tool_call>", "</tool_call>"
_MARK: Final = re.compile(
    r"(?P<tag><tool_call>|\[TOOL_CALLS\]|<minimax:tool_call>|<start_function_call>|<function_call>|<\|python_tag\|>)\s*"
    r"|<function=[\w.-]+>|<\|tool_calls?(?:_section)?(?:_begin)?\|>\s*\S|<\|tool▁calls?▁begin\|>\s*\S"
    r"|<\|channel\|>commentary to=functions\.|<\|START_ACTION\|>\s*\S"
)
"""Marks by which models announce a call, of the families whose parsers vLLM, SGLang and llama.cpp have."""
_BLOCKS: Final = 64
"""Code blocks that are looked at: what is wrong in one is told by its line, which takes reading all before it."""
_CODE: Final = re.compile(r"```(\w*)[ \t]*\n\s*")
_PYTHON: Final = re.compile(r"\[?\s*([\w.-]+)\(")


def lost_call(text: str, names: Collection[str], *, asked_for_json: bool = False) -> int | None:
    """Return where a call stands in a text that nobody read out of it, ``None`` where there is none.

    Either it stands in tags of a model, or the text, or one of its first code blocks, begins with a call of an offered
    tool as JSON or Python: its name beside arguments. JSON is an answer where the prompt asks for JSON, and what is
    quoted in backticks is words about a call.

    >>> lost_call('Wait. <tool_call>{"name": "f"}', ["f"]), lost_call('{"name": "f", "parameters": {}}', ["f"])
    (6, 0)
    >>> lost_call('{"name": "Alice"}', ["f"]), lost_call("It writes `<tool_call>`.", ["f"])
    (None, None)
    """
    for match in _MARK.finditer(text):
        quoted = text[match.start() - 1 : match.start()] == "`"
        if not quoted and (not match["tag"] or _announced(text, match.end(), names)):
            return match.start()
    start = len(text) - len(text.lstrip())
    if _begins(text, start, names, asked_for_json=asked_for_json, python="["):
        return start
    for match in itertools.islice(_CODE.finditer(text), _BLOCKS):
        python = "" if match[1] == "tool_code" else "["
        if _begins(text, match.end(), names, asked_for_json=asked_for_json, python=python):
            return match.end()
    return None


def with_calls(answer: Completion) -> Completion:
    """Return an answer with the calls that stand in its text as calls; itself where there are none, or has calls.

    Only what stands in ``<tool_call>`` and its end is read.

    >>> text = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    >>> with_calls(Completion(text=text, finish_reason="stop")).tool_calls[0].name
    'f'
    """
    if answer.tool_calls:
        return answer
    spans = _in_tags(answer.text)
    calls = [call_of(parse_json(answer.text[begin + len(_BEGIN) : end]).value) for begin, end in spans]
    whole = tuple(call for call in calls if call is not None)
    if not whole or len(whole) < len(calls):
        return answer
    rest, position = [], 0
    for begin, end in spans:
        rest.append(answer.text[position:begin])
        position = end + len(_END)
    rest.append(answer.text[position:])
    finish = answer.finish_reason if answer.cut else "tool_calls"
    return msgspec.structs.replace(answer, text="".join(rest).strip(), tool_calls=whole, finish_reason=finish)


def call_of(value: Any) -> ToolCall | None:
    """Return the call that a JSON value spells, ``None`` where it names nothing.

    >>> (
    ...     call_of({"name": "f", "parameters": {"a": 1}}).arguments,
    ...     call_of({"name": "f", "arguments": '{"a": 1}'}).arguments,
    ... )
    ('{"a": 1}', '{"a": 1}')
    """
    if not isinstance(value, Mapping) or "name" not in value:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    try:
        written = arguments if isinstance(arguments, str) else json.dumps(arguments)
    except RecursionError:  # nested deeper than Python writes
        return None
    return ToolCall(name=str(value["name"]), arguments=written)


def _in_tags(text: str) -> list[tuple[int, int]]:
    """Return where objects in tags begin and end, each from its tag to the next end of one that stands behind it."""
    spans: list[tuple[int, int]] = []
    begin = text.find(_BEGIN)
    while begin >= 0:
        end = _object_end(text, begin + len(_BEGIN))
        if end is None:  # no object, or none that ends: then none behind it does
            begin = text.find(_BEGIN, begin + 1) if _first(text, begin + len(_BEGIN)) != "{" else -1
            continue
        spans.append((begin, end))
        begin = text.find(_BEGIN, end)
    return spans


def _object_end(text: str, position: int) -> int | None:
    if _first(text, position) != "{":
        return None
    end = text.find(_END, position)
    while end >= 0:
        last = end - 1
        while text[last].isspace():
            last -= 1
        if text[last] == "}":
            return end
        end = text.find(_END, end + 1)
    return None


def _first(text: str, position: int) -> str:
    while position < len(text) and text[position].isspace():
        position += 1
    return text[position : position + 1]


def _announced(text: str, position: int, names: Collection[str]) -> bool:
    """Whether what stands behind a tag is a call: an object, a list, another tag, or an offered name."""
    if text[position : position + 1] in ("{", "["):
        return True
    if text[position : position + 1] == "<":
        return text[position + 1 : position + 2] not in ("/", "")
    return any(
        text.startswith(name, position) and text[position + len(name) : position + len(name) + 1] in _BEHIND
        for name in names
    )


def _begins(text: str, position: int, names: Collection[str], *, asked_for_json: bool, python: str) -> bool:
    """Whether a call of an offered tool begins at a place, as JSON, or as Python that begins so."""
    first = text[position : position + 1]
    if first and (match := _PYTHON.match(text, position)) and match[0].startswith(python) and match[1] in names:
        return True
    if first not in ("{", "[") or asked_for_json:
        return False
    try:
        value, _ = _DECODER.raw_decode(text, position)
    except (ValueError, RecursionError):
        return False
    return any(_names_one(item, names) for item in (value if isinstance(value, list) else [value]))


def _names_one(value: Any, names: Collection[str]) -> bool:
    if not isinstance(value, Mapping):
        return False
    inner = value.get("function")
    if isinstance(inner, Mapping):
        return _names_one(inner, names)
    name = value.get("name", inner)
    return isinstance(name, str) and name in names and ("arguments" in value or "parameters" in value)


_BEHIND: Final = ("", "\n", "[", "<", "(", "{", ":")
_DECODER: Final = json.JSONDecoder()
