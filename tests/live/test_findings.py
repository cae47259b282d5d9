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


@pytest.mark.parametrize("finding", QUICK)
def test_verdict_and_cause_are_those_of_the_page(finding: Any) -> None:
    for kind in sorted(finding.beside):
        if kind == "ollama":
            program()
        elif not os.environ.get(FINDINGS.PYTHONS[kind]):
            unavailable(kind, f"{FINDINGS.PYTHONS[kind]} names no interpreter with it")
    told = FINDINGS.on_the_page()[finding.name]

    assert FINDINGS.run(finding).rows == told.rows
