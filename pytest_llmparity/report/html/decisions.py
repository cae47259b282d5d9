"""What the page shows of a decision: its grounds, what changed between the engines, and the cases that turned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from pytest_llmparity.core.identity.record import DecisionRecord, Turned
from pytest_llmparity.report import json as json_report
from pytest_llmparity.report import overview
from pytest_llmparity.report.release import gate


def of_record(decisions: Sequence[DecisionRecord], matrix: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the template is given of each decision; ``matrix`` has the cases that it links to."""
    places = _places(matrix)
    return [_decision(decision, places) for decision in decisions]


def _decision(decision: DecisionRecord, places: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    return {
        "sentence": overview.decided(decision),
        "whole": decision.flips is not None,
        "outcome": decision.outcome,
        "baseline": decision.baseline,
        "candidate": decision.candidate,
        "grounds": gate.sections(decision),
        "changes": [
            {"name": gate.named(change), "sides": _sides(change.field, change.baseline, change.candidate)}
            for change in gate.changes(decision)
        ],
        "untold": gate.untold(decision),
        "same": list(decision.same),
        "causes": gate.causes(decision),
        "counts": gate.counts(decision),
        "ways": [
            {
                "title": title,
                "shown": [_case(case, decision, title, places) for case in cases[: gate.LISTED]],
                "folded": [_case(case, decision, title, places) for case in cases[gate.LISTED :]],
                "more": total - len(cases),
            }
            for title, cases, total in gate.ways(decision)
        ],
    }


def _sides(field: str, *values: str | None) -> list[dict[str, str]]:
    return [{"short": gate.value(field, value), "text": value or "none"} for value in values]


def _case(case: Turned, decision: DecisionRecord, title: str, places: Mapping[tuple[str, str], str]) -> dict[str, str]:
    at = places.get((case.test, case.case), "")
    return {"id": case.case, "at": quote(at, safe=""), "how": gate.how(case, decision, title=title)}


def _places(matrix: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Return what the link to a case ends with by its test and id; an answer that never came is of no test."""
    places: dict[tuple[str, str], str] = {}
    for case in matrix["cases"]:
        for test in ("", *(matrix["tests"][number] for number in case["tests"])):
            places.setdefault((test, case["id"]), json_report.clean(case["at"]))
    return places
