"""``--parity-history``: a line for each run, written by the controlling process, refused where it cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.plugin.reported.conftest import project
from tests.plugin.reported.wire import plain

__all__ = ["project"]


@pytest.fixture
def gate(project: Any) -> Any:
    """A project whose gate passes."""
    for name in ("base", "cand"):
        project.engine(name, plain("One ordinary answer."))
    project.prompts([{"id": f"q{i}", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(16)])
    project.gate("check.text(margin=0.05)", marker="max_tokens=8")
    return project


@pytest.mark.parametrize("workers", [(), pytest.param(("-n1",), marks=pytest.mark.slow)])
def test_each_run_adds_a_line_and_a_replay_none(gate: Any, workers: tuple[str, ...]) -> None:
    path = gate.pytester.path / "history.jsonl"

    results = [gate.run("--parity-history=history.jsonl", "--parity-report=html", *workers) for _ in range(2)]
    gate.run("--parity-history=history.jsonl", "--parity-mode=replay")

    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len(lines) == 2
    assert [f"history: run {line['run']} is kept in {path.name}" for line in lines] == [
        line for result in results for line in result.outlines if line.startswith("history: ")
    ]
    assert {verdict["kind"] for line in lines for verdict in line["verdicts"]} >= {"text"}
    text = path.read_text("utf-8")
    assert str(gate.pytester.path) not in text
    assert "ordinary" not in text
    page = (gate.pytester.path / "out" / "report.html").read_text("utf-8")
    assert '<section id="history"' in page


def test_a_file_that_cannot_be_added_to_is_refused_before_anything_is_collected(gate: Any) -> None:
    (gate.pytester.path / "broken.jsonl").write_text("<<<<<<< HEAD\n")

    for name, why in (("gone/h.jsonl", "names no file in a folder"), ("broken.jsonl", "1: no line of a history")):
        result = gate.run(f"--parity-history={name}")

        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert why in result.stderr.str()
        assert not (gate.pytester.path / ".llmparity").exists()
