from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core import errors
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.engines.wire.read import Reader, parse_answer

STREAM = {"content-type": "text/event-stream; charset=utf-8"}


def answer(body: bytes | str | object, headers: dict[str, str] | None = None, status: int = 200) -> Answer:
    if not isinstance(body, (bytes, str)):
        body = json.dumps(body)
    raw = body if isinstance(body, bytes) else body.encode()
    return cast("Answer", SimpleNamespace(status=status, headers=headers or {}, body=raw))


def read(body: bytes | str | object, headers: dict[str, str] | None = None) -> Completion:
    return parse_answer(answer(body, headers), engine="cand", case="c")


def message(**fields: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", **fields}, "finish_reason": "stop"}]}


def events(*deltas: dict[str, Any], finish: str | None = "stop", done: bool = True) -> str:
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    if finish is not None:
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    return text + ("data: [DONE]\n\n" if done else "")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
BITS = st.sampled_from(
    [
        '"',
        "\\ud800",
        "\\udc00",
        "\\u00e9",
        "-0",
        "1e999",
        "0.1",
        "18446744073709551616",
        "[",
        "]",
        ",",
        "NaN",
        " ",
        "\t",
    ]
)


@given(VALUES.map(json.dumps) | st.lists(BITS, max_size=6).map("".join) | st.text(max_size=6))
def test_a_json_text_is_the_value_python_reads_in_it(text: str) -> None:
    reader = Reader("cand", "c", answer(text.encode("utf-8", "replace")))
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(errors.EngineError):
            reader.json(text)
    else:
        assert repr(reader.json(text)) == repr(expected)  # of floats and of half characters too


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content", "thinking"])
def test_reasoning_is_kept_apart_whatever_its_field(field: str) -> None:
    whole = read(message(**{"content": "4", field: "2+2"}))
    streamed = read(events({field: "2"}, {field: "+2"}, {"content": "4"}), STREAM)

    assert (whole.text, whole.reasoning) == (streamed.text, streamed.reasoning) == ("4", "2+2")
    assert whole.normalised == ()


@pytest.mark.parametrize(
    ("content", "text", "reasoning"),
    [
        ("<think>2+2</think>\n\n4", "4", "2+2"),
        ("\n<think>2+2</think>4", "4", "2+2"),
        ("<think>cut here", "", "cut here"),
        ("4 <think>no</think>", "4 <think>no</think>", ""),
    ],
)
def test_inline_thinking_at_the_start_is_reasoning(content: str, text: str, reasoning: str) -> None:
    completion = read(message(content=content))

    assert (completion.text, completion.reasoning) == (text, reasoning)
    assert completion.normalised == (("inline <think> moved to reasoning",) if reasoning else ())


def test_inline_thinking_beside_a_field_of_its_own_is_added_once() -> None:
    assert read(message(content="<think>b</think>4", reasoning="a")).reasoning == "a\nb"
    assert read(message(content="<think>a</think>4", reasoning="a")).reasoning == "a"
    assert read(message(content="b</think>4")).normalised == ("inline </think> moved to reasoning",)


def test_reasoning_may_be_parts_of_the_content() -> None:
    completion = read(
        message(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "2+2"}]}, {"text": "4"}])
    )

    assert (completion.text, completion.reasoning) == ("4", "2+2")


def test_tokens_of_inline_thinking_are_not_those_of_the_answer() -> None:
    pieces = ["<think>", "a", "</think>", "\n\n", "4", "2", "<|im_end|>"]
    choice = message(content="<think>a</think>\n\n42")
    choice["choices"][0]["logprobs"] = {"content": [{"token": piece, "logprob": -0.1} for piece in pieces]}  # type: ignore[index]

    assert [token.token for token in read(choice).logprobs] == [b"4", b"2", b"<|im_end|>"]


def test_think_tag_split_over_deltas_is_found() -> None:
    assert read(events({"content": "<thi"}, {"content": "nk>a</think>b"}), STREAM).reasoning == "a"


@pytest.mark.parametrize("error", [None, "", {}, {"code": 0, "message": ""}, False])
def test_an_empty_error_beside_an_answer_is_none(error: object) -> None:
    assert read(message(content="x") | {"error": error}).text == "x"


