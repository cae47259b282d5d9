"""Ratio of two totals whose parts come in groups, with a standard error that lets groups differ."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_llmparity.core.late import special


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusteredRatio:
    """``total(d) / total(e)`` with its cluster-robust standard error.

    ``groups`` counts the groups that carry any ``e``. With fewer than two of them nothing is known about how much
    groups differ, and ``se`` is ``None``. The mix of ``strata`` is fixed: only what groups differ within them is in
    ``se``, and each takes a degree of freedom.
    """

    estimate: float
    se: float | None
    groups: int
    strata: int = 1

    def bounds(self, alpha: float) -> tuple[float, float]:
        """Return one-sided bounds at ``alpha`` by t(groups - strata); ``(-inf, inf)`` without a standard error."""
        return t_bounds(self.estimate, self.se, self.groups - self.strata + 1, alpha)

    def p_values(self, margin: float) -> tuple[float, float]:
        """Return the p-values of "the ratio is at least the margin" and "at most the margin"; 1 without an error."""
        if self.se is None:
            return 1.0, 1.0
        if self.se == 0.0:
            # No variation at all: the other bound, which knows about sampling, decides. Equality rejects neither.
            return float(self.estimate >= margin), float(self.estimate <= margin)
        z = (self.estimate - margin) / self.se
        return t_tails(z, self.groups - self.strata)


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


def clustered_ratio(
    d: Sequence[float],
    e: Sequence[float],
    groups: Sequence[Hashable],
    strata: Mapping[Any, Hashable] | None = None,
) -> ClusteredRatio:
    """Return h = D/E with se² = (G-1)/G · Σ(r_g/(1 - e_g/E))²/E² of the residuals r_g = d_g - h·e_g.

    That is what deleting one group at a time makes of the ratio, about the ratio itself (MacKinnon, Nielsen and Webb
    2023, J Appl Econometrics 38:671, CV3): a group that holds much of ``e`` pulls the ratio towards itself, so that its
    residual alone says too little. Where every group is a single part none can hold much, and it is the linearised
    G/(G-1) · Σ r_g²/E² (Cochran, *Sampling Techniques*, 3rd ed., section 9A), which equal groups come to anyway. Groups
    without any ``e`` say nothing and are not counted.

    ``strata`` gives the stratum of each group. Their mix is fixed by design, so residuals are taken about the mean of
    their stratum: se² = Σ_s n_s/(n_s - 1) · Σ (r_g - r̄_s)²/E² (combined ratio estimate, Cochran, section 6.11). Strata
    of a single group are taken together; one that is left over joins the smallest other one.

    Raises ``ValueError`` when the three sequences differ in length or ``e`` adds up to nothing.
    """
    of_d: dict[Hashable, float] = defaultdict(float)
    of_e: dict[Hashable, float] = defaultdict(float)
    for part_d, part_e, group in zip(d, e, groups, strict=True):
        of_d[group] += part_d
        of_e[group] += part_e
    whole = math.fsum(of_e.values())
    if whole <= 0.0:
        raise ValueError("a ratio needs a positive total below the line; every part of it is 0")
    ratio = math.fsum(of_d.values()) / whole
    informative = [(group, of_d[group], part_e) for group, part_e in of_e.items() if part_e > 0.0]
    count = len(informative)
    if count < 2:
        return ClusteredRatio(estimate=ratio, se=None, groups=count)
    alone = sum([part_e > 0.0 for part_e in e]) == count
    deleted = {
        group: (part_d - ratio * part_e) / (1.0 - (1.0 / count if alone else part_e / whole))
        for group, part_d, part_e in informative
    }
    parts = _by_stratum(deleted, strata or {})
    if len(parts) == 1:
        spread = (count - 1) / count * math.fsum([residual**2 for residual in deleted.values()])
    else:
        spread = ((count - 1) / count) ** 2 * math.fsum(len(part) * statistics.variance(part) for part in parts)
    return ClusteredRatio(estimate=ratio, se=math.sqrt(spread) / whole, groups=count, strata=len(parts))


def _by_stratum(values: Mapping[Hashable, float], strata: Mapping[Any, Hashable]) -> list[list[float]]:
    """Return the groups' values by stratum, each with two or more of them unless there is only one value."""
    by_stratum: dict[Hashable, list[float]] = {}
    for group, value in values.items():
        by_stratum.setdefault(strata.get(group), []).append(value)
    several = sorted((part for part in by_stratum.values() if len(part) > 1), key=len)
    single = [value for part in by_stratum.values() if len(part) == 1 for value in part]
    if len(single) == 1 and several:
        return [[*several[0], *single], *several[1:]]
    return [*several, single] if single else several
