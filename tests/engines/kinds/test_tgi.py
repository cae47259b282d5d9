"""The adapter of TGI against a double that answers as its source says: no recording was to be had."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import Request, Sampling
from pytest_llmparity.engines import registry
from pytest_llmparity.engines.kinds.tgi import TgiAdapter
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.start.readiness import free_port
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.settings.selection import KINDS
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.transport.exchange import Exchange
from tests.doubles.documented import TgiDouble
from tests.doubles.routes import recognise

Attach = Callable[..., Adapter]
Send = Callable[..., Exchange]

CHAT = ({"role": "user", "content": "Hello"},)
TOOLS = ({"type": "function", "function": {"name": "f", "parameters": {}}},)
SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "string"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}


@pytest.fixture
def tgi() -> Iterator[TgiDouble]:
    with TgiDouble() as double:
        yield double


@pytest.fixture
def adapter(tgi: TgiDouble, attach: Attach) -> Adapter:
    return attach(tgi.base_url, "tgi", model="tgi")


def body(adapter: Adapter, request: Request) -> dict[str, Any]:
    value = json.loads(adapter.build(request).body)
    assert isinstance(value, dict)
    return value


def test_kind_is_what_the_core_says_of_it() -> None:
    assert registry.facts(TgiAdapter) == KINDS["tgi"]


# ---- readiness and identity ----------------------------------------------------------------------------------------


def test_server_is_recognised_becomes_ready_and_warms_up(tgi: TgiDouble, adapter: Adapter) -> None:
    tgi.healthy = False
    waiting = adapter.ready()
    tgi.healthy = True

    assert waiting == "GET /health says 503 (unhealthy)"
    assert adapter.ready() is None
    adapter.warm_up()
    assert tgi.bodies[0]["max_tokens"] == 1
    assert recognise(tgi.base_url) == "tgi"


def test_refused_key_shows_in_the_first_answer(attach: Attach) -> None:
    with TgiDouble(key="sk-test-0123456789") as double:
        adapter = attach(double.base_url, "tgi", model="tgi")
        keyed = attach(double.base_url, "tgi", model="tgi", api_key_env="KEY")

        assert adapter.ready() is None
        keyed.warm_up()
        with pytest.raises(errors.NotAuthorised):
            adapter.warm_up()


@pytest.mark.parametrize("model", ["tgi", None, TgiDouble.model])
def test_model_that_is_served_or_not_named_is_accepted(model: str | None, tgi: TgiDouble, attach: Attach) -> None:
    assert attach(tgi.base_url, "tgi", model=model).ready() is None


def test_model_that_is_not_served_is_refused_because_tgi_would_answer(tgi: TgiDouble, attach: Attach) -> None:
    with pytest.raises(errors.ModelMissing, match="and not 'gpt2', but would answer all the same"):
        attach(tgi.base_url, "tgi", model="gpt2").ready()


def test_another_server_on_our_port_is_noticed(tgi: TgiDouble, models: Path) -> None:
    launched = EngineSpec(name="cand", launch="process", model="tiny", model_path=models)

    with pytest.raises(errors.LaunchError, match="Start again: another port will be taken"):
        TgiAdapter(launched, tgi.base_url, {}).ready()


def test_identity_is_what_info_says_and_the_sha_is_a_revision(adapter: Adapter) -> None:
    facts = adapter.identity().facts

    assert {name: (fact.value, fact.source) for name, fact in facts.items()} == {
        "kind": ("tgi", "declared"),
        "version": ("3.3.7", "reported"),
        "build": ("db931fc00000000000000000000000000000feed", "reported"),
        "model": (TgiDouble.model, "reported"),
        "revision": ("12fd25f77366fa6b3b4b768ec3050bf629380bac", "reported"),
        "context_length": (1024, "reported"),
    }


def test_folder_that_is_served_is_named_without_its_path(tgi: TgiDouble, models: Path) -> None:
    tgi.model = str(models)
    launched = EngineSpec(name="cand", kind="tgi", launch="process", model="tiny", model_path=models)

    assert TgiAdapter(launched, tgi.base_url, {}).reported()["model"].value == models.name


def test_server_that_is_gone_is_only_what_was_declared(attach: Attach) -> None:
    url = f"http://127.0.0.1:{free_port()}"

    assert attach(url, "tgi", model="gpt2", revision="abc").identity().get("model") == "gpt2"
    assert set(attach(url, "tgi", model="tgi").identity().facts) == {"kind"}


@pytest.mark.parametrize(
    ("args", "value"),
    [((), None), (("--dtype", "bfloat16"), "BF16"), (("--quantize=awq", "--dtype", "float16"), "AWQ")],
)
def test_quantisation_of_a_launched_folder_is_known_from_arguments_only(
    args: tuple[str, ...], value: str | None, models: Path
) -> None:
    spec = EngineSpec(name="cand", launch="process", model="tiny", model_path=models, args=args)

    facts = TgiAdapter(spec, "http://127.0.0.1:1", {}).from_files()

    assert (facts["quantization"].value if "quantization" in facts else None) == value
    assert facts["format"].value == "safetensors"


def test_quantised_checkpoint_says_so_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "awq"}}')
    spec = EngineSpec(name="cand", launch="process", model="x", model_path=tmp_path)

    assert TgiAdapter(spec, "http://127.0.0.1:1", {}).from_files()["quantization"].value == "AWQ"


def test_limits_name_what_tgi_changes(adapter: Adapter) -> None:
    limits = " ".join(adapter.limits())

    assert all(words in limits for words in ("p + 2", "stop string", "special tokens", "5 alternatives"))


# ---- the wire ------------------------------------------------------------------------------------------------------


def test_neutral_values_that_tgi_reads_otherwise_are_not_sent(adapter: Adapter) -> None:
    built = adapter.build(Request(case="c", messages=CHAT, sampling=Sampling(seed=3, stop=("END",))))

    assert built.omitted == ()  # every one of them is off in TGI by itself
    assert json.loads(built.body) == {
        "model": "tgi",
        "messages": list(CHAT),
        "max_tokens": 64,
        "temperature": 0.0,
        "frequency_penalty": 0.0,
        "seed": 3,
        "stop": ["END"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_sampled_requests_are_taken_because_what_is_left_out_is_off(adapter: Adapter) -> None:
    sent = body(adapter, Request(case="c", messages=CHAT, sampling=Sampling(temperature=0.7, top_p=0.9)))

    assert (sent["temperature"], sent["top_p"]) == (0.7, 0.9)


@pytest.mark.parametrize(
    "sampling", [Sampling(presence_penalty=0.5), Sampling(repetition_penalty=1.1), Sampling(top_k=40)]
)
def test_values_without_a_word_of_their_own_are_refused(sampling: Sampling, adapter: Adapter) -> None:
    with pytest.raises(errors.ParameterNotHonoured, match="case 'refund-3'"):
        adapter.build(Request(case="refund-3", messages=CHAT, sampling=sampling))


def test_schema_becomes_tgis_own_grammar_in_the_order_declared(adapter: Adapter) -> None:
    built = adapter.build(Request(case="c", messages=CHAT, response_format=FORMAT))

    assert json.loads(built.body)["response_format"] == {"type": "json", "value": SCHEMA}
    assert built.body.index(b'"b":') < built.body.index(b'"a":')


def test_format_text_is_no_format(adapter: Adapter) -> None:
    assert "response_format" not in body(adapter, Request(case="c", messages=CHAT, response_format={"type": "text"}))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(case="c", messages=CHAT, response_format={"type": "json_object"}), "response_format 'json_object'"),
        (Request(case="c", messages=CHAT, response_format=FORMAT, tools=TOOLS), "tools beside a response_format"),
        (Request(case="c", prompt="x", response_format=FORMAT), "response_format with a raw prompt"),
        *(
            (Request(case="c", messages=CHAT, response_format={"type": "json_schema"} | more), "without json_schema = ")
            for more in ({"schema": SCHEMA}, {"json_schema": None}, {"json_schema": {"schema": None}})
        ),
    ],
)
def test_what_tgi_cannot_constrain_is_refused(request_: Request, message: str, adapter: Adapter) -> None:
    with pytest.raises(errors.ParameterNotHonoured, match=message):
        adapter.build(request_)


def test_alternatives_are_asked_for_up_to_five_and_never_with_a_raw_prompt(adapter: Adapter) -> None:
    chat = body(adapter, Request(case="c", messages=CHAT, tools=TOOLS, top_logprobs=20))
    raw = body(adapter, Request(case="c", prompt="x", top_logprobs=20))

    assert (chat["logprobs"], chat["top_logprobs"], chat["tools"]) == (True, 5, list(TOOLS))
    assert "logprobs" not in raw


# ---- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_chat_is_read_with_usage_logprobs_and_timings(stream: bool, adapter: Adapter, send: Send) -> None:
    exchange = send(adapter, Request(case="c", messages=CHAT, top_logprobs=2), stream=stream)

    completion = adapter.read(exchange, case="c")

    assert (completion.text, completion.finish_reason) == ("The capital of France is Paris.", "stop")
    assert (completion.prompt_tokens, completion.completion_tokens, completion.fingerprint) == (9, 6, "3.3.7-native")
    assert [token.token for token in completion.logprobs[:2]] == [b"The", b" capital"]
    assert all(len(token.top) == 2 for token in completion.logprobs)
    assert len(adapter.read(exchange, case="c").token_ends) == (6 if stream else 0)
    assert completion.server == (
        {}
        if stream
        else {
            "x-total-time": 51.0,
            "x-validation-time": 1.0,
            "x-queue-time": 2.0,
            "x-inference-time": 48.0,
            "x-time-per-token": 8.0,
        }
    )


@pytest.mark.parametrize("stream", [True, False])
def test_finish_reasons_of_tgi_become_everybodys(stream: bool, adapter: Adapter, send: Send) -> None:
    stopped = Request(case="c", messages=CHAT, sampling=Sampling(stop=("of",)))
    cut = Request(case="c", messages=CHAT, sampling=Sampling(max_tokens=2))
    ended = Request(case="c", prompt="x")

    completions = [adapter.read(send(adapter, each, stream=stream), case="c") for each in (stopped, cut, ended)]

    assert [each.finish_reason for each in completions] == ["stop", "length", "stop"]
    assert completions[0].text == "The capital of"  # the stop string stays


@pytest.mark.parametrize("stream", [True, False])
def test_errors_are_typed_whether_they_come_as_an_answer_or_as_an_event(
    stream: bool, tgi: TgiDouble, adapter: Adapter, send: Send
) -> None:
    def error_of(request: Request) -> errors.EngineError:
        exchange = send(adapter, request, stream=stream)
        with pytest.raises(errors.EngineError) as caught:
            adapter.read(exchange, case="c")
        return caught.value

    long = error_of(Request(case="c", messages=({"role": "user", "content": "word " * 2000},)))
    no_grammar = error_of(
        Request(case="c", messages=CHAT, response_format={"type": "json_schema", "json_schema": {"schema": {}}})
    )
    tgi.overloaded = True
    busy = error_of(Request(case="c", messages=CHAT))
    tgi.overloaded, tgi.fails_midway = False, True
    failed = error_of(Request(case="c", messages=CHAT))

    assert [type(each) for each in (long, no_grammar, failed)] == [
        errors.ContextOverflow,
        errors.BadRequest,
        errors.ServerFailure,
    ]
    assert (type(busy), busy.retryable) == (errors.Overloaded, True)
    assert "must have less than 1024 tokens" in str(long)


# ---- launch --------------------------------------------------------------------------------------------------------


def value(launch: Launch, flag: str) -> str:
    return launch.argv[launch.argv.index(flag) + 1]


def test_launch_serves_on_loopback_with_ports_and_sockets_of_its_own(models: Path, tmp_path: Path) -> None:
    launcher = tmp_path / "text-generation-launcher"
    launcher.write_text("#!/bin/sh\n")
    launcher.chmod(0o755)
    spec = EngineSpec(
        name="cand",
        launch="process",
        model="tiny",
        model_path=models,
        revision="abc",
        context_length=1024,
        args=("--dtype", "float16"),
        env={"USAGE_STATS": "no-stack"},
    )

    launch = TgiAdapter.launch(spec, 8123, tmp_path, environ={"PATH": str(tmp_path)})

    assert launch.argv[0] == str(launcher)
    for flag, expected in {
        "--model-id": str(models),
        "--hostname": "127.0.0.1",
        "--port": "8123",
        "--revision": "abc",
        "--max-total-tokens": "1024",
    }.items():
        assert value(launch, flag) == expected
    assert value(launch, "--prometheus-port") not in ("8123", "9000")
    assert value(launch, "--shard-uds-path").endswith("llmparity-tgi-8123")
    assert launch.argv[-2:] == ("--dtype", "float16")
    assert (launch.env["PREFIX_CACHING"], launch.env["HF_HUB_OFFLINE"]) == ("0", "1")
    assert launch.env["USAGE_STATS"] == "no-stack"  # what the configuration says comes last
    assert {"API_KEY", "QUANTIZE", "MAX_TOTAL_TOKENS"} <= set(launch.scrub)
    assert launch.deadline_s == TgiAdapter.deadline_s


def test_launch_by_a_command_without_limits(models: Path, tmp_path: Path) -> None:
    launcher = tmp_path / "tgi"
    launcher.write_text("#!/bin/sh\n")
    launcher.chmod(0o755)
    spec = EngineSpec(name="cand", launch="process", model="tiny", model_path=models, start_timeout_s=42.0)

    launch = TgiAdapter.launch(dataclasses.replace(spec, command=(str(launcher), "-x"), download=True), 1, tmp_path)

    assert launch.argv[:3] == (str(launcher), "-x", "--model-id")
    assert "--max-total-tokens" not in launch.argv
    assert "HF_HUB_OFFLINE" not in launch.env
    assert launch.deadline_s == 42.0


def test_missing_launcher_is_told(models: Path, tmp_path: Path) -> None:
    spec = EngineSpec(name="cand", launch="process", model="tiny", model_path=models)

    with pytest.raises(errors.LaunchError, match="'text-generation-launcher' is not on PATH"):
        TgiAdapter.launch(spec, 1, tmp_path, environ={"PATH": ""})
