"""What an engine differs from itself, in greedy text and in nats, and drift of greedy text beside that."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from pytest_llmparity.core.checks.designs import Fixed, Forks
from pytest_llmparity.core.checks.missing import Missing, Silence
from pytest_llmparity.core.compare.answers import Compared, Fork, compare_answers
from pytest_llmparity.core.compare.shift import find_shift
from pytest_llmparity.core.evidence import (
    FLOOR_PHASES,
    FLOOR_STAGES,
    EngineEvidence,
    Evidence,
    Needs,
    floor_share,
    floor_stages,
)
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import TORN, Completion, Phase, limited_lower
from pytest_llmparity.core.stats.hazard import garwood, hazard
from pytest_llmparity.core.stats.noise import excess
from pytest_llmparity.core.verdict import Judgement, Outcome
from pytest_llmparity.core.words import explain

SETTLED_AT: Final = 0.0125
"""Error rate at which a noise floor has cases enough: a quarter of 5 %, so that it is judged alike at a third look."""
UNKNOWN_MARGIN: Final = 0.05
"""What a plan reckons with until the ladder of the model is known, and what forks are only shown beside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedPhase:
    """What one phase of repeated answers says: where they part from the first ones, and the cases that say nothing.

    ``asked`` counts the cases that were asked in it, answered or not.
    """

    phase: Phase
    asked: int
    forks: tuple[tuple[Case, Fork], ...]
    silent: tuple[Case, ...]
    missing: Missing


@dataclass(frozen=True, slots=True)
class Floor:
    """What an engine differs from itself: the phase in which it drifted most from its own main answers."""

    phase: Phase
    judgement: Judgement
    forks: tuple[tuple[Case, Fork], ...]
    horizon: int


def repeated_phases(
    cases: Iterable[Case],
    engine: EngineEvidence,
    *,
    horizon: int,
    graded: Callable[[Compared], Compared] = lambda compared: compared,
) -> list[RepeatedPhase]:
    """Return what the floor phases of an engine say; a phase in which nothing was answered twice is not among them.

    ``graded`` returns what was compared as it counts.
    """
    main, asked = engine.answers(), tuple(cases)
    phases: list[RepeatedPhase] = []
    for phase in FLOOR_PHASES:
        again = engine.answers(phase)
        twice = [case for case in asked if case.id in again and case.id in main]
        forks: list[tuple[Case, Fork]] = []
        silent: list[Case] = []
        silence = Silence()
        for case in twice:
            compared = compare_answers(main[case.id], _untorn(again[case.id], main[case.id]), horizon=horizon)
            if compared is not None:
                forks.append((case, graded(compared).fork))
            else:
                silent.append(case)
                silence.add({engine.name: main[case.id], f"{engine.name} again": again[case.id]})
        if twice:
            missing = Missing(of=len(twice), used=len(forks), reasons=tuple(silence.reasons()))
            count = sum(case.id in engine.samples[phase] for case in asked)
            phases.append(
                RepeatedPhase(phase=phase, asked=count, forks=tuple(forks), silent=tuple(silent), missing=missing)
            )
    return phases


def _untorn(again: Completion, main: Completion) -> Completion:
    """Return an answer without the piece of a character that its lower limit may have left of it at the end."""
    if not (again.text.endswith(TORN) and limited_lower(again, main)):
        return again
    return msgspec.structs.replace(again, text=again.text.rstrip(TORN))


def floor_of(
    phases: Sequence[RepeatedPhase], *, margin: float | None = None, alpha: float, horizon: int
) -> Floor | None:
    """Return the phase in which the engine drifted most, ``None`` when nothing was compared in any."""
    design, limit = Fixed(alpha=alpha), UNKNOWN_MARGIN if margin is None else margin
    floors = [
        Floor(phase.phase, design.hazard(phase.forks, margin=limit, horizon=horizon), phase.forks, horizon)
        for phase in phases
        if phase.forks
    ]
    return max(floors, key=lambda floor: floor.judgement.estimate or 0.0, default=None)