def test_a_refusal_of_the_model_is_what_it_says() -> None:
    assert read(message(content=None, refusal="I cannot.")).text == "I cannot."
    assert read(events({"content": "", "refusal": "I can"}, {"refusal": "not."}), STREAM).text == "I cannot."


def test_content_may_be_a_list_of_parts() -> None:
    assert read(message(content=[{"type": "text", "text": "Pa"}, {"type": "text", "text": "ris"}, 3])).text == "Paris"


def test_tool_calls_are_put_together_by_index() -> None:
    completion = read(
        events(
            {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{"}}]},
            {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]},
            {"tool_calls": [{"index": 1, "function": {"arguments": "}"}}]},
            finish="tool_calls",
        ),
        STREAM,
    )

    assert [(call.name, call.arguments, call.id) for call in completion.tool_calls] == [
        ("f", "{}", "a"),
        ("g", "{}", "b"),
    ]
    assert (completion.text, completion.finish_reason) == ("", "tool_calls")


def test_tool_arguments_that_are_a_value_become_its_text() -> None:
    completion = read(
        message(content=None, tool_calls=[{"function": {"name": "f", "arguments": {"b": 1, "a": 2}}}, None])
    )

    assert completion.tool_calls[0].arguments == '{"b": 1, "a": 2}'


def test_usage_timings_model_and_fingerprint_are_read() -> None:
    completion = read(
        message(content="x")
        | {
            "model": "tiny",
            "system_fingerprint": "b1",
            "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
            "timings": {"cache_n": 3, "prompt_ms": 1.5, "prompt_n": 9, "predicted_ms": "x"},
            "metrics": {"time_to_first_token_ms": 7, "queue_time_ms": math.nan, "tokens_per_second": 3},
        }
    )

    assert (completion.prompt_tokens, completion.completion_tokens, completion.cached_tokens) == (9, 2, 4)
    assert (completion.model, completion.fingerprint) == ("tiny", "b1")
    assert completion.server == {"prompt_ms": 1.5, "time_to_first_token_ms": 7.0}


@pytest.mark.parametrize("count", [-1, 1.5, True, "three", 2**70, None])
def test_counts_that_are_none_stay_unknown(count: object) -> None:
    completion = read(message(content="x") | {"usage": {"prompt_tokens": count}, "timings": {"cache_n": 2}})

    assert completion.prompt_tokens is None
    assert completion.cached_tokens == 2


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (None, None)),
        ({"prompt_tokens": 0, "input_tokens": 9, "completion_tokens": 2}, (9, 2)),
        ({"input_tokens": 9, "output_tokens": 2}, (9, 2)),
        ({"prompt_eval_count": 9, "eval_count": 2}, (9, 2)),
        ({"promptTokens": 9, "completionTokens": 2}, (9, 2)),
        ({"promptTokenCount": 9, "candidatesTokenCount": 2}, (9, 2)),
        ({"prompt_tokens": "9", "completion_tokens": 2.0}, (9, 2)),
        ({"tokens": {"input_tokens": 9, "output_tokens": 2}}, (9, 2)),
        ({"input_tokens": 2, "cache_read_input_tokens": 7, "output_tokens": 2}, (9, 2)),
        ({"total_tokens": 11}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_counts_are_known_by_any_of_their_names_and_none_is_zero(
    usage: dict[str, int], counts: tuple[int | None, int | None]
) -> None:
    whole = read(message(content="x") | {"usage": usage})
    chunks = [
        {"choices": [{"delta": {"content": "x"}}], "usage": usage},
        {"choices": [], "usage": {"prompt_tokens": 0}},
    ]
    streamed = read("".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n", STREAM)

    assert (whole.prompt_tokens, whole.completion_tokens) == counts
    assert (streamed.prompt_tokens, streamed.completion_tokens) == counts


def test_counts_may_stand_in_the_choice() -> None:
    body = message(content="x")
    body["choices"][0]["usage"] = {  # type: ignore[index]
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens_details": {"reasoning_tokens": 3},
    }

    completion = read(body)

    assert (completion.prompt_tokens, completion.cached_tokens, completion.reasoning_tokens) == (9, 4, 3)


@pytest.mark.parametrize(
    ("word", "reason"), [("max_tokens", "length"), ("end_turn", "stop"), ("tool_use", "tool_calls")]
)
def test_finish_reasons_have_one_name(word: str, reason: str) -> None:
    assert read(events({"content": "x"}, finish=word), STREAM).finish_reason == reason


def test_usage_may_come_in_a_chunk_without_choices() -> None:
    body = events({"content": "x"}, done=False) + 'data: {"choices":[],"usage":{"completion_tokens":1}}\n\n'

    assert read(body, STREAM).completion_tokens == 1


@pytest.mark.parametrize("raw", ["NaN", "-9999.0", "-3.4028234663852886e+38", "null", '"x"', "-Infinity", "true"])
def test_sentinels_of_logprobs_are_unknown(raw: str) -> None:
    entry = f'{{"token":"a","bytes":[97],"logprob":{raw}}}'
    body = f'{{"choices":[{{"message":{{"content":"a"}},"logprobs":{{"content":[{entry}]}}}}]}}'

    (token,) = read(body).logprobs

    assert (token.token, token.logprob, token.top) == (b"a", None, ())


def test_logprob_too_large_for_a_float_is_unknown() -> None:
    body = message(content="a")
    body["choices"][0]["logprobs"] = {"content": [{"token": "a", "logprob": 10**400}]}  # type: ignore[index]

    assert read(body).logprobs[0].logprob is None


def test_token_bytes_beat_text_and_alternatives_are_best_first() -> None:
    tops = [
        {"token": "b", "logprob": -2},
        {"token": "\ufffd", "bytes": [0xC3], "logprob": -1},
        {"token": "z", "logprob": -9999},
    ]
    body = message(content="é")
    body["choices"][0]["logprobs"] = {  # type: ignore[index]
        "content": [{"id": 5, "token": "\ufffd", "bytes": [0xC3], "logprob": -1, "top_logprobs": tops}, "junk"]
    }

    token, junk = read(body).logprobs

    assert (token.id, token.token, token.top) == (5, b"\xc3", ((b"\xc3", -1.0), (b"b", -2.0)))
    assert (junk.token, junk.logprob) == (b"", None)


def test_legacy_logprobs_of_the_completions_route() -> None:
    choice = {
        "text": "a b",
        "finish_reason": "stop",
        "logprobs": {
            "tokens": ["a", " b", "!"],
            "token_logprobs": [-0.5, None],
            "top_logprobs": [{"a": -0.5, "c": -1}],
        },
    }

    first, second, third = read({"choices": [choice]}).logprobs

    assert (first.token, first.logprob, first.top) == (b"a", -0.5, ((b"a", -0.5), (b"c", -1.0)))
    assert (second.token, second.logprob) == (b" b", None)
    assert third.logprob is None


def test_surrogate_pair_shared_by_two_deltas_is_one_character() -> None:
    completion = read(events({"content": "\ud83d"}, {"content": "\ude00"}), STREAM)

    assert (completion.text, completion.normalised) == ("😀", ())


@pytest.mark.parametrize(
    "body",
    [
        message(content="a\ud800b"),
        message(content="x", reasoning="\udc00"),
        message(content="", tool_calls=[{"function": {"name": "f", "arguments": '"\ud800"'}}]),
    ],
    ids=["text", "reasoning", "arguments"],
)
def test_lone_surrogate_is_replaced_and_recorded(body: dict[str, object]) -> None:
    completion = read(body)

    assert completion.normalised == ("lone surrogate replaced",)
    everything = completion.text + completion.reasoning + "".join(call.arguments for call in completion.tool_calls)
    assert "\ufffd" in everything
    everything.encode("utf-8")


def test_only_the_first_choice_is_read() -> None:
    choices = [{"index": 1, "message": {"content": "b"}}, {"index": 0, "message": {"content": "a"}}, 3]

    assert read({"choices": choices}).text == "a"


@pytest.mark.parametrize("indices", [(0, 0, 0), (1, 1, 1), (0, 1, 1), (0, "x", -1), (None, 1, 0)])
def test_choices_of_a_whole_answer_that_say_the_same_index_are_those_of_their_places(indices: Sequence[object]) -> None:
    """A proxy that merges several requests' answers leaves each its index."""
    choices = [{"index": at, "message": {"content": text}} for at, text in zip(indices, "abc", strict=True)]

    answer = read({"choices": choices, "usage": {"completion_tokens": 8}})

    assert (answer.text, [choice.text for choice in answer.choices]) == ("a", ["b", "c"])
    assert (answer.completion_tokens, answer.counted) == (None, 8)


def test_tokens_of_streamed_choices_that_nobody_can_tell_from_the_first_are_not_counted_as_its_own() -> None:
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}} for text in "ab"]}]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": {"completion_tokens": 8}}

    answer = read(f"{body}data: {json.dumps(end)}\n\ndata: [DONE]\n\n", STREAM)

    assert (answer.text, answer.completion_tokens, answer.counted) == ("a", None, 8)


