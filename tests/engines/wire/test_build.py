from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.errors import ParameterNotHonoured
from pytest_llmparity.core.sample import Request, Sampling
from pytest_llmparity.engines.kinds.openai import OpenAIAdapter
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.build import encode
from pytest_llmparity.settings.specification import EngineSpec

Attach = Callable[..., Adapter]

CHAT = ({"role": "user", "content": "Hello"},)
TOOLS = ({"type": "function", "function": {"name": "f", "parameters": {}}},)
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"properties": {"b": {}, "a": {}}}}}


@pytest.fixture
def adapters(attach: Attach) -> dict[str, Adapter]:
    return {kind: attach("http://127.0.0.1:9", kind) for kind in ("llamacpp", "vllm", "openai")}


def body(adapter: Adapter, request: Request, **options: bool) -> dict[str, Any]:
    built = adapter.build(request, **options)
    assert built.sha256 == hashlib.sha256(built.body).hexdigest()
    value = json.loads(built.body)
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("vllm", {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}),
        ("llamacpp", {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0, "cache_prompt": False}),
        ("openai", {}),
    ],
)
def test_every_sampling_field_the_kind_has_is_sent(
    adapters: dict[str, Adapter], kind: str, expected: dict[str, object]
) -> None:
    sampling = Sampling(stop=("END",), max_tokens=7, seed=3)

    sent = body(adapters[kind], Request(case="c", messages=CHAT, sampling=sampling), stream=False)

    assert sent == {
        "model": "loopback",
        "messages": list(CHAT),
        "max_tokens": 7,
        "temperature": 0.0,
        "top_p": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": 3,
        "stop": ["END"],
        **expected,
    }


def test_no_seed_and_no_stop_send_no_field(adapters: dict[str, Adapter]) -> None:
    sent = body(adapters["vllm"], Request(case="c", messages=CHAT, sampling=Sampling(seed=None)))

    assert "seed" not in sent
    assert "stop" not in sent


def test_stream_asks_for_usage(adapters: dict[str, Adapter]) -> None:
    sent = body(adapters["openai"], Request(case="c", messages=CHAT))

    assert sent["stream"] is True
    assert sent["stream_options"] == {"include_usage": True}


def test_generic_server_gets_greedy_requests_with_neutral_fields_left_out(adapters: dict[str, Adapter]) -> None:
    request = Request(case="c", messages=CHAT)

    assert adapters["openai"].build(request).omitted == ("top_k", "min_p", "repetition_penalty")
    assert adapters["vllm"].build(request).omitted == ()
    assert adapters["llamacpp"].build(request).omitted == ()


@pytest.mark.parametrize(
    ("sampling", "named"),
    [
        (Sampling(top_k=40), "top_k=40"),
        (Sampling(min_p=0.1), "min_p=0.1"),
        (Sampling(repetition_penalty=1.1), "repetition_penalty=1.1"),
        (Sampling(temperature=0.7), "temperature 0.7"),
    ],
)
def test_generic_server_refuses_what_it_has_no_field_for(
    adapters: dict[str, Adapter], sampling: Sampling, named: str
) -> None:
    with pytest.raises(ParameterNotHonoured, match="case 'refund-3'") as caught:
        adapters["openai"].build(Request(case="refund-3", messages=CHAT, sampling=sampling))

    assert named in str(caught.value)
    assert (caught.value.engine, caught.value.case) == ("cand", "refund-3")


def test_tools_choice_and_format_are_passed_on_in_the_order_declared(adapters: dict[str, Adapter]) -> None:
    request = Request(case="c", messages=CHAT, tools=TOOLS, tool_choice="required", response_format=FORMAT)

    built = adapters["vllm"].build(request)
    sent = json.loads(built.body)

    assert (sent["tools"], sent["tool_choice"], sent["response_format"]) == (list(TOOLS), "required", FORMAT)
    assert b'"properties":{"b":{},"a":{}}' in built.body


