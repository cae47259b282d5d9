"""Findings that llama.cpp alone shows are still as docs/findings.md tells them."""

from __future__ import annotations

import pytest

from tests.scripts import script

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("llamacpp")]

FINDINGS = script("docs/findings.py")


@pytest.mark.parametrize("finding", [each for each in FINDINGS.FINDINGS if each.quick], ids=lambda each: each.name)
def test_verdict_and_cause_are_those_of_the_page(finding: object) -> None:
    told = FINDINGS.on_the_page()[finding.name]  # type: ignore[attr-defined]  # of a script that is no module

    assert FINDINGS.run(finding).rows == told.rows
