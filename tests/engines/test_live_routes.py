"""Routes ``responses`` and ``completions`` of real engines that serve the tiny model, beside the one for chats."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable

import msgspec
import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import Completion, Request, Sampling
from pytest_llmparity.engines.registry import make
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.probe.probes import LOGPROBS, RAW, STRUCTURED, probe
from pytest_llmparity.settings.specification import Route
from pytest_llmparity.transport.exchange import Exchange
from tests.engines.live import PYTHONS, Served

Send = Callable[..., Exchange]
Ask = Callable[..., Completion]

KINDS = pytest.mark.parametrize("served", ["llamacpp", *sorted(PYTHONS), "ollama"], indirect=True)
pytestmark = [pytest.mark.live, KINDS]

CAPITAL = ({"role": "user", "content": "What is the capital of France?"},)
STORY = ({"role": "user", "content": "Tell me a story in four sentences."},)
WEATHER = ({"role": "user", "content": "What is the weather in Lisbon?"},)
RENDERED = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = ({"type": "function", "function": {"name": "get_weather", "parameters": CITY}},)
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Lisbon"}'}}
CALLED = (
    *WEATHER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny, 24 degrees"},
)


def over(served: Served, route: Route) -> Adapter:
    """Return an adapter of the running engine over another route, or skip where its kind has none of that name."""
    adapter = served.adapter
    if route not in adapter.routes:
        pytest.skip(f"{adapter.kind} has no route {route}")
    other = make(dataclasses.replace(adapter.spec, route=route), adapter.base_url, environ=os.environ)
    other.warm_up()
    return other


@pytest.fixture
def ask(send: Send) -> Ask:
    def ask_one(adapter: Adapter, stream: bool = True, **fields: object) -> Completion:
        request = Request(case="c", **fields)  # type: ignore[arg-type]
        answer = adapter.read(send(adapter, request, stream=stream), case="c")
        return msgspec.structs.replace(answer, max_tokens=request.sampling.max_tokens)

    return ask_one


@pytest.mark.parametrize("stream", [True, False])
def test_responses_answer_as_the_chat_does(stream: bool, served: Served, ask: Ask) -> None:
    adapter = over(served, "responses")

    chat, response = ask(served.adapter, messages=CAPITAL), ask(adapter, stream, messages=CAPITAL)

    assert (response.text, response.finish_reason) == ("The capital of France is Paris.", "stop")
    assert (response.text, response.reasoning) == (chat.text, chat.reasoning)
    assert (response.prompt_tokens, response.completion_tokens) == (20, 12)
    assert response.normalised == ()


@pytest.mark.parametrize("stream", [True, False])
def test_a_cut_response_is_known_as_cut_whatever_its_status_says(stream: bool, served: Served, ask: Ask) -> None:
    adapter = over(served, "responses")

    response = ask(adapter, stream, messages=STORY, sampling=Sampling(max_tokens=16))

    assert response.cut
    assert response.completion_tokens == 16
    assert response.finish_reason == ("length" if adapter.kind == "vllm" else "stop")


@pytest.mark.parametrize("stream", [True, False])
def test_a_tool_is_called_over_responses(stream: bool, served: Served, ask: Ask) -> None:
    adapter = over(served, "responses")

    response = ask(adapter, stream, messages=WEATHER, tools=TOOLS)

    if served.can.tools is False:
        assert response.text.startswith("<tool_call>")
        return
    assert [(call.name, json.loads(call.arguments)) for call in response.tool_calls] == [
        ("get_weather", {"city": "Lisbon"})
    ]
    assert response.finish_reason == "tool_calls"


def test_a_conversation_with_a_call_makes_the_same_prompt_over_both_routes(served: Served, ask: Ask) -> None:
    adapter = over(served, "responses")

    chat, response = (ask(each, False, messages=CALLED) for each in (served.adapter, adapter))

    assert response.prompt_tokens == chat.prompt_tokens
    assert response.text == chat.text


def test_probes_find_out_what_responses_can_do(served: Served) -> None:
    adapter = over(served, "responses")
    able = adapter.on_route()

    probed = probe(adapter, {"logprobs": LOGPROBS, "schema": STRUCTURED}, declares=able).values

    logprobs = {"vllm": True}
    # vLLM's grammar lets the tiny model write blanks without end, which settles nothing, or end: by the CPU's bfloat16.
    schema = {"litellm": (False,), "llamacpp": (False,), "ollama": (True,), "vllm": (None, True)}
    assert bool(probed.get("logprobs")) is logprobs.get(adapter.kind, False)
    assert probed.get("json_schema") in schema.get(adapter.kind, (None,))


@pytest.mark.parametrize("stream", [True, False])
def test_completions_take_the_raw_prompt(stream: bool, served: Served, ask: Ask) -> None:
    adapter = over(served, "completions")

    completion = ask(adapter, stream, prompt=RENDERED, top_logprobs=2)

    assert (completion.text, completion.finish_reason) == ("The capital of France is Paris.", "stop")
    if completion.prompt_tokens is not None:
        assert completion.prompt_tokens == (30 if adapter.kind == "ollama" else 20)
    if adapter.gives_logprobs and not (stream and adapter.kind == "litellm"):
        assert b"".join(token.token for token in completion.logprobs).startswith(completion.text.encode())


def test_completions_refuse_chats_and_show_what_is_made_of_a_raw_prompt(served: Served, ask: Ask) -> None:
    adapter = over(served, "completions")

    with pytest.raises(errors.ParameterNotHonoured, match="has messages"):
        adapter.build(Request(case="c", messages=CAPITAL))
    probed = probe(adapter, {"raw prompt": RAW}, declares=adapter.on_route()).values
    assert probed == {"raw_prompt": adapter.kind != "ollama"}