def test_stream_is_known_by_its_body_when_the_type_was_dropped() -> None:
    assert read(": ping\n\n" + events({"content": "x"})).text == "x"


def test_stream_without_a_finish_reason_ends_with_done() -> None:
    assert read(events({"content": "x"}, finish=None), STREAM).finish_reason == ""


def test_stream_with_a_finish_reason_needs_no_done() -> None:
    assert read(events({"content": "x"}, finish="length", done=False), STREAM).finish_reason == "length"


def test_what_follows_done_is_not_read() -> None:
    assert read(events({"content": "x"}) + "data: {broken\n\n", STREAM).text == "x"


@pytest.mark.parametrize(
    ("body", "headers", "words"),
    [
        ("", {}, "the body is empty"),
        ('{"choices":[{"mess', {}, "stops being JSON at character"),
        ("<html><title>Login</title>", {}, "an HTML page titled “Login”"),
        ("[1]", {}, "a JSON list, not an object"),
        ('{"status":"ok"}', {}, "no choices"),
        ('{"choices":[{"delta":', STREAM, "without a finish reason"),
        (events({"content": "x"}, finish=None, done=False), STREAM, "without a finish reason or [DONE]"),
        ("data: [1]\n\n", STREAM, "an event is a JSON list"),
        ('data: {"a\n\n', STREAM, "stops being JSON"),
        (b'{"choices":[{"message":{"content":"\xff"}}]}', {}, "byte 35 of the body is not UTF-8 (0xff)"),
        (b"data: \xc3\n\n", STREAM, "byte 6 of the body is not UTF-8 (0xc3)"),
        ("[" * 100_000, {}, "nested too deeply"),
        ('{"choices":' + "1" * 5000 + "}", {}, "the body is not JSON"),
    ],
)
def test_what_is_not_a_whole_answer_is_a_protocol_error(body: bytes | str, headers: dict[str, str], words: str) -> None:
    with pytest.raises(errors.ProtocolError) as caught:
        read(body, headers)

    assert words in str(caught.value)
    assert str(caught.value).startswith("cand answered 200 for case 'c', but ")
    assert (caught.value.engine, caught.value.case, caught.value.status) == ("cand", "c", 200)


