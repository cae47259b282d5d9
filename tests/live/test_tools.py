"""Real tool calls of copies of a model that was trained to call: right, alike, and of a tool that was offered."""

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

# 48 prompts of 13 templates, 41 of which are to call: groups are what limits it.
@pytest.mark.parity(
    "{tools}",
    check.tools(trigger=0.7, names=0.6, rate=0.6, agree=0.7, arguments=["city", "name"]),
    check.answers(rate=0.7),
    max_tokens=64,
)
def test_tools(): ...
"""


def test_a_4_bit_copy_calls_as_the_original_does(
    launch: Callable[..., LiveRun], gguf: Callable[..., str], prompts: Path
) -> None:
    run = launch(
        "--engines=f16,q4",
        suite=SUITE.format(tools=prompts / "tools.jsonl"),
        config=gguf("f16", "F16") + gguf("q4", "Q4_0"),
    )

    assert run.wait() == 0, run.output
    verdicts = run.verdicts()
    kinds = ("tools.trigger", "tools.names", "tools.rate", "answers.rate")
    assert {(kind, engine) for _, kind, engine in verdicts} == {
        *((kind, engine) for kind in kinds for engine in ("f16", "q4")),
        ("tools.agree", "q4"),
    }
    assert {verdict["outcome"] for verdict in verdicts.values()} == {"PASS"}
    assert verdicts["test_tools", "tools.rate", "q4"]["n"] == 7  # templates of those that call


STREAMS = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("{tools}", check.stream(rate=0.7), max_tokens=64)
def test_stream(): ...
"""


def test_calls_are_the_same_streamed_and_unstreamed(
    launch: Callable[..., LiveRun], gguf: Callable[..., str], prompts: Path
) -> None:
    run = launch("--engines=f16", suite=STREAMS.format(tools=prompts / "tools.jsonl"), config=gguf("f16", "F16"))

    assert run.wait() == 0, run.output
    (verdict,) = run.verdicts().values()
    assert (verdict["outcome"], verdict["estimate"], verdict["kind"]) == ("PASS", 1.0, "stream.rate")
