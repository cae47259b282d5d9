"""Fork hazard: how often two greedy answers part, per token at risk, with bounds that hold for templated prompts."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from pytest_llmparity.core.late import special
from pytest_llmparity.core.stats.bounds import Bounds, check_alpha, smallest_total
from pytest_llmparity.core.stats.cluster import ClusteredRatio, clustered_ratio, t_bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class HazardResult(Bounds):
    """Forks per token at risk, one-sided bounds and the p-values that go with them.

    ``p_pass`` belongs to "the hazard is at least the margin", ``p_fail`` to "at most the margin": ``upper < margin``
    exactly when ``p_pass < alpha``, ``lower > margin`` exactly when ``p_fail < alpha``. ``at_risk`` is in baseline
    tokens. ``groups`` counts groups with tokens at risk; ``se`` is the standard error of the cluster-robust bound,
    ``None`` where that took no part (it needs two groups), ``within`` the ratio whose standard error FAIL goes by where
    that is another one. With nothing at risk the estimate is 0 and says nothing, and
    several prompts of one group count as one, which bounds nothing: the bounds are 0 and infinity and both p-values 1.
    """

    forks: int
    at_risk: float
    groups: int
    se: float | None = None
    within: ClusteredRatio | None = None

    @property
    def one_group(self) -> bool:
        """Whether several prompts were judged and all of them come from one group."""
        return self.groups == 1 and math.isinf(self.upper)


def hazard(
    forked: Sequence[bool],
    at_risk: Sequence[float],
    groups: Sequence[str],
    *,
    margin: float,
    alpha: float = 0.05,
    strata: Mapping[str, Hashable] | None = None,
) -> HazardResult:
    """Judge forks per token against ``margin``, one entry per prompt.

    Each bound is the wider of two: Garwood's exact Poisson bound (Biometrika 1936 28:437), which knows how little a
    handful of forks says, and the cluster-robust one with t(G-1), which knows that prompts of one template fork
    together. Each p-value is the larger of the two. The Poisson bound is conservative because at most one fork per
    prompt can happen.

    ``strata`` says of what kind the prompts of a group are. FAIL speaks of this mix of kinds, so that what kinds differ
    from each other does not count against it; PASS does not use them, as its error rate would not hold (.062 to .065 at
    a nominal .05). Raises ``ValueError`` for lengths that differ, a margin that is not positive, an alpha outside
    0..0.5 or tokens at risk that are negative or not finite.
    """
    _check(margin, alpha)
    if any(not (math.isfinite(tokens) and tokens >= 0.0) for tokens in at_risk):
        raise ValueError("tokens at risk must be finite and not negative")
    forks = sum(map(bool, forked))
    exposure = math.fsum(at_risk)
    if len(forked) != len(at_risk) or len(forked) != len(groups):
        raise ValueError(f"{len(forked)} prompts, {len(at_risk)} at-risk counts and {len(groups)} groups do not match")
    if exposure == 0.0:
        return HazardResult(
            estimate=0.0, lower=0.0, upper=math.inf, p_pass=1.0, p_fail=1.0, forks=forks, at_risk=0.0, groups=0
        )
    ratio = clustered_ratio([float(fork) for fork in forked], at_risk, groups)
    lower, upper = garwood(forks, exposure, alpha)
    p_pass, p_fail = _tails(forks, margin * exposure)
    within: ClusteredRatio | None = None
    if ratio.se is not None:
        cluster_lower, cluster_upper = ratio.bounds(alpha)
        cluster_pass, cluster_fail = ratio.p_values(margin)
        if strata:
            stratified = clustered_ratio([float(fork) for fork in forked], at_risk, groups, strata)
            cluster_lower, cluster_fail = stratified.bounds(alpha)[0], stratified.p_values(margin)[1]
            within = stratified if stratified.strata > 1 else None
        lower, upper = max(0.0, min(lower, cluster_lower)), max(upper, cluster_upper)
        p_pass, p_fail = max(p_pass, cluster_pass), max(p_fail, cluster_fail)
    elif sum(tokens > 0.0 for tokens in at_risk) > 1:  # how alike prompts of one group are shows only between groups
        lower, upper, p_pass, p_fail = 0.0, math.inf, 1.0, 1.0
    return HazardResult(
        estimate=ratio.estimate,
        lower=lower,
        upper=upper,
        p_pass=p_pass,
        p_fail=p_fail,
        forks=forks,
        at_risk=exposure,
        groups=ratio.groups,
        se=ratio.se,
        within=within,
    )


def garwood(forks: float, at_risk: float, alpha: float) -> tuple[float, float]:
    """Return exact one-sided Poisson bounds of a rate: χ²(alpha; 2D)/2E and χ²(1-alpha; 2D+2)/2E (Garwood 1936)."""
    lower = 0.0 if forks == 0 else float(special.gammaincinv(forks, alpha)) / at_risk  # the quantile of χ²(2D)/2
    return lower, float(special.gammainccinv(forks + 1, alpha)) / at_risk


def prompts_needed(result: HazardResult, n: int, margin: float, alpha: float) -> int | None:
    """Return how many prompts in all would settle the question if further ones behaved like the ``n`` so far.

    Forks, tokens at risk and groups grow in proportion, the kinds of prompts are the same, and standard errors fall
    with the root: that of PASS, and that within kinds by which FAIL goes. ``None`` when more than
    100,000 would be needed (hazard and margin nearly equal), nothing was at risk or all come from one group. An
    estimate, not a promise: after looking once, bounds must be tightened (docs/verdicts.md, *Looking again*).
    """
    _check(margin, alpha)
    if n <= 0 or result.at_risk == 0.0 or result.one_group:
        return None

    def settles(total: int) -> bool:
        factor = total / n
        if result.se is None:
            below = above = True
        else:
            _, upper = t_bounds(result.estimate, result.se / math.sqrt(factor), result.groups * factor, alpha)
            fails = result.within or result
            kinds = 1 if result.within is None else result.within.strata
            assert fails.se is not None
            freedom = result.groups * factor - kinds + 1
            lower, _ = t_bounds(result.estimate, fails.se / math.sqrt(factor), freedom, alpha)
            below, above = upper < margin, lower > margin
        at_most, at_least = _tails(result.forks * factor, margin * result.at_risk * factor)
        return (below and at_most < alpha) or (above and at_least < alpha)

    return smallest_total(n, settles)


def _tails(forks: float, expected: float) -> tuple[float, float]:
    """Return the chance of at most so many forks where so many are expected, and of at least so many."""
    at_most = float(special.gammaincc(forks + 1, expected))
    return at_most, 1.0 if forks == 0 else float(special.gammainc(forks, expected))


def can_pass(n_tokens: float, margin: float, alpha: float) -> bool:
    """Whether ``n_tokens`` tokens at risk without a single fork would bound the hazard below ``margin``."""
    _check(margin, alpha)
    return n_tokens > 0 and -math.log(alpha) / n_tokens < margin


def _check(margin: float, alpha: float) -> None:
    if not (math.isfinite(margin) and margin > 0.0):
        raise ValueError(f"a margin is a positive number of forks per token, not {margin!r}")
    check_alpha(alpha)
