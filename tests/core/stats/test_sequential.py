"""Sequential tests: wealth by hand, its invariants, the error rates under optional stopping, and how soon it stops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pytest_llmparity.core.stats.bounds import PRECISION
from pytest_llmparity.core.stats.sequential import (
    SequentialResult,
    bold,
    even,
    gap,
    least_units,
    log_wealth,
    ratio,
    share,
)

Floats = NDArray[np.float64]
ENOUGH = math.log(20)
PATHS = 1000
SLACK = 3 * math.sqrt(0.05 * 0.95 / PATHS)
"""Three standard errors of a share of .05 in 1,000 paths: .021."""
ANSWERS = st.lists(st.booleans(), min_size=1, max_size=40)
MARGINS = st.sampled_from([0.02, 0.05, 0.1, 0.3])


def first(enough: NDArray[np.bool_]) -> Floats:
    """After how many units each path is first where it has enough; infinite for one that never is."""
    return np.where(enough.any(axis=-1), enough.argmax(axis=-1), math.inf)


def ever(gains: Floats, parts: Floats, batch: int = 5) -> Floats:
    """After how many units each path first has 20 times its wealth; few at once, which a processor's cache holds."""
    slices = (gains[begin : begin + batch] for begin in range(0, len(gains), batch))
    return np.concatenate([first(log_wealth(some, parts) >= ENOUGH) for some in slices])


def against(d: Floats, e: Floats, margin: float, most: float) -> tuple[Floats, Floats]:
    """First times of both sides."""
    return ever((margin * e - d) / (1 - margin), bold()), ever((d / margin - e) / most, even())


def broken_or_not(broken: NDArray[np.bool_], margin: float) -> tuple[Floats, Floats]:
    """First times of both sides where units are answers: wealth forgets their order, so one path for each count does.

    Path k begins with k broken answers, and from there on shows the wealth after n answers of which k were broken.
    """
    units, counts = broken.shape[1], np.cumsum(broken, axis=1)
    paths = np.arange(units) < np.arange(counts.max() + 1)[:, None]
    wealth = [
        log_wealth(np.where(paths, of_broken, of_kept), parts)[:, 1:][counts, np.arange(units)]
        for of_broken, of_kept, parts in ((-1.0, margin / (1 - margin), bold()), (1 / margin - 1, -1.0, even()))
    ]
    low, high = (first(of_one_side >= ENOUGH) + 1 for of_one_side in wealth)
    return low, high


def draws(paths: int, n: int, seed: int) -> Floats:
    return np.random.default_rng(seed).random((paths, n))


def test_wealth_computed_by_hand() -> None:
    # Against "at least .1": a kept case multiplies by 1 + part/9, a broken one by 1 - part.
    result = share([True, False], at_least=0.9, alpha=0.05)
    first, second = np.mean(1 + bold() / 9), np.mean((1 + bold() / 9) * (1 - bold()))

    assert np.exp(log_wealth(np.array([1 / 9, -1.0]), bold())) == pytest.approx([1, first, second])
    assert result.p_pass == pytest.approx(1 / first), "the largest wealth so far counts, not the last"
    # Against "at most .1": a broken case multiplies by 1 + 9 parts, a kept one by 1 - part.
    assert 1 / result.p_fail == pytest.approx(np.mean((1 - even()) * (1 + 9 * even())))
    assert (result.estimate, result.n, result.passed, result.failed) == (0.5, 2, False, False)


def test_no_unit_says_nothing() -> None:
    for result in (
        share([], at_least=0.9, alpha=0.05),
        gap([], margin=0.05, alpha=0.05),
        ratio([], [], margin=0.05, most=32, alpha=0.05),
        ratio([0, 0], [0, 0], margin=0.05, most=32, alpha=0.05),
    ):
        assert (result.lower, result.upper, result.p_pass, result.p_fail) == (0, 1, 1, 1)
        assert (result.passed, result.failed, result.needed) == (False, False, None)


@given(ANSWERS, MARGINS, st.randoms(use_true_random=False))
def test_wealth_is_positive_looks_only_back_and_forgets_the_order(
    kept: list[bool], margin: float, random: Random
) -> None:
    d = np.array([float(not right) for right in kept])
    for gains, parts in (((margin - d) / (1 - margin), bold()), (d / margin - 1, even())):
        wealth = log_wealth(gains, parts)
        mixed = list(gains)
        random.shuffle(mixed)

        assert np.all(np.multiply.outer(gains, parts) > -1)
        assert np.all(np.isfinite(wealth))
        for n in range(len(d) + 1):
            assert log_wealth(gains[:n], parts) == pytest.approx(wealth[: n + 1], abs=1e-9)
        assert log_wealth(np.array(mixed), parts)[-1] == pytest.approx(wealth[-1], abs=1e-9)


