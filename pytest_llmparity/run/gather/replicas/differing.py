"""Whether the replicas of an engine are one engine: what they answer to the same prompts, beside their own noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pytest_llmparity.core.checks.designs import Fixed
from pytest_llmparity.core.checks.drift.floor import UNKNOWN_MARGIN, above_floor, floor_of, repeated_phases
from pytest_llmparity.core.checks.missing import ONE_OF
from pytest_llmparity.core.compare.answers import compare_answers
from pytest_llmparity.core.evidence import EngineEvidence, floor_stages
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.core.words import explain
from pytest_llmparity.run.plan import Unit

ALPHA: Final = 0.05
HORIZON: Final = 32


def unlike(engine: str, unit: Unit, replicas: Sequence[EngineEvidence]) -> list[str]:
    """Return a sentence for each replica that answers otherwise than the first one.

    Held together as two engines are: the drift has to be above the margin of the unit and above what the noisier of the
    two differs from itself, each at 5 %. What is not shown to be is told as such.
    """
    margin, horizon = min(unit.needs.floor_held, default=(UNKNOWN_MARGIN, HORIZON))
    cases, first = unit.prompts.cases, replicas[0]
    stages = floor_stages(len(cases), unit.concurrency)
    answers = first.answers()
    sentences = []
    for other in replicas[1:]:
        theirs = other.answers()
        both = [case for case in cases if case.id in answers and case.id in theirs]
        pairs = [(case, compare_answers(answers[case.id], theirs[case.id], horizon=horizon)) for case in both]
        forks = [(case, compared.fork) for case, compared in pairs if compared is not None]
        if not forks:
            sentences.append(
                f"{engine}: no prompt has an answer of {first.name} and of {other.name} that can be compared, so "
                "whether they are alike is not known"
            )
            continue
        parted = sum(fork.forked > 0 for _, fork in forks)
        if not parted:
            if ONE_OF * (len(pairs) - len(forks)) > len(pairs):
                sentences.append(
                    f"{engine}: {len(pairs) - len(forks)} of {explain.count(len(pairs), 'prompt')} have no answers of "
                    f"{first.name} and of {other.name} that can be compared, so whether they are alike is not known"
                )
            continue
        judged = Fixed(alpha=ALPHA).hazard(forks, margin=margin, horizon=horizon)
        beyond = judged.outcome is Outcome.FAIL
        for each in (first, other):
            phases = repeated_phases(both, each, horizon=horizon)
            floor = floor_of(phases, margin=margin, alpha=ALPHA, horizon=horizon)
            p = 1.0 if floor is None else above_floor(forks, floor, phases, margin=margin, alpha=ALPHA, stages=stages)
            beyond = beyond and p < ALPHA
        drift = "" if judged.estimate is None else f", by {explain.percent(judged.estimate)} per token"
        part = f"{other.name} parts from {first.name} in {parted} of {len(forks)} prompts{drift}"
        if beyond:
            sentences.append(
                f"{engine}: its replicas are not alike: {part}, which is above the margin of {explain.percent(margin)} "
                "and more than either differs from itself; answers depend on which of them was asked"
            )
        else:
            sentences.append(f"{engine}: {part}; not shown to be more than its margin or than it differs from itself")
    return sentences
