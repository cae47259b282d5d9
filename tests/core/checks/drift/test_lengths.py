"""What the plan and the check of a design say where answers may have fewer tokens than the horizon."""

from __future__ import annotations

import math

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Sampling

TAGGED = PromptSet(
    name="s", cases=tuple(Case(id=f"c{i}", prompt="p", tags=("a" if i < 28 else "b",)) for i in range(56))
)


def test_short_answers_bound_the_drift_by_the_tokens_that_they_may_have() -> None:
    def power(*tokens: float) -> str:
        return check.text(margin=0.05).power(cases=2, groups=2, tokens=tokens)

    assert "fork 2 prompts of 8 tokens (max_tokens) bound the drift at 18.72 %" in power(8, 8)
    assert "fork 2 prompts of 4 to 12 tokens (max_tokens) bound the drift at 18.72 %" in power(4, 12)
    assert power(64, math.inf) == power()


def test_a_design_of_short_answers_that_can_never_pass_is_refused_with_the_number_that_could() -> None:
    asked = check.text(margin=0.05)

    assert asked.problem(cases=2, groups=2, engines=2, tokens=(8, 8)) == (
        "2 prompts of 8 tokens (max_tokens) can never pass a margin of 5 %, not even without a fork; it takes 8"
    )
    assert "7 prompts" in (asked.problem(cases=7, groups=7, engines=2, tokens=(8,) * 7) or "")
    assert asked.problem(cases=8, groups=8, engines=2, tokens=(8,) * 8) is None
    assert "of 1 token (max_tokens)" in (
        check.text(margin=0.01).problem(cases=8, groups=8, engines=2, tokens=(1,) * 8) or ""
    )
    assert check.text(margin=0.05, horizon=4).problem(cases=15, groups=15, engines=2, tokens=(4,) * 15) is None
    # One long answer is enough, however short the others are.
    assert asked.problem(cases=3, groups=3, engines=2, tokens=(28, 28, 4)) is None


def test_a_sequential_design_of_short_answers_takes_as_many_groups_as_their_tokens_do() -> None:
    asked = check.text(margin=0.05)
    whole, short = (
        asked.problem(cases=2, groups=2, engines=2, sequential=True, tokens=(tokens,) * 2) for tokens in (64, 8)
    )

    assert whole == asked.problem(cases=2, groups=2, engines=2, sequential=True)
    assert whole is not None
    assert "one of each with 32 tokens, can" in whole
    assert whole.endswith("it takes 4")
    assert short is not None
    assert "one of each with 8 tokens (max_tokens), can" in short
    assert int(short.rpartition(" ")[2]) == 10
    assert asked.problem(cases=10, groups=10, engines=2, sequential=True, tokens=(8,) * 10) is None


def test_a_margin_that_no_number_of_groups_can_pass_is_told_as_that() -> None:
    asked = check.text(margin=0.00002, by="tag")

    told = asked.problem(cases=9, groups=9, engines=2, sequential=True, tokens=(1,) * 9)
    of_tag = asked.tag_problem(TAGGED, sequential=True, tokens=(1,) * 56)

    assert told == (
        "9 groups of prompts, one of each with 1 token (max_tokens), can never pass a margin of 0.002 % in a "
        "sequential run, not even without a fork; it takes more than 100,000 groups"
    )
    assert of_tag is not None
    assert "it takes more than 100,000 groups of prompts at a margin of 0.002 % over 1 token (" in of_tag


def test_groups_of_short_answers_are_simulated_as_short_as_they_are() -> None:
    asked = check.text(margin=0.05)
    sizes = [8] * 32

    assert asked.weakness(sizes=sizes) == ""
    assert "with 32 groups 8 % drift is caught in" in asked.weakness(sizes=sizes, tokens=(2,) * 256)


def test_a_tag_of_short_answers_takes_more_prompts() -> None:
    asked = check.text(margin=0.05, by="tag")
    line = asked.tag_line(TAGGED, tokens=(2,) * 56)

    assert asked.tag_line(TAGGED, tokens=(64,) * 56) == asked.tag_line(TAGGED)
    assert asked.tag_problem(TAGGED) is None
    assert "it takes 30 groups of prompts at a margin of 5 % over 2 tokens" in (
        asked.tag_problem(TAGGED, tokens=(2,) * 56) or ""
    )
    assert "30 groups of prompts at a margin of 5 % over 2 tokens" in line


@pytest.mark.parametrize(
    ("case", "most"),
    [
        (Case(id="c", prompt="p"), 8),
        (Case(id="c", prompt="p", sampling={"max_tokens": 3}), 3),
        (Case(id="c", prompt="p", extra_body={"n_predict": 99}), math.inf),
        (Case(id="c", prompt="p", tool_results={"f": 1}, max_turns=4), 32),
    ],
)
def test_an_answer_has_as_many_tokens_as_its_request_lets_it_have(case: Case, most: float) -> None:
    assert PromptSet(name="s", cases=(case,)).most_tokens(Sampling(max_tokens=8)) == (most,)
