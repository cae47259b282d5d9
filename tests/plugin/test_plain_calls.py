"""Tests with the fixture ``engine`` and no marker: with ``record = true`` what they send is kept and shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.run.application.plain import CALLS, Told
from pytest_llmparity.store.runs import Store
from pytest_llmparity.testing import LoopbackEngine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.plugin.conftest import Bench

FAILED, OK = pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.OK
REPORTED = ("--parity-report=json", "--parity-out=out")
SUITE = """
import httpx
import pytest
from pytest_llmparity import check

def ask(engine, text):
    body = {"model": engine.model, "messages": [{"role": "user", "content": text}]}
    keys = {"authorization": f"Bearer {engine.api_key}"}
    answer = httpx.post(f"{engine.base_url}/chat/completions", json=body, headers=keys, trust_env=False).json()
    return answer["choices"][0]["message"]["content"]

def test_bot(engine):
    assert ask(engine, "where is it?") == "billing"

def test_sdk(engine):
    client = engine.openai()
    client.chat.completions.create(model=engine.model, messages=[{"role": "user", "content": "hi"}], stream=False)

def test_both(engines):
    assert {ask(engine, name) for name, engine in engines.items()}

def test_none(engine):
    assert engine.name
"""
GATE = """
@pytest.mark.parity("prompts.jsonl", check.prompts(), max_tokens=4)
def test_gate(): ...
"""


def configured(bench: Bench, *engines: LoopbackEngine, record: bool = True, **more: str) -> list[str]:
    """Write engines a and b into the configuration; return what chooses them."""
    names = "ab"[: len(engines)]
    keys = "".join(f'{name} = "{value}"\n' for name, value in more.items())
    bench.configure(
        "\n".join(
            f'[engines.{name}]\nkind = "openai"\nmodel = "{engine.model}"\nbase_url = "{engine.base_url}"\n'
            f"record = {str(record).lower()}\n{keys}"
            for name, engine in zip(names, engines, strict=True)
        )
    )
    return [f"--engines={','.join(names)}"]


def written(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (bench.pytester.path / "out/calls.jsonl").read_text("utf-8").splitlines()]


def test_what_tests_send_is_written_down_and_a_failure_shows_where_engines_part(bench: Bench) -> None:
    bench.pytester.makepyfile(test_app=SUITE)
    engines = [bench.engine("billing"), bench.engine("shipping")]

    result = bench.run(*configured(bench, *engines), *REPORTED)

    result.assert_outcomes(passed=6, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*- calls of b -*",
            "1 call of b:",
            "  1. /v1/chat/completions: HTTP 200",
            '    asked    {"messages": *"where is it?"*',
            "    answered shipping",
            "where it began: the answer of call 1 of 1 differs",
            "  a billing",
            "  b shipping",
            "recorded: 6 calls of 5 tests, kept in calls.jsonl",
        ]
    )
    lines = written(bench)
    assert [(line["test"].partition("::")[2], line["engine"], len(line["calls"])) for line in lines] == [
        ("test_bot[a]", "a", 1),
        ("test_sdk[a]", "a", 1),
        ("test_bot[b]", "b", 1),
        ("test_sdk[b]", "b", 1),
        ("test_both", "a", 1),
        ("test_both", "b", 1),
    ]
    (call,) = lines[0]["calls"]
    assert (call["path"], call["status"], call["answer"]) == ("/v1/chat/completions", 200, "billing")
    assert json.loads(call["request"]) == {"messages": [{"role": "user", "content": "where is it?"}]}


def test_without_the_key_clients_talk_to_the_engine_itself(bench: Bench) -> None:
    bench.pytester.makepyfile(test_app=SUITE + '\ndef test_address(engine):\n    print("at", engine.base_url)\n')
    engine = bench.engine("billing")
    (bench.pytester.path / "out").mkdir()
    (bench.pytester.path / "out/calls.jsonl").write_text("of an earlier run")

    result = bench.run(*configured(bench, engine, record=False), *REPORTED, "-s")

    assert result.ret == OK
    result.stdout.fnmatch_lines([f"*at {engine.base_url}/v1*"])
    assert "recorded:" not in result.stdout.str()
    assert not (bench.pytester.path / "out/calls.jsonl").exists()


def test_calls_are_stored_with_the_run_of_a_gate_and_keys_are_masked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-0123456789abcdef"
    monkeypatch.setenv("LOOP_KEY", key)
    bench.pytester.makepyfile(test_app=SUITE.replace('"where is it?"', "engine.api_key") + GATE)

    def echo(request: Mapping[str, Any]) -> str:
        return str(request["messages"][-1]["content"])

    engine = bench.engine(echo, api_key=key)
    result = bench.run(*configured(bench, engine, api_key_env="LOOP_KEY"), *REPORTED)

    result.stdout.fnmatch_lines(["recorded: 3 calls of 3 tests, kept in the store, with the run and calls.jsonl"])
    with Store.open(bench.pytester.path / ".llmparity") as store:
        (run,) = store.runs()
        told = store.document(run.id, CALLS, Told)
    assert told is not None
    assert [(each.test.partition("::")[2], each.engine, len(each.calls)) for each in told.asked] == [
        ("test_bot[a]", "a", 1),
        ("test_sdk[a]", "a", 1),
        ("test_both", "a", 1),
    ]
    result.stdout.fnmatch_lines(["    answered «LOOP_KEY»"])
    assert key not in (bench.pytester.path / "out/calls.jsonl").read_text("utf-8")
    assert told.asked[0].calls[0].answer == "«LOOP_KEY»"


def test_calls_that_are_kept_nowhere_are_said_to_be(bench: Bench) -> None:
    bench.pytester.makepyfile(test_app=SUITE)

    result = bench.run(*configured(bench, bench.engine("billing")))

    printed = " ".join(result.stdout.str().split())
    assert "recorded: 3 calls of 3 tests, kept nowhere: this run has no gate, and --parity-report=json" in printed


@pytest.mark.slow
def test_workers_hand_their_calls_back(bench: Bench) -> None:
    bench.pytester.makepyfile(test_app=SUITE)
    engines = [bench.engine("billing"), bench.engine("billing")]

    result = bench.run(*configured(bench, *engines), *REPORTED, "-n2", left_out=())

    assert result.ret == OK
    assert sorted((line["test"].partition("::")[2], line["engine"]) for line in written(bench)) == [
        ("test_bot[a]", "a"),
        ("test_bot[b]", "b"),
        ("test_both", "a"),
        ("test_both", "b"),
        ("test_sdk[a]", "a"),
        ("test_sdk[b]", "b"),
    ]
