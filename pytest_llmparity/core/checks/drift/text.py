"""Greedy text: how often, per token, the candidate's answers part from the baseline's."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from pytest_llmparity.core.checks.base import BaseCheck, sampled
from pytest_llmparity.core.checks.designs import ONE_GROUP, SINGLE, Design, Fixed, Forks, design_of, turns
from pytest_llmparity.core.checks.drift.floor import (
    HORIZON,
    UNKNOWN_MARGIN,
    Floor,
    RepeatedPhase,
    above_floor,
    advice,
    floor_of,
    preset,
    repeated_phases,
    share_of,
)
from pytest_llmparity.core.checks.drift.ladders import text_margin
from pytest_llmparity.core.checks.drift.logprobs import line_of
from pytest_llmparity.core.checks.family import WEIGHTS
from pytest_llmparity.core.checks.missing import Missing, Silence, rested
from pytest_llmparity.core.checks.pairing import Pair, Pairing, pair_answers
from pytest_llmparity.core.compare.answers import Compared, compare_answers, digest
from pytest_llmparity.core.compare.text import Fork
from pytest_llmparity.core.diagnosis import layers
from pytest_llmparity.core.evidence import FLOOR_PHASES, EngineEvidence, Evidence, Needs, floor_stages
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.stats.hazard import can_pass, hazard
from pytest_llmparity.core.stats.power import Settled, settled
from pytest_llmparity.core.stats.sequential import least_units
from pytest_llmparity.core.verdict import Difference, Judgement, Outcome, Verdict
from pytest_llmparity.core.words import explain

TOP_LOGPROBS: Final = 5
"""Alternatives per token that are asked for to grade forks."""
SHIFTED: Final = 64
"""Prompts, about so many, of which the shift is shown beside the forks: it needs few, and reads every logprob."""
UNGRADED: Final = "ungraded"
_SHARE: Final = WEIGHTS["text"] / sum(WEIGHTS.values())
"""Of the error rate FAIL gets, in a test of two engines with this check alone."""
_CAUGHT: Final = 1.6
"""Margins of drift that the plan says how often a gate catches: 8 % where 5 % are allowed."""
_MORE: Final = 4
"""Times the prompts, or the groups, that the plan compares a prompt set with."""

ComparedPairs = Sequence[tuple[Pair, Compared]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCheck(BaseCheck):
    """Judges forks per token over the first ``horizon`` tokens against ``margin``.

    Made by ``check.text()``. ``margin`` ``None`` takes that of the candidate's class on the model's ladder where
    there is one, else the preset of the two engines' quantisations. Gives two verdicts
    per candidate: ``text`` (candidate against baseline) and ``text.repeat`` (candidate against itself). Prompts of one
    ``group`` are one piece of evidence: several prompts of a single group are INCONCLUSIVE, and below 12 groups a
    verdict speaks for this mix of prompts only.

    FAIL of ``text`` needs the lower bound above the margin and more drift than the baseline shows against itself: its
    own is shown to be below the margin, or less case by case (paired sign-flip test), the smaller p-value doubled;
    ``p_fail`` is the larger of the two. ``text.repeat`` takes the worst of the floor
    phases, so its p-values and bounds are Bonferroni-corrected for their number, and for the stages in which the floor
    is asked of more cases where fewer do not show it to be below the margin.

    In a sequential run ``text`` counts one prompt of each group, the first in the run's order.
    """

    kind: ClassVar[str] = "text"
    margin: float | None = None
    horizon: int = HORIZON

    def __str__(self) -> str:
        given = [f"margin={self.margin:g}"] if self.margin is not None else []
        given += [f"horizon={self.horizon}"] if self.horizon != HORIZON else []
        return f"text({', '.join(given)})"

    def needs(self) -> Needs:
        """Return what to gather: the main phase and the floor of both engines; logprobs, where there are any."""
        return Needs(
            phases=frozenset({Phase.MAIN, *FLOOR_PHASES}),
            top_logprobs=TOP_LOGPROBS,
            floor_held=frozenset({(UNKNOWN_MARGIN if self.margin is None else self.margin, self.horizon)}),
        )

    def problem(self, *, cases: int, groups: int, engines: int, sequential: bool = False) -> str | None:
        """Refuse a set so small that not even answers without a single fork would pass."""
        margin = UNKNOWN_MARGIN if self.margin is None else self.margin
        if sequential:
            least = least_units(margin, most=self.horizon, alpha=0.05)
            if least is not None and least <= groups:
                return None
            return (
                f"{explain.count(groups, 'group')} of prompts, one of each with {self.horizon} tokens, can never pass "
                f"a margin of {explain.percent(margin)} in a sequential run, not even without a fork; it takes {least}"
            )
        if can_pass(cases * self.horizon, margin, 0.05):
            return None
        needed = math.floor(-math.log(0.05) / (margin * self.horizon)) + 1
        return (
            f"{explain.count(cases, 'prompt')} of {self.horizon} tokens can never pass a margin of "
            f"{explain.percent(margin)}, not even without a fork; it takes {needed}"
        )

    def power(self, *, cases: int, groups: int, sequential: bool = False) -> str:
        """Return one line for the plan: what so many prompts can and cannot see, by Poisson's bound without a fork."""
        if sequential:
            return f"{self}: counts one prompt of each group, {explain.count(groups, 'group')} in all"
        least = -math.log(0.05) / (cases * self.horizon)
        text = f"{self}: without a fork {explain.count(cases, 'prompt')} bound the drift at {explain.percent(least)}"
        if groups == 1 < cases:
            text += f"; {ONE_GROUP}, so nothing will be settled"
        elif groups < explain.FEW_GROUPS:
            text += f"; with {explain.count(groups, 'group')} it speaks for this mix of prompts only"
        return text

    def weakness(self, *, sizes: Sequence[int], sequential: bool = False) -> str:
        """Say how seldom groups of several prompts catch a drift of 1.6 margins, where that is less than half the runs.

        By simulation; what more prompts of the same groups, and more groups, would change of it is simulated too.
        """
        margin = UNKNOWN_MARGIN if self.margin is None else self.margin
        groups = len(sizes)
        larger = _CAUGHT * margin
        if sequential or not 1 < groups < sum(sizes) or larger >= 1.0:
            return ""

        def of(*numbers: int) -> Settled:
            return settled(
                numbers, margin=margin, passing=margin / 2, failing=larger, horizon=self.horizon, share=_SHARE
            )

        now = of(*sizes)
        if now.caught >= 0.5:
            return ""
        longer, wider = of(*(_MORE * size for size in sizes)), of(*(_MORE * tuple(sizes)))
        do = "help" if longer.caught >= (now.caught + wider.caught) / 2 else "do not help"
        given = "" if self.margin is not None else f" (margin {explain.percent(margin)})"
        return (
            f"{self}: with {groups} groups {explain.percent(larger)} drift is caught in {_hundreds(now.caught)} of 100 "
            f"runs, {explain.percent(margin / 2)} passes in {_hundreds(now.passes)}{given}; more prompts in them {do} "
            f"({_MORE} times as many: {_hundreds(longer.caught)}, {_hundreds(longer.passes)}), more groups do "
            f"({_MORE} times as many: {_hundreds(wider.caught)}, {_hundreds(wider.passes)})"
        )

    def verdicts(self, evidence: Evidence) -> Iterable[Verdict]:
        """Return two verdicts per candidate: against the baseline, and against itself."""
        own: list[RepeatedPhase] = []
        if not evidence.single:
            own = repeated_phases(evidence.prompts.cases, evidence.engines[evidence.baseline], horizon=self.horizon)

        def judge(opened: Verdict, candidate: EngineEvidence) -> Iterable[Verdict]:
            pairing = pair_answers(evidence, candidate)
            refused = sampled(opened, evidence, "forks are counted in greedy answers") or pairing.unanswered(
                opened, evidence
            )
            if refused is not None:
                return [refused]
            comparison = _Comparison(evidence, pairing, self.horizon)
            if evidence.single:
                return [self._single(opened, comparison)]
            return [
                self._cross(opened, evidence, candidate, comparison, own),
                self._repeat(dataclasses.replace(opened, kind="text.repeat"), evidence, candidate),
            ]

        return self.each_pair(evidence, self.kind, judge)

    def _single(self, verdict: Verdict, comparison: _Comparison) -> Verdict:
        pairs = comparison.pairs
        if not pairs:
            reason = f"{comparison.missing.reason} ({SINGLE})"
            return dataclasses.replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason)
        return dataclasses.replace(
            verdict.judged(comparison.judge(comparison.forks, UNKNOWN_MARGIN)),
            requests=2,
            horizon=self.horizon,
            details=tuple(_first_fork(verdict, pairs)),
            differing=_differing(pairs, pairs),
        )

    def _cross(
        self,
        verdict: Verdict,
        evidence: Evidence,
        candidate: EngineEvidence,
        comparison: _Comparison,
        phases: Sequence[RepeatedPhase],
    ) -> Verdict:
        floor = floor_of(phases, alpha=evidence.alpha, horizon=self.horizon)
        margin, why = self._margin(evidence, candidate)
        pairs, counted, missing = comparison.pairs, comparison.counted, comparison.missing
        own = None if floor is None else floor.judgement.estimate
        verdict = dataclasses.replace(
            verdict,
            floor=own,
            differs=layers.layers(evidence, candidate, floor=own),
            differing=_differing(pairs, counted),
            margin=margin,
            horizon=self.horizon,
            requests=2 * len(counted),
        )
        if not pairs:
            return rested(verdict, missing)
        judgement = comparison.judge(comparison.forks, UNKNOWN_MARGIN if margin is None else margin)
        details = _fork_lines(verdict, counted, judgement.groups, missing, why, further=len(pairs) - len(counted))
        shown = [(pair.case, pair.baseline, pair.candidate) for pair, _ in counted[:: max(1, len(counted) // SHIFTED)]]
        if shifted := line_of(shown, evidence):
            details.append(shifted)
        had_turn = turns(judgement, comparison.pairing.groups_asked, evidence.prompts.groups)
        verdict = dataclasses.replace(verdict, measures="of tokens fork", details=tuple(details), remarks=had_turn)
        if margin is None:
            return rested(verdict.judged(_unjudged(judgement, why)), missing)
        above = 1.0
        if floor is not None:
            above = above_floor(
                comparison.forks, floor, phases, margin=margin, alpha=evidence.alpha, stages=_stages(evidence)
            )

        def best() -> Judgement:
            return _beside_floor(comparison.judge(comparison.best, margin), evidence, floor, above)

        done = verdict.judged(_beside_floor(judgement, evidence, floor, above))
        if done.outcome is Outcome.PASS and (tags := _tags_above(counted, margin=margin, alpha=evidence.alpha)):
            hidden = f"by themselves above the margin: {tags}"
            done = dataclasses.replace(done, reason=hidden, remarks=(*done.remarks, hidden))
        return rested(done, missing, best=best)

    def _repeat(self, verdict: Verdict, evidence: Evidence, candidate: EngineEvidence) -> Verdict:
        """Judge the floor phase in which a candidate drifted most from itself, Bonferroni-corrected for them all."""
        phases = repeated_phases(evidence.prompts.cases, candidate, horizon=self.horizon)
        margin, _ = self._margin(evidence, candidate)
        floor = floor_of(phases, margin=margin, alpha=evidence.alpha / max(1, len(phases)), horizon=self.horizon)
        short = next((phase.missing for phase in phases if not phase.missing.enough), None)
        if floor is None:
            nothing = f"{candidate.name} has no repeated answers to compare" if short is None else short.reason
            return dataclasses.replace(verdict, reason=evidence.incomplete or nothing)
        own = f"of tokens fork from {candidate.name}'s own first answer ({_asked(floor.phase, evidence)})"
        verdict = dataclasses.replace(verdict, measures=own, horizon=self.horizon, requests=2 * len(floor.forks))
        if margin is None:
            return verdict.judged(_unjudged(floor.judgement, "no margin: see text"))

        def held(forks: Forks) -> Judgement:
            # FAIL is judged once, where no more cases are asked; who may pass at every stage pays for each.
            for tests in (len(phases), len(phases) / share_of(phases, _stages(evidence))):
                judgement = Fixed(alpha=evidence.alpha / tests).hazard(forks, margin=margin, horizon=self.horizon)
                if judgement.outcome is Outcome.FAIL:
                    break
            return _corrected(judgement, tests)

        judgement = held(floor.forks)
        if judgement.outcome is Outcome.INCONCLUSIVE and not judgement.reason:
            judgement = dataclasses.replace(judgement, advice=advice(floor, phases, evidence, margin=margin))
        if judgement.outcome is Outcome.FAIL:
            judgement = dataclasses.replace(judgement, reason="it does not repeat itself")
        there = {phase.phase for phase in phases}
        if unasked := [_asked(phase, evidence) for phase in FLOOR_PHASES if phase not in there]:
            judgement = _incomplete(
                judgement, evidence.incomplete or f"it has no answers to compare when {' or '.join(unasked)}"
            )
        done = verdict.judged(judgement)
        if short is None:
            return done

        def best() -> Judgement:
            (worst,) = [phase for phase in phases if phase.phase is floor.phase]
            forks = [*worst.forks, *((case, _unforked(self.horizon)) for case in worst.silent)]
            return held(forks)

        return rested(done, short, best=best)

    def _margin(self, evidence: Evidence, candidate: EngineEvidence) -> tuple[float | None, str]:
        """Return the margin and where it comes from, or ``None`` and what the user must do."""
        if self.margin is not None:
            return self.margin, f"margin {explain.percent(self.margin)} as given"
        of_class = text_margin(evidence, candidate, horizon=self.horizon)
        return of_class or preset(evidence.engines[evidence.baseline], candidate)


class _Comparison:
    """The answers of a pair, compared over the horizon: the pairs that can be, those of them that count, the rest."""

    def __init__(self, evidence: Evidence, pairing: Pairing, horizon: int) -> None:
        self.pairing, self._horizon = pairing, horizon
        self._design: Design = design_of(evidence, asked=pairing.asked, groups_asked=pairing.groups_asked)
        self.pairs: list[tuple[Pair, Compared]] = []
        silence = Silence()
        for pair in pairing.pairs:
            compared = compare_answers(pair.baseline, pair.candidate, horizon=horizon)
            if compared is None:
                silence.add({evidence.baseline: pair.baseline, pairing.candidate: pair.candidate})
            else:
                self.pairs.append((pair, compared))
        self.missing = pairing.missing(evidence, used=len(self.pairs), also=silence.reasons())
        self.counted = self._design.counted(self.pairs, lambda compared: compared[0].case.group)
        self.forks: Forks = [(pair.case, compared.fork) for pair, compared in self.pairs]

    def judge(self, forks: Forks, margin: float) -> Judgement:
        """Hold forks, in the order of the prompts, against a margin."""
        return self._design.hazard(forks, margin=margin, horizon=self._horizon)

    @property
    def best(self) -> Forks:
        """The forks, and the best that may be thought of every case without one: it does not part."""
        forks = {case.id: fork for case, fork in self.forks}
        return [(case, forks.get(case.id) or _unforked(self._horizon)) for case in self.pairing.cases]


def _stages(evidence: Evidence) -> tuple[int, ...]:
    return floor_stages(len(evidence.prompts.cases), evidence.concurrency)


def _hundreds(share: float) -> int:
    return round(100 * share)


def _unforked(horizon: int) -> Fork:
    return Fork(forked=False, at_risk=float(horizon))


def _unjudged(judgement: Judgement, reason: str) -> Judgement:
    """Return the bounds alone, where no margin is known to hold them against."""
    return dataclasses.replace(
        judgement,
        outcome=Outcome.INCONCLUSIVE,
        margin=None,
        p_pass=None,
        p_fail=None,
        needed=None,
        reason=reason,
        open=False,
    )


def _beside_floor(judgement: Judgement, evidence: Evidence, floor: Floor | None, above: float) -> Judgement:
    """Fail only what drifts more than the baseline from itself; ``above`` is the p-value of *no more than that*."""
    p_fail = max(judgement.p_fail or 0.0, above)
    # The floor has as many prompts as it will ever have.
    still_open = judgement.open and (judgement.outcome is not Outcome.FAIL or above < (judgement.p_fail or 0.0))
    judgement = dataclasses.replace(judgement, p_fail=p_fail, open=still_open)
    if judgement.outcome is not Outcome.FAIL or above < evidence.alpha:
        return judgement
    name = evidence.baseline
    if floor is None:
        reason = f"what {name} differs from itself was not measured"
    else:
        reason = (
            f"baseline too noisy at this concurrency: {name} differs from itself by "
            f"{explain.percent(floor.judgement.estimate or 0.0)} per token at {evidence.concurrency} in parallel, "
            "and the drift is not shown to be more than that"
        )
    return dataclasses.replace(judgement, outcome=Outcome.INCONCLUSIVE, reason=reason)


def _corrected(judgement: Judgement, tests: float) -> Judgement:
    """Return a judgement made at a part of alpha with p-values that belong to the whole of it."""
    p_pass, p_fail = (min(1.0, tests * (p or 0.0)) for p in (judgement.p_pass, judgement.p_fail))
    return dataclasses.replace(judgement, p_pass=p_pass, p_fail=p_fail, needed=None)


def _incomplete(judgement: Judgement, reason: str) -> Judgement:
    """Return a judgement that does not pass, because some of what it should rest on was not asked."""
    if judgement.outcome is Outcome.FAIL:
        return judgement
    return dataclasses.replace(judgement, outcome=Outcome.INCONCLUSIVE, reason=reason, advice="")


def _asked(phase: Phase, evidence: Evidence) -> str:
    if phase is Phase.PARALLEL:
        return f"asked {evidence.concurrency} in parallel"
    return "asked with a cold cache" if phase is Phase.COLD else "asked again with a warm cache"


def _fork_lines(
    verdict: Verdict, pairs: ComparedPairs, groups: int, missing: Missing, why: str, *, further: int
) -> list[str]:
    """Return the lines below a verdict on text: counts, where forks are, their grades, the first of them.

    ``further`` counts prompts of groups that count once; they are not among ``pairs``.
    """
    forks = sum(compared.fork.forked for _, compared in pairs)
    at_risk = math.fsum(compared.fork.at_risk for _, compared in pairs)
    lines = [
        f"{explain.count(forks, 'fork')} in {at_risk:.0f} baseline tokens at risk, "
        f"{explain.count(len(pairs), 'prompt')} ({explain.percent(forks / len(pairs))} of them part) in "
        f"{explain.count(groups, 'group')}; {why}"
    ]
    if further:
        lines.append(f"{explain.count(further, 'further prompt')} of these groups not counted")
    if calls := sum(compared.calls for _, compared in pairs):
        lines.append(f"{explain.count(calls, 'pair')} compared as tool calls{_beside(pairs)}")
    lines += missing.reasons
    if spread := _by_part(pairs):
        lines.append(spread)
    grades = Counter(compared.fork.grade or UNGRADED for _, compared in pairs if compared.fork.forked)
    if grades.keys() - {UNGRADED}:
        lines.append("forks by grade: " + ", ".join(f"{name} {n}" for name, n in grades.most_common()))
    return lines + _first_fork(verdict, pairs)


def _beside(pairs: ComparedPairs) -> str:
    """Say how often the text beside two calls differs: it is not compared."""
    n = sum(bool(pair.baseline.tool_calls and pair.candidate.tool_calls) and _texts_differ(pair) for pair, _ in pairs)
    return f"; the text beside them differs in {n} and is not compared" if n else ""


def _texts_differ(pair: Pair) -> bool:
    return pair.baseline.text.strip() != pair.candidate.text.strip()


def _differing(pairs: ComparedPairs, counted: ComparedPairs) -> tuple[Difference, ...]:
    """Return the cases whose answers part, in order; beyond the horizon or in a group that counts once uncounted."""
    counts = {pair.case.id for pair, compared in counted if compared.fork.forked}
    return tuple(
        Difference(
            case=pair.case.id,
            what="tool calls" if compared.calls else "text",
            baseline_sha256=digest(compared.baseline),
            candidate_sha256=digest(compared.candidate),
            byte=compared.fork.byte,
            char=compared.fork.char,
            token=compared.fork.token,
            unit=compared.fork.unit,
            grade=compared.fork.grade,
            counted=pair.case.id in counts,
        )
        for pair, compared in pairs
        if compared.fork.byte is not None
    )


def _by_part(pairs: ComparedPairs) -> str:
    """Name the three tags (groups, where no case has a tag) with the most forks per token; empty if all is one part."""
    tagged = any(pair.case.tags for pair, _ in pairs)
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for pair, compared in pairs:
        for part in pair.case.tags if tagged else (pair.case.group,):
            sums[part][0] += compared.fork.forked
            sums[part][1] += compared.fork.at_risk
    rates = {part: d / e for part, (d, e) in sums.items() if e > 0}
    if len(rates) < 2 or (not tagged and len(rates) == len(pairs)) or not any(rates.values()):
        return ""
    return f"most by {'tag' if tagged else 'group'}: {explain.worst(rates, 'share')}"


def _tags_above(pairs: ComparedPairs, *, margin: float, alpha: float) -> str:
    """Name the tags whose own prompts are shown to drift beyond the margin, each at its part of the error rate.

    Prompts of a group count singly here: a warning beside a PASS may be wrong rather than missing.
    """
    tags: dict[str, list[Fork]] = defaultdict(list)
    for pair, compared in pairs:
        for tag in pair.case.tags:
            tags[tag].append(compared.fork)
    above: dict[str, float] = {}
    for tag, forks in tags.items():
        forked, at_risk = [fork.forked for fork in forks], [fork.at_risk for fork in forks]
        result = hazard(forked, at_risk, list(map(str, range(len(forks)))), margin=margin, alpha=alpha / len(tags))
        if result.lower > margin:
            above[tag] = result.estimate
    return explain.worst(above, "share", limit=None)


def _first_fork(verdict: Verdict, pairs: ComparedPairs) -> list[str]:
    """Show where the first pair of answers parts, and how either goes on; nothing where none does."""
    for pair, compared in pairs:
        fork = compared.fork
        if fork.forked:
            at = 0 if compared.calls else fork.char or 0
            place = "in its tool calls" if compared.calls else f"after {explain.count(at, 'character')}"
            grade = f", {fork.grade}" if fork.grade is not None else ""
            where = f"first fork: {explain.plain(pair.case.id, 40)} {place}{grade}"
            width = max(len(verdict.engine), len(str(verdict.baseline)))
            return [
                where,
                f"  {verdict.baseline:<{width}} {_goes_on(compared.baseline[at:])}",
                f"  {verdict.engine:<{width}} {_goes_on(compared.candidate[at:])}",
            ]
    return []


def _goes_on(text: str) -> str:
    return explain.quote(text) if text else "ends"
