"""Latency budgets: ratios of quantiles, and how many requests they need.

A quantile that decides is the nearest rank (the smallest value with at least that share of values at or below it), one
that is shown is interpolated linearly. Failed requests are passed as ``math.inf``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from pytest_llmparity.core.late import np, special
from pytest_llmparity.core.stats.bounds import Bounds, check_quantile
from pytest_llmparity.core.stats.cluster import t_quantile, t_tails
from pytest_llmparity.core.stats.shares import least_perfect

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_llmparity.core.late import Floats

_RUNS = 10_000
SETTLED = 0.8
"""Share of runs in which a plan wants a ratio to be settled."""
DRAWS = 1_999
"""Bootstrap resamples; with the observed data 2,000, so a p-value is a multiple of 0.0005."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioResult(Bounds):
    """The candidate's quantile over the baseline's, held against a limit.

    ``upper < limit`` exactly when ``p_pass < alpha``, ``lower > limit`` exactly when ``p_fail < alpha``. ``pairs``
    counts pairs of neighbouring A and B blocks. ``bounded`` is false where there was only one, or too few requests for
    the quantile: the bounds are 0 and infinity and nothing can be concluded.
    """

    pairs: int
    bounded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitsResult(Bounds):
    """The candidate's quantile over the baseline's, of engines that were loaded in turn, held against a limit.

    ``upper < limit`` exactly when ``p_pass < alpha``, ``lower > limit`` exactly when ``p_fail < alpha``. ``loads`` are
    how often the baseline and the candidate were loaded, ``spread`` is the standard deviation of the quantile's
    logarithm from one load to another. ``bounded`` is false where one of them was loaded once or has too few requests
    for the quantile: the bounds are 0 and infinity and nothing can be concluded.
    """

    loads: tuple[int, int]
    spread: float
    bounded: bool


def quantile_ratio(
    a: Sequence[float],
    b: Sequence[float],
    blocks_a: Sequence[int],
    blocks_b: Sequence[int],
    *,
    quantile: float,
    limit: float,
    alpha: float = 0.05,
    seed: int = 0,
) -> RatioResult:
    """Judge the ratio of the candidate's quantile (``b``) to the baseline's (``a``) against ``limit``.

    The n-th block of one engine and the n-th of the other ran next to each other (A B B A …) and form a pair; pairs are
    resampled with replacement, so what slows a whole pair does not count as evidence. Each bound is the wider of the
    bootstrap percentile and a t(pairs - 1) bound on the logarithm with the bootstrap's standard error, because few
    pairs make percentiles too narrow. One pair says nothing of how pairs differ, so the ratio is not bounded.

    Below :func:`min_requests` ``(quantile, alpha / 2)`` requests a side the quantile is not bounded by its sample and
    neither is the ratio. A failed request is ``inf`` and slower than any other; where both quantiles are infinite the
    ratio is unknown (estimate ``inf``, not bounded). Raises ``ValueError`` for empty or negative data, NaN,
    lengths that differ, unequal numbers of blocks or parameters out of range.
    """
    check_quantile(quantile, alpha)
    if not (math.isfinite(limit) and limit > 0.0):
        raise ValueError(f"the limit of a ratio is a positive number, not {limit!r}")
    ours, theirs = _sample(a, blocks_a), _sample(b, blocks_b)
    if len(ours.names) != len(theirs.names):
        raise ValueError(f"{len(ours.names)} blocks of the baseline cannot pair with {len(theirs.names)}")
    pairs = len(ours.names)
    estimate = _divide(nearest_rank(b, quantile), nearest_rank(a, quantile))
    unknown = math.isnan(estimate)
    if pairs < 2 or min(len(a), len(b)) < min_requests(quantile, alpha / 2) or unknown:
        return RatioResult(
            estimate=math.inf if unknown else estimate,
            lower=0.0,
            upper=math.inf,
            p_pass=1.0,
            p_fail=1.0,
            pairs=pairs,
            bounded=False,
        )
    rng = np.random.default_rng(seed)
    draws = _resample(rng, pairs)
    top, below = theirs.quantiles(draws[:, theirs.block], quantile), ours.quantiles(draws[:, ours.block], quantile)
    lower, upper, p_pass, p_fail = _percentile_bounds(top, below, limit, alpha)
    wider = _log_t_bounds(estimate, top, below, pairs, limit, alpha)
    if wider is not None:
        lower, upper = min(lower, wider[0]), max(upper, wider[1])
        p_pass, p_fail = max(p_pass, wider[2]), max(p_fail, wider[3])
    return RatioResult(
        estimate=estimate, lower=lower, upper=upper, p_pass=p_pass, p_fail=p_fail, pairs=pairs, bounded=True
    )


