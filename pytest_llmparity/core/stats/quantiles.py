"""Latency budgets: shares over a limit, ratios of quantiles, and how many requests they need.

A quantile that decides is the nearest rank (the smallest value with at least that share of values at or below it), one
that is shown is interpolated linearly. Failed requests are passed as ``math.inf``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from pytest_llmparity.core.late import np, special
from pytest_llmparity.core.stats.bounds import Bounds, check_alpha
from pytest_llmparity.core.stats.cluster import t_quantile, t_tails
from pytest_llmparity.core.stats.shares import binomial_tails, clopper_pearson, least_perfect

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_llmparity.core.late import Floats

_FEW = 4
_FEW_BELOW_P95 = 6
"""Fewer blocks than this hardly tell the variance between them. What is late beyond p95 goes together less by far, so
that an error of it weighs less there."""
_NODES = 40
_RUNS = 10_000
SETTLED = 0.8
"""Share of runs in which a plan wants a ratio to be settled."""
DRAWS = 1_999
"""Bootstrap resamples; with the observed data 2,000, so a p-value is a multiple of 0.0005."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareResult(Bounds):
    """Share of requests over a budget, held against the share a quantile allows (``limit``, 0.05 for p95).

    ``upper < limit`` exactly when ``p_pass < alpha``, ``lower > limit`` exactly when ``p_fail < alpha``. ``blocks``
    counts the time blocks, ``effective`` the independent requests that the ``n`` are worth: 0 with one block, of which
    nothing is known but that its requests were slow or fast together; the bounds are then 0 and 1.
    """

    limit: float
    over: int
    n: int
    blocks: int
    effective: float


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


def share_over(
    values: Sequence[float], blocks: Sequence[int], *, budget: float, quantile: float, alpha: float = 0.05
) -> ShareResult:
    """Judge "the ``quantile`` is within the budget" by counting requests over it: at most 1 - quantile may be.

    Requests of one time block are slow together, so the ``n`` count as n/deff, deff = 1 + (m - 1)·ICC with m requests a
    block, and the bounds are Clopper and Pearson's on that many (:func:`late_together` is the ICC). How often requests
    are late says little about how they go together where few are, so the ICC is that of the latencies, as normal
    scores of their ranks, by analysis of variance.

    Raises ``ValueError`` without requests, for lengths that differ, or a quantile or alpha out of range.
    """
    _check_quantile(quantile, alpha)
    if not values or len(values) != len(blocks):
        raise ValueError(f"a share needs requests, each with its block, not {len(values)} and {len(blocks)}")
    n, k = len(values), sum(value > budget for value in values)
    limit = round(1.0 - quantile, 12)  # 0.05, not 0.05000000000000004
    sizes = Counter(blocks)
    if len(sizes) < 2:
        everything = ShareResult(
            estimate=k / n,
            lower=0.0,
            upper=1.0,
            p_pass=1.0,
            p_fail=1.0,
            limit=limit,
            over=k,
            n=n,
            blocks=1,
            effective=0,
        )
        return everything
    few = _FEW if quantile >= 0.95 else _FEW_BELOW_P95
    together = late_together(together_in_blocks(values, blocks, few=few), quantile)
    mean_size = math.fsum(size**2 for size in sizes.values()) / n
    effective = n / (1.0 + (mean_size - 1.0) * together)
    late = k / n * effective if k < n else effective
    lower, upper = clopper_pearson(late, effective, alpha)
    p_pass, p_fail = binomial_tails(late, effective, limit)
    return ShareResult(
        estimate=k / n,
        lower=lower,
        upper=upper,
        p_pass=p_pass,
        p_fail=p_fail,
        limit=limit,
        over=k,
        n=n,
        blocks=len(sizes),
        effective=effective,
    )


def together_in_blocks(values: Sequence[float], blocks: Sequence[int], *, few: int = _FEW) -> float:
    """Return the intraclass correlation of latencies in blocks, 0 to 1: how much of their variance is between blocks.

    By one-way analysis of variance over the normal scores of their ranks, which is that of any increasing function of
    the latencies that is normal, and knows what to do with failures (``inf``). Of fewer than ``few`` blocks what is
    between them is hardly known: there it is the upper limit that holds in three of four cases.
    """
    _, block, sizes = np.unique(np.asarray(blocks), return_inverse=True, return_counts=True)
    n, count = len(values), len(sizes)
    scores = _normal_scores(values)
    total = float(scores.sum())
    between = float((np.bincount(block, weights=scores) ** 2 / sizes).sum()) - total**2 / n
    within = float((scores**2).sum()) - total**2 / n - between
    if n == count or between + within <= 1e-12:
        return 0.0
    if within <= 1e-12:
        return 1.0
    usual = (n - float((sizes**2).sum()) / n) / (count - 1)
    ratio = between / (count - 1) / (within / (n - count))
    if count < few:
        ratio /= float(special.fdtri(count - 1, n - count, 0.25))
    return max(0.0, (ratio - 1.0) / (ratio + usual - 1.0))


def late_together(correlation: float, quantile: float) -> float:
    """Return the correlation of "later than the quantile" for two latencies whose normal scores correlate so.

    P(both late) of a bivariate normal is q² + 1/2π · ∫ exp(-z²/(1 + sin t)) dt from 0 to arcsin of the correlation
    (Plackett 1954, Biometrika 41:351), here by Gauss and Legendre's rule.

    >>> round(late_together(0.3, 0.95), 3), late_together(0.0, 0.5), round(late_together(1.0, 0.95), 3)
    (0.118, 0.0, 1.0)
    """
    nodes, weights = _gauss()
    angle, z = math.asin(correlation), float(special.ndtri(quantile))
    places = (nodes + 1.0) * angle / 2.0
    joint = float((weights * np.exp(-(z**2) / (1.0 + np.sin(places)))).sum()) * angle / (4.0 * math.pi)
    return min(1.0, joint / (quantile * (1.0 - quantile)))


@cache
def _gauss() -> tuple[Floats, Floats]:
    """Return places between -1 and 1 and their weights in an integral."""
    return np.polynomial.legendre.leggauss(_NODES)


def _normal_scores(values: Sequence[float]) -> Floats:
    """Return the normal quantile of each value's place among all; equal values share the middle of their places."""
    _, place, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    middles = np.cumsum(counts) - counts / 2.0
    scores: Floats = special.ndtri(middles[place] / len(values))
    return scores


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
    _check_quantile(quantile, alpha)
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
    _check_quantile(quantile, alpha)
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
    _check_quantile(quantile, alpha)
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


def _check_quantile(quantile: float, alpha: float) -> None:
    if not 0.0 < quantile < 1.0:
        raise ValueError(f"a quantile lies between 0 and 1 (p95 is 0.95), not {quantile!r}")
    check_alpha(alpha)
