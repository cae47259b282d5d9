"""Latency budgets over the timed phase: absolute ones per engine, relative ones against the baseline."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from pytest_llmparity.core.checks.arguments import REQUESTS
from pytest_llmparity.core.checks.base import BaseCheck
from pytest_llmparity.core.checks.designs import Fixed, judgement_of
from pytest_llmparity.core.checks.latency.in_turn import Visits, of_loads
from pytest_llmparity.core.checks.latency.timed import WORDS, Timed
from pytest_llmparity.core.checks.latency.unbounded import Side, unbounded
from pytest_llmparity.core.checks.missing import rested
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import EngineEvidence, Evidence, Needs, Tokens
from pytest_llmparity.core.sample import Timing
from pytest_llmparity.core.stats.quantiles import (
    RatioResult,
    VisitsResult,
    min_requests,
    quantile_ratio,
    ratio_in_turn,
)
from pytest_llmparity.core.stats.shares import least_perfect
from pytest_llmparity.core.verdict import Judgement, Outcome, Verdict
from pytest_llmparity.core.words import explain

MERGED: Final = 0.01
"""Share of first tokens that arrived in one read with later ones above which a TTFT is not trusted."""
QUANTILES: Final = {"p50": 0.50, "p95": 0.95, "p99": 0.99}

_VALUE = re.compile(r"(?:x\s*(?P<ratio>[\d.]+)|(?P<time>[\d.]+)\s*(?P<unit>ms|s))", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One limit: ``metric`` (ttft, tpot, e2e) at ``rank`` (p50, p95, p99) within ``limit``.

    ``limit`` is in seconds, or with ``relative`` a factor on the baseline's quantile. ``text`` is what the user wrote.
    """

    metric: str
    rank: str
    limit: float
    relative: bool
    text: str

    @property
    def name(self) -> str:
        """Metric and rank as the keyword spells them."""
        return f"{self.metric}_{self.rank}"

    @property
    def quantile(self) -> float:
        """The rank as a share."""
        return QUANTILES[self.rank]

    @property
    def least(self) -> int:
        """Fewest requests per engine that can settle it."""
        return min_requests(self.quantile, 0.025 if self.relative else 0.05)


