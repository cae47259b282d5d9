"""``--collect-only`` says which tests cannot run, and ends as their run would."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

OK, FAILED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED


def test_a_test_that_can_never_pass_is_named_at_the_end_and_the_plan_stays(bench: Bench) -> None:
    bench.prompts(4)
    bench.gate("check.text(margin=0.0001)")
    engines = [bench.engine(), bench.engine()]

    ahead, run = bench.run("--collect-only", engines=engines), bench.run(engines=engines)

    assert (ahead.ret, run.ret) == (FAILED, FAILED)
    ahead.stdout.fnmatch_lines(
        ["*test_gate*", "1 test cannot run, and a run would end with exit code 1:", "  test_gate.py::test_gate: *"]
    )


def test_a_run_names_what_cannot_run_before_it_asks_anybody(bench: Bench) -> None:
    bench.prompts(4)
    bench.gate("check.text(margin=0.0001)")

    run = bench.run(engines=[bench.engine(), bench.engine()])

    lines = run.outlines
    (told,) = [at for at, line in enumerate(lines) if line.startswith("test_gate.py::test_gate cannot run: ")]
    assert told < next(at for at, line in enumerate(lines) if "ERRORS" in line)


@pytest.mark.parametrize(
    ("check", "args", "told"),
    [
        ("check.text(margin=0.2)", ("--parity-explain-requests=400",), "where a check fails, up to 400 requests more"),
        (
            "check.text(margin=0.2)",
            ("--parity-explain-requests=400", "--parity-max-requests=300"),
            "up to 236 requests",
        ),
        (
            "check.text(margin=0.2)",
            ("--parity-explain-requests=400", "--parity-max-requests=64"),
            "none, no request is left for them once the plan is asked (--parity-max-requests)",
        ),
        (
            "check.text(margin=0.2)",
            ("--parity-explain-requests=400", "--parity-max-requests=64", "--parity-sequential"),
            "up to 64 requests",
        ),
        ("check.text(margin=0.2)", ("--parity-explain-requests=0",), None),
        ("check.similarity(at_least=0.1)", ("--parity-explain-requests=400",), None),
    ],
)
def test_the_plan_says_what_experiments_may_ask_more_where_they_may_be_made(
    bench: Bench, check: str, args: tuple[str, ...], told: str | None
) -> None:
    bench.gate(check)

    run = bench.run("--collect-only", *args, engines=[bench.engine(), bench.engine()])

    lines = [line for line in run.outlines if line.startswith("experiments: ")]
    assert len(lines) == (told is not None)
    assert all(told is not None and told in line for line in lines)


def test_without_engines_a_check_that_could_not_be_made_is_told_too(bench: Bench) -> None:
    bench.gate("check.text(margin=5)")

    ahead = bench.pytester.runpytest_inprocess("-p", "no:cacheprovider", "--collect-only")

    assert ahead.ret == FAILED
    ahead.stdout.fnmatch_lines(["1 test cannot run, and a run would end with exit code 1:"])


def test_what_can_run_ends_with_0(bench: Bench) -> None:
    bench.gate("check.text(margin=0.2)")

    ahead = bench.run("--collect-only", engines=[bench.engine(), bench.engine()])

    assert ahead.ret == OK
    assert "cannot run" not in ahead.stdout.str()
