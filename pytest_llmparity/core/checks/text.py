"""Greedy text: how often, per token, the candidate's answers part from the baseline's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_llmparity.core import diagnosis, explain
from pytest_llmparity.core.checks import gathered
from pytest_llmparity.core.checks.base import FLOOR_PHASES, EngineEvidence, Evidence, Needs
from pytest_llmparity.core.checks.fork_lines import first_fork, fork_lines
from pytest_llmparity.core.checks.gathered import Gathered, Pair
from pytest_llmparity.core.checks.margins import HORIZON, PRESETS, preset
from pytest_llmparity.core.checks.sequence import numbers, one_of_each
from pytest_llmparity.core.compare.text import Fork, find_fork
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import Completion, Phase
from pytest_llmparity.core.stats.hazard import HazardResult, can_pass, hazard, prompts_needed
from pytest_llmparity.core.stats.noise import excess
from pytest_llmparity.core.stats.sequential import least_units, ratio
from pytest_llmparity.core.verdict import Outcome, Verdict

ONE_GROUP: Final = "all prompts come from one group: they count as one"
TOP_LOGPROBS: Final = 5
"""Alternatives per token that are asked for to grade forks."""


@dataclass(frozen=True, slots=True)
class Floor:
    """What an engine differs from itself: the phase in which it drifted most from its own main answers."""

    phase: Phase
    result: HazardResult
    forks: tuple[tuple[Case, Fork], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCheck:
    """Judges forks per token over the first ``horizon`` tokens against ``margin``.

    Made by ``check.text()``. ``margin`` ``None`` takes the preset of the two engines' quantisations. Gives two verdicts
    per candidate: ``text`` (candidate against baseline) and ``text.repeat`` (candidate against itself). Prompts of one
    ``group`` are one piece of evidence: several prompts of a single group are INCONCLUSIVE, and below 12 groups a
    verdict speaks for this mix of prompts only.

    FAIL of ``text`` needs the lower bound above the margin and more drift than the baseline shows against itself
    (paired sign-flip test); its ``p_fail`` is the larger of the two. ``text.repeat`` takes the worst of the floor
    phases, so its p-values and bounds are Bonferroni-corrected for their number.

    In a sequential run ``text`` counts one prompt of each group, the first in the run's order.
    """

    margin: float | None = None
    horizon: int = HORIZON
    where: str = field(default="", compare=False)

    @property
    def kind(self) -> str:
        """Short name."""
        return "text"

    @property
    def pairwise(self) -> bool:
        """It says nothing about a single engine."""
        return True

    @property
    def sequential(self) -> bool:
        """Forks per token have a sequential test; the floor's number of cases is fixed."""
        return True

    def __str__(self) -> str:
        given = [f"margin={self.margin:g}"] if self.margin is not None else []
        given += [f"horizon={self.horizon}"] if self.horizon != HORIZON else []
        return f"text({', '.join(given)})"

    def needs(self) -> Needs:
        """The main phase and the floor of both engines; logprobs, where an engine has them, grade the forks."""
        return Needs(phases=frozenset({Phase.MAIN, *FLOOR_PHASES}), top_logprobs=TOP_LOGPROBS)

    def problem(self, *, cases: int, groups: int, engines: int, sequential: bool = False) -> str | None:
        """Refuse a set so small that not even answers without a single fork would pass."""
        margin = PRESETS[0][1] if self.margin is None else self.margin
        if sequential:
            least = least_units(margin, most=self.horizon, alpha=0.05)
            return None if least is not None and least <= groups else self._too_few_groups(groups, margin, least)
        if can_pass(cases * self.horizon, margin, 0.05):
            return None
        needed = math.floor(-math.log(0.05) / (margin * self.horizon)) + 1
        return (
            f"{explain.count(cases, 'prompt')} of {self.horizon} tokens can never pass a margin of "
            f"{explain.percent(margin)}, not even without a fork; it takes {needed}"
        )

    def _too_few_groups(self, groups: int, margin: float, least: int | None) -> str:
        return (
            f"{explain.count(groups, 'group')} of prompts, one of each with {self.horizon} tokens, can never pass a "
            f"margin of {explain.percent(margin)} in a sequential run, not even without a fork; it takes {least}"
        )

    def power(self, *, cases: int, groups: int, sequential: bool = False) -> str:
        """What this many prompts can and cannot see, from the Poisson bound without a fork."""
        if sequential:
            return f"{self}: counts one prompt of each group, {explain.count(groups, 'group')} in all"
        least = -math.log(0.05) / (cases * self.horizon)
        text = f"{self}: without a fork {explain.count(cases, 'prompt')} bound the drift at {explain.percent(least)}"
        if groups == 1 < cases:
            text += f"; {ONE_GROUP}, so nothing will be settled"
        elif groups < explain.FEW_GROUPS:
            text += f"; with {explain.count(groups, 'group')} it speaks for this mix of prompts only"
        return text

    def judge(self, evidence: Evidence) -> list[Verdict]:
        """Two verdicts per candidate: against the baseline, and against itself."""
        verdicts = gathered.alone(self, evidence, self.kind)
        baseline = evidence.engines[evidence.baseline]
        floor: Floor | None = None if evidence.single else self._floor(evidence, baseline)
        for candidate, verdict in gathered.candidates(self, evidence, self.kind):
            if (refused := gathered.blocked(verdict, baseline, candidate)) is not None:
                verdicts.append(refused)
                continue
            both = gathered.gather(evidence, candidate)
            if (refused := self._unfit(verdict, evidence, both)) is not None:
                verdicts.append(refused)
                continue
            margin, why = self._margin(baseline, candidate)
            if evidence.single:
                verdicts.append(self._single(verdict, both.pairs[0]))
                continue
            cross = self._cross(verdict, evidence, candidate, both, floor, margin, why)
            verdicts.append(gathered.settled(cross, evidence, absent=both.absent))
            verdicts.append(self._repeat(evidence, candidate, margin, why))
        return verdicts

    def _unfit(self, verdict: Verdict, evidence: Evidence, both: Gathered) -> Verdict | None:
        sampled = [
            case.id
            for case in evidence.prompts.cases
            if case.sampling.get("temperature", evidence.sampling.temperature) > 0
        ]
        if sampled:
            reason = (
                f"forks are counted in greedy answers and {explain.count(len(sampled), 'prompt')} "
                f"({explain.plain(sampled[0], 40)}, …) ask for a temperature above 0: set it to 0"
            )
            return gathered.finish(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason)
        return gathered.unanswered(verdict, both, evidence)

    def _single(self, verdict: Verdict, pair: Pair) -> Verdict:
        fork = find_fork(pair.baseline, pair.candidate, horizon=self.horizon)
        outcome = Outcome.FAIL if fork.forked else Outcome.PASS
        reason = "the answers part" if fork.forked else f"the answers agree over {self.horizon} tokens"
        return gathered.finish(
            verdict,
            outcome=outcome,
            reason=f"{reason} (single)",
            n=1,
            requests=2,
            horizon=self.horizon,
            details=tuple(first_fork(verdict, [(pair, fork)])),
        )

    def _cross(
        self,
        verdict: Verdict,
        evidence: Evidence,
        candidate: EngineEvidence,
        both: Gathered,
        floor: Floor | None,
        margin: float | None,
        why: str,
    ) -> Verdict:
        forks = [
            (pair, find_fork(pair.baseline, pair.candidate, horizon=self.horizon))
            for pair in both.pairs
            if not _both_call(pair.baseline, pair.candidate)
        ]
        counted = forks
        if evidence.sequential:
            counted = one_of_each((pair.case.group, (pair, fork)) for pair, fork in forks)
        result = self._hazard([(pair.case, fork) for pair, fork in counted], margin, evidence.alpha)
        bets: dict[str, Any] = {}
        if evidence.sequential:
            bets = self._bets([fork for _, fork in counted], margin, evidence, asked=both.asked)
            result = dataclasses.replace(
                result, **{name: bets[name] for name in ("lower", "upper", "p_pass", "p_fail")}
            )
        changes = _numbers(result, self.horizon, margin, n=len(counted), requests=2 * len(counted))
        changes |= {
            "floor": None if floor is None else floor.result.estimate,
            "differs": diagnosis.layers(evidence, candidate, floor=None if floor is None else floor.result.estimate),
            "sequence": bets.get("sequence", ""),
            "details": tuple(
                fork_lines(
                    verdict,
                    counted,
                    result,
                    both,
                    why,
                    calls=len(both.pairs) - len(forks),
                    further=len(forks) - len(counted),
                )
            ),
        }
        if margin is None or not result.at_risk:
            reason = why if result.at_risk else "no answer has text to compare"
            return gathered.finish(verdict, **changes, outcome=Outcome.INCONCLUSIVE, reason=reason)
        above = 1.0 if floor is None else _above_floor(forks, floor, evidence.alpha)
        changes |= {"p_pass": result.p_pass, "p_fail": max(result.p_fail, above), "open": bool(bets)}
        passes, fails = result.upper < margin, result.lower > margin
        if bets:
            passes, fails = bets["outcome"] is Outcome.PASS, bets["outcome"] is Outcome.FAIL
        if passes:
            return gathered.finish(verdict, **changes, outcome=Outcome.PASS)
        if not fails:
            needed = bets["needed"] if bets else prompts_needed(result, len(forks), margin, evidence.alpha)
            reason = ONE_GROUP if result.one_group else ""
            return gathered.finish(verdict, **changes, outcome=Outcome.INCONCLUSIVE, needed=needed, reason=reason)
        changes["open"] = bool(bets) and above < result.p_fail  # the floor has as many prompts as it will ever have
        if above < evidence.alpha:
            return gathered.finish(verdict, **changes, outcome=Outcome.FAIL)
        name = evidence.baseline
        reason = (
            f"what {name} differs from itself was not measured"
            if floor is None
            else f"baseline too noisy at this concurrency: {name} differs from itself by "
            f"{explain.percent(floor.result.estimate)} per token at {evidence.concurrency} in parallel, "
            "and the drift is not shown to be more than that"
        )
        return gathered.finish(verdict, **changes, outcome=Outcome.INCONCLUSIVE, reason=reason)

    def _repeat(self, evidence: Evidence, candidate: EngineEvidence, margin: float | None, why: str) -> Verdict:
        verdict = gathered.start(self, evidence, candidate, kind="text.repeat")
        phases = [phase for phase in FLOOR_PHASES if self._against_itself(evidence, candidate, phase)]
        share = evidence.alpha / max(1, len(phases))
        floor = self._floor(evidence, candidate, margin=margin, alpha=share)
        if floor is None:
            reason = evidence.incomplete or f"{candidate.name} has no repeated answers to compare"
            return gathered.finish(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason)
        result, n = floor.result, len(floor.forks)
        changes = _numbers(result, self.horizon, margin, n=n, requests=2 * n)
        changes["measures"] = (
            f"of tokens fork from {candidate.name}'s own first answer ({_asked(floor.phase, evidence)})"
        )
        if margin is None:
            return gathered.finish(verdict, **changes, outcome=Outcome.INCONCLUSIVE, reason="no margin: see text")
        changes |= {
            "p_pass": min(1.0, len(phases) * result.p_pass),
            "p_fail": min(1.0, len(phases) * result.p_fail),
        }
        missing = [_asked(phase, evidence) for phase in FLOOR_PHASES if phase not in phases]
        if result.lower > margin:
            changes |= {"outcome": Outcome.FAIL, "reason": "it does not repeat itself"}
        elif result.upper < margin and not missing:
            changes |= {"outcome": Outcome.PASS}
        else:
            changes |= {"outcome": Outcome.INCONCLUSIVE, "reason": ONE_GROUP if result.one_group else ""}
            if missing:
                reason = f"it has no answers to compare when {' or '.join(missing)}"
                changes["reason"] = evidence.incomplete or reason
        return gathered.finish(verdict, **changes)

    def _against_itself(self, evidence: Evidence, engine: EngineEvidence, phase: Phase) -> list[tuple[Case, Fork]]:
        main, again = gathered.answers(engine), gathered.answers(engine, phase)
        return [
            (case, find_fork(main[case.id], again[case.id], horizon=self.horizon))
            for case in evidence.prompts.cases
            if case.id in main and case.id in again and not _both_call(main[case.id], again[case.id])
        ]

    def _floor(
        self, evidence: Evidence, engine: EngineEvidence, *, margin: float | None = None, alpha: float | None = None
    ) -> Floor | None:
        """Return the floor phase in which the engine drifted most, ``None`` when none was gathered."""
        floors: list[Floor] = []
        for phase in FLOOR_PHASES:
            forks = self._against_itself(evidence, engine, phase)
            result = self._hazard(forks, margin, evidence.alpha if alpha is None else alpha)
            if result.at_risk > 0:
                floors.append(Floor(phase, result, tuple(forks)))
        return max(floors, key=lambda floor: floor.result.estimate, default=None)

    def _hazard(self, forks: Sequence[tuple[Case, Fork]], margin: float | None, alpha: float) -> HazardResult:
        return hazard(
            [fork.forked for _, fork in forks],
            [fork.at_risk for _, fork in forks],
            [case.group for case, _ in forks],
            margin=PRESETS[0][1] if margin is None else margin,
            alpha=alpha,
        )

    def _bets(self, counted: Sequence[Fork], margin: float | None, evidence: Evidence, *, asked: int) -> dict[str, Any]:
        """Return the verdict fields of sequential evidence: a unit is one prompt of a group."""
        found = ratio(
            [float(fork.forked) for fork in counted],
            [fork.at_risk for fork in counted],
            margin=PRESETS[0][1] if margin is None else margin,
            most=self.horizon,
            alpha=evidence.alpha,
        )
        return numbers(found, evidence, asked=asked, by_group=True)

    def _margin(self, baseline: EngineEvidence, candidate: EngineEvidence) -> tuple[float | None, str]:
        """Return the margin and where it comes from, or ``None`` and what the user must do."""
        if self.margin is not None:
            return self.margin, f"margin {explain.percent(self.margin)} as given"
        return preset(baseline, candidate)