def of_cases(phases: Sequence[RepeatedPhase], ids: Container[str]) -> list[RepeatedPhase]:
    """Return what the phases say of an engine's drift on some of the prompts.

    All they say, where it repeated itself everywhere; else what they say of these prompts.
    """
    if not any(fork.forked for phase in phases for _, fork in phase.forks):
        return list(phases)
    return [
        dataclasses.replace(
            phase,
            forks=tuple((case, fork) for case, fork in phase.forks if case.id in ids),
            silent=tuple(case for case in phase.silent if case.id in ids),
        )
        for phase in phases
    ]


def share_of(phases: Sequence[RepeatedPhase], stages: Sequence[int]) -> float:
    """Return the share of the error rate at which an engine's own drift is judged, by how many cases were asked."""
    return floor_share(max((phase.asked for phase in phases), default=0), stages)


def below(phases: Sequence[RepeatedPhase], *, margin: float, horizon: int, stages: Sequence[int]) -> float:
    """Return the p-value of "in some phase the engine differs from itself by ``margin`` or more"; 1 where one lacks.

    It is corrected for the stages at which it is looked.
    """
    if len(phases) < len(FLOOR_PHASES) or not all(phase.forks for phase in phases):
        return 1.0
    worst = max(
        hazard(
            [fork.forked for _, fork in phase.forks],
            [fork.at_risk for _, fork in phase.forks],
            [case.group for case, _ in phase.forks],
            margin=margin,
        ).p_pass
        for phase in phases
    )
    return min(1.0, worst / share_of(phases, stages))


def needs_more(
    rounds: Sequence[Sequence[Case]],
    engine: EngineEvidence,
    *,
    held: Iterable[tuple[float, int]],
    stages: Sequence[int],
) -> bool:
    """Tell whether the noise floor of an engine is to be asked of more cases than those of these rounds.

    Not where they show that it differs from itself by less than each margin of ``held``, over its horizon: the verdict
    ``text.repeat`` passes then. Nor where the last round brought no answer to compare in some phase.
    """
    cases = [case for of_round in rounds for case in of_round]
    for margin, horizon in held:
        newest = repeated_phases(rounds[-1], engine, horizon=horizon)
        if len(newest) < len(FLOOR_PHASES) or not all(phase.forks for phase in newest):
            continue
        if not is_small(repeated_phases(cases, engine, horizon=horizon), margin=margin, horizon=horizon, stages=stages):
            return True
    return False


def is_small(phases: Sequence[RepeatedPhase], *, margin: float, horizon: int, stages: Sequence[int]) -> bool:
    """Tell whether an engine is shown to differ from itself by less than ``margin`` in each phase of its floor."""
    enough = all(phase.missing.enough for phase in phases)
    own = below(phases, margin=margin, horizon=horizon, stages=stages)
    return enough and own < SETTLED_AT / len(FLOOR_PHASES)


def above_floor(
    forks: Forks, floor: Floor, phases: Sequence[RepeatedPhase], *, margin: float, alpha: float, stages: Sequence[int]
) -> float:
    """Return the p-value of "drift to the candidate, which is above ``margin``, is no more than the baseline's own".

    Either of two ways shows it, so the smaller p-value counts double. The baseline's own drift is below the margin,
    which that to the candidate is not; or the two are compared case by case.
    """
    own = below(phases, margin=margin, horizon=floor.horizon, stages=stages)
    return min(1.0, 2.0 * min(own, _above_case_by_case(forks, floor, alpha)))


def _above_case_by_case(forks: Forks, floor: Floor, alpha: float) -> float:
    """Return the p-value of the same over the floor's cases, whatever the margin.

    Each case contributes d - h·e (forks minus those expected at the pooled hazard h of both), the score of a hazard
    ratio: h does not change when the two numbers of a case are swapped, which is what the test does. Below 12 groups
    the verdict speaks for this mix of prompts, so cases are swapped instead of groups.
    """
    cross = {case.id: fork for case, fork in forks}
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


