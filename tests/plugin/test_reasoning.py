"""Reasoning, as a person running pytest sees it: one channel, however an engine spells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.testing import Reply

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

PROMPTS = 32
THOUGHT = "Let me think about this for a while before I answer."


def thinking(request: dict[str, Any]) -> Reply:
    return Reply(text=f"answer to {request['messages'][0]['content']}", reasoning=THOUGHT)


def tagged(request: dict[str, Any]) -> str:
    return f"<think>{THOUGHT}</think>answer to {request['messages'][0]['content']}"


def wordless(request: dict[str, Any]) -> str:
    return f"answer to {request['messages'][0]['content']}"


def test_reasoning_is_the_same_channel_on_every_engine(bench: Bench) -> None:
    bench.prompts(PROMPTS)
    bench.gate("check.reasoning(present=True, most_tokens=40, rate=0.9)", tokens=64)
    engines = [bench.engine(thinking), bench.engine(tagged), bench.engine(wordless)]

    result = bench.run("--parity-report=json", engines=engines)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    run = bench.report(".llmparity/report")
    assert {(v["kind"], v["engine"]): v["outcome"] for v in run["verdicts"]} == {
        ("reasoning.present", "a"): "PASS",
        ("reasoning.present", "b"): "PASS",
        ("reasoning.present", "c"): "FAIL",
        ("reasoning.tokens", "a"): "PASS",
        ("reasoning.tokens", "b"): "PASS",
        ("reasoning.tokens", "c"): "INCONCLUSIVE",
    }
    result.stdout.fnmatch_lines(
        [
            "FAIL reasoning.present, c: 0 % of answers reason*",
            "*no answer of c reasons, so how long it reasons is not shown*",
        ]
    )


def test_an_engine_that_says_nothing_never_passes(bench: Bench) -> None:
    bench.prompts(PROMPTS)
    bench.gate("check.reasoning(present=False, rate=0.9)")

    result = bench.run("--parity-report=json", engines=[bench.engine("")])

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    run = bench.report(".llmparity/report")
    assert [verdict["outcome"] for verdict in run["verdicts"]] == ["ERROR"]
