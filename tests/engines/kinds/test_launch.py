from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_llmparity.core.errors import LaunchError
from pytest_llmparity.engines.kinds.llamacpp import LlamaCppAdapter
from pytest_llmparity.engines.kinds.openai import OpenAIAdapter
from pytest_llmparity.engines.kinds.vllm import CPU_DEADLINE_S, VllmAdapter
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.wire.base import ATTACH_DEADLINE_S
from pytest_llmparity.settings.specification import EngineSpec


def spec(**fields: object) -> EngineSpec:
    return EngineSpec(**{"name": "cand", "launch": "process", **fields})  # type: ignore[arg-type]


def program(folder: Path, name: str) -> str:
    file = folder / name
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return str(file)


def value(launch: Launch, flag: str) -> str:
    return launch.argv[launch.argv.index(flag) + 1]


@pytest.fixture
def gguf(models: Path) -> EngineSpec:
    return spec(model="tiny-F16.gguf", model_path=models / "tiny-F16.gguf")


# ---- llama.cpp -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "slots", "n_ctx", "parallel"),
    [(512, None, "2048", "4"), (512, 1, "512", "1"), (None, 2, "2048", "2"), (4096, 8, "32768", "8")],
)
def test_context_is_what_one_request_gets(
    gguf: EngineSpec, tmp_path: Path, context: int | None, slots: int | None, n_ctx: str, parallel: str
) -> None:
    import dataclasses

    wanted = dataclasses.replace(gguf, context_length=context, slots=slots)

    launch = LlamaCppAdapter.launch(wanted, 8123, tmp_path, environ={"PATH": ""})

    assert (value(launch, "--ctx-size"), value(launch, "--parallel")) == (n_ctx, parallel)


def test_llama_server_on_path_is_taken_first(gguf: EngineSpec, tmp_path: Path) -> None:
    server = program(tmp_path, "llama-server")

    launch = LlamaCppAdapter.launch(gguf, 8123, tmp_path, environ={"PATH": str(tmp_path)})

    assert launch.argv[:2] == (server, "--model")
    assert (value(launch, "--host"), value(launch, "--port")) == ("127.0.0.1", "8123")
    assert {"--no-cache-prompt", "--offline"} <= set(launch.argv)
    assert launch.env == {"HF_HUB_OFFLINE": "1"}
    assert "LLAMA_ARG_*" in launch.scrub
    assert (launch.cwd, launch.deadline_s) == (tmp_path, LlamaCppAdapter.deadline_s)


def test_package_in_a_child_comes_next(gguf: EngineSpec, tmp_path: Path) -> None:
    launch = LlamaCppAdapter.launch(gguf, 8123, tmp_path, environ={"PATH": ""})

    assert launch.argv[:2] == (sys.executable, "-P")
    assert launch.argv[2].endswith("llamacpp/child.py")


def test_configured_program_and_arguments_win(models: Path, tmp_path: Path) -> None:
    program(tmp_path, "my-server")
    wanted = spec(
        model="x",
        model_path=models / "tiny-Q8_0.gguf",
        command=("my-server", "--verbose"),
        args=("--threads", "1"),
        env={"A": "b"},
        download=True,
        start_timeout_s=5.0,
    )

    launch = LlamaCppAdapter.launch(wanted, 1, tmp_path, environ={"PATH": str(tmp_path)})

    assert launch.argv[:2] == (str(tmp_path / "my-server"), "--verbose")
    assert launch.argv[-2:] == ("--threads", "1")
    assert (launch.env, launch.deadline_s) == ({"A": "b"}, 5.0)


def test_configured_interpreter_runs_the_child(models: Path, tmp_path: Path) -> None:
    python = program(tmp_path, "python-elsewhere")
    wanted = spec(model="x", model_path=models / "tiny-F16.gguf", python=python)

    assert LlamaCppAdapter.launch(wanted, 1, tmp_path).argv[:2] == (python, "-P")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "qwen3:8b"}, "'qwen3:8b' is none.*hf download"),
        ({"model": "x", "model_path": Path("/nowhere/x.gguf")}, "'/nowhere/x.gguf' is none"),
        ({"model": None}, "None is none"),
    ],
)
def test_missing_model_is_told_before_anything_starts(fields: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=message) as caught:
        LlamaCppAdapter.launch(spec(**fields), 1, tmp_path)

    assert caught.value.engine == "cand"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"command": ("no-such-server",)}, "'no-such-server' is not on PATH. Name llama-server"),
        ({"python": "no-such-python"}, "'no-such-python' is not on PATH. Name llama-server"),
    ],
)
def test_missing_program_is_told_before_anything_starts(
    fields: dict[str, object], message: str, models: Path, tmp_path: Path
) -> None:
    with pytest.raises(LaunchError, match=message):
        LlamaCppAdapter.launch(spec(model_path=models / "tiny-F16.gguf", **fields), 1, tmp_path)


