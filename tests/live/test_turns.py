"""Real engines in turn: what the process table says of a whole run, looked at from outside of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.live.conftest import LIMIT_S
from tests.live.watching import Look, never_together, starts, watch

if TYPE_CHECKING:
    from tests.live.conftest import InTurn, LiveRun

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("llamacpp")]

SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("{capitals}", check.prompts(), check.text(margin=0.2), max_tokens=16)
def test_capitals(): ...
"""
RELATIVE = """
@pytest.mark.parity("{capitals}", check.latency(e2e_p50="x1000", n=16), max_tokens=4)
def test_in_turn(): ...
"""
APPLICATION = """
def test_app(engine):
    said = engine.openai().chat.completions.create(
        model=engine.model, temperature=0, max_tokens=4, messages=[{"role": "user", "content": "Hi"}]
    )
    assert said.choices
"""


@pytest.fixture(scope="module")
def suite(some: Callable[..., Path]) -> str:
    """Return a gate of few prompts: what is tested here is which engines are up while it runs."""
    return SUITE.format(capitals=some("capitals", 16))


def watched(run: LiveRun) -> list[Look]:
    looks = watch(run.process, LIMIT_S)
    assert run.wait() == 0, run.output
    return looks


def test_who_looks_sees_engines_that_are_together(
    launch: Callable[..., LiveRun], gguf: Callable[..., str], suite: str
) -> None:
    run = launch("--engines=f16,q8", suite=suite, config=gguf("f16", "F16") + gguf("q8", "Q8_0"))

    looks = watched(run)

    assert max(len(seen.marks) for seen in looks) == 2


def test_two_llama_cpp_are_never_up_together(
    launch: Callable[..., LiveRun], gguf: Callable[..., str], suite: str, some: Callable[..., Path]
) -> None:
    relative = RELATIVE.format(capitals=some("capitals", 16))
    run = launch(
        "--engines=f16,q8",
        suite=suite + relative + APPLICATION,
        config='residency = "one-at-a-time"\n' + gguf("f16", "F16") + gguf("q8", "Q8_0"),
    )

    looks = watched(run)

    never_together(looks)
    assert len(starts(looks)) == 8, "gathered in turn, timed in turn with four changes, then application code in turn"
    latency = run.verdicts()["test_in_turn", "latency.e2e_p50", "q8"]
    assert (latency["outcome"], latency["n"]) == ("PASS", 16), latency
    assert "2 engines one at a time: f16, then q8" in run.output
    assert {name for _, _, name in run.verdicts()} == {"q8"}


@pytest.mark.slow
def test_llama_cpp_and_vllm_are_never_up_together(in_turn: InTurn) -> None:
    looks = in_turn.looks

    never_together(looks)
    q8, bf16, f16 = starts(looks)
    sizes = {mark: max(sum(mark == of for *_, of in seen.processes) for seen in looks) for mark in (q8, bf16, f16)}
    assert (sizes[q8], sizes[f16]) == (1, 1)
    assert sizes[bf16] >= 2, "vLLM's server and its engine core"
    assert set(in_turn.locked()) == {"q8", "bf16", "f16"}
