"""Forks of real copies: those of an 8-bit one are near-ties, a 4-bit one does not pass by leaving near-ties aside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.live.conftest import LiveRun

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("llamacpp")]

SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("{mixed}", check.text(margin=0.05, by="tag"), check.logprobs(shift=0.06), max_tokens=32)
def test_tags(): ...

@pytest.mark.parity("{mixed}", check.text(margin=0.05, ignore="near-ties", shift=0.06), max_tokens=32)
def test_aside(): ...
"""


@pytest.mark.slow
def test_what_near_ties_explain_of_two_copies(
    launch: Callable[..., LiveRun], gguf: Callable[..., str], some: Callable[..., Path]
) -> None:
    config = "".join(gguf(name, kind) for name, kind in (("f16", "F16"), ("q8", "Q8_0"), ("q4", "Q4_0")))
    run = launch(
        "--engines=f16,q8,q4",
        "--parity-explain-requests=0",
        suite=SUITE.format(mixed=some("mixed", 48)),
        config=config,
    )

    assert run.wait() == 1, run.output
    verdicts = run.verdicts()
    aside = {engine: verdicts["test_aside", "text", engine] for engine in ("q8", "q4")}
    assert (aside["q8"]["outcome"], aside["q8"]["estimate"]) == ("PASS", 0.0)
    assert aside["q4"]["outcome"] != "PASS"
    assert "they do not explain its forks" in aside["q4"]["message"] or aside["q4"]["upper"] > 0.05
    assert verdicts["test_tags", "text[stories]", "q4"]["estimate"] > 0.3
    assert verdicts["test_tags", "logprobs", "q4"]["outcome"] == "FAIL"
    assert verdicts["test_tags", "logprobs", "q8"]["outcome"] == "PASS"
