"""The noise floor: how far an engine's repeated answers part from its own first ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_llmparity.core.checks.margins import PRESETS
from pytest_llmparity.core.checks.missing import Missing, Silence
from pytest_llmparity.core.compare.answers import compare_answers
from pytest_llmparity.core.compare.text import Fork
from pytest_llmparity.core.evidence import FLOOR_PHASES, EngineEvidence, Evidence
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.stats.hazard import HazardResult, hazard
from pytest_llmparity.core.stats.noise import excess
from pytest_llmparity.core.words import explain

Forks = Sequence[tuple[Case, Fork]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """What one phase of repeated answers says: where they part from the first ones, and the cases that say nothing."""

    phase: Phase
    forks: tuple[tuple[Case, Fork], ...]
    silent: tuple[Case, ...]
    missing: Missing


@dataclass(frozen=True, slots=True)
class Floor:
    """What an engine differs from itself: the phase in which it drifted most from its own main answers."""

    phase: Phase
    result: HazardResult
    forks: tuple[tuple[Case, Fork], ...]


def repeats(evidence: Evidence, engine: EngineEvidence, *, horizon: int) -> list[Repeats]:
    """Return what the floor phases of an engine say; a phase in which nothing was answered twice is not among them."""
    main = engine.answers()
    found: list[Repeats] = []
    for phase in FLOOR_PHASES:
        again = engine.answers(phase)
        cases = [case for case in evidence.prompts.cases if case.id in main and case.id in again]
        forks: list[tuple[Case, Fork]] = []
        silent: list[Case] = []
        silence = Silence()
        for case in cases:
            compared = compare_answers(main[case.id], again[case.id], horizon=horizon)
            if compared is not None:
                forks.append((case, compared.fork))
            else:
                silent.append(case)
                silence.add({engine.name: main[case.id], f"{engine.name} again": again[case.id]})
        if cases:
            missing = Missing(of=len(cases), used=len(forks), reasons=tuple(silence.reasons()))
            found.append(Repeats(phase=phase, forks=tuple(forks), silent=tuple(silent), missing=missing))
    return found


def hazard_of(forks: Forks, margin: float | None, alpha: float) -> HazardResult:
    """Return forks per token over the cases' groups; without a margin the bounds alone matter."""
    return hazard(
        [fork.forked for _, fork in forks],
        [fork.at_risk for _, fork in forks],
        [case.group for case, _ in forks],
        margin=PRESETS[0][1] if margin is None else margin,
        alpha=alpha,
    )


def floor_of(phases: Sequence[Repeats], *, margin: float | None = None, alpha: float) -> Floor | None:
    """Return the phase in which the engine drifted most, ``None`` when nothing was compared in any."""
    floors = [Floor(phase.phase, hazard_of(phase.forks, margin, alpha), phase.forks) for phase in phases if phase.forks]
    return max(floors, key=lambda floor: floor.result.estimate, default=None)


def above_floor(forks: Forks, floor: Floor, alpha: float) -> float:
    """Return the p-value of "the drift to the candidate is no more than the baseline's own", over the floor's cases.

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
