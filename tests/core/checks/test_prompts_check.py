from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.core.verdict import Outcome

if TYPE_CHECKING:
    from tests.core.conftest import Answer, Factory


def counted(make: Factory, *tokens: int | None) -> list[Completion]:
    return [make.completion("ok", prompt_tokens=n) for n in tokens]


def test_equal_counts_pass_exactly(make: Factory) -> None:
    answers = counted(make, 20, 30, 40)
    (verdict,) = check.prompts().judge(make.evidence(make.engine("a", answers), make.engine("b", answers), cases=3))

    assert verdict.outcome is Outcome.PASS
    assert (verdict.p_pass, verdict.p_fail) == (None, None)
    assert verdict.message == "PASS prompts, b against a: equal token counts on 3 prompts"


def test_another_template_fails_and_is_described(make: Factory) -> None:
    ours, theirs = counted(make, 20, 30, 40, 50), counted(make, 25, 35, 45, 55)
    (verdict,) = check.prompts().judge(make.evidence(make.engine("a", ours), make.engine("b", theirs), cases=4))

    assert verdict.outcome is Outcome.FAIL
    assert (verdict.estimate, verdict.margin, verdict.p_fail) == (4.0, 0.0, None)
    assert verdict.message == (
        "FAIL prompts, b against a: b counts 5 tokens more than a on every prompt: another chat template, BOS token or "
        "system prompt"
    )
    assert verdict.details == ("c0: a 20, b 25", "c1: a 30, b 35", "c2: a 40, b 45")


def test_a_prompt_refused_as_too_long_by_one_engine_fails(make: Factory) -> None:
    ours = counted(make, 20, 30)
    theirs: list[Answer] = [ours[0], make.failure("ContextOverflow", "1294 tokens do not fit into 1024")]
    for engines, name, other in (
        ((make.engine("a", ours), make.engine("b", theirs)), "b", "a"),
        ((make.engine("b", theirs), make.engine("a", ours)), "b", "a"),
    ):
        (verdict,) = check.prompts().judge(make.evidence(*engines, cases=2))
        assert verdict.outcome is Outcome.FAIL
        assert f"{name} refused 1 prompt as longer than its context (c1), {other} answered them" in verdict.message
        assert (verdict.estimate, [each.case for each in verdict.differing]) == (1.0, ["c1"])


def test_an_engine_that_counts_nothing_leaves_it_open(make: Factory) -> None:
    ours, theirs = counted(make, 20, 30), counted(make, None, None)
    (verdict,) = check.prompts().judge(make.evidence(make.engine("a", ours), make.engine("b", theirs), cases=2))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason == "b did not say how many tokens each prompt has"

    (verdict,) = check.prompts().judge(make.evidence(make.engine("a", theirs), make.engine("b", theirs), cases=2))
    assert verdict.reason.startswith("a and b did not say")


def test_a_count_missing_on_one_prompt_is_no_pass_but_a_difference_is_still_a_failure(make: Factory) -> None:
    ours = counted(make, 20, 30, 40)
    for tokens, outcome in (((20, None, 40), Outcome.INCONCLUSIVE), ((21, None, 41), Outcome.FAIL)):
        theirs = counted(make, *tokens)
        (verdict,) = check.prompts().judge(make.evidence(make.engine("a", ours), make.engine("b", theirs), cases=3))
        assert verdict.outcome is outcome
        assert "b did not count 1 of 3 prompts (c1)" in (verdict.reason, *verdict.details)


def test_no_answers_are_an_error_and_a_hard_stop_leaves_it_open(make: Factory) -> None:
    ours = counted(make, 20, 30)
    bad = make.engine("b", [make.failure()] * 2)
    (verdict,) = check.prompts().judge(make.evidence(make.engine("a", ours), bad, cases=2))
    assert verdict.outcome is Outcome.ERROR

    stopped = make.evidence(
        make.engine("a", counted(make, *range(20, 49))),
        make.engine("b", counted(make, *range(20, 49))),
        cases=30,
        incomplete="out of time",
    )
    (verdict,) = check.prompts().judge(stopped)
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, "out of time")