def unrecorded(baseline: EngineEvidence, own: float | None) -> tuple[str, ...]:
    """Return what to say of a baseline whose answers were recorded without a noise floor; ``own`` is the floor."""
    if own is not None or not (baseline.golden or baseline.recording):
        return ()
    subject = "golden answers have" if baseline.golden else "recording has"
    return (
        f"{baseline.name}: its {subject} no noise floor, so nobody knows how far it differs from itself; drift beyond "
        "the margin would be INCONCLUSIVE, never FAIL",
    )


def beside_floor(judgement: Judgement, evidence: Evidence, floor: Floor | None, above: float) -> Judgement:
    """Return the judgement, a FAIL only where the drift is more than the baseline's from itself.

    ``above`` is the p-value of *no more than that*.
    """
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


# how many cases it takes ----------------------------------------------------------------------------------------------


def shown(cases: int, stages: Sequence[int], tokens: float, *, alpha: float, forks: float = 0.0) -> float:
    """Return the least margin that a noise floor of so many cases, each of so many tokens, can show to be kept.

    ``forks`` are those of them all. Bounds of groups may be wider.

    >>> [round(shown(cases, (16, 32, 64), 32, alpha=alpha), 4) for cases, alpha in ((16, SETTLED_AT), (64, 0.05))]
    [0.0125, 0.0024]
    """
    part = alpha * floor_share(cases, stages) / len(FLOOR_PHASES)
    return garwood(forks, cases * tokens, part)[1] if forks else -math.log(part) / (cases * tokens)


MOST: Final = FLOOR_STAGES[-1]
"""Of how many cases a noise floor is at most, whatever the size of the set."""


def reached(cases: int, concurrency: int) -> Sequence[int]:
    """Return the stages of a noise floor.

    >>> reached(300, 1), reached(20, 1), reached(300, 80)
    ([16, 32, 64], [16, 20], [64])
    """
    return [stage for stage in floor_stages(cases, concurrency) if stage <= MOST] or [min(MOST, cases)]


def fewest(needs: Needs, *, cases: int, concurrency: int, tokens: int, grows: bool) -> int:
    """Return of how many cases the noise floor is at least: the first that can show what it is held against.

    ``tokens`` are those of the longest answer, ``cases`` those of the set; what does not grow is looked at once.
    """
    stages = floor_stages(cases, concurrency)
    last = reached(cases, concurrency)[-1]
    enough = [stage for stage in reached(cases, concurrency) if stage >= needs.floor_cases] or [last]
    if not grows:
        return enough[0]
    able = (
        stage
        for stage in enough
        if all(shown(stage, stages, min(tokens, over), alpha=SETTLED_AT) < margin for margin, over in needs.floor_held)
    )
    return next(able, last)


def planned(needs: Needs, *, cases: int, concurrency: int, tokens: int, grows: bool) -> list[str]:
    """Return for the plan of how many prompts the noise floor is, and which margins it can show; nothing without one.

    ``tokens`` are those of the longest answer, ``grows`` says whether it is asked of more prompts where it must be.
    """
    if not needs.floor:
        return []
    least = fewest(needs, cases=cases, concurrency=concurrency, tokens=tokens, grows=grows)
    of_each = tokens if needs.floor_tokens is None else needs.floor_tokens
    later = [stage for stage in reached(cases, concurrency) if stage > least] if grows else []
    lines = [
        f"noise floor: {explain.count(least, 'prompt')}, 3 more times on each engine (cold before the answers that are "
        f"judged, warm and parallel after them)"
        + (f", {explain.count(of_each, 'token')} of each answer" if of_each < tokens else "")
        + (f"; {', then '.join(map(str, later))} where they do not show that it repeats itself" if later else "")
    ]
    if grows:
        stages = floor_stages(cases, concurrency)
        margin, over = min(needs.floor_held, key=lambda pair: pair[0] * min(tokens, pair[1]))
        length = min(tokens, over)
        shows = {stage: shown(stage, stages, length, alpha=SETTLED_AT) for stage in (least, *later)}
        shows[max(shows)] = last = shown(max(shows), stages, length, alpha=0.05)
        bounds = ", ".join(f"{stage} above {explain.percent(bound)}" for stage, bound in shows.items())
        bounds = bounds.replace(" above", " show it for margins above", 1)
        lines.append(f"  where no answer of {explain.count(length, 'token')} changes, {bounds}")
        if margin <= last:
            lines.append(f"  at {explain.percent(margin)} text.repeat stays open: {LARGER}")
    return lines


