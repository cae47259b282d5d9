"""What golden answers cannot say, as judgements say it: no times, nothing of prompts that were changed since."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_llmparity.core.checks.base import worded
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain
from pytest_llmparity.run.plan import Declaration

KIND = "golden"
"""The kind of a verdict about golden answers themselves."""


def lacking(record: EngineRecord, check: Check, unit: str) -> str | None:
    """Say what golden answers, or a recording, lack for a check of a unit, ``None`` where nothing."""
    if not check.needs().timed:
        return None
    if record.recording and record.pace != 1:
        return f"{record.name} is a recording that is not played at the pace it was recorded with, so it has no times"
    if record.golden is None:
        return record.untimed.get(unit)
    return f"{record.name} has golden answers, and these hold no times"


def unrecorded(record: EngineRecord, unit: str) -> str | None:
    """Say that cases of a unit have no golden answer where each must have one, ``None`` where none is missing."""
    if record.golden is None:
        return None
    outdated = record.outdated.get(unit, {})
    absent = {case: why for case, why in record.unasked.get(unit, {}).items() if case not in outdated}
    if not absent:
        return None
    first = next(iter(absent.values()))
    cases = f"{explain.count(len(absent), 'prompt')} of {record.name} ({explain.first_names(list(absent))})"
    return f"{cases}: {first}, and --parity-required asks for a verdict on all"


def outdated(declaration: Declaration, records: Iterable[EngineRecord], unit: str) -> list[Verdict]:
    """Return an INCOMPARABLE verdict for each golden some of whose answers are to something else than is asked now.

    Where that is all of them every check says so, and no verdict more.
    """
    verdicts = []
    for record in records:
        cases = record.outdated.get(unit, {})
        if not cases or unit in record.refused or record.unusable:
            continue
        of = explain.count(len(declaration.prompts.cases), "prompt")
        verdict = Verdict(
            test=declaration.test,
            check=KIND,
            kind=KIND,
            engine=record.name,
            baseline=None,
            outcome=Outcome.INCOMPARABLE,
            reason=f"{len(cases)} of {of} ({explain.first_names(list(cases))}): {next(iter(cases.values()))}",
            blocked_by=record.name,
        )
        verdicts.append(worded(verdict))
    return verdicts
