"""Findings are still as docs/findings.md tells them: those that llama.cpp shows, and its neighbours where they are."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.real_ollama import program
from tests.scripts import script
from tests.unavailable import unavailable

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.usefixtures("llamacpp")]

FINDINGS = script("docs/findings.py")
QUICK = [pytest.param(each, id=each.name) for each in FINDINGS.FINDINGS if each.quick]


def needed(finding: Any) -> None:
    """End the test as :func:`unavailable` says where an engine of a finding is not here."""
    for kind in sorted(finding.beside):
        if kind == "ollama":
            program()
        elif not os.environ.get(FINDINGS.PYTHONS[kind]):
            unavailable(kind, f"{FINDINGS.PYTHONS[kind]} names no interpreter with it")


def here(finding: Any) -> bool:
    """Whether every engine of a finding is here."""
    try:
        needed(finding)
    except (pytest.skip.Exception, pytest.fail.Exception):
        return False
    return True


class Runs:
    """One run for all findings that share one: most of what one takes is the start of engines."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, ...], dict[str, Any]] = {}

    def rows(self, finding: Any) -> Any:
        """Return what a run says of a finding."""
        if finding.shared not in self._rows:
            sharing = [each for each in FINDINGS.FINDINGS if each.quick and each.shared == finding.shared]
            self._rows[finding.shared] = FINDINGS.rows_together([each for each in sharing if here(each)])
        return self._rows[finding.shared][finding.name]


@pytest.fixture(scope="module")
def runs() -> Runs:
    return Runs()


@pytest.mark.parametrize("finding", QUICK)
def test_verdict_and_cause_are_those_of_the_page(finding: Any, runs: Runs) -> None:
    needed(finding)

    assert runs.rows(finding) == FINDINGS.on_the_page()[finding.name].rows
