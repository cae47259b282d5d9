"""Three ways of judging cases: a number fixed beforehand, as they come in a sequential run, or one asked on the spot.

Each of them is a :class:`Design`: it takes what is known of the cases, in their order, and returns a typed judgement.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from pytest_llmparity.core.compare.shift import Shift
from pytest_llmparity.core.compare.text import Fork
from pytest_llmparity.core.evidence import Evidence
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.stats import sequential
from pytest_llmparity.core.stats.bounds import Bounds
from pytest_llmparity.core.stats.hazard import hazard, prompts_needed
from pytest_llmparity.core.stats.medians import groups_needed, median, median_sequential
from pytest_llmparity.core.stats.paired import Side, gap, gap_needed
from pytest_llmparity.core.stats.quantiles import share_over
from pytest_llmparity.core.stats.shares import least_perfect, rate, share_needed
from pytest_llmparity.core.verdict import Judgement, Outcome
from pytest_llmparity.core.words import explain

T = TypeVar("T")
Forks = Sequence[tuple[Case, Fork]]
Shifts = Sequence[tuple[Case, Shift]]

ONE_GROUP: Final = "all prompts come from one group: they count as one"
SINGLE: Final = "single"
NATS: Final = "nats"


class Design(Protocol):
    """How cases become a judgement."""

    def counted(self, items: Sequence[T], group: Callable[[T], str]) -> Sequence[T]:
        """Return the items that are evidence, in their order: of a group all of them, or one."""

    def share(self, kept: Sequence[bool | None], *, at_least: float) -> Judgement:
        """Judge the share of cases that are kept; ``None`` is a case that says nothing and counts neither way."""

    def gap(self, differences: Sequence[int], *, margin: float, side: Side) -> Judgement:
        """Judge a difference of shares: 1 where only the baseline keeps, -1 where only the candidate, else 0."""

    def hazard(self, forks: Forks, *, margin: float, horizon: int) -> Judgement:
        """Judge forks per token at risk, of at most ``horizon`` tokens a case."""

    def shift(self, shifts: Shifts, *, margin: float) -> Judgement:
        """Judge the median shift over groups, in nats; of no case at all nothing is said."""


def design_of(evidence: Evidence, *, asked: int, groups_asked: int = 0) -> Design:
    """Return the design of this evidence; ``asked`` is how many cases a judgement is about, of how many groups."""
    if evidence.single:
        return Single()
    if evidence.sequential:
        cases, groups = len(evidence.prompts.cases), evidence.prompts.groups
        return Sequential(alpha=evidence.alpha, asked=asked, cases=cases, groups=groups, groups_asked=groups_asked)
    return Fixed(alpha=evidence.alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """So many cases as were fixed beforehand: exact and cluster-robust bounds at ``alpha``."""

    alpha: float

    def counted(self, items: Sequence[T], group: Callable[[T], str]) -> Sequence[T]:
        """Return all items: the bounds know of groups."""
        return items

    def share(self, kept: Sequence[bool | None], *, at_least: float) -> Judgement:
        """Judge by exact binomial bounds; of no case at all nothing is said."""
        telling = [keeps for keeps in kept if keeps is not None]
        k, n = sum(telling), len(telling)
        if n == 0:
            return _nothing(at_least, "at_least")
        return judgement_of(
            rate(k, n, at_least=at_least, alpha=self.alpha),
            margin=at_least,
            unit="share",
            side="at_least",
            n=n,
            needed=lambda: share_needed(k, n, at_least, self.alpha),
        )

    def gap(self, differences: Sequence[int], *, margin: float, side: Side) -> Judgement:
        """Judge by the exact unconditional test."""
        b, c, n = differences.count(1), differences.count(-1), len(differences)
        if n == 0:
            return _nothing(margin, side)
        return judgement_of(
            gap(b, c, n, margin=margin, alpha=self.alpha, side=side),
            margin=margin,
            unit="share",
            side=side,
            n=n,
            needed=lambda: gap_needed(b, c, n, margin, self.alpha, side),
        )

    def hazard(self, forks: Forks, *, margin: float, horizon: int) -> Judgement:
        """Judge by the wider of Garwood's bounds and those over the cases' groups."""
        result = hazard(
            [fork.forked for _, fork in forks],
            [fork.at_risk for _, fork in forks],
            [case.group for case, _ in forks],
            margin=margin,
            alpha=self.alpha,
        )
        return judgement_of(
            result,
            margin=margin,
            unit="forks/token",
            n=len(forks),
            groups=result.groups,
            needed=lambda: prompts_needed(result, len(forks), margin, self.alpha),
            reason=ONE_GROUP if result.one_group else "",
        )

    def shift(self, shifts: Shifts, *, margin: float) -> Judgement:
        """Judge by the sign test over groups, of each the median of its cases."""
        most, least = _of_groups(shifts)
        if not most:
            return Judgement(outcome=Outcome.INCONCLUSIVE, unit=NATS, margin=margin)
        return judgement_of(
            median(most, least, margin=margin, alpha=self.alpha),
            margin=margin,
            unit=NATS,
            n=len(shifts),
            groups=len(most),
            needed=lambda: _in_prompts(
                groups_needed(most, least, margin=margin, alpha=self.alpha), len(shifts), len(most)
            ),
        )

    def over(self, over: Sequence[bool], blocks: Sequence[int], *, quantile: float) -> Judgement:
        """Judge whether a quantile is within its budget, by the requests over it and the time block of each."""
        result = share_over(over, blocks, quantile=quantile, alpha=self.alpha)
        return judgement_of(
            result,
            margin=result.limit,
            unit="share",
            n=result.n,
            needed=lambda: share_needed(result.n - result.over, result.n, quantile, self.alpha),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequential:
    """Cases as they come, until nothing is open: evidence that holds whenever one stops.

    ``asked`` of ``cases`` prompts were asked so far, and ``groups_asked`` of ``groups`` groups had their turn (who
    counts groups gives their number). Judgements stay open: further prompts may settle them, or make a FAIL survive the
    correction for its family.
    """

    alpha: float
    asked: int
    cases: int
    groups: int
    groups_asked: int = 0

    def counted(self, items: Sequence[T], group: Callable[[T], str]) -> Sequence[T]:
        """Return the first item of each group: what is bet on must be exchangeable."""
        first: dict[str, T] = {}
        for item in items:
            first.setdefault(group(item), item)
        return list(first.values())

    def share(self, kept: Sequence[bool | None], *, at_least: float) -> Judgement:
        """Judge the cases that say something; where none does nothing is said, and nothing stays open."""
        telling = [keeps for keeps in kept if keeps is not None]
        if not telling:
            return _nothing(at_least, "at_least")
        result = sequential.share(telling, at_least=at_least, alpha=self.alpha)
        return self._judgement(result, margin=at_least, unit="share", side="at_least")

    def gap(self, differences: Sequence[int], *, margin: float, side: Side) -> Judgement:
        """Judge the mean difference."""
        if not differences:
            return _nothing(margin, side)
        result = sequential.gap(differences, margin=margin, alpha=self.alpha, side=side)
        return self._judgement(result, margin=margin, unit="share", side=side)

    def hazard(self, forks: Forks, *, margin: float, horizon: int) -> Judgement:
        """Judge one case of each group: further ones of a group change nothing, so groups are what is needed."""
        counted = self.counted(forks, lambda fork: fork[0].group)
        result = sequential.ratio(
            [float(fork.forked) for _, fork in counted],
            [fork.at_risk for _, fork in counted],
            margin=margin,
            most=horizon,
            alpha=self.alpha,
        )
        groups = sum(fork.at_risk > 0.0 for _, fork in counted)
        return self._by_group(self._judgement(result, margin=margin, unit="forks/token", groups=groups))

    def shift(self, shifts: Shifts, *, margin: float) -> Judgement:
        """Judge one case of each group."""
        counted = self.counted(shifts, lambda shift: shift[0].group)
        if not counted:
            return Judgement(outcome=Outcome.INCONCLUSIVE, unit=NATS, margin=margin)
        most, least = _of_groups(counted)
        result = median_sequential(most, least, margin=margin, alpha=self.alpha)
        return self._by_group(self._judgement(result, margin=margin, unit=NATS, groups=result.n))

    def _by_group(self, judgement: Judgement) -> Judgement:
        """Return a judgement of which ``n`` counts groups, where these are not the prompts."""
        if self.groups == self.cases:
            return judgement
        at_hand = judgement.n if self.groups_asked == self.groups else self.groups
        return dataclasses.replace(judgement, per_group=True, at_hand=at_hand)

    def _judgement(
        self,
        result: sequential.SequentialResult,
        *,
        margin: float,
        unit: str,
        side: str = "worse",
        groups: int = 0,
    ) -> Judgement:
        prompts = explain.count(self.cases, "prompt")
        whole = self.asked == self.cases
        return Judgement(
            outcome=Outcome.PASS if result.passed else Outcome.FAIL if result.failed else Outcome.INCONCLUSIVE,
            estimate=result.estimate,
            lower=result.lower,
            upper=result.upper,
            margin=margin,
            unit=unit,
            side=side,
            n=result.n,
            groups=groups,
            p_pass=result.p_pass,
            p_fail=result.p_fail,
            needed=result.needed,
            at_hand=result.n if whole else self.cases,
            open=True,
            sequence=f"sequential, all {prompts} asked"
            if whole
            else f"sequential, stopped after {self.asked} of {prompts}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """One question asked on the spot: PASS or FAIL of what was answered, without a bound."""

    def counted(self, items: Sequence[T], group: Callable[[T], str]) -> Sequence[T]:
        """Return all items."""
        return items

    def share(self, kept: Sequence[bool | None], *, at_least: float) -> Judgement:
        """Return PASS if everything is kept, else FAIL."""
        telling = [keeps for keeps in kept if keeps is not None]
        if not telling:
            return _nothing(at_least, "at_least")
        return Judgement(
            outcome=Outcome.PASS if all(telling) else Outcome.FAIL,
            estimate=sum(telling) / len(telling),
            margin=at_least,
            unit="share",
            side="at_least",
            n=len(telling),
            reason=SINGLE,
        )

    def gap(self, differences: Sequence[int], *, margin: float, side: Side) -> Judgement:
        """Return PASS if no answer is kept by one engine only (with ``side="worse"``: by the baseline only)."""
        if not differences:
            return _nothing(margin, side)
        parted = sum(difference != 0 if side == "either" else difference > 0 for difference in differences)
        return Judgement(
            outcome=Outcome.FAIL if parted else Outcome.PASS,
            estimate=float(parted),
            margin=margin,
            unit="share",
            side=side,
            n=len(differences),
            reason=SINGLE,
        )

    def hazard(self, forks: Forks, *, margin: float, horizon: int) -> Judgement:
        """Return PASS if the answers do not part within the horizon, else FAIL."""
        forked = any(fork.forked for _, fork in forks)
        reason = "the answers part" if forked else f"the answers agree over {horizon} tokens"
        outcome = Outcome.FAIL if forked else Outcome.PASS
        return Judgement(outcome=outcome, n=len(forks), reason=f"{reason} ({SINGLE})")

    def shift(self, shifts: Shifts, *, margin: float) -> Judgement:
        """Return PASS if the answer shifts by less than the margin, FAIL if by more, else INCONCLUSIVE."""
        most, least = _of_groups(shifts)
        if not most:
            return Judgement(outcome=Outcome.INCONCLUSIVE, unit=NATS, margin=margin)
        passed, failed = max(most) < margin, min(least) > margin
        return Judgement(
            outcome=Outcome.PASS if passed else Outcome.FAIL if failed else Outcome.INCONCLUSIVE,
            estimate=statistics.median(least),
            margin=margin,
            unit=NATS,
            n=len(shifts),
            reason=SINGLE,
        )


def _of_groups(shifts: Shifts) -> tuple[list[float], list[float]]:
    """Return the most and the least that each group's answers shift: the medians of its cases, in their order."""
    groups: dict[str, list[Shift]] = defaultdict(list)
    for case, shift in shifts:
        groups[case.group].append(shift)
    most = [statistics.median(shift.most for shift in of_group) for of_group in groups.values()]
    return most, [statistics.median(shift.least for shift in of_group) for of_group in groups.values()]


