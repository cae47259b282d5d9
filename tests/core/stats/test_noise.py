"""Cross drift against the baseline's own."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.stats.noise import excess


def test_the_p_value_by_hand() -> None:
    # Differences .4, .2, -.1 of three cases: of 8 sign patterns +++ (.7) and ++- (.5) reach the .5 seen.
    result = excess([0.5, 0.2, 0.0], [0.1, 0.0, 0.1], ["a", "b", "c"])

    assert result.p == pytest.approx(2 / 8)
    assert result.estimate == pytest.approx(0.5 / 3)
    assert result.groups == 3


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_small_sets_are_enumerated(differences: list[int]) -> None:
    sums = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    expected = sum(total >= sum(differences) for total in sums) / len(sums)

    result = excess(
        [float(d) for d in differences], [0.0] * len(differences), [str(i) for i in range(len(differences))]
    )

    assert result.p == pytest.approx(expected)


def test_no_difference_is_no_excess() -> None:
    assert excess([0.1] * 5, [0.1] * 5, list("abcde")).p == 1.0
    assert excess([], [], []).p == 1.0


def test_prompts_of_one_family_count_once() -> None:
    cross, own = [0.1] * 20, [0.0] * 20
    apart = excess(cross, own, [str(i) for i in range(20)])
    families = excess(cross, own, [str(i // 10) for i in range(20)])
    together = excess(cross, own, ["all"] * 20)

    assert apart.p == pytest.approx(1 / 10_000)
    assert families.p == 0.25
    assert together == apart


@pytest.mark.slow
def test_copies_of_the_baseline_are_called_noisier_at_most_as_often_as_stated() -> None:
    """Cross and own drawn alike, 400 seeded data sets; 0.05 plus three standard errors."""
    rng = np.random.default_rng(11)
    groups = [str(i) for i in range(10)]
    hits = sum(
        excess(rng.binomial(1, 0.5, 10).tolist(), rng.binomial(1, 0.5, 10).tolist(), groups).p < 0.05
        for _ in range(400)
    )

    assert hits / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_bad_data_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        excess([math.inf], [0.0], ["a"])
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        excess([0.0, 1.0], [0.0], ["a", "b"])
    with pytest.raises(ValueError, match="alpha lies"):
        excess([0.0], [0.0], ["a"], alpha=1e-6)
