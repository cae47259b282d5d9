"""Streamed and unstreamed answers, as a person running pytest sees them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.cli import main
from pytest_llmparity.testing import Fault

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

PROMPTS = 32
GATE = "check.stream(rate=0.9)"


def echoed(request: dict[str, Any]) -> str:
    return f"answer to {request['messages'][0]['content']}"


def unlike(request: dict[str, Any]) -> str:
    return echoed(request) if request.get("stream") else echoed(request).upper()


def test_each_prompt_is_asked_both_ways_and_each_engine_is_judged_by_itself(bench: Bench) -> None:
    bench.prompts(PROMPTS, expect={"contains": ["answer"]})
    bench.gate(f"{GATE}, check.answers(rate=0.9)")
    engines = [bench.engine(echoed), bench.engine(unlike)]

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
        return Fault.refuse(400) if request.get("stream") else echoed(request)

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
    engine = bench.engine(echoed)

    result = bench.run(engines=[engine, engine])

    result.stdout.fnmatch_lines([f"*{words}*"])
    assert not bench.asked(engine)


@pytest.mark.slow
def test_a_sequential_run_asks_both_ways_until_it_is_settled(bench: Bench) -> None:
    bench.prompts(64)
    bench.gate("check.stream(rate=0.8)")
    engines = [bench.engine(echoed), bench.engine(unlike)]

    result = bench.run("--parity-sequential", "--parity-report=json", "--parity-out=out", engines=engines)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    verdicts = {v["engine"]: (v["outcome"], v["n"]) for v in bench.report()["verdicts"]}
    assert verdicts["b"][0] == "FAIL"
    assert verdicts["b"][1] < 64
    assert verdicts["a"][0] in ("PASS", "INCONCLUSIVE")
    for engine in engines:
        streams = [bool(request.get("stream")) for request in bench.asked(engine)]
        assert streams.count(True) == streams.count(False)


@pytest.mark.usefixtures("warm_commands")
@pytest.mark.slow
def test_shards_keep_both_ways_of_a_prompt_together(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.prompts(PROMPTS)
    bench.gate(GATE)
    engines = [bench.engine(echoed), bench.engine(unlike)]
    whole = bench.run("--parity-report=json", "--parity-out=whole", engines=engines)
    shutil.move(bench.pytester.path / ".llmparity", bench.pytester.path / "of-the-whole")
    for index in (1, 2):
        assert bench.run(f"--parity-shard={index}/2", engines=engines).ret == pytest.ExitCode.OK
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider")

    assert main(["merge", "--", "--parity-report=json", "--parity-out=merged"]) == whole.ret

    keys = ("kind", "engine", "outcome", "n", "estimate")
    ours, theirs = (
        sorted([[v[key] for key in keys] for v in bench.report(name)["verdicts"]]) for name in ("merged", "whole")
    )
    assert ours == theirs


@pytest.mark.slow
def test_both_ways_become_golden_and_stand_for_their_engine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    bench.prompts(PROMPTS)
    bench.gate(GATE)
    recorded, other = bench.engine(unlike), bench.engine(echoed)
    bench.run("--parity-update-golden=all", engines=[recorded])
    asked = len(bench.asked(recorded))

    result = bench.run(f"--engines=golden:a,b={bench.selected(other)}", "--parity-report=json", "--parity-out=out")

    verdicts = {v["engine"]: (v["outcome"], v["n"]) for v in bench.report()["verdicts"]}
    assert verdicts == {"golden-a": ("FAIL", PROMPTS), "b": ("PASS", PROMPTS)}
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert len(bench.asked(recorded)) == asked


@pytest.mark.slow
def test_a_recording_plays_both_ways_as_they_were(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bench.pytester.path)
    bench.prompts(PROMPTS)
    bench.gate(GATE)
    recorded = bench.engine(unlike)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider")
    assert main(["record", f"prod={bench.selected(recorded)}", "--", "test_gate.py"]) in (0, 1)
    monkeypatch.delenv("PYTEST_ADDOPTS")
    recorded.stop()

    bench.run("--engines=replay:prod", "--parity-report=json", "--parity-out=out")

    (verdict,) = bench.report()["verdicts"]
    assert (verdict["outcome"], verdict["n"], verdict["estimate"]) == ("FAIL", PROMPTS, 0.0)
