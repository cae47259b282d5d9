"""Reports that people read, from whole runs: files as asked for, and what a workflow of GitHub shows by itself."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pytest_llmparity.run.judge.recorded import stored
from pytest_llmparity.store.runs import Store
from tests.plugin.reported.conftest import project
from tests.plugin.reported.wire import plain
from tests.workflow_commands import executed_lines

__all__ = ["project"]

ORDERS = "</script><script>alert(1)</script> ##[add-mask]all\n::stop-commands::x @team"


@pytest.fixture
def drifting(project: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A project whose gate fails, and whose candidate attacks who reads its answers."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    project.engine("base", plain("One ordinary answer."))
    project.engine("cand", plain(ORDERS))
    project.prompts(
        [
            {"id": f"q{i}", "tags": ["odd"] * (i % 2), "messages": [{"role": "user", "content": f"question {i}"}]}
            for i in range(16)
        ]
    )
    project.gate("check.text(margin=0.05)", marker="max_tokens=8")
    return project


@pytest.mark.parametrize("workers", [(), pytest.param(("-n1",), marks=pytest.mark.slow)])
def test_every_format_is_written_and_a_stored_run_is_reported_again(drifting: Any, workers: tuple[str, ...]) -> None:
    result = drifting.run("--parity-report=json,html,md", *workers)

    out = drifting.pytester.path / "out"
    page, text = ((out / name).read_text("utf-8") for name in ("report.html", "summary.md"))
    content = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert [line for line in result.outlines if line.startswith("report: ")] == [
        f"report: {out.name}/{name}" for name in ("run.json", "report.html", "summary.md")
    ]
    assert len(content["cases"]) == 16
    assert {tag for case in content["cases"] for tag in case.get("tags", ())} == {"odd"}
    assert "alert(1)" not in re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL).replace(
        "&lt;script&gt;alert(1)", ""
    )
    assert "> [!CAUTION]\n> 1 of 2 verdicts is FAIL: text, cand against base" in text
    assert "pytest test_gate.py::test_gate --engines base=http://" in text
    assert str(drifting.pytester.path) not in page + text
    with Store.open(drifting.pytester.path / ".llmparity") as store:
        told = stored(store, store.runs()[-1].id, root=drifting.pytester.path)
    assert [verdict.outcome for verdict in told.record.verdicts] == [
        verdict["outcome"] for verdict in drifting.report()["verdicts"]
    ]
    assert told.record.reproduce.keys() == {"test_gate.py::test_gate"}
    assert {told.origin(sample).tests for sample in told.samples} == {("test_gate.py::test_gate",)}  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_workflow_gets_a_note_at_the_check_and_a_summary(drifting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = drifting.pytester.path / "step.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))

    result = drifting.run()

    error, warning = executed_lines(result.stdout.str())
    assert error.startswith("::error file=test_gate.py,line=5,title=FAIL text%2C cand against base::FAIL text, cand")
    assert warning.startswith(
        "::warning file=test_gate.py,line=5,title=INCONCLUSIVE text.repeat%2C cand against base::"
    )
    assert summary.read_text("utf-8").startswith("### LLM parity: FAIL")


def test_an_open_verdict_shows_what_differs(drifting: Any) -> None:
    drifting.prompts([{"id": f"q{i}", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(4)])
    drifting.gate("check.text(margin=0.9, horizon=4)", marker="max_tokens=8")

    result = drifting.run()

    result.stdout.fnmatch_lines(["inconclusive:", "  cand: text *", "    4 forks in *", "    first fork: q0 after *"])
    assert not executed_lines(result.stdout.str())


BROKEN = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("prompts.jsonl", check.prompts(), max_tokens=8)
def test_passes(parity_run): ...

@pytest.mark.parity("promtps.jsonl", check.prompts(), max_tokens=8)
def test_is_misspelt(parity_run): ...

@pytest.mark.parity("prompts.jsonl", check.prompts(), max_tokens=8)
def test_raises(parity_run):
    raise RuntimeError("no database")
"""


def test_a_gate_that_fails_without_a_verdict_is_an_error_of_every_report(drifting: Any) -> None:
    drifting.pytester.makepyfile(test_gate=BROKEN)

    result = drifting.run("--parity-report=json,html,md")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    out = drifting.pytester.path / "out"
    page, text = ((out / name).read_text("utf-8") for name in ("report.html", "summary.md"))
    reasons = {error["test"]: error["reason"] for error in drifting.report()["errors"]}
    assert list(reasons) == ["test_gate.py::test_is_misspelt", "test_gate.py::test_raises"]
    assert "promtps.jsonl" in reasons["test_gate.py::test_is_misspelt"]
    assert reasons["test_gate.py::test_raises"] == "RuntimeError: no database"
    assert text.startswith("### LLM parity: ERROR")
    assert "2 tests failed outside of their checks" in text
    assert "2 verdicts passed" in text
    assert re.search("<title>ERROR: ", page)
    for report in (page, text.replace("\\", "")):
        assert "RuntimeError: no database" in report
        assert "test_is_misspelt" in report
        assert reasons["test_gate.py::test_is_misspelt"][:14] in report
    with Store.open(drifting.pytester.path / ".llmparity") as store:
        told = stored(store, store.runs()[-1].id, root=drifting.pytester.path)
    assert told.record.errors == reasons
    result.stdout.fnmatch_lines(["failed outside of the checks:", "test_gate.py::test_is_misspelt: no prompt file*"])


@pytest.mark.slow
def test_a_run_that_was_stopped_is_an_error_of_the_report(drifting: Any) -> None:
    drifting.pytester.makepyfile(
        test_gate=BROKEN.partition("@pytest")[0]
        + """
@pytest.mark.parity("prompts.jsonl", check.prompts(), max_tokens=8)
def test_passes(parity_run): ...

def test_stops(): pytest.exit("enough")
"""
    )

    result = drifting.run("--parity-report=json,md")

    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert {"test": "the run", "reason": "stopped before every test had run"} in drifting.report()["errors"]
    assert (drifting.pytester.path / "out/summary.md").read_text("utf-8").startswith("### LLM parity: ERROR")


@pytest.mark.slow
def test_a_file_that_cannot_be_collected_is_an_error_of_the_report(drifting: Any) -> None:
    drifting.pytester.makepyfile(test_odd="import nothing_of_this_name")

    result = drifting.run("--parity-report=json,md", "--continue-on-collection-errors")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (error,) = drifting.report()["errors"]
    assert error["test"] == "test_odd.py"
    assert "could not be collected" in error["reason"]
    assert "nothing_of_this_name" in error["reason"]