def test_blank_events_are_skipped() -> None:
    assert read("data: \n\n" + events({"content": "x"}), STREAM).text == "x"


@pytest.mark.parametrize("body", [message(content=""), message(content=None), {"choices": [None]}])
def test_answer_without_anything_is_empty(body: dict[str, object]) -> None:
    with pytest.raises(errors.EmptyAnswer, match="no text, no reasoning and no tool call"):
        read(body)


def test_error_inside_a_stream_is_the_error_it_names() -> None:
    body = events({"content": "x"}, finish=None, done=False) + 'data: {"error":{"message":"slow down","code":429}}\n\n'

    with pytest.raises(errors.Overloaded) as caught:
        parse_answer(answer(body, STREAM | {"retry-after": "3"}), engine="cand", case="c")

    assert (caught.value.status, caught.value.retry_after_s) == (429, 3.0)


def test_error_in_a_200_document_is_an_error() -> None:
    with pytest.raises(errors.ServerFailure):
        read({"error": "llama runner process has terminated"})


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"error": "Input validation error: `top_p` must be > 0.0", "error_type": "validation"}, errors.BadRequest),
        (
            {"error": "`inputs` tokens + `max_new_tokens` must be <= 8. Given: 9 `inputs`", "error_type": "validation"},
            errors.ContextOverflow,
        ),
        ({"error": "Model is overloaded", "error_type": "overloaded"}, errors.Overloaded),
        ({"error": "Request failed during generation", "error_type": "generation"}, errors.ServerFailure),
        ({"error": "Context size has been exceeded."}, errors.ContextOverflow),
        ({"error": "Unexpected endpoint or method. (POST /chat/completions)"}, errors.AnswerError),
        ({"error": {"message": "no", "type": "invalid_request_error"}}, errors.BadRequest),
        ({"error": "anything else"}, errors.ServerFailure),
    ],
)
def test_error_in_a_stream_that_names_no_status_is_known_by_its_type_or_words(
    error: dict[str, object], kind: type[errors.EngineError]
) -> None:
    with pytest.raises(kind) as caught:
        read(f"data: {json.dumps(error)}\n\ndata: [DONE]\n\n", STREAM)

    assert type(caught.value) is kind


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("finish", ["abort", "error"])
def test_answer_that_was_broken_off_is_no_answer(streamed: bool, finish: str) -> None:
    whole = message(content="The cap")
    whole["choices"][0]["finish_reason"] = finish  # type: ignore[index]

    with pytest.raises(errors.ServerFailure, match=rf"broke its answer to case 'c' off \(finish reason {finish}\)"):
        read(events({"content": "The cap"}, finish=finish) if streamed else whole)


