"""What a name on ``--engines`` means: which file was read, and which daemon is running."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_llmparity.testing import LoopbackEngine

USES = "def test_engine(engine):\n    print('at', engine.base_url)\n"


@pytest.fixture
def ollama(bench: Any, monkeypatch: pytest.MonkeyPatch) -> LoopbackEngine:
    """A daemon that is running, where the environment says so."""
    daemon: LoopbackEngine = bench.engine("ok", poses_as="ollama", model="qwen3:8b")
    monkeypatch.setenv("OLLAMA_HOST", daemon.base_url.removeprefix("http://"))
    bench.pytester.makepyfile(USES)
    return daemon


# -- where the configuration was looked for


def test_an_unknown_engine_names_the_file_that_was_read(bench: Any) -> None:
    bench.configure("[engines.prod]\nkind = 'openai'\nbase_url = 'http://h'\n")

    result = bench.run("--engines=dev")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"configured in {bench.pytester.path / 'llmparity.toml'}: prod" in result.stderr.str()


def test_an_unknown_engine_names_the_places_that_were_searched(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.configure("[engines.prod]\nkind = 'openai'\nbase_url = 'http://h'\n")
    inner = bench.pytester.mkdir("inner")
    (inner / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(inner)

    text = bench.run("--engines=prod").stderr.str()

    assert f"neither llmparity.toml nor [tool.llmparity] in pyproject.toml is in {inner}" in text
    assert f"there is {bench.pytester.path / 'llmparity.toml'}: name it with --parity-config" in text


# -- the daemon a model's name means


@pytest.mark.parametrize("workers", [(), pytest.param(("-n1",), marks=pytest.mark.slow)], ids=["alone", "xdist"])
def test_the_name_of_a_model_means_the_daemon_that_has_it(
    bench: Any, ollama: LoopbackEngine, workers: tuple[str, ...]
) -> None:
    result = bench.run("--engines=ollama:qwen3:8b", "-rA", *workers)

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"*at {ollama.base_url}/v1"])
    if not workers:  # xdist shows no header of ours twice
        result.stdout.fnmatch_lines(
            ["ollama-qwen3-8b: uses the ollama that is running at *", "*::test_engine?ollama-qwen3-8b?*"]
        )


def test_a_daemon_without_the_model_is_not_meant_and_launch_process_is_ours(bench: Any, ollama: LoopbackEngine) -> None:
    bench.configure("[engines.own]\nkind = 'ollama'\nmodel = 'qwen3:8b'\nlaunch = 'process'\n")

    text = bench.run("--engines=own,other=ollama:nobody:1b", "--collect-only").stdout.str()

    assert "that is running" not in text
    assert text.count(", process") == 2


def test_lm_studio_that_does_not_answer_is_an_error_before_collection(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_llmparity.engines.daemons.LMSTUDIO", "http://127.0.0.1:9")

    result = bench.run("--engines=lmstudio:gemma")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "no lmstudio answers at http://127.0.0.1:9. Start it (lms daemon up" in result.stderr.str()


def test_kinds_alone_are_answered_with_what_is_running_here(bench: Any, ollama: LoopbackEngine) -> None:
    result = bench.run("--engines=ollama,vllm")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stderr.str()
    assert f"ollama at {ollama.base_url}: qwen3:8b" in text
    assert "--engines ollama:qwen3:8b" in text
