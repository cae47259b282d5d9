from __future__ import annotations

from typing import Any

import pytest

from pytest_llmparity.core.checks.tools.calls import (
    Arguments,
    Calls,
    Offered,
    Order,
    difference,
    expected_name,
    should_call,
)
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.prompts import Case, Expect
from pytest_llmparity.core.sample import Completion, ToolCall

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
TIME = {"type": "function", "function": {"name": "time"}}


def case(**fields: Any) -> Case:
    return Case(**{"id": "a", "prompt": "p", "tools": (WEATHER, TIME), **fields})


def called(*calls: tuple[str, str], **fields: Any) -> Completion:
    return Completion(
        text=fields.pop("text", ""),
        finish_reason=fields.pop("finish_reason", "tool_calls"),
        tool_calls=tuple(ToolCall(name=name, arguments=arguments) for name, arguments in calls),
        **fields,
    )


def read(answer: Completion) -> Calls:
    return Offered(case()).read(answer)


@pytest.mark.parametrize(
    "answer",
    [
        called(("weather", '{"city": "Rome"}')),
        called(("weather", '{"city": "Rome", "days": 2}'), ("time", "{}")),
        called(("time", '{"anything": [1]}')),
        called(text="It is sunny.", finish_reason="stop"),
        called(text="", finish_reason="stop", completion_tokens=1),
        called(text="", finish_reason="length", reasoning="Let me"),
    ],
)
def test_nothing_is_wrong_with_calls_that_fit_and_with_words(answer: Completion) -> None:
    assert read(answer).faults == ()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (called(("weather", '{"city": ')), "invalid JSON"),
        (called(("weather", '"Rome"')), "invalid JSON"),
        (called(("forecast", "{}")), "unknown name"),
        (called(("weather", '{"days": 2}')), "schema mismatch"),
        (called(("weather", '{"city": "Rome", "days": "two"}')), "schema mismatch"),
        (called(text="", finish_reason="stop", reasoning="I should call it."), "reasoning only"),
        (called(text='<tool_call>{"name": "time"}</tool_call>', finish_reason="stop"), "markup left in the text"),
        (called(text='[TOOL_CALLS][{"name": "time"}]', finish_reason="stop"), "markup left in the text"),
        (called(text=' {"name": "time", "arguments": {}}', finish_reason="stop"), "markup left in the text"),
        (called(text="", finish_reason="tool_calls"), "swallowed"),
        (called(text="", finish_reason="stop", completion_tokens=23), "swallowed"),
    ],
)
def test_what_is_wrong_has_a_class(answer: Completion, kind: str) -> None:
    assert [fault.kind for fault in read(answer).faults] == [kind]
    assert read(answer).problem.startswith(f"{kind}: ")


def test_a_call_that_the_limit_cut_is_no_fault() -> None:
    calls = read(called(("time", "{}"), ("weather", '{"city": "Ro'), finish_reason="length"))

    assert calls.cut
    assert calls.faults == ()


def test_parameters_that_are_no_schema_are_an_error() -> None:
    with pytest.raises(DesignError, match="the parameters of f is not a usable JSON Schema"):
        Offered(case(tools=({"type": "function", "function": {"name": "f", "parameters": {"type": "nothing"}}},)))


@pytest.mark.parametrize(
    ("fields", "should", "name"),
    [
        ({}, None, None),
        ({"expect": Expect(tool="weather")}, True, "weather"),
        ({"expect": Expect(tool="none")}, False, None),
        ({"tool_choice": "auto"}, None, None),
        ({"tool_choice": "none"}, False, None),
        ({"tool_choice": "required"}, True, None),
        ({"tool_choice": {"type": "function", "function": {"name": "time"}}}, True, "time"),
        ({"expect": Expect(answer="It is sunny.")}, False, None),
        ({"tools": None, "expect": Expect(tool="weather")}, None, None),
    ],
)
def test_what_a_case_says_is_to_be_called(fields: dict[str, Any], should: bool | None, name: str | None) -> None:
    assert (should_call(case(**fields)), expected_name(case(**fields))) == (should, name)


ROME, OSLO = ("weather", '{"city": "Rome", "days": 2}'), ("weather", '{"city": "Oslo"}')


@pytest.mark.parametrize(
    ("ours", "theirs", "arguments", "order", "words"),
    [
        ([ROME], [("weather", '{"days": 2.0, "city":"Rome"}')], "equal", "same", ""),
        ([ROME, OSLO], [OSLO, ROME], "equal", "any", ""),
        ([ROME, OSLO], [OSLO, ROME], "equal", "same", "$.city of weather"),
        ([ROME], [OSLO], "equal", "any", "$.city of weather"),
        ([ROME], [OSLO], "fits", "any", ""),
        ([ROME], [("weather", "{}")], "fits", "any", "candidate: schema mismatch: arguments of weather: "),
        ([ROME], [("weather", '{"city": "Rome", "days": 3}')], ("city",), "any", ""),
        ([ROME], [("weather", '{"city": "Rome", "days": 3}')], ("city", "days"), "any", "$.days of weather"),
        ([ROME], [("time", "{}")], "fits", "any", "calls weather and time"),
        ([ROME], [], "fits", "any", "1 call and no call"),
        ([ROME, ROME], [ROME], "equal", "any", "2 calls and 1 call"),
        ([("time", "{")], [("time", "{")], "equal", "any", ""),
        ([("time", "{")], [("time", "{}")], "equal", "any", "arguments that are no JSON of time"),
        ([], [], "equal", "same", ""),
    ],
)
def test_two_answers_call_alike_or_it_is_said_in_what_not(
    ours: list[tuple[str, str]], theirs: list[tuple[str, str]], arguments: Arguments, order: Order, words: str
) -> None:
    told = difference(read(called(*ours)), read(called(*theirs)), arguments=arguments, order=order)
    assert told.startswith(words)
    assert bool(told) == bool(words)
