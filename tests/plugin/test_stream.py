"""Streamed and unstreamed answers, as a person running pytest sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.testing import Fault

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

PROMPTS = 32
GATE = "check.stream(rate=0.9)"


def said(request: dict[str, Any]) -> str:
    return f"answer to {request['messages'][0]['content']}"


def unlike(request: dict[str, Any]) -> str:
    return said(request) if request.get("stream") else said(request).upper()


def test_each_prompt_is_asked_both_ways_and_each_engine_is_judged_by_itself(bench: Bench) -> None:
    bench.prompts(PROMPTS, expect={"contains": ["answer"]})
    bench.gate(f"{GATE}, check.answers(rate=0.9)")
    engines = [bench.engine(said), bench.engine(unlike)]

    result = bench.run("--parity-report=json", engines=engines)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["FAIL stream.rate, b: 0 % of answers are the same streamed and unstreamed*"])
    result.stdout.no_fnmatch_line("FAIL*, a:*")
    for engine in engines:
        streams = [bool(request.get("stream")) for request in bench.asked(engine)]
        assert streams.count(True) == streams.count(False) == 2 * PROMPTS
    run = bench.report(".llmparity/report")
    assert {(v["kind"], v["engine"]): v["outcome"] for v in run["verdicts"]} == {
        ("stream.rate", "a"): "PASS",
        ("stream.rate", "b"): "FAIL",
        ("answers.rate", "a"): "PASS",  # it reads the streamed answers
        ("answers.rate", "b"): "PASS",
    }
    again = bench.run("--parity-mode=replay", engines=engines)
    again.stdout.fnmatch_lines(["FAIL stream.rate, b: 0 % of answers are the same streamed and unstreamed*"])
    assert {len(bench.asked(engine)) for engine in engines} == {4 * PROMPTS}


def test_an_engine_that_cannot_stream_is_incomparable_and_one_that_is_silent_no_pass(bench: Bench) -> None:
    bench.prompts(PROMPTS)
    bench.gate(GATE)

    def whole_only(request: dict[str, Any]) -> Any:
        return Fault.refuse(400) if request.get("stream") else said(request)

    result = bench.run("--parity-report=json", engines=[bench.engine(whole_only), bench.engine("")])

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    run = bench.report(".llmparity/report")
    outcomes = {verdict["engine"]: verdict["outcome"] for verdict in run["verdicts"]}
    assert outcomes == {"a": "INCOMPARABLE", "b": "ERROR"}
    result.stdout.fnmatch_lines(["*it answers no prompt streamed; first: a on case-*"])


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        (f"{GATE}, check.text(margin=0.05)", "would have done for both arms; give them a"),
        ("check.stream()", "rate=0.95 takes at least 59 prompts even if every answer is right, and there are 32"),
        ("check.stream(ignore=['usages'])", "'usages' is none of content, calls, finish, usage"),
    ],
)
def test_what_cannot_be_asked_so_is_refused_before_anybody_is_asked(bench: Bench, checks: str, words: str) -> None:
    bench.prompts(PROMPTS)
    bench.gate(checks)
    engine = bench.engine(said)

    result = bench.run(engines=[engine, engine])

    result.stdout.fnmatch_lines([f"*{words}*"])
    assert not bench.asked(engine)
