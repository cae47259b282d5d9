"""What the adapters read from every recording of a real engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.engines.base import Adapter
from pytest_llmparity.testing import Replay
from pytest_llmparity.transport.client import Client
from pytest_llmparity.transport.exchange import Exchange

PARIS = "The capital of France is Paris."
PERSON = '{"name": "Maria Lopez", "age": 34, "city": "Lisbon"}'
WEATHER = 'get_weather({"city": "Lisbon"})'

ANSWERS: dict[str, dict[str, tuple[str, str, tuple[int | None, int | None], int, int]]] = {
    # name: text or call, finish reason, (prompt tokens, completion tokens), logprobs, events with tokens
    "llamacpp": {
        "v1_chat": (PARIS, "stop", (20, 12), 0, 0),
        "v1_chat_bad_temperature": (PARIS, "stop", (20, 12), 0, 0),
        "v1_chat_defaults": (PARIS, "stop", (20, 12), 0, 0),
        "v1_chat_json_object": (PERSON, "stop", (32, 22), 0, 0),
        "v1_chat_length": ("One morning a quiet raven", "length", (18, 5), 0, 0),
        "v1_chat_logprobs": (PARIS, "stop", (20, 12), 12, 0),
        "v1_chat_logprobs_stream": (PARIS, "stop", (None, None), 11, 11),
        "v1_chat_max_completion_tokens": ("One morning a quiet raven", "length", (18, 5), 0, 0),
        "v1_chat_schema": (PERSON, "stop", (32, 22), 0, 0),
        "v1_chat_schema_stream": (PERSON, "stop", (None, None), 0, 21),
        "v1_chat_stop": ("The capital of France", "stop", (20, 8), 0, 0),
        "v1_chat_stream": (PARIS, "stop", (20, 12), 0, 11),
        "v1_chat_tools": (WEATHER, "tool_calls", (92, 25), 0, 0),
        "v1_chat_tools_required": (WEATHER, "tool_calls", (92, 25), 0, 0),
        "v1_chat_tools_stream": (WEATHER, "tool_calls", (None, None), 0, 8),
        "v1_chat_top_logprobs_50": (PARIS, "stop", (20, 12), 12, 0),
        "v1_chat_unknown_field": (PARIS, "stop", (20, 12), 0, 0),
        "v1_chat_unknown_model": ("The capital of F", "length", (20, 4), 0, 0),
        "v1_completions_raw": (PARIS, "stop", (20, 12), 0, 0),
    },
    "vllm": {
        "chat_prompt_logprobs": (PARIS, "stop", (20, 12), 0, 0),
        "chat_return_token_ids": (PARIS, "stop", (20, 12), 0, 0),
        "v1_chat": (PARIS, "stop", (20, 12), 0, 0),
        "v1_chat_defaults": (PARIS, "stop", (20, 12), 0, 0),
        "v1_chat_json_object": (PERSON, "stop", (32, 22), 0, 0),
        "v1_chat_length": ("The quiet heron guarded the", "length", (18, 5), 0, 0),
        "v1_chat_logprobs": (PARIS, "stop", (20, 12), 12, 0),
        "v1_chat_logprobs_stream": (PARIS, "stop", (None, None), 12, 11),
        "v1_chat_max_completion_tokens": ("The quiet heron guarded the", "length", (18, 5), 0, 0),
        "v1_chat_n2": (PARIS, "stop", (20, 24), 0, 0),
        "v1_chat_schema": (PERSON, "stop", (32, 22), 0, 0),
        "v1_chat_schema_stream": (PERSON, "stop", (None, None), 0, 21),
        "v1_chat_stop": ("The capital of France", "stop", (20, 8), 0, 0),
        "v1_chat_stream": (PARIS, "stop", (20, 12), 0, 11),
        "v1_chat_tools": (WEATHER, "tool_calls", (92, 25), 0, 0),
        "v1_chat_tools_required": (WEATHER, "tool_calls", (92, 25), 0, 0),
        "v1_chat_tools_stream": (WEATHER, "tool_calls", (None, None), 0, 8),
        "v1_chat_unknown_field": (PARIS, "stop", (20, 12), 0, 0),
        "v1_completions_raw": (PARIS, "stop", (20, 12), 0, 0),
    },
}

ERRORS: dict[str, dict[str, tuple[type[errors.EngineError], str]]] = {
    "llamacpp": {
        "apply_template": (errors.ProtocolError, "no choices"),
        "completion_native": (errors.ProtocolError, "no choices"),
        "health": (errors.ProtocolError, "no choices"),
        "props": (errors.ProtocolError, "no choices"),
        "slots": (errors.ProtocolError, "a JSON list"),
        "tokenize": (errors.ProtocolError, "no choices"),
        "v1_chat_bad_json": (errors.BadRequest, "parse error at line 1"),
        "v1_chat_n2": (errors.BadRequest, "Field 'n'"),
        "v1_chat_no_messages": (errors.BadRequest, "'messages' is required"),
        "v1_chat_too_long": (errors.ContextOverflow, "2829 tokens"),
        "v1_models": (errors.ProtocolError, "no choices"),
        "v1_unknown_route": (errors.AnswerError, "no such route"),
    },
    "vllm": {
        "health": (errors.ProtocolError, "the body is empty"),
        "server_info": (errors.AnswerError, "no such route"),
        "tokenize": (errors.ProtocolError, "no choices"),
        "v1_chat_bad_json": (errors.BadRequest, "JSON decode error"),
        "v1_chat_bad_temperature": (errors.BadRequest, "(field temperature)"),
        "v1_chat_no_messages": (errors.BadRequest, "(field body.messages)"),
        "v1_chat_too_long": (errors.ContextOverflow, "maximum context length is 1024"),
        "v1_chat_top_logprobs_50": (errors.BadRequest, "max allowed: 20"),
        "v1_chat_unknown_model": (errors.ModelMissing, "does not exist"),
        "v1_models": (errors.ProtocolError, "no choices"),
        "v1_unknown_route": (errors.AnswerError, "no such route"),
        "version": (errors.ProtocolError, "no choices"),
    },
}


@pytest.fixture(scope="module")
def replays(wire: Path) -> Iterator[dict[str, Replay]]:
    with Replay(wire / "llamacpp") as llamacpp, Replay(wire / "vllm") as vllm:
        yield {"llamacpp": llamacpp, "vllm": vllm}


def fetch(replay: Replay, name: str) -> Exchange:
    async def exchange() -> Exchange:
        async with Client(f"{replay.base_url}/@{name}") as client:
            return await client.send("POST", "/v1/chat/completions", b"{}")

    return asyncio.run(exchange())


def said(completion: Completion) -> str:
    calls = "".join(f"{call.name}({call.arguments})" for call in completion.tool_calls)
    return completion.text + calls


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in ANSWERS.items() for name in names], ids=lambda part: part
)
def test_recorded_answer(kind: str, name: str, replays: dict[str, Replay], attach: Callable[..., Adapter]) -> None:
    text, finish, counts, logprobs, events = ANSWERS[kind][name]
    adapter = attach(replays[kind].base_url, kind, model="tiny")
    exchange = fetch(replays[kind], name)

    found = adapter.parse(exchange, case=name)

    assert (said(found), found.finish_reason) == (text, finish)
    assert (found.prompt_tokens, found.completion_tokens) == counts
    assert (len(found.logprobs), len(adapter.token_ends(exchange))) == (logprobs, events)
    assert found.normalised == ()
    assert found.fingerprint == {"llamacpp": "b0-unknown", "vllm": "vllm-0.32.0-ab0a12d1"}[kind]
    assert found.cached_tokens == {"llamacpp": 0, "vllm": None}[kind]
    assert set(found.server) >= ({"prompt_ms", "predicted_ms"} if kind == "llamacpp" else set())


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in ERRORS.items() for name in names], ids=lambda part: part
)
def test_recorded_refusal(kind: str, name: str, replays: dict[str, Replay], attach: Callable[..., Adapter]) -> None:
    error, words = ERRORS[kind][name]
    adapter = attach(replays[kind].base_url, kind, model="tiny")

    with pytest.raises(error) as caught:
        adapter.parse(fetch(replays[kind], name), case=name)

    assert type(caught.value) is error
    assert words in str(caught.value)
    assert (caught.value.engine, caught.value.case) == ("cand", name)


@pytest.mark.parametrize("kind", ["llamacpp", "vllm"])
def test_no_recording_is_left_out(kind: str, wire: Path) -> None:
    names = {file.stem for file in (wire / kind).glob("*.json")}

    assert names == set(ANSWERS[kind]) | set(ERRORS[kind])


def test_logprobs_of_both_engines_name_the_same_tokens(
    replays: dict[str, Replay], attach: Callable[..., Adapter]
) -> None:
    found = {
        kind: attach(replay.base_url, kind, model="tiny").parse(fetch(replay, "v1_chat_logprobs"), case="c").logprobs
        for kind, replay in replays.items()
    }

    ends = {kind: tokens[-1].token for kind, tokens in found.items()}
    assert ends == {"llamacpp": b"", "vllm": b"<|im_end|>"}  # llama.cpp reports the end token without its text
    assert [token.token for token in found["llamacpp"][:-1]] == [token.token for token in found["vllm"][:-1]]
    assert all(len(token.top) == 5 for tokens in found.values() for token in tokens)
    assert [token.id for token in found["llamacpp"][:2]] == [437, 395]
    for mine, theirs in zip(found["llamacpp"], found["vllm"], strict=True):
        assert mine.logprob == pytest.approx(theirs.logprob, abs=0.01)  # BF16 against F16 arithmetic


def test_identity_of_recorded_llamacpp(replays: dict[str, Replay], attach: Callable[..., Adapter]) -> None:
    facts = attach(replays["llamacpp"].base_url, "llamacpp", model="tiny-F16.gguf").identity().facts

    assert {name: fact.value for name, fact in facts.items() if name != "template_sha256"} == {
        "kind": "llamacpp",
        "model": "tiny-F16.gguf",
        "quantization": "F16",
        "build": "b0-unknown",
        "context_length": 1024,
        "slots": 1,
        "format": "gguf",
    }
    assert {fact.source for name, fact in facts.items() if name != "kind"} == {"reported"}


def test_identity_of_recorded_vllm(replays: dict[str, Replay], attach: Callable[..., Adapter]) -> None:
    facts = attach(replays["vllm"].base_url, "vllm", model="tiny", revision="abc").identity().facts

    assert {name: (fact.value, fact.source) for name, fact in facts.items()} == {
        "kind": ("vllm", "declared"),
        "revision": ("abc", "declared"),
        "model": ("tiny", "reported"),
        "version": ("0.32.0", "reported"),
        "context_length": (1024, "reported"),
    }
