"""Latency budgets over the timed phase: absolute ones per engine, relative ones against the baseline."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_llmparity.core.checks import gathered
from pytest_llmparity.core.checks.missing import Missing
from pytest_llmparity.core.checks.shares import judge_share, least_perfect, share_needed
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import EngineEvidence, Evidence, Needs
from pytest_llmparity.core.sample import Phase, Sample, Timing
from pytest_llmparity.core.stats.quantiles import describe, min_requests, quantile_ratio, share_over
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain

REQUESTS: Final = 128
MERGED: Final = 0.01
"""Share of first tokens that arrived in one read with later ones above which a TTFT is not trusted (DESIGN 10)."""
WORDS: Final = {"ttft": "to the first token", "tpot": "per output token", "e2e": "end to end"}
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
class LatencyCheck:
    """Holds latency budgets and the share of requests that succeed against ``n`` timed requests per engine.

    Made by ``check.latency()``. Verdicts are named ``latency.ttft_p95`` and so on. An absolute budget is judged per
    engine, by the share of requests over it (the wider of Clopper-Pearson and a bound over time blocks); a relative one
    per candidate, by the ratio of quantiles (bootstrap over pairs of blocks). Failed requests count as over any budget.
    Requests during which a server loaded its model do not count. With ``cached`` prompts are timed as they were
    gathered, else each behind a number of its own, so that no prefix cache holds it.
    """

    budgets: tuple[Budget, ...] = ()
    success_rate: float | None = None
    n: int = REQUESTS
    cached: bool = False
    where: str = field(default="", compare=False)

    @property
    def kind(self) -> str:
        """Short name."""
        return "latency"

    @property
    def pairwise(self) -> bool:
        """True when every budget is relative."""
        return self.success_rate is None and all(budget.relative for budget in self.budgets)

    @property
    def sequential(self) -> bool:
        """A timed phase has a fixed number of requests."""
        return False

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
        """Timed requests; both engines at once when a budget is relative."""
        relative = any(budget.relative for budget in self.budgets)
        return Needs(timed=self.n, timed_relative=relative, timed_cached=self.cached)

    def problem(self, *, cases: int, groups: int, engines: int, sequential: bool = False) -> str | None:
        """Refuse budgets on quantiles that ``n`` requests cannot bound, all of them at once."""
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
        return "; ".join(problems) or None

    def power(self, *, cases: int, groups: int, sequential: bool = False) -> str:
        """How many requests it times."""
        return f"{self}: {explain.count(self.n, 'timed request')} per engine"

    def judge(self, evidence: Evidence) -> list[Verdict]:
        """One verdict per budget and engine (absolute) or candidate (relative), and per engine for ``success_rate``."""
        timed = {name: _Timed(engine) for name, engine in evidence.engines.items()}
        verdicts: list[Verdict] = []
        for budget in self.budgets:
            kind = f"latency.{budget.name}"
            if budget.relative:
                verdicts += gathered.alone(self, evidence, kind)
                baseline = timed[evidence.baseline]
                for candidate, start in gathered.candidates(self, evidence, kind):
                    both = (baseline, timed[candidate.name])
                    refused = self._refused(start, evidence, *both, metric=budget.metric)
                    verdicts.append(refused or self._ratio(start, evidence, budget, *both))
                continue
            for name, engine in evidence.engines.items():
                start = gathered.start(self, evidence, engine, kind=kind, alone=True)
                refused = self._refused(start, evidence, timed[name], metric=budget.metric)
                verdicts.append(refused or self._absolute(start, evidence, budget, timed[name]))
        if self.success_rate is not None:
            for name, engine in evidence.engines.items():
                start = gathered.start(self, evidence, engine, kind="latency.success_rate", alone=True)
                refused = self._refused(start, evidence, timed[name])
                verdicts.append(refused or self._success(start, evidence, timed[name], self.success_rate))
        return verdicts

    def _refused(self, verdict: Verdict, evidence: Evidence, *sides: _Timed, metric: str = "") -> Verdict | None:
        """Return the verdict where there is nothing to judge, or nothing that can be trusted: without any number."""
        if (refused := gathered.blocked(verdict, *(side.engine for side in sides))) is not None:
            return refused
        if evidence.single:
            reason = "latency is judged over a timed phase, not of a single answer; declare it in a parity marker"
            return gathered.finish(verdict, outcome=Outcome.SKIPPED, reason=reason)
        for side in sides:
            if not side.samples:
                outcome = Outcome.ERROR if evidence.incomplete is None else Outcome.INCONCLUSIVE
                broken = side.engine.untimed and f"the timed phase failed: {side.engine.untimed}"
                reason = evidence.incomplete or broken or f"{side.engine.name} has no timed requests"
                return gathered.finish(verdict, outcome=outcome, reason=reason)
        reason = next((why for side in sides if (why := unknown(side.engine.name, metric, side.timings))), "")
        return gathered.finish(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason) if reason else None

    def _absolute(self, verdict: Verdict, evidence: Evidence, budget: Budget, timed: _Timed) -> Verdict:
        values, blocks = timed.values(budget.metric)
        if not values:
            return _unmeasured(verdict, budget, timed)
        result = share_over(
            [value > budget.limit for value in values], blocks, quantile=budget.quantile, alpha=evidence.alpha
        )
        changes: dict[str, Any] = {
            "estimate": result.estimate,
            "lower": result.lower,
            "upper": result.upper,
            "margin": round(result.limit, 12),
            "p_pass": result.p_pass,
            "p_fail": result.p_fail,
            "unit": "share",
            "measures": f"of requests took over {explain.seconds(budget.limit)} {WORDS[budget.metric]}",
            "n": result.n,
            "requests": result.n,
            "details": tuple(timed.lines(budget.metric)),
            "remarks": tuple(timed.provisos()),
        }
        outcome = Outcome.INCONCLUSIVE
        if result.upper < result.limit:
            outcome = Outcome.PASS
        elif result.lower > result.limit:
            outcome = Outcome.FAIL
        else:
            changes["needed"] = share_needed(result.n - result.over, result.n, budget.quantile, evidence.alpha)
        unknown_ones = max(0, self.n - len(values))

        def proven() -> float | None:
            over = [*(value > budget.limit for value in values), *[False] * unknown_ones]
            size, last = max(Counter(blocks).values()), max(blocks)
            places = [*blocks, *(last + 1 + index // size for index in range(unknown_ones))]
            best = share_over(over, places, quantile=budget.quantile, alpha=evidence.alpha)
            return best.p_fail if best.lower > best.limit else None

        return self._done(verdict, evidence, budget, changes | {"outcome": outcome}, timed, proven=proven)

    def _ratio(
        self, verdict: Verdict, evidence: Evidence, budget: Budget, baseline: _Timed, candidate: _Timed
    ) -> Verdict:
        ours, our_blocks = baseline.values(budget.metric)
        theirs, their_blocks = candidate.values(budget.metric)
        for values, side in ((ours, baseline), (theirs, candidate)):
            if not values:
                return _unmeasured(verdict, budget, side)
        if len(set(our_blocks)) != len(set(their_blocks)):
            reason = (
                f"{baseline.engine.name} was timed in {explain.count(len(set(our_blocks)), 'block')} and "
                f"{candidate.engine.name} in {len(set(their_blocks))}: they cannot be paired"
            )
            return gathered.finish(verdict, outcome=Outcome.INCONCLUSIVE, reason=evidence.incomplete or reason)
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
        changes: dict[str, Any] = {
            "estimate": result.estimate,
            "lower": result.lower,
            "upper": result.upper,
            "margin": budget.limit,
            "p_pass": result.p_pass,
            "p_fail": result.p_fail,
            "unit": "ratio",
            "measures": f"of {baseline.engine.name}'s {budget.rank} {WORDS[budget.metric]}",
            "n": min(len(ours), len(theirs)),
            "requests": len(ours) + len(theirs),
            "details": (*baseline.lines(budget.metric), *candidate.lines(budget.metric)),
            "remarks": (*baseline.provisos(), *candidate.provisos()),
        }
        outcome = Outcome.INCONCLUSIVE
        if result.upper < budget.limit:
            outcome = Outcome.PASS
        elif result.lower > budget.limit:
            outcome = Outcome.FAIL
        if math.isinf(result.estimate):
            changes["reason"] = f"{candidate.engine.name}'s {budget.rank} is a request that failed"
        elif not result.bounded:
            changes["reason"] = f"too few answers to bound {budget.rank}"
        return self._done(verdict, evidence, budget, changes | {"outcome": outcome}, baseline, candidate)

    def _success(self, verdict: Verdict, evidence: Evidence, timed: _Timed, wanted: float) -> Verdict:
        good = sum(sample.completion is not None for sample in timed.samples)
        changes = judge_share(good, len(timed.samples), at_least=wanted, evidence=evidence)
        changes |= {
            "measures": "of requests succeeded",
            "requests": len(timed.samples),
            "details": tuple(timed.failed_lines()),
        }
        done = gathered.rested(gathered.finish(verdict, **changes), timed.missing(len(timed.samples), self.n, evidence))
        return gathered.settled(done, evidence, absent=max(0, self.n - len(timed.samples)))

    def _done(
        self,
        verdict: Verdict,
        evidence: Evidence,
        budget: Budget,
        changes: dict[str, Any],
        *sides: _Timed,
        proven: Callable[[], float | None] = lambda: None,
    ) -> Verdict:
        """Finish a verdict, unless too few requests have this time or a hard stop cut the phase short."""
        done = gathered.finish(verdict, **changes)
        for side in sides:
            missing = side.missing(len(side.values(budget.metric)[0]), self.n, evidence, metric=budget.metric)
            done = gathered.rested(done, missing, proven=proven)
        absent = sum(max(0, self.n - len(side.samples)) for side in sides)
        return gathered.settled(done, evidence, absent=absent)


class _Timed:
    """The timed phase of one engine."""

    def __init__(self, engine: EngineEvidence) -> None:
        self.engine = engine
        asked = sorted(
            (sample for samples in engine.samples.get(Phase.TIMED, {}).values() for sample in samples),
            key=lambda sample: sample.repeat,
        )
        self.samples: Sequence[Sample] = [s for s in asked if s.timing is None or not s.timing.met_load]
        self.loads = len(asked) - len(self.samples)
        self.timings = [sample.timing for sample in self.samples if sample.timing is not None]

    def missing(self, used: int, n: int, evidence: Evidence, *, metric: str = "") -> Missing:
        """Return what a verdict on ``used`` of ``n`` requests does not rest on."""
        name, reasons = self.engine.name, list[str]()
        if short := len(self.samples) - used:
            reasons.append(f"{explain.count(short, 'answer')} of {name} too short to have a time {WORDS[metric]}")
        if self.loads:
            reasons.append(f"{explain.count(self.loads, 'request')} during which {name} loaded its model")
        if (absent := n - len(self.samples) - self.loads) > 0:
            stopped = evidence.incomplete or self.engine.untimed or "never asked"
            reasons.append(f"{explain.count(absent, 'request')} of {name}: {stopped}")
        return Missing(of=max(n, len(self.samples)), used=used, reasons=tuple(reasons), noun="request")

    def values(self, metric: str) -> tuple[list[float], list[int]]:
        """Return seconds and blocks; a failed request takes for ever, an answer too short for the metric is left out.

        A failure has no stamps; its place among the engine's requests says which block it was in.
        """
        found: list[tuple[float, int]] = []
        for sample, block in zip(self.samples, _blocks(self.samples), strict=True):
            timing = sample.timing
            if sample.completion is None:
                found.append((math.inf, block))
            elif timing is not None and (value := _metric(timing, metric)) is not None:
                found.append((value, block))
        return [value for value, _ in found], [block for _, block in found]

    def lines(self, metric: str) -> list[str]:
        """Say the quantiles and what failed."""
        values, blocks = self.values(metric)
        p50, p95, p99 = (explain.seconds(value) for value in describe(values))
        where = f"{explain.count(len(values), 'request')} in {explain.count(len(set(blocks)), 'block')}"
        line = f"{self.engine.name} {WORDS[metric]}: p50 {p50}, p95 {p95}, p99 {p99}; {where}"
        return [line, *self.failed_lines()]

    def provisos(self) -> list[str]:
        """Say what these times are of, where that is more, or less, than the engine's own."""
        name, lines = self.engine.name, []
        if self.loads:
            count = explain.count(self.loads, "request")
            lines.append(f"{name} loaded its model meanwhile: {count} that may have waited for it do not count")
        slots, under_way = self.engine.identity.facts.get("slots"), max(s.concurrency for s in self.samples)
        if slots is not None and isinstance(slots.value, int) and slots.value < under_way:
            at_once = f"answers {explain.count(slots.value, 'request')} at a time ({slots.source})"
            lines.append(f"{name} {at_once} and {under_way} were under way: its times hold the wait in its queue")
        seen = sum(not sample.prefix for sample in self.samples)
        if seen:
            lines.append(f"{explain.count(seen, 'request')} of {name} as gathered: a prefix cache may have held them")
        return lines

    def failed_lines(self) -> list[str]:
        """Say how many requests failed, and the first of them; nothing when none did."""
        failed = [(sample.case, sample.failure) for sample in self.samples if sample.failure is not None]
        if not failed:
            return []
        case, failure = failed[0]
        first = gathered.describe(self.engine, case, failure)
        return [f"{explain.count(len(failed), 'failed request')}, counted as over; first: {first}"]


