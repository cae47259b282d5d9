"""How often some tag fails by chance: the table of docs/verdicts.md, *Verdicts by tag*.

Every tag drifts exactly as much as is accepted, its prompts have hazards that differ as gamma variables of shape .5,
and answers have 32 tokens. Run: ``python benchmarks/tag_sizes.py`` (some ten minutes).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import optimize, special

HORIZON = 32
SHAPE = 0.5
TAGS = (4, 8, 16)
GROUPS = (8, 12, 16, 20, 24, 32, 40, 48, 64, 96)
MARGINS = (0.05, 0.07, 0.08, 0.09, 0.10, 0.12, 0.15, 0.175, 0.20, 0.25)
DRAWS = 1_500_000
"""Prompts that are drawn for one number."""

Floats = np.ndarray[Any, np.dtype[np.float64]]


def mean_rate(hazard: float) -> float:
    """Return the mean of the rates of prompts that fork at ``hazard`` of the tokens at risk."""
    family = np.random.default_rng(1).gamma(SHAPE, 1 / SHAPE, 20_000)

    def excess(mean: float) -> float:
        rates = np.clip(mean * family, 1e-9, 1.0)
        forks = 1.0 - (1.0 - rates) ** HORIZON
        return float(forks.mean() / (forks / rates).mean()) - hazard

    return float(optimize.brentq(excess, hazard / 2, 100.0))


def p_values(rng: np.random.Generator, *, groups: int, margin: float) -> Floats:
    """Return the p-value of FAIL of many tags with so many groups of one prompt, as ``core.stats.hazard`` has."""
    runs = min(40_000, DRAWS // groups)
    rates = np.clip(mean_rate(margin) * rng.gamma(SHAPE, 1 / SHAPE, (runs, groups)), 1e-9, 1.0)
    first = rng.geometric(rates)
    forked, at_risk = (first <= HORIZON).astype(float), np.minimum(first, HORIZON).astype(float)
    forks, exposure = forked.sum(axis=1), at_risk.sum(axis=1)
    hazard = forks / exposure
    residuals = (forked - hazard[:, None] * at_risk) / (1 - 1 / groups)
    se = np.sqrt((groups - 1) / groups * (residuals**2).sum(axis=1)) / exposure
    poisson = np.where(forks > 0, special.gammainc(np.maximum(forks, 1), margin * exposure), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        clustered = special.stdtr(groups - 1, -(hazard - margin) / se)
    p_fail: Floats = np.maximum(poisson, np.where(se > 0, clustered, hazard <= margin))
    return p_fail


def main() -> None:
    """Print, by margin and groups of a tag, how often in 100 runs some tag of 4, 8 and 16 fails."""
    rng = np.random.default_rng(5)
    print("groups", *GROUPS)
    for margin in MARGINS:
        cells = []
        for groups in GROUPS:
            p = p_values(rng, groups=groups, margin=margin)
            # Of the weights of a test with this check alone (1.8, 0.2, and 1.8 of all tags) a tag has 1.8 / tags / 3.8.
            alone = [(tags, float((p < 0.05 * 1.8 / 3.8 / tags).mean())) for tags in TAGS]
            cells.append("/".join(f"{100 * (1 - (1 - share) ** tags):.1f}" for tags, share in alone))
        print(f"{margin:.1%}", *cells, flush=True)


if __name__ == "__main__":
    main()
