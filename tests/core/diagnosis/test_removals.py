"""What experiments take away from a request, and from an answer before it is compared."""

from __future__ import annotations

import pytest

from pytest_llmparity.core.diagnosis import removals
from pytest_llmparity.core.diagnosis.removals import Known
from pytest_llmparity.core.sample import Completion, Request, Sampling

CHAT = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "My name is Ada."},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "What is my name, please?"},
)
SCHEMA = {"type": "object", "properties": {"b": {"properties": {"y": {}, "x": {}}}, "a": {}}}
FORM = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
ASKED = Request(case="c", messages=CHAT, sampling=Sampling(max_tokens=32))
FORMED = Request(case="c", messages=CHAT, response_format=FORM)


def applied(request: Request, *names: str, known: Known | None = None) -> removals.Asked:
    asked = removals.apply(request, names, known or Known())
    assert asked is not None
    return asked


def test_nothing_taken_away_is_the_request_itself() -> None:
    assert applied(ASKED).request == ASKED
    assert (applied(FORMED).request, applied(FORMED).schema) == (FORMED, None)


def test_a_rendered_prompt_takes_the_place_of_the_chat_and_carries_the_schema_beside_it() -> None:
    asked = applied(FORMED, removals.PROMPT, known=Known(render=lambda request: "rendered"))

    assert (asked.request.prompt, asked.request.messages, asked.request.response_format) == ("rendered", None, None)
    assert asked.schema == SCHEMA


def test_a_chat_that_nobody_renders_or_that_has_tools_is_not_asked_raw() -> None:
    tools = Request(case="c", messages=CHAT, tools=({"type": "function"},))

    assert removals.apply(ASKED, {removals.PROMPT}, Known()) is None
    assert removals.apply(tools, {removals.PROMPT}, Known(render=lambda request: "rendered")) is None


def test_what_is_rendered_is_what_is_left_of_a_shortened_chat() -> None:
    known = Known(render=lambda request: str(request.messages), characters=7)

    asked = applied(ASKED, removals.LENGTH, removals.PROMPT, known=known)

    assert asked.request.prompt == str(({"role": "user", "content": "please?"},))


def test_one_token_is_left_to_choose_and_answers_end_where_the_baseline_s_do() -> None:
    sampling = applied(ASKED, removals.SAMPLING, removals.STOP, known=Known(tokens=5)).request.sampling

    assert (sampling.top_k, sampling.max_tokens, sampling.temperature) == (1, 5, 0.0)


def test_properties_are_declared_as_they_were_answered_in_every_object() -> None:
    known = Known(keys={"a": 1, "b": {"x": 1, "y": 2}})

    form = applied(FORMED, removals.ORDER, known=known).request.response_format

    assert form is not None
    properties = form["json_schema"]["schema"]["properties"]
    assert list(properties) == ["a", "b"]
    assert list(properties["b"]["properties"]) == ["x", "y"]


def test_the_schema_goes_into_the_engine_s_own_field() -> None:
    asked = applied(FORMED, removals.SCHEMA)

    assert (asked.request.response_format, asked.schema) == (None, SCHEMA)


@pytest.mark.parametrize(
    ("text", "names", "left"),
    [
        ("  yes \n", (removals.SPACES,), "yes"),
        ("<scratchpad>\nhm\n</scratchpad>\n\nyes", (removals.TAGS,), "yes"),
        ("[NOTE]hm[/NOTE] yes ", (removals.TAGS, removals.SPACES), "yes"),
        ("<b>bold", (removals.TAGS,), "<b>bold"),
    ],
)
def test_answers_are_compared_without(text: str, names: tuple[str, ...], left: str) -> None:
    assert removals.compared(Completion(text=text, finish_reason="stop"), names).text == left


def test_calls_in_the_text_are_compared_as_calls_and_are_no_tags() -> None:
    text = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'

    read = removals.compared(Completion(text=text, finish_reason="stop"), (removals.CALLS,))
    cut = removals.compared(Completion(text=text[:-5], finish_reason="length"), (removals.CALLS,))

    assert [(call.name, call.arguments) for call in read.tool_calls] == [("f", '{"a": 1}')]
    assert (read.text, read.finish_reason) == ("", "tool_calls")
    assert (cut.text, cut.tool_calls) == (text[:-5], ())
    assert not removals.begins_with_tag(text)


def test_the_newest_messages_are_kept_behind_the_system_prompt() -> None:
    kept = removals.newest(ASKED, 1)

    assert kept is not None
    assert kept.messages == (CHAT[0], CHAT[3])
    assert removals.newest(ASKED, 3) is None