def _in_prompts(groups: int | None, cases: int, of_groups: int) -> int | None:
    """Return how many prompts so many groups have, if further ones are as large as those at hand."""
    return None if groups is None else math.ceil(groups * cases / of_groups)


def _nothing(margin: float, side: str) -> Judgement:
    """Return the judgement of a share, or a gap, of no case at all."""
    return Judgement(outcome=Outcome.INCONCLUSIVE, unit="share", margin=margin, side=side)


def judgement_of(
    bounds: Bounds,
    *,
    margin: float,
    unit: str,
    side: str = "worse",
    n: int,
    groups: int = 0,
    needed: Callable[[], int | None] = lambda: None,
    reason: str = "",
) -> Judgement:
    """Return what bounds say of a margin; ``needed`` and ``reason`` count where they leave it open.

    With the side ``at_least`` the margin is the least that is accepted, else the most.
    """
    below, above = bounds.upper < margin, bounds.lower > margin
    passed, failed = (above, below) if side == "at_least" else (below, above)
    settled = passed or failed
    return Judgement(
        outcome=Outcome.PASS if passed else Outcome.FAIL if failed else Outcome.INCONCLUSIVE,
        estimate=bounds.estimate,
        lower=bounds.lower,
        upper=bounds.upper,
        margin=margin,
        unit=unit,
        side=side,
        n=n,
        groups=groups,
        p_pass=bounds.p_pass,
        p_fail=bounds.p_fail,
        needed=None if settled else needed(),
        reason="" if settled else reason,
    )


def least_kept(at_least: float, *, sequential_run: bool) -> int | None:
    """Return how many cases, all kept, pass at 5 % where this share is asked; ``None`` when no number does."""
    if sequential_run:
        return None if at_least >= 1.0 else sequential.least_units(1.0 - at_least, most=1.0, alpha=0.05)
    return least_perfect(at_least, 0.05)
