"""The shift of a candidate from a baseline, measured on a committed prompt set as a gate measures it."""

from __future__ import annotations

import datetime
from importlib import resources
from pathlib import Path
from typing import Final

from pytest_llmparity.core.checks.arguments import HORIZON
from pytest_llmparity.core.checks.drift.ladders import party_of
from pytest_llmparity.core.checks.drift.logprobs import LogprobsCheck
from pytest_llmparity.core.errors import DesignError, NotMeasured
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.golden.records import set_of
from pytest_llmparity.core.identity.agreed import Accepted, proposed
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.run.declare.prompts import load_prompts
from pytest_llmparity.run.session import Session
from pytest_llmparity.store.golden import files

TEST: Final = "llmparity calibrate"
"""What the measurement is called where a test's name would stand."""
ANY: Final = LogprobsCheck(shift=1.0)
"""What is measured; its bounds do not depend on the margin."""
LEAST_GROUPS: Final = 24
"""Groups of prompts below which no margin is proposed: with them PASS and FAIL are right in 98 of 100 draws."""


def prompts_of(name: str) -> Path:
    """Return the file of a prompt set that this package brings along."""
    return Path(str(resources.files("pytest_llmparity").joinpath(f"prompts/{name}.jsonl")))


def measure(session: Session, *, prompts: Path, today: datetime.date) -> Accepted:
    """Ask both engines of a session, start them if need be, and return the shift with the margin it proposes.

    The session's baseline is the baseline. Raises ``NotMeasured`` with the reason where one cannot be asked or the
    answers settle nothing, ``PromptSetError`` and ``DesignError`` for the prompts.
    """
    declared(session, prompts, ANY)
    session.gather()
    evidence = session.evidence(TEST, ANY)
    assert evidence is not None
    (verdict,) = ANY.judge(evidence)
    about = f"{verdict.engine} against {verdict.baseline}"
    if verdict.estimate is None or verdict.outcome in (Outcome.INCOMPARABLE, Outcome.ERROR, Outcome.SKIPPED):
        raise NotMeasured(f"{about}: {verdict.reason or verdict.message}")
    baseline, (candidate,) = evidence.engines[evidence.baseline], evidence.candidates
    if verdict.lower is None or verdict.upper is None or verdict.floor is None:
        raise NotMeasured(
            f"{about}: {verdict.reason or 'the shift has no upper bound'}, so no margin can be proposed "
            f"({'; '.join(verdict.details[:2])})"
        )
    if verdict.outcome is Outcome.INCONCLUSIVE and verdict.reason:
        raise NotMeasured(f"{about}: {verdict.reason}")
    return Accepted(
        baseline=baseline.golden or baseline.name,
        candidate=candidate.golden or candidate.name,
        shift=proposed(verdict.upper),
        date=today.isoformat(),
        estimate=round(verdict.estimate, 6),
        lower=round(verdict.lower, 6),
        upper=round(verdict.upper, 6),
        floor=round(verdict.floor, 6),
        prompts=verdict.n,
        groups=verdict.groups,
        prompt_set=prompts.stem,
        plugin=session.version,
        of_baseline=party_of(baseline),
        of_candidate=party_of(candidate),
    )


def declared(session: Session, prompts: Path, check: Check) -> None:
    """Declare the measurement; raises for a prompt file that is none, or of too few groups."""
    if (groups := load_prompts(prompts, (prompts.parent,)).groups) < LEAST_GROUPS:
        raise DesignError(f"{prompts.name} has {groups} groups of prompts; a margin takes {LEAST_GROUPS} or more")
    for spec in session.settings.goldens:
        _refuse_unrecorded(session.root, prompts, spec.golden or "")
    session.gates.declare(TEST, (str(prompts), check), {"max_tokens": HORIZON}, folder=prompts.parent)


def _refuse_unrecorded(root: Path, prompts: Path, engine: str) -> None:
    """Raise ``DesignError`` where an engine has no golden answers to these prompts; no command records others."""
    there = files.listing(root).get(engine, [])
    if set_of(prompts.stem) not in there:
        file = files.named(root, files.place(root, set_of(prompts.stem), engine))
        raise DesignError(
            f"there is no {file}; measure with a prompt file that {engine} has golden answers to, of {HORIZON} "
            f"tokens: --prompts FILE (there are those of: {', '.join(there) or 'none'})"
        )