OVERFLOW = "request (6009 tokens) exceeds the available context size (4096 tokens)"
FLAT = {"code": 400, "message": OVERFLOW, "type": "exceed_context_size_error"}
ERRORS = [
    {"error": FLAT},
    {"error": OVERFLOW},
    {"error": {"message": OVERFLOW, "code": 500}},
    {"error": {"message": "no", "type": "exceed_context_size_error", "code": 500}},
    {"error": {"message": json.dumps({"error": FLAT}), "code": 500}},
    {"error": f"upstream said 400: {json.dumps({'error': FLAT})}"},
    {"error": json.dumps({"error": OVERFLOW})},
    {"error": [OVERFLOW]},
    {"error": True, "message": OVERFLOW},
    {"error": "Bad Request", "statusCode": 400, "message": OVERFLOW},
    {"errors": [{"message": OVERFLOW}]},
    {"detail": OVERFLOW},
    {"code": 400, "msg": OVERFLOW},
    {"status": "error", "reason": OVERFLOW},
    {"success": False, "error_msg": OVERFLOW},
    {"detail": {"error": FLAT}},
    {"detail": [{"loc": ["body"], "msg": OVERFLOW}]},
    {"object": "error", "message": OVERFLOW, "code": 40303},
    {"object": "error", "choices": [], **FLAT},
    {"type": "error", "error": FLAT},
    {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error", "error": FLAT}]},
    [{"error": FLAT}],
    json.dumps({"error": FLAT}),
    f"Error: {OVERFLOW}",
    f"[ERROR] {OVERFLOW}",
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: json.dumps(error)[:40])
def test_a_context_refusal_under_a_status_of_200_is_one_in_any_clothes(error: object) -> None:
    text, pretty = json.dumps(error), json.dumps(error, indent=2)
    begun = events({"content": "x"}, finish=None, done=False)
    done = "data: [DONE]\n\n"
    bodies = {
        "data": f"data: {text}\n\n",
        "data after chunks, with the end of a whole stream": begun + f"data: {text}\n\n" + done,
        "event": f"event: error\ndata: {text}\n\n",
        "line": f"{text}\n",
        "line after chunks": begun + text + "\n" + done,
        "line in the middle of an event": begun.rstrip("\n") + f"\n{text}\n\n",
        "several lines": begun + pretty + "\n",
        "half a chunk before it": begun + 'data: {"choices":[{"del' + text + "\n\n"
        if text.startswith('{"error"')
        else text,
    }
    for how, body in bodies.items():
        with pytest.raises(errors.ContextOverflow) as caught:
            read(body, STREAM)
        assert type(caught.value) is errors.ContextOverflow, how
    for body in (text, pretty, "\n" + text + "\n"):
        with pytest.raises(errors.ContextOverflow):
            read(body)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (f"error: {json.dumps(FLAT)}", errors.ContextOverflow),
        (f"Error: {OVERFLOW}", errors.ContextOverflow),
        (OVERFLOW, errors.ContextOverflow),
        ("upstream connect error or disconnect/reset before headers", errors.ServerFailure),
        ("Internal Server Error", errors.ServerFailure),
        ("event: error\ndata: backend gone\n", errors.ServerFailure),
        ('event: error\ndata: {"code": 429, "reason": "busy"}\n', errors.Overloaded),
    ],
)
def test_a_line_of_words_in_a_stream_is_the_error_it_says(line: str, kind: type[errors.EngineError]) -> None:
    begun = events({"content": "x"}, finish=None, done=False)

    for body in (f"{line}\n", begun + f"{line}\n", begun + f"{line}\n\ndata: [DONE]\n\n"):
        with pytest.raises(kind) as caught:
            read(body, STREAM)
        assert type(caught.value) is kind