@given(ANSWERS, MARGINS)
def test_bounds_lie_beyond_the_margin_where_p_values_do(kept: list[bool], margin: float) -> None:
    result = share(kept, at_least=1 - margin, alpha=0.05)

    assert (result.lower >= 1 - margin - 1e-9) == (result.p_pass <= 0.05 + 1e-12)
    assert (result.upper <= 1 - margin + 1e-9) == (result.p_fail <= 0.05 + 1e-12)
    assert 0 <= result.lower <= result.upper <= 1
    assert not (result.passed and result.failed)
    assert result.passed <= (result.p_pass <= 0.05 + 1e-12)
    assert result.failed <= (result.p_fail <= 0.05 + 1e-12)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)  # each asks about seven further limits
@given(ANSWERS, st.sampled_from([0.2, 0.5]))
def test_what_is_not_rejected_is_an_interval(kept: list[bool], at_least: float) -> None:
    result = share(kept, at_least=at_least, alpha=0.05)
    for other in (0.03, 0.1, 0.3, 0.45, 0.6, 0.8, 0.97):
        there = share(kept, at_least=other, alpha=0.05)

        assert (there.p_pass <= 0.05) == (other < result.lower) or abs(other - result.lower) < 2 * PRECISION
        assert (there.p_fail <= 0.05) == (other > result.upper) or abs(other - result.upper) < 2 * PRECISION


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=40), MARGINS)
def test_a_gap_in_one_direction_is_a_ratio_in_disguise(differences: list[int], margin: float) -> None:
    result = gap(differences, margin=margin, alpha=0.05, side="worse")
    halves = [(1 + x) / 2 for x in differences]
    same = ratio(halves, [1.0] * len(halves), margin=(1 + margin) / 2, most=1, alpha=0.05)

    assert result.p_pass == pytest.approx(same.p_pass)
    assert result.p_fail == pytest.approx(same.p_fail)
    assert result.estimate == pytest.approx(2 * same.estimate - 1)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)  # each is five tests
@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=40), MARGINS)
def test_an_absolute_gap_has_no_direction(differences: list[int], margin: float) -> None:
    def numbers(result: SequentialResult) -> list[float]:
        return [result.estimate, result.lower, result.upper, result.p_pass, result.p_fail]

    result = gap(differences, margin=margin, alpha=0.05)
    forward = gap(differences, margin=margin, alpha=0.05, side="worse")
    backward = gap([-x for x in differences], margin=margin, alpha=0.05, side="worse")

    assert numbers(result) == pytest.approx(numbers(gap([-x for x in differences], margin=margin, alpha=0.05)))
    assert result.p_pass == pytest.approx(max(forward.p_pass, backward.p_pass))
    assert result.p_fail >= min(1.0, 1 / (1 / forward.p_fail + 1 / backward.p_fail)) - 1e-9


def test_a_better_candidate_fails_only_where_both_directions_count() -> None:
    better = [-1] * 40

    assert gap(better, margin=0.05, alpha=0.05).failed
    assert gap(better, margin=0.05, alpha=0.05, side="worse").passed


@pytest.mark.parametrize(("margin", "least"), [(0.02, 165), (0.05, 65), (0.1, 32), (0.2, 15)])
def test_perfect_answers_pass_after(margin: float, least: int) -> None:
    assert least_units(margin, most=1, alpha=0.05) == least
    assert share([True] * least, at_least=1 - margin, alpha=0.05).passed
    almost = share([True] * (least - 1), at_least=1 - margin, alpha=0.05)
    assert (almost.passed, almost.needed) == (False, least)
    assert gap([0] * least, margin=margin, alpha=0.05).passed
    assert not gap([0] * (least - 1), margin=margin, alpha=0.05).passed


def test_no_number_of_answers_shows_that_all_are_right() -> None:
    assert least_units(0.0, most=1, alpha=0.05) is None
    good, bad = share([True] * 500, at_least=1, alpha=0.05), share([True, False], at_least=1, alpha=0.05)

    assert (good.passed, good.failed, good.p_pass, good.p_fail, good.needed) == (False, False, 1, 1, None)
    assert (bad.passed, bad.failed, bad.p_fail) == (False, True, 0)
    assert good.lower == pytest.approx(0.993, abs=1e-3)


def test_what_would_settle_it_grows_with_the_closeness_to_the_margin() -> None:
    needed = [share([True] * 9 + [False], at_least=1 - m, alpha=0.05).needed for m in (0.3, 0.2, 0.15, 0.101)]

    assert needed == [41, 142, 534, None]


@pytest.mark.parametrize(
    ("reason", "call"),
    {
        "1 counts and 2 exposures": lambda: ratio([0.0], [1.0, 1.0], margin=0.05, most=1, alpha=0.05),
        "a unit has": lambda: ratio([2.0], [3.0], margin=0.05, most=32, alpha=0.05),
        "d <= e": lambda: ratio([1.0], [0.5], margin=0.05, most=32, alpha=0.05),
        "e <= 32": lambda: ratio([0.0], [33.0], margin=0.05, most=32, alpha=0.05),
        "0 <= d": lambda: ratio([math.nan], [1.0], margin=0.05, most=32, alpha=0.05),
        "not 0.0": lambda: ratio([0.0], [1.0], margin=0.0, most=32, alpha=0.05),
        "not 1.0": lambda: ratio([0.0], [1.0], margin=1.0, most=32, alpha=0.05),
        "alpha": lambda: share([True], at_least=0.9, alpha=0.5),
        "-1, 0 or 1": lambda: gap([2], margin=0.05, alpha=0.05),
    }.items(),
)
def test_impossible_numbers_are_refused(reason: str, call: Callable[[], SequentialResult]) -> None:
    with pytest.raises(ValueError, match=reason):
        call()


