"""The Responses route: what goes out of a chat, and what is read of an answer in OpenAI's own shapes."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core import errors
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.sample import Completion, ToolCall
from pytest_llmparity.engines.wire import responses

STREAM = {"content-type": "text/event-stream"}
COUNTS = {"input_tokens": 5, "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 1}}


def read(body: object, headers: dict[str, str] | None = None, status: int = 200) -> Completion:
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    answer = cast("Answer", SimpleNamespace(status=status, headers=headers or {}, body=raw))
    return responses.parse(answer, engine="cand", case="c")


def response(*output: dict[str, Any], **fields: Any) -> dict[str, Any]:
    whole = {"id": "resp_1", "object": "response", "status": "completed", "error": None, "usage": COUNTS}
    return {**whole, "output": list(output), **fields}


def message(*texts: str) -> dict[str, Any]:
    parts = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []} for text in texts]
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": parts}


def called(name: str, arguments: str, number: int = 0) -> dict[str, Any]:
    return {"type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}"} | {
        "name": name,
        "arguments": arguments,
    }


def events(*told: dict[str, Any], named: bool = True) -> str:
    return "".join((f"event: {each['type']}\n" if named else "") + f"data: {json.dumps(each)}\n\n" for each in told)


def text(piece: str, **fields: Any) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "item_id": "msg_1", "delta": piece, **fields}


def ended(*output: dict[str, Any], **fields: Any) -> dict[str, Any]:
    whole = response(*output, **fields)
    return {"type": f"response.{whole['status']}", "response": whole}


# ---- answers --------------------------------------------------------------------------------------------------------


def test_a_response_has_text_reasoning_calls_and_counts() -> None:
    thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "two and two"}]}

    completion = read(response(thought, message("4", "!"), called("f", "{}")))

    assert (completion.text, completion.reasoning, completion.finish_reason) == ("4!", "two and two", "tool_calls")
    assert completion.tool_calls == (ToolCall(name="f", arguments="{}", id="call_0"),)
    assert (completion.prompt_tokens, completion.completion_tokens, completion.reasoning_tokens) == (5, 3, 1)


def test_a_summary_is_the_reasoning_where_nothing_else_is_shown() -> None:
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "added"}]}

    assert read(response(thought, message("4"))).reasoning == "added"


def test_a_refusal_is_what_the_model_said() -> None:
    item = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "I will not."}]}

    assert read(response(item)).text == "I will not."


@pytest.mark.parametrize(
    ("reason", "finish"), [("max_output_tokens", "length"), ("content_filter", "content_filter"), (None, "length")]
)
def test_an_incomplete_response_says_why(reason: str | None, finish: str) -> None:
    details = {"incomplete_details": None if reason is None else {"reason": reason}}
    incomplete = response(message("One"), status="incomplete", **details)

    assert read(incomplete).finish_reason == finish
    assert read(events(text("One"), ended(message("One"), status="incomplete", **details)), STREAM).finish_reason == (
        finish
    )


def test_a_stream_is_what_its_whole_response_is() -> None:
    added = {"type": "response.output_item.added", "output_index": 1, "item": called("f", "")}
    piece = {"type": "response.function_call_arguments.delta", "item_id": "fc_0", "output_index": 1}
    second = {"type": "response.output_item.added", "item": called("g", "", 1)}  # llama.cpp gives no output_index
    told: list[dict[str, Any]] = [
        {"type": "response.created", "response": response(status="in_progress")},
        {"type": "response.reasoning_text.delta", "item_id": "rs_1", "delta": "two"},
        {"type": "response.reasoning_summary_text.delta", "item_id": "rs_1", "delta": "left out"},
        text("4"),
        text("!"),
        added,
        {**piece, "delta": '{"a":'},
        second,
        {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": '{"b": 2}'},
        {**piece, "delta": " 1}"},
        {"type": "response.function_call_arguments.done", "item_id": "fc_0", "arguments": '{"a": 1}'},
    ]
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "two"}]}
    output = (thought, message("4!"), called("f", '{"a": 1}'), called("g", '{"b": 2}', 1))

    for named in (True, False):
        streamed = read(events(*told, ended(*output), named=named), STREAM)
        assert (streamed.text, streamed.reasoning) == ("4!", "two")
        assert streamed.tool_calls == read(response(*output)).tool_calls
        assert streamed.finish_reason == "tool_calls"
        assert streamed.normalised == ()
        assert len(streamed.token_ends) == 8


def test_logprobs_of_the_whole_response_win_over_those_of_its_events() -> None:
    bare = {"token": "é", "logprob": -0.5, "top_logprobs": []}
    part = {"type": "output_text", "text": "é", "logprobs": [{**bare, "bytes": [195, 169]}]}
    whole = {**message(), "content": [part]}

    both = read(events(text("é", logprobs=[bare]), ended(whole)), STREAM)
    alone = read(events(text("é", logprobs=[bare]), ended(message("é"))), STREAM)

    for completion in (both, alone):
        assert [(each.token, each.logprob) for each in completion.logprobs] == [("é".encode(), -0.5)]


@pytest.mark.parametrize(
    "told",
    [
        {"type": "error", "code": "server_error", "message": "it broke", "param": None},
        {"type": "response.failed", "response": response(status="failed", error={"code": "x", "message": "it broke"})},
    ],
    ids=lambda told: str(told["type"]),
)
@pytest.mark.parametrize("named", [True, False])
def test_an_error_event_is_the_error_it_is(told: dict[str, Any], named: bool) -> None:
    with pytest.raises(errors.ServerFailure, match="it broke"):
        read(events(text("One"), told, named=named), STREAM)


def test_a_failed_response_is_the_error_it_holds() -> None:
    with pytest.raises(errors.ServerFailure, match="it broke"):
        read(response(status="failed", error={"code": "server_error", "message": "it broke"}))


@pytest.mark.parametrize(
    ("status", "words"), [("in_progress", "says in_progress"), ("queued", "says queued"), (None, "is")]
)
def test_a_response_that_does_not_say_that_it_ended_is_no_answer(status: str | None, words: str) -> None:
    begun = response(message("One"), status=status)
    if status is None:
        del begun["status"]

    with pytest.raises(errors.ProtocolError, match=f"its status {words}.*whether the answer is whole is not known"):
        read(begun)


def test_a_response_that_was_cancelled_is_half_an_answer() -> None:
    with pytest.raises(errors.ServerFailure, match="broke its answer"):
        read(response(message("One"), status="cancelled"))


@pytest.mark.parametrize("status", ["in_progress", None])
@pytest.mark.parametrize(("end", "finish"), [("completed", "stop"), ("incomplete", "length")])
def test_the_event_that_ends_a_stream_says_how_where_the_response_in_it_does_not(
    status: str | None, end: str, finish: str
) -> None:
    told = {"type": f"response.{end}", "response": response(message("One"), status=status)}

    assert read(events(text("One"), told), STREAM).finish_reason == finish


def test_a_stream_without_its_end_is_no_answer() -> None:
    with pytest.raises(errors.ProtocolError, match=r"without response\.completed"):
        read(events(text("One")), STREAM)


def test_a_chat_s_answer_is_no_response() -> None:
    with pytest.raises(errors.ProtocolError, match="the JSON has no output"):
        read({"choices": [{"message": {"content": "Hi"}}]})


NAMES = st.sampled_from(["type", "content", "text", "summary", "name", "arguments", "output_text", "message"])
ITEMS = st.recursive(
    st.none() | st.text() | st.integers() | NAMES, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner)
)


@given(ITEMS)
def test_output_of_any_shape_is_an_answer_or_a_typed_error(item: object) -> None:
    try:
        read(response(message("Hi"), output=[item, message("Hi")]))
    except errors.EngineError:
        return


# ---- requests -------------------------------------------------------------------------------------------------------


def test_a_chat_goes_out_as_items() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}
    audio = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image, audio]},
        {"role": "assistant", "content": "A cat.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "30 days"},
    ]

    assert responses.items_of(turns, engine="cand", case="c") == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is this?"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            ],
        },
        {
            "type": "message",
            "id": "msg_2",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "A cat.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "30 days"},
    ]


def test_what_is_said_of_reasoning_and_other_fields_keep_their_place() -> None:
    fields = {"messages": [], "reasoning_effort": "low", "chat_template_kwargs": {"a": 1}}

    assert responses.body_of(fields, engine="cand", case="c") == {
        "input": [],
        "store": False,
        "reasoning": {"effort": "low"},
        "chat_template_kwargs": {"a": 1},
    }