def test_a_line_that_is_no_error_is_left_out_with_a_note_or_named_where_the_stream_is_not_whole() -> None:
    whole = read(events({"content": "x"}, done=False) + "hello there\n\ndata: [DONE]\n\n", STREAM)

    assert (whole.text, whole.normalised) == ("x", ("lines or events that are no part of the answer: left out",))
    with pytest.raises(errors.ProtocolError, match="a line that is no part of it: hello there"):
        read(events({"content": "x"}, finish=None, done=False) + "hello there\n", STREAM)


@pytest.mark.parametrize("place", [("x_groq", "usage"), ("usageMetadata",), ("usage_metadata",), ()])
def test_counts_may_stand_elsewhere(place: tuple[str, ...]) -> None:
    counted: dict[str, Any] = {"prompt_tokens": 9, "completion_tokens": 2}
    for name in reversed(place):
        counted = {name: counted}
    completion = read(
        events({"content": "x"}, done=False) + f"data: {json.dumps({'choices': [], **counted})}\n\n", STREAM
    )

    assert (completion.prompt_tokens, completion.completion_tokens) == (9, 2)


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ('data: {"text": "NETWORK ERROR DUE TO HIGH TRAFFIC", "error_code": 50001}', errors.ServerFailure),
        ('data: {"code": 500, "data": null}', errors.ServerFailure),
        ('data: {"statusCode": 429, "body": "slow"}', errors.Overloaded),
        ('data: {"Code": "InternalFailure", "Message": "x"}', errors.ServerFailure),
        ('data: {"success": false}', errors.ServerFailure),
        (
            'data: {"choices": null, "base_resp": {"status_code": 1008, "status_msg": "no balance"}}',
            errors.ServerFailure,
        ),
        ('data: {"choices": [{"index": 0, "delta": {"error": {"message": "x"}}}]}', errors.ServerFailure),
        ('data: {"object": "error", "choices": [{"index": 0}], "message": "x"}', errors.ServerFailure),
        ("event: exception\ndata: {}", errors.ServerFailure),
        ('event: response.failed\ndata: {"id": 1}', errors.ServerFailure),
        ("event: error", errors.ServerFailure),
        ("<html><title>502 Bad Gateway</title></html>", errors.ServerFailure),
        ("CUDA out of memory", errors.ProtocolError),
        ('data: {"result": "stopped"}', errors.ProtocolError),
    ],
)
def test_half_an_answer_is_none_whatever_ended_it_and_though_the_stream_calls_itself_done(
    event: str, kind: type[errors.EngineError]
) -> None:
    with pytest.raises(errors.EngineError) as caught:
        read(events({"content": "half"}, finish=None, done=False) + f"{event}\n\ndata: [DONE]\n\n", STREAM)

    assert type(caught.value) is kind


def test_events_that_are_no_errors_end_nothing() -> None:
    harmless = (
        'data: {"type": "ping"}\n\nevent: ping\n\ndata: {"choices": [], "base_resp": {"status_code": 0}}\n\n'
        'data: {"choices": [], "prompt_filter_results": [], "error": null}\n\n'
    )

    completion = read(harmless + events({"content": "x"}, finish=None), STREAM)

    assert (completion.text, completion.normalised) == ("x", ())


