"""A line of ``samples.jsonl`` stands for itself: who asked, what was asked, and whether a verdict rests on it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.plugin.reported.conftest import project
from tests.plugin.reported.wire import plain

__all__ = ["project"]

FILE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("prompts.jsonl", check.text(margin=0.9))
def test_gate(): ...

@pytest.mark.parity("prompts.jsonl", check.prompts())
def test_same_prompts(): ...

@pytest.mark.parity("other.jsonl")
def test_reads(parity_run):
    assert parity_run["base"]["raw"].text
"""


@pytest.mark.parametrize("workers", [(), pytest.param(("-n1",), marks=pytest.mark.slow)])
def test_a_line_says_who_asked_what(project: Any, workers: tuple[str, ...]) -> None:
    project.engine("base", plain("One ordinary answer."))
    project.engine("cand", plain("One ordinary answer."))
    project.prompts([{"id": f"q{i}", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(3)])
    project.write("other.jsonl", json.dumps({"id": "raw", "messages": [{"role": "user", "content": "read me"}]}))
    project.write("test_gate.py", FILE)

    project.run(*workers)

    text = (project.pytester.path / "out" / "samples.jsonl").read_text("utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    [asked] = [n for n in lines if (n["engine"], n["case"], n["phase"]) == ("cand", "q1", "main")]
    assert asked["tests"] == ["test_gate.py::test_gate", "test_gate.py::test_same_prompts"]
    assert asked["messages"] == [{"role": "user", "content": "question 1"}]
    assert (asked["prompt_sets"], asked["prompt"], asked["judged"]) == (["prompts"], None, True)
    assert {n["judged"] for n in lines if n["phase"] in ("cold", "warm", "parallel")} == {False}
    assert {(n["judged"], *n["tests"]) for n in lines if n["case"] == "raw"} == {(False, "test_gate.py::test_reads")}
