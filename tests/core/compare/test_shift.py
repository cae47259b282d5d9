"""The shift of one pair of answers, and whether logprobs are fit to measure it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.compare.shift import Logprobs, Shift, find_shift
from pytest_llmparity.core.sample import Completion, TokenLogprob

Top = list[tuple[str, float]]


def token(chosen: str, *top: tuple[str, float], logprob: float | None = None) -> TokenLogprob:
    """A token and its alternatives, best first."""
    listed = dict(top)
    return TokenLogprob(
        token=chosen.encode(),
        logprob=listed.get(chosen, logprob),
        top=tuple((name.encode(), value) for name, value in top),
    )


def answer(*tokens: TokenLogprob, text: str | None = None, reasoning: str = "") -> Completion:
    """An answer of these tokens."""
    spelled = b"".join(entry.token for entry in tokens).decode()
    return Completion(text=spelled if text is None else text, reasoning=reasoning, logprobs=tokens)


def test_it_is_the_median_of_how_far_the_lead_moved() -> None:
    ours = answer(
        token("a", ("a", -0.1), ("b", -2.1)),  # a lead of 2
        token("c", ("c", -0.5), ("d", -1.0)),  # of 0.5
        token("e", ("e", -0.2), ("f", -3.2)),  # of 3
    )
    theirs = answer(
        token("a", ("a", -0.2), ("b", -2.3)),  # 2.1: moved by 0.1
        token("c", ("c", -0.4), ("d", -1.2)),  # 0.8: moved by 0.3
        token("e", ("e", -0.1), ("f", -3.6)),  # 3.5: moved by 0.5
    )

    shift = find_shift(ours, theirs)

    assert shift is not None
    assert shift.most == shift.least == pytest.approx(0.3)
    assert (shift.positions, shift.unlisted) == (3, 0)


def test_the_fork_counts_and_nothing_behind_it() -> None:
    ours = answer(token("a", ("a", -0.1), ("b", -0.2)), token("x", ("x", -1.0), ("y", -2.0)))
    theirs = answer(token("b", ("b", -0.1), ("a", -0.2)), token("x", ("x", -1.0), ("y", -9.0)))

    shift = find_shift(ours, theirs)

    assert shift is not None
    assert shift.most == pytest.approx(0.2)
    assert shift.positions == 1


@pytest.mark.parametrize(
    ("theirs", "least"),
    [
        pytest.param([("a", -0.1), ("c", -5.1)], 3.0, id="the second no better than the last: a lead of 5 or more"),
        pytest.param([("b", -0.1), ("c", -5.1)], 7.0, id="the best no better than the last: a lead of -5 or less"),
        pytest.param([("c", -0.1), ("d", -5.1)], 0.0, id="neither: nothing is known of their lead"),
        pytest.param([("a", -0.1), ("c", -0.6)], 0.0, id="the last is so good that the lead may be the same"),
    ],
)
def test_what_is_not_listed_is_infinitely_far_for_pass_and_no_further_than_the_last_for_fail(
    theirs: Top, least: float
) -> None:
    ours = answer(token("a", ("a", -0.1), ("b", -2.1)))

    shift = find_shift(ours, answer(token(theirs[0][0], *theirs)))

    assert shift is not None
    assert shift.least == pytest.approx(least)
    assert (shift.most, shift.unlisted) == (math.inf, 1)


def test_the_chosen_token_is_an_alternative_too() -> None:
    ours = answer(token("a", ("a", -0.1), ("b", -2.1)))
    theirs = answer(TokenLogprob(token=b"b", logprob=-0.6, top=((b"a", -0.5), (b"c", -1.0))))

    shift = find_shift(ours, theirs)

    assert shift is not None
    assert shift.most == pytest.approx(1.9)  # a lead of 0.1 instead of 2


def test_the_chosen_token_says_nothing_of_those_that_are_not_listed() -> None:
    ours = answer(token("a", ("a", -0.1), ("b", -2.1)))
    theirs = answer(TokenLogprob(token=b"x", logprob=-9.0, top=((b"a", -0.1), (b"c", -1.1))))

    shift = find_shift(ours, theirs)

    assert shift is not None
    assert shift.least == 0.0  # "b" is at most as good as "c", a lead of 1 or more; 8.9 is that over "x"


def test_of_tokens_spelled_alike_the_best_one_counts_on_both_sides() -> None:
    torn = "\ufffd"  # what servers without bytes show for any piece of a character
    alike = TokenLogprob(
        token=torn.encode(), logprob=-0.1, top=((torn.encode(), -0.1), (torn.encode(), -0.4), (b"b", -2.1))
    )

    assert find_shift(answer(alike), answer(alike)) == Shift(most=0.0, least=0.0, positions=1, unlisted=0)
    only = TokenLogprob(token=torn.encode(), logprob=-0.1, top=((torn.encode(), -0.1), (torn.encode(), -0.4)))
    assert find_shift(answer(only), answer(only)) is None


def test_behind_other_reasoning_there_is_nothing_to_compare() -> None:
    spoken, thought = token("a", ("a", -0.1), ("b", -2.1)), token("h", ("h", -0.1), ("?", -2.0))

    def thinking(reasoning: str, *tokens: TokenLogprob) -> Completion:
        return answer(*tokens, text="a", reasoning=reasoning)

    assert find_shift(thinking("h", spoken), thinking("hm", spoken)) is None
    assert find_shift(thinking("h", spoken), thinking("", spoken)) is None
    assert find_shift(thinking("h", spoken), thinking("h", thought, spoken)) is None  # the other lists what it thought
    assert find_shift(thinking("h", spoken), thinking("h\n", spoken)) is not None
    both = find_shift(thinking("h", thought, spoken), thinking("h", thought, spoken))
    assert both is not None
    assert both.positions == 2


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([], [token("a", ("a", -0.1), ("b", -0.2))]),
        ([token("a", ("a", -0.1), ("b", -0.2))], []),
        ([token("a", ("a", -0.1))], [token("a", ("a", -0.1), ("b", -0.2))]),  # no second
        ([token("a", ("a", -0.1), ("b", -math.inf))], [token("a", ("a", -0.1), ("b", -0.2))]),  # only one allowed
        ([token("a", ("a", -0.1), ("b", -0.2))], [TokenLogprob(token=b"a", logprob=-0.1)]),  # no alternatives
    ],
)
def test_without_two_alternatives_there_is_nothing_to_compare(
    ours: list[TokenLogprob], theirs: list[TokenLogprob]
) -> None:
    assert find_shift(answer(*ours), answer(*theirs)) is None


def test_what_they_rule_out_is_infinitely_far() -> None:
    ours = answer(token("a", ("a", -0.1), ("b", -0.2)))
    theirs = answer(token("a", ("a", -0.1), ("b", -math.inf)))

    assert find_shift(ours, theirs) == Shift(most=math.inf, least=0.0, positions=1, unlisted=1)


tops = st.lists(st.floats(-8.0, -0.01), min_size=2, max_size=5, unique=True).map(
    lambda logprobs: token("a", *zip("abcde", sorted(logprobs, reverse=True), strict=False))
)


@given(st.lists(tops, min_size=1, max_size=8), st.floats(-3.0, 3.0))
def test_another_normaliser_does_not_shift_and_equal_answers_have_none(
    tokens: list[TokenLogprob], offset: float
) -> None:
    moved = [
        TokenLogprob(
            token=entry.token,
            logprob=(entry.logprob or 0.0) + offset,
            top=tuple((name, logprob + offset) for name, logprob in entry.top),
        )
        for entry in tokens
    ]

    shift = find_shift(answer(*tokens), answer(*moved))

    assert shift is not None
    assert shift.most == shift.least == pytest.approx(0.0, abs=1e-9)


def good(text: str) -> Completion:
    """An answer whose logprobs are as they should be."""
    return answer(*(token(letter, (letter, -0.1), ("?", -2.0)) for letter in text))


def test_logprobs_that_are_as_they_should_be_are_fit() -> None:
    assert Logprobs.of([good("well"), good("said"), Completion(text="none at all")]).trouble == ""


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        pytest.param(answer(token("x", ("x", -0.1), ("y", -1.0)), text="well"), "name other tokens", id="other tokens"),
        pytest.param(
            answer(*(token("w", ("v", -0.1), ("w", -1.0)) for _ in range(4))),
            "do not have the chosen token as the best one in 4 of 8",
            id="not the best",
        ),
        pytest.param(
            answer(*(token("w", ("v", -0.1), ("u", -1.0)) for _ in range(4))),
            "do not have the chosen token as the best one",
            id="unknown",
        ),
        pytest.param(answer(*(token("w", ("w", 0.0)) for _ in range(4))), "fewer than two alternatives", id="alone"),
    ],
)
def test_others_are_not_and_say_why(wrong: Completion, why: str) -> None:
    assert why in Logprobs.of([good("well"), wrong]).trouble


def test_a_token_without_letters_is_no_filter() -> None:
    marked = answer(TokenLogprob(token=b"", logprob=0.0, top=((b"", 0.0),)), token("a", ("a", -0.1), ("b", -2.0)))

    assert Logprobs.of([marked]).trouble == ""


def test_reasoning_that_is_not_in_the_text_is_no_other_token() -> None:
    thinking = answer(token("h", ("h", -0.1), ("?", -2.0)), text="said", reasoning="h")

    assert Logprobs.of([thinking]).trouble == ""