def test_a_finish_reason_of_null_in_words_is_none() -> None:
    cut = 'data: {"choices": [{"index": 0, "delta": {"content": "half"}, "finish_reason": "null"}]}\n\n'

    with pytest.raises(errors.ProtocolError, match=r"without a finish reason or \[DONE\]"):
        read(cut, STREAM)


def test_a_whole_answer_is_read_though_its_type_says_stream() -> None:
    for body in (json.dumps(message(content="x")), json.dumps(message(content="x"), indent=1)):
        completion = read(body, STREAM)
        assert (completion.text, completion.normalised) == (
            "x",
            ("chunks outside the event stream's framing: read all the same",),
        )


CUT_CALL = 'llama-server returned invalid tool call arguments for "get_tide": unexpected end of JSON input'


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (CUT_CALL, ("get_tide", "")),
        (
            """error parsing tool call: raw='{"harbour":"Lis', err=unexpected end of JSON input""",
            ("", '{"harbour":"Lis'),
        ),
    ],
)
def test_a_tool_call_that_the_token_limit_cut_is_an_answer_though_the_server_calls_it_an_error(
    words: str, call: tuple[str, str]
) -> None:
    nested = json.dumps({"error": {"message": words, "type": "api_error", "param": None, "code": None}})
    refused = answer(nested, status=500)
    begun = events({"content": "x"}, finish=None, done=False)

    completions = [parse_answer(refused, engine="cand", case="c"), read(begun + f"data: {nested}\n\n", STREAM)]

    for completion, text in zip(completions, ("", "x"), strict=True):
        assert (completion.text, completion.finish_reason, completion.cut) == (text, "length", True)
        assert [(part.name, part.arguments) for part in completion.tool_calls] == [call]
        assert completion.normalised == ("a tool call that the token limit cut came as an error",)


def test_empty_answer_of_the_token_limit_names_the_limit() -> None:
    with pytest.raises(errors.EmptyAnswer, match="raise max_tokens"):
        read(events(finish="length"))


def test_timings_in_seconds_become_milliseconds() -> None:
    whole = message(content="x") | {"stats": {"time_to_first_token": 0.25, "tokens_per_second": 51.4}}
    whole["choices"][0]["meta_info"] = {"e2e_latency": 0.5, "cached_tokens": 19}  # type: ignore[index]

    completion = read(whole)

    assert completion.server == {"time_to_first_token": 250.0, "e2e_latency": 500.0}
    assert completion.cached_tokens == 19


def test_errors_without_a_case_name_none() -> None:
    with pytest.raises(errors.ProtocolError, match=r"^cand answered 200, but the body is empty"):
        parse_answer(answer(""), engine="cand", case=None)
    with pytest.raises(errors.EmptyAnswer, match=r"^cand answered 200 with no text"):
        parse_answer(answer(message(content="")), engine="cand", case=None)


def test_token_ends_skip_roles_blanks_and_usage() -> None:
    parts = [
        'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n',
        'data: {"choices":[{"delta":{"reasoning":"a"}}]}\n\n',
        'data: {"choices":[{"delta":{"content":"b"}}]}\n\n',
        ": ping\n\n",
        'data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}\n\n',
        'data: {"choices":[{"text":"c"}]}\n\n',
        'data: {"choices":[],"usage":{}}\n\n',
        "data: [DONE]\n\n",
    ]
    offsets = [sum(map(len, parts[: place + 1])) for place in range(len(parts))]

    assert read("".join(parts), STREAM).token_ends == (offsets[1], offsets[2], offsets[4], offsets[5])


def test_token_ends_of_anything_but_a_stream_are_none() -> None:
    assert read(message(content="x")).token_ends == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "message",
                    "content",
                    "text",
                    "index",
                    "tool_calls",
                    "function",
                    "name",
                    "arguments",
                    "usage",
                    "logprobs",
                    "top_logprobs",
                    "tokens",
                    "token_logprobs",
                    "bytes",
                    "finish_reason",
                    "timings",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(chunks=st.lists(JSON, max_size=4), streamed=st.booleans())
def test_any_json_is_a_completion_or_a_typed_error(chunks: list[object], streamed: bool) -> None:
    if streamed:
        body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    else:
        body = json.dumps({"choices": chunks})
    reply = answer(body, STREAM if streamed else None)

    try:
        completion = parse_answer(reply, engine="cand", case="c")
    except errors.AnswerError:
        return
    completion.text.encode("utf-8")