# error rates ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("margin", [0.02, 0.05, 0.1, 0.3])
def test_at_the_margin_neither_side_is_reached_too_often_however_long_one_looks(margin: float) -> None:
    low, high = broken_or_not(draws(PATHS, 500, 1) < margin, margin)

    assert np.isfinite(low).mean() <= 0.05 + SLACK
    assert np.isfinite(high).mean() <= 0.05 + SLACK


def hazards() -> Iterator[tuple[str, Floats]]:
    """Chances of a fork per token of 20,000 prompts, very unlike one another."""
    rng = np.random.default_rng(2)
    yield "equal", np.full(20_000, 0.05)
    yield "gamma of shape .5", np.minimum(rng.gamma(0.5, 0.16, 20_000), 1.0)
    yield "one in ten forks at once", np.where(rng.random(20_000) < 0.1, 0.9, 0.001)


@pytest.mark.slow
@pytest.mark.parametrize("chances", [pytest.param(chances, id=name) for name, chances in hazards()])
def test_forks_per_token_keep_the_error_rate_however_prompts_differ(chances: Floats) -> None:
    # Where the ratio of the means of all prompts is the margin, a draw of prompts reaches neither side too often.
    whole = 1 - (1 - chances) ** 32
    margin = float(whole.mean() / (whole / chances).mean())
    rng = np.random.default_rng(3)
    chosen = rng.choice(chances, (PATHS, 300))
    token = rng.geometric(chosen)
    low, high = against((token <= 32).astype(float), np.minimum(token, 32), margin, 32)

    assert np.isfinite(low).mean() <= 0.05 + SLACK
    assert np.isfinite(high).mean() <= 0.05 + SLACK


@pytest.mark.slow
def test_prompts_of_a_group_that_fork_together_must_count_once() -> None:
    # Groups of 4, of which 5 % break always and 95 % never. Counted once each, they are 5 % of what is counted.
    groups = draws(PATHS, 120, 4) < 0.05
    once, _ = broken_or_not(groups, 0.05)
    each, _ = broken_or_not(np.repeat(groups, 4, axis=1), 0.05)

    assert np.isfinite(once).mean() <= 0.05 + SLACK
    assert np.isfinite(each).mean() > 0.3, "which is why one of each group counts"


@pytest.mark.slow
@pytest.mark.parametrize("discordant", [0.06, 0.3])
def test_a_gap_at_the_margin_keeps_the_error_rate(discordant: float) -> None:
    margin = 0.05
    draw = draws(PATHS, 300, 5)
    more = (discordant + margin) / 2
    x = np.where(draw < more, 1.0, np.where(draw < discordant, -1.0, 0.0))
    below = [ever((margin - difference) / (1 - margin), bold()) for difference in (x, -x)]
    above = ever((x - margin) / (1 + margin), even())

    assert np.isfinite(np.maximum(*below)).mean() <= 0.05 + SLACK
    assert np.isfinite(above).mean() <= 0.05 + SLACK


# how soon it stops ---------------------------------------------------------------------------------------------------

METHODS = {
    # true rate: share decided as it should be (None: the two error rates at the margin), mean number of cases
    0.01: (0.99, 48),
    0.02: (0.99, 73),
    0.05: (0.59, 203),
    0.2: (0.985, 97),
    0.3: (0.99, 31),
    0.4: (0.99, 16),
}
"""Product of likelihood ratios of a plug-in rate, margin 10 %, at most 300 cases."""


@pytest.mark.slow
@pytest.mark.parametrize(("true", "expected"), METHODS.items())
def test_clear_cases_end_as_soon_as_with_likelihood_ratios_of_a_plug_in_rate(
    true: float, expected: tuple[float, float]
) -> None:
    low, high = broken_or_not(draws(PATHS, 300, 6) < true, 0.1)
    right = low < high if true < 0.1 else high < low
    stopped = np.minimum(np.minimum(low, high), 300)

    assert right.mean() >= expected[0] - 0.02
    assert stopped.mean() <= expected[1] * 1.03


@pytest.mark.slow
def test_at_the_margin_both_errors_are_as_rare_within_300_cases() -> None:
    low, high = broken_or_not(draws(PATHS, 300, 7) < 0.1, 0.1)

    assert (low < high).mean() == pytest.approx(0.034, abs=0.015)
    assert (high < low).mean() == pytest.approx(0.017, abs=0.01)
