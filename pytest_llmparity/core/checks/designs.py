"""Three ways of judging cases: a number fixed beforehand, as they come in a sequential run, or one asked on the spot.

Each of them is a :class:`Design`: it takes what is known of the cases, in their order, and returns a typed judgement.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from pytest_llmparity.core.compare.answers import Fork
from pytest_llmparity.core.compare.shift import Shift
from pytest_llmparity.core.evidence import Evidence
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.stats import sequential
from pytest_llmparity.core.stats.bounds import Bounds
from pytest_llmparity.core.stats.hazard import hazard, prompts_needed
from pytest_llmparity.core.stats.medians import groups_needed, median, median_sequential
from pytest_llmparity.core.stats.paired import Side, gap, gap_needed, gap_of_effective, min_cases
from pytest_llmparity.core.stats.shares import (
    ShareResult,
    effective_cases,
    least_perfect,
    rate,
    share_failed,
    share_needed,
    share_over,
)
from pytest_llmparity.core.verdict import Judgement, Outcome
from pytest_llmparity.core.words import explain

T = TypeVar("T")
V = TypeVar("V")
Forks = Sequence[tuple[Case, Fork]]
Shifts = Sequence[tuple[Case, Shift]]

ONE_BLOCK: Final = "requests of one block of time are slow or fast together, so one block settles nothing"
MORE_PROMPTS: Final = "more prompts would settle it, more requests of the same ones would not"
ONE_GROUP: Final = "all prompts come from one group: they count as one"
SINGLE: Final = "single"
NATS: Final = "nats"


class Design(Protocol):
    """How cases become a judgement."""

    def counted(self, items: Sequence[T], group: Callable[[T], str]) -> Sequence[T]:
        """Return the items that are evidence, in their order: of a group all of them, or one."""

    def share(self, kept: Sequence[bool | None], *, at_least: float, cases: Sequence[Case] = ()) -> Judgement:
        """Return the judgement on the share of cases that are kept; one that is ``None`` counts neither way.

        ``cases`` says whose they are, for their groups; without it each counts by itself.
        """

    def gap(self, differences: Sequence[int], *, margin: float, side: Side, cases: Sequence[Case] = ()) -> Judgement:
        """Return the judgement on a difference of shares: 1 where only the baseline keeps, -1 the candidate, else 0."""

    def hazard(self, forks: Forks, *, margin: float, horizon: int) -> Judgement:
        """Return the judgement on forks per token at risk, of at most ``horizon`` tokens a case."""

    def shift(self, shifts: Shifts, *, margin: float) -> Judgement:
        """Return the judgement on the median shift over groups, in nats; of no case at all it says nothing."""


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

    def share(self, kept: Sequence[bool | None], *, at_least: float, cases: Sequence[Case] = ()) -> Judgement:
        """Judge by exact binomial bounds of one case per group, or of as many as grouped ones count for.

        Of no case at all nothing is said.
        """
        telling = [(keeps, case) for keeps, case in _with_cases(kept, cases) if keeps is not None]
        if not telling:
            return _nothing(at_least, "at_least")
        weighed = self._weighed(telling, least_perfect(at_least, self.alpha))
        k, n = sum(weighed.values), len(weighed.values)
        counted = weighed.counts if k == n else k * weighed.counts / n  # rounded, 41 * (7 / 41) is more than 7
        return weighed.judged(
            rate(counted, weighed.counts, at_least=at_least, alpha=self.alpha),
            margin=at_least,
            side="at_least",
            needed=lambda: share_needed(counted, weighed.counts, at_least, self.alpha),
        )

    def gap(self, differences: Sequence[int], *, margin: float, side: Side, cases: Sequence[Case] = ()) -> Judgement:
        """Judge by the exact unconditional test of one case per group, or of as many as grouped ones count for."""
        if not differences:
            return _nothing(margin, side)
        weighed = self._weighed(_with_cases(differences, cases), min_cases(margin, self.alpha))
        b, c, n = weighed.values.count(1), weighed.values.count(-1), len(weighed.values)
        whole = math.floor(weighed.counts)
        if whole == n:
            bounds = gap(b, c, n, margin=margin, alpha=self.alpha, side=side)
        else:
            bounds = gap_of_effective(b, c, n, effective=weighed.counts, margin=margin, alpha=self.alpha, side=side)
        return weighed.judged(
            bounds,
            margin=margin,
            side=side,
            needed=lambda: gap_needed(b * whole / n, c * whole / n, whole, margin, self.alpha, side),
        )

    def _weighed(self, items: Sequence[tuple[int, Case | None]], least: int | None) -> _Weighed:
        """Return what of these counts: one of each group where so many groups can settle it, else all of them as fewer.

        Which of the two depends on nothing that was answered.
        """
        values = [value for value, _ in items]
        names = [str(index) if case is None else case.group for index, (_, case) in enumerate(items)]
        groups = len(set(names))
        if groups == len(items):
            return _Weighed(values=values, counts=len(values))
        if least is not None and groups >= least:
            drawn: dict[str, tuple[str, int]] = {}
            for (value, case), name in zip(items, names, strict=True):
                lot = _lot("" if case is None else case.id)
                if name not in drawn or lot < drawn[name][0]:
                    drawn[name] = (lot, value)
            return _Weighed(values=[value for _, value in drawn.values()], counts=groups, groups=groups, one_each=True)
        counts = min(float(len(values)), effective_cases(values, names, self.alpha))
        return _Weighed(values=values, counts=counts, groups=groups)

    def hazard(self, forks: Forks, *, margin: float, horizon: int) -> Judgement:
        """Judge by the wider of Garwood's bounds and those over the cases' groups, FAIL at this mix of tags."""
        result = hazard(
            [fork.forked for _, fork in forks],
            [fork.at_risk for _, fork in forks],
            [case.group for case, _ in forks],
            margin=margin,
            alpha=self.alpha,
            strata={case.group: case.tags for case, _ in reversed(forks)},
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
        most, least = of_groups(shifts)
        if not most:
            return Judgement(outcome=Outcome.INCONCLUSIVE, unit=NATS, margin=margin)
        judgement = judgement_of(
            median(most, least, margin=margin, alpha=self.alpha),
            margin=margin,
            unit=NATS,
            n=len(shifts),
            groups=len(most),
            needed=lambda: _in_prompts(
                groups_needed(most, least, margin=margin, alpha=self.alpha), len(shifts), len(most)
            ),
        )
        if judgement.outcome is not Outcome.INCONCLUSIVE or judgement.needed is not None:
            return judgement
        below, above = sum(value < margin for value in most), sum(value > margin for value in least)
        advice = (
            f"{below} of {explain.count(len(most), 'group')} shift by less than the margin and {above} by more: more "
            "prompts like these would not settle it, another margin would (llmparity calibrate measures one)"
        )
        return dataclasses.replace(judgement, advice=advice)

    def over(
        self, values: Sequence[float], blocks: Sequence[int], prompts: Sequence[str], *, budget: float, quantile: float
    ) -> Judgement:
        """Judge whether a quantile is within its budget, by the requests over it and the time block of each."""
        result = share_over(values, blocks, budget=budget, quantile=quantile, alpha=self.alpha, prompts=prompts)
        return self._of_requests(result, quantile, side="worse")

    def answered(
        self, answered: Sequence[bool], blocks: Sequence[int], prompts: Sequence[str], *, at_least: float
    ) -> Judgement:
        """Judge the share of timed requests that were answered: those of one outage, or of one prompt, go together."""
        failed = [not there for there in answered]
        result = share_failed(failed, blocks, at_most=1.0 - at_least, alpha=self.alpha, prompts=prompts)
        return self._of_requests(result, at_least, side="at_least")

    def _of_requests(self, result: ShareResult, good: float, *, side: str) -> Judgement:
        """Return what is known of a share of requests; ``good`` is the least share of the others."""

        def needed() -> int | None:
            if not result.effective or result.together == "prompt":
                return None  # more requests of the same prompts are no more prompts
            within = result.effective * (1.0 - result.over / result.n)
            independent = share_needed(within, result.effective, good, self.alpha)
            return None if independent is None else math.ceil(independent * result.n / result.effective)

        bounds, margin = (result.others, good) if side == "at_least" else (result, result.limit)
        judgement = judgement_of(bounds, margin=margin, unit="share", side=side, n=result.n, needed=needed)
        if not result.effective:
            return dataclasses.replace(judgement, reason=ONE_BLOCK)
        weighed = max(1, math.floor(result.effective))
        if weighed >= result.n:
            return judgement
        of_prompts = result.together == "prompt"
        open_one = judgement.outcome is Outcome.INCONCLUSIVE
        return dataclasses.replace(
            judgement,
            effective=weighed,
            groups=result.prompts if of_prompts else 0,
            advice=MORE_PROMPTS if of_prompts and open_one else judgement.advice,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weighed:
    """What counts of cases that go together in groups: their values, and how many independent ones these are worth."""

    values: Sequence[int]
    counts: float
    groups: int = 0
    one_each: bool = False

    def judged(self, bounds: Bounds, *, margin: float, side: str, needed: Callable[[], int | None]) -> Judgement:
        """Return what bounds say of a share; ``needed`` gives independent cases."""
        n = len(self.values)

        def in_cases() -> int | None:
            independent = needed()
            return None if independent is None else math.ceil(independent * n / self.counts)

        judgement = judgement_of(
            dataclasses.replace(bounds, estimate=sum(self.values) / n) if side == "at_least" else bounds,
            margin=margin,
            unit="share",
            side=side,
            n=n,
            groups=self.groups,
            needed=in_cases,
            reason=ONE_GROUP if self.groups == 1 else "",
        )
        weighed = self.groups > 0 and not self.one_each
        effective = max(1, math.floor(self.counts)) if weighed else 0
        return dataclasses.replace(judgement, per_group=self.one_each, effective=effective)


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

    def share(self, kept: Sequence[bool | None], *, at_least: float, cases: Sequence[Case] = ()) -> Judgement:
        """Judge the first case of each group that says something; where none does nothing is said or stays open."""
        telling = [(keeps, case) for keeps, case in _with_cases(kept, cases) if keeps is not None]
        if not telling:
            return _nothing(at_least, "at_least")
        result = sequential.share(self._firsts(telling), at_least=at_least, alpha=self.alpha)
        return self._of_share(result, margin=at_least, side="at_least")

    def gap(self, differences: Sequence[int], *, margin: float, side: Side, cases: Sequence[Case] = ()) -> Judgement:
        """Judge the mean difference over the first case of each group."""
        if not differences:
            return _nothing(margin, side)
        firsts = self._firsts(_with_cases(differences, cases))
        result = sequential.gap(firsts, margin=margin, alpha=self.alpha, side=side)
        return self._of_share(result, margin=margin, side=side)

    def _firsts(self, items: Sequence[tuple[V, Case | None]]) -> list[V]:
        named = [(value, str(n) if case is None else case.group) for n, (value, case) in enumerate(items)]
        return [value for value, _ in self.counted(named, lambda item: item[1])]

    def _of_share(self, result: sequential.SequentialResult, *, margin: float, side: str) -> Judgement:
        groups = result.n if self.groups < self.cases else 0
        return self._by_group(self._judgement(result, margin=margin, unit="share", side=side, groups=groups))

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
        most, least = of_groups(counted)
        result = median_sequential(most, least, margin=margin, alpha=self.alpha)
        return self._by_group(self._judgement(result, margin=margin, unit=NATS, groups=result.n))

    def _by_group(self, judgement: Judgement) -> Judgement:
        """Return a judgement of which ``n`` counts groups, where these are not the prompts."""
        if self.groups == self.cases:
            return judgement
        at_hand = judgement.n if self.groups_asked == self.groups else self.groups
        return dataclasses.replace(judgement, per_group=True, at_hand=at_hand)

    def _judgement(
        self, result: sequential.SequentialResult, *, margin: float, unit: str, side: str = "worse", groups: int = 0
    ) -> Judgement:
        prompts = explain.count(self.cases, "prompt")
        whole = self.asked == self.cases
        return dataclasses.replace(
            judgement_of(result, margin=margin, unit=unit, side=side, n=result.n, groups=groups),
            outcome=Outcome.PASS if result.passed else Outcome.FAIL if result.failed else Outcome.INCONCLUSIVE,
            needed=result.needed,
            at_hand=result.n if whole else self.cases,
            open=True,
            sequence=f"sequential, {f'all {prompts} asked' if whole else f'stopped after {self.asked} of {prompts}'}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """One question asked on the spot: PASS or FAIL of what was answered, without a bound."""

    def counted(self, items: Sequence[T], group: Callable[[T], str]) -> Sequence[T]:
        """Return all items."""
        return items

    def share(self, kept: Sequence[bool | None], *, at_least: float, cases: Sequence[Case] = ()) -> Judgement:
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

    def gap(self, differences: Sequence[int], *, margin: float, side: Side, cases: Sequence[Case] = ()) -> Judgement:
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
        most, least = of_groups(shifts)
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


def of_groups(shifts: Shifts) -> tuple[list[float], list[float]]:
    """Return the most and the least that each group's answers shift: the medians of its cases, in their order."""
    groups: dict[str, list[Shift]] = defaultdict(list)
    for case, shift in shifts:
        groups[case.group].append(shift)
    most = [statistics.median(shift.most for shift in of_group) for of_group in groups.values()]
    return most, [statistics.median(shift.least for shift in of_group) for of_group in groups.values()]


def _in_prompts(groups: int | None, cases: int, of_groups: int) -> int | None:
    """Return how many prompts so many groups have, if further ones are as large as those at hand."""
    return None if groups is None else math.ceil(groups * cases / of_groups)


def groups_counted(judgement: Judgement, asked: int, groups: int) -> tuple[str, ...]:
    """Say what a sequential run counts of groups, and whether those that could count have all been asked."""
    if not (judgement.per_group and judgement.sequence):
        return ()
    had = f"all {groups} groups have had their turn" if asked == groups else f"{asked} of {groups} had their turn"
    return (f"one prompt of each group counts in a sequential run, and {had}",)


@functools.cache
def _lot(id: str) -> str:
    """Return what decides which case of a group counts: the least of these, whatever was answered."""
    return hashlib.sha256(id.encode()).hexdigest()


def _with_cases(values: Sequence[V], cases: Sequence[Case]) -> list[tuple[V, Case | None]]:
    """Return each value with its case, ``None`` where nothing is known of it."""
    return list(zip(values, cases, strict=True)) if cases else [(value, None) for value in values]


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
