"""What failed is asked again, and only that; what a killed run had gathered is judged and not asked again."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.testing import Fault
from tests.plugin.reported.wire import Json

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

LIMIT_S = 60.0
OK, FAILED, USAGE = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.USAGE_ERROR
REPORT = ("--parity-report=json", "--parity-out=out")
HANGS = """
import os, signal
from pathlib import Path
import pytest
from pytest_llmparity import check

@pytest.mark.parity("prompts.jsonl", {checks})
def test_gate(parity_run):
    if Path("die").exists():
        os.kill(os.getpid(), signal.SIGKILL)
"""
"""A gate in whose body pytest is killed: everything is gathered by then, nothing judged."""


def last(bench: Bench, before: dict[str, int], *engines: Any) -> list[list[str]]:
    """Return the prompts that engines were asked since ``before`` counted them."""
    return [
        [str(request["messages"][-1]["content"]) for request in bench.asked(engine)[before[engine.base_url] :]]
        for engine in engines
    ]


def killed(bench: Bench, *engines: Any) -> None:
    """Run the gate that hangs, to its end."""
    (bench.pytester.path / "die").touch()
    assert bench.spawn(engines=engines).wait() == -9
    (bench.pytester.path / "die").unlink()


def counts(bench: Bench, *engines: Any) -> dict[str, int]:
    return {engine.base_url: len(bench.asked(engine)) for engine in engines}


@pytest.mark.slow
def test_only_what_failed_is_asked_again_and_the_run_is_judged_as_a_whole(bench: Bench) -> None:
    bench.prompts(12)
    bench.gate('check.prompts(), check.schema({}, gap=0.5), check.latency(e2e_p50="30s", n=16)')
    sick = ["question 7", "question 10"]
    a = bench.engine()
    b = bench.engine(lambda r: Fault.refuse(400) if r["messages"][-1]["content"].endswith(tuple(sick)) else None)
    bench.run(*REPORT, engines=[a, b])
    assert {failure["case"] for failure in bench.report()["failures"]} == {"case-7", "case-10"}
    run, before = bench.report()["run"], counts(bench, a, b)
    sick.clear()

    result = bench.run("--parity-retry-failed", *REPORT, engines=[a, b])

    assert result.ret == OK, result.stdout.str()
    assert bench.report()["run"] == run
    assert bench.report()["failures"] == []
    again_a, again_b = last(bench, before, a, b)
    assert {"question 7", "question 10"} <= set(again_b[:2])
    assert len(again_a) >= 16, "answers of the timed phase failed on b, so it was measured again on both"
    assert len(again_b) == len(again_a) + 2
    assert {v["kind"]: v["n"] for v in bench.report()["verdicts"]}["schema.gap"] == 12


@pytest.mark.slow
def test_what_was_timed_whole_is_not_timed_again(bench: Bench) -> None:
    bench.gate('check.schema({}, gap=0.5), check.latency(e2e_p50="30s", n=16)')
    calls: list[str] = []

    def once(request: Any) -> Fault | None:
        prompt = str(request["messages"][-1]["content"])
        calls.append(prompt)
        return Fault.refuse(400) if prompt == "question 7" and calls.count(prompt) == 1 else None

    a, b = bench.engine(), bench.engine(once)
    bench.run(*REPORT, engines=[a, b])
    before = counts(bench, a, b)
    assert [failure["case"] for failure in bench.report()["failures"]] == ["case-7"]

    assert bench.run("--parity-retry-failed", *REPORT, engines=[a, b]).ret == OK

    assert last(bench, before, a, b) == [[], ["question 7"]]
    assert {row["n"] for row in bench.report()["latency"] if row["metric"] == "e2e"} == {16}


def test_a_run_in_which_nothing_failed_is_judged_and_asks_nothing(bench: Bench) -> None:
    bench.gate("check.prompts()")
    engines = [bench.engine(), bench.engine()]
    assert bench.run(*REPORT, engines=engines).ret == OK
    before = [engine.count for engine in engines]

    assert bench.run("--parity-retry-failed", *REPORT, engines=engines).ret == OK

    assert [engine.count for engine in engines] == before


def test_without_a_run_of_the_plan_there_is_nothing_to_ask_again(bench: Bench) -> None:
    bench.gate("check.prompts()")

    result = bench.run("--parity-retry-failed", engines=[bench.engine(), bench.engine()])

    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["*has answers to ask again*run again without --parity-retry-failed*"])
    assert bench.run("--parity-retry-failed", "--parity-fresh", "--engines=http://127.0.0.1:9").ret == USAGE


@pytest.mark.slow
def test_a_run_that_was_killed_after_gathering_is_judged_by_the_next(bench: Bench) -> None:
    bench.pytester.makepyfile(test_gate=HANGS.format(checks="check.text(margin=0.05)"))
    engines = [bench.engine(), bench.engine()]
    killed(bench, *engines)
    store, kept = bench.pytester.path / ".llmparity", bench.pytester.path / "kept"
    shutil.copytree(store, kept)

    for more in ((), ("-n1",), ("--parity-fresh",)):
        shutil.rmtree(store)
        shutil.copytree(kept, store)
        before, asked = [engine.count for engine in engines], counts(bench, *engines)
        result = bench.run(*more, *REPORT, engines=engines)

        assert result.ret == OK
        assert {v["outcome"] for v in bench.report()["verdicts"]} == {"PASS"}
        if more != ("--parity-fresh",):
            assert "nobody was asked (--parity-fresh asks again)" in " ".join(result.stdout.str().split())
            assert [engine.count for engine in engines] == before, "not even a warm-up"
            assert bench.run(engines=engines).ret == OK
        again = last(bench, asked, *engines)
        assert [len(prompts) for prompts in again] == [32] * 2, "what was judged is asked anew by the next run"


@pytest.mark.slow
def test_failures_of_a_killed_run_are_asked_again_before_it_is_judged(bench: Bench) -> None:
    bench.pytester.makepyfile(test_gate=HANGS.format(checks="check.prompts()"))
    sick = {"question 7"}
    a = bench.engine()
    b = bench.engine(lambda r: Fault.refuse(400) if r["messages"][-1]["content"] in sick else None)
    killed(bench, a, b)
    before = counts(bench, a, b)
    sick.clear()

    assert bench.run(engines=[a, b]).ret == OK

    assert last(bench, before, a, b) == [[], ["question 7"]]


@pytest.mark.slow
def test_a_lock_that_binds_now_is_held_before_a_killed_runs_answers_are_judged(bench: Bench) -> None:
    bench.pytester.makepyfile(test_gate=HANGS.format(checks="check.prompts()"))
    engines = [bench.engine(), bench.engine()]
    killed(bench, *engines)

    result = bench.run("--parity-frozen", *REPORT, engines=engines)

    assert result.ret == FAILED
    assert {v["outcome"] for v in bench.report()["verdicts"]} == {"INCOMPARABLE"}


@pytest.mark.slow
def test_five_interruptions_lose_no_answer(bench: Bench, wait_until: Callable[..., float]) -> None:
    bench.prompts(16)
    bench.gate("check.prompts(), check.text(margin=0.05)")
    engines = [bench.engine(), bench.engine(drift=0.2)]
    go_on, most = threading.Event(), 0

    def asked() -> int:
        return sum(len(bench.asked(engine)) for engine in engines)

    def holds_back(request: Json) -> None:
        """Babble as without a script, but not before the run is interrupted once enough was asked of both."""
        if "question" in str(request) and asked() > most:
            go_on.wait(LIMIT_S)

    for engine in engines:
        engine.script = holds_back  # type: ignore[assignment]  # None babbles, as without a script
    for signal_number in (9, 15, 1, 2, 9):
        most = asked() + 18
        go_on.clear()
        spawned = bench.spawn(engines=engines)
        wait_until(lambda ended=spawned.process.poll, most=most: ended() is not None or asked() > most)
        spawned.process.send_signal(signal_number)
        spawned.wait()
        go_on.set()

    most = 10_000
    result = bench.run(*REPORT, engines=engines)

    assert result.ret == FAILED
    verdicts = {v["kind"]: (v["outcome"], v["n"]) for v in bench.report()["verdicts"] if v["kind"] == "text"}
    assert verdicts == {"text": ("FAIL", 16)}
    assert 2 * 64 <= asked() <= 2 * 64 + 5 * 8, "what was in flight is asked again, nothing else"
    assert json.dumps(bench.report()["failures"]) == "[]"
