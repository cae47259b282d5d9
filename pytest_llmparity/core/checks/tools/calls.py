"""The tool calls of one answer: whether there are any, which, and what is wrong with them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from pytest_llmparity.core.checks.schema.contract import Contract
from pytest_llmparity.core.compare.answers import speechless
from pytest_llmparity.core.compare.json import ABSENT, diff_values, parse_json
from pytest_llmparity.core.prompts import NO_TOOL, Case
from pytest_llmparity.core.sample import Completion, ToolCall
from pytest_llmparity.core.words import explain

Arguments: TypeAlias = Literal["equal", "fits"] | tuple[str, ...]
Order: TypeAlias = Literal["any", "same"]

INVALID_JSON, UNKNOWN_NAME, MISMATCH, REASONING_ONLY, MARKUP, SWALLOWED = FAULTS = (
    "invalid JSON",
    "unknown name",
    "schema mismatch",
    "reasoning only",
    "markup left in the text",
    "swallowed",
)
"""What may be wrong with an answer that calls, or should have."""

_MARKUP: Final = re.compile(
    r"</?tool_call>|<\|tool_call(?:s_section)?(?:_begin)?\|>|<\|python_tag\|>|\[TOOL_CALLS\]|<function=\w|<\|tool▁calls?▁begin\|>"
    r"|<\|channel\|>commentary to=functions\.|<minimax:tool_call>|<\|START_ACTION\|>|<start_function_call>"
)
"""Marks by which models announce a call, of the families whose parsers vLLM, SGLang and llama.cpp have."""
_BARE: Final = re.compile(r'\A\s*[\[{]\s*"(?:name|function|type)"\s*:')
"""How an answer begins that is a call written out as JSON."""


class Fault(msgspec.Struct, frozen=True):
    """What is wrong: a class of :data:`FAULTS`, and words about this answer."""

    kind: str
    words: str


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer calls; ``cut`` says that a token limit ended it in a call, ``failure`` why there is no answer."""

    calls: tuple[ToolCall, ...] = ()
    faults: tuple[Fault, ...] = ()
    answered: bool = True
    cut: bool = False
    text: str = ""
    failure: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are called, in order."""
        return tuple(call.name for call in self.calls)

    @property
    def problem(self) -> str:
        """What is wrong, empty where nothing is."""
        return self.failure or (f"{self.faults[0].kind}: {self.faults[0].words}" if self.faults else "")


class Offered:
    """The tools a case offers, with the schemas of their parameters; ``DesignError`` for one that is unusable."""

    def __init__(self, case: Case) -> None:
        functions = [tool.get("function") for tool in case.tools or ()]
        self._parameters = {
            str(function["name"]): function.get("parameters")
            for function in functions
            if isinstance(function, Mapping) and "name" in function
        }
        self._contracts = {
            name: Contract(schema, f"the parameters of {name}")
            for name, schema in self._parameters.items()
            if isinstance(schema, Mapping)
        }

    def read(self, answer: Completion) -> Calls:
        """Return what an answer calls and what is wrong with it."""
        cut = answer.cut and bool(answer.tool_calls) and parse_json(answer.tool_calls[-1].arguments).error is not None
        complete = answer.tool_calls[:-1] if cut else answer.tool_calls
        faults = [fault for call in complete for fault in self._of_call(call)]
        if not answer.tool_calls and not answer.cut:
            faults += _of_silence(answer)
        return Calls(calls=answer.tool_calls, faults=tuple(faults), cut=cut, text=answer.text)

    def _of_call(self, call: ToolCall) -> Iterator[Fault]:
        if call.name not in self._parameters:
            known = ", ".join(explain.plain(name, 30) for name in list(self._parameters)[:6])
            yield Fault(UNKNOWN_NAME, f"{explain.plain(call.name, 40)} is none of {known or 'no tools'}")
            return
        parsed = parse_json(call.arguments)
        if parsed.error is not None:
            yield Fault(INVALID_JSON, f"arguments of {call.name}: {parsed.error}")
            return
        if not isinstance(parsed.value, dict):
            yield Fault(INVALID_JSON, f"arguments of {call.name} are no object: {explain.quote(call.arguments, 60)}")
            return
        contract = self._contracts.get(call.name)
        problem = None if contract is None else contract.hold(Completion(text=call.arguments)).problem
        if problem is not None:
            yield Fault(MISMATCH, f"arguments of {call.name}: {explain.plain(problem, 120)}")


def _of_silence(answer: Completion) -> Iterator[Fault]:
    """Yield what is wrong with an answer without calls, where something looks like one that was lost."""
    if (mark := _MARKUP.search(answer.text) or _BARE.match(answer.text)) is not None:
        yield Fault(MARKUP, explain.quote(answer.text[mark.start() :], 60))
    elif answer.finish_reason == "tool_calls":
        yield Fault(SWALLOWED, "it ended to call a tool and has no call")
    elif speechless(answer) and answer.reasoning:
        yield Fault(REASONING_ONLY, "neither text nor a call behind its reasoning")
    elif speechless(answer) and (answer.completion_tokens or 0) > 1:
        count = explain.count(answer.completion_tokens or 0, "token")
        yield Fault(SWALLOWED, f"{count} were generated, and neither text nor a call came")


def should_call(case: Case) -> bool | None:
    """Return whether a case says that a tool is to be called, ``None`` where it does not say.

    By ``expect.tool``, else by a ``tool_choice`` that leaves no choice; who expects an ``answer`` and names no tool
    expects words.
    """
    if not case.tools:
        return None
    if case.expect is not None and case.expect.tool is not None:
        return case.expect.tool != NO_TOOL
    if isinstance(case.tool_choice, Mapping):
        return True
    if case.tool_choice in (NO_TOOL, "required"):
        return case.tool_choice == "required"
    return False if case.expect is not None and case.expect.answer is not None else None


def expected_name(case: Case) -> str | None:
    """Return the name of the tool that a case says is to be called, ``None`` where it names none."""
    if not should_call(case):
        return None
    if case.expect is not None and case.expect.tool is not None:
        return case.expect.tool
    function = case.tool_choice.get("function") if isinstance(case.tool_choice, Mapping) else None
    return str(function["name"]) if isinstance(function, Mapping) and "name" in function else None


def difference(ours: Calls, theirs: Calls, *, arguments: Arguments, order: Order) -> str:
    """Say in what two answers call otherwise, empty where they do alike.

    ``arguments``: equal as JSON, fitting their schemas on both, or equal in these fields (``"city"``,
    ``"address.zip"``; one that neither has is equal).
    """
    if len(ours.calls) != len(theirs.calls):
        return f"{_counted(ours)} and {_counted(theirs)}"
    left, right = list(ours.calls), list(theirs.calls)
    if order == "any":
        left.sort(key=_place)
        right.sort(key=_place)
    if [call.name for call in left] != [call.name for call in right]:
        return f"calls {_names(ours)} and {_names(theirs)}"
    if arguments == "fits":
        problem = ours.problem or theirs.problem
        return f"{'baseline' if ours.problem else 'candidate'}: {problem}" if problem else ""
    for a, b in zip(left, right, strict=True):
        if path := _other(a.arguments, b.arguments, arguments):
            return f"{path} of {explain.plain(a.name, 40)}"
    return ""


def _other(ours: str, theirs: str, arguments: Arguments) -> str:
    a, b = parse_json(ours), parse_json(theirs)
    if a.error is not None or b.error is not None:
        return "" if ours == theirs else "arguments that are no JSON"
    if arguments == "equal":
        differing = diff_values(a.value, b.value)
        return explain.plain(differing[0].path, 60) if differing else ""
    for path in arguments:
        if diff_values(_at(a.value, path), _at(b.value, path)):
            return explain.plain(f"$.{path}", 60)
    return ""


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return ABSENT
        value = value[name]
    return value


def _place(call: ToolCall) -> tuple[str, str]:
    parsed = parse_json(call.arguments)
    return call.name, call.arguments if parsed.error is not None else json.dumps(parsed.value, sort_keys=True)


def _counted(calls: Calls) -> str:
    return explain.count(len(calls.calls), "call") if calls.calls else "no call"


def _names(calls: Calls) -> str:
    return ", ".join(explain.plain(name, 30) for name in calls.names[:4])


def usable(tools: Sequence[Mapping[str, Any]] | None) -> str:
    """Return tools as text by which equal ones are known."""
    return json.dumps(tools, sort_keys=True)