@given(body=st.binary(max_size=80), streamed=st.booleans())
def test_any_bytes_are_a_completion_or_a_typed_error(body: bytes, streamed: bool) -> None:
    reply = answer(body, STREAM if streamed else None)

    with pytest.raises(errors.EngineError):
        parse_answer(reply, engine="cand", case="c")


@given(text=st.text(min_size=1), cuts=st.lists(st.integers(0, 200), max_size=6))
def test_streamed_text_is_the_whole_text_however_it_is_cut(text: str, cuts: list[int]) -> None:
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    deltas = [{"content": text[a:b]} for a, b in itertools.pairwise(places)]

    assert read(events(*deltas), STREAM) == read(message(content=text))


def chunks(*choices: list[dict[str, Any]], done: bool = True) -> str:
    text = "".join(f"data: {json.dumps({'choices': listed})}\n\n" for listed in choices)
    return text + ("data: [DONE]\n\n" if done else "")


def test_choices_of_a_stream_interleave_and_each_is_read_by_its_index() -> None:
    completion = read(
        chunks(
            [{"index": 1, "delta": {"role": "assistant", "content": ""}}],
            [{"index": 0, "delta": {"content": "fo"}}, {"index": 1, "delta": {"content": "si"}}],
            [{"index": 2, "delta": {"reasoning": "hm", "content": "ten"}}],
            [{"index": 0, "delta": {"content": "ur"}, "finish_reason": "stop"}],
            [{"index": 1, "delta": {"content": "x"}, "finish_reason": "length"}],
            [{"index": 2, "delta": {}, "finish_reason": "stop"}],
            [],
            done=False,
        ),
        STREAM,
    )

    assert (completion.text, completion.finish_reason) == ("four", "stop")
    assert [(c.text, c.reasoning, c.finish_reason, c.cut) for c in completion.choices] == [
        ("six", "", "length", True),
        ("ten", "hm", "stop", False),
    ]


def test_counts_of_an_answer_with_several_choices_are_those_of_no_single_one() -> None:
    logprobs = {"content": [{"token": "six", "logprob": -0.1}]}
    choices = [
        {"index": 1, "message": {"content": "six"}, "finish_reason": "stop", "logprobs": logprobs},
        {"index": 0, "message": {"content": "four"}, "finish_reason": "stop"},
        {"index": 2, "message": {"content": ""}, "finish_reason": "stop"},
    ]
    completion = read({"choices": choices, "usage": {"prompt_tokens": 5, "completion_tokens": 8}})

    assert (completion.text, completion.prompt_tokens, completion.completion_tokens, completion.counted) == (
        "four",
        5,
        None,
        8,
    )
    assert [(c.text, c.completion_tokens, len(c.logprobs)) for c in completion.choices] == [
        ("six", 1, 0),
        ("", None, 0),
    ]


def test_a_stream_is_whole_when_every_choice_has_ended() -> None:
    begun = (
        [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}],
        [{"index": 1, "delta": {"content": "b"}}],
    )

    with pytest.raises(errors.ProtocolError, match="without a finish reason"):
        read(chunks(*begun, done=False), STREAM)
    assert read(chunks(*begun), STREAM).choices[0].text == "b"
    with pytest.raises(errors.EmptyAnswer):
        read(chunks([{"index": 1, "delta": {"content": "b"}, "finish_reason": "stop"}]), STREAM)


@given(st.lists(st.tuples(st.integers(0, 3), st.text(min_size=1, max_size=5)), min_size=1, max_size=12))
def test_any_order_of_pieces_gives_each_choice_its_own_words(pieces: list[tuple[int, str]]) -> None:
    marked = [(0, "first "), *((index, f"<{number}:{index}>") for number, (index, _) in enumerate(pieces))]
    text = chunks(*([{"index": index, "delta": {"content": piece}}] for index, piece in marked))

    completion = read(text, STREAM)

    texts = {index: "".join(piece for at, piece in marked if at == index) for index, _ in marked}
    assert [completion.text, *(choice.text for choice in completion.choices)] == [
        texts[index] for index in sorted(texts)
    ]
