"""Verdicts of a sequential run: what the evidence so far says, how far the run came, and which prompts count."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Any, TypeVar

from pytest_llmparity.core.evidence import Evidence
from pytest_llmparity.core.stats.sequential import SequentialResult
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.core.words import explain

T = TypeVar("T")


def numbers(result: SequentialResult, evidence: Evidence, *, asked: int, by_group: bool = False) -> dict[str, Any]:
    """Return the verdict fields that follow from the evidence after ``asked`` prompts.

    ``by_group`` says that units are groups: as many prompts as such a number of groups has are needed. The verdict
    stays open: further prompts may settle it, or make a FAIL survive the correction for its family.
    """
    changes: dict[str, Any] = {
        "estimate": result.estimate,
        "lower": result.lower,
        "upper": result.upper,
        "p_pass": result.p_pass,
        "p_fail": result.p_fail,
        "open": True,
        "sequence": _progress(asked, len(evidence.prompts.cases)),
    }
    if result.passed:
        return changes | {"outcome": Outcome.PASS}
    if result.failed:
        return changes | {"outcome": Outcome.FAIL}
    each = len(evidence.prompts.cases) / evidence.prompts.groups if by_group else 1.0
    needed = None if result.needed is None else math.ceil(result.needed * each)
    return changes | {"outcome": Outcome.INCONCLUSIVE, "needed": needed}


def _progress(asked: int, total: int) -> str:
    prompts = explain.count(total, "prompt")
    return f"sequential, all {prompts} asked" if asked == total else f"sequential, stopped after {asked} of {prompts}"


def one_of_each(rows: Iterable[tuple[Hashable, T]]) -> list[T]:
    """Return the first of the things with one key, in order: of a group one prompt counts."""
    found: dict[Hashable, T] = {}
    for key, row in rows:
        found.setdefault(key, row)
    return list(found.values())
