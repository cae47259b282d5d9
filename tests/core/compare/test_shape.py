"""Where a shift sits: flat or not, in proportion to the leads or not, on tokens seen before, on a missing token."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.compare.shift import FEW, Shape, shape_of
from pytest_llmparity.core.sample import Completion, TokenLogprob

LENGTH = 32


def answers(
    moved: dict[int, float], *, slope: float = 1.0, seen: float = 0.0, tokens: int = 20, text: str = "abcdefghij"
) -> tuple[Completion, Completion]:
    """Two answers whose leads move by ``moved`` at each place, are ``slope`` times as large, and by ``seen`` again."""
    rng = random.Random(3)
    ours: list[TokenLogprob] = []
    theirs: list[TokenLogprob] = []
    before: set[str] = set()
    for at, by in moved.items():
        token = text[rng.randrange(len(text))]
        lead = rng.uniform(0.5, 5.0)
        there = slope * lead + by + (seen if token in before else 0.0)
        before.add(token)
        for side, value in ((ours, lead), (theirs, there)):
            top = ((token.encode(), 0.0), (f"#{at}".encode(), -value))
            side.append(TokenLogprob(token=token.encode(), logprob=0.0, top=top))
    written = "".join(entry.token.decode() for entry in ours)
    first, second = (Completion(text=written, logprobs=tuple(side), prompt_tokens=tokens) for side in (ours, theirs))
    return first, second


def test_weights_shift_every_place_alike() -> None:
    shape = shape_of([answers(dict.fromkeys(range(LENGTH), 0.3), tokens=10 + index) for index in range(20)])

    assert shape is not None
    assert shape.quarters == pytest.approx((0.3, 0.3, 0.3, 0.3))
    assert (shape.first, shape.rest, shape.short, shape.long) == pytest.approx((0.3, 0.3, 0.3, 0.3))
    assert shape.positions == 20 * LENGTH
    assert shape.missing == ()


def test_what_concerns_the_beginning_is_seen_in_the_first_quarter() -> None:
    moved = {at: 0.4 if at == 0 else 0.2 if at < 8 else 0.01 for at in range(LENGTH)}
    shape = shape_of([answers(moved) for _ in range(10)])

    assert shape is not None
    assert shape.quarters == pytest.approx((0.2, 0.01, 0.01, 0.01))
    assert (shape.first, shape.rest) == pytest.approx((0.4, 0.01))


def test_another_temperature_is_a_slope() -> None:
    shape = shape_of([answers(dict.fromkeys(range(LENGTH), 0.0), slope=1.25) for _ in range(5)])

    assert shape is not None
    assert shape.slope == pytest.approx(1.25)


def test_a_penalty_sits_on_tokens_that_stood_before() -> None:
    shape = shape_of([answers(dict.fromkeys(range(LENGTH), 0.01), seen=-0.5) for _ in range(5)])

    assert shape is not None
    assert shape.seen == pytest.approx(0.49)
    assert shape.unseen == pytest.approx(0.01)


def test_a_cut_sits_on_long_prompts() -> None:
    shape = shape_of(
        answers(dict.fromkeys(range(LENGTH), 0.5 if index >= 12 else 0.0), tokens=10 + index) for index in range(24)
    )

    assert shape is not None
    assert (shape.short, shape.long) == pytest.approx((0.0, 0.5))


def test_a_token_that_is_never_listed_is_named() -> None:
    def pair() -> tuple[Completion, Completion]:
        entry = TokenLogprob(token=b"a", logprob=-0.1, top=((b"a", -0.1), (b"\xff", -0.5)))
        other = TokenLogprob(token=b"a", logprob=-0.1, top=((b"a", -0.1), (b"c", -2.5)))
        return Completion(text="a", logprobs=(entry,)), Completion(text="a", logprobs=(other,))

    enough, fewer = (shape_of([pair() for _ in range(n)]) for n in (FEW, FEW - 1))

    assert enough is not None
    assert fewer is not None
    assert (enough.missing, fewer.missing) == (("\\xff",), ())
    assert (enough.slope, enough.short) == (None, None), "no lead is known on the candidate, nor is a prompt's length"


def test_without_logprobs_there_is_no_shape_and_of_few_places_nothing_is_said() -> None:
    assert shape_of([]) is None
    assert shape_of([(Completion(text="a"), Completion(text="a"))]) is None
    few = shape_of([answers({0: 0.1, 1: 0.1})])
    assert few == Shape(positions=2, quarters=(None, None, None, None))


@given(st.floats(0.25, 4.0), st.lists(st.floats(-0.05, 0.05), min_size=60, max_size=60), st.floats(0.0, 3.0))
def test_a_few_places_far_off_do_not_move_the_slope(slope: float, noise: list[float], far: float) -> None:
    moved = {at: by + (far if at % 10 == 0 else 0.0) for at, by in enumerate(noise)}
    shape = shape_of([answers(moved, slope=slope)])

    assert shape is not None
    assert shape.slope == pytest.approx(slope, abs=0.15)
