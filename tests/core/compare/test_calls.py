from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.compare.calls import call_of, lost_call, with_calls
from pytest_llmparity.core.sample import Completion


def calls_in(text: str) -> list[tuple[str, str]]:
    return [(call.name, call.arguments) for call in with_calls(Completion(text=text, finish_reason="stop")).tool_calls]


@pytest.mark.parametrize(
    ("inner", "arguments"),
    [
        ('{"name": "f", "arguments": {"a": 1}}', '{"a": 1}'),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', '{"a": 1}'),
        ('{"name": "f", "parameters": {"a": 1}}', '{"a": 1}'),
        ('{"name": "f", "arguments": {"a": "</tool_call>"}}', '{"a": "</tool_call>"}'),
        ('{"name": "f"}', "{}"),
    ],
)
def test_a_call_in_tags_is_read_with_its_arguments_as_they_stand(inner: str, arguments: str) -> None:
    assert calls_in(f"<tool_call>\n{inner}\n</tool_call>") == [("f", arguments)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "words",
        "<tool_call>[]</tool_call>",
        '<tool_call>{"name": "f"}',
        '<tool_call>{"a": 1}</tool_call>',
        '<tool_call>{"name": "f"}</tool_call> <tool_call>{no}</tool_call>',
        '<tool_call>{"name": "f", "arguments": ' + "[" * 5000 + "]" * 5000 + "}</tool_call>",
    ],
)
def test_what_is_not_calls_throughout_is_left_as_it_is(text: str) -> None:
    answer = Completion(text=text, finish_reason="stop")

    assert with_calls(answer) is answer


@given(st.lists(st.sampled_from(["<tool_call>", "</tool_call>", "{", "}", " ", '{"name": "f"}']), max_size=12))
def test_any_mixture_of_tags_is_read(parts: list[str]) -> None:
    calls = calls_in("".join(parts))

    assert all(call == ("f", "{}") for call in calls)
    assert len(calls) <= parts.count("</tool_call>")


def test_text_around_calls_is_kept() -> None:
    call = '<tool_call>{"name": "f"}</tool_call>'
    read = with_calls(Completion(text=f"One. {call} Two. {call}", finish_reason="length"))

    assert (read.text, len(read.tool_calls), read.finish_reason) == ("One.  Two.", 2, "length")


def test_a_tag_that_begins_often_and_never_ends_is_looked_for_once() -> None:
    text = "<tool_call>{" * 200_000  # a scan for each of them would take hours

    assert calls_in(text) == []
    assert calls_in(text + "x</tool_call>" * 1000) == []


def test_of_very_many_code_blocks_the_first_are_looked_at() -> None:
    call = '```\n{"name": "f", "arguments": {}}\n```\n'

    assert lost_call("```json\n{" * 50 + call, ["f"]) is not None
    assert lost_call("```json\n{" * 200_000 + call, ["f"]) is None


def test_what_cannot_be_written_names_no_call() -> None:
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]

    assert call_of({"name": "f", "arguments": deep}) is None
    assert call_of(["f"]) is None


def test_a_call_is_lost_where_it_begins() -> None:
    call = json.dumps({"name": "f", "arguments": {}})

    assert lost_call(f"  {call}", ["f"]) == 2
    assert lost_call(f"  {call}", ["g"]) is None
    assert lost_call(f"  {call}", ["f"], asked_for_json=True) is None
    assert lost_call(f"<tool_call>{call}", [], asked_for_json=True) == 0
    assert lost_call("[TOOL_CALLS]f{}", ["f"]) == 0
    assert lost_call("[TOOL_CALLS] forms", ["f"]) is None
    assert lost_call("", ["f"]) is None
