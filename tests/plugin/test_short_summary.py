"""The short summary says why a gate failed on one line, numbers first, also where pytest shortens nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.plugin.reported.conftest import project
from tests.plugin.reported.wire import Answer, Json, plain, question

__all__ = ["project"]

FILE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("prompts.jsonl", check.text(margin=0.05))
def test_marker(): ...

@pytest.mark.parity("prompts.jsonl", check.text(margin=0.05))
def test_hard(parity_run):
    with parity_run.hard():
        parity_run.check(check.text(margin=0.05))

@pytest.mark.parity("prompts.jsonl", check.text(margin=0.05))
def test_own(parity_run):
    assert parity_run["cand"]["q1"].text.splitlines() == ["one", "two"]
"""


def drifting(body: Json) -> Answer:
    return plain(f"Another answer altogether to {question(body)}, and more of it.")(body)


def steady(body: Json) -> Answer:
    return plain(f"The answer to {question(body)} is five days, and no more.")(body)


@pytest.fixture
def drifts(project: Any) -> Any:
    project.engine("base", steady)
    project.engine("cand", drifting)
    project.prompts([{"id": f"q{i}", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(12)])
    return project


@pytest.mark.parametrize("workers", [(), pytest.param(("-n1",), marks=pytest.mark.slow)])
def test_on_a_ci_service_every_failure_is_printed_once(
    drifts: Any, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CI", "true")
    drifts.write("test_gate.py", FILE)

    result = drifts.run("--junitxml=junit.xml", *workers)

    printed = result.stdout.str()
    assert printed.count("reproduce: ") == 3
    summary = printed.partition("short test summary info")[2].splitlines()
    lines = [line.partition(" - ")[2] for line in summary if line.startswith("FAILED")]
    assert len(lines) == 3
    assert len(summary) == 1 + len(lines) + 1
    assert sum(line.endswith("FAIL: text, cand against base") and " % > 5 % (at least " in line for line in lines) == 2
    assert sum(line.startswith("AssertionError: assert ") for line in lines) == 1
    junit = (drifts.pytester.path / "junit.xml").read_text("utf-8")
    assert junit.count("reproduce: ") == 3


def test_eighty_columns_show_the_numbers(drifts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    drifts.gate("check.text(margin=0.05)")

    result = drifts.run()

    [line] = [line for line in result.stdout.lines if line.startswith("FAILED")]
    assert " % > 5 % (at least " in line
    assert len(line) <= 80


@pytest.mark.parametrize("workers", [(), pytest.param(("-n1",), marks=pytest.mark.slow)])
def test_a_report_that_was_asked_for_and_is_missing_fails_the_run(project: Any, workers: tuple[str, ...]) -> None:
    project.engine("base", steady)
    project.prompts([{"id": "q", "messages": [{"role": "user", "content": "question"}]}])
    project.gate("check.prompts()")
    project.write("out", "a file where the report's folder should be")

    result = project.run(*workers)

    result.assert_outcomes(skipped=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*report could not be written: *out cannot be written (*choose another --parity-out*"])
