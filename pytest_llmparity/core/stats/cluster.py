"""Ratio of two totals whose parts come in groups, with a standard error that lets groups differ."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from pytest_llmparity.core.late import special


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusteredRatio:
    """``total(d) / total(e)`` with its cluster-robust standard error.

    ``groups`` counts the groups that carry any ``e``. With fewer than two of them nothing is known about how much
    groups differ, and ``se`` is ``None``.
    """

    estimate: float
    se: float | None
    groups: int

    def bounds(self, alpha: float) -> tuple[float, float]:
        """Return one-sided bounds at ``alpha`` by t(groups - 1); ``(-inf, inf)`` without a standard error."""
        return t_bounds(self.estimate, self.se, self.groups, alpha)

    def p_values(self, margin: float) -> tuple[float, float]:
        """Return the p-values of "the ratio is at least the margin" and "at most the margin"; 1 without an error."""
        if self.se is None:
            return 1.0, 1.0
        if self.se == 0.0:
            # No variation at all: the other bound, which knows about sampling, decides. Equality rejects neither.
            return float(self.estimate >= margin), float(self.estimate <= margin)
        z = (self.estimate - margin) / self.se
        return t_tails(z, self.groups - 1)


def t_bounds(estimate: float, se: float | None, groups: float, alpha: float) -> tuple[float, float]:
    """Return ``estimate -/+ t(1 - alpha, groups - 1) * se``, one-sided; infinite without ``se`` or a second group."""
    if se is None or groups <= 1:
        return -math.inf, math.inf
    reach = t_quantile(alpha, groups - 1) * se
    return estimate - reach, estimate + reach


def t_quantile(alpha: float, freedom: float) -> float:
    """Return what Student's t exceeds with a chance of ``alpha``."""
    return -float(special.stdtrit(freedom, alpha))


def t_tails(z: float, freedom: float) -> tuple[float, float]:
    """Return the chances that Student's t is at most ``z`` and at least ``z``."""
    return float(special.stdtr(freedom, z)), float(special.stdtr(freedom, -z))


def clustered_ratio(d: Sequence[float], e: Sequence[float], groups: Sequence[Hashable]) -> ClusteredRatio:
    """Return h = D/E with se² = (G-1)/G · Σ(r_g/(1 - e_g/E))²/E² of the residuals r_g = d_g - h·e_g.

    That is what deleting one group at a time makes of the ratio, about the ratio itself (MacKinnon, Nielsen and Webb
    2023, J Appl Econometrics 38:671, CV3): a group that holds much of ``e`` pulls the ratio towards itself, so that its
    residual alone says too little. Where every group is a single part none can hold much, and it is the linearised
    G/(G-1) · Σ r_g²/E² (Cochran, *Sampling Techniques*, 3rd ed., section 9A), which equal groups come to anyway. Groups
    without any ``e`` say nothing and are not counted. Raises ``ValueError`` when the three sequences differ in length
    or ``e`` adds up to nothing.
    """
    totals: dict[Hashable, tuple[float, float]] = {}
    for part_d, part_e, group in zip(d, e, groups, strict=True):
        sum_d, sum_e = totals.get(group, (0.0, 0.0))
        totals[group] = (sum_d + part_d, sum_e + part_e)
    whole = math.fsum(part_e for _, part_e in totals.values())
    if whole <= 0.0:
        raise ValueError("a ratio needs a positive total below the line; every part of it is 0")
    ratio = math.fsum(part_d for part_d, _ in totals.values()) / whole
    informative = [(part_d, part_e) for part_d, part_e in totals.values() if part_e > 0.0]
    count = len(informative)
    if count < 2:
        return ClusteredRatio(estimate=ratio, se=None, groups=count)
    alone = sum(part_e > 0.0 for part_e in e) == count
    spread = math.fsum(
        ((part_d - ratio * part_e) / (1.0 - (1.0 / count if alone else part_e / whole))) ** 2
        for part_d, part_e in informative
    )
    return ClusteredRatio(estimate=ratio, se=math.sqrt((count - 1) / count * spread) / whole, groups=count)
