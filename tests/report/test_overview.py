"""A run in one sentence, and what changed from one run to another."""

from __future__ import annotations

import dataclasses

import pytest

from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.report import overview
from tests.report.html.made import verdict

PASS, FAIL, OPEN = (verdict("text", "dev", outcome) for outcome in (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE))
SKIPPED = verdict("latency.e2e_p50", "dev", Outcome.SKIPPED, reason="nothing was timed")


@pytest.mark.parametrize(
    ("verdicts", "begins"),
    [
        ([PASS, PASS], "2 verdicts passed."),
        ([PASS, SKIPPED], "1 verdict passed, 1 was skipped."),
        ([SKIPPED], "Nothing was judged: every check was skipped. nothing was timed"),
        ([PASS, FAIL], "1 of 2 verdicts is FAIL: text, dev against prod: 10 % of tokens fork, at least 8 %"),
        ([FAIL, FAIL, OPEN], "2 of 3 verdicts are FAIL: text, dev against prod: 10 % of tokens fork, at least 8 %"),
    ],
)
def test_a_run_in_one_sentence(verdicts: list[Verdict], begins: str) -> None:
    assert overview.sentence(verdicts).startswith(begins)


def test_runs_are_compared_question_by_question() -> None:
    before = [
        dataclasses.replace(v, check=name)
        for name, v in zip("abcdef", [PASS, FAIL, PASS, OPEN, FAIL, PASS], strict=True)
    ]
    after = [
        dataclasses.replace(v, check=name)
        for name, v in zip("abcdeg", [FAIL, PASS, PASS, PASS, FAIL, PASS], strict=True)
    ]

    changes = overview.changes(before, after)

    assert [pair.after.check for pair in changes.worse] == ["a"]
    assert [pair.after.check for pair in changes.better] == ["b"]
    assert [pair.after.check for pair in changes.undecided] == ["d"]
    assert ([v.check for v in changes.gone], [v.check for v in changes.new], changes.same) == (["f"], ["g"], 2)


def test_runs_held_against_golden_answers_and_against_their_engine_are_one_question() -> None:
    live = [dataclasses.replace(PASS, baseline="prod"), dataclasses.replace(OPEN, baseline="prod")]
    golden = [
        dataclasses.replace(v, baseline="golden-prod", outcome=Outcome.FAIL, check=f"{v.check} of another margin")
        for v in live
    ]

    changes = overview.changes(live[:1], golden[:1], origins=({}, {"golden-prod": "prod"}))
    apart = overview.changes(live[:1], golden[:1], origins=({}, {"golden-prod": "other"}))

    assert [pair.after.baseline for pair in changes.worse] == ["golden-prod"]
    assert (changes.gone, changes.new) == ([], [])
    assert (len(apart.gone), len(apart.new), apart.worse) == (1, 1, [])
