"""Fork hazard: both bounds, their agreement with p-values, and the error rates they promise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.stats.cluster import clustered_ratio
from pytest_llmparity.core.stats.hazard import HazardResult, can_pass, garwood, hazard, prompts_needed


@given(st.integers(0, 200), st.floats(1, 1e5), st.sampled_from([0.05, 0.01]))
def test_garwood_is_quantiles_of_chi_squared(forks: int, exposure: float, alpha: float) -> None:
    lower, upper = garwood(forks, exposure, alpha)

    assert lower == pytest.approx(
        0.0 if forks == 0 else scipy.stats.chi2.ppf(alpha, 2 * forks) / 2 / exposure, rel=1e-9
    )
    assert upper == pytest.approx(scipy.stats.chi2.isf(alpha, 2 * forks + 2) / 2 / exposure, rel=1e-9)


def test_no_fork_in_2048_tokens() -> None:
    result = hazard([False] * 64, [32.0] * 64, [str(i) for i in range(64)], margin=0.05)

    assert result.upper == pytest.approx(0.00146, abs=5e-6)
    assert (result.estimate, result.lower, result.forks, result.groups) == (0.0, 0.0, 0, 64)


def test_the_clustered_bound_computed_by_hand() -> None:
    # Groups a: 3 forks in 20 tokens, b: 1 in 30. D = 4, E = 50, h = .08; d - h e = 1.4 and -1.4. Each group's residual
    # grows by what the group holds of the tokens: h is 1/30 without a, 3/20 without b.
    ratio = clustered_ratio([1, 2, 1], [5, 15, 30], ["a", "a", "b"])

    assert ratio.estimate == pytest.approx(0.08)
    assert ratio.se == pytest.approx(math.sqrt(1 / 2 * ((1.4 / 0.6) ** 2 + (1.4 / 0.4) ** 2)) / 50)
    assert ratio.se == pytest.approx(math.sqrt(1 / 2 * ((1 / 30 - 0.08) ** 2 + (3 / 20 - 0.08) ** 2)))
    assert ratio.bounds(0.05)[1] == pytest.approx(0.08 + float(scipy.stats.t.ppf(0.95, 1)) * (ratio.se or 0))


def test_equal_groups_have_the_linearised_variance() -> None:
    ratio = clustered_ratio([3, 1, 2], [10, 10, 10], ["a", "b", "c"])

    assert ratio.se == pytest.approx(math.sqrt(3 / 2 * (1.0**2 + 1.0**2)) / 30)


def test_prompts_of_no_group_have_the_linearised_variance_however_long_they_are() -> None:
    # D = 2, E = 40, h = .05: residuals .75, .5 and -1.25.
    ratio = clustered_ratio([1, 1, 0, 0], [5, 10, 25, 0], ["a", "b", "c", "silent"])

    assert ratio.se == pytest.approx(math.sqrt(3 / 2 * (0.75**2 + 0.5**2 + 1.25**2)) / 40)


def test_families_that_fork_together_widen_the_bound() -> None:
    forked = [True] * 16 + [False] * 48
    at_risk = [10.0] * 64
    apart = hazard(forked, at_risk, [str(i) for i in range(64)], margin=0.05)
    together = hazard(forked, at_risk, [str(i // 16) for i in range(64)], margin=0.05)

    assert together.upper > apart.upper
    assert together.p_pass > apart.p_pass


def test_a_single_prompt_has_the_poisson_bound() -> None:
    result = hazard([True, False], [4, 0], ["only", "only"], margin=0.5)

    assert (result.groups, result.se, result.one_group) == (1, None, False)
    assert result.upper == pytest.approx(float(scipy.stats.chi2.ppf(0.95, 4)) / 8)


def test_copies_of_one_prompt_bound_nothing() -> None:
    for forked in (False, True):
        result = hazard([forked] * 100, [32] * 100, ["only"] * 100, margin=0.05)

        assert (result.groups, result.one_group, result.lower, result.upper) == (1, True, 0.0, math.inf)
        assert (result.p_pass, result.p_fail) == (1.0, 1.0)
        assert prompts_needed(result, 100, 0.05, 0.05) is None


def test_nothing_at_risk_says_nothing() -> None:
    for prompts in (0, 3):
        result = hazard([False] * prompts, [0.0] * prompts, ["g"] * prompts, margin=0.05)
        assert (result.estimate, result.lower, result.upper) == (0.0, 0.0, math.inf)
        assert (result.p_pass, result.p_fail, result.groups) == (1.0, 1.0, 0)
        assert prompts_needed(result, prompts, 0.05, 0.05) is None


def test_a_group_without_tokens_is_no_group() -> None:
    result = hazard([True, False, False], [8, 32, 0], ["a", "b", "empty"], margin=0.05)

    assert result.groups == 2


@st.composite
def prompts(draw: st.DrawFn) -> tuple[list[bool], list[float], list[str]]:
    rows = draw(st.lists(st.tuples(st.booleans(), st.integers(1, 32), st.integers(0, 6)), min_size=1, max_size=60))
    return [row[0] for row in rows], [float(row[1]) for row in rows], [str(row[2]) for row in rows]


@given(prompts(), st.sampled_from([0.005, 0.05, 0.12]), st.sampled_from([0.05, 0.0125]))
def test_bounds_and_p_values_agree(
    drawn: tuple[list[bool], list[float], list[str]], margin: float, alpha: float
) -> None:
    result = hazard(*drawn, margin=margin, alpha=alpha)

    assert (result.upper < margin) == (result.p_pass < alpha)
    assert (result.lower > margin) == (result.p_fail < alpha)
    assert 0.0 <= result.lower <= result.estimate <= result.upper
    assert garwood(result.forks, result.at_risk, alpha)[1] <= result.upper


@given(prompts())
def test_the_order_of_prompts_does_not_matter(drawn: tuple[list[bool], list[float], list[str]]) -> None:
    forward = hazard(*drawn, margin=0.05)
    backward = hazard(*(part[::-1] for part in drawn), margin=0.05)  # type: ignore[arg-type]

    assert forward.upper == pytest.approx(backward.upper)
    assert forward.p_fail == pytest.approx(backward.p_fail)


@pytest.mark.slow
def test_false_pass_and_false_fail_stay_at_five_percent() -> None:
    """64 prompts of 32 tokens at a hazard equal to the margin, 600 seeded draws, 3 SE of slack."""
    rng = np.random.default_rng(3)
    slack = 3 * math.sqrt(0.05 * 0.95 / 600)
    groups = [str(i) for i in range(64)]
    passed = failed = 0
    for _ in range(600):
        first = rng.geometric(0.05, size=64)
        result = hazard((first <= 32).tolist(), np.minimum(first, 32).tolist(), groups, margin=0.05)
        passed += result.upper < 0.05
        failed += result.lower > 0.05

    assert passed / 600 <= 0.05 + slack
    assert failed / 600 <= 0.05 + slack


def test_prompts_needed_is_where_the_verdict_turns() -> None:
    groups = [str(i) for i in range(64)]
    undecided = hazard([True] * 4 + [False] * 60, [16.0] * 64, groups, margin=0.006)
    needed = prompts_needed(undecided, 64, 0.006, 0.05)

    assert undecided.lower < 0.006 < undecided.upper
    assert needed is not None
    factor = needed / 64
    assert needed > 64
    assert garwood(4 * factor, 1024 * factor, 0.05)[1] < 0.006
    assert prompts_needed(hazard([False] * 64, [32.0] * 64, groups, margin=0.05), 64, 0.05, 0.05) == 64
    assert prompts_needed(undecided, 64, 4 / 1024, 0.05) is None


def test_prompts_needed_for_a_failure_counts_by_kinds_of_prompts_as_the_failure_does() -> None:
    """Of eight kinds, half fork at the first token and half hardly: so many prompts more of the same do settle it."""

    def prompts_of(copies: int) -> tuple[list[bool], list[float], list[str], dict[str, int]]:
        kinds = [index % 8 for index in range(32 * copies)]
        forked = [kind >= 4 or index // 8 % 4 == 0 for index, kind in enumerate(kinds)]
        at_risk = [2.0 if kind >= 4 else 16.0 if fork else 32.0 for kind, fork in zip(kinds, forked, strict=True)]
        groups = list(map(str, range(len(kinds))))
        return forked, at_risk, groups, dict(zip(groups, kinds, strict=True))

    def judged(copies: int) -> HazardResult:
        forked, at_risk, groups, strata = prompts_of(copies)
        return hazard(forked, at_risk, groups, margin=0.031, strata=strata)

    undecided = judged(1)
    needed = prompts_needed(undecided, 32, 0.031, 0.05)
    without = dataclasses.replace(undecided, within=None)

    assert undecided.lower < 0.031 < undecided.estimate
    assert needed is not None
    copies = math.ceil(needed / 32)
    assert judged(copies).lower > 0.031, "as many as it says are enough"
    assert judged(copies - 1).lower <= 0.031, "and fewer are not"
    assert (prompts_needed(without, 32, 0.031, 0.05) or 0) > 2 * needed, "kinds of prompts doubled it"


def test_prompts_needed_after_one_prompt_scales_the_poisson_bound() -> None:
    result = hazard([True], [32.0], ["g"], margin=0.05)
    needed = prompts_needed(result, 1, 0.05, 0.05)

    assert needed is not None
    assert garwood(needed, 32 * needed, 0.05)[1] < 0.05
    assert garwood(needed - 1, 32 * (needed - 1), 0.05)[1] >= 0.05


def test_can_pass() -> None:
    assert can_pass(2048, 0.0015, 0.05)
    assert not can_pass(2048, 0.0014, 0.05)
    assert not can_pass(0, 0.5, 0.05)


@pytest.mark.parametrize(
    ("forked", "at_risk", "groups", "margin", "alpha", "words"),
    [
        ([True], [1.0], ["a"], 0.0, 0.05, "margin"),
        ([True], [1.0], ["a"], math.inf, 0.05, "margin"),
        ([True], [1.0], ["a"], 0.1, 0.0, "alpha"),
        ([True], [-1.0], ["a"], 0.1, 0.05, "not negative"),
        ([True], [math.nan], ["a"], 0.1, 0.05, "finite"),
        ([True, True], [1.0], ["a"], 0.1, 0.05, "do not match"),
    ],
)
def test_bad_data_is_refused(
    forked: list[bool], at_risk: list[float], groups: list[str], margin: float, alpha: float, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        hazard(forked, at_risk, groups, margin=margin, alpha=alpha)


def test_a_ratio_needs_something_below_the_line() -> None:
    with pytest.raises(ValueError, match="positive total"):
        clustered_ratio([0.0], [0.0], ["a"])
    assert clustered_ratio([1.0], [2.0], ["a"]).bounds(0.05) == (-math.inf, math.inf)
    assert clustered_ratio([1.0], [2.0], ["a"]).p_values(0.1) == (1.0, 1.0)


# kinds of prompts ----------------------------------------------------------------------------------------------------

KINDS = (4.5, 11.6, 19.5, 15.4, 29.0, 22.0, 61.0, 73.0)
"""How often eight kinds of prompts fork on one pair of engines, in per cent: a 4-bit copy of a small real model."""


def test_what_kinds_differ_from_each_other_does_not_count_against_a_failure() -> None:
    forked = [i % 2 == 0 for i in range(64)]  # every prompt of one kind forks at once, none of the other
    at_risk = [1.0 if fork else 9.0 for fork in forked]
    groups = list(map(str, range(64)))
    strata = {group: index % 2 for index, group in enumerate(groups)}
    plain = hazard(forked, at_risk, groups, margin=0.08)
    mixed = hazard(forked, at_risk, groups, margin=0.08, strata=strata)
    one_kind = hazard(forked, at_risk, groups, margin=0.08, strata=dict.fromkeys(groups, "the same"))

    assert mixed.lower > plain.lower
    assert mixed.p_fail < plain.p_fail
    assert (mixed.estimate, mixed.upper, mixed.p_pass) == (plain.estimate, plain.upper, plain.p_pass), "PASS stays"
    assert one_kind == plain
    assert hazard(forked, at_risk, groups, margin=0.08, strata={"0": "alone"}).lower == pytest.approx(
        plain.lower, rel=0.2
    )


def test_a_stratified_standard_error_is_that_of_the_combined_ratio_estimate() -> None:
    """Cochran, section 6.11, written out for groups of one prompt each."""
    rng = np.random.default_rng(2)
    kinds = np.arange(30) % 3
    d, e = rng.integers(0, 2, 30) * 1.0, rng.uniform(1, 32, 30)
    ratio = clustered_ratio(d.tolist(), e.tolist(), range(30), dict(enumerate(kinds.tolist())))
    residuals = d - d.sum() / e.sum() * e
    parts = [residuals[kinds == kind] for kind in range(3)]

    assert ratio.se is not None
    assert ratio.se == pytest.approx(math.sqrt(sum(len(part) * part.var(ddof=1) for part in parts)) / e.sum())
    assert (ratio.groups, ratio.strata) == (30, 3)
    assert ratio.p_values(0.05)[1] == pytest.approx(scipy.stats.t.sf((ratio.estimate - 0.05) / ratio.se, 27))


def test_kinds_of_a_single_group_are_taken_together() -> None:
    def strata(of: Sequence[int]) -> int:
        groups = range(len(of))
        return clustered_ratio(
            [i % 2 for i in groups], [1.0] * len(of), groups, dict(zip(groups, of, strict=True))
        ).strata

    assert [strata(of) for of in ([0, 0, 1, 2], [0, 0, 0, 1], [0, 1, 2, 3], [0, 0, 1, 1, 2], [5, 5])] == [2, 1, 1, 2, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kinds", "spread"),
    [
        *[([index % 8 for index in range(16)], spread) for spread in (0.0, 1.0)],
        *[([index % 8 for index in range(64)], spread) for spread in (0.0, 0.5)],
        ([0] * 20 + [1] * 6 + [2, 3, 4, 5, 6, 7], 0.5),
    ],
)
def test_false_fail_at_a_mix_of_kinds(kinds: list[int], spread: float) -> None:
    """A hazard equal to the margin over prompts whose kinds fork unequally, 800 seeded draws, 3 SE of slack."""
    rng, n = np.random.default_rng(7), len(kinds)
    groups, strata = list(map(str, range(n))), dict(zip(map(str, range(n)), kinds, strict=True))
    family = np.random.default_rng(1).gamma(1 / spread**2, spread**2, (2_000, n)) if spread else np.ones((1, n))
    relative = np.array(KINDS)[kinds]

    def hazard_at(scale: float) -> float:
        rates = np.clip(scale * relative * family, 1e-9, 1.0)
        forks = 1.0 - (1.0 - rates) ** 32
        return float(forks.mean() / (forks / rates).mean())

    scale = scipy.optimize.brentq(lambda scale: hazard_at(scale) - 0.05, 1e-6, 1.0)
    failed = 0
    for _ in range(800):
        own = rng.gamma(1 / spread**2, spread**2, n) if spread else np.ones(n)
        first = rng.geometric(np.clip(scale * relative * own, 1e-9, 1.0))
        result = hazard((first <= 32).tolist(), np.minimum(first, 32.0).tolist(), groups, margin=0.05, strata=strata)
        failed += result.p_fail < 0.05

    assert failed / 800 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 800)
