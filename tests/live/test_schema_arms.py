"""Both arms of a schema on every engine that is there: what constraints do to right answers of one model.

The schema names its properties in an order that is not the alphabet's, in which the model was trained to write them.
With the schema in words the tiny model gives no right answer on any engine, so that the arms show how many right ones
each constraint makes: all, or of Ollama, which forces the order of the alphabet, a third.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.unavailable import unavailable

if TYPE_CHECKING:
    from tests.engines.live import Served
    from tests.live.conftest import LiveRun

pytestmark = pytest.mark.live

PROMPTS, FEWEST = 20, 4
ARMS = {PROMPTS: 0.2, FEWEST: 0.9}
"""What so many prompts can decide: a gate that they cannot is refused."""
SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("tickets.jsonl", check.schema(arms={arms}), max_tokens=96)
def test_arms(): ...
"""
OLLAMA = """
[engines.ollama]
kind = "ollama"
model = "{model}"
command = ["{program}"]
context_length = 1024
env = {{LLAMA_ARG_THREADS = "1"}}
"""


Judged = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def judged(launch: Callable[..., LiveRun], prompts: Path, tmp_path: Path) -> Judged:
    """Run the suite on one engine; return its verdicts by kind.

    Its prompts are each a group of their own, with their schema and the value that is right.
    """

    def run(engine: str, config: str, count: int = PROMPTS) -> dict[str, dict[str, Any]]:
        project = tmp_path / "arms"
        project.mkdir()
        lines = (prompts / "tickets.jsonl").read_text("utf-8").splitlines()
        rows = [json.loads(lines[at * len(lines) // count]) for at in range(count)]
        for row in rows:
            del row["group"]
        (project / "tickets.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
        args = (f"--engines={engine}", "--parity-report=json", "--parity-out=out")
        run = launch(*args, suite=SUITE.format(arms=ARMS[count]), config=config, project=project)
        run.wait()
        assert (run.folder / "out/run.json").exists(), run.output
        return {each["kind"]: each for each in json.loads((run.folder / "out/run.json").read_text())["verdicts"]}

    return run


def holds(verdicts: dict[str, dict[str, Any]], *, right: float) -> None:
    """Hold that every whole answer keeps the schema, and at least what share is right in that arm alone."""
    constraint, arms = verdicts["schema.constraint"], verdicts["schema.arms"]
    sys.stdout.write(f"{constraint['message']}\n{arms['message']}\n")  # figures of the documentation
    assert (constraint["outcome"], arms["outcome"]) == ("PASS", "PASS")
    assert min(constraint["n"], arms["n"]) >= PROMPTS - 1, "one may be cut: vLLM's grammar takes blanks without end"
    assert arms["estimate"] <= -right


@pytest.mark.usefixtures("llamacpp")
def test_llamacpp_forces_the_schema_in_its_order(judged: Judged, gguf: Callable[..., str]) -> None:
    verdicts = judged("f16", gguf("f16", "F16"))

    holds(verdicts, right=0.9)
    assert "order" not in str(verdicts["schema.arms"].get("differs", ""))


def test_ollama_forces_the_schema_in_the_order_of_the_alphabet_and_the_verdict_says_so(
    judged: Judged, models: Path
) -> None:
    program = os.environ.get("LLMPARITY_OLLAMA", "")
    if not program:
        unavailable("ollama", "LLMPARITY_OLLAMA does not name the program")

    verdicts = judged("ollama", OLLAMA.format(model=models / "tiny-F16.gguf", program=program))

    holds(verdicts, right=0.0)
    assert verdicts["schema.arms"]["estimate"] >= -0.6, "most of the answers that llama.cpp has right are wrong here"
    assert "order" in str(verdicts["schema.arms"]["differs"])


@pytest.mark.slow
@pytest.mark.parametrize("served", ["vllm"], indirect=True)
def test_vllm_forces_the_schema_in_its_order(judged: Judged, served: Served, attached: Callable[..., str]) -> None:
    verdicts = judged("bf16", attached("bf16", served))

    holds(verdicts, right=0.9)
    assert "order" not in str(verdicts["schema.arms"].get("differs", ""))


@pytest.mark.slow
@pytest.mark.parametrize("served", ["transformers", "mlx"], indirect=True)
def test_an_engine_without_a_constraint_is_skipped_where_one_is_needed(
    judged: Judged, served: Served, attached: Callable[..., str]
) -> None:
    """Told by what its kind can do, so that few prompts tell it: mlx-lm reads each for half a second."""
    verdicts = judged("free", attached("free", served), FEWEST)

    assert {kind: verdict["outcome"] for kind, verdict in verdicts.items()} == {
        "schema.constraint": "SKIPPED",
        "schema.arms": "SKIPPED",
    }
    assert "does not enforce response_format" in verdicts["schema.constraint"]["message"]
