"""Engines that could not be used, told once: their reasons are no orders for the service that runs the tests."""

from __future__ import annotations

import re

import pytest

from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.report.terminal.troubles import troubles


@pytest.mark.parametrize("width", range(24, 100, 7))
def test_a_reason_gives_no_order_wherever_its_line_breaks(width: int) -> None:
    reason = "it said ::add-mask::a and ::error::b then ##[add-mask]c " * 4
    verdict = Verdict(
        test="t",
        check="text()",
        kind="text",
        engine="b",
        baseline="a",
        outcome=Outcome.ERROR,
        reason=reason,
        blocked_by="b",
    )

    lines = troubles([verdict], [], width=width)

    assert "and so one verdict" in " ".join(" ".join(lines).split())
    assert [line for line in lines if re.match(r"\s*::", line) or "##[" in line] == []
