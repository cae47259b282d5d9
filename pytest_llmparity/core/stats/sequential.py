"""Sequential tests: evidence that may be looked at after every prompt, and stopped or extended whenever one likes.

Testing by betting (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", J. R.
Stat. Soc. B 86:1). Somebody who doubts a hypothesis bets a part of his wealth against it on every unit, at odds that
are fair or worse if it is true. His wealth is then a non-negative supermartingale that starts at 1, so under the
hypothesis the chance that it *ever* reaches 1/alpha is at most alpha (Ville 1939), whatever made us stop or go on.
One over the largest wealth so far is a p-value that is valid at any time.

*What is bet on.* A unit has a count d and an exposure e, 0 <= d <= 1 and d <= e <= most: a prompt that forks (d = 1)
after e tokens, an answer that breaks its contract (e = 1). The quantity is E[d]/E[e]. Against "at least m" a full bet
gains (m·e - d)/(1 - m), against "at most m" it gains (d/m - e)/most: never less than -1, and not more than 0 on average
if the hypothesis is true, however much units differ. Where e = 1 a bet is the likelihood ratio of some other rate
against m. Units must be exchangeable: in an order fixed beforehand, and one of each group.

*How much is bet.* 64 gamblers start with equal wealth, each bets a fixed part of his, and their wealth is added up; in
sum that is a predictable bet, the mean part weighted by the wealth so far. Against "at least m" most of them bet nearly
everything (none of them all), because engines under test mostly drift little; against "at most m" the parts are spread
evenly on a logarithmic scale. Nothing is tuned to what was seen, the wealth does not depend on the order of the units
so far, and it grows with m (or falls with it, on the other side). So what is not rejected is an interval, at all times
at once: a confidence sequence.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_llmparity.core.late import Floats, np
from pytest_llmparity.core.stats.bounds import Bounds, check_alpha, nearest_rejected, smallest_total
from pytest_llmparity.core.stats.paired import Side

GAMBLERS: Final = 64
TIMID: Final = 0.01
"""The smallest part of the wealth that is bet against "at most m"."""


@functools.cache
def bold() -> Floats:
    """Return the parts of their wealth that gamblers bet against "at least m": most of them nearly all."""
    return np.asarray(1.0 - ((np.arange(GAMBLERS) + 0.5) / GAMBLERS) ** 5)


@functools.cache
def even() -> Floats:
    """Return the parts that are bet against "at most m": spread evenly on a logarithmic scale, from the timid up."""
    return np.asarray(TIMID ** (1.0 - (np.arange(GAMBLERS) + 0.5) / GAMBLERS))


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialResult(Bounds):
    """A ratio, a share or a gap after ``n`` units, with bounds and p-values that hold at any time.

    ``p_pass`` belongs to "the quantity is outside what is accepted", ``p_fail`` to "it is inside". ``passed`` and
    ``failed`` say which of the two fell to alpha first; never both. A bound lies on the far side of the margin, or at
    it, exactly when its p-value is at most alpha. ``needed`` is how many units in all would settle what is open if
    further ones were like those so far: an estimate, ``None`` above 100,000 and where nothing is open.
    """

    n: int
    passed: bool
    failed: bool
    needed: int | None


def ratio(d: Sequence[float], e: Sequence[float], *, margin: float, most: float, alpha: float) -> SequentialResult:
    """Judge Σd/Σe against ``margin``, one entry per unit in the order they came; PASS is a ratio below it.

    Raises ``ValueError`` for lengths that differ, units outside 0 <= d <= 1, d <= e <= ``most``, a margin outside 0..1
    or an alpha outside 0..0.5.
    """
    if len(d) != len(e):
        raise ValueError(f"{len(d)} counts and {len(e)} exposures do not match")
    counts, exposures = np.array(d, dtype=np.float64), np.array(e, dtype=np.float64)
    if not (np.all(counts >= 0.0) and np.all(counts <= np.minimum(1.0, exposures)) and np.all(exposures <= most)):
        raise ValueError(f"a unit has a count d and an exposure e with 0 <= d <= 1 and d <= e <= {most:g}")
    total = float(exposures.sum())
    return _Question(
        below=lambda m: [(m * exposures - counts) / (1.0 - m)],
        above=lambda m: [(counts / m - exposures) / most],
        margin=margin,
        least=0.0,
        alpha=alpha,
    ).judge(float(counts.sum()) / total if total else 0.0, len(counts))


def share(kept: Sequence[bool], *, at_least: float, alpha: float) -> SequentialResult:
    """Judge the share of ``kept`` cases, in the order they came, against ``at_least``; PASS is a share above it.

    A share of 1 is refuted by a single case and never shown. Raises ``ValueError`` for ``at_least`` outside 0..1 or an
    alpha outside 0..0.5.
    """
    broken = [float(not keeps) for keeps in kept]
    perfect = at_least == 1.0
    result = ratio(broken, [1.0] * len(broken), margin=0.5 if perfect else 1.0 - at_least, most=1.0, alpha=alpha)
    refuted = perfect and any(broken)
    return SequentialResult(
        estimate=1.0 - result.estimate,
        lower=1.0 - result.upper,
        upper=1.0 - result.lower,
        p_pass=1.0 if perfect else result.p_pass,
        p_fail=float(not refuted) if perfect else result.p_fail,
        n=result.n,
        passed=result.passed and not perfect,
        failed=refuted if perfect else result.failed,
        needed=None if perfect else result.needed,
    )


def gap(differences: Sequence[int], *, margin: float, alpha: float, side: Side = "either") -> SequentialResult:
    """Judge the mean of ``differences`` against ``margin``: 1 where only the baseline keeps, -1 where only the other.

    ``side="worse"`` is about the mean itself. ``side="either"`` is about its absolute value: PASS needs both directions
    below the margin, and against "at most the margin" half of the wealth is bet on either direction. Raises
    ``ValueError`` for other differences, a margin outside 0..1 or an alpha outside 0..0.5.
    """
    if any(value not in (-1, 0, 1) for value in differences):
        raise ValueError("a difference is -1, 0 or 1")
    sides = [np.array(differences, dtype=np.float64)]
    if side == "either":
        sides.append(-sides[0])
    mean = float(sides[0].mean()) if len(differences) else 0.0
    # With d = (1 + difference)/2, e = 1 and (1 + m)/2 for m these are the gains of ``ratio``.
    return _Question(
        below=lambda m: [(m - values) / (1.0 - m) for values in sides],
        above=lambda m: [(values - m) / (1.0 + m) for values in sides],
        margin=margin,
        least=-1.0 if side == "worse" else 0.0,
        alpha=alpha,
    ).judge(mean if side == "worse" else abs(mean), len(differences))


def most_are(kept: Sequence[bool]) -> float:
    """Return the p-value, valid at any time, of "no more than half of such cases are kept", in the order they came.

    What :func:`share` says of one half, without its bounds.
    """
    gains = np.where(np.array(kept, dtype=bool), 1.0, -1.0)
    return math.exp(-float(log_wealth(gains, bold()).max()))


def most_after(kept: Sequence[bool], alpha: float) -> int:
    """Return after how many cases it was first shown that most of such cases are kept; more than all if it is not."""
    gains = np.where(np.array(kept, dtype=bool), 1.0, -1.0)
    shown = log_wealth(gains, bold()) >= -math.log(alpha)
    return int(shown.argmax()) if shown.any() else len(kept) + 1


def units_for_most(kept: Sequence[bool], alpha: float) -> int | None:
    """Return how many cases in all would show that most of such cases are kept, if further ones were like these."""
    gains, n = np.where(np.array(kept, dtype=bool), 1.0, -1.0), len(kept)
    logs = _logs(gains, bold()).sum(axis=0)
    return smallest_total(n, lambda total: float(_mean_log(total / n * logs)) >= -math.log(alpha))


def least_units(margin: float, *, most: float, alpha: float) -> int | None:
    """Return how many units it takes to pass if none of them counts, ``None`` when 100,000 are too few.

    Of shares and gaps ``most`` is 1; ``margin`` of a share is what may be broken.

    >>> least_units(0.05, most=1, alpha=0.05), least_units(0.1, most=1, alpha=0.05), least_units(0, most=1, alpha=0.05)
    (65, 32, None)
    """
    logs = np.log1p(bold() * (margin * most / (1.0 - margin)))
    return smallest_total(1, lambda total: float(_mean_log(total * logs)) >= -math.log(alpha))


def log_wealth(gains: Floats, parts: Floats) -> Floats:
    """Return the logarithm of the gamblers' mean wealth before the first unit and after each.

    ``gains`` are those of full bets, at least -1, units along the last axis; ``parts`` is :func:`bold` or :func:`even`.
    """
    logs = _logs(gains, parts)
    before = np.zeros((*logs.shape[:-2], 1, len(parts)))
    return _mean_log(np.concatenate([before, np.cumsum(logs, axis=-2)], axis=-2))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """A quantity between ``least`` and 1 and a margin for it.

    ``below(m)`` are the gains of full bets against "at least m", one array for each direction that must be below;
    ``above(m)`` those against "at most m", one array for each direction the wealth is split on.
    """

    below: Callable[[float], list[Floats]]
    above: Callable[[float], list[Floats]]
    margin: float
    least: float
    alpha: float

    def __post_init__(self) -> None:
        if not 0.0 < self.margin < 1.0:
            raise ValueError(f"a margin lies between 0 and 1 (5 points are 0.05), not {self.margin!r}")
        check_alpha(self.alpha)

    def judge(self, estimate: float, n: int) -> SequentialResult:
        """Return everything about the question after ``n`` units."""
        high, low = self._against_high(self.margin), self._against_low(self.margin)
        won_high, won_low = np.searchsorted(high, self._enough), np.searchsorted(low, self._enough)
        passed, failed = bool(won_high <= n and won_high <= won_low), bool(won_low <= n and won_low < won_high)
        return SequentialResult(
            estimate=estimate,
            lower=self._bound(self._against_low, low[-1], true=1.0, false=self.least),
            upper=self._bound(self._against_high, high[-1], true=self.least, false=1.0),
            p_pass=math.exp(-high[-1]),
            p_fail=math.exp(-low[-1]),
            n=n,
            passed=passed,
            failed=failed,
            needed=None if passed or failed or n == 0 else self._needed(n),
        )

    @property
    def _enough(self) -> float:
        return -math.log(self.alpha) - 1e-12

    def _against_high(self, margin: float) -> Floats:
        """Return the largest log of the wealth against "at least margin" so far: before the first unit, after each."""
        paths = [np.maximum.accumulate(log_wealth(gains, bold())) for gains in self.below(margin)]
        return np.asarray(np.min(paths, axis=0), dtype=np.float64)

    def _against_low(self, margin: float) -> Floats:
        """Return the largest log of the wealth against "at most margin" so far: before the first unit, after each."""
        paths = [log_wealth(gains, even()) for gains in self.above(margin)]
        return np.maximum.accumulate(_mean_log(np.stack(paths, axis=-1)))

    def _bound(self, against: Callable[[float], Floats], at_margin: float, *, true: float, false: float) -> float:
        """Return the value nearest to ``true`` that is rejected, searched towards ``false``; ``false`` if none is.

        What lies beyond it on the side of ``false`` is rejected too. Neither end is looked at. ``at_margin`` is what
        there is against the margin after all units.
        """

        def rejects(value: float) -> bool:
            return bool(against(value)[-1] >= self._enough)

        rejected, kept = (self.margin, true) if at_margin >= self._enough else (false, self.margin)
        return nearest_rejected(rejects, kept=kept, rejected=rejected)

    def _needed(self, n: int) -> int | None:
        """Return how many units, each like those ``n`` that were seen, would be enough for one side."""
        high = np.stack([_logs(gains, bold()).sum(axis=0) for gains in self.below(self.margin)])
        low = np.stack([_logs(gains, even()).sum(axis=0) for gains in self.above(self.margin)])

        def settles(total: int) -> bool:
            of_high = float(_mean_log(total / n * high).min())
            return of_high >= self._enough or float(_mean_log(_mean_log(total / n * low))) >= self._enough

        return smallest_total(n, settles)


def _logs(gains: Floats, parts: Floats) -> Floats:
    """Return the logarithm of what each gambler's wealth is multiplied by, unit by unit."""
    return np.log1p(np.multiply.outer(gains, parts))


def _mean_log(logs: Floats) -> Floats:
    """Return the logarithm of the mean over the last axis of what these are logarithms of."""
    most = logs.max(axis=-1, keepdims=True)  # several times faster than logaddexp.reduce, and as exact
    return np.asarray(most[..., 0] + np.log(np.exp(logs - most).mean(axis=-1)), dtype=np.float64)
