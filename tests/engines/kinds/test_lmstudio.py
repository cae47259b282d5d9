"""The adapter of LM Studio against a double that answers as the documentation says: no recording was to be had."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import Request, Sampling
from pytest_llmparity.engines import registry
from pytest_llmparity.engines.kinds.lmstudio import LmStudioAdapter
from pytest_llmparity.engines.start.readiness import free_port
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.settings.selection import KINDS
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.testing.server import Call, Hangup
from pytest_llmparity.transport.exchange import Exchange
from tests.doubles.documented import LmStudioDouble
from tests.doubles.routes import recognise

Attach = Callable[..., Adapter]
Send = Callable[..., Exchange]

MODEL = LmStudioDouble.model
CHAT = ({"role": "user", "content": "Hello"},)
TOOLS = ({"type": "function", "function": {"name": "f", "parameters": {}}},)
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"properties": {"b": {}, "a": {}}}}}


@pytest.fixture
def studio() -> Iterator[LmStudioDouble]:
    with LmStudioDouble() as double:
        yield double


@pytest.fixture
def old() -> Iterator[LmStudioDouble]:
    with LmStudioDouble(old=True) as double:
        yield double


@pytest.fixture
def adapter(studio: LmStudioDouble, attach: Attach) -> Adapter:
    return attach(studio.base_url, "lmstudio", model=MODEL)


def body(adapter: Adapter, request: Request) -> dict[str, Any]:
    value = json.loads(adapter.build(request).body)
    assert isinstance(value, dict)
    return value


def test_kind_is_what_the_core_says_of_it() -> None:
    assert registry.facts(LmStudioAdapter) == KINDS["lmstudio"]


def test_it_cannot_be_started_and_the_commands_that_do_are_named(tmp_path: Path) -> None:
    with pytest.raises(errors.LaunchError, match=r"one server per account.*lms server start --port 1234") as caught:
        LmStudioAdapter.launch(EngineSpec(name="cand", kind="lmstudio"), 1, tmp_path)

    assert caught.value.engine == "cand"


# ---- readiness and memory ------------------------------------------------------------------------------------------


def test_server_is_recognised_and_ready(studio: LmStudioDouble, old: LmStudioDouble, adapter: Adapter) -> None:
    assert adapter.ready() is None
    assert recognise(studio.base_url) == "lmstudio"
    assert recognise(old.base_url) == "lmstudio"


def test_server_that_says_200_to_everything_is_not_ready_for_that(studio: LmStudioDouble, attach: Attach) -> None:
    reason = attach(studio.base_url + "/lmstudio", "lmstudio", model=MODEL).ready()

    assert reason == (
        "GET /v1/models answers without a list of models (Unexpected endpoint or method. (GET /lmstudio/v1/models))"
    )


def test_answer_without_a_word_is_not_ready_either(attach: Attach) -> None:
    class Silent(LmStudioDouble):
        def answer(self, call: Call) -> None:
            call.send(200, b"")

    with Silent() as double:
        reason = attach(double.base_url, "lmstudio", model=MODEL).ready()

    assert reason == "GET /v1/models answers without a list of models"


@pytest.mark.parametrize(
    ("model", "context", "loaded"),
    [(MODEL, 8192, 8192), (MODEL, None, 4096), (f"{MODEL}@q4_k_m", 1024, 1024)],
)
def test_model_is_loaded_with_the_configured_context(
    model: str, context: int | None, loaded: int, studio: LmStudioDouble, attach: Attach
) -> None:
    adapter = attach(studio.base_url, "lmstudio", model=model, context_length=context)

    adapter.load()

    assert studio.bodies == [{"model": model} | ({} if context is None else {"context_length": context})]
    assert adapter.identity().get("context_length") == loaded


@pytest.mark.parametrize("context", [None, 2048])
def test_model_that_is_loaded_already_is_left_as_it_is(
    context: int | None, studio: LmStudioDouble, attach: Attach
) -> None:
    studio.loaded = {MODEL: 2048}

    attach(studio.base_url, "lmstudio", model=MODEL, context_length=context).load()

    assert studio.bodies == []


def test_model_that_somebody_loaded_with_another_context_is_theirs(studio: LmStudioDouble, attach: Attach) -> None:
    studio.loaded = {"chat": 2048}

    with pytest.raises(errors.LaunchError, match=r"context of 2048 tokens and 8192 is configured.*lms unload chat"):
        attach(studio.base_url, "lmstudio", model="chat", context_length=8192).load()
    assert studio.loaded == {"chat": 2048}


def test_model_that_is_not_there_is_told_with_the_command_that_fetches_it(
    studio: LmStudioDouble, attach: Attach
) -> None:
    with pytest.raises(errors.ModelMissing, match=rf"\(it has {MODEL}\)\. Fetch it with: lms get gemma"):
        attach(studio.base_url, "lmstudio", model="gemma").load()


def test_load_that_fails_is_the_servers_error(attach: Attach) -> None:
    class Full(LmStudioDouble):
        def _load(self, call: Call) -> None:
            self.tell(call, {"error": {"message": "Model loading was stopped: not enough memory"}}, status=500)

    with Full() as double, pytest.raises(errors.ServerFailure, match="not enough memory"):
        attach(double.base_url, "lmstudio", model=MODEL, start_timeout_s=5.0).load()


def test_unload_gives_back_every_instance_of_the_model(studio: LmStudioDouble, adapter: Adapter) -> None:
    studio.loaded = {MODEL: 2048, f"{MODEL}:2": 4096}

    adapter.unload()
    adapter.unload()  # nothing is left, and nothing is asked

    assert studio.loaded == {}
    assert studio.bodies == [{"instance_id": MODEL}, {"instance_id": f"{MODEL}:2"}]


def test_unload_of_one_instance_leaves_the_others(studio: LmStudioDouble, attach: Attach) -> None:
    studio.loaded = {MODEL: 2048, "chat": 4096}

    attach(studio.base_url, "lmstudio", model="chat").unload()

    assert studio.loaded == {MODEL: 2048}


@pytest.mark.parametrize("loaded", [{}, {MODEL: 2048}, {MODEL: 2048, f"{MODEL}:2": 4096}])
@pytest.mark.parametrize("context", [None, 8192])
def test_what_somebody_had_loaded_is_loaded_again_as_it_was(
    loaded: dict[str, int], context: int | None, studio: LmStudioDouble, attach: Attach
) -> None:
    studio.loaded = dict(loaded)
    adapter = attach(studio.base_url, "lmstudio", model=MODEL, context_length=context)
    adapter.unload()

    adapter.load()
    used = dict(studio.loaded)
    adapter.restore()

    assert used == {MODEL: context or loaded.get(MODEL, studio.default_context)}
    assert studio.loaded == loaded


def test_what_was_left_alone_is_not_touched(studio: LmStudioDouble, adapter: Adapter) -> None:
    studio.loaded = {MODEL: 2048}
    adapter.restore()
    adapter.load()
    adapter.restore()

    assert studio.loaded == {MODEL: 2048}
    assert studio.bodies == []


def test_identifier_that_cannot_be_given_back_is_told(studio: LmStudioDouble, attach: Attach) -> None:
    studio.loaded = {"chat": 4096}
    adapter = attach(studio.base_url, "lmstudio", model="chat")
    adapter.unload()

    with pytest.raises(errors.LaunchError, match=f"had '{MODEL}' loaded as 'chat' and has it as '{MODEL}' now"):
        adapter.restore()

    assert studio.loaded == {MODEL: 4096}


def test_unload_that_is_refused_with_200_is_an_error(attach: Attach) -> None:
    class Forgetful(LmStudioDouble):
        def _unload(self, call: Call) -> None:
            self.loaded.clear()
            super()._unload(call)

    with Forgetful() as double:
        double.loaded = {MODEL: 2048}
        with pytest.raises(errors.ServerFailure, match="No instance"):
            attach(double.base_url, "lmstudio", model=MODEL).unload()


def test_server_before_the_rest_api_loads_by_itself_and_cannot_unload(old: LmStudioDouble, attach: Attach) -> None:
    adapter = attach(old.base_url, "lmstudio", model=MODEL, context_length=8192)

    adapter.load()

    with pytest.raises(errors.LaunchError, match=r"came with LM Studio 0\.4\.0"):
        adapter.unload()


# ---- identity ------------------------------------------------------------------------------------------------------


def test_identity_is_what_the_server_says_with_the_build_of_the_warm_up(
    studio: LmStudioDouble, adapter: Adapter
) -> None:
    adapter.load()
    adapter.warm_up()

    facts = adapter.identity().facts

    assert {name: (fact.value, fact.source) for name, fact in facts.items()} == {
        "kind": ("lmstudio", "declared"),
        "model": (MODEL, "reported"),
        "quantization": ("Q4_K_M", "reported"),
        "format": ("gguf", "reported"),
        "context_length": (4096, "reported"),
        "slots": (4, "reported"),
        "build": ("llama.cpp-mac-arm64-apple-metal-advsimd 1.3.0", "reported"),
    }


def test_quantisation_of_mlx_is_named_as_such(attach: Attach) -> None:
    with LmStudioDouble(format="mlx") as double:
        fact = attach(double.base_url, "lmstudio", model=MODEL).identity().facts["quantization"]

    assert (fact.value, fact.raw) == ("MLX_4BIT", "4bit")


def test_server_before_the_rest_api_is_identified_by_the_one_before(old: LmStudioDouble, attach: Attach) -> None:
    adapter = attach(old.base_url, "lmstudio", model=MODEL)
    before = adapter.identity()
    adapter.warm_up()

    assert (before.get("quantization"), before.get("format"), before.get("context_length")) == ("Q4_K_M", "gguf", None)
    assert adapter.identity().get("context_length") == 4096


def test_context_is_the_one_our_model_was_loaded_with_after_it_has_gone(studio: LmStudioDouble, attach: Attach) -> None:
    adapter = attach(studio.base_url, "lmstudio", model=MODEL, context_length=2048)
    adapter.load()
    adapter.warm_up()

    adapter.unload()

    assert adapter.identity().get("context_length") == 2048


def test_model_the_server_does_not_list_is_only_what_was_declared(studio: LmStudioDouble, attach: Attach) -> None:
    for url in (studio.base_url, f"http://127.0.0.1:{free_port()}"):
        facts = attach(url, "lmstudio", model="gemma").identity().facts

        assert {name: fact.source for name, fact in facts.items()} == {"kind": "declared", "model": "declared"}


@pytest.mark.parametrize("hangs_up", [True, False])
def test_warm_up_does_without_the_deprecated_route(hangs_up: bool, attach: Attach) -> None:
    class Modern(LmStudioDouble):
        def _old_chat(self, call: Call) -> None:
            if hangs_up:
                raise Hangup
            self.tell(call, {"error": f"Unexpected endpoint or method. (POST {call.path})"})

    with Modern() as double:
        adapter = attach(double.base_url, "lmstudio", model=MODEL)
        adapter.warm_up()

        assert "build" not in adapter.identity().facts


def test_limits_name_what_is_lost(adapter: Adapter) -> None:
    limits = " ".join(adapter.limits())

    assert all(words in limits for words in ("min_p", "Outlines", "no logprobs", "context length"))
    assert adapter.capabilities().logprobs is False


# ---- the wire and the answers --------------------------------------------------------------------------------------


def test_documented_fields_are_sent_and_min_p_is_left_out_of_greedy_requests(adapter: Adapter) -> None:
    built = adapter.build(Request(case="c", messages=CHAT, sampling=Sampling(seed=3), top_logprobs=5))

    assert built.omitted == ("min_p",)
    assert json.loads(built.body) == {
        "model": MODEL,
        "messages": list(CHAT),
        "max_tokens": 64,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize("sampling", [Sampling(min_p=0.1), Sampling(temperature=0.7)])
def test_what_hangs_on_min_p_is_refused(sampling: Sampling, adapter: Adapter) -> None:
    with pytest.raises(errors.ParameterNotHonoured, match="no field for min_p"):
        adapter.build(Request(case="c", messages=CHAT, sampling=sampling))


def test_schema_and_tools_are_passed_on(adapter: Adapter) -> None:
    sent = body(adapter, Request(case="c", messages=CHAT, tools=TOOLS, response_format=FORMAT))

    assert (sent["response_format"], sent["tools"]) == (FORMAT, list(TOOLS))


def test_format_without_a_schema_is_refused(adapter: Adapter) -> None:
    with pytest.raises(errors.ParameterNotHonoured, match="no response_format 'json_object'"):
        adapter.build(Request(case="c", messages=CHAT, response_format={"type": "json_object"}))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("request_", [Request(case="c", messages=CHAT), Request(case="c", prompt="x")])
def test_answer_is_read(request_: Request, stream: bool, adapter: Adapter, send: Send) -> None:
    completion = adapter.read(send(adapter, request_, stream=stream), case="c")

    assert (completion.text, completion.finish_reason) == ("The capital of France is Paris.", "stop")
    assert (completion.prompt_tokens, completion.completion_tokens, completion.logprobs) == (9, 6, ())


def test_prompt_that_does_not_fit_is_told(studio: LmStudioDouble, adapter: Adapter, send: Send) -> None:
    studio.loaded = {MODEL: 64}

    exchange = send(adapter, Request(case="c", messages=({"role": "user", "content": "word " * 200},)))

    with pytest.raises(errors.ContextOverflow, match="n_ctx: 64"):
        adapter.read(exchange, case="c")


def test_address_with_a_path_is_told_as_a_missing_route(studio: LmStudioDouble, attach: Attach, send: Send) -> None:
    adapter = attach(studio.base_url + "/lmstudio", "lmstudio", model=MODEL)

    with pytest.raises(errors.AnswerError, match="There is no such route"):
        adapter.read(send(adapter, Request(case="c", messages=CHAT)), case="c")


def test_what_is_loaded_is_told_around_a_timed_block(studio: LmStudioDouble, adapter: Adapter) -> None:
    question = adapter.residence()
    assert question is not None

    told = []
    for loaded in ({}, {MODEL: 2048}):
        studio.loaded = loaded
        told.append(adapter.resident(adapter.control.get(question.path)))

    assert told == [False, True]


def test_model_that_is_gone_when_another_was_loaded_has_no_room_beside_it(
    studio: LmStudioDouble, adapter: Adapter
) -> None:
    def spec(**keys: Any) -> EngineSpec:
        keys = {"name": "b", "kind": "lmstudio", "launch": "attach", "base_url": studio.base_url, **keys}
        return EngineSpec(**keys)

    studio.loaded = {MODEL: 2048}
    assert adapter.crowds_out(spec(model="gemma")) == "the server has room for one of their models at a time"
    assert adapter.crowds_out(spec(model=MODEL)) is None
    assert adapter.crowds_out(spec(model="gemma", base_url="http://127.0.0.1:1")) is None
