"""The exact unconditional test against published figures, brute force and its own promises."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmparity.core.stats import unconditional
from pytest_llmparity.core.stats.paired import gap, min_cases, score_at, score_interval, tango_score
from pytest_llmparity.core.stats.shares import rate
from pytest_llmparity.core.stats.unconditional import ABSOLUTE, RELATIVE, OneSided, TwoSided


@st.composite
def tables(draw: st.DrawFn, most: int = 80) -> tuple[int, int, int]:
    n = draw(st.integers(1, most))
    b = draw(st.integers(0, n))
    return b, draw(st.integers(0, n - b)), n


@pytest.mark.parametrize(
    ("b", "c", "n", "alpha", "lower", "upper", "digits"),
    [
        (0, 1, 44, 0.10, -0.096, None, 3),  # Tango 1998, section 6.1: soft contact lenses
        (6, 16, 161, 0.05, -0.1240, -0.0054, 4),  # R contingencytables 3.0 (Cavo 2012), its own test suite
        (28, 25, 618, 0.10, -0.0148, 0.0247, 4),  # PropCIs::scoreci.mp(25, 28, 618, .90)
        (60, 20, 1000, 0.05, 0.0231, 0.0584, 4),  # PropCIs::scoreci.mp(20, 60, 1000, .95)
        (20, 60, 1000, 0.05, -0.0584, -0.0231, 4),  # PropCIs::scoreci.mp(60, 20, 1000, .95)
        (48, 41, 549, 0.10, -0.0157, 0.0414, 4),  # PropCIs::scoreci.mp(41, 48, 549, .90)
    ],
)
def test_score_interval_agrees_with_published_values(
    b: int, c: int, n: int, alpha: float, lower: float, upper: float | None, digits: int
) -> None:
    interval = score_interval(b, c, n, alpha)

    assert round(interval[0], digits) == lower
    assert upper is None or round(interval[1], digits) == upper


def test_score_reproduces_the_worked_example_of_tango_1998() -> None:
    assert float(tango_score(0, 1, 44, -0.1)) == pytest.approx(1.709, abs=5e-4)


def test_score_at_margin_zero_is_mcnemars() -> None:
    squared = float(tango_score(16, 6, 161, 0.0)) ** 2

    assert squared == pytest.approx((16 - 6) ** 2 / (16 + 6))
    assert float(tango_score(0, 0, 10, 0.0)) == 0.0


@pytest.mark.parametrize(
    ("b", "c", "n", "delta"), [(3, 1, 20, 0.05), (0, 4, 30, -0.2), (7, 7, 15, 0.4), (2, 0, 9, 0.3)]
)
def test_score_uses_the_restricted_maximum_likelihood(b: int, c: int, n: int, delta: float) -> None:
    q = np.linspace(max(0.0, -delta) + 1e-9, (1 - delta) / 2 - 1e-9, 400_001)
    with np.errstate(divide="ignore"):
        likelihood = b * np.log(q + delta) + c * np.log(q) + (n - b - c) * np.log(1 - 2 * q - delta)
    best = q[likelihood.argmax()]
    expected = (b - c - n * delta) / math.sqrt(n * (2 * best + delta * (1 - delta)))

    assert float(tango_score(b, c, n, delta)) == pytest.approx(expected, rel=1e-4)


@given(tables(most=100_000), st.floats(-1, 1) | st.sampled_from([-1.0, 0.0, 0.05, 1.0]))
def test_the_score_of_one_table_is_that_of_arrays_to_the_last_bit(table: tuple[int, int, int], delta: float) -> None:
    b, c, n = table
    for gap_of in (delta, (b - c) / n):
        assert score_at(b, c, n, gap_of) == float(tango_score(b, c, n, gap_of))


@pytest.mark.parametrize("n", [1, 2, 7, 30, 61])
@pytest.mark.parametrize("delta", [-0.7, -0.05, 0.0, 0.02, 0.05, 0.1, 0.3, 0.9])
def test_score_has_the_shape_the_tail_relies_on(n: int, delta: float) -> None:
    b, c = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    score = np.where(b + c <= n, tango_score(b, np.minimum(c, n - b), n, delta), np.nan)
    up_b, up_c = np.diff(score, axis=0), np.diff(score, axis=1)

    assert np.all(up_b[~np.isnan(up_b)] > -1e-9)
    assert np.all(up_c[~np.isnan(up_c)] < 1e-9)


def brute_force_p(b: int, c: int, n: int, delta: float) -> float:
    """Largest chance, over a fine grid, of a score at most the one seen; nothing shared with the code under test."""
    grid_b, grid_c = (axis.ravel() for axis in np.meshgrid(np.arange(n + 1), np.arange(n + 1)))
    keep = grid_b + grid_c <= n
    grid_b, grid_c = grid_b[keep], grid_c[keep]
    tail = tango_score(grid_b, grid_c, n, delta) <= float(tango_score(b, c, n, delta)) + 1e-9
    counts = np.stack([grid_b[tail], grid_c[tail], n - grid_b[tail] - grid_c[tail]], axis=1)
    chances = [
        float(scipy.stats.multinomial.pmf(counts, n, [q + delta, q, 1 - 2 * q - delta]).sum())
        for q in np.linspace(max(0.0, -delta), (1 - delta) / 2, 300)
    ]
    return max(chances)


@pytest.mark.parametrize(
    ("b", "c", "n", "delta"), [(0, 0, 20, 0.1), (1, 3, 25, 0.1), (2, 2, 30, 0.05), (5, 1, 18, 0.3), (1, 2, 20, -0.05)]
)
def test_p_value_is_the_largest_chance_and_hardly_more(b: int, c: int, n: int, delta: float) -> None:
    expected = brute_force_p(b, c, n, delta)

    p = OneSided(b, c, n, tail="below").p(delta)

    assert expected - 1e-6 <= p <= expected * (1 + RELATIVE) + ABSOLUTE + 2e-3 * expected


def test_two_sided_p_value_at_margin_zero_agrees_with_the_published_exact_test() -> None:
    # contingencytables reports .034053, which maximises over a 99.99 % interval of the open parameter and adds 1e-4
    # (Berger and Boos); the plain maximum is .034203, at the far end of the parameter (enumerated separately).
    p = TwoSided(16, 6, 161).p(0.0)

    assert 0.034203 <= p + 1e-6 <= 0.034203 * (1 + RELATIVE) + ABSOLUTE + 1e-6


def test_mirror_images_agree() -> None:
    above, below = OneSided(9, 3, 70, tail="above"), OneSided(3, 9, 70, tail="below")

    assert above.p(0.02) == below.p(-0.02)


def test_first_design_that_can_pass_at_five_points_has_59_cases() -> None:
    assert min_cases(0.05, 0.05) == 59
    assert min_cases(0.5, 0.03126) == 6  # five give .03125, too close below alpha for a p-value rounded up
    assert gap(0, 0, 59, margin=0.05).p_pass < 0.05 <= gap(0, 0, 58, margin=0.05).p_pass


@pytest.mark.slow
@given(
    tables(), st.sampled_from([0.02, 0.05, 0.2]), st.sampled_from([0.05, 0.0125]), st.sampled_from(["either", "worse"])
)
@settings(max_examples=25, deadline=None)
def test_bounds_and_p_values_say_the_same(table: tuple[int, int, int], margin: float, alpha: float, side: str) -> None:
    b, c, n = table
    result = gap(b, c, n, margin=margin, alpha=alpha, side="either" if side == "either" else "worse")

    assert (result.upper < margin) == (result.p_pass < alpha)
    assert (result.lower > margin) == (result.p_fail < alpha)
    assert -1.0 <= result.lower <= result.estimate <= result.upper <= 1.0
    assert not (result.p_pass < alpha and result.p_fail < alpha)


@pytest.mark.slow
@given(tables(40))
@settings(max_examples=20, deadline=None)
def test_an_absolute_gap_does_not_ask_who_is_worse(table: tuple[int, int, int]) -> None:
    b, c, n = table

    assert gap(b, c, n, margin=0.1) == gap(c, b, n, margin=0.1)


@given(tables(40))
@settings(max_examples=20, deadline=None)
def test_one_more_case_broken_by_the_candidate_never_helps_it(table: tuple[int, int, int]) -> None:
    b, c, n = table
    if b + c == n:
        return
    before, after = (OneSided(x, c, n, tail="below").p(0.1) for x in (b, b + 1))

    assert after >= before * (1 - 2 * RELATIVE) - 2 * ABSOLUTE


def test_a_better_candidate_passes_worse_and_fails_either() -> None:
    assert gap(0, 30, 100, margin=0.05, side="worse").p_pass < 0.001
    assert gap(0, 30, 100, margin=0.05, side="either").p_fail < 0.001


@functools.cache
def passing(n: int, margin: float) -> frozenset[tuple[int, int]]:
    """Every (b, c) of which "the candidate is at most ``margin`` worse" passes at 5 %, c as far as chances matter."""
    passed_tables, b = set(), 0
    for c in range(n // 2 + 1):
        while b + c <= n and OneSided(b, c, n, tail="below").rejects(margin, 0.05):
            b += 1  # the tail's shape: what passes with c passes with c + 1
        passed_tables |= {(passed, c) for passed in range(min(b, n - c + 1))}
    return frozenset(passed_tables)


def chance(tables: Iterable[tuple[int, int]], n: int, p_b: float, p_c: float) -> float:
    table = np.array(sorted(tables))
    counts = np.column_stack([table, n - table.sum(axis=1)])
    return float(scipy.stats.multinomial.pmf(counts, n, [p_b, p_c, 1 - p_b - p_c]).sum())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "worse", "either"),
    [
        (64, {0.01: 0.57, 0.02: 0.42, 0.05: 0.29}, {0.01: 0.274, 0.02: 0.073}),
        (150, {0.01: 0.93, 0.02: 0.82, 0.05: 0.55}, {0.01: 0.856, 0.02: 0.633}),
    ],
)
def test_power_is_what_the_plan_promises(n: int, worse: dict[float, float], either: dict[float, float]) -> None:
    """The sum over every table that passes at 5 points, with a share q of cases discordant each way; no simulation.

    ``worse`` are the plan's figures (simulated there, hence 0.02 of slack), ``either`` what two-sided gates get.
    """
    one_sided = passing(n, 0.05)
    both = {(b, c) for b, c in one_sided if (c, b) in one_sided}
    for q, expected in worse.items():
        assert chance(one_sided, n, q, q) == pytest.approx(expected, abs=0.02)
    for q, expected in either.items():
        assert chance(both, n, q, q) == pytest.approx(expected, abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("n", [64, 100, 150])
def test_size_at_a_gap_equal_to_the_margin(n: int) -> None:
    """At a true gap of exactly 5 points at most 5 % pass: enumerated, so there is no slack but rounding."""
    sizes = [chance(passing(n, 0.05), n, q + 0.05, q) for q in (0, 0.002, 0.01, 0.03, 0.08, 0.15)]

    assert max(sizes) <= 0.05 + 1e-9
    assert max(sizes) > 0.03  # a test that never passes anybody keeps its size too


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 30])
def test_size_over_a_confidence_set(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done above 1,000 cases, done to few: every table, at the edge and inside, all three tests."""
    monkeypatch.setattr(unconditional, "MANY", 0)
    margin, tables = 0.1, [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
    passed = [t for t in tables if OneSided(*t, n, tail="below").rejects(margin, 0.05)]
    failed = [t for t in tables if OneSided(*t, n, tail="above").rejects(margin, 0.05)]
    larger = [(b, c) for b, c in tables if b >= c and TwoSided(b, c, n).rejects(margin, 0.05)]
    either = [*larger, *((c, b) for b, c in larger if b != c)]
    shares = (0.0, 0.005, 0.02, 0.1, 0.3)

    assert max(chance(passed, n, q + gap, q) for q in shares for gap in (margin, 0.2)) <= 0.05 + 1e-9
    assert max(chance(failed, n, q + gap, q) for q in shares for gap in (margin, 0.0)) <= 0.05 + 1e-9
    assert max(chance(either, n, q + gap, q) for q in shares for gap in (margin, 0.0)) <= 0.05 + 1e-9
    assert min(map(len, (passed, failed, either))) > 0


@pytest.mark.slow
@pytest.mark.parametrize(("b", "c"), [(80, 20), (60, 30), (100, 100)])
def test_a_confidence_set_changes_little(b: int, c: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its p-values are hardly above those over everything; the worst may lie far from what was seen."""
    n, margin = 1000, 0.05
    everything = gap(b, c, n, margin=margin)
    monkeypatch.setattr(unconditional, "MANY", 0)

    over_a_set = gap(b, c, n, margin=margin)

    assert over_a_set.p_pass <= everything.p_pass * 1.02 + 3e-4
    assert over_a_set.p_fail <= everything.p_fail * 1.02 + 3e-4
    assert over_a_set.lower == pytest.approx(everything.lower, abs=1e-3)
    assert over_a_set.upper == pytest.approx(everything.upper, abs=1e-3)


@pytest.mark.slow
def test_drawn_gaps_fail_at_most_as_often_as_stated() -> None:
    """Seeded draws at a gap equal to the margin; 0.05 plus three standard errors of 2,000 draws."""
    rng = np.random.default_rng(7)
    n, margin = 100, 0.05
    for q in (0.0, 0.03, 0.15):
        draws = rng.multinomial(n, [q + margin, q, 1 - 2 * q - margin], size=2000)
        tables, times = np.unique(
            np.column_stack([draws[:, :2].max(axis=1), draws[:, :2].min(axis=1)]), axis=0, return_counts=True
        )
        failed = sum(
            int(count)
            for (b, c), count in zip(tables.tolist(), times, strict=True)
            if TwoSided(b, c, n).rejects(margin, 0.05)
        )
        assert failed / 2000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"b": -1, "c": 0, "n": 5, "margin": 0.1}, "impossible"),
        ({"b": 4, "c": 4, "n": 5, "margin": 0.1}, "impossible"),
        ({"b": 0, "c": 0, "n": 0, "margin": 0.1}, "impossible"),
        ({"b": 0, "c": 0, "n": 5, "margin": 5.0}, "margin lies between"),
        ({"b": 0, "c": 0, "n": 5, "margin": 0.1, "alpha": 0.5}, "alpha lies between"),
    ],
)
def test_impossible_questions_are_refused(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gap(**arguments)
    with pytest.raises(ValueError, match="margin lies between"):
        min_cases(0.0, 0.05)
    with pytest.raises(ValueError, match="alpha lies between"):
        score_interval(1, 1, 5, 0.0)


@pytest.mark.slow
@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.5, 0.9, 0.98, 1.0]), st.sampled_from([0.05, 0.01]))
def test_rate_agrees_with_scipy_and_itself(k: int, more: int, at_least: float, alpha: float) -> None:
    n = max(1, k + more)
    k = min(k, n)
    result = rate(k, n, at_least=at_least, alpha=alpha)

    lower, upper = scipy.stats.binomtest(k, n).proportion_ci(confidence_level=1 - 2 * alpha, method="exact")

    assert result.lower == pytest.approx(lower, abs=1e-9)
    assert result.upper == pytest.approx(upper, abs=1e-9)
    assert result.p_pass == pytest.approx(
        scipy.stats.binomtest(k, n, at_least, alternative="greater").pvalue, abs=1e-12
    )
    assert result.p_fail == pytest.approx(scipy.stats.binomtest(k, n, at_least, alternative="less").pvalue, abs=1e-12)
    assert (result.lower > at_least) == (result.p_pass < alpha)
    assert (result.upper < at_least) == (result.p_fail < alpha)


def test_a_rate_of_one_is_never_shown() -> None:
    assert rate(500, 500, at_least=1.0).p_pass == 1.0
    assert rate(499, 500, at_least=1.0).p_fail == 0.0


@pytest.mark.parametrize(
    ("k", "n", "at_least", "words"), [(3, 2, 0.9, "impossible"), (0, 0, 0.9, "impossible"), (1, 2, 98, "rate lies")]
)
def test_impossible_rates_are_refused(k: int, n: int, at_least: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rate(k, n, at_least=at_least)
