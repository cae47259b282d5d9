"""What the adapter of Ollama sends on both routes, and what it reads; every recording is in test_recordings.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.prompts.script import next_request
from pytest_llmparity.core.sample import Completion, Request, Sampling, ToolCall
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.control import Reply
from pytest_llmparity.transport.exchange import Exchange
from tests.doubles.ollama_daemon import Model, OllamaDaemon

Attach = Callable[..., Adapter]
Send = Callable[..., Exchange]

CHAT = ({"role": "user", "content": "Hi"},)
SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "string"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
TOOLS = ({"type": "function", "function": {"name": "f", "parameters": {}}},)
DEAD = "http://127.0.0.1:1"


def built(adapter: Adapter, request: Request, *, stream: bool = False) -> dict[str, Any]:
    value = json.loads(adapter.build(request, stream=stream).body)
    assert isinstance(value, dict)
    return value


# ---- requests ------------------------------------------------------------------------------------------------------


def test_openai_request_has_the_fields_v1_reads(ask: Attach) -> None:
    wire = ask().build(Request(case="c", messages=CHAT, tools=TOOLS, tool_choice="auto", response_format=FORMAT))

    assert wire.path == "/v1/chat/completions"
    assert json.loads(wire.body) == {
        "model": "tiny",
        "messages": list(CHAT),
        "tools": list(TOOLS),
        "response_format": FORMAT,
        "max_tokens": 64,
        "temperature": 0.0,
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert wire.omitted == ("top_k",)  # min_p and the penalty are known to be what was asked for


def test_native_request_says_every_parameter_and_refuses_to_cut(ask: Attach) -> None:
    sampling = Sampling(temperature=0.7, top_k=20, min_p=0.1, repetition_penalty=1.2, stop=("X",), seed=7)
    request = Request(case="c", messages=CHAT, sampling=sampling, tools=TOOLS, response_format=FORMAT, top_logprobs=3)

    wire = ask("native", context_length=2048).build(request)

    assert wire.path == "/api/chat"
    assert json.loads(wire.body) == {
        "model": "tiny",
        "messages": list(CHAT),
        "tools": list(TOOLS),
        "format": SCHEMA,
        "options": {
            "num_predict": 64,
            "temperature": 0.7,
            "top_p": 1.0,
            "top_k": 20,
            "min_p": 0.1,
            "repeat_penalty": 1.2,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": 7,
            "stop": ["X"],
            "num_ctx": 2048,
            "num_batch": 512,
        },
        "stream": True,
        "logprobs": True,
        "top_logprobs": 3,
        "truncate": False,
        "shift": False,
    }
    assert list(json.loads(wire.body)["format"]["properties"]) == ["b", "a"]
    assert wire.omitted == ()


@pytest.mark.parametrize(
    ("route", "load", "more"),
    [("openai", {}, {}), ("native", {"num_ctx": 2048, "num_batch": 512}, {"shift": False})],
)
def test_raw_prompt_goes_to_generate_with_the_load_options_of_its_route(
    route: str, load: dict[str, int], more: dict[str, bool], ask: Attach
) -> None:
    request = Request(case="c", prompt="<s>Hi", response_format={"type": "json_object"}, sampling=Sampling(seed=None))

    wire = ask(route, context_length=2048).build(request, stream=False)

    assert wire.path == "/api/generate"
    assert (
        json.loads(wire.body)
        == {
            "model": "tiny",
            "prompt": "<s>Hi",
            "raw": True,
            "format": "json",
            "options": {
                "num_predict": 64,
                "temperature": 0.0,
                "top_p": 1.0,
                "top_k": 0,
                "min_p": 0.0,
                "repeat_penalty": 1.0,
                "presence_penalty": 0.0,
                "frequency_penalty": 0.0,
            }
            | load,
            "stream": False,
            "truncate": False,
        }
        | more
    )


def test_no_more_alternatives_are_asked_for_than_ollama_gives(ask: Attach) -> None:
    many = Request(case="c", messages=CHAT, top_logprobs=50)

    assert [built(ask(route), many)["top_logprobs"] for route in ("openai", "native")] == [20, 20]


@pytest.mark.parametrize("route", ["openai", "native"])
@pytest.mark.parametrize("choice", ["none", "required", {"type": "function", "function": {"name": "f"}}])
def test_tool_choice_is_refused_because_nobody_would_read_it(route: str, choice: object, ask: Attach) -> None:
    with pytest.raises(errors.ParameterNotHonoured, match="Ollama has no tool_choice") as caught:
        ask(route).build(Request(case="c1", messages=CHAT, tools=TOOLS, tool_choice=choice))

    assert (caught.value.engine, caught.value.case) == ("cand", "c1")


@pytest.mark.parametrize("route", ["openai", "native"])
@pytest.mark.parametrize(
    "wanted", [{"type": "grammar"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {"name": "x"}}, {}]
)
def test_format_that_would_be_dropped_is_refused(route: str, wanted: dict[str, Any], ask: Attach) -> None:
    with pytest.raises(errors.ParameterNotHonoured, match="json_schema with a schema, and drops"):
        ask(route).build(Request(case="c1", messages=CHAT, response_format=wanted))


def test_text_is_no_format(ask: Attach) -> None:
    assert "format" not in built(ask("native"), Request(case="c", messages=CHAT, response_format={"type": "text"}))


@pytest.mark.parametrize("route", ["openai", "native"])
def test_raw_prompt_takes_no_tools(route: str, ask: Attach) -> None:
    with pytest.raises(errors.ParameterNotHonoured, match="takes no tools with a raw prompt"):
        ask(route).build(Request(case="c", prompt="x", tools=TOOLS))


def test_conversation_with_tools_is_put_into_ollamas_shape(ask: Attach) -> None:
    called = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"b": 1, "a": 2}'}}
    turns = (
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "1", "content": "3"},
        {"role": "tool", "tool_call_id": "9", "name": "g", "content": "4"},
        {"role": "tool", "content": "5"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "2", "function": {"name": "h", "arguments": ""}}]},
    )

    assert built(ask("native"), Request(case="c", messages=turns))["messages"] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"b": 1, "a": 2}}}],
        },
        {"role": "tool", "content": "3", "tool_call_id": "1", "tool_name": "f"},
        {"role": "tool", "content": "4", "tool_call_id": "9", "tool_name": "g"},
        {"role": "tool", "content": "5"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "2", "function": {"name": "h", "arguments": {}}}]},
    ]


def test_a_scripted_conversation_goes_on_in_ollamas_shape(ask: Attach) -> None:
    request = Request(case="c", messages=CHAT, tools=TOOLS, tool_results={"f": 7}, max_turns=3)
    answer = Completion(text="Wait.", tool_calls=(ToolCall(name="f", arguments='{"a":1}', id="theirs"),))

    sent = built(ask("native"), next_request(request, answer, ["7"]))

    assert sent["messages"][1:] == [
        {
            "role": "assistant",
            "content": "Wait.",
            "tool_calls": [{"id": "call00001", "function": {"name": "f", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "7", "tool_call_id": "call00001", "tool_name": "f"},
    ]


@pytest.mark.parametrize("arguments", ["{half", "[1]", None])
def test_arguments_that_are_no_object_are_refused_on_the_native_route(arguments: object, ask: Attach) -> None:
    turn = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}

    with pytest.raises(errors.ParameterNotHonoured, match="no JSON object"):
        ask("native").build(Request(case="c", messages=(turn,)))


# ---- what /v1 cannot send ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampling", "field", "there"),
    [
        (Sampling(temperature=0.7), "top_k", "40"),
        (Sampling(top_k=20), "top_k", "40"),
        (Sampling(temperature=0.7, top_k=40, min_p=0.1), "min_p", "0.0"),
        (Sampling(repetition_penalty=1.2), "repetition_penalty", "1.0"),
    ],
)
def test_what_v1_cannot_send_is_refused_where_the_default_is_another(
    sampling: Sampling, field: str, there: str, ask: Attach
) -> None:
    with pytest.raises(errors.ParameterNotHonoured) as caught:
        ask().build(Request(case="c1", messages=CHAT, sampling=sampling))

    assert f"no field for {field}, so {there} applies" in str(caught.value)
    assert "Set route = 'native'" in str(caught.value)


def test_what_v1_cannot_send_is_honoured_where_the_default_is_the_same(ask: Attach) -> None:
    wire = ask().build(Request(case="c", messages=CHAT, sampling=Sampling(temperature=0.7, top_k=40)))

    assert wire.omitted == ()
    assert "top_k" not in json.loads(wire.body)


@pytest.mark.parametrize("model", [Model(parameters="repeat_penalty 1.3"), Model()])
def test_penalty_that_v1_cannot_switch_off_makes_its_answers_incomparable(
    model: Model, daemon: OllamaDaemon, ask: Attach
) -> None:
    daemon.models["tiny:latest"] = model
    daemon.version = "0.31.2"
    applied = 1.3 if model.parameters else 1.1

    with pytest.raises(errors.ParameterNotHonoured, match=f"so {applied} applies instead of 1.0.*0.32.10 or later"):
        ask().build(Request(case="c1", messages=CHAT))

    ask().build(Request(case="c1", messages=CHAT, sampling=Sampling(repetition_penalty=applied)))
    ask().warm_up()
    assert built(ask("native"), Request(case="c", messages=CHAT))["options"]["repeat_penalty"] == 1.0


def test_unknown_defaults_hurt_no_greedy_request_and_every_sampled_one(attach: Attach) -> None:
    adapter = attach(DEAD, "ollama", model="tiny")

    assert adapter.build(Request(case="c", messages=CHAT)).omitted == ("top_k", "min_p", "repetition_penalty")
    with pytest.raises(errors.ParameterNotHonoured, match="its unknown default applies instead of 0"):
        adapter.build(Request(case="c", messages=CHAT, sampling=Sampling(temperature=1.0)))


# ---- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("request_", [Request(case="c", messages=CHAT), Request(case="c", prompt="x")])
def test_native_answer_is_the_same_streamed_and_whole(request_: Request, stream: bool, ask: Attach, send: Send) -> None:
    adapter = ask("native")
    exchange = send(adapter, request_, stream=stream)

    completion = adapter.read(exchange, case="c")

    assert (completion.text, completion.finish_reason, completion.model) == ("The capital is Paris.", "stop", "tiny")
    assert (completion.prompt_tokens, completion.completion_tokens, completion.cached_tokens) == (20, 4, None)
    assert completion.server == {"total_duration": 5.0}
    assert len(adapter.read(exchange, case="c").token_ends) == (4 if stream else 0)


def test_raw_answer_on_the_openai_route_is_read_in_ollamas_shape(ask: Attach, send: Send) -> None:
    adapter = ask()
    whole, streamed = (
        send(adapter, Request(case="c", prompt="x", sampling=Sampling()), stream=stream) for stream in (False, True)
    )

    assert adapter.read(whole, case="c").text == adapter.read(streamed, case="c").text == "The capital is Paris."
    assert len(adapter.read(streamed, case="c").token_ends) == 4
    assert adapter.read(send(adapter, Request(case="c", messages=CHAT)), case="c").fingerprint == "fp_ollama"


def answered(*lines: object, kind: str = "application/x-ndjson", status: int = 200) -> Reply:
    body = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    return Reply(status=status, headers={"content-type": kind}, body=body)


def message(**fields: object) -> dict[str, object]:
    return {"message": {"role": "assistant", "content": "", **fields}, "done": False}


DONE = {"message": {"content": ""}, "done": True, "done_reason": "stop"}


def test_thinking_is_reasoning_and_counts_as_tokens(attach: Attach) -> None:
    adapter = attach(DEAD, "ollama", model="tiny", route="native")
    answer = answered(message(thinking="hm"), message(content="Yes"), {**DONE, "prompt_eval_cached_count": 7})

    completion = adapter.read(answer, case="c")

    assert (completion.text, completion.reasoning, completion.cached_tokens) == ("Yes", "hm", 7)
    assert len(adapter.read(answer, case="c").token_ends) == 2


def test_tool_calls_are_kept_apart_though_they_share_an_index(attach: Attach) -> None:
    calls = [{"id": name, "function": {"index": 0, "name": name, "arguments": {"é": 1}}} for name in "ab"]
    answer = answered(message(tool_calls=calls[:1]), message(tool_calls=[calls[1], "odd"]), DONE)

    completion = attach(DEAD, "ollama", model="tiny", route="native").read(answer, case="c")

    assert [(call.id, call.name, call.arguments) for call in completion.tool_calls] == [
        ("a", "a", '{"é": 1}'),
        ("b", "b", '{"é": 1}'),
    ]
    assert completion.finish_reason == "tool_calls"


def test_tool_call_without_a_function_is_one_without_a_name(attach: Attach) -> None:
    answer = answered(message(tool_calls=[{"id": "1", "function": None}]), {**DONE, "done_reason": "length"})

    completion = attach(DEAD, "ollama", model="tiny", route="native").read(answer, case="c")

    assert [(call.name, call.arguments) for call in completion.tool_calls] == [("", "{}")]
    assert completion.finish_reason == "length"


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (answered(message(content="Hal")), errors.ProtocolError, "without an object that says done"),
        (answered(message(content="Hal"), b'{"mess'), errors.ProtocolError, "stops being JSON"),
        (answered(message(content="Hal"), [1]), errors.ProtocolError, "a line is a JSON list"),
        (answered(message(content="Hal"), b"\xff"), errors.ProtocolError, "not UTF-8"),
        (answered(b" \n"), errors.ProtocolError, "the body is empty"),
        (answered(b"", kind="application/json"), errors.ProtocolError, "the body is empty"),
        (answered(b'{"half', kind="application/json"), errors.ProtocolError, "stops being JSON"),
        (answered({"odd": 1}, kind="application/json"), errors.ProtocolError, "without an object that says done"),
        (answered(message(content="H"), {"error": "boom"}), errors.ServerFailure, "answered 500"),
        (answered(message(), {"error": "exceeds the available context size"}), errors.ContextOverflow, "400"),
        (answered(message(), b'data: {"error": "exceeds the available context size"}'), errors.ContextOverflow, "400"),
        (
            answered(b'event: error\ndata: {"error": {"message": "context limit exceeded"}}'),
            errors.ContextOverflow,
            "400",
        ),
        (answered(message(), b"Error: the prompt is too long"), errors.ContextOverflow, "400"),
        (answered(message(), b'{\n "detail": "prompt is too long"\n}'), errors.ContextOverflow, "400"),
        (answered(b'{\n "detail": "prompt is too long"\n}'), errors.ContextOverflow, "400"),
        (answered(b'"prompt is too long"'), errors.ContextOverflow, "400"),
        (answered(message(), DONE), errors.EmptyAnswer, "finish reason stop"),
        (answered({"error": "model 'x' not found"}, status=404), errors.ModelMissing, "ollama pull tiny"),
        (answered({"error": "busy"}, status=503), errors.Overloaded, "busy"),
        (answered({"error": "invalid format: x"}, status=500), errors.BadRequest, "json or a JSON Schema"),
    ],
)
def test_native_answer_that_is_none_is_a_typed_error(
    answer: Reply, error: type[errors.AnswerError], words: str, attach: Attach
) -> None:
    with pytest.raises(errors.AnswerError) as caught:
        attach(DEAD, "ollama", model="tiny", route="native").read(answer, case="c1")

    assert type(caught.value) is error
    assert words in str(caught.value)
    assert (caught.value.engine, caught.value.case) == ("cand", "c1")


def test_answer_in_openais_shape_is_read_so_on_either_route(attach: Attach) -> None:
    answer = answered({"choices": [{"message": {"content": "Hi"}}]}, kind="application/json")
    events = answered(b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\ndata: [DONE]\n\n', kind="text/event-stream")

    for route in ("openai", "native"):
        adapter = attach(DEAD, "ollama", model="tiny", route=route)
        assert [adapter.read(reply, case="c").text for reply in (answer, events)] == ["Hi", "Hi"]


def test_lone_surrogates_are_replaced(attach: Attach) -> None:
    answer = answered(message(content="a\ud800"), DONE)

    completion = attach(DEAD, "ollama", model="tiny", route="native").read(answer, case="c")

    assert (completion.text, completion.normalised) == ("a\ufffd", ("lone surrogate replaced",))
