"""Three quantisations of one model on real llama.cpp, judged by one run that is then killed."""

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

@pytest.mark.parity("{mixed}", check.prompts(), check.text(margin=0.05), max_tokens=32)
def test_mixed(): ...

@pytest.mark.parity("{mixed}", check.logprobs(shift=0.06), max_tokens=32)
def test_in_nats(): ...

@pytest.mark.parity("{tickets}", check.schema("{schemas}/ticket.json", gap=0.1), max_tokens=64)
def test_tickets(): ...
"""


@pytest.fixture(scope="module")
def run(
    launch: Callable[..., LiveRun], gguf: Callable[..., str], some: Callable[..., Path], prompts: Path, stay: str
) -> LiveRun:
    suite = SUITE.format(
        mixed=some("mixed", 48), tickets=some("tickets_constrained", 32), schemas=prompts.parent / "schemas"
    )
    config = gguf("f16", "F16") + gguf("q8", "Q8_0") + gguf("q4", "Q4_0") + gguf("liar", "Q4_0", pinned="F16")
    options = ("--engines=f16,q8,q4,liar", "--parity-explain-requests=0")
    run = launch(*options, suite=suite + stay, config=config)
    run.wait_for("all-up")
    return run


def test_8_bits_are_no_other_model_and_4_bits_are(run: LiveRun) -> None:
    verdicts = run.verdicts()

    assert {engine: verdicts["test_mixed", "prompts", engine]["outcome"] for engine in ("q8", "q4")} == {
        "q8": "PASS",
        "q4": "PASS",
    }
    assert verdicts["test_mixed", "text", "q8"]["outcome"] in ("PASS", "INCONCLUSIVE")
    assert verdicts["test_mixed", "text", "q4"]["outcome"] == "FAIL"
    assert verdicts["test_mixed", "text", "q8"]["estimate"] < 0.05 < verdicts["test_mixed", "text", "q4"]["estimate"]


def test_in_nats_too_and_far_from_the_margin(run: LiveRun) -> None:
    verdicts = run.verdicts()
    q8, q4 = (verdicts["test_in_nats", "logprobs", engine] for engine in ("q8", "q4"))

    assert (q8["outcome"], q4["outcome"]) == ("PASS", "FAIL")
    assert q8["upper"] < 0.05 < 0.15 < q4["estimate"]


def test_a_forced_schema_holds_on_each(run: LiveRun) -> None:
    verdicts = run.verdicts()

    assert {verdicts["test_tickets", "schema.gap", engine]["outcome"] for engine in ("q8", "q4")} <= {
        "PASS",
        "INCONCLUSIVE",
    }
    assert {abs(verdicts["test_tickets", "schema.gap", engine]["estimate"]) for engine in ("q8", "q4")} == {0.0}


def test_4_bits_pinned_as_16_are_incomparable(run: LiveRun) -> None:
    verdict = run.verdicts()["test_mixed", "text", "liar"]

    assert verdict["outcome"] == "INCOMPARABLE"
    assert "F16" in verdict["message"]
    assert "Q4_0" in verdict["message"]


def test_kill_9_of_pytest_leaves_no_engine(run: LiveRun) -> None:
    assert len(run.family()) >= 5, "the keeper and four engines"

    assert run.kill_9() == []
