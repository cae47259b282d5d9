"""Latency budgets: shares, ratios, and how many requests they need."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmparity.core.stats.quantiles import (
    RatioResult,
    VisitsResult,
    describe,
    min_requests,
    nearest_rank,
    quantile_ratio,
    ratio_in_turn,
    spread_settled,
)
from pytest_llmparity.core.stats.shares import (
    ShareResult,
    late_together,
    share_failed,
    share_over,
    together_in_blocks,
)
from pytest_llmparity.core.visits import requests_of_loads


@pytest.mark.parametrize(("quantile", "needed"), [(0.5, 5), (0.9, 29), (0.95, 59), (0.99, 299)])
def test_fewest_requests(quantile: float, needed: int) -> None:
    assert min_requests(quantile, 0.05) == needed
    assert scipy.stats.binom.cdf(0, needed, 1 - quantile) < 0.05 <= scipy.stats.binom.cdf(0, needed - 1, 1 - quantile)


def share(over: int, within: int, *, quantile: float = 0.95, blocks: int = 16) -> ShareResult:
    """Return what is said of so many requests over and within a budget, dealt out evenly over blocks."""
    values = [3.0] * over + [1.0] * within
    return share_over(values, [i % blocks for i in range(len(values))], budget=2.0, quantile=quantile)


def test_counts_that_pass_p95_are_the_plans() -> None:
    for n, over in ((59, 0), (93, 1), (124, 2)):
        for requests, passes in ((n, True), (n - 1, False)):
            assert (share(over, requests - over).p_pass < 0.05) == passes


@given(
    st.lists(st.tuples(st.floats(0, 4) | st.just(math.inf), st.integers(0, 5)), min_size=1, max_size=80),
    st.sampled_from([0.5, 0.9, 0.95]),
)
def test_share_is_never_surer_than_scipy(rows: list[tuple[float, int]], quantile: float) -> None:
    values, blocks = [row[0] for row in rows], [row[1] for row in rows]
    result = share_over(values, blocks, budget=2.0, quantile=quantile)
    exact = scipy.stats.binomtest(sum(value > 2.0 for value in values), len(values), result.limit, alternative="less")

    assert result.p_pass >= min(exact.pvalue, 0.5) - 1e-9
    assert (result.upper < result.limit) == (result.p_pass < 0.05)
    assert (result.lower > result.limit) == (result.p_fail < 0.05)
    assert 0.0 <= result.lower <= result.estimate <= result.upper <= 1.0
    assert result.blocks == len(set(blocks))
    assert result.effective <= len(rows) + 1e-9


def test_slow_blocks_widen_the_share() -> None:
    values = [3.0] * 8 + [1.0] * 120
    together = share_over(values, [i // 8 for i in range(128)], budget=2.0, quantile=0.9)
    spread = share_over(values, [i % 8 for i in range(128)], budget=2.0, quantile=0.9)

    assert (spread.effective, together.effective) == pytest.approx((128, 16)), (
        "a block that is slow as a whole is one request"
    )
    assert together.upper > spread.upper
    assert (together.over, together.n, together.blocks) == (8, 128, 16)


def test_one_block_settles_nothing() -> None:
    for values in ([1.0] * 200, [3.0] * 200, [math.inf] * 200):
        result = share_over(values, [7] * 200, budget=2.0, quantile=0.95)
        assert (result.lower, result.upper, result.p_pass, result.p_fail) == (0.0, 1.0, 1.0, 1.0)
        assert (result.blocks, result.effective) == (1, 0)


def test_all_over_budget_fails() -> None:
    result = share(20, 0, blocks=4)

    assert (result.upper, result.p_pass) == (1.0, 1.0)
    assert result.p_fail < 1e-9


def test_the_correlation_in_blocks_is_that_of_an_analysis_of_variance() -> None:
    rng = np.random.default_rng(8)
    shared, own = rng.standard_normal(12), rng.standard_normal((12, 10))
    values = np.exp(0.2 * (0.8 * shared[:, None] + 0.6 * own)).ravel()
    blocks = np.repeat(np.arange(12), 10)
    scores = scipy.stats.norm.ppf((scipy.stats.rankdata(values) - 0.5) / 120).reshape(12, 10)
    f = scipy.stats.f_oneway(*scores).statistic

    assert together_in_blocks(values.tolist(), blocks.tolist()) == pytest.approx((f - 1) / (f + 9), rel=1e-9)
    assert together_in_blocks((1000 * values).tolist(), blocks.tolist()) == pytest.approx(0.62, abs=0.15)
    first = values.reshape(12, 10)[[0, 3, 9]].ravel()
    rescored = scipy.stats.norm.ppf((scipy.stats.rankdata(first) - 0.5) / 30).reshape(3, 10)
    few = scipy.stats.f_oneway(*rescored).statistic / scipy.stats.f.ppf(0.25, 2, 27)
    assert together_in_blocks(first.tolist(), blocks[:30].tolist()) == pytest.approx((few - 1) / (few + 9), rel=1e-9)


def test_which_block_begins_first_changes_no_bit_of_how_latencies_go_together() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        latencies = [1.0] * 20 + rng.lognormal(size=100).tolist()
        others = rng.integers(0, 20, 100).tolist()

        in_order = together_in_blocks(latencies, [*range(20), *others])

        assert together_in_blocks(latencies, [*rng.permutation(20).tolist(), *others]) == in_order


@pytest.mark.parametrize("quantile", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.7, 0.95])
def test_being_late_together_is_a_bivariate_normal(quantile: float, correlation: float) -> None:
    z = scipy.stats.norm.ppf(quantile)
    both = scipy.stats.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]]).cdf([-z, -z])
    late = 1 - quantile

    assert late_together(correlation, quantile) == pytest.approx((both - late**2) / (late * quantile), abs=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("wave", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    ("blocks", "size", "quantile", "excess"),
    [
        *((16, 8, 0.95, 0.0), (8, 16, 0.95, 0.0), (4, 32, 0.95, 0.01), (2, 64, 0.95, 0.015), (16, 8, 0.5, 0.01)),
        *((4, 32, 0.9, 0.0), (4, 32, 0.5, 0.0), (5, 25, 0.5, 0.0), (6, 21, 0.5, 0.01)),
    ],
)
def test_size_of_a_budget_exactly_at_the_quantile(
    blocks: int, size: int, quantile: float, excess: float, wave: float
) -> None:
    """About 128 requests that share ``wave`` of their variance in a block, 600 seeded draws, 3 SE of slack."""
    rng = np.random.default_rng(3)
    draws, limit = 600, math.exp(0.2 * scipy.stats.norm.ppf(quantile))
    names = np.repeat(np.arange(blocks), size).tolist()
    passed = failed = 0
    for _ in range(draws):
        shared, own = rng.standard_normal((blocks, 1)), rng.standard_normal((blocks, size))
        values = np.exp(0.2 * (math.sqrt(wave) * shared + math.sqrt(1 - wave) * own)).ravel().tolist()
        result = share_over(values, names, budget=limit, quantile=quantile)
        passed, failed = passed + (result.p_pass < 0.05), failed + (result.p_fail < 0.05)

    assert max(passed, failed) / draws <= 0.05 + excess + 3 * math.sqrt(0.05 * 0.95 / draws)


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("prompts", [16, 32, 64])
def test_size_where_few_prompts_are_timed_again_and_again(prompts: int, correlation: float) -> None:
    """128 requests that share ``correlation`` of their variance in a prompt, 600 seeded draws, 3 SE of slack."""
    rng = np.random.default_rng(5)
    draws, limit = 600, math.exp(0.2 * scipy.stats.norm.ppf(0.95))
    blocks = [place // 8 for place in range(128)]
    passed = failed = 0
    for _ in range(draws):
        of = np.concatenate([rng.permutation(prompts) for _ in range(128 // prompts)])
        shared, own = rng.standard_normal(prompts)[of], rng.standard_normal(128)
        values = np.exp(0.2 * (math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own)).tolist()
        result = share_over(values, blocks, budget=limit, quantile=0.95, prompts=of.tolist())
        passed, failed = passed + (result.p_pass < 0.05), failed + (result.p_fail < 0.05)

    assert max(passed, failed) / draws <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)


@pytest.mark.slow
@pytest.mark.parametrize("quantile", [0.5, 0.95])
@pytest.mark.parametrize(("of_block", "of_prompt"), [(0.4, 0.4), (0.2, 0.2), (0.0, 0.4), (0.4, 0.0)])
def test_size_where_blocks_and_prompts_both_act(of_block: float, of_prompt: float, quantile: float) -> None:
    """16 prompts in each of 16 blocks that have so much of the variance each: 600 seeded draws, 3 SE of slack."""
    rng, draws, limit = np.random.default_rng(2), 600, math.exp(0.2 * scipy.stats.norm.ppf(quantile))
    names, own = np.repeat(np.arange(16), 16), 1.0 - of_block - of_prompt
    passed = failed = 0
    for _ in range(draws):
        of = np.concatenate([rng.permutation(16) for _ in range(16)])
        blocks, prompts = rng.standard_normal(16)[names], rng.standard_normal(16)[of]
        scores = (
            math.sqrt(of_block) * blocks + math.sqrt(of_prompt) * prompts + math.sqrt(own) * rng.standard_normal(256)
        )
        values = np.exp(0.2 * scores).tolist()
        result = share_over(values, names.tolist(), budget=limit, quantile=quantile, prompts=of.tolist())
        passed, failed = passed + (result.p_pass < 0.05), failed + (result.p_fail < 0.05)

    assert max(passed, failed) / draws <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)


@pytest.mark.slow
@pytest.mark.parametrize(("prompts", "passes"), [(8, 0.67), (16, 0.41), (32, 0.18), (128, 0.05)])
def test_size_where_one_prompt_in_twenty_is_always_late(prompts: int, passes: float) -> None:
    """128 requests, 400 seeded draws, 3 SE of slack.

    Where no prompt is late it passes, as often as docs/statistics.md says, and a remark says so; else as rarely as
    told.
    """
    rng, draws, blocks = np.random.default_rng(1), 400, [place // 8 for place in range(128)]
    passed = failed = unseen = 0
    for _ in range(draws):
        late = rng.random(prompts) < 0.05
        of = np.concatenate([rng.permutation(prompts) for _ in range(128 // prompts)])
        values = (np.where(late[of], 3.0, 1.0) * rng.lognormal(0, 0.1, 128)).tolist()
        result = share_over(values, blocks, budget=2.0, quantile=0.95, prompts=of.tolist())
        passed, failed = passed + (result.over > 0 and result.p_pass < 0.05), failed + (result.p_fail < 0.05)
        unseen += result.over == 0 and result.p_pass < 0.05

    assert max(passed, failed) / draws <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)
    assert (passed + unseen) / draws == pytest.approx(passes, abs=3 * math.sqrt(passes * (1 - passes) / draws))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("blocks", "size", "share", "passes"),
    [
        *((16, 8, 0.05, 0.43), (8, 16, 0.05, 0.65), (4, 32, 0.05, 0.81), (2, 64, 0.05, 0.90)),
        (16, 8, 0.2, 0.05),
    ],
)
def test_size_where_an_outage_takes_a_block(blocks: int, size: int, share: float, passes: float) -> None:
    """Exactly as many requests fail as may, a block at a time: a PASS after a failure, or a FAIL, is as rare as told.

    Runs without any failure pass, as often as there is none (the figures of docs/statistics.md): then nothing tells how
    long outages are, and that is said.
    """
    rng = np.random.default_rng(1)
    draws, names = 800, np.repeat(np.arange(blocks), size).tolist()
    passed = failed = unseen = 0
    for _ in range(draws):
        down = np.repeat(rng.random(blocks) < share, size)
        result = share_failed(down.tolist(), names, at_most=share)
        passed, failed = passed + (bool(down.any()) and result.p_pass < 0.05), failed + (result.p_fail < 0.05)
        unseen += not down.any() and result.p_pass < 0.05

    assert max(passed, failed) / draws <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)
    assert (passed + unseen) / draws == pytest.approx(passes, abs=3 * math.sqrt(passes * (1 - passes) / draws))


def test_what_goes_together_most_counts() -> None:
    slow = [3.0 if place % 16 == 0 else 1.0 for place in range(128)]
    of_prompts = share_over(slow, [place // 8 for place in range(128)], budget=2.0, quantile=0.9, prompts=PROMPTS)
    single = share_over(slow, [place // 8 for place in range(128)], budget=2.0, quantile=0.9)

    assert (of_prompts.together, of_prompts.prompts, round(of_prompts.effective)) == ("prompt", 16, 16)
    assert (single.together, single.prompts, round(single.effective)) == ("block", 128, 128)
    alike = share_over([1.0] * 128, [place // 8 for place in range(128)], budget=2.0, quantile=0.9, prompts=[0] * 128)
    assert (alike.effective, alike.p_pass > 0.05) == (1, True), "of other prompts nothing is known"


PROMPTS = [place % 16 for place in range(128)]


def ratio(a: list[float], b: list[float], *, pairs: int = 8, **options: float) -> RatioResult:
    blocks_a, blocks_b = (
        [i * pairs // len(a) for i in range(len(a))],
        [100 + i * pairs // len(b) for i in range(len(b))],
    )
    settings = {"quantile": 0.5, "limit": 1.25, "alpha": 0.05} | options
    return quantile_ratio(a, b, blocks_a, blocks_b, seed=1, **settings)


def lognormal(seed: int, n: int, scale: float = 1.0) -> list[float]:
    return [scale * float(value) for value in np.random.default_rng(seed).lognormal(0, 0.2, n)]


def test_equal_engines_pass_and_slow_ones_fail() -> None:
    assert ratio(lognormal(1, 128), lognormal(2, 128)).upper < 1.25
    slow = ratio(lognormal(1, 128), lognormal(2, 128, 1.6))

    assert slow.lower > 1.25
    assert slow.p_fail < 0.05
    assert slow.pairs == 8


def test_what_slows_a_whole_pair_is_no_evidence() -> None:
    drift = np.repeat([1.0, 3.0, 1.5, 5.0, 2.0, 1.0, 4.0, 2.5], 16)
    a, b = (np.array(lognormal(seed, 128)) * drift for seed in (5, 6))

    assert ratio(a.tolist(), b.tolist(), limit=1.5).p_pass < 0.05


def test_one_pair_of_blocks_settles_nothing() -> None:
    result = ratio(lognormal(1, 64), lognormal(2, 64, 3.0), pairs=1)

    assert (result.bounded, result.pairs, result.lower, result.upper) == (False, 1, 0.0, math.inf)
    assert (result.p_pass, result.p_fail) == (1.0, 1.0)
    assert result.estimate > 2


def test_too_few_requests_bound_nothing() -> None:
    result = ratio(lognormal(1, 71), lognormal(2, 200), quantile=0.95)

    assert (result.bounded, result.lower, result.upper) == (False, 0.0, math.inf)
    assert (result.p_pass, result.p_fail) == (1.0, 1.0)
    assert ratio(lognormal(1, 72), lognormal(2, 72), quantile=0.95).bounded


def test_failed_requests_are_slower_than_any_other() -> None:
    broken = [math.inf] * 40 + lognormal(2, 88)
    result = ratio(lognormal(1, 128), broken, quantile=0.9, pairs=4)

    assert (result.estimate, result.upper) == (math.inf, math.inf)
    assert result.p_pass > 0.5
    both = ratio([math.inf] * 128, [math.inf] * 128)
    assert (both.estimate, both.bounded, both.p_fail) == (math.inf, False, 1.0)
    partly = ratio([math.inf] * 60 + lognormal(1, 68), [math.inf] * 60 + lognormal(2, 68), pairs=4)
    assert partly.p_pass >= 0.05


def test_zero_latencies_are_survived() -> None:
    assert ratio([0.0] * 20, [0.0] * 20).bounded is False
    assert ratio([0.0] * 20, [1.0] * 20).estimate == math.inf
    assert ratio([1.0] * 20, [1.0] * 20).upper == 1.0
    assert ratio([1.0] * 20, [2.0] * 20, limit=2.0).p_pass == 1.0


def test_alpha_below_what_the_resamples_resolve_bounds_nothing() -> None:
    result = ratio(lognormal(1, 64), lognormal(2, 64), alpha=1e-4, pairs=2)

    assert (result.lower, result.upper) == (0.0, math.inf)
    assert result.p_pass >= 1e-4


latencies = st.lists(st.floats(0.01, 10) | st.just(math.inf), min_size=8, max_size=30)


@pytest.mark.slow
@given(latencies, latencies, st.integers(1, 4), st.sampled_from([0.05, 0.01]), st.sampled_from([0.8, 1.25]))
@settings(max_examples=60, deadline=None)
def test_ratio_bounds_and_p_values_agree(
    a: list[float], b: list[float], pairs: int, alpha: float, limit: float
) -> None:
    result = ratio(a, b, pairs=pairs, alpha=alpha, limit=limit)

    assert (result.upper < limit) == (result.p_pass < alpha)
    assert (result.lower > limit) == (result.p_fail < alpha)
    assert result.lower <= result.upper


@pytest.mark.slow
def test_ratio_size_at_the_limit() -> None:
    """True ratio equal to the limit, 8 pairs of 16 requests that share a factor; 120 seeded draws.

    A block bootstrap is approximate: 0.05 plus three standard errors and 0.015 of it.
    """
    rng = np.random.default_rng(5)
    passed = 0
    for _ in range(120):
        a, b = (np.repeat(rng.lognormal(0, 0.1, 8), 16) * rng.lognormal(0, 0.2, 128) for _ in range(2))
        passed += ratio(a.tolist(), (1.25 * b).tolist()).p_pass < 0.05

    assert passed / 120 <= 0.05 + 0.015 + 3 * math.sqrt(0.05 * 0.95 / 120)


def in_turn(a: list[list[float]], b: list[list[float]], *, quantile: float = 0.5, limit: float = 1.25) -> VisitsResult:
    """Return what is said of two engines by the latencies of each of their loads."""
    ours, theirs = ([value for load in loads for value in load] for loads in (a, b))
    our_loads, their_loads = ([place for place, load in enumerate(loads) for _ in load] for loads in (a, b))
    return ratio_in_turn(ours, theirs, our_loads, their_loads, quantile=quantile, limit=limit)


def test_bounds_of_engines_in_turn_are_welchs_over_loads() -> None:
    rng = np.random.default_rng(3)
    a, b = (
        [list(factor * rng.lognormal(0, 0.2, 32)) for factor in factors]
        for factors in ((1.0, 1.1, 0.95), (1.2, 1.15, 1.3))
    )
    of_loads = [[math.log(nearest_rank(load, 0.5)) for load in loads] for loads in (a, b)]

    seen = in_turn(a, b)

    welch = scipy.stats.ttest_ind(of_loads[1], of_loads[0], equal_var=False)
    reach = scipy.stats.t.ppf(0.95, welch.df) * (np.mean(of_loads[1]) - np.mean(of_loads[0])) / welch.statistic
    assert math.log(seen.upper / seen.estimate) == pytest.approx(reach, abs=1e-9)
    assert math.log(seen.estimate / seen.lower) == pytest.approx(reach, abs=1e-9)
    assert seen.loads == (3, 3)
    assert seen.spread == pytest.approx(math.sqrt(np.mean([np.var(side, ddof=1) for side in of_loads])), abs=1e-9)


def test_many_requests_of_few_loads_are_few_pieces_of_evidence() -> None:
    load = list(np.linspace(0.9, 1.1, 200))
    slower = [1.5 * value for value in load]

    assert in_turn([load, slower], [load, slower], limit=1.25).p_pass > 0.05
    assert in_turn([load, load], [load, load], limit=1.25).upper == 1.0
    once = in_turn([load, load], [load + slower])
    assert (once.bounded, once.loads, once.lower, once.upper) == (False, (2, 1), 0.0, math.inf)


def test_nothing_is_bounded_in_turn_where_requests_failed_or_are_too_few() -> None:
    load, failed = [1.0 + 0.001 * place for place in range(16)], [math.inf] * 16

    assert not in_turn([load, load], [load, failed]).bounded
    assert in_turn([failed, failed], [failed, failed]).estimate == math.inf
    assert not in_turn([load[:3], load[:1]], [load[:3], load[:1]]).bounded
    with pytest.raises(ValueError, match="positive"):
        in_turn([load], [load], limit=0.0)


@given(
    st.lists(st.lists(st.floats(0.001, 1000), min_size=1, max_size=12), min_size=1, max_size=5),
    st.lists(st.lists(st.floats(0.001, 1000), min_size=1, max_size=12), min_size=1, max_size=5),
    st.floats(0.1, 10),
)
def test_bounds_and_p_values_of_engines_in_turn_agree(a: list[list[float]], b: list[list[float]], limit: float) -> None:
    seen = in_turn(a, b, limit=limit)

    assert 0.0 <= seen.lower <= seen.estimate <= seen.upper
    if abs(seen.upper / limit - 1) > 1e-9 and abs(seen.lower / limit - 1) > 1e-9:
        assert (seen.upper < limit) == (seen.p_pass < 0.05)
        assert (seen.lower > limit) == (seen.p_fail < 0.05)


def drawn_in_turn(
    rng: np.random.Generator, spreads: tuple[float, float], ratio: float, changes: int, quantile: float
) -> VisitsResult:
    """128 requests of each engine whose loads differ by ``spreads``, requests of one load by 0.2."""
    sides = [
        [list(rng.lognormal(rng.normal(math.log(of), spread), 0.2, count)) for count in counts]
        for counts, spread, of in zip(requests_of_loads(2, changes, 128), spreads, (1.0, ratio), strict=True)
    ]
    return in_turn(*sides, quantile=quantile)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [4, 8])
@pytest.mark.parametrize("quantile", [0.5, 0.95])
@pytest.mark.parametrize("spreads", [(0.0, 0.0), (0.03, 0.03), (0.1, 0.1), (0.0, 0.1)])
def test_size_at_the_limit_of_engines_in_turn(spreads: tuple[float, float], quantile: float, changes: int) -> None:
    """True ratio equal to the limit: 400 seeded draws, 3 SE of slack.

    Where loads differ on one side only, one or two points more pass or fail (Welch's approximation with two loads; of a
    p95 the true one moves with the spread too).
    """
    rng = np.random.default_rng(7)
    results = [drawn_in_turn(rng, spreads, 1.25, changes, quantile) for _ in range(400)]
    passed, failed = sum(r.upper < 1.25 for r in results), sum(r.lower > 1.25 for r in results)

    excess = 0.02 if spreads[0] != spreads[1] else 0.0
    assert max(passed, failed) / 400 <= 0.05 + excess + 3 * math.sqrt(0.05 * 0.95 / 400)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [3, 4, 8])
def test_a_plan_tells_the_power_of_engines_in_turn(changes: int) -> None:
    """Loads that differ as much as the plan says settle four of five runs: 400 seeded draws, 3 SE of slack."""
    loads = requests_of_loads(2, changes, 4000)
    spread = spread_settled(loads, math.log(1.25), alpha=0.05)
    rng = np.random.default_rng(11)

    def equal() -> VisitsResult:
        drawn = [[[float(np.exp(rng.normal(0, spread)))] * (count // 100) for count in side] for side in loads]
        return in_turn(*drawn)

    settled = sum(equal().upper < 1.25 for _ in range(400)) / 400
    assert abs(settled - 0.8) < 3 * math.sqrt(0.8 * 0.2 / 400) + 0.05


def test_more_changes_settle_loads_that_differ_more() -> None:
    settled = [spread_settled(requests_of_loads(2, changes, 128), math.log(1.25), alpha=0.05) for changes in (3, 4, 8)]

    # Of a million draws; the ten thousand of a plan scatter by less than 1 %.
    assert settled == pytest.approx([0.0361, 0.0537, 0.1141], rel=0.02)


def test_quantiles_shown_are_numpys() -> None:
    values = lognormal(3, 37)

    assert describe(values) == pytest.approx(tuple(np.percentile(values, [50, 95, 99])))
    assert describe([2.0]) == (2.0, 2.0, 2.0)
    assert describe([1.0] * 19 + [math.inf]) == (1.0, math.inf, math.inf)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_nearest_rank_is_numpys_inverted_cdf(values: list[float], quantile: float) -> None:
    nearest = nearest_rank(values, quantile)

    assert nearest in values
    assert sum(value <= nearest for value in values) >= quantile * len(values) - 1e-9
    assert sum(value < nearest for value in values) < quantile * len(values) - 1e-9 or nearest == min(values)


def test_bad_data_is_refused() -> None:
    with pytest.raises(ValueError, match="a share needs requests"):
        share_over([], [], budget=1.0, quantile=0.95)
    with pytest.raises(ValueError, match="quantile lies"):
        share_over([1.0], [0], budget=1.0, quantile=95)
    with pytest.raises(ValueError, match="alpha lies"):
        min_requests(0.95, 0.7)
    with pytest.raises(ValueError, match="at least one value"):
        describe([])
    with pytest.raises(ValueError, match="limit of a ratio"):
        quantile_ratio([1.0], [1.0], [0], [0], quantile=0.5, limit=0.0)
    with pytest.raises(ValueError, match="do not match"):
        quantile_ratio([], [1.0], [], [0], quantile=0.5, limit=1.0)
    with pytest.raises(ValueError, match="NaN and negative"):
        quantile_ratio([math.nan], [1.0], [0], [0], quantile=0.5, limit=1.0)
    with pytest.raises(ValueError, match="cannot pair"):
        quantile_ratio([1.0, 1.0], [1.0, 1.0], [0, 1], [0, 0], quantile=0.5, limit=1.0)
