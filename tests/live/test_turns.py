"""Real engines in turn: what the process table says of a whole run, looked at from outside of it.

Every process that belongs to an engine carries a mark of its own start in its environment, which its children inherit,
so vLLM's engine core and workers count as well.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
import pytest

from pytest_llmparity.keeper.tree import MARKER

if TYPE_CHECKING:
    from tests.live.conftest import LiveRun

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("llamacpp")]

SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("{prompts}/capitals.jsonl", check.prompts(), check.text(margin=0.2), max_tokens=16)
def test_capitals(): ...
"""
APPLICATION = """
def test_app(engine):
    said = engine.openai().chat.completions.create(
        model=engine.model, temperature=0, max_tokens=4, messages=[{"role": "user", "content": "Hi"}]
    )
    assert said.choices
"""
VLLM = """
[engines.bf16]
kind = "vllm"
python = "{python}"
model = "{models}"
context_length = 1024
args = ["--dtype", "bfloat16", "--enforce-eager"]
"""
LOOK_S = 0.02


class Look(NamedTuple):
    """What was there at one moment: the engines' marks, and their processes by mark."""

    marks: frozenset[str]
    processes: frozenset[tuple[int, float, str]]


def look(run: LiveRun) -> Look:
    found: set[tuple[int, float, str]] = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(run.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError):
                mark = process.environ().get(MARKER)
                if mark is not None and process.status() != psutil.STATUS_ZOMBIE:
                    found.add((process.pid, process.create_time(), mark))
    return Look(frozenset(mark for _, _, mark in found), frozenset(found))


def watch(run: LiveRun, limit_s: float) -> list[Look]:
    """Look again and again until the run has ended."""
    looks: list[Look] = []
    pause, timer = threading.Event(), threading.Timer(limit_s, run.process.kill)
    timer.start()
    while run.process.poll() is None:
        seen = look(run)
        if seen.marks and (not looks or looks[-1] != seen):
            looks.append(seen)
        pause.wait(LOOK_S)
    timer.cancel()
    assert run.process.returncode == 0, run.output
    return looks


def starts(looks: list[Look]) -> list[str]:
    """Marks in the order they were first seen."""
    return list(dict.fromkeys(mark for seen in looks for mark in sorted(seen.marks)))


def never_together(looks: list[Look]) -> None:
    """Nothing of two starts was there at one moment, and none began before the last of the one before was last seen."""
    assert [seen for seen in looks if len(seen.marks) > 1] == []
    everything = {process for seen in looks for process in seen.processes}
    order = starts(looks)
    for before, after in itertools.pairwise(order):
        latest = max(created for _, created, mark in everything if mark == before)
        earliest = min(created for _, created, mark in everything if mark == after)
        assert latest < earliest


def test_who_looks_sees_engines_that_are_together(
    launch: Callable[..., LiveRun], gguf: Callable[..., str], prompts: Path
) -> None:
    run = launch(
        "--engines=f16,q8", suite=SUITE.format(prompts=prompts), config=gguf("f16", "F16") + gguf("q8", "Q8_0")
    )

    looks = watch(run, 240)

    assert max(len(seen.marks) for seen in looks) == 2


def test_two_llama_cpp_are_never_up_together(
    launch: Callable[..., LiveRun], gguf: Callable[..., str], prompts: Path
) -> None:
    run = launch(
        "--engines=f16,q8",
        suite=SUITE.format(prompts=prompts) + APPLICATION,
        config='residency = "one-at-a-time"\n' + gguf("f16", "F16") + gguf("q8", "Q8_0"),
    )

    looks = watch(run, 240)

    never_together(looks)
    assert len(starts(looks)) == 4, "gathered in turn, then application code in turn"
    assert "2 engines one at a time: f16, then q8" in run.output
    assert {name for _, _, name in run.verdicts()} == {"q8"}


def test_llama_cpp_and_vllm_are_never_up_together(
    launch: Callable[..., LiveRun], gguf: Callable[..., str], prompts: Path, models: Path, vllm_python: str
) -> None:
    run = launch(
        "--engines=q8,bf16,f16",
        suite=SUITE.format(prompts=prompts),
        config='residency = "one-at-a-time"\n'
        + gguf("f16", "F16")
        + gguf("q8", "Q8_0")
        + VLLM.format(python=vllm_python, models=models),
    )

    looks = watch(run, 900)

    never_together(looks)
    q8, bf16, f16 = starts(looks)
    sizes = {mark: max(sum(mark == of for *_, of in seen.processes) for seen in looks) for mark in (q8, bf16, f16)}
    assert (sizes[q8], sizes[f16]) == (1, 1)
    assert sizes[bf16] >= 2, "vLLM's server and its engine core"
    assert {name for _, _, name in run.verdicts()} == {"bf16", "f16"}
