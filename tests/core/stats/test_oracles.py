"""Kernels of the statistics to nine digits against scipy, which computes the same in another way.

What has a test of its own elsewhere is not here: Garwood, Clopper and Pearson, Holm against values of statsmodels,
McNemar, the sign test and its order statistics, the analysis of variance of blocks against scipy.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmparity.core.stats import unconditional
from pytest_llmparity.core.stats.paired import score_interval, tango_score
from pytest_llmparity.core.stats.permutation import DRAWS, difference
from pytest_llmparity.core.stats.shares import effective_cases, late_together

EXACT: Any = {"rel": 1e-9, "abs": 1e-9}


def score(b: int, c: int, n: int, delta: float) -> float:
    """Return Tango's score with the restricted likelihood maximised by a root finder instead of in closed form."""

    def slope(q: float) -> float:
        rest = 1 - 2 * q - delta
        return b / (q + delta) + c / q - 2 * (n - b - c) / rest

    low, high = max(0.0, -delta), (1 - delta) / 2
    best = float(scipy.optimize.brentq(slope, low + 1e-14, high - 1e-14, xtol=1e-16, rtol=1e-14))
    return (b - c - n * delta) / math.sqrt(n * (2 * best + delta * (1 - delta)))


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int]:
    """Return counts of both kinds of discordant case, at least one of each, and of all cases."""
    b, c = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    return b, c, b + c + draw(st.integers(1, 200))


@given(tables(), st.floats(-0.6, 0.6))
def test_tangos_score_maximises_the_restricted_likelihood(table: tuple[int, int, int], delta: float) -> None:
    assert float(tango_score(*table, delta)) == pytest.approx(score(*table, delta), **EXACT)


@pytest.mark.parametrize(("b", "c", "n"), [(6, 16, 161), (28, 25, 618), (1, 3, 20), (12, 2, 64)])
def test_tangos_interval_is_where_the_score_is_a_normal_quantile(b: int, c: int, n: int) -> None:
    z, estimate = float(scipy.stats.norm.ppf(0.975)), (b - c) / n
    lower = scipy.optimize.brentq(lambda delta: score(b, c, n, delta) - z, -0.9, estimate, xtol=1e-13)
    upper = scipy.optimize.brentq(lambda delta: score(b, c, n, delta) + z, estimate, 0.9, xtol=1e-13)

    assert score_interval(b, c, n, 0.05) == pytest.approx((lower, upper), **EXACT)


@given(st.integers(1, 18), st.data(), st.sampled_from([-0.2, 0.02, 0.05, 0.3]), st.floats(0.01, 0.99))
@settings(max_examples=40, deadline=None)
def test_the_chance_of_a_tail_is_the_sum_of_its_tables(n: int, data: st.DataObject, delta: float, at: float) -> None:
    b = data.draw(st.integers(0, n))
    c = data.draw(st.integers(0, n - b))
    tail = unconditional._Edge(b, c, n, delta).tail(b, c)
    q = max(0.0, -delta) + at * ((1 - delta) / 2 - max(0.0, -delta))
    seen = float(tango_score(b, c, n, delta))
    inside = [
        (x, y, n - x - y)
        for x, y in itertools.product(range(n + 1), repeat=2)
        if x + y <= n and float(tango_score(x, y, n, delta)) <= seen + 1e-9 * (1 + abs(seen))
    ]
    expected = scipy.stats.multinomial.pmf(inside, n, [q + delta, q, 1 - 2 * q - delta]).sum()

    assert float(tail.chance(np.array([q + delta]), np.array([q]))[0]) == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("correlation", [0.05, 0.3, 0.6, 0.9])
def test_being_late_together_is_an_integral_over_what_both_share(quantile: float, correlation: float) -> None:
    z, own, shared = scipy.stats.norm.ppf(quantile), math.sqrt(1 - correlation), math.sqrt(correlation)

    def both(wave: float) -> float:
        return float(scipy.stats.norm.sf((z - shared * wave) / own) ** 2 * scipy.stats.norm.pdf(wave))

    late = 1 - quantile
    chance = scipy.integrate.quad(both, -12, 12, points=[z], epsabs=1e-14, epsrel=1e-13, limit=400)[0]

    assert late_together(correlation, quantile) == pytest.approx((chance - late**2) / (late * quantile), **EXACT)


def test_how_many_cases_count_is_korn_and_graubards() -> None:
    kept = [1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1]
    groups = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    mean = np.mean(kept)
    # Equal groups: the variance of their means over that of twelve independent cases, by scipy's standard errors.
    means = np.reshape(kept, (4, 3)).mean(axis=1)
    deff = (scipy.stats.sem(means) / (scipy.stats.sem(kept))) ** 2
    expected = 12 / deff * (scipy.stats.t.ppf(0.95, 11) / scipy.stats.t.ppf(0.95, 3)) ** 2

    assert mean == 0.75
    assert effective_cases([float(value) for value in kept], groups, 0.05) == pytest.approx(expected, **EXACT)


def kernel(left: str, right: str) -> float:
    """Return the share of the longer text that two have in common at the beginning."""
    shared = next((at for at, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]), None)
    return (min(len(left), len(right)) if shared is None else shared) / max(len(left), len(right))


def test_the_permutation_test_is_scipys_with_the_kernel_of_shared_beginnings() -> None:
    ours, theirs = ["abcd", "abce", "abxx", "abcd"], ["abcd", "xyz", "abq", "xyw"]
    every = np.array([*ours, *theirs])
    alike = np.array([[kernel(left, right) for right in every] for left in every])

    def apart(x: Any, y: Any, axis: int = -1) -> Any:
        first, second = (np.asarray(side, dtype=int) for side in (x, y))
        return (
            alike[np.ix_(first, first)].mean()
            + alike[np.ix_(second, second)].mean()
            - 2 * alike[np.ix_(first, second)].mean()
        )

    numbers: Any = (np.arange(4), np.arange(4, 8))
    exact = scipy.stats.permutation_test(
        numbers, apart, vectorized=False, alternative="greater", n_resamples=1000
    ).pvalue
    seen = difference([(ours, theirs)])

    assert seen.within == pytest.approx(
        (alike[np.triu_indices(4, 1)].mean() + alike[4:, 4:][np.triu_indices(4, 1)].mean()) / 2, **EXACT
    )
    assert seen.across == pytest.approx(alike[:4, 4:].mean(), **EXACT)
    assert seen.p_value == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / DRAWS))
