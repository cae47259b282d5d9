"""A gate on real engines in shards: merged it has the verdicts of one run, outcome, estimate, bounds and counts."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity(
    "prompts.jsonl", check.prompts(), check.text(margin=0.05), check.logprobs(shift=0.02), max_tokens=16
)
def test_shards(parity_run): ...
"""
ENGINES = ("--parity-config=fixtures/gate/llmparity.toml", "--engines=f16,q4_0", "--parity-explain-requests=0")
SAME = ("test", "check", "kind", "engine", "outcome", "estimate", "lower", "upper", "margin", "n", "groups", "floor")

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("llamacpp")]


def verdicts(folder: Path) -> list[dict[str, Any]]:
    report = json.loads((folder / "run.json").read_text())["verdicts"]
    return [{name: verdict[name] for name in SAME} for verdict in report]


@pytest.mark.slow
def test_two_shards_of_a_gate_are_judged_as_one_run(
    tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    def run(*words: str, ends: int) -> None:
        done = command(tmp_path, *words)
        assert done.returncode == ends, done.stdout + done.stderr

    shutil.copytree(ROOT / "fixtures/gate", tmp_path / "fixtures/gate")
    (tmp_path / "fixtures/models").symlink_to(ROOT / "fixtures/models")
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    (tmp_path / "test_shards.py").write_text(SUITE)
    prompts = (ROOT / "fixtures/gate/mixed48.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "prompts.jsonl").write_text("".join(prompts[::2]))
    pytest_on = ("pytest", "test_shards.py", *ENGINES)

    run(*pytest_on, "--parity-report=json", "--parity-out=whole", ends=1)
    for index in (1, 2):
        run(*pytest_on, f"--parity-shard={index}/2", ends=0)
    merged = ("--parity-report=json", "--parity-out=merged", "-p", "no:cacheprovider")
    run("pytest_llmparity", "merge", "--", *merged, ends=1)

    whole, put_together = verdicts(tmp_path / "whole"), verdicts(tmp_path / "merged")
    assert [v for v in put_together if v["kind"] != "logprobs"] == [v for v in whole if v["kind"] != "logprobs"]
    # Who is asked beside whom decides how the engine adds up, so what it differs from itself differs at the sixth
    # decimal, and bounds beside that floor with it; two runs on one machine are no closer.
    close = [{name: near(value) for name, value in v.items()} for v in whole if v["kind"] == "logprobs"]
    assert [v for v in put_together if v["kind"] == "logprobs"] == close
    assert len(close) == 1


def near(value: Any) -> Any:
    return pytest.approx(value, rel=0.01, abs=1e-4) if isinstance(value, float) else value
