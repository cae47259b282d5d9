from __future__ import annotations

from typing import Any

import pytest

from pytest_llmparity.core.checks.tools.calls import (
    Arguments,
    Calls,
    Offered,
    Order,
    asks_for_json,
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


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "time"}',
        "<tool_call>weather\n<arg_key>",
        "[TOOL_CALLS]weather[ARGS]{}",
        "<function=weather>\n<parameter=city>",
        '<function_call> {"name": "time"}',
        "<|tool▁calls▁begin|>x",
        '{"parameters": {"city": "Rome"}, "name": "weather"}',
        '{"type": "function", "function": {"name": "weather", "arguments": {}}}',
        '[{"name": "weather", "arguments": {"city": "Rome"}}]',
        '{"name": "weather", "arguments": {"city": "Rome"}}; {"name": "time", "arguments": {}}',
        'I call it:\n```json\n{"name": "weather", "arguments": {"city": "x"}}\n```',
        '```tool_code\nweather(city="x")\n```',
        '[weather(city="Berlin")]',
    ],
)
def test_a_call_in_the_text_is_seen_however_it_is_written(text: str) -> None:
    calls = read(Completion(text=text, finish_reason="stop"))

    assert [fault.kind for fault in calls.faults] == ["markup left in the text"]
    assert calls.tried


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Alice", "age": 3}',
        '{"type": "refund", "id": 3}',
        '[{"name": "weather"}]',
        '{"name": "weather", "kind": "noun"}',
        "The marker is called `<tool_call>`.",
        "Put it between <tool_call> and </tool_call>, or <tool_call></tool_call>.",
        "Use `<function=weather>` for that.",
        "```python\nweather(city='x')\n```",
        "[forecast(city='x')]",
        "weather(city) is a function.",
        "{" * 3000,
    ],
)
def test_words_and_answers_in_json_are_no_calls(text: str) -> None:
    calls = read(Completion(text=text, finish_reason="stop"))

    assert (calls.faults, calls.tried) == ((), False)


def test_json_is_an_answer_where_it_is_asked_for() -> None:
    answer = Completion(text='{"name": "weather", "arguments": {}}', finish_reason="stop")

    assert Offered(case()).read(answer, asked_for_json=True).faults == ()
    assert asks_for_json(case(response_format={"type": "json_object"}))
    assert asks_for_json(case(expect=Expect(schema={})))
    assert not asks_for_json(case())
    assert not asks_for_json(case(response_format={"type": "text"}))


def test_a_limit_that_cut_an_answer_before_anything_leaves_it_unknown() -> None:
    assert read(called(text="", finish_reason="length", reasoning="Let me")).cut
    assert read(called(text="It is", finish_reason="length")).cut
    assert not read(called(text='<tool_call>{"name": "time"', finish_reason="length")).cut


@pytest.mark.parametrize(
    ("field", "could"),
    [
        ("city", True),
        ("$.city", True),
        ('["city"]', True),
        ("citty", False),
        ("$.town", False),
        ("city.name", False),
        ("stops[].zip", True),
        ("stops[].zap", False),
        ("stops.zip", False),
        ("open.anything", True),
        ("free.x", True),
        ("more.z", True),
        ("ref.deep.er", True),
    ],
)
def test_what_parameters_could_hold_is_what_their_schemas_leave(field: str, could: bool) -> None:
    text = {"type": "string"}
    properties = {
        "city": text,
        "stops": {"type": "array", "items": {"type": "object", "properties": {"zip": text}}},
        "open": {},
        "free": {"type": "object"},
        "more": {"type": "object", "properties": {"y": text}, "additionalProperties": text},
        "ref": {"$ref": "#/properties/free"},
    }
    parameters = {"type": "object", "properties": properties}
    offered = Offered(case(tools=({"type": "function", "function": {"name": "f", "parameters": parameters}},)))

    assert offered.could_have(field) is could
    assert offered.known == list(properties)


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
        ({"expect": Expect(answer="It is sunny."), "tool_results": {"weather": "sun"}}, None, None),
        ({"tools": None, "expect": Expect(tool="weather")}, None, None),
    ],
)
def test_what_a_case_says_is_to_be_called(fields: dict[str, Any], should: bool | None, name: str | None) -> None:
    assert (should_call(case(**fields)), expected_name(case(**fields))) == (should, name)


BIG, SMALL, LISTED = ("time", '{"n": 1e16}'), ("time", '{"n": 15}'), ("time", '{"items": [{"id": 1}]}')
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
        ([ROME], [("time", "{}")], "fits", "any", "baseline calls weather, candidate time"),
        ([ROME], [], "fits", "any", "baseline makes 1 call, candidate none"),
        ([ROME, ROME], [ROME], "equal", "any", "baseline makes 2 calls, candidate 1 call"),
        ([ROME, OSLO], [OSLO, ("weather", '{"city": "Rome", "days": 3}')], ("city",), "any", ""),
        ([ROME, OSLO], [OSLO, OSLO], ("city",), "any", "$.city of weather"),
        ([BIG, SMALL], [SMALL, ("time", '{"n": 10000000000000000}')], "equal", "any", ""),
        ([LISTED], [("time", '{"items": [{"id": 2}]}')], ("items[].id",), "any", "$.items[0].id of time"),
        ([LISTED], [("time", '{"items": [{"id": 2}]}')], ('$["items"]',), "any", "$.items[0].id of time"),
        ([LISTED], [("time", '{"items": [{"id": 1.0, "x": 1}]}')], ("$.items[].id",), "any", ""),
        ([("time", "{")], [("time", "{")], "equal", "any", "arguments that are no JSON of time"),
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
