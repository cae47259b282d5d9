"""The sign test of a median: against scipy, by hand, its error rates, and the same question as prompts come."""

from __future__ import annotations

import math
from random import Random

import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.stats.medians import groups_needed, least_groups, median, median_sequential
from pytest_llmparity.core.stats.sequential import share

DRAWS = 2000
SLACK = 3 * math.sqrt(0.05 * 0.95 / DRAWS)

values = st.lists(st.floats(0.0, 2.0), min_size=1, max_size=40)


@given(values, st.floats(0.001, 1.5), st.sampled_from([0.01, 0.05, 0.2]))
def test_p_values_are_those_of_scipy_and_bounds_invert_them(drifts: list[float], margin: float, alpha: float) -> None:
    result = median(drifts, drifts, margin=margin, alpha=alpha)

    # A value equal to the margin is evidence for neither side; scipy counts it for one.
    below, above = sum(value < margin for value in drifts), sum(value > margin for value in drifts)
    oracle = scipy.stats.binomtest(below, len(drifts), 0.5, alternative="greater").pvalue
    assert result.p_pass == pytest.approx(oracle, rel=1e-9)
    oracle = scipy.stats.binomtest(above, len(drifts), 0.5, alternative="greater").pvalue
    assert result.p_fail == pytest.approx(oracle, rel=1e-9)
    assert (result.upper < margin) is (result.p_pass < alpha)
    assert (result.lower > margin) is (result.p_fail < alpha)
    assert result.lower <= result.estimate <= result.upper


def test_bounds_are_the_order_statistics_of_scipys_interval() -> None:
    drifts = [Random(3).lognormvariate(-3, 1) for _ in range(24)]

    result = median(drifts, drifts, margin=0.05)

    at_most, at_least = (
        scipy.stats.quantile_test(drifts, q=0.05, p=0.5, alternative=side).confidence_interval(0.95)
        for side in ("less", "greater")
    )
    assert (result.lower, result.upper) == (at_least.low, at_most.high)  # type: ignore[attr-defined]


def test_five_groups_settle_it_and_four_do_not() -> None:
    assert least_groups(0.05) == 5
    assert least_groups(0.05, sequential_run=True) == 5

    five, four = ([0.01] * n for n in (5, 4))
    assert median(five, five, margin=0.06).upper == 0.01
    assert median(four, four, margin=0.06).upper == math.inf
    assert median(four, four, margin=0.06).lower == 0.0
    assert median_sequential(five, five, margin=0.06).passed
    assert not median_sequential(four, four, margin=0.06).passed


def test_what_is_known_to_lie_between_two_numbers_counts_against_either_side() -> None:
    most, least = [math.inf] * 6, [0.2] * 6

    result = median(most, least, margin=0.1)
    assert (result.estimate, result.lower, result.upper) == (0.2, 0.2, math.inf)
    assert result.p_fail < 0.05 < result.p_pass

    result = median(most, [0.0] * 6, margin=0.1)
    assert result.p_fail == result.p_pass == 1.0


def test_how_many_groups_would_settle_it() -> None:
    of_sixteen = [0.01] * 11 + [0.09] * 5

    needed = groups_needed(of_sixteen, of_sixteen, margin=0.06, alpha=0.05)

    assert needed is not None
    assert needed > 16
    grown = [0.01] * round(needed * 11 / 16) + [0.09] * round(needed * 5 / 16)
    assert median(grown, grown, margin=0.06).p_pass < 0.05
    assert groups_needed([0.01, 0.09], [0.01, 0.09], margin=0.06, alpha=0.05) is None


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30), st.floats(0.05, 0.9))
def test_a_sequential_bound_lies_beyond_the_margin_when_that_side_is_shown(drifts: list[float], margin: float) -> None:
    result = median_sequential(drifts, drifts, margin=margin)

    assert (result.upper < margin) is (result.p_pass <= 0.05)
    assert (result.lower > margin) is (result.p_fail <= 0.05)
    assert result.passed + result.failed == (min(result.p_pass, result.p_fail) <= 0.05)
    whole = share([drift < margin for drift in drifts], at_least=0.5, alpha=0.05)
    assert result.p_pass == pytest.approx(whole.p_pass)


@pytest.mark.parametrize("first", ["far", "near"])
def test_what_was_shown_first_stands_whatever_comes_later(first: str) -> None:
    far, near = [0.09], [0.01]
    drifts = 8 * far + 40 * near if first == "far" else 8 * near + 40 * far

    result = median_sequential(drifts, drifts, margin=0.06)

    assert max(result.p_pass, result.p_fail) <= 0.05
    assert (result.passed, result.failed) == (first == "near", first == "far")


@pytest.mark.parametrize(
    ("most", "least", "margin", "alpha"),
    [([], [], 0.1, 0.05), ([0.1], [], 0.1, 0.05), ([0.1], [0.1], 0.0, 0.05), ([0.1], [0.1], 0.1, 0.5)],
)
def test_what_cannot_be_asked(most: list[float], least: list[float], margin: float, alpha: float) -> None:
    for judge in (median, median_sequential):
        with pytest.raises(ValueError, match=r"median|alpha"):
            judge(most, least, margin=margin, alpha=alpha)


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 16, 24])
def test_neither_side_is_wrong_more_often_than_one_time_in_twenty(n: int) -> None:
    random = Random(n)
    passed = failed = 0
    for _ in range(DRAWS):  # a skewed quantity whose median is the margin
        drifts = [0.06 * random.lognormvariate(0, 1) for _ in range(n)]
        result = median(drifts, drifts, margin=0.06)
        passed += result.upper < 0.06
        failed += result.lower > 0.06

    assert passed / DRAWS <= 0.05 + SLACK
    assert failed / DRAWS <= 0.05 + SLACK


@pytest.mark.slow
def test_looking_after_every_group_is_wrong_no_more_often() -> None:
    random = Random(11)
    wrong = 0
    for _ in range(400):
        drifts = [0.06 * random.lognormvariate(0, 1) for _ in range(60)]
        result = median_sequential(drifts, drifts, margin=0.06)
        wrong += result.passed or result.failed

    assert wrong / 400 <= 0.10 + 3 * math.sqrt(0.1 * 0.9 / 400)  # either side has 5 %