def parse_budget(name: str, value: str | float) -> Budget:
    """Read one budget: ``"x1.25"`` (against the baseline), ``"250ms"``, ``"2s"`` or a number of seconds.

    Raises ``DesignError`` with what was given and what is allowed.
    """
    metric, _, rank = name.partition("_")
    limit: float = math.nan
    relative = False
    if isinstance(value, str):
        if match := _VALUE.fullmatch(value.strip()):
            relative = match["ratio"] is not None
            try:
                limit = float(match["ratio"] or match["time"])
            except ValueError:
                limit = math.nan
            if match["unit"] and match["unit"].lower() == "ms":
                limit /= 1000
    elif not isinstance(value, bool):
        limit = float(value)
    if not (math.isfinite(limit) and limit > 0):
        raise DesignError(
            f'latency({name}={value!r}): a budget is "x1.25" (times the baseline), "250ms", "2s" or a number of '
            "seconds above 0"
        )
    text = value.strip() if isinstance(value, str) else explain.seconds(limit)
    return Budget(metric=metric, rank=rank, limit=limit, relative=relative, text=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyCheck(BaseCheck):
    """Holds latency budgets and the share of requests that succeed against ``n`` timed requests per engine.

    Made by ``check.latency()``. Verdicts are named ``latency.ttft_p95`` and so on. An absolute budget is judged per
    engine, by the share of requests over it (Clopper-Pearson, on as many as they are worth where those of a time block
    and those of a prompt, or of a group of prompts, go together); a relative one per candidate, by the ratio of
    quantiles (bootstrap over pairs of blocks; Welch's bounds over loads where engines are loaded in turn). Failed
    requests are over any budget. Requests during which a server loaded its model do not count. With ``cached`` prompts
    are timed as they were gathered, else each behind a number of its own, so that no prefix cache holds it.
    """

    kind: ClassVar[str] = "latency"
    sequential: ClassVar[bool] = False
    """A timed phase has a fixed number of requests."""
    budgets: tuple[Budget, ...] = ()
    success_rate: float | None = None
    n: int = REQUESTS
    cached: bool = False

    @property
    def pairwise(self) -> bool:
        """True when every budget is relative."""
        return self.success_rate is None and all(budget.relative for budget in self.budgets)

    def __str__(self) -> str:
        parts = [f"{budget.name}={budget.text}" for budget in self.budgets]
        if self.success_rate is not None:
            parts.append(f"success_rate={self.success_rate:g}")
        if self.n != REQUESTS:
            parts.append(f"n={self.n}")
        if self.cached:
            parts.append("cached=True")
        return f"latency({', '.join(parts)})"

    def needs(self) -> Needs:
        """Return what to gather: timed requests, of both engines at once when a budget is relative."""
        relative = any(budget.relative for budget in self.budgets)
        # One block settles no budget: its requests are slow or fast together.
        blocks = 2 if self.budgets or self.success_rate is not None else 1
        return Needs(timed=self.n, timed_relative=relative, timed_cached=self.cached, timed_blocks=blocks)

    def problem(
        self, *, cases: int, groups: int, engines: int, sequential: bool = False, tokens: Tokens = ()
    ) -> str | None:
        """Return which budgets ``n`` requests, or those of one prompt, cannot settle; ``None`` where all can be."""
        problems = [
            f"{budget.name} takes at least {budget.least} timed requests per engine to settle and there are {self.n}; "
            f"give n={budget.least} or more"
            for budget in self.budgets
            if self.n < budget.least
        ]
        if self.success_rate is not None:
            least = least_perfect(self.success_rate, 0.05)
            if least is None:
                problems.append(f"no number of requests can show success_rate={self.success_rate:g}; ask for less")
            elif self.n < least:
                problems.append(
                    f"success_rate={self.success_rate:g} takes at least {least} timed requests per engine to "
                    f"pass and there are {self.n}; give n={least} or more"
                )
        if groups == 1 and self._of_each():
            asked = "one prompt" if cases == 1 else f"{cases} prompts of one group"
            problems.append(
                f"{' and '.join(self._of_each())} cannot be settled on {asked}: however often it is timed it counts as "
                "one request, since nothing is known of others; give prompts of 2 groups at least, or a limit relative "
                'to the baseline such as "x1.25"'
            )
        return "; ".join(problems) or None

    def _of_each(self) -> list[str]:
        """Return the names of what is judged of each engine by itself."""
        names = [budget.name for budget in self.budgets if not budget.relative]
        return names if self.success_rate is None else [*names, "success_rate"]

    def power(self, *, cases: int, groups: int, sequential: bool = False, tokens: Tokens = ()) -> str:
        """Return one line for the plan: how many requests it times."""
        line = f"{self}: {explain.count(self.n, 'timed request')} per engine"
        absolute = [budget for budget in self.budgets if not budget.relative]
        if groups >= self.n or not (absolute or self.success_rate is not None):
            return line
        short = [budget.name for budget in absolute if budget.least > groups]
        if self.success_rate is not None and (least_perfect(self.success_rate, 0.05) or 0) > groups:
            short.append("success_rate")
        of = explain.count(cases, "prompt") if groups == cases else f"{cases} prompts in {groups} groups"
        line += f" of {of}, which may count as no more than {groups}"
        if not short:
            return line
        return (
            f"{line}; a PASS of {' and '.join(short)} tells little of other prompts then, and where some are late or "
            "fail each time it stays open: give more prompts"
        )

    def problem_in_turn(self, *, engines: int, changes: int, concurrency: int) -> str | None:
        """Say why relative budgets cannot be settled on engines that are loaded in turn, ``None`` where they can."""
        return self._in_turn(engines, changes, concurrency).problem() if self.needs().timed_relative else None

    def power_in_turn(self, *, engines: int, changes: int, concurrency: int) -> list[str]:
        """Return what the plan says of each relative budget on engines that are loaded in turn.

        An engine as fast as the baseline cannot pass a limit below 1: of that nothing is said.
        """
        in_turn = self._in_turn(engines, changes, concurrency)
        return [
            f"{budget.name}={budget.text}: {in_turn.settles(budget.name, budget.limit)}"
            for budget in self.budgets
            if budget.relative and budget.limit > 1.0
        ]

    def _in_turn(self, engines: int, changes: int, concurrency: int) -> Visits:
        return Visits(engines=engines, n=self.n, concurrency=concurrency, changes=changes)

    def verdicts(self, evidence: Evidence) -> Iterable[Verdict]:
        """Return a verdict per budget and engine (absolute) or candidate (relative); of ``success_rate`` per engine."""
        timed = {name: Timed(engine, self.n, evidence) for name, engine in evidence.engines.items()}
        baseline = timed[evidence.baseline]
        for budget in self.budgets:
            kind = f"latency.{budget.name}"
            if budget.relative:

                def compare(opened: Verdict, engine: EngineEvidence, budget: Budget = budget) -> Iterable[Verdict]:
                    sides = (baseline, timed[engine.name])
                    refused = _untimed(opened, evidence, *sides, metric=budget.metric)
                    yield refused or self._ratio(opened, evidence, budget, *sides)

                yield from self.each_pair(evidence, kind, compare)
            else:

                def hold(opened: Verdict, engine: EngineEvidence, budget: Budget = budget) -> Verdict:
                    side = timed[engine.name]
                    refused = _untimed(opened, evidence, side, metric=budget.metric)
                    return refused or self._absolute(opened, evidence, budget, side)

                yield from self.each_engine(evidence, kind, hold)
        if self.success_rate is not None:
            yield from self.each_engine(
                evidence,
                "latency.success_rate",
                lambda opened, engine: (
                    _untimed(opened, evidence, timed[engine.name])
                    or self._success(opened, evidence, timed[engine.name])
                ),
            )

    def _absolute(self, verdict: Verdict, evidence: Evidence, budget: Budget, timed: Timed) -> Verdict:
        values, blocks = timed.values(budget.metric)
        groups = timed.groups(budget.metric)
        if not values:
            return _unmeasured(verdict, budget, timed)
        design = Fixed(alpha=evidence.alpha)
        verdict = dataclasses.replace(
            verdict.judged(design.over(values, blocks, groups, budget=budget.limit, quantile=budget.quantile)),
            measures=f"of requests took over {explain.seconds(budget.limit)} {WORDS[budget.metric]}",
            requests=len(values),
            details=tuple(timed.lines(budget.metric)),
            remarks=(
                *_never_late(values, groups, budget.limit, by_group=timed.by_group, alpha=evidence.alpha),
                *timed.provisos(),
            ),
            per_group=timed.by_group,
        )

        def best() -> Judgement:
            unknown_ones = max(0, self.n - len(values))
            size, last = max(Counter(blocks).values()), max(blocks)
            places = [*blocks, *(last + 1 + index // size for index in range(unknown_ones))]
            quick = [*values, *[0.0] * unknown_ones]
            of = [*groups, *(f"{index} never asked" for index in range(unknown_ones))]
            return design.over(quick, places, of, budget=budget.limit, quantile=budget.quantile)

        return rested(verdict, timed.missing(len(values), metric=budget.metric), best=best)

    def _ratio(
        self, verdict: Verdict, evidence: Evidence, budget: Budget, baseline: Timed, candidate: Timed
    ) -> Verdict:
        ours, our_blocks = baseline.values(budget.metric)
        theirs, their_blocks = candidate.values(budget.metric)
        for values, side in ((ours, baseline), (theirs, candidate)):
            if not values:
                return _unmeasured(verdict, budget, side)
        loads = [side.load_of_each(budget.metric) for side in (baseline, candidate)]
        in_turn = any(of_side is not None for of_side in loads)
        our_parts, their_parts = loads[0] or our_blocks, loads[1] or their_blocks
        remarks: list[str] = []
        result: RatioResult | VisitsResult
        if in_turn:
            result = ratio_in_turn(
                ours,
                theirs,
                our_parts,
                their_parts,
                quantile=budget.quantile,
                limit=budget.limit,
                alpha=evidence.alpha,
            )
            remarks = of_loads(
                result,
                names=(baseline.engine.name, candidate.engine.name),
                limit=budget.limit,
                engines=sum(engine.golden is None for engine in evidence.engines.values()),
                n=self.n,
                concurrency=evidence.concurrency,
                alpha=evidence.alpha,
            )
        elif len(set(our_blocks)) != len(set(their_blocks)):
            reason = evidence.incomplete or (
                f"{baseline.engine.name} was timed in {explain.count(len(set(our_blocks)), 'block')} and "
                f"{candidate.engine.name} in {len(set(their_blocks))}: they cannot be paired"
            )
            return dataclasses.replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason)
        else:
            result = quantile_ratio(
                ours,
                theirs,
                our_blocks,
                their_blocks,
                quantile=budget.quantile,
                limit=budget.limit,
                alpha=evidence.alpha,
                seed=evidence.seed,
            )
        reason = ""
        if not result.bounded or math.isinf(result.estimate):
            sides = [
                Side(name=side.engine.name, values=values, parts=parts, silent=side.silent)
                for side, values, parts in ((candidate, theirs, their_parts), (baseline, ours, our_parts))
            ]
            reason = unbounded(sides, rank=budget.rank, quantile=budget.quantile, in_turn=in_turn)
        judgement = judgement_of(result, margin=budget.limit, unit="ratio", n=min(len(ours), len(theirs)))
        verdict = dataclasses.replace(
            verdict.judged(judgement),
            reason=reason,
            measures=f"of {baseline.engine.name}'s {budget.rank} {WORDS[budget.metric]}",
            requests=len(ours) + len(theirs),
            details=(*baseline.lines(budget.metric), *candidate.lines(budget.metric)),
            remarks=(*remarks, *baseline.provisos(), *candidate.provisos()),
        )
        missing = (
            baseline.missing(len(ours), metric=budget.metric),
            candidate.missing(len(theirs), metric=budget.metric),
        )
        return rested(verdict, *missing)

    def _success(self, verdict: Verdict, evidence: Evidence, timed: Timed) -> Verdict:
        assert self.success_rate is not None
        answered = [sample.completion is not None for sample in timed.samples]
        verdict = dataclasses.replace(
            verdict.judged(
                Fixed(alpha=evidence.alpha).answered(
                    answered,
                    timed.blocks,
                    timed.groups(),
                    at_least=self.success_rate,
                )
            ),
            measures="of requests succeeded",
            requests=len(answered),
            details=tuple(timed.failed_lines()),
            remarks=_never_failed(answered, timed.blocks, alpha=evidence.alpha),
            per_group=timed.by_group,
        )
        return rested(verdict, timed.missing(len(answered)))


def _never_late(
    values: Sequence[float], groups: Sequence[str], limit: float, *, by_group: bool, alpha: float
) -> tuple[str, ...]:
    """Say what is not known of prompts, or groups of them, where few were timed again and again and none was late."""
    count = len(set(groups))
    if max(values) > limit or count == len(groups):
        return ()
    most = explain.percent(1.0 - alpha ** (1.0 / count))
    noun = "group" if by_group else "prompt"
    return (f"no request of {explain.count(count, noun)} was over: up to {most} of {noun}s like these may always be",)


def _never_failed(answered: Sequence[bool], blocks: Sequence[int], *, alpha: float) -> tuple[str, ...]:
    """Say what is not known of outages where no request failed: how long they are, and so in how many blocks none was.

    Clopper and Pearson's bound on blocks.
    """
    count = len(set(blocks))
    if not all(answered) or count < 2:
        return ()
    most = explain.percent(1.0 - alpha ** (1.0 / count))
    return (f"no request failed in {count} blocks: outages as long as a block may take up to {most} of the time",)


def _untimed(verdict: Verdict, evidence: Evidence, *sides: Timed, metric: str = "") -> Verdict | None:
    """Return the verdict where there is nothing to judge, or nothing that can be trusted: without any number."""
    if evidence.single:
        reason = "latency is judged over a timed phase, not of a single answer; declare it in a parity marker"
        return dataclasses.replace(verdict, outcome=Outcome.SKIPPED, reason=reason)
    for side in sides:
        if not side.samples:
            outcome = Outcome.ERROR if evidence.incomplete is None else Outcome.INCONCLUSIVE
            broken = side.engine.untimed and f"the timed phase failed: {side.engine.untimed}"
            reason = evidence.incomplete or broken or f"{side.engine.name} has no timed requests"
            return dataclasses.replace(verdict, outcome=outcome, reason=reason)
    reason = next((why for side in sides if (why := unknown(side.engine.name, metric, side.timings))), "")
    return dataclasses.replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason) if reason else None


def _unmeasured(verdict: Verdict, budget: Budget, timed: Timed) -> Verdict:
    reason = f"no answer of {timed.engine.name} has a time {WORDS[budget.metric]}"
    return dataclasses.replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason)