def test_raw_prompt_goes_to_the_completions_route(adapters: dict[str, Adapter]) -> None:
    request = Request(case="c", prompt="<|im_start|>", top_logprobs=0)

    built = {kind: adapter.build(request) for kind, adapter in adapters.items()}

    assert {kind: wire.path for kind, wire in built.items()} == dict.fromkeys(adapters, "/v1/completions")
    sent = {kind: json.loads(wire.body) for kind, wire in built.items()}
    assert sent["vllm"]["prompt"] == "<|im_start|>"
    assert "messages" not in sent["vllm"]
    # llama.cpp takes 0 for "no logprobs at all".
    assert {kind: each["logprobs"] for kind, each in sent.items()} == {"llamacpp": 1, "vllm": 0, "openai": 0}


@pytest.mark.parametrize(
    ("kind", "request_", "field"),
    [
        ("vllm", Request(case="c", prompt="x", tools=TOOLS), "tools"),
        ("llamacpp", Request(case="c", prompt="x", response_format=FORMAT), "response_format"),
        ("openai", Request(case="c", prompt="x", response_format=FORMAT), "response_format"),
    ],
)
def test_raw_prompt_refuses_what_its_route_drops(
    adapters: dict[str, Adapter], kind: str, request_: Request, field: str
) -> None:
    with pytest.raises(ParameterNotHonoured, match=f"no {field} with a raw prompt"):
        adapters[kind].build(request_)


def test_vllm_honours_a_format_of_a_raw_prompt(adapters: dict[str, Adapter]) -> None:
    assert body(adapters["vllm"], Request(case="c", prompt="x", response_format=FORMAT))["response_format"] == FORMAT


@pytest.mark.parametrize(
    ("tools", "top", "streamed"), [(TOOLS, 3, False), (TOOLS, None, True), (None, 3, True), (None, None, True)]
)
def test_llamacpp_streams_unless_tools_and_logprobs_meet(
    adapters: dict[str, Adapter], tools: tuple[dict[str, object], ...] | None, top: int | None, streamed: bool
) -> None:
    sent = body(adapters["llamacpp"], Request(case="c", messages=CHAT, tools=tools, top_logprobs=top))

    assert ("stream" in sent) is streamed


def test_chosen_token_alone_is_asked_with_the_least_the_kind_reports(adapters: dict[str, Adapter]) -> None:
    request = Request(case="c", messages=CHAT, top_logprobs=0)
    sent = {kind: body(adapter, request) for kind, adapter in adapters.items()}

    assert all(each["logprobs"] is True for each in sent.values())
    assert {kind: each["top_logprobs"] for kind, each in sent.items()} == {"llamacpp": 1, "vllm": 0, "openai": 0}


@given(text=st.text(alphabet=st.characters(), max_size=40))
def test_any_text_becomes_utf8_that_reads_back(text: str) -> None:
    assert json.loads(encode({"content": text}).decode("utf-8")) == {"content": text}


def test_lone_surrogates_go_out_as_escapes() -> None:
    assert encode({"content": "a\ud800é"}) == '{"content":"a\\ud800é"}'.encode()


def test_equal_requests_have_equal_bytes(adapters: dict[str, Adapter]) -> None:
    request = Request(case="c", messages=CHAT, response_format=FORMAT, top_logprobs=5)

    assert adapters["vllm"].build(request) == adapters["vllm"].build(request)
    other = Request(case="other", messages=CHAT, response_format=FORMAT, top_logprobs=5)
    assert adapters["vllm"].build(other).sha256 == adapters["vllm"].build(request).sha256


class Sparing(OpenAIAdapter):
    """A kind that reports three alternatives at most."""

    most_logprobs: ClassVar[int | None] = 3


@pytest.mark.parametrize(("wanted", "asked"), [(0, 0), (3, 3), (20, 3)])
def test_no_more_alternatives_are_asked_for_than_the_kind_takes(wanted: int, asked: int) -> None:
    adapter = Sparing(EngineSpec(name="cand", model="m"), "http://127.0.0.1:9", {})

    chat = body(adapter, Request(case="c", messages=CHAT, top_logprobs=wanted))
    raw = body(adapter, Request(case="c", prompt="x", top_logprobs=wanted))

    assert (chat["top_logprobs"], raw["logprobs"]) == (asked, asked)


def test_kind_that_says_nothing_of_itself_can_do_what_it_declares(adapters: dict[str, Adapter]) -> None:
    assert adapters["vllm"].capabilities() == adapters["vllm"].declares
