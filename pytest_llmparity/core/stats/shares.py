"""The share of cases that keep a contract, or of requests that are late: exact binomial bounds, and how many they need.

A failed request takes ``math.inf``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, Protocol

from pytest_llmparity.core.late import np, special
from pytest_llmparity.core.stats.bounds import Bounds, check_alpha, check_quantile, smallest_total
from pytest_llmparity.core.stats.cluster import clustered_ratio, t_quantile

if TYPE_CHECKING:
    from pytest_llmparity.core.late import Floats

UNEQUAL: Final = 0.2
"""Correlation that is taken for granted within groups as far as their sizes differ (tests/core/checks)."""


def clopper_pearson(k: float, n: float, alpha: float) -> tuple[float, float]:
    """Return exact one-sided bounds of a share where ``k`` of ``n`` were seen (Clopper, Pearson 1934).

    Neither number need be whole, so that a share may be extrapolated to other sizes.
    """
    lower = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, alpha))
    return lower, 1.0 if k == n else float(special.betainccinv(k + 1, n - k, alpha))


def effective_cases(values: Sequence[float], groups: Sequence[Hashable], alpha: float) -> float:
    """Return how many independent cases say as much about a mean as these do, whose cases of one group go together.

    n/deff · (t(n-1)/t(G-1))² with deff what grouping makes of the mean's variance (Korn and Graubard 1998, Survey
    Methodology 24:193), at most what groups of these sizes can count for (:func:`most_effective`); where all values are
    equal nothing is known of deff, and it is G. One group counts as one case.

    Groups of other sizes are as many as equal ones would be that say as much, G = n²/Σm².
    """
    sizes = list(Counter(groups).values())
    n = len(values)
    if len(sizes) < 2:
        return 1.0
    several = _equal_groups(sizes)
    mean = math.fsum(values) / n
    variance = math.fsum([(value - mean) ** 2 for value in values]) / n
    se = clustered_ratio(values, [1.0] * n, groups).se
    if variance == 0.0 or se is None:
        return float(round(several))
    deff = max(1.0, se**2 / (variance / (n - 1)))
    counted = n / deff * (t_quantile(alpha, n - 1) / t_quantile(alpha, several - 1)) ** 2
    return max(1.0, min(counted, most_effective(sizes, alpha)))


def most_effective(sizes: Sequence[int], alpha: float) -> float:
    """Return how many independent cases groups of these sizes count for at most.

    Where some are larger than others the few that hold most cases may keep a contract by chance while single cases, on
    which the variance is seen, break it seldom: so many of them are taken to answer alike as sizes differ, by a
    correlation of :data:`UNEQUAL` · (1 - G/groups). Equal groups count for n at most.

    >>> [round(most_effective(sizes, 0.05), 1) for sizes in ([5] * 30, [1] * 20 + [13] * 10, [1] * 150)]
    [142.3, 59.8, 150.0]
    """
    n, several = sum(sizes), _equal_groups(sizes)
    if several <= 1.0:
        return 1.0
    deff = 1.0 + (n / several - 1.0) * UNEQUAL * (1.0 - several / len(sizes))
    return n / deff * (t_quantile(alpha, n - 1) / t_quantile(alpha, several - 1)) ** 2


def _equal_groups(sizes: Sequence[int]) -> float:
    """Return how many groups of one size say as much as groups of these sizes."""
    return sum(sizes) ** 2 / sum(size * size for size in sizes)


def rate(k: float, n: float, *, at_least: float, alpha: float = 0.05) -> Bounds:
    """Judge the share ``k/n`` of cases that keep a contract against ``at_least``, by Clopper and Pearson.

    Neither number need be whole: cases that go together count for fewer independent ones (:func:`effective_cases`).

    ``lower > at_least`` exactly when ``p_pass < alpha``, ``upper < at_least`` exactly when ``p_fail < alpha``.
    ``at_least=1`` can be failed but never passed: no number of cases shows that none will ever break it. Raises
    ``ValueError`` for impossible counts, ``at_least`` outside 0..1 or an alpha outside 0..0.5.
    """
    if not (0 <= k <= n and n > 0):
        raise ValueError(f"{k} of {n} cases is impossible")
    check_alpha(alpha)
    if not 0.0 < at_least <= 1.0:
        raise ValueError(f"a rate lies above 0 and at most at 1, not {at_least!r}")
    lower, upper = clopper_pearson(k, n, alpha)
    at_most, more = binomial_tails(k, n, at_least)
    return Bounds(estimate=k / n, lower=lower, upper=upper, p_pass=more, p_fail=at_most)


def binomial_tails(k: float, n: float, share: float) -> tuple[float, float]:
    """Return the chance of at most ``k`` of ``n`` at this share, and of at least ``k``; neither need be whole."""
    at_most = 1.0 if k == n else float(special.betaincc(k + 1, n - k, share))
    return at_most, 1.0 if k == 0 else float(special.betainc(k, n - k + 1, share))


def least_perfect(at_least: float, alpha: float) -> int | None:
    """Return how many cases, all kept, show that at least this share is (59 for 0.95); ``None`` when none can (1.0).

    >>> least_perfect(0.95, 0.05), least_perfect(0.98, 0.05), least_perfect(1.0, 0.05)
    (59, 149, None)
    """
    if at_least >= 1.0:
        return None
    n = max(1, math.floor(math.log(alpha) / math.log(at_least)))
    while at_least**n >= alpha:
        n += 1
    return n


def share_needed(kept: float, n: float, at_least: float, alpha: float) -> int | None:
    """Return how many cases in all would settle a share that stays as it is; ``None`` when no number in reach does."""

    def settles(total: int) -> bool:  # by p-values, which say what bounds say and are computed faster
        return min(binomial_tails(total if kept == n else kept / n * total, total, at_least)) < alpha

    return smallest_total(math.ceil(n), settles)


# requests that go together --------------------------------------------------------------------------------------------

_FEW = 4
_FEW_BELOW_P95 = 6
"""Fewer blocks than this hardly tell the variance between them. What is late beyond p95 goes together less by far, so
that an error of it weighs less there."""
_NODES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareResult(Bounds):
    """Share of requests over a budget, held against the share a quantile allows (``limit``, 0.05 for p95).

    ``upper < limit`` exactly when ``p_pass < alpha``, ``lower > limit`` exactly when ``p_fail < alpha``. ``blocks``
    counts the time blocks, ``prompts`` the prompts, ``effective`` the independent requests that the ``n`` are worth: 0
    with one block, of which nothing is known but that its requests were slow or fast together; the bounds are then 0
    and 1. ``together`` says what makes them fewer most: those of a ``block`` or of a ``prompt``.
    """

    limit: float
    over: int
    n: int
    blocks: int
    effective: float
    prompts: int = 0
    together: str = "block"

    @property
    def others(self) -> Bounds:
        """The share of the requests that are not counted here."""
        lower, upper = 1.0 - self.upper, 1.0 - self.lower
        return Bounds(estimate=1.0 - self.estimate, lower=lower, upper=upper, p_pass=self.p_pass, p_fail=self.p_fail)


class Correlation(Protocol):
    """How requests of one block, or of one prompt, go together: 0 to 1."""

    def __call__(self, of: Sequence[int], *, of_prompts: bool) -> float:
        """Return it for the blocks, or prompts, by their numbers."""


def share_over(
    values: Sequence[float],
    blocks: Sequence[int],
    *,
    budget: float,
    quantile: float,
    alpha: float = 0.05,
    prompts: Sequence[Hashable] = (),
) -> ShareResult:
    """Judge "the ``quantile`` is within the budget" by counting requests over it: at most 1 - quantile may be.

    Requests of one time block are slow together, and so are those of one prompt (``prompts``; without them each is of
    its own). So the ``n`` count as n/deff, deff = 1 + Σ (m - 1)·ICC over blocks and prompts of m requests each, since
    their variances add, and the bounds are Clopper and Pearson's on that many (:func:`late_together` is the ICC). How
    often requests are late says little about how they go together where few are, so the ICC is that of the latencies,
    as normal scores of their ranks, by analysis of variance; a prompt that is late is late each time, whatever the
    others are, so of prompts it is at least that of being late itself.

    Raises ``ValueError`` without requests, for lengths that differ, or a quantile or alpha out of range.
    """
    check_quantile(quantile, alpha)
    few = _FEW if quantile >= 0.95 else _FEW_BELOW_P95
    over = [value > budget for value in values]

    def correlation(of: Sequence[int], *, of_prompts: bool) -> float:
        together = late_together(together_in_blocks(values, of, few=few), quantile)
        return max(together, together_in_blocks([float(late) for late in over], of)) if of_prompts else together

    return _share(
        over,
        blocks,
        prompts,
        correlation=correlation,
        limit=round(1.0 - quantile, 12),  # 0.05, not 0.05000000000000004
        alpha=alpha,
    )


def share_failed(
    failed: Sequence[bool],
    blocks: Sequence[int],
    *,
    at_most: float,
    alpha: float = 0.05,
    prompts: Sequence[Hashable] = (),
) -> ShareResult:
    """Judge "at most this share of requests fails": those of one outage, or of one prompt, go together.

    As :func:`share_over`, with the ICC of the failures themselves. Where no request failed, or all did, nothing is
    known of how failures go together, and each request counts: an outage as long as a block has then been seen in none.
    """
    check_quantile(1.0 - at_most, alpha)
    return _share(
        failed,
        blocks,
        prompts,
        correlation=lambda of, of_prompts: together_in_blocks([float(failure) for failure in failed], of),
        limit=at_most,
        alpha=alpha,
    )


def _share(
    over: Sequence[bool],
    blocks: Sequence[int],
    prompts: Sequence[Hashable],
    *,
    correlation: Correlation,
    limit: float,
    alpha: float,
) -> ShareResult:
    """Judge a share of requests against a limit; ``correlation`` is that within blocks, or prompts, given by number."""
    if not over or len(over) != len(blocks) or (prompts and len(prompts) != len(over)):
        raise ValueError(f"a share needs requests, each with its block, not {len(over)} and {len(blocks)}")
    n, k, count = len(over), sum(over), len(set(blocks))
    asked = len(set(prompts)) if prompts else n
    if count < 2:
        return ShareResult(
            estimate=k / n,
            lower=0.0,
            upper=1.0,
            p_pass=1.0,
            p_fail=1.0,
            limit=limit,
            over=k,
            n=n,
            blocks=count,
            effective=0,
            prompts=asked,
        )
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    more = {"block": _more(blocks, correlation(blocks, of_prompts=False))}
    if 1 < asked < n:
        parts = [numbers[prompt] for prompt in prompts]
        more["prompt"] = _more(parts, correlation(parts, of_prompts=True))
    together = max(more, key=lambda name: more[name])
    effective = n / (1.0 + math.fsum(more.values()))
    if asked == 1:
        together, effective = "prompt", 1.0  # of other prompts nothing is known
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
        blocks=count,
        effective=effective,
        prompts=asked,
        together=together,
    )


def _more(parts: Sequence[int], correlation: float) -> float:
    """Return by how much of itself the variance of a share grows as requests of a block, or a prompt, go together."""
    mean_size = math.fsum(size**2 for size in Counter(parts).values()) / len(parts)
    return (mean_size - 1.0) * correlation


def together_in_blocks(values: Sequence[float], blocks: Sequence[int], *, few: int = _FEW) -> float:
    """Return the intraclass correlation of latencies in blocks, 0 to 1: how much of their variance is between blocks.

    By one-way analysis of variance over the normal scores of their ranks, which is that of any increasing function of
    the latencies that is normal, and knows what to do with failures (``inf``). Of fewer than ``few`` blocks what is
    between them is hardly known: there it is the upper limit that holds in three of four cases.
    """
    sizes_of = sorted(Counter(blocks).items())  # sums do not hang on which block was first
    numbers = {name: number for number, (name, _) in enumerate(sizes_of)}
    block, sizes = np.array([numbers[name] for name in blocks]), np.array([size for _, size in sizes_of])
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
    (0.098, 0.0, 1.0)
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
    given = np.asarray(values, dtype=np.float64)
    ordered = np.sort(given)
    middles = (ordered.searchsorted(given, "left") + ordered.searchsorted(given, "right")) / 2.0
    scores: Floats = special.ndtri(middles / len(values))
    return scores