def unknown(engine: str, metric: str, timings: Sequence[Timing]) -> str:
    """Say why a metric of these answers is not known, empty where it is.

    The time to the first token, where more than :data:`MERGED` of them shared a read with later ones; the time per
    token, where as many answers came in far fewer events, or more, than they have tokens, or whole in one read.
    """
    if metric == "ttft" and (merged := sum(timing.merged_first for timing in timings)) > MERGED * len(timings):
        return (
            f"{merged} of {explain.count(len(timings), 'first token')} of {engine} arrived together with later ones, "
            "so the time to the first token is not known"
        )
    if metric != "tpot":
        return ""
    apart = [timing for timing in timings if not timing.corresponds]
    if len(apart) <= MERGED * len(timings):
        at_once = sum(t.corresponds and t.token_events > 1 and bool(t.tokens) and t.tpot_s is None for t in timings)
        if at_once <= MERGED * len(timings):
            return ""
        return (
            f"{at_once} of {explain.count(len(timings), 'answer')} of {engine} arrived whole in one read, so the time "
            "per output token is not known"
        )
    first = apart[0]
    cause = (
        "many tokens in one event, a parser that holds them back, or hidden reasoning among the counted ones"
        if (first.tokens or 0) > first.token_events
        else "a server or proxy that cuts tokens into pieces, or leaves some out of its count"
    )
    tokens, events = explain.count(first.tokens or 0, "token"), explain.count(first.token_events, "event")
    return (
        f"{len(apart)} of {explain.count(len(timings), 'answer')} of {engine} came in other numbers of events than of "
        f"tokens (the first: {tokens} in {events}), so the time per output token is not known: {cause}"
    )
