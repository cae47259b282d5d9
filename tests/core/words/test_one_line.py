"""Where room is little the numbers that decided come first, and the line is one line."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import brief, explain


def verdict(outcome: Outcome, kind: str = "text", **more: Any) -> Verdict:
    about = {"test": "t.py::test_t", "check": "text()", "engine": "q4", "baseline": "f16", **more}
    return Verdict(kind=kind, outcome=outcome, **about)


DRIFTS = verdict(
    Outcome.FAIL, estimate=0.1042, lower=0.0715, margin=0.05, unit="forks/token", n=144, p_pass=1.0, p_fail=0.001
)


@pytest.mark.parametrize(
    ("verdicts", "line"),
    [
        ([DRIFTS], "10.42 % > 5 % (at least 7.15 %, n 144) FAIL: text, q4 against f16"),
        (
            [verdict(Outcome.PASS), DRIFTS, verdict(Outcome.INCONCLUSIVE, estimate=0.1)],
            "10.42 % > 5 % (at least 7.15 %, n 144) FAIL: text, q4 against f16 (and 1 more)",
        ),
        (
            [
                verdict(
                    Outcome.FAIL,
                    "schema.rate",
                    baseline=None,
                    estimate=0.81,
                    upper=0.9,
                    margin=0.95,
                    side="at_least",
                    unit="share",
                    n=96,
                    p_pass=1.0,
                    p_fail=0.001,
                )
            ],
            "81 % < 95 % (at most 90 %, n 96) FAIL: schema.rate, q4",
        ),
        (
            [verdict(Outcome.FAIL, "prompts", estimate=3, unit="prompts", n=40, reason="3 prompts of 40 differ\nmore")],
            "3 differ: prompts, q4 against f16: 3 prompts of 40 differ",
        ),
        (
            [
                verdict(
                    Outcome.INCONCLUSIVE,
                    estimate=0.05,
                    lower=0.03,
                    upper=0.07,
                    margin=0.06,
                    unit="share",
                    n=9,
                    p_fail=0.3,
                )
            ],
            "5 % (between 3 % and 7 %, margin 6 %, n 9) INCONCLUSIVE: text, q4 against f16",
        ),
        ([verdict(Outcome.ERROR, reason="it died\nlog")], "ERROR text, q4 against f16: it died"),
        ([verdict(Outcome.PASS, estimate=0.0)], ""),
    ],
)
def test_numbers_come_first(verdicts: list[Verdict], line: str) -> None:
    assert brief.one_line(verdicts) == line


def test_a_killed_engines_error_ends_in_its_last_words() -> None:
    log = [f"slot {number} is processing a task" for number in range(20)]
    message = "\n".join(["q4 ended with signal 9", *log, "  out of memory  ", ""])

    shown = explain.ending(message, 70)

    assert shown == "q4 ended with signal 9; its log ends: slot 19 is processing a task | out of memory"
    assert explain.ending("one line") == "one line"
