"""Runs of the store seen from pytest: killed and resumed, begun anew, replayed, two at once, cut by a hard stop."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

OK, FAILED, USAGE = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.USAGE_ERROR
REPORT = ("--parity-report=json", "--parity-out=out")
CASES = 16
PLAN = CASES + 3 * CASES
"""Requests of a text check on as many cases: the answers and three passes for the noise floor."""


def verdicts(report: Any) -> list[dict[str, Any]]:
    return sorted(report["verdicts"], key=lambda v: (v["test"], v["check"], v["kind"], v["engine"]))


def stored(bench: Bench, engine: str) -> int:
    """Return how many answers of an engine the store holds, read as another program would."""
    with sqlite3.connect(bench.pytester.path / ".llmparity/samples.sqlite") as db:
        return int(db.execute("SELECT count(*) FROM samples WHERE engine = ?", (engine,)).fetchone()[0])


@pytest.mark.slow
def test_a_killed_run_is_resumed_or_begun_anew(bench: Bench, wait_until: Callable[..., float]) -> None:
    bench.prompts(CASES)
    bench.gate("check.prompts(), check.text(margin=0.05)")
    engines = [bench.engine(first_delay_s=0.03), bench.engine(drift=0.2)]
    spawned = bench.spawn(engines=engines)
    wait_until(lambda: engines[0].count > 36)
    spawned.kill()
    engines[0].first_delay_s = 0.0
    kept = [stored(bench, name) for name in "ab"]
    assert kept[0] > 20
    store, copy = bench.pytester.path / ".llmparity", bench.pytester.path / "copy"
    shutil.copytree(store, copy)

    for option in ("--parity-resume", "--parity-fresh"):
        shutil.rmtree(store)
        shutil.copytree(copy, store)
        before = [len(bench.asked(engine)) for engine in engines]
        result = bench.run(option, *REPORT, engines=engines)

        assert result.ret == FAILED
        asked = [len(bench.asked(engine)) - earlier for engine, earlier in zip(engines, before, strict=True)]
        assert asked == [PLAN - own if option == "--parity-resume" else PLAN for own in kept]
        assert ("resumed run" in result.stdout.str()) == (option == "--parity-resume")
        assert [v["outcome"] for v in verdicts(bench.report()) if v["kind"] == "text"] == ["FAIL"]
        assert [v["n"] for v in verdicts(bench.report()) if v["kind"] == "text"] == [CASES]


def test_a_finished_run_is_not_resumed(bench: Bench) -> None:
    bench.gate("check.prompts()")
    engine = bench.engine()
    bench.run(engines=[engine, bench.engine()]).assert_outcomes(passed=1)

    result = bench.run("--parity-resume", engines=[engine, bench.engine()])

    assert result.ret == FAILED
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*can be resumed*run again without --parity-resume*"])


@pytest.mark.slow
def test_a_replay_judges_the_same_without_engines_and_without_a_request(bench: Bench) -> None:
    bench.gate(
        "check.prompts(), check.text(margin=0.05), check.schema({'type': 'object'}, gap=0.5), "
        "check.latency(e2e_p50='10s', n=16)",
        "assert parity_run['b']['case-3'].text",
    )
    engines = [bench.engine(), bench.engine(drift=0.3)]
    live = bench.run(*REPORT, engines=engines)
    run = bench.report()["run"]
    asked = [engine.count for engine in engines]
    for engine in engines:
        engine.stop()

    for number, mode in enumerate(("replay", f"replay={run}")):
        again = bench.run(f"--parity-mode={mode}", "--parity-report=json", f"--parity-out=again-{number}")

        assert (live.ret, again.ret) == (FAILED, FAILED)
        assert verdicts(bench.report(f"again-{number}")) == verdicts(bench.report())
        assert bench.report(f"again-{number}")["run"] == run
        assert bench.report(f"again-{number}")["latency"] == bench.report()["latency"]
    assert [engine.count for engine in engines] == asked


def test_a_replay_of_a_run_nobody_knows_lists_the_runs(bench: Bench) -> None:
    bench.gate()

    result = bench.run("--parity-mode=replay=20200101-000000-abcd")

    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["*no run 20200101-000000-abcd in */.llmparity; the newest are: none*"])


def test_a_replay_of_engines_that_no_run_has_ends_before_any_test(bench: Bench) -> None:
    bench.gate("check.prompts()")
    engines = [bench.engine(), bench.engine(), bench.engine()]
    bench.run(engines=engines[:2]).assert_outcomes(passed=1)

    other = bench.run("--parity-mode=replay", engines=engines)
    same = bench.run("--parity-mode=replay", engines=engines[:2])

    assert (other.ret, same.ret) == (USAGE, OK)
    other.assert_outcomes()
    assert "has all of the engines a, b, c; the newest that did, 2" in other.stderr.str() + other.stdout.str()
    same.stdout.fnmatch_lines(["replay of the newest run that asked what is selected and has these engines: nothing*"])


@pytest.mark.slow
def test_runs_at_once_share_a_store_and_nothing_else(bench: Bench) -> None:
    runs = 3
    bench.prompts(CASES)
    bench.gate("check.prompts(), check.text(margin=0.05)")
    engines = [bench.engine(first_delay_s=0.005), bench.engine(first_delay_s=0.005)]

    places = [f"out-{n}" for n in range(runs)]
    spawned = [bench.spawn("--parity-report=json", f"--parity-out={place}", engines=engines) for place in places]

    assert [process.wait() for process in spawned] == [OK] * runs, "".join(process.output for process in spawned)
    reports = [bench.report(place) for place in places]
    assert len({report["run"] for report in reports}) == runs
    assert all(verdicts(report) == verdicts(reports[0]) for report in reports)
    assert [len(bench.asked(engine)) for engine in engines] == [runs * PLAN] * 2


@pytest.mark.slow
def test_a_run_cut_by_its_budget_says_so(bench: Bench) -> None:
    bench.prompts(CASES)
    bench.gate()
    engine = bench.engine(first_delay_s=0.3)

    result = bench.run("--parity-budget=1s", *REPORT, engines=[engine, bench.engine()])

    assert result.ret == OK
    result.stdout.fnmatch_lines(["*--parity-budget*"])
    assert {v["outcome"] for v in bench.report()["verdicts"]} == {"INCONCLUSIVE"}
    assert engine.count < PLAN


def test_a_store_that_cannot_be_opened_is_the_gates_error_and_other_tests_run(bench: Bench) -> None:
    bench.gate()
    bench.pytester.makepyfile(test_other="def test_other(): ...")
    folder = bench.pytester.path / ".llmparity"
    folder.mkdir()
    (folder / "samples.sqlite").write_bytes(b"this is no database" * 100)

    result = bench.run(engines=[bench.engine(), bench.engine()])

    assert result.ret == FAILED
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(["*samples.sqlite*"])


@pytest.mark.slow
def test_runs_beyond_those_that_are_kept_are_removed_and_the_detailed_summary_says_so(bench: Bench) -> None:
    bench.prompts(1)
    bench.gate("check.prompts()")
    engines = [bench.engine(), bench.engine()]
    for _ in range(2):
        silent = bench.run("--parity-keep-runs=2", "--parity-fresh", engines=engines)
        silent.stdout.no_fnmatch_line("*removed from the store*")

    silent = bench.run("--parity-keep-runs=2", "--parity-fresh", engines=engines)
    silent.stdout.no_fnmatch_line("*removed from the store*")
    result = bench.run("--parity-keep-runs=2", "--parity-fresh", "-v", engines=engines)

    result.stdout.fnmatch_lines(["*1 older run removed from the store, which keeps the newest 2 (--parity-keep-runs)*"])
    with sqlite3.connect(bench.pytester.path / ".llmparity/samples.sqlite") as db:
        assert db.execute("SELECT count(*) FROM runs").fetchone() == (2,)


@pytest.mark.slow
def test_a_damaged_run_is_no_fault_of_ours_when_it_is_replayed(bench: Bench) -> None:
    bench.prompts(1)
    bench.gate("check.prompts()")
    bench.run(engines=[bench.engine(), bench.engine()])
    for document in ("asked", "gathered"):  # the second is read first, and so hides the one before
        with sqlite3.connect(bench.pytester.path / ".llmparity/samples.sqlite") as db:
            db.execute("UPDATE notes SET content = ? WHERE name = ?", (b'{"engines": 3, "unit": [3]}', document))

        result = bench.run("--parity-mode=replay")

        assert result.ret == FAILED
        result.stdout.fnmatch_lines([f"*cannot be read ({document})*gather the run again"])