LARGER: Final = "take a larger margin, or compare more of each answer (max_tokens and horizon)"


def advice(floor: Floor, phases: Sequence[RepeatedPhase], evidence: Evidence, *, margin: float) -> str:
    """Return what would settle whether an engine repeats itself closely enough, where its noise floor left it open.

    An estimate: as if further cases were like those so far. Where these had no tokens nothing is known.
    """
    cases, asked = len(evidence.prompts.cases), max(phase.asked for phase in phases)
    forks = sum(fork.forked for _, fork in floor.forks) / len(floor.forks)
    tokens = math.fsum(fork.at_risk for _, fork in floor.forks) / len(floor.forks)

    if tokens == 0.0:
        return ""
    if asked < explain.FEW_GROUPS:
        return explain.too_few(asked, "prompt")

    def least(total: int) -> float:
        stages = floor_stages(max(total, cases), evidence.concurrency)
        return shown(total, stages, tokens, alpha=evidence.alpha, forks=forks * total)

    def settles(total: int) -> bool:
        lower, _ = garwood(forks * total, total * tokens, evidence.alpha / len(FLOOR_PHASES))
        return least(total) < margin or lower > margin

    enough = next((total for total in range(asked + 1, MOST + 1) if settles(total)), None)
    if enough is not None and asked < cases:
        return f"a noise floor of about {enough} prompts would settle it: run again, it is of up to {min(MOST, cases)}"
    if enough is not None:
        return f"a set of about {explain.count(enough, 'prompt')} would settle it, {enough - cases} more"
    never = f"a noise floor is never of more than {MOST} prompts"
    if forks:
        drift = explain.percent(floor.judgement.estimate or 0.0)
        return (
            f"{never}, too few to tell {drift} from the margin: have the engine repeat itself better (fewer requests "
            "at once, no prompt cache), or take a larger margin"
        )
    return (
        f"{never}, and of answers of {explain.count(round(tokens), 'token')} these show margins above "
        f"{explain.percent(least(MOST))}: {LARGER}"
    )


def recorded_noise(evidence: Evidence, candidate: EngineEvidence) -> float | None:
    """Return by how many nats the baseline shifted against itself when recorded, ``None`` without golden answers.

    Where only the candidate's are golden it is 0: what a candidate differs from itself by excuses nothing.
    """
    baseline = evidence.engines[evidence.baseline]
    if baseline.golden is None:
        return None if candidate.golden is None else 0.0
    return own_shift(evidence.prompts.by_id, baseline) or 0.0


def own_shift(cases: Mapping[str, Case], engine: EngineEvidence) -> float | None:
    """Return the largest shift of an engine's repeats against its own answers, by phase; ``None`` without repeats."""
    main = engine.answers()
    floors = []
    for phase in FLOOR_PHASES:
        repeated = [
            (cases[case], shift)
            for case, again in engine.answers(phase).items()
            if case in main and (shift := find_shift(main[case], again)) is not None
        ]
        if repeated:
            estimate = Fixed(alpha=0.05).shift(repeated, margin=1.0).estimate
            assert estimate is not None
            floors.append(estimate)
    return max(floors, default=None)