def _blocks(samples: Sequence[Sample]) -> list[int]:
    """Return the block of each sample, given in the order asked (``repeat``); blocks are numbered from 0.

    Where there is no stamp the block follows from the order and the blocks' size, between those of its neighbours.
    """
    spans: dict[int, tuple[int, int]] = {}
    for sample in samples:
        if sample.timing is not None:
            first, _ = spans.get(sample.timing.block, (sample.repeat, 0))
            spans[sample.timing.block] = (first, sample.repeat)
    size = max((last - first + 1 for first, last in spans.values()), default=len(samples) or 1)
    found: list[int] = []
    for sample in samples:
        if sample.timing is not None:
            found.append(sample.timing.block)
            continue
        low = max((block for block, (first, _) in spans.items() if first < sample.repeat), default=0)
        high = min((block for block, (_, last) in spans.items() if last > sample.repeat), default=sample.repeat // size)
        found.append(min(max(sample.repeat // size, low), max(low, high)))
    return found


def _metric(timing: Timing, metric: str) -> float | None:
    return {"ttft": timing.ttft_s, "tpot": timing.tpot_s, "e2e": timing.e2e_s}[metric]


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


def _unmeasured(verdict: Verdict, budget: Budget, timed: _Timed) -> Verdict:
    reason = f"no answer of {timed.engine.name} has a time {WORDS[budget.metric]}"
    return gathered.finish(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason)