def _both_call(a: Completion, b: Completion) -> bool:
    """Whether both answers are tool calls: their arguments are JSON, whose spelling differs between engines."""
    return bool(a.tool_calls and b.tool_calls)


def _numbers(result: HazardResult, horizon: int, margin: float | None, *, n: int, requests: int) -> dict[str, object]:
    return {
        "estimate": result.estimate,
        "lower": result.lower,
        "upper": result.upper,
        "margin": margin,
        "unit": "forks/token",
        "measures": "of tokens fork",
        "n": n,
        "groups": result.groups,
        "horizon": horizon,
        "requests": requests,
    }


def _above_floor(forks: Sequence[tuple[Pair, Fork]], floor: Floor, alpha: float) -> float:
    """Return the p-value of "the drift to the candidate is no more than the baseline's own", over the floor's cases.

    Each case contributes d - h·e (forks minus those expected at the pooled hazard h of both), the score of a hazard
    ratio: h does not change when the two numbers of a case are swapped, which is what the test does. Below 12 groups
    the verdict speaks for this mix of prompts, so cases are swapped instead of groups.
    """
    cross = {pair.case.id: fork for pair, fork in forks}
    shared = [(case, cross[case.id], fork) for case, fork in floor.forks if case.id in cross]
    exposure = math.fsum(there.at_risk + here.at_risk for _, there, here in shared)
    if exposure == 0.0:
        return 1.0
    pooled = sum(there.forked + here.forked for _, there, here in shared) / exposure
    few = len({case.group for case, _, _ in shared}) < explain.FEW_GROUPS
    return excess(
        [there.forked - pooled * there.at_risk for _, there, _ in shared],
        [here.forked - pooled * here.at_risk for _, _, here in shared],
        [case.id if few else case.group for case, _, _ in shared],
        alpha,
    ).p


def _asked(phase: Phase, evidence: Evidence) -> str:
    if phase is Phase.PARALLEL:
        return f"asked {evidence.concurrency} in parallel"
    return "asked with a cold cache" if phase is Phase.COLD else "asked again with a warm cache"
