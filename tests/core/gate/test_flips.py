from __future__ import annotations

from typing import Any

import pytest

from pytest_llmparity.core.checks.answers import right_only_on
from pytest_llmparity.core.checks.schema import only_on
from pytest_llmparity.core.gate.flips import Expected, flips
from pytest_llmparity.core.identity.record import FailureRecord
from pytest_llmparity.core.verdict import Difference, LeftOut, Outcome, Verdict


def verdict(kind: str, engine: str, baseline: str | None, *cases: Difference | str, **more: Any) -> Verdict:
    listed = tuple(case if isinstance(case, Difference) else Difference(case=case, what=kind) for case in cases)
    values = {"test": "a.py::test_chat", "check": kind, "outcome": Outcome.FAIL, "n": 9, **more}
    return Verdict(kind=kind, engine=engine, baseline=baseline, differing=listed, **values)


def fork(case: str, token: float, grade: str | None = None, **more: Any) -> Difference:
    return Difference(case=case, what="text", token=token, char=int(token), grade=grade, **more)


def test_cases_turn_where_a_check_judges_each_engine() -> None:
    turned = flips(
        [
            verdict("schema.rate", "old", None, "was-wrong", "both"),
            verdict("schema.rate", "new", None, "is-wrong", "both"),
            verdict("text", "new", "old", fork("is-wrong", 4), fork("right", 2), fork("both", 1)),
        ],
        baseline="old",
        candidate="new",
    )

    assert [(flip.case, flip.token) for flip in turned.regressions] == [("is-wrong", 4)]
    assert [flip.case for flip in turned.improvements] == ["was-wrong"]
    assert (turned.changed, turned.changed_right, turned.wrong_on_both) == ((), 1, 1)


@pytest.mark.parametrize("kind", ["answers.gap", "answers.flips"])
def test_answers_that_are_right_on_one_engine_say_which(kind: str) -> None:
    pair = [
        Difference(case="a", what=f"{right_only_on('new')}: 41, expected 42"),
        Difference(case="b", what=f"{right_only_on('old')}: 41, expected 42"),
    ]

    turned = flips([verdict(kind, "new", "old", *pair)], baseline="old", candidate="new")

    assert [flip.case for flip in turned.regressions] == ["b"]
    assert [flip.case for flip in turned.improvements] == ["a"]
    assert not turned.changed


def test_a_gap_alone_says_which_engine_is_right() -> None:
    gap = [Difference(case="a", what=only_on("new")), Difference(case="b", what=only_on("old"))]

    turned = flips([verdict("schema.gap", "new", "old", *gap)], baseline="old", candidate="new")

    assert [flip.case for flip in turned.regressions] == ["b"]
    assert [flip.case for flip in turned.improvements] == ["a"]


def test_what_nobody_judges_is_changed_and_the_gravest_comes_first() -> None:
    forks = [
        fork("tie", 1, "near-tie"),
        fork("beyond", 1, "outside top-k", counted=False),
        fork("late", 9, "outside top-k"),
        fork("early", 2, "outside top-k"),
        fork("unknown", 0),
    ]
    mild = verdict("similarity", "new", "old", "worded", outcome=Outcome.PASS)

    turned = flips([mild, verdict("text", "new", "old", *forks)], baseline="old", candidate="new")

    assert [flip.case for flip in turned.changed] == ["early", "late", "unknown", "tie", "worded", "beyond"]
    assert not turned.regressions


def test_a_case_that_was_never_asked_is_no_regression() -> None:
    unasked = (LeftOut(engine="old", reason="no answer", cases=("new-case",)),)

    turned = flips(
        [
            verdict("schema.rate", "old", None, left_out=unasked),
            verdict("schema.rate", "new", None, "new-case", "is-wrong"),
        ],
        baseline="old",
        candidate="new",
    )

    assert [flip.case for flip in turned.regressions] == ["is-wrong"]


def test_prompts_tags_and_other_engines_are_no_answers_that_changed() -> None:
    turned = flips(
        [
            verdict("prompts", "new", "old", "longer"),
            verdict("text[poem]", "new", "old", "tagged", tag="poem"),
            verdict("text", "third", "old", "other"),
        ],
        baseline="old",
        candidate="new",
    )

    assert (turned.regressions, turned.improvements, turned.changed) == ((), (), ())


def test_an_answer_that_never_came_is_a_regression_where_the_baseline_gave_one() -> None:
    def failed(engine: str, case: str) -> FailureRecord:
        return FailureRecord(engine=engine, case=case, phase="main", kind="Timeout", message="")

    failures = [failed("new", "lost"), failed("new", "never"), failed("old", "never")]

    turned = flips([], failures, baseline="old", candidate="new")

    assert [(flip.case, flip.what) for flip in turned.regressions] == [("lost", "no answer (Timeout)")]


def test_what_prompts_expect_says_which_answer_is_right() -> None:
    expected = [
        Expected("a.py::test_chat", "worse", "'7060'", before=True, after=False),
        Expected("a.py::test_chat", "better", "'7060'", before=False, after=True),
        Expected("a.py::test_chat", "never", "'7060'", before=False, after=False),
        Expected("a.py::test_chat", "always", "'7060'", before=True, after=True),
    ]
    forks = [fork("worse", 3), fork("never", 1), fork("always", 1), fork("unjudged", 1)]

    turned = flips([verdict("text", "new", "old", *forks)], (), expected, baseline="old", candidate="new")

    assert [(flip.case, flip.what, flip.token) for flip in turned.regressions] == [("worse", "expected '7060'", 3)]
    assert [flip.case for flip in turned.improvements] == ["better"]
    assert [flip.case for flip in turned.changed] == ["unjudged"]
    assert (turned.changed_right, turned.wrong_on_both) == (1, 1)