def test_missing_package_names_the_extra(gguf: EngineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # None is how Python itself marks a module that must not be found.
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(LaunchError, match=r'pip install "pytest-llmparity\[llamacpp\]"'):
        LlamaCppAdapter.launch(gguf, 1, tmp_path, environ={"PATH": ""})


def test_file_that_is_no_gguf_is_told(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"<html>not found</html>")

    with pytest.raises(LaunchError, match="is no whole GGUF file"):
        LlamaCppAdapter.launch(spec(model="x", model_path=file), 1, tmp_path)


# ---- vLLM ----------------------------------------------------------------------------------------------------------


def test_vllm_serves_neutral_defaults_on_loopback(models: Path, tmp_path: Path) -> None:
    server = program(tmp_path, "vllm")
    wanted = spec(
        model="fixtures/models/tiny",
        model_path=models,
        context_length=1024,
        slots=2,
        revision="abc",
        args=("--dtype", "bfloat16"),
    )

    launch = VllmAdapter.launch(wanted, 8123, tmp_path, environ={"PATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""})

    assert launch.argv[:3] == (server, "serve", str(models))
    for flag, expected in {
        "--host": "127.0.0.1",
        "--port": "8123",
        "--served-model-name": "tiny",
        "--generation-config": "vllm",
        "--seed": "0",
        "--max-model-len": "1024",
        "--max-num-seqs": "2",
        "--revision": "abc",
        "--tokenizer-revision": "abc",
    }.items():
        assert value(launch, flag) == expected
    assert "--no-enable-prefix-caching" in launch.argv
    assert launch.argv[-2:] == ("--dtype", "bfloat16")
    assert launch.env["HF_HUB_OFFLINE"] == "1"
    assert launch.env["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert {"VLLM_PORT", "VLLM_API_KEY"} <= set(launch.scrub)
    assert launch.deadline_s == CPU_DEADLINE_S


def test_vllm_of_a_configured_interpreter(models: Path, tmp_path: Path) -> None:
    python = program(tmp_path, "python-of-vllm")
    wanted = spec(model_path=models, python=python, env={"VLLM_CPU_KVCACHE_SPACE": "3"}, start_timeout_s=42.0)

    launch = VllmAdapter.launch(wanted, 1, tmp_path, environ={"VLLM_CPU_KVCACHE_SPACE": "2", "PATH": ""})

    assert launch.argv[:5] == (python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(models))
    assert launch.env["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert launch.deadline_s == 42.0
    assert "--max-model-len" not in launch.argv


def test_vllm_command_is_taken_as_it_is(models: Path, tmp_path: Path) -> None:
    wrapper = program(tmp_path, "numactl")
    wanted = spec(model_path=models, command=(wrapper, "vllm", "serve"))

    argv = VllmAdapter.launch(wanted, 1, tmp_path).argv

    assert argv[:5] == (wrapper, "vllm", "serve", "--model", str(models))


def test_kv_cache_of_the_environment_is_kept(models: Path, tmp_path: Path) -> None:
    program(tmp_path, "vllm")
    environ = {"PATH": str(tmp_path), "VLLM_CPU_KVCACHE_SPACE": "8", "CUDA_VISIBLE_DEVICES": "-1"}

    assert "VLLM_CPU_KVCACHE_SPACE" not in VllmAdapter.launch(spec(model_path=models), 1, tmp_path, environ=environ).env


def test_hub_model_must_be_here_unless_downloads_were_asked_for(tmp_path: Path) -> None:
    program(tmp_path, "vllm")
    environ = {"PATH": str(tmp_path), "HF_HOME": str(tmp_path / "hf")}
    wanted = spec(model="Qwen/Qwen3-8B", revision="b968")

    with pytest.raises(LaunchError, match="hf download Qwen/Qwen3-8B --revision b968"):
        VllmAdapter.launch(wanted, 1, tmp_path, environ=environ)

    (tmp_path / "hf/hub/models--Qwen--Qwen3-8B/snapshots").mkdir(parents=True)
    cached = VllmAdapter.launch(wanted, 1, tmp_path, environ=environ)
    assert (cached.argv[2], value(cached, "--served-model-name")) == ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B")

    asked = spec(model="Qwen/other", download=True)
    assert "HF_HUB_OFFLINE" not in VllmAdapter.launch(asked, 1, tmp_path, environ=environ).env


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "./models/none"}, "not on this machine; correct the path"),
        ({"model": None}, "give model ="),
    ],
)
def test_vllm_without_a_model_is_told(fields: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=message):
        VllmAdapter.launch(spec(**fields), 1, tmp_path)


def test_missing_vllm_is_told(models: Path, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"'vllm' is not on PATH.*python ="):
        VllmAdapter.launch(spec(model_path=models), 1, tmp_path, environ={"PATH": ""})


# ---- attach only ---------------------------------------------------------------------------------------------------


def test_generic_servers_cannot_be_launched(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="give base_url to attach"):
        OpenAIAdapter.launch(spec(), 1, tmp_path)


@pytest.mark.parametrize(("wanted", "seconds"), [(None, ATTACH_DEADLINE_S), (3.0, 3.0)])
def test_deadline_of_an_attached_server(wanted: float | None, seconds: float) -> None:
    adapter = OpenAIAdapter(spec(start_timeout_s=wanted, launch="attach"), "http://127.0.0.1:1", {})

    assert adapter.start_deadline_s() == seconds
