"""``--parity-sequential`` from the outside: plan, outcomes, reports, workers, replay, and prompts that are added."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_llmparity.testing import LoopbackEngine
    from tests.plugin.conftest import Bench

OK, FAILED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED
SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("prompts.jsonl", check.prompts(), check.schema({"type": "object"}, agree=0.9), max_tokens=32)
def test_values(parity_run): ...

@pytest.mark.parity("prompts.jsonl", check.similarity(at_least=0.9), max_tokens=8)
def test_words(parity_run): ...
"""


def verdicts(report: Any) -> list[dict[str, Any]]:
    return sorted(report["verdicts"], key=lambda v: (v["test"], v["check"], v["kind"], v["engine"]))


def asked(engine: LoopbackEngine) -> int:
    """How many prompts an engine got, warm-ups and probes apart."""
    return sum(str(request.json["messages"][-1]["content"]).startswith("question") for request in engine.requests)


def test_the_plan_says_what_is_asked_at_most_and_how(bench: Bench) -> None:
    bench.prompts(100)
    bench.gate("check.text(margin=0.05), check.schema({'type': 'object'}, rate=0.95)", tokens=64)
    engine = bench.engine()
    result = bench.run("--collect-only", "-v", "--parity-sequential", engines=[engine, bench.engine()])

    result.stdout.fnmatch_lines(
        [
            "plan: at most 292 requests to each of 2 engines, 584 in all, in waves of 16; at most 18688 tokens of "
            "each; 2 engines together, asked side by side (at different addresses)",
            "*test_gate: 100 cases in 100 groups",
            "*text(margin=0.05): counts one prompt of each group, 100 groups in all",
            "*at least needed: rate 65",
        ]
    )
    assert engine.count == 0


@pytest.mark.parametrize("way", ["environment", "profile"])
def test_environment_and_profile_ask_in_waves_too(bench: Bench, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.prompts(100)
    bench.gate("check.text(margin=0.2)")
    bench.configure("[profiles.quick]\nsequential = true\n")
    if way == "environment":
        monkeypatch.setenv("LLMPARITY_SEQUENTIAL", "yes")
    args = ["--parity-profile=quick"] if way == "profile" else []
    result = bench.run(*args, "--collect-only", engines=[bench.engine(), bench.engine()])

    result.stdout.fnmatch_lines(["plan: at most 292 requests to each of 2 engines, 584 in all, in waves of 16; *"])


@pytest.mark.slow
def test_equal_engines_are_settled_with_fewer_requests(bench: Bench) -> None:
    bench.prompts(100)
    body = "assert not [row for row in parity_run['a'].values() if row.samples][32:]"
    bench.gate("check.text(margin=0.1)", body, tokens=16)
    engines = [bench.engine(), bench.engine()]
    result = bench.run("--parity-sequential", "--parity-report=json", "--parity-out=out", engines=engines)

    assert result.ret == OK
    assert [asked(engine) for engine in engines] == [32 + 48] * 2
    result.stdout.fnmatch_lines(
        [f"*run *: {sum(engine.count - 1 for engine in engines)} requests sent in all, probes included"]
    )
    text = next(v for v in bench.report()["verdicts"] if v["kind"] == "text")
    assert (text["outcome"], text["n"], text["requests"]) == ("PASS", 32, 64)
    assert text["message"].endswith("sequential, stopped after 32 of 100 prompts")


@pytest.mark.slow
def test_an_engine_that_drifts_fails_early(bench: Bench) -> None:
    bench.prompts(100)
    bench.gate()
    engines = [bench.engine(), bench.engine(drift=0.3)]
    result = bench.run("--parity-sequential", engines=engines)

    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["FAIL text, b against a: *; sequential, stopped after * of 100 prompts"])
    assert asked(engines[0]) < 100 + 96


