"""A sequential run on real llama.cpp: equal weights and 4-bit ones are both settled before every prompt was asked."""

from __future__ import annotations

import re
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

@pytest.mark.parity("{prompts}/mixed.jsonl", check.prompts(), check.text(margin=0.05), max_tokens=32)
def test_mixed(): ...
"""


@pytest.mark.slow
def test_equal_and_far_weights_are_settled_early(
    launch: Callable[..., LiveRun], gguf: Callable[..., str], prompts: Path
) -> None:
    config = gguf("f16", "F16") + gguf("same", "F16") + gguf("q4", "Q4_0")
    options = ("--engines=f16,same,q4", "--parity-sequential", "--parity-explain-requests=0")
    run = launch(*options, suite=SUITE.format(prompts=prompts), config=config)

    assert run.wait() == pytest.ExitCode.TESTS_FAILED, run.output
    verdicts = run.verdicts()
    same, far = verdicts["test_mixed", "text", "same"], verdicts["test_mixed", "text", "q4"]
    assert (same["outcome"], same["n"]) == ("PASS", 32)
    assert same["message"].endswith("sequential, stopped after 32 of 144 prompts")
    assert far["outcome"] == "FAIL"
    assert re.search(r"sequential, stopped after (48|64) of 144 prompts", far["message"])
    assert {verdicts["test_mixed", "text.repeat", engine]["outcome"] for engine in ("same", "q4")} == {"PASS"}