def ratio_in_turn(
    a: Sequence[float],
    b: Sequence[float],
    loads_a: Sequence[int],
    loads_b: Sequence[int],
    *,
    quantile: float,
    limit: float,
    alpha: float = 0.05,
) -> VisitsResult:
    """Judge the ratio of the candidate's quantile (``b``) to the baseline's (``a``), each loaded anew for every turn.

    Requests of one load share whatever that load made of the engine, so a load is one piece of evidence however many
    requests it answered. The bounds are Welch's on the logarithm: each engine's variance is that of its loads' own
    quantiles, weighted by the squares of their shares of its requests (Welch 1947, Biometrika 34:28; degrees of freedom
    by Satterthwaite 1946). A load with few requests varies more and counts as any other, which errs towards wide.

    Below two loads or :func:`min_requests` ``(quantile, alpha / 2)`` requests a side nothing is bounded, nor where a
    load's quantile is a failed request (``inf``) or 0. Raises ``ValueError`` as :func:`quantile_ratio` does.
    """
    check_quantile(quantile, alpha)
    if not (math.isfinite(limit) and limit > 0.0):
        raise ValueError(f"the limit of a ratio is a positive number, not {limit!r}")
    sides = [_by_load(a, loads_a), _by_load(b, loads_b)]
    estimate = _divide(nearest_rank(b, quantile), nearest_rank(a, quantile))
    of_loads = [[nearest_rank(values, quantile) for values in side.values()] for side in sides]
    loads = (len(sides[0]), len(sides[1]))
    known = all(0.0 < value < math.inf for side in of_loads for value in side)
    if min(loads) < 2 or min(len(a), len(b)) < min_requests(quantile, alpha / 2) or not known:
        return VisitsResult(
            estimate=math.inf if math.isnan(estimate) else estimate,
            lower=0.0,
            upper=math.inf,
            p_pass=1.0,
            p_fail=1.0,
            loads=loads,
            spread=math.nan,
            bounded=False,
        )
    variances = [float(np.var(np.log(side), ddof=1)) for side in of_loads]
    parts = [_squared_shares(side) * variance for side, variance in zip(sides, variances, strict=True)]
    pooled = sum((count - 1) * variance for count, variance in zip(loads, variances, strict=True)) / (sum(loads) - 2)
    se, centre = math.sqrt(sum(parts)), math.log(estimate)
    if se == 0.0:
        lower, upper, p_pass, p_fail = estimate, estimate, float(estimate >= limit), float(estimate <= limit)
    else:
        freedom = sum(parts) ** 2 / sum(part**2 / (count - 1) for part, count in zip(parts, loads, strict=True))
        reach = t_quantile(alpha, freedom) * se
        lower, upper = math.exp(centre - reach), math.exp(centre + reach)
        p_pass, p_fail = t_tails((centre - math.log(limit)) / se, freedom)
    return VisitsResult(
        estimate=estimate,
        lower=lower,
        upper=upper,
        p_pass=p_pass,
        p_fail=p_fail,
        loads=loads,
        spread=math.sqrt(pooled),
        bounded=True,
    )


def spread_settled(loads: Sequence[Sequence[int]], distance: float, *, alpha: float) -> float:
    """Return by how much loads may differ for :func:`ratio_in_turn` to settle a ratio in :data:`SETTLED` of the runs.

    That is the standard deviation of a load's quantile on the logarithmic scale, the same on both sides, its own
    requests' share in it included. ``loads`` say of both engines how many requests each load answers; ``distance`` is
    that of the true ratio from the limit, on the same scale. By simulation of the loads' quantiles with a fixed seed.
    """
    return distance / _reach_in_spreads(tuple(map(tuple, loads)), alpha)


@cache
def _reach_in_spreads(loads: tuple[tuple[int, ...], ...], alpha: float) -> float:
    """Return how far from the limit a ratio has to be, in standard deviations of a load."""
    rng = np.random.default_rng(0)
    drawn = [rng.standard_normal((_RUNS, len(requests))) for requests in loads]
    shares = [np.asarray(requests) / sum(requests) for requests in loads]
    parts = [(of**2).sum() * side.var(axis=1, ddof=1) for side, of in zip(drawn, shares, strict=True)]
    freedom = sum(parts) ** 2 / sum(part**2 / (side.shape[1] - 1) for part, side in zip(parts, drawn, strict=True))
    difference = drawn[1] @ shares[1] - drawn[0] @ shares[0]
    return float(np.quantile(difference - special.stdtrit(freedom, alpha) * np.sqrt(sum(parts)), SETTLED))


def _by_load(values: Sequence[float], loads: Sequence[int]) -> dict[int, list[float]]:
    """Return latencies by load; refuses what no latency is."""
    _sample(values, loads)
    by_load: dict[int, list[float]] = {}
    for value, load in zip(values, loads, strict=True):
        by_load.setdefault(load, []).append(value)
    return by_load


def _squared_shares(by_load: Mapping[int, Sequence[float]]) -> float:
    """Return what the variance of one load is multiplied with for that of all of them together."""
    counts = [len(values) for values in by_load.values()]
    return math.fsum(count**2 for count in counts) / sum(counts) ** 2


