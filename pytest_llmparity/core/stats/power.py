"""How often a fork hazard would be settled by prompts in so many groups: simulated before anything is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from pytest_llmparity.core.late import Floats, np, special
from pytest_llmparity.core.stats.bounds import check_alpha
from pytest_llmparity.core.stats.cluster import t_quantile

_RUNS: Final = 2_000
_ANSWERS: Final = 400_000
"""Answers that are drawn for one number at most: large prompt sets have fewer runs of them."""
_LEAST_RUNS: Final = 200
_RATES: Final = 2_000
_STEPS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """Of how many runs in one a smaller drift passes and a larger one is caught; within about 3 points."""

    passes: float
    caught: float


@lru_cache(maxsize=64)
def settled(
    sizes: tuple[int, ...],
    *,
    margin: float,
    passing: float,
    failing: float,
    horizon: int,
    share: float,
    alpha: float = 0.05,
) -> Settled:
    """Return how often a hazard of ``passing`` passes and one of ``failing`` fails with groups of these sizes.

    Groups differ as their rates do when these are exponential (a coefficient of variation of 1), with the hazard as
    their ratio of forks to tokens; within a group, prompts fork independently. Answers have ``horizon`` tokens. FAIL
    takes its ``share`` of ``alpha``: a test holds each engine against itself too, and corrects for that. Raises
    ``ValueError`` for less than two groups, sizes below 1, or hazards that are not between 0 and 1.
    """
    check_alpha(alpha)
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"power needs two groups with a prompt each, not {list(sizes)}")
    if not all(0.0 < hazard < 1.0 for hazard in (passing, failing)):
        raise ValueError(f"hazards lie between 0 and 1, not {passing!r} and {failing!r}")
    upper, _ = _bounds(sizes, hazard=passing, horizon=horizon, alpha=alpha)
    _, lower = _bounds(sizes, hazard=failing, horizon=horizon, alpha=share * alpha)
    return Settled(passes=float(np.mean(upper < margin)), caught=float(np.mean(lower > margin)))


def _bounds(sizes: Sequence[int], *, hazard: float, horizon: int, alpha: float) -> tuple[Floats, Floats]:
    """Return the upper and the lower bound of each simulated run, as :func:`~.hazard.hazard` computes them."""
    rng = np.random.default_rng(20260101)
    prompts, groups = sum(sizes), len(sizes)
    runs = max(_LEAST_RUNS, min(_RUNS, _ANSWERS // prompts))
    rates = np.clip(_mean_rate(hazard, horizon) * rng.exponential(size=(runs, groups)), 1e-9, 1.0)
    first = rng.geometric(np.repeat(rates, sizes, axis=1))  # the token at which a prompt's answers part
    begins = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    forks = np.add.reduceat((first <= horizon).astype(float), begins, axis=1)
    at_risk = np.add.reduceat(np.minimum(first, horizon).astype(float), begins, axis=1)
    total, exposure = forks.sum(axis=1), at_risk.sum(axis=1)
    ratio = total / exposure
    shares = at_risk / exposure[:, None] if prompts > groups else 1.0 / groups
    residuals = (forks - ratio[:, None] * at_risk) / (1.0 - shares)
    reach = t_quantile(alpha, groups - 1) * np.sqrt((groups - 1) / groups * (residuals**2).sum(axis=1)) / exposure
    upper = np.maximum(ratio + reach, special.gammainccinv(total + 1, alpha) / exposure)
    exact = np.where(total > 0, special.gammaincinv(np.maximum(total, 1), alpha), 0.0) / exposure
    return upper, np.minimum(ratio - reach, exact)


def _mean_rate(hazard: float, horizon: int) -> float:
    """Return the mean of exponential rates whose answers fork ``hazard`` times per token at risk, all groups together.

    Groups that fork early have few tokens at risk, so it lies above the hazard.
    """
    spread = -np.log1p(-(np.arange(_RATES) + 0.5) / _RATES)

    def ratio(mean: float) -> float:
        rates = np.clip(mean * spread, 1e-9, 1.0)
        forks = 1.0 - (1.0 - rates) ** horizon
        return float(forks.mean() / (forks / rates).mean())

    low, high = hazard / 2, 100.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if ratio(middle) < hazard else (low, middle)
    return low
