"""How often a run that is as long as an open one advises settles its question: seldom where few prompts advise it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from pytest_llmparity.core.stats.medians import groups_needed, median
from pytest_llmparity.core.stats.shares import rate, share_needed
from pytest_llmparity.core.words.explain import FEW_GROUPS

DRAWS = 300
LONGEST = 2000
"""Longer runs are advised now and then, and take too long to draw."""
SHARE, ASKED = 0.85, 0.9
SHIFT, MARGIN = 0.045, 0.06


def settled_shares(n: int, rng: np.random.Generator) -> float:
    """Return in which share of open draws of ``n`` answers, 85 % of them right, the advised run is not open."""
    settled: list[bool] = []
    for _ in range(DRAWS):
        right = int(rng.binomial(n, SHARE))
        first = rate(right, n, at_least=ASKED, alpha=0.05)
        advised = share_needed(right, n, ASKED, 0.05)
        if first.upper < ASKED or first.lower > ASKED or advised is None or advised > LONGEST:
            continue
        whole = rate(right + int(rng.binomial(advised - n, SHARE)), advised, at_least=ASKED, alpha=0.05)
        settled.append(whole.upper < ASKED or whole.lower > ASKED)
    return sum(settled) / len(settled)


def settled_shifts(n: int, rng: np.random.Generator) -> float:
    """Return the same of ``n`` groups that shift by 0.045 nats in the middle, held against 0.06."""
    settled: list[bool] = []
    for _ in range(DRAWS):
        shifts = list(rng.lognormal(math.log(SHIFT), 1.0, size=n))
        first = median(shifts, shifts, margin=MARGIN, alpha=0.05)
        advised = groups_needed(shifts, shifts, margin=MARGIN, alpha=0.05)
        if first.upper < MARGIN or first.lower > MARGIN or advised is None or advised > LONGEST:
            continue
        shifts += list(rng.lognormal(math.log(SHIFT), 1.0, size=advised - n))
        whole = median(shifts, shifts, margin=MARGIN, alpha=0.05)
        settled.append(whole.upper < MARGIN or whole.lower > MARGIN)
    return sum(settled) / len(settled)


@pytest.mark.parametrize("settled", [settled_shares, settled_shifts])
def test_two_prompts_advise_runs_that_seldom_settle_anything(
    settled: Callable[[int, np.random.Generator], float],
) -> None:
    rng = np.random.default_rng(20261129)

    of_two, of_enough = (settled(n, rng) for n in (2, FEW_GROUPS))

    assert of_two < 0.2  # six other seeds: 0.07 to 0.12 of shares, 0.13 to 0.19 of shifts
    assert of_enough > 0.4  # 0.48 to 0.58