def min_requests(quantile: float, alpha: float = 0.05) -> int:
    """Return the fewest requests that can pass a budget on ``quantile``, none being over it: p95 59, p99 299."""
    check_quantile(quantile, alpha)
    least = least_perfect(quantile, alpha)
    assert least is not None
    return least


def nearest_rank(values: Sequence[float], quantile: float) -> float:
    """Return the smallest value with at least ``quantile`` of all values at or below it."""
    ordered = sorted(values)
    return ordered[_rank(quantile, len(ordered)) - 1]


def describe(values: Sequence[float]) -> tuple[float, float, float]:
    """Return p50, p95 and p99 for display, interpolated linearly; infinite where an infinite value takes part.

    Raises ``ValueError`` without values.
    """
    if not values:
        raise ValueError("quantiles need at least one value")
    ordered = sorted(values)
    return _linear(ordered, 0.5), _linear(ordered, 0.95), _linear(ordered, 0.99)


def _linear(ordered: Sequence[float], quantile: float) -> float:
    place = quantile * (len(ordered) - 1)
    index = math.floor(place)
    share = place - index
    if share == 0.0:
        return ordered[index]
    low, high = ordered[index], ordered[index + 1]
    return high if math.isinf(high) else low + share * (high - low)


def _rank(quantile: float, n: float) -> int:
    return max(1, math.ceil(quantile * n - 1e-9))  # 0.95 * 20 is 19.000000000000004 without the allowance


@dataclass(frozen=True, slots=True)
class _Sample:
    """Latencies in ascending order with the index of each one's block among its engine's blocks."""

    values: Floats
    block: NDArray[np.intp]
    names: tuple[int, ...]

    def quantiles(self, weights: Floats, quantile: float) -> Floats:
        """Return the nearest-rank quantile of each resample; ``weights[r, i]``: how often value i occurs in r."""
        cumulated = weights.cumsum(axis=1)
        wanted = np.maximum(1.0, np.ceil(quantile * cumulated[:, -1:] - 1e-9))
        resampled: Floats = self.values[(cumulated >= wanted).argmax(axis=1)]
        return resampled


def _sample(values: Sequence[float], blocks: Sequence[int]) -> _Sample:
    if not values or len(values) != len(blocks):
        raise ValueError(f"{len(values)} latencies and {len(blocks)} block numbers do not match")
    if any(not value >= 0.0 for value in values):
        raise ValueError("latencies are numbers of seconds from 0 up; NaN and negative ones are not")
    names = tuple(sorted(set(blocks)))
    array = np.asarray(values, dtype=np.float64)
    order = np.argsort(array, kind="stable")
    index = np.searchsorted(np.asarray(names), np.asarray(blocks))
    return _Sample(array[order], index[order], names)


def _resample(rng: np.random.Generator, size: int) -> Floats:
    """Return how often each of ``size`` values occurs in each of the bootstrap's resamples with replacement."""
    return rng.multinomial(size, np.full(size, 1.0 / size), size=DRAWS).astype(np.float64)


def _divide(top: float, below: float) -> float:
    """Return the ratio of two latencies; NaN where it is unknown (both infinite or both 0)."""
    if below == 0.0:
        return math.inf if top > 0.0 else math.nan
    return top / below


def _percentile_bounds(top: Floats, below: Floats, limit: float, alpha: float) -> tuple[float, float, float, float]:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = top / below
    # An unknown ratio counts as high for the upper bound and as low for the lower one.
    high, low = (
        np.sort(np.nan_to_num(ratios, nan=math.inf, posinf=math.inf)),
        np.sort(np.nan_to_num(ratios, nan=0.0, posinf=math.inf)),
    )
    p_pass = (1 + int(np.count_nonzero(high >= limit))) / (DRAWS + 1)
    p_fail = (1 + int(np.count_nonzero(low <= limit))) / (DRAWS + 1)
    # The most resamples that may lie beyond the limit while p stays below alpha.
    spare = math.ceil(alpha * (DRAWS + 1)) - 2
    if spare < 0:
        return 0.0, math.inf, p_pass, p_fail
    return float(low[spare]), float(high[-1 - spare]), p_pass, p_fail


def _log_t_bounds(
    estimate: float, top: Floats, below: Floats, pairs: int, limit: float, alpha: float
) -> tuple[float, float, float, float] | None:
    """Return bounds and p-values by t(pairs - 1) on the log ratio; ``None`` where a ratio is 0, infinite or unknown."""
    if not (np.all(np.isfinite(top)) and np.all(np.isfinite(below)) and np.all(top > 0) and np.all(below > 0)):
        return None
    se = float(np.std(np.log(top) - np.log(below), ddof=1)) * math.sqrt(pairs / (pairs - 1))
    centre = math.log(estimate)
    if se == 0.0:
        return estimate, estimate, float(estimate >= limit), float(estimate <= limit)
    reach = t_quantile(alpha, pairs - 1) * se
    p_pass, p_fail = t_tails((centre - math.log(limit)) / se, pairs - 1)
    return math.exp(centre - reach), math.exp(centre + reach), p_pass, p_fail
