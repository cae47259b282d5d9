from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import Request
from pytest_llmparity.engines.kinds.llamacpp_python import LlamaCppPythonAdapter
from pytest_llmparity.engines.wire.control import Reply
from pytest_llmparity.settings.specification import EngineSpec
from tests.doubles.routes import routes

MESSAGES = ({"role": "user", "content": "What is the capital of France?"},)
SCHEMA = {"type": "object", "properties": {"b": {}, "a": {}}}
TOOLS = ({"type": "function", "function": {"name": "f"}},)


def spec(**fields: Any) -> EngineSpec:
    return EngineSpec(**{"name": "cand", "kind": "llamacpp-python", "launch": "process", **fields})


@pytest.fixture
def served(models: Path) -> EngineSpec:
    return spec(model="x", model_path=models / "tiny-F16.gguf")


@pytest.fixture
def adapter(served: EngineSpec) -> LlamaCppPythonAdapter:
    return LlamaCppPythonAdapter(served, "http://127.0.0.1:1", {})


# ---- launch --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("context", "told"), [(512, "512"), (None, "1024")])
def test_launch_lets_no_request_cut_another(
    context: int | None, told: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: ModuleSpec(name, None))
    path = models / "tiny-F16.gguf"
    wanted = spec(model_path=path, context_length=context, slots=1, args=("--n_threads", "1"))

    launch = LlamaCppPythonAdapter.launch(wanted, 8123, tmp_path, environ={"PATH": ""})

    assert launch.argv[:3] == (sys.executable, "-m", "llama_cpp.server")
    flags = " ".join(launch.argv[3:])
    assert flags == (
        f"--model {path} --model_alias tiny-F16.gguf --host 127.0.0.1 --port 8123 --n_ctx {told} "
        "--interrupt_requests false --n_threads 1"
    )
    assert {"HOST", "PORT", "SEED", "CONFIG_FILE"} <= set(launch.scrub)
    assert launch.deadline_s == LlamaCppPythonAdapter.deadline_s


