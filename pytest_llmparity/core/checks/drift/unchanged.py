"""By how many nats an engine shifts against itself, and up to which golden answers of it are unchanged."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_llmparity.core.checks.designs import Fixed
from pytest_llmparity.core.compare.shift import find_shift
from pytest_llmparity.core.evidence import FLOOR_PHASES, EngineEvidence, Evidence
from pytest_llmparity.core.identity.canaries import OF_FLOOR, SAME
from pytest_llmparity.core.prompts import Case


def margin(evidence: Evidence, candidate: EngineEvidence) -> float | None:
    """Return the nats up to which nothing has changed since golden answers were recorded, ``None`` where none are."""
    golden = [engine for engine in (evidence.engines[evidence.baseline], candidate) if engine.golden is not None]
    if not golden:
        return None
    cases = evidence.prompts.by_id
    return max(SAME, *(OF_FLOOR * (own_shift(cases, engine) or 0.0) for engine in golden))


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
