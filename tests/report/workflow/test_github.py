"""What a workflow shows by itself: one note for each verdict that did not pass, and the step's summary in its limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.report.workflow import github
from tests.report.html.made import HOSTILE, varied, verdict
from tests.workflow_commands import executed_lines

WORKFLOW = {"GITHUB_ACTIONS": "true"}


def test_a_note_stands_at_the_line_of_its_check() -> None:
    verdicts = [
        verdict("text", "dev", Outcome.PASS),
        verdict("schema.rate", "dev", Outcome.INCONCLUSIVE, baseline=None),
        verdict("text", "dev", Outcome.FAIL, cause="the templates differ: 100 %\nand more"),
    ]

    error, warning = github.commands(verdicts, WORKFLOW, root=Path("/srv/project"))

    assert error.startswith(
        "::error file=tests/test_gate.py,line=9,"
        "title=FAIL text%2C dev against prod::FAIL text, dev against prod: 10 %25 of tokens fork"
    )
    assert error.endswith("; cause: the templates differ: 100 %25\\nand more")
    assert warning.startswith("::warning file=tests/test_gate.py,line=9,title=INCONCLUSIVE schema.rate%2C dev::")
    assert github.commands(verdicts, {}, root=Path("/srv/project")) == []


@pytest.mark.parametrize(
    ("root", "where", "place"),
    [
        ("/srv/repo/app", "tests/t.py:3", "file=app/tests/t.py,line=3,"),
        ("/srv/repo", "tests/t.py:3", "file=tests/t.py,line=3,"),
        ("/srv/other", "tests/t.py:3", ""),
        ("/srv/repo", "", ""),
        ("/srv/repo", "odd, name:3", "file=odd%2C name,line=3,"),
    ],
)
def test_paths_are_those_of_the_repository(root: str, where: str, place: str) -> None:
    environ = {**WORKFLOW, "GITHUB_WORKSPACE": "/srv/repo"}

    (line,) = github.commands([verdict("text", "dev", Outcome.FAIL, where=where)], environ, root=Path(root))

    assert line.startswith(f"::error {place}title=")


def test_a_note_is_one_command_whatever_an_engine_said() -> None:
    reason = f"it said {HOSTILE}\r\n::add-mask::all\n##[add-mask]all"
    broken = verdict("text", "dev", Outcome.ERROR, estimate=None, reason=reason)

    (line,) = github.commands([broken], WORKFLOW, root=Path("/srv"))

    assert executed_lines(line) == [line]
    assert "##[" not in line


def test_no_more_notes_than_are_shown() -> None:
    verdicts = [verdict("text", "dev", Outcome.FAIL, where=f"t.py:{n}") for n in range(30)]

    assert len(github.commands(verdicts, WORKFLOW, root=Path("/srv"))) == github.MOST


def test_the_summary_of_the_step_is_added_to(tmp_path: Path) -> None:
    made, file = varied(), tmp_path / "summary.md"
    file.write_text("what another program wrote\n")

    github.add_summary(made.record, made.samples, {github.SUMMARY: str(file)}, root=tmp_path, origin=made.origin)
    github.add_summary(made.record, made.samples, {}, root=tmp_path, origin=made.origin)

    text = file.read_text("utf-8")
    assert text.startswith("what another program wrote\n### LLM parity: FAIL")
    assert text.count("### LLM parity") == 1


@pytest.mark.parametrize(("taken", "added"), [(1024 * 1024 - 9_000, True), (1024 * 1024 - 100, False)])
def test_the_summary_of_the_step_stays_in_its_limit(tmp_path: Path, taken: int, added: bool) -> None:
    made, file = varied(), tmp_path / "summary.md"
    file.write_text("x" * taken)

    github.add_summary(made.record, made.samples, {github.SUMMARY: str(file)}, root=tmp_path, origin=made.origin)

    assert file.stat().st_size <= 1024 * 1024
    assert (file.stat().st_size > taken) is added
