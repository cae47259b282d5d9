"""Greedy text: how often, per token, the candidate's answers part from the baseline's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_llmparity.core.checks import gathered
from pytest_llmparity.core.checks.floor import Floor, Repeats, above_floor, floor_of, hazard_of, repeats
from pytest_llmparity.core.checks.fork_lines import differing, first_fork, fork_lines
from pytest_llmparity.core.checks.gathered import Gathered, Pair
from pytest_llmparity.core.checks.margins import HORIZON, PRESETS, preset
from pytest_llmparity.core.checks.missing import Silence
from pytest_llmparity.core.checks.sequence import numbers, one_of_each
from pytest_llmparity.core.compare.answers import Compared, compare_answers
from pytest_llmparity.core.compare.text import Fork
from pytest_llmparity.core.diagnosis import layers
from pytest_llmparity.core.evidence import FLOOR_PHASES, EngineEvidence, Evidence, Needs
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.stats.hazard import HazardResult, can_pass, prompts_needed
from pytest_llmparity.core.stats.sequential import least_units, ratio
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain

ONE_GROUP: Final = "all prompts come from one group: they count as one"
TOP_LOGPROBS: Final = 5
"""Alternatives per token that are asked for to grade forks."""


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
        floor: Floor | None = None
        if not evidence.single:
            floor = floor_of(repeats(evidence, baseline, horizon=self.horizon), alpha=evidence.alpha)
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
                verdicts.append(self._single(verdict, evidence, both))
                continue
            cross = self._cross(verdict, evidence, candidate, both, floor, margin, why)
            verdicts.append(gathered.settled(cross, evidence, absent=both.absent))
            phases = repeats(evidence, candidate, horizon=self.horizon)
            verdicts.append(self._repeat(evidence, candidate, phases, margin))
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

    def _single(self, verdict: Verdict, evidence: Evidence, both: Gathered) -> Verdict:
        pairs, silence = self._compared(evidence, both)
        if not pairs:
            missing = both.missing(evidence, used=0, also=silence.reasons())
            return gathered.finish(verdict, outcome=Outcome.INCONCLUSIVE, reason=f"{missing.reason} (single)")
        forked = pairs[0][1].fork.forked
        outcome = Outcome.FAIL if forked else Outcome.PASS
        reason = "the answers part" if forked else f"the answers agree over {self.horizon} tokens"
        return gathered.finish(
            verdict,
            outcome=outcome,
            reason=f"{reason} (single)",
            n=1,
            requests=2,
            horizon=self.horizon,
            details=tuple(first_fork(verdict, pairs)),
            differing=differing(pairs, pairs),
        )

    def _compared(self, evidence: Evidence, both: Gathered) -> tuple[list[tuple[Pair, Compared]], Silence]:
        """Return the pairs that can be compared, and why the others cannot."""
        pairs: list[tuple[Pair, Compared]] = []
        silence = Silence()
        for pair in both.pairs:
            compared = compare_answers(pair.baseline, pair.candidate, horizon=self.horizon)
            if compared is None:
                silence.add({evidence.baseline: pair.baseline, both.candidate: pair.candidate})
            else:
                pairs.append((pair, compared))
        return pairs, silence

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
        pairs, silence = self._compared(evidence, both)
        missing = both.missing(evidence, used=len(pairs), also=silence.reasons())
        forks = [(pair.case, compared.fork) for pair, compared in pairs]
        counted = pairs
        if evidence.sequential:
            counted = one_of_each((pair.case.group, (pair, compared)) for pair, compared in pairs)
        changes: dict[str, Any] = {
            "floor": None if floor is None else floor.result.estimate,
            "differs": layers.layers(evidence, candidate, floor=None if floor is None else floor.result.estimate),
            "differing": differing(pairs, counted),
        }
        if not pairs:
            verdict = gathered.finish(verdict, **changes, margin=margin, horizon=self.horizon, requests=2 * len(pairs))
            return gathered.rested(verdict, missing)
        judged = self._judged(forks, margin, evidence, asked=both.asked)
        changes |= _numbers(judged.result, self.horizon, margin, n=len(counted), requests=2 * len(counted))
        changes |= {
            "sequence": judged.bets.get("sequence", ""),
            "details": tuple(
                fork_lines(verdict, counted, judged.result, missing, why, further=len(pairs) - len(counted))
            ),
        }
        if margin is None:
            refused = gathered.finish(verdict, **changes, outcome=Outcome.INCONCLUSIVE, reason=why)
            return gathered.rested(refused, missing)
        above = 1.0 if floor is None else above_floor(forks, floor, evidence.alpha)
        done = self._outcome(verdict, evidence, judged, changes, margin, floor=floor, above=above, n=len(forks))

        def proven() -> float | None:
            there = {case.id: fork for case, fork in forks}
            best = [(case, there.get(case.id, Fork(forked=False, at_risk=float(self.horizon)))) for case in both.cases]
            found = self._judged(best, margin, evidence, asked=both.asked)
            return max(found.result.p_fail, above) if found.fails(margin) and above < evidence.alpha else None

        return gathered.rested(done, missing, proven=proven)

    def _judged(
        self, forks: Sequence[tuple[Case, Fork]], margin: float | None, evidence: Evidence, *, asked: int
    ) -> _Judged:
        """Return what the forks say, in the order of the prompts: of a group all count, sequentially its first."""
        if not evidence.sequential:
            return _Judged(hazard_of(forks, margin, evidence.alpha), {})
        counted = one_of_each((case.group, (case, fork)) for case, fork in forks)
        bets = self._bets([fork for _, fork in counted], margin, evidence, asked=asked)
        result = hazard_of(counted, margin, evidence.alpha)
        bounds = {name: bets[name] for name in ("lower", "upper", "p_pass", "p_fail")}
        return _Judged(dataclasses.replace(result, **bounds), bets)

    def _outcome(
        self,
        verdict: Verdict,
        evidence: Evidence,
        judged: _Judged,
        changes: dict[str, Any],
        margin: float,
        *,
        floor: Floor | None,
        above: float,
        n: int,
    ) -> Verdict:
        """Return the verdict on forks that were judged; ``above`` is the p-value of no more drift than the floor's."""
        result, bets = judged.result, judged.bets
        changes |= {"p_pass": result.p_pass, "p_fail": max(result.p_fail, above), "open": bool(bets)}
        if judged.passes(margin):
            return gathered.finish(verdict, **changes, outcome=Outcome.PASS)
        if not judged.fails(margin):
            needed = bets["needed"] if bets else prompts_needed(result, n, margin, evidence.alpha)
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

    def _repeat(
        self, evidence: Evidence, candidate: EngineEvidence, phases: Sequence[Repeats], margin: float | None
    ) -> Verdict:
        verdict = gathered.start(self, evidence, candidate, kind="text.repeat")
        share = evidence.alpha / max(1, len(phases))
        floor = floor_of(phases, margin=margin, alpha=share)
        short = next((phase.missing for phase in phases if not phase.missing.enough), None)
        if floor is None:
            nothing = f"{candidate.name} has no repeated answers to compare"
            if short is not None:
                nothing = short.reason
            return gathered.finish(verdict, outcome=Outcome.INCONCLUSIVE, reason=evidence.incomplete or nothing)
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
        asked = {phase.phase for phase in phases}
        missing = [_asked(phase, evidence) for phase in FLOOR_PHASES if phase not in asked]
        if result.lower > margin:
            changes |= {"outcome": Outcome.FAIL, "reason": "it does not repeat itself"}
        elif result.upper < margin and not missing:
            changes |= {"outcome": Outcome.PASS}
        else:
            changes |= {"outcome": Outcome.INCONCLUSIVE, "reason": ONE_GROUP if result.one_group else ""}
            if missing:
                reason = f"it has no answers to compare when {' or '.join(missing)}"
                changes["reason"] = evidence.incomplete or reason
        done = gathered.finish(verdict, **changes)
        if short is None:
            return done

        def proven() -> float | None:
            (worst,) = [phase for phase in phases if phase.phase is floor.phase]
            found = hazard_of([*worst.forks, *self._unforked(worst.silent)], margin, share)
            return min(1.0, len(phases) * found.p_fail) if found.lower > margin else None

        return gathered.rested(done, short, proven=proven)

    def _unforked(self, cases: Sequence[Case]) -> list[tuple[Case, Fork]]:
        """Return the best that may be thought of cases that say nothing."""
        return [(case, Fork(forked=False, at_risk=float(self.horizon))) for case in cases]

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


@dataclass(frozen=True, slots=True)
class _Judged:
    """Forks per token with their bounds; ``bets`` are the verdict fields of sequential evidence, else empty."""

    result: HazardResult
    bets: dict[str, Any]

    def passes(self, margin: float) -> bool:
        """Whether the drift is shown to be below the margin."""
        return self.bets["outcome"] is Outcome.PASS if self.bets else self.result.upper < margin

    def fails(self, margin: float) -> bool:
        """Whether the drift is shown to be above the margin."""
        return self.bets["outcome"] is Outcome.FAIL if self.bets else self.result.lower > margin


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


def _asked(phase: Phase, evidence: Evidence) -> str:
    if phase is Phase.PARALLEL:
        return f"asked {evidence.concurrency} in parallel"
    return "asked with a cold cache" if phase is Phase.COLD else "asked again with a warm cache"
