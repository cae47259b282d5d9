from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.prompts.script import NO_WORDS, Script, next_request
from pytest_llmparity.core.sample import Completion, Request, Stopped, ToolCall

ENTRIES = [
    {"arguments": {"id": 1}, "result": "one"},
    {"result": "first"},
    {"arguments": {"id": 2, "deep": {"a": [1]}}, "result": {"n": "zwei ü"}},
    {"result": None},
]


def request(results: dict[str, Any], **fields: Any) -> Request:
    return Request(
        case="c",
        messages=({"role": "user", "content": "Hi"},),
        tool_results=results,
        **{"max_turns": 4, **fields},
    )


def calls(*called: tuple[str, str], **fields: Any) -> Completion:
    listed = tuple(ToolCall(name=name, arguments=arguments, id="theirs") for name, arguments in called)
    return Completion(text=fields.pop("text", ""), tool_calls=listed, **fields)


@pytest.mark.parametrize(
    ("result", "text"),
    [("plain", "plain"), ({"a": 1}, '{"a": 1}'), (3, "3"), (True, "true"), (None, "null"), ("", ""), ({}, "{}")],
)
def test_one_value_answers_every_call(result: object, text: str) -> None:
    script = Script(request({"f": result}))

    for turn, arguments in enumerate(("{}", '{"x": 2}', ""), start=1):
        assert script.results(calls(("f", arguments), ("f", "{}")), turn) == (text, text)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (['{"id": 1}', '{"id": 1.0, "more": 2}', '{"id": 1}'], ["one", "one", "one"]),
        (["{}", '{"id": 3}'], ["first", "null"]),
        (['{"id": 2, "deep": {"a": [1]}}', '{"id": 2, "deep": {"a": [2]}}'], ['{"n": "zwei ü"}', "first"]),
        (["{}", '{"id": 1}', "{}", '{"id": 1}'], ["first", "one", "null", "one"]),
    ],
)
def test_entries_answer_by_arguments_and_else_in_order(asked: Sequence[str], answered: Sequence[str]) -> None:
    script = Script(request({"f": ENTRIES}, max_turns=9))

    assert [script.results(calls(("f", text)), turn) for turn, text in enumerate(asked, start=1)] == [
        (text,) for text in answered
    ]


@pytest.mark.parametrize(
    ("answer", "turn", "kind", "words"),
    [
        (calls(("g", "{}")), 1, "no result", "nothing is scripted for g({})"),
        (calls(("f", '{"id": 1')), 1, "broken call", "the arguments of f are no JSON object"),
        (calls(("f", "[1]")), 1, "broken call", "the arguments of f are no JSON object"),
        (calls(("f", "{}"), ("f", "{}"), ("f", "{}")), 1, "no result", "nothing is scripted for f({})"),
        (calls(("f", "{}")), 4, "no end", "it still calls f after 4 turns"),
    ],
)
def test_why_a_conversation_stops(answer: Completion, turn: int, kind: str, words: str) -> None:
    stopped = Script(request({"f": ENTRIES})).results(answer, turn)

    assert isinstance(stopped, Stopped)
    assert (stopped.kind, stopped.words) == (kind, words)


def test_words_end_a_conversation_and_so_does_a_limit_within_a_call() -> None:
    script = Script(request({"f": ENTRIES}))

    assert script.results(Completion(text="Done."), 2) is None
    assert script.results(Completion(text=" ", reasoning="Hm."), 2) == NO_WORDS
    assert script.results(Completion(text=" "), 1) is None  # no conversation has begun
    assert script.results(Completion(text="", finish_reason="length"), 2) is None
    assert script.results(calls(("f", '{"id": '), finish_reason="length"), 1) is None
    assert script.results(calls(("f", '{"id": 1}'), finish_reason="length"), 1) == ("one",)


def test_what_is_asked_next_has_the_calls_as_they_were_written_under_ids_of_ours() -> None:
    first = request({"f": ENTRIES}, tool_choice="required", tools=({"type": "function"},))
    answer = calls(("f", '{ "id":1 }'), ("f", " "), text="Wait.", reasoning="Hm.")

    second = next_request(first, answer, ["one", "first"])
    third = next_request(second, calls(("f", "{}")), ["null"])

    assert (second.tool_choice, third.tool_choice, first.tool_choice) == ("auto", "auto", "required")
    assert second.tools == first.tools
    assert list(second.messages or ())[1:] == [
        {
            "role": "assistant",
            "content": "Wait.",
            "tool_calls": [
                {"id": "call00001", "type": "function", "function": {"name": "f", "arguments": '{ "id":1 }'}},
                {"id": "call00002", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "call00001", "content": "one"},
        {"role": "tool", "tool_call_id": "call00002", "content": "first"},
    ]
    assert [message.get("tool_call_id") for message in third.messages or ()][-1] == "call00003"


@given(st.text(max_size=40), st.integers(min_value=1, max_value=5))
def test_whatever_a_model_writes_as_arguments_ends_or_goes_on(arguments: str, turn: int) -> None:
    results = Script(request({"f": ENTRIES})).results(calls(("f", arguments)), turn)

    assert isinstance(results, Stopped) or (isinstance(results, tuple) and len(results) == 1)
