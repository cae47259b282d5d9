"""By how many nats an engine shifts against itself, now or when its golden answers were recorded."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_llmparity.core.checks.designs import Fixed
from pytest_llmparity.core.compare.shift import find_shift
from pytest_llmparity.core.evidence import FLOOR_PHASES, EngineEvidence, Evidence
from pytest_llmparity.core.prompts import Case


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
