"""A check with an argument it does not take, written in a marker: its tests fail and the file is not lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

FILE = """
import pytest
from pytest_llmparity import check

WRONG = check.schema({}, gap=5)

@pytest.mark.parity("prompts.jsonl", check.text(margin=5))
def test_margin(parity_run): ...

@pytest.mark.parity("prompts.jsonl", WRONG)
def test_gap(parity_run): ...

@pytest.mark.parity("prompts.jsonl", check.text(0.05))
def test_positional(parity_run): ...

@pytest.mark.parity("prompts.jsonl", check.prompts())
def test_body(parity_run):
    parity_run.check(check.text(margin=7))

@pytest.mark.parity("prompts.jsonl", check.prompts())
def test_fine(parity_run): ...

def test_other(): ...
"""
TOLD = [
    "text(margin=5): margin is a share: 0.05 is 5 % (test_gate.py:6)",
    "schema(gap=5): gap is a share: 0.05 is 5 % (test_gate.py:4)",
    "text() takes 0 positional arguments but 1 was given (test_gate.py:12)",
]


def test_each_test_that_uses_it_is_an_error_that_names_argument_and_line_and_the_others_run(bench: Bench) -> None:
    bench.pytester.makepyfile(test_gate=FILE)

    result = bench.run("-rA", engines=[bench.engine("yes", poses_as="llamacpp") for _ in range(2)])

    assert result.ret == 1
    result.assert_outcomes(errors=3, failed=1, passed=2)
    result.stdout.fnmatch_lines_random([*TOLD, "*text(margin=7): margin is a share*"])


def test_without_engines_it_is_told_as_well(bench: Bench) -> None:
    bench.pytester.makepyfile(test_gate=FILE)

    result = bench.run("-rA")

    assert result.ret == 1
    result.assert_outcomes(errors=3, skipped=2, passed=1)
    result.stdout.fnmatch_lines_random(TOLD)


def test_outside_pytest_and_in_functions_it_is_raised_where_it_is_written(bench: Bench) -> None:
    bench.pytester.makepyfile(script="from pytest_llmparity import check\ncheck.text(margin=5)\n")
    bench.pytester.makepyfile(
        test_gate="from pytest_llmparity import check\ndef made(): return check.text(margin=5)\nmade()\n"
    )

    result = bench.run()

    assert result.ret == 2
    result.stdout.fnmatch_lines(["E*DesignError: text(margin=5): margin is a share: 0.05 is 5 %"])