def test_missing_package_is_told(served: EngineSpec, tmp_path: Path) -> None:
    with pytest.raises(errors.LaunchError, match=r"not on PATH.*llama-cpp-python\[server\]"):
        LlamaCppPythonAdapter.launch(served, 1, tmp_path, environ={"PATH": ""})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "qwen"}, "'qwen' is none.*hf download"),
        ({"model_path": Path("/nowhere/x.gguf")}, "'/nowhere/x.gguf' is none"),
    ],
)
def test_missing_file_is_told(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(errors.LaunchError, match=message):
        LlamaCppPythonAdapter.launch(spec(**fields), 1, tmp_path)


def test_more_than_one_slot_is_told(models: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.LaunchError, match="one request at a time, so slots = 2"):
        LlamaCppPythonAdapter.launch(spec(model_path=models / "tiny-F16.gguf", slots=2), 1, tmp_path)


# ---- readiness and identity ----------------------------------------------------------------------------------------


def test_server_of_another_model_is_noticed(served: EngineSpec) -> None:
    with routes({"/v1/models": (200, {"data": [{"id": "other.gguf", "owned_by": "me"}]})}) as server:
        with pytest.raises(errors.LaunchError, match=r"serving 'other.gguf' instead of 'tiny-F16.gguf'"):
            LlamaCppPythonAdapter(served, server.base_url, {}).ready()

        assert LlamaCppPythonAdapter(spec(launch="attach", model="m"), server.base_url, {}).ready() is None


def test_own_server_is_accepted(served: EngineSpec) -> None:
    with routes({"/v1/models": (200, {"data": [{"id": "tiny-F16.gguf", "owned_by": "me"}]})}) as server:
        assert LlamaCppPythonAdapter(served, server.base_url, {}).ready() is None


def test_identity_is_what_file_command_line_and_description_say(models: Path) -> None:
    table = {
        "/v1/models": (200, {"data": [{"id": "/models/tiny-F16.gguf"}]}),
        "/openapi.json": (200, {"info": {"version": "0.3.36"}}),
    }
    with routes(table) as server:
        wanted = spec(model="x", model_path=models / "tiny-F16.gguf", context_length=512)
        facts = LlamaCppPythonAdapter(wanted, server.base_url, {}).identity().facts

    seen = {name: (fact.value, fact.source) for name, fact in facts.items()}
    assert seen["model"] == ("tiny-F16.gguf", "reported")
    assert seen["version"] == ("0.3.36", "reported")
    assert seen["quantization"] == ("F16", "file")
    assert seen["context_length"] == (512, "declared")
    assert seen["slots"] == (1, "declared")
    assert seen["kv_cache"] == ("F16", "declared")
    assert json.loads(str(seen["sampling_defaults"][0]))["repetition_penalty"] == 1.1


@pytest.mark.parametrize(("n_ctx", "context"), [("768", 768), ("many", 1024)])
def test_arguments_change_what_is_declared(n_ctx: str, context: int, models: Path) -> None:
    args = ("--n_ctx", n_ctx, "--chat_format", "chatml", "--type_k", "8")
    wanted = spec(model="x", model_path=models / "tiny-F16.gguf", args=args)

    facts = LlamaCppPythonAdapter(wanted, "http://127.0.0.1:1", {}).from_files()

    assert facts["context_length"].value == context
    assert not {"template_sha256", "kv_cache"} & set(facts)


@pytest.mark.parametrize("described", [{}, {"info": "text"}, {"info": {"version": 3}}])
def test_server_that_describes_nothing_has_no_version(described: dict[str, Any]) -> None:
    with routes({"/openapi.json": (200, described)}) as server:
        adapter = LlamaCppPythonAdapter(spec(launch="attach", model="m"), server.base_url, {})

        assert set(adapter.identity().facts) == {"kind", "model"}


# ---- requests and answers ------------------------------------------------------------------------------------------


def sent(adapter: LlamaCppPythonAdapter, **fields: Any) -> dict[str, Any]:
    value = json.loads(adapter.build(Request(case="c", messages=MESSAGES, **fields)).body)
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
            {"type": "json_object", "schema": SCHEMA},
        ),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, {"type": "json_object", "schema": {}}),
        ({"type": "json_object"}, {"type": "json_object"}),
        ({"type": "text"}, {"type": "text"}),
    ],
)
def test_schema_goes_into_json_object(
    asked: dict[str, Any], wanted: dict[str, Any], adapter: LlamaCppPythonAdapter
) -> None:
    response_format = sent(adapter, response_format=asked)["response_format"]

    assert response_format == wanted
    assert json.dumps(response_format) == json.dumps(wanted), "the order of properties is meaning"


def test_own_penalty_is_switched_off_aloud(adapter: LlamaCppPythonAdapter) -> None:
    assert sent(adapter)["repeat_penalty"] == 1.0


def test_choice_it_leaves_to_the_model_is_not_sent(adapter: LlamaCppPythonAdapter) -> None:
    with pytest.raises(errors.ParameterNotHonoured, match="would ignore tool_choice 'required'"):
        sent(adapter, tools=TOOLS, tool_choice="required")

    named = {"type": "function", "function": {"name": "f"}}
    assert sent(adapter, tools=TOOLS, tool_choice=named)["tool_choice"] == named


def test_failure_that_is_no_refusal_may_be_tried_again(adapter: LlamaCppPythonAdapter) -> None:
    body = b'{"error":{"message":"llama_decode returned -1","type":"internal_server_error"}}'

    with pytest.raises(errors.ServerFailure, match="llama_decode"):
        adapter.read(Reply(status=500, headers={}, body=body), case="c")


@pytest.mark.parametrize("took", [None, "soon"])
def test_answer_without_a_timing_has_none(took: str | None, adapter: LlamaCppPythonAdapter) -> None:
    headers = {} if took is None else {"openai-processing-ms": took}
    body = b'{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}'

    assert adapter.read(Reply(status=200, headers=headers, body=body), case="c").server == {}


def test_limits_are_sentences(adapter: LlamaCppPythonAdapter) -> None:
    assert all(" " in limit and not limit.endswith(".") for limit in adapter.limits())