@pytest.mark.slow
def test_what_stays_open_says_how_to_go_on_and_does(bench: Bench) -> None:
    bench.prompts(16)
    bench.gate("check.text(margin=0.05), check.prompts()", tokens=32)
    engines = [bench.engine(), bench.engine(drift=0.05)]
    first = bench.run("--parity-sequential", engines=engines)
    assert first.ret == OK
    bench.prompts(24)
    second = bench.run("--parity-sequential", "--parity-report=json", "--parity-out=out", engines=engines)
    assert second.ret == OK

    first.stdout.fnmatch_lines(["*1 inconclusive*"])
    assert "run again with --parity-sequential" in " ".join(first.stdout.str().split())
    second.stdout.fnmatch_lines(["*resumed run*"])
    assert [asked(engine) for engine in engines] == [24 + 3 * 16] * 2
    text = next(v for v in bench.report()["verdicts"] if v["kind"] == "text")
    assert (text["n"], text["alpha"]) == (24, 0.05)


@pytest.mark.slow
def test_groups_that_are_used_up_are_told_and_where_more_have_to_come_from(bench: Bench) -> None:
    lines = [
        {"id": f"{group}-{n}", "group": f"g{group}", "messages": [{"role": "user", "content": f"question {group} {n}"}]}
        for group in range(8)
        for n in range(5)
    ]
    (bench.pytester.path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    bench.gate("check.text(margin=0.05), check.prompts()", tokens=32)
    result = bench.run("--parity-sequential", engines=[bench.engine(), bench.engine(drift=0.05)])

    assert result.ret == OK
    text = " ".join(result.stdout.str().split())
    assert re.search(
        r"inconcl\. [\d.]+ % [<>] 5 % \([\d.]+ % to [\d.]+ %\), [\d.]+ % part, (shift [^,]+, )?n 8 groups", text
    )
    assert "8 groups are too few to say how many would settle it: add prompts in new groups" in text
    assert "noted: one prompt of each group counts in a sequential run, and all 8 groups have had their turn" in text


@pytest.mark.slow
def test_workers_and_a_replay_give_the_same_verdicts(bench: Bench) -> None:
    bench.prompts(64)
    bench.pytester.makepyfile(test_suite=SUITE)
    engines = [bench.engine('{"a": 1}'), bench.engine('{"a": 1}'), bench.engine()]
    reports, counts = [], []
    for workers in ("0", "2"):
        before = [asked(engine) for engine in engines]
        result = bench.run(
            *("-n", workers, "--parity-sequential", "--parity-fresh", "--parity-report=json"),
            f"--parity-out=out-{workers}",
            engines=engines,
        )
        assert result.ret == FAILED
        reports.append(bench.report(f"out-{workers}"))
        counts.append([asked(engine) - earlier for engine, earlier in zip(engines, before, strict=True)])
    replay = bench.run("--parity-mode=replay", "--parity-report=json", "--parity-out=again", engines=engines)
    assert replay.ret == FAILED

    assert verdicts(reports[0]) == verdicts(reports[1]) == verdicts(bench.report("again"))
    assert counts[0] == counts[1]
    outcomes = {(v["test"].rpartition("::")[2], v["kind"], v["engine"]): v["outcome"] for v in reports[0]["verdicts"]}
    assert outcomes["test_values", "schema.agree", "b"] == outcomes["test_words", "similarity", "b"] == "PASS"
    assert outcomes["test_values", "schema.agree", "c"] == outcomes["test_words", "similarity", "c"] == "FAIL"


def test_a_design_too_small_is_an_error_of_its_own_test(bench: Bench) -> None:
    bench.prompts(60)
    bench.gate("check.schema({'type': 'object'}, gap=0.05)")
    result = bench.run("--parity-sequential", engines=[bench.engine(), bench.engine()])

    assert result.ret == FAILED
    result.stdout.fnmatch_lines(
        ["*gap=0.05 takes at least 65 prompts even if every answer is right, and there are 60*"]
    )