def test_an_exact_failure_survives_a_hard_stop(make: Factory) -> None:
    ours, theirs = counted(make, *range(20, 49)), counted(make, *range(25, 54))
    stopped = make.evidence(make.engine("a", ours), make.engine("b", theirs), cases=30, incomplete="out of time")

    assert check.prompts().judge(stopped)[0].outcome is Outcome.FAIL


@pytest.mark.parametrize("n", [0, -1])
def test_a_count_of_nothing_is_no_count(make: Factory, n: int) -> None:
    for ours, theirs, words in (
        (counted(make, n, n), counted(make, n, n), "a and b did not say how many tokens each prompt has"),
        (counted(make, 20, 30), counted(make, n, n), "b did not say how many tokens each prompt has"),
        (counted(make, 20, 30), counted(make, 20, n), "b did not count 1 of 2 prompts (c1)"),
    ):
        (verdict,) = check.prompts().judge(make.evidence(make.engine("a", ours), make.engine("b", theirs), cases=2))
        assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, words)


def test_a_prompt_nobody_counted_is_no_pass_however_many_others_agree(make: Factory) -> None:
    ours = counted(make, *range(20, 60))
    theirs: list[Answer] = [make.failure(), *ours[1:]]
    (verdict,) = check.prompts().judge(make.evidence(make.engine("a", ours), make.engine("b", theirs), cases=40))

    words = "1 prompt of 40 without two answers; first: b on c0: Timeout: no first byte within 60 s"
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, words)


def test_prompts_that_cannot_be_asked_are_named_and_few_of_them_change_nothing(make: Factory) -> None:
    answers = counted(make, *range(20, 60))
    for left_out, outcome in ((2, Outcome.PASS), (3, Outcome.INCONCLUSIVE)):
        theirs = make.engine(
            "b",
            [*[None] * left_out, *answers[left_out:]],
            left_out={f"c{index}": "b does not take tools (probed)" for index in range(left_out)},
        )
        (verdict,) = check.prompts().judge(make.evidence(make.engine("a", answers), theirs, cases=40))
        assert verdict.outcome is outcome
        words = "it rests on 37 of 40 prompts: 3 prompts left out: b does not take tools (probed)"
        assert verdict.reason == (words if left_out == 3 else "equal token counts on 38 prompts")


def test_the_cases_that_differ_are_listed(make: Factory) -> None:
    ours, theirs = counted(make, 20, 30, 40), counted(make, 20, 31, 40)
    (verdict,) = check.prompts().judge(make.evidence(make.engine("a", ours), make.engine("b", theirs), cases=3))

    assert [(each.case, each.what) for each in verdict.differing] == [("c1", "30 and 31 prompt tokens")]


def test_pins_that_do_not_hold_come_first_and_one_engine_alone_is_skipped(make: Factory) -> None:
    pinned = make.engine("b", incomparable="pin digest: another model")
    (verdict,) = check.prompts().judge(make.evidence(make.engine("a", counted(make, 20)), pinned, cases=1))
    assert verdict.outcome is Outcome.INCOMPARABLE
    assert check.prompts().judge(make.evidence(make.engine("a"), cases=1))[0].outcome is Outcome.SKIPPED


def test_any_number_of_prompts_will_do() -> None:
    asked = check.prompts()

    assert asked.problem(cases=1, groups=1, engines=2) is None
    assert asked.power(cases=3, groups=3) == "prompts(): exact, token counts of 3 prompts"
    assert (asked.pairwise, asked.kind, str(asked)) == (True, "prompts", "prompts()")


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        ("b refused the key\nand much more", "and b refused the key"),
        ("b: it is not in llmparity.lock", "and b: it is not in llmparity.lock"),
        ("3 of 9 prompts were not asked", "and b: 3 of 9 prompts were not asked"),
        ("9 of 9 prompts were not asked", "and b likewise"),
    ],
)
def test_what_is_wrong_with_the_other_engine_is_told_too_and_names_it(make: Factory, theirs: str, told: str) -> None:
    ours = make.engine("a", error="9 of 9 prompts were not asked")
    (verdict,) = check.prompts().judge(make.evidence(ours, make.engine("b", error=theirs), cases=9))

    assert (verdict.outcome, verdict.blocked_by, verdict.details) == (Outcome.ERROR, "a", (told,))
