from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import Fact, Request, Sampling, to_json
from pytest_llmparity.engines import registry
from pytest_llmparity.engines.kinds.sglang import _ASKED, NEUTRAL_DEFAULTS, SglangAdapter
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.start.readiness import free_port
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.settings.selection import KINDS
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.testing import Replay
from pytest_llmparity.testing.server import Call, LoopbackServer
from tests.doubles.routes import recognise

Attach = Callable[..., Adapter]
Told = Callable[..., str]

CHAT = ({"role": "user", "content": "Hello"},)
TOOLS = ({"type": "function", "function": {"name": "f", "parameters": {}}},)
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"properties": {"b": {}, "a": {}}}}}

ROUTES = {"ready": "/ready", "health": "/health", "server_info": "/server_info", "v1_models": "/v1/models"}


class Routes(LoopbackServer):
    """Answers each path with a status and a JSON value, anything else as FastAPI answers a missing route."""

    def __init__(self, answers: dict[str, tuple[int, Any]]) -> None:
        super().__init__()
        self.answers = answers

    def answer(self, call: Call) -> None:
        status, value = self.answers.get(call.path, (404, {"detail": "Not Found"}))
        call.send(status, b"" if value is None else json.dumps(value).encode())


@pytest.fixture
def routes() -> Iterator[Callable[[dict[str, tuple[int, Any]]], str]]:
    running: list[Routes] = []

    def serve(answers: dict[str, tuple[int, Any]]) -> str:
        running.append(Routes(answers).start())
        return running[-1].base_url

    yield serve
    for server in running:
        server.stop()


@pytest.fixture
def told(routes: Callable[[dict[str, tuple[int, Any]]], str]) -> Told:
    """Starts a ready server that says these things in ``/server_info``."""

    def serve(**server_info: object) -> str:
        listed = {"data": [{"id": "tiny", "owned_by": "sglang", "max_model_len": 1024}]}
        return routes({"/ready": (200, None), "/v1/models": (200, listed), "/server_info": (200, server_info)})

    return serve


