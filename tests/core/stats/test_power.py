"""What so many groups can settle: the simulation that the plan shows, and the sizes of the bounds it stands on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pytest_llmparity.core.stats.hazard import hazard
from pytest_llmparity.core.stats.power import Settled, settled

HARMONIC = (12, 6, 4, 3, 2, 2, 2, 1)
"""32 prompts in 8 groups, the k-th about 1/k as large as the first."""


def even(prompts: int, groups: int) -> tuple[int, ...]:
    return tuple(prompts // groups + (index < prompts % groups) for index in range(groups))


def at_five_percent(sizes: tuple[int, ...], *, share: float = 0.5) -> Settled:
    return settled(sizes, margin=0.05, passing=0.025, failing=0.08, horizon=32, share=share)


@pytest.mark.parametrize(
    ("groups", "prompts", "passes", "caught"),
    [
        *((4, 32, 0.44, 0.06), (4, 64, 0.47, 0.06), (4, 96, 0.47, 0.07)),
        *((12, 32, 0.78, 0.10), (12, 64, 0.85, 0.11), (12, 96, 0.88, 0.12)),
        *((24, 32, 0.89, 0.17), (24, 64, 0.96, 0.23), (24, 96, 0.98, 0.26)),
    ],
)
def test_power_is_that_of_an_independent_simulation(groups: int, prompts: int, passes: float, caught: float) -> None:
    """Numbers of another program for the same design; families of prompts need not differ in exactly the same way."""
    simulated = at_five_percent(even(prompts, groups))

    assert simulated.passes == pytest.approx(passes, abs=0.04)
    assert simulated.caught == pytest.approx(caught, abs=0.06)


def test_a_larger_share_of_the_error_rate_catches_more_and_passes_the_same() -> None:
    half, most = (at_five_percent(even(32, 24), share=share) for share in (0.5, 0.9))

    assert most.passes == half.passes
    assert most.caught > half.caught + 0.05


def test_more_groups_help_where_more_prompts_do_not() -> None:
    few, more_prompts, more_groups = (at_five_percent(even(*size)) for size in ((32, 4), (320, 4), (320, 40)))

    assert abs(more_prompts.caught - few.caught) < 0.05
    assert more_groups.caught > 3 * few.caught
    assert more_groups.passes > few.passes + 0.4


def test_unequal_groups_pass_less_than_equal_ones() -> None:
    assert at_five_percent(HARMONIC).passes < at_five_percent(even(32, 8)).passes - 0.05


def test_the_same_prompts_have_the_same_power() -> None:
    settled.cache_clear()
    once = at_five_percent(HARMONIC)
    settled.cache_clear()

    assert at_five_percent(HARMONIC) == once


@pytest.mark.parametrize(
    ("sizes", "failing", "words"), [((4,), 0.08, "two groups"), ((4, 0), 0.08, "two groups"), ((4, 4), 1.0, "between")]
)
def test_what_has_no_power_is_refused(sizes: tuple[int, ...], failing: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settled(sizes, margin=0.05, passing=0.025, failing=failing, horizon=32, share=0.9)


# sizes ---------------------------------------------------------------------------------------------------------------

DRAWS = 1_500
MEAN_HALF, MEAN_ONE = 0.0581, 0.0919
"""Mean rates of families with a spread of .5 and 1 whose answers fork at 5 % of the tokens at risk, all together."""


def sizes_at_the_margin(sizes: tuple[int, ...], *, spread: float, mean: float) -> tuple[float, float]:
    """Return how often a hazard that equals the margin passes and fails; ``mean`` is the families' mean rate."""
    rng = np.random.default_rng(12)
    groups = [str(index) for index, size in enumerate(sizes) for _ in range(size)]
    passed = failed = 0
    for _ in range(DRAWS):
        rates = np.full(len(sizes), mean) if spread == 0 else mean * rng.gamma(1 / spread**2, spread**2, len(sizes))
        first = rng.geometric(np.clip(np.repeat(rates, sizes), 1e-9, 1.0))
        result = hazard((first <= 32).tolist(), np.minimum(first, 32.0).tolist(), groups, margin=0.05)
        passed += result.upper < 0.05
        failed += result.lower > 0.05
    return passed / DRAWS, failed / DRAWS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "spread", "mean", "excess_pass", "excess_fail"),
    [
        # Without heterogeneity nothing is in excess; skewness of what families do leaves up to three points, and less
        # than half of them where families are equal.
        *[(HARMONIC, 0.0, 0.05, 0.0, 0.0), (even(32, 4), 0.0, 0.05, 0.0, 0.0), (even(32, 16), 0.0, 0.05, 0.0, 0.0)],
        *[(HARMONIC, 0.5, MEAN_HALF, 0.02, 0.0), (even(32, 8), 0.5, MEAN_HALF, 0.0, 0.0)],
        *[(HARMONIC, 1.0, MEAN_ONE, 0.035, 0.01), (even(32, 8), 1.0, MEAN_ONE, 0.02, 0.0)],
        *[(even(32, 4), 1.0, MEAN_ONE, 0.02, 0.0), (even(32, 16), 1.0, MEAN_ONE, 0.02, 0.0)],
    ],
)
def test_false_pass_and_false_fail_with_few_and_unequal_groups(
    sizes: tuple[int, ...], spread: float, mean: float, excess_pass: float, excess_fail: float
) -> None:
    """32 prompts of 32 tokens at a hazard equal to the margin, 1,500 seeded draws, 3 SE of slack."""
    slack = 3 * math.sqrt(0.05 * 0.95 / DRAWS)

    passed, failed = sizes_at_the_margin(sizes, spread=spread, mean=mean)

    assert passed <= 0.05 + excess_pass + slack
    assert failed <= 0.05 + excess_fail + slack
