"""What every adapter promises, held against real engines that serve the tiny model: one engine after another.

What a kind declares decides what is expected: a promise is kept, and what an engine would ignore is never sent to it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import Completion, Phase, Request, Sample, Sampling
from pytest_llmparity.engines.wire import build
from pytest_llmparity.run.ledger import Allowance
from pytest_llmparity.run.plan import Job, wire_of
from pytest_llmparity.run.probe.overflow import FIT, OVERFLOW
from pytest_llmparity.run.probe.probes import probe
from pytest_llmparity.run.records import context_of
from pytest_llmparity.run.sending.sender import client_of, send
from pytest_llmparity.transport.exchange import Exchange
from tests.doubles.routes import recognise
from tests.engines.live import Served, half, python_of, start

Send = Callable[..., Exchange]
Ask = Callable[..., Completion]

pytestmark = pytest.mark.live

CAPITAL = ({"role": "user", "content": "What is the capital of France?"},)
STORY = ({"role": "user", "content": "Tell me a story in four sentences."},)
TOO_LONG = ({"role": "user", "content": "The hotel was clean and quiet. " * 160},)
SMALL, TRAINED = 256, 1024
"""Tokens of a context that is quickly overfilled, and of what the tiny model was trained for."""
RENDERED = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
PERSON = ({"role": "user", "content": "Extract name, age, city as JSON: Maria Lopez, 34, a nurse from Lisbon."},)
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
    "required": ["name", "age", "city"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
BACKWARDS = SCHEMA | {"properties": dict(reversed(SCHEMA["properties"].items()))}  # type: ignore[attr-defined]
WEATHER = ({"role": "user", "content": "What is the weather in Lisbon?"},)
TOOLS = (
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    },
)


@pytest.fixture
def ask(served: Served, send: Send) -> Ask:
    def ask_one(stream: bool = True, **fields: object) -> Completion:
        request = Request(case="c", **fields)  # type: ignore[arg-type]
        return served.adapter.read(send(served.adapter, request, stream=stream), case="c")

    return ask_one


def test_kind_is_recognised_by_its_address(served: Served) -> None:
    assert recognise(served.adapter.base_url) == served.adapter.kind


@pytest.mark.parametrize("stream", [True, False])
def test_chat_is_answered(stream: bool, served: Served, ask: Ask) -> None:
    completion = ask(stream, messages=CAPITAL)

    assert (completion.text, completion.finish_reason) == ("The capital of France is Paris.", "stop")
    if "stream_options" in served.adapter.stream_fields or not stream:
        assert (completion.prompt_tokens, completion.completion_tokens) == (20, 12 - served.uncounted)


@pytest.mark.parametrize("stream", [True, False])
def test_chat_with_logprobs(stream: bool, served: Served, ask: Ask) -> None:
    completion = ask(stream, messages=CAPITAL, top_logprobs=3)

    assert completion.text == "The capital of France is Paris."
    if not served.can.logprobs:
        assert completion.logprobs == ()
        return
    assert completion.logprobs[0].token == b"The"
    assert len(completion.logprobs[0].top) == 3
    assert b"".join(token.token for token in completion.logprobs).startswith(completion.text.encode())
    assert all(token.logprob == token.top[0][1] for token in completion.logprobs if token.token)
    if served.can.token_ids:
        assert [token.id for token in completion.logprobs[:2]] == [437, 395]


def test_chosen_token_alone(served: Served, ask: Ask) -> None:
    completion = ask(messages=CAPITAL, top_logprobs=0)

    if served.can.logprobs:
        assert completion.logprobs[0].logprob == pytest.approx(0, abs=0.01)


def test_raw_prompt_is_the_rendered_chat(served: Served, ask: Ask) -> None:
    completion = ask(stream=False, prompt=RENDERED, top_logprobs=2)

    assert (completion.text, completion.prompt_tokens) == ("The capital of France is Paris.", 20)
    if served.can.logprobs:
        assert len(completion.logprobs[0].top) == 2


def test_a_rendered_chat_is_told_as_the_raw_prompt_that_it_is_or_not_at_all(served: Served, ask: Ask) -> None:
    rendered = served.adapter.rendered(Request(case="c", messages=CAPITAL))

    assert rendered == (RENDERED if served.adapter.renderings else None)


def test_a_request_that_leaves_the_prompt_cache_out_is_taken(served: Served, send: Send) -> None:
    wire = served.adapter.build(Request(case="c", messages=CAPITAL), stream=False)
    body = build.encode({**json.loads(wire.body), **served.adapter.uncached()})

    reply = served.adapter.control.post(wire.path, body, timeout_s=60.0)

    assert served.adapter.read(reply, case="c").text == "The capital of France is Paris."


def test_schema_is_forced(served: Served, ask: Ask) -> None:
    if served.can.json_schema is False:
        with pytest.raises(errors.ParameterNotHonoured, match="would ignore response_format"):
            ask(messages=PERSON, response_format=FORMAT)
        return

    text = ask(messages=PERSON, response_format=FORMAT).text

    if served.can.schema_order is False:  # then the grammar makes the model say another person
        assert list(json.loads(text)) == ["age", "city", "name"]
    else:
        assert text == '{"name": "Maria Lopez", "age": 34, "city": "Lisbon"}'


def test_schema_is_forced_in_the_order_it_declares(served: Served, ask: Ask) -> None:
    if not served.can.schema_order:
        pytest.skip(f"{served.adapter.kind} does not promise it")
    wanted = {"type": "json_schema", "json_schema": {"name": "order", "schema": BACKWARDS}}

    text = ask(messages=PERSON, response_format=wanted).text

    assert 0 < text.find('"city"') < text.find('"age"')


@pytest.mark.parametrize("top", [None, 1])
def test_tool_is_called(top: int | None, served: Served, ask: Ask) -> None:
    # llama.cpp refuses logprobs and tools in one stream, and the proxy before it cannot know.
    stream = top is None or served.adapter.kind != "litellm"
    if served.adapter.kind == "ollama" and top is not None:  # its llama-server is always asked for a stream
        with pytest.raises(errors.UnsupportedParameter, match="logprobs is not supported with tools"):
            ask(stream, messages=WEATHER, tools=TOOLS, top_logprobs=top)
        return
    completion = ask(stream, messages=WEATHER, tools=TOOLS, top_logprobs=top)

    if served.can.tools is False:
        assert completion.text.startswith("<tool_call>")
        return
    assert [(call.name, json.loads(call.arguments)) for call in completion.tool_calls] == [
        ("get_weather", {"city": "Lisbon"})
    ]


@pytest.mark.parametrize("streamed", [True, False])
def test_a_conversation_goes_on_after_a_call(served: Served, streamed: bool) -> None:
    scripted = {"get_weather": [{"arguments": {"city": "Lisbon"}, "result": "Sunny, 21 degrees."}]}
    sampling, results = Sampling(max_tokens=32), {"tool_results": scripted, "max_turns": 2}
    request = Request(case="c", messages=WEATHER, tools=TOOLS, sampling=sampling, **results)  # type: ignore[arg-type]
    wire = wire_of(served.adapter, request, stream=streamed)
    job = Job(case="c", wire=wire, phase=Phase.MAIN, repeat=0, concurrency=1)
    samples: list[Sample] = []

    async def hold() -> None:
        client = client_of(served.adapter)
        allowance = Allowance(requests=None, seconds=None)
        await send(
            served.adapter, client, [job], concurrency=1, allowance=allowance, gone=lambda: None, deliver=samples.append
        )
        await client.aclose()

    asyncio.run(hold())

    (sample,) = samples
    assert sample.completion is not None, sample.failure
    if served.can.tools is False:
        assert sample.completion.text.startswith("<tool_call>")
        assert not sample.completion.turns
        return
    (first,) = sample.completion.turns
    assert [call.name for call in first.tool_calls] == ["get_weather"]
    assert first.results == ("Sunny, 21 degrees.",)
    assert sample.request_sha256 == wire.sha256
    # What it was asked then holds the call and its result: some thirty tokens more.
    assert (sample.completion.prompt_tokens or 0) > (first.prompt_tokens or 0) + 20


@pytest.mark.parametrize(
    "name", ["top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"]
)
def test_every_sampling_parameter_is_taken(name: str, served: Served, ask: Ask) -> None:
    given = {"top_k": 3, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.05}.get(name, 0.1)
    unknown = {
        ("litellm", "openai"): ("top_k", "min_p", "repetition_penalty"),
        ("ollama", "openai"): ("top_k", "min_p", "repetition_penalty"),
        ("transformers", "openai"): ("presence_penalty", "frequency_penalty"),
    }.get((served.adapter.kind, served.adapter.spec.route), ())
    sampling = Sampling(stop=(" of",), **{name: given})  # type: ignore[arg-type]

    if name in unknown:
        with pytest.raises(errors.ParameterNotHonoured, match=name):
            ask(messages=CAPITAL, sampling=sampling)
    else:
        assert ask(messages=CAPITAL, sampling=sampling).text.removesuffix(" of") == "The capital"


def test_repetition_penalty_has_its_effect(served: Served, ask: Ask) -> None:
    if "repetition_penalty" not in served.adapter.fields:
        pytest.skip(f"{served.adapter.kind} has no field for it")
    plain, punished = (
        ask(messages=STORY, sampling=Sampling(max_tokens=40, repetition_penalty=value)).text for value in (1.0, 1.8)
    )

    assert plain != punished


def test_seed_repeats_what_was_sampled(served: Served, ask: Ask) -> None:
    if not served.can.seed:
        pytest.skip(f"{served.adapter.kind} does not promise it")
    texts = [
        ask(messages=STORY, sampling=Sampling(max_tokens=24, temperature=1.5, seed=seed)).text for seed in (1, 1, 2, 3)
    ]

    assert texts[0] == texts[1]
    assert len(set(texts)) > 1, "nothing was sampled"


@pytest.mark.parametrize("stream", [True, False])
def test_several_choices_are_drawn_each_for_itself_or_not_asked_for(stream: bool, served: Served, ask: Ask) -> None:
    asked = {"messages": STORY, "sampling": Sampling(max_tokens=24, temperature=1.5, seed=3), "n": 2}
    if "n" in served.adapter.ignores:
        with pytest.raises(errors.ParameterNotHonoured, match="which asks for n = 2"):
            ask(stream, **asked)
        return
    if "top_k" not in served.adapter.fields:
        pytest.skip("it has no field to switch top_k off, so nothing is sampled over it")

    completion = ask(stream, **asked)

    (other,) = completion.choices
    assert completion.text
    assert other.text not in ("", completion.text)
    assert completion.counted


def test_length_is_said(served: Served, ask: Ask) -> None:
    completion = ask(stream=False, messages=CAPITAL, sampling=Sampling(max_tokens=3))

    assert (completion.text, completion.finish_reason, completion.completion_tokens) == ("The capital of", "length", 3)


@pytest.mark.parametrize("stream", [True, False])
def test_prompt_too_long_is_refused(stream: bool, served: Served, ask: Ask) -> None:
    if served.can.overflow == "answered uncut":
        if stream:
            pytest.skip("it reads the whole prompt for seconds, and the same one when the answer is not streamed")
        assert (ask(stream, messages=TOO_LONG, sampling=Sampling(max_tokens=1)).prompt_tokens or 0) > TRAINED
        return
    # llama_cpp.server has begun its stream when it finds out.
    silent = stream and served.adapter.kind == "llamacpp-python"

    with pytest.raises(errors.ProtocolError if silent else errors.ContextOverflow, match="context"):
        ask(stream, messages=TOO_LONG)


def test_probe_decides_what_becomes_of_a_conversation_that_does_not_fit(served: Served) -> None:
    adapter = served.adapter
    # mlx-lm reads 2,000 tokens for six seconds. That it reads more than its model was trained for shows the test above,
    # and transformers is sent more than that.
    context = SMALL if adapter.kind == "mlx" else context_of(adapter.spec, adapter.identity())
    # Of who refuses nothing a full context tells nothing, and takes long to read.
    probes = (
        {"overflow": OVERFLOW} if served.can.overflow == "answered uncut" else {"context": FIT, "overflow": OVERFLOW}
    )

    result = probe(adapter, probes, declares=adapter.capabilities(), context=context)

    uncut = {"mlx": "answered uncut", "transformers": "answered uncut"}
    expected = uncut.get(adapter.kind, "refused")
    if (adapter.kind, adapter.spec.route) == ("ollama", "openai"):
        expected = "oldest turns dropped"
    assert result.values.get("overflow") == expected, result.notes
    if adapter.kind in uncut:
        assert adapter.trained_context() == TRAINED


def test_field_nobody_knows_is_dropped_or_refused_as_declared(served: Served, ask: Ask) -> None:
    adapter = served.adapter
    if served.can.unknown_fields is None:
        pytest.skip(f"{adapter.kind} does not say")
    built = adapter.build(Request(case="c", messages=CAPITAL), stream=False)
    body = built.body[:-1] + b',"x_llmparity_probe":1}'

    reply = adapter.control.post(built.path, body, timeout_s=300)

    assert reply.status == (200 if served.can.unknown_fields == "dropped" else 422)


def test_identity(served: Served) -> None:
    identity = served.adapter.identity()

    expected = {
        "litellm": ("tiny", None, None),
        "llamacpp": ("tiny-F16.gguf", "F16", 512),
        "llamacpp-python": ("tiny-F16.gguf", "F16", 512),
        "mlx": ("tiny", "BF16", None),
        "ollama": ("tiny-f16:f16", "F16", 512),
        "transformers": ("tiny", "F32", None),
        "vllm": ("tiny", "BF16", 1024),
    }[served.adapter.kind]
    assert tuple(identity.get(name) for name in ("model", "quantization", "context_length")) == expected
    assert identity.get("version")
    if served.adapter.local_model:
        assert str(identity.get("digest")).startswith("sha256:")
        assert identity.get("template_sha256")


@pytest.mark.parametrize("served", ["llamacpp", "ollama", "ollama-native", "vllm"], indirect=True)
def test_context_is_what_the_server_reports(served: Served) -> None:
    assert served.adapter.identity().facts["context_length"].source == "reported"


@pytest.mark.parametrize("served", ["llamacpp", "llamacpp-python"], indirect=True)
def test_model_that_is_broken_ends_the_start_with_the_log(served: Served, tmp_path: Path) -> None:
    kind = served.adapter.kind
    python = python_of(kind) if kind == "llamacpp-python" else None

    with pytest.raises(errors.LaunchError, match=r"(?s)half did not start: exit status 1.*half\.gguf"):
        start(half(kind, tmp_path, python=python), tmp_path)
