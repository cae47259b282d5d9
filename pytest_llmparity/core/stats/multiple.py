"""Adjusted p-values for several tests at once."""

from __future__ import annotations

from collections.abc import Sequence

from scipy.stats import false_discovery_control


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values in the order given: reject those at most alpha, family-wise error at most alpha.

    Valid whatever the dependence between the tests (Holm 1979, Scand J Stat 6:65). Raises ``ValueError`` for a
    p-value outside 0..1.
    """
    _check(p)
    adjusted = [0.0] * len(p)
    worst = 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        worst = max(worst, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = worst
    return adjusted


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Return Benjamini and Hochberg's adjusted p-values in the order given: an expected share of false findings.

    Assumes independent (or positively dependent) tests; meant for lists a person reads, never for an outcome. Raises
    ``ValueError`` for a p-value outside 0..1.
    """
    _check(p)
    if not p:
        return []
    return [float(value) for value in false_discovery_control(list(p), method="bh")]


def _check(p: Sequence[float]) -> None:
    for value in p:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"a p-value lies in 0..1, not {value!r}")