@pytest.fixture
def recorded(wire: Path, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Serves the recordings whose names begin with a prefix, under the routes they were made of."""
    running: list[Replay] = []

    def serve(prefix: str) -> str:
        folder = tmp_path / (prefix or "plain")
        folder.mkdir()
        for name in ROUTES:
            file = wire / "sglang" / f"{prefix}{name}.json"
            if file.is_file():
                shutil.copy(file, folder)
        running.append(Replay(folder).start())
        return running[-1].base_url

    yield serve
    for server in running:
        server.stop()


def facts(adapter: Adapter) -> dict[str, tuple[object, str]]:
    return {name: (fact.value, fact.source) for name, fact in adapter.identity().facts.items()}


# ---- readiness -----------------------------------------------------------------------------------------------------


def test_recorded_server_is_ready_and_is_recognised(attach: Attach, recorded: Callable[[str], str]) -> None:
    url = recorded("")

    assert attach(url, "sglang", model="tiny").ready() is None
    assert recognise(url) == "sglang"


def test_starting_server_is_not_ready_although_it_answers(attach: Attach, recorded: Callable[[str], str]) -> None:
    assert attach(recorded("starting_"), "sglang", model="tiny").ready() == "GET /ready says 503"


def test_nothing_that_generates_is_asked_while_waiting(attach: Attach) -> None:
    server = Routes({"/ready": (503, None), "/health": (200, None)})

    with server:
        reason = attach(server.base_url, "sglang", model="tiny").ready()

    assert reason == "GET /ready says 503"


@pytest.mark.parametrize(("status", "reason"), [(200, None), (503, "GET /health says 503")])
def test_old_server_without_the_flag_is_asked_for_its_health(
    status: int, reason: str | None, attach: Attach, routes: Callable[[dict[str, tuple[int, Any]]], str]
) -> None:
    url = routes({"/health": (status, None), "/v1/models": (200, {"data": [{"id": "tiny"}]})})

    assert attach(url, "sglang", model="tiny").ready() == reason


def test_key_is_asked_for_by_the_list_of_models_only(
    attach: Attach, routes: Callable[[dict[str, tuple[int, Any]]], str]
) -> None:
    url = routes({"/ready": (200, None), "/v1/models": (401, {"error": "Unauthorized"})})

    with pytest.raises(errors.NotAuthorised, match=r"key: GET /v1/models says 401 \(Unauthorized\)\. Set api_key_env"):
        attach(url, "sglang", model="tiny").ready()


def test_list_that_does_not_come_is_not_yet_ready(
    attach: Attach, routes: Callable[[dict[str, tuple[int, Any]]], str]
) -> None:
    url = routes({"/ready": (200, None), "/v1/models": (500, {"detail": "no"})})

    assert attach(url, "sglang", model="tiny").ready() == "GET /v1/models says 500 (no)"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("other", "serves tiny, poet and not 'other', but would answer under that name. Name what it serves"),
        ("tiny:8b", "would answer under that name, with the LoRA adapter '8b'"),
    ],
)
def test_name_that_is_not_served_is_refused_because_sglang_would_answer(
    model: str, message: str, attach: Attach, routes: Callable[[dict[str, tuple[int, Any]]], str]
) -> None:
    url = routes({"/ready": (200, None), "/v1/models": (200, {"data": [{"id": "tiny"}, {"id": "poet"}, "x"]})})

    with pytest.raises(errors.ModelMissing) as caught:
        attach(url, "sglang", model=model).ready()

    assert message in str(caught.value)


@pytest.mark.parametrize("model", ["tiny", "tiny:poet", "poet"])
def test_model_and_adapters_that_are_listed_are_accepted(
    model: str, attach: Attach, routes: Callable[[dict[str, tuple[int, Any]]], str]
) -> None:
    url = routes({"/ready": (200, None), "/v1/models": (200, {"data": [{"id": "tiny"}, {"id": "poet"}]})})

    assert attach(url, "sglang", model=model).ready() is None


def test_server_that_lists_nothing_is_taken_at_its_word(
    attach: Attach, routes: Callable[[dict[str, tuple[int, Any]]], str]
) -> None:
    assert attach(routes({"/ready": (200, None), "/v1/models": (200, {})}), "sglang", model="tiny").ready() is None


def test_another_server_on_our_port_is_noticed(told: Told, models: Path) -> None:
    launched = EngineSpec(name="cand", launch="process", model="x", model_path=models.parent)

    with pytest.raises(errors.LaunchError, match="serving 'tiny' instead of 'models'"):
        SglangAdapter(launched, told(), {}).ready()
    assert SglangAdapter(dataclasses.replace(launched, model_path=models), told(), {}).ready() is None


# ---- identity ------------------------------------------------------------------------------------------------------


def test_identity_of_the_recorded_server(attach: Attach, recorded: Callable[[str], str]) -> None:
    assert facts(attach(recorded(""), "sglang", model="tiny")) == {
        "kind": ("sglang", "declared"),
        "version": ("0.5.23", "reported"),
        "model": ("tiny", "reported"),
        "context_length": (1024, "reported"),
        "slots": (8, "reported"),
        "kv_cache": ("auto", "reported"),
        "attention": ("torch_native", "reported"),
        "adapters": ("none", "reported"),
        "speculative": ("off", "reported"),
        "tensor_parallel": (1, "reported"),
        "pipeline_parallel": (1, "reported"),
        "prefix_cache": ("off", "reported"),
        "chunked_prefill": ("on", "reported"),
        "device": ("cpu", "reported"),
    }


def test_identity_of_the_recorded_server_in_single_precision(attach: Attach, recorded: Callable[[str], str]) -> None:
    identity = attach(recorded("fp32_cached_"), "sglang", model="tiny").identity()

    assert identity.facts["quantization"] == Fact(value="F32", source="reported", raw="float32")


def test_no_key_and_no_command_line_is_kept(attach: Attach, recorded: Callable[[str], str]) -> None:
    adapter = attach(recorded("hot_"), "sglang", model="tiny-hot")

    identity = adapter.identity()

    kept = json.dumps([to_json(identity), dict(vars(adapter)["_about"])])
    assert identity.get("context_length") == 512
    assert "fixture" not in kept  # the recorded server's key, also in its launch_command
    assert not {"api_key", "admin_api_key", "launch_command"} & set(_ASKED)


def test_defaults_that_are_sglangs_own_are_part_of_the_identity(attach: Attach, told: Told) -> None:
    identity = attach(told(sampling_defaults="openai"), "sglang", model="tiny").identity()

    assert json.loads(str(identity.get("sampling_defaults"))) == {**NEUTRAL_DEFAULTS, "top_k": 0}


@pytest.mark.parametrize(
    ("server_info", "field", "value"),
    [
        ({"quantization": "fp8", "dtype": "bfloat16"}, "quantization", "FP8"),
        ({"dtype": "half"}, "quantization", "F16"),
        ({"dtype": "auto"}, "quantization", None),
        ({"load_format": "gguf"}, "format", "gguf"),
        ({"load_format": "auto"}, "format", None),
        ({"revision": "abc"}, "revision", "abc"),
        ({"max_total_num_tokens": 600}, "context_length", 600),
        ({"max_total_num_tokens": 4096}, "context_length", 1024),
        ({"attention_backend": "fa3", "decode_attention_backend": "flashinfer"}, "attention", "fa3+flashinfer"),
        ({"attention_backend": "triton"}, "attention", "triton"),
        ({}, "attention", None),
        ({"lora_paths": {"sql": "/adapters/sql"}}, "adapters", "none"),  # requests name the model alone
        ({"speculative_algorithm": "EAGLE", "speculative_num_draft_tokens": 4}, "speculative", "EAGLE x4"),
        ({"tp_size": 2, "pp_size": 4}, "tensor_parallel", 2),
        ({"tp_size": 2, "pp_size": 4}, "pipeline_parallel", 4),
        ({"disable_radix_cache": False}, "prefix_cache", "on"),
        ({"chunked_prefill_size": -1}, "chunked_prefill", "off"),
        ({}, "chunked_prefill", None),
        ({"sampling_defaults": "model"}, "sampling_defaults", None),
    ],
)
def test_what_server_info_says_becomes_a_fact(
    server_info: dict[str, object], field: str, value: object, attach: Attach, told: Told
) -> None:
    assert attach(told(**server_info), "sglang", model="tiny").identity().get(field) == value


def test_an_adapter_is_named_where_the_name_of_the_model_asks_for_one(attach: Attach, told: Told) -> None:
    url = told(lora_paths={"sql": "/adapters/sql"})

    assert attach(url, "sglang", model="tiny:sql").identity().get("adapters") == "sql"
    assert attach(url, "sglang", model="tiny:prose").identity().get("adapters") == "none"


def test_accelerator_is_named_where_the_server_names_it(
    attach: Attach, routes: Callable[[dict[str, tuple[int, Any]]], str]
) -> None:
    url = routes({"/v1/loads": (200, {"accelerator": "NVIDIA H200"}), "/get_server_info": (200, {"version": "0.4"})})

    identity = attach(url, "sglang", model="tiny").identity()

    assert (identity.get("device"), identity.get("version")) == ("NVIDIA H200", "0.4")


@pytest.mark.parametrize(
    ("args", "value", "source"),
    [
        ((), "BF16", "file"),
        (("--dtype", "half"), "F16", "declared"),
        (("--quantization=fp8", "--dtype", "half"), "FP8", "declared"),
    ],
)
def test_quantisation_of_a_launched_folder_follows_files_and_arguments(
    args: tuple[str, ...], value: str, source: str, models: Path
) -> None:
    spec = EngineSpec(name="cand", launch="process", model="tiny", model_path=models, args=args)

    fact = SglangAdapter(spec, f"http://127.0.0.1:{free_port()}", {}).identity().facts["quantization"]

    assert (fact.value, fact.source) == (value, source)


def test_type_that_sglang_makes_of_single_precision_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"torch_dtype": "float32"}')
    spec = EngineSpec(name="cand", launch="process", model="x", model_path=tmp_path)

    assert "quantization" not in SglangAdapter(spec, "http://127.0.0.1:1", {}).from_files()


def test_server_that_is_gone_is_only_what_was_declared(attach: Attach) -> None:
    adapter = attach(f"http://127.0.0.1:{free_port()}", "sglang", model="tiny")

    assert facts(adapter) == {"kind": ("sglang", "declared"), "model": ("tiny", "declared")}
    assert adapter.capabilities().tools is None
    assert [limit for limit in adapter.limits() if "seed" in limit]


# ---- what it can do ------------------------------------------------------------------------------------------------


def test_seed_is_honoured_in_the_deterministic_mode_only(attach: Attach, told: Told) -> None:
    plain = attach(told(enable_deterministic_inference=False), "sglang", model="tiny")
    fixed = attach(told(enable_deterministic_inference=True), "sglang", model="tiny")

    assert (plain.capabilities().seed, fixed.capabilities().seed) == (False, True)
    assert any(limit.startswith("seed is checked and then ignored") for limit in plain.limits())
    assert not any("seed" in limit for limit in fixed.limits())


def test_limits_and_capabilities_follow_the_flags(attach: Attach, recorded: Callable[[str], str]) -> None:
    hot = attach(recorded("hot_"), "sglang", model="tiny-hot")
    plain = attach(recorded(""), "sglang", model="tiny")

    assert (hot.capabilities().overflow, hot.capabilities().tools) == ("end cut", False)
    assert (plain.capabilities().overflow, plain.capabilities().tools) == ("refused", True)
    for words in ("loses its end", "prefix cache is on", "without --tool-call-parser", "generation_config.json"):
        assert any(words in limit for limit in hot.limits())
    assert len(plain.limits()) == 4  # seed, the model's defaults, alternatives, logprobs


def test_kind_is_what_the_core_says_of_it() -> None:
    assert registry.facts(SglangAdapter) == KINDS["sglang"]


# ---- the wire ------------------------------------------------------------------------------------------------------


def body(adapter: Adapter, request: Request, **options: bool) -> dict[str, Any]:
    value = json.loads(adapter.build(request, **options).body)
    assert isinstance(value, dict)
    return value


@pytest.fixture
def adapter(attach: Attach) -> Adapter:
    return attach("http://127.0.0.1:9", "sglang", model="tiny")


def test_every_sampling_field_is_sent(adapter: Adapter) -> None:
    sampling = Sampling(stop=("END",), max_tokens=7, seed=3, top_k=40)

    built = adapter.build(Request(case="c", messages=CHAT, sampling=sampling))

    assert built.omitted == ()
    assert json.loads(built.body) == {
        "model": "tiny",
        "messages": list(CHAT),
        "max_tokens": 7,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 40,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": 3,
        "stop": ["END"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_top_k_that_is_off_is_sent_as_sglang_writes_it(adapter: Adapter) -> None:
    assert body(adapter, Request(case="c", messages=CHAT, sampling=Sampling(temperature=0.7)))["top_k"] == -1


def test_no_more_alternatives_are_asked_for_than_every_vocabulary_has(adapter: Adapter) -> None:
    assert body(adapter, Request(case="c", messages=CHAT, top_logprobs=2000))["top_logprobs"] == 20
    assert body(adapter, Request(case="c", prompt="x", top_logprobs=2000))["logprobs"] == 20
    assert body(adapter, Request(case="c", messages=CHAT, top_logprobs=0))["top_logprobs"] == 0


@pytest.mark.parametrize(
    ("request_", "stream", "asked"),
    [
        (Request(case="c", messages=CHAT), False, True),
        (Request(case="c", messages=CHAT), True, False),
        (Request(case="c", prompt="x"), False, False),
    ],
)
def test_timing_of_the_server_is_asked_for_where_it_may_be(
    request_: Request, stream: bool, asked: bool, adapter: Adapter
) -> None:
    assert ("return_meta_info" in body(adapter, request_, stream=stream)) is asked


def test_format_and_tools_are_passed_on_and_raw_prompts_keep_the_format(adapter: Adapter) -> None:
    chat = Request(case="c", messages=CHAT, tools=TOOLS, tool_choice="auto", response_format=FORMAT)

    assert body(adapter, chat)["tools"] == list(TOOLS)
    assert b'"properties":{"b":{},"a":{}}' in adapter.build(chat).body
    assert body(adapter, Request(case="c", prompt="x", response_format=FORMAT))["response_format"] == FORMAT


# ---- launch --------------------------------------------------------------------------------------------------------


def program(folder: Path, name: str) -> str:
    file = folder / name
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return str(file)


def value(launch: Launch, flag: str) -> str:
    return launch.argv[launch.argv.index(flag) + 1]


def test_launch_serves_neutral_defaults_on_loopback(models: Path, tmp_path: Path) -> None:
    server = program(tmp_path, "sglang")
    spec = EngineSpec(
        name="cand",
        launch="process",
        model="tiny",
        model_path=models,
        revision="abc",
        context_length=1024,
        slots=2,
        args=("--dtype", "bfloat16"),
    )

    launch = SglangAdapter.launch(spec, 8123, tmp_path, environ={"PATH": str(tmp_path)})

    assert launch.argv[:4] == (server, "serve", "--model-path", str(models))
    for flag, expected in {
        "--served-model-name": "tiny",
        "--host": "127.0.0.1",
        "--port": "8123",
        "--sampling-defaults": "openai",
        "--random-seed": "0",
        "--revision": "abc",
        "--context-length": "1024",
        "--max-running-requests": "2",
    }.items():
        assert value(launch, flag) == expected
    assert "--disable-radix-cache" in launch.argv
    assert launch.argv[-2:] == ("--dtype", "bfloat16")
    assert launch.env["HF_HUB_OFFLINE"] == "1"
    assert launch.deadline_s == SglangAdapter.deadline_s


def test_launch_with_an_interpreter_or_a_command(models: Path, tmp_path: Path) -> None:
    python = program(tmp_path, "python-of-sglang")
    spec = EngineSpec(
        name="cand",
        launch="process",
        model="tiny",
        model_path=models,
        python=python,
        download=True,
        env={"A": "b"},
        start_timeout_s=42.0,
    )

    launch = SglangAdapter.launch(spec, 1, tmp_path, environ={"PATH": ""})
    wrapped = SglangAdapter.launch(dataclasses.replace(spec, command=(python, "-m", "x")), 1, tmp_path)

    assert launch.argv[:4] == (python, "-m", "sglang.launch_server", "--model-path")
    assert wrapped.argv[:4] == (python, "-m", "x", "--model-path")
    assert (launch.env, launch.deadline_s) == ({"A": "b"}, 42.0)
    assert "--context-length" not in launch.argv


def test_name_with_a_tag_cannot_be_launched(tmp_path: Path) -> None:
    spec = EngineSpec(name="cand", launch="process", model="qwen3:8b", download=True)

    with pytest.raises(errors.LaunchError, match="'qwen3:8b' is a name with a tag"):
        SglangAdapter.launch(spec, 1, tmp_path)


def test_missing_sglang_is_told(models: Path, tmp_path: Path) -> None:
    spec = EngineSpec(name="cand", launch="process", model="tiny", model_path=models)

    with pytest.raises(errors.LaunchError, match=r"'sglang' is not on PATH.*requires ="):
        SglangAdapter.launch(spec, 1, tmp_path, environ={"PATH": ""})
