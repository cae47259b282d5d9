"""What stored runs and history files came to, a line for each run."""

from __future__ import annotations

import dataclasses
import json
from importlib import resources
from typing import TYPE_CHECKING

import jsonschema_rs
import pytest

from pytest_llmparity.core.history.entries import entry_of
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.store import history
from tests.cli.test_report import store_run
from tests.report.html.made import varied

if TYPE_CHECKING:
    from tests.cli.conftest import Shell

PUBLISHED = json.loads(resources.files("pytest_llmparity").joinpath("schemas/history.schema.json").read_text("utf-8"))


@pytest.fixture
def runs(shell: Shell) -> list[str]:
    """Two stored runs: one that failed, and one whose text passed."""
    verdicts = varied().record.verdicts
    passed = [dataclasses.replace(v, outcome=Outcome.PASS, estimate=0.01, upper=0.03) for v in verdicts]
    return [store_run(shell, verdicts), store_run(shell, passed)]


def test_stored_runs_are_a_line_each_with_the_newest_last(shell: Shell, runs: list[str]) -> None:
    told = shell.run("history")

    assert told.code == 0, told.err
    lines = told.out.splitlines()
    head = next(place for place, line in enumerate(lines) if line.startswith("test_tickets: dev against prod ("))
    assert "text margin 5 %" in lines[head]
    first, second = (next(line for line in lines[head:] if line.startswith(f"  {run}")) for run in runs)
    assert lines.index(first) < lines.index(second)
    assert "llamacpp 1.2 Q4_K_M" in first
    assert "text 10 % (at least 8 %)" in " ".join(told.out.split())
    assert "text 1 % (at most 3 %)" in " ".join(told.out.split())
    assert "\x1b" not in told.out


def test_tests_of_one_name_are_told_apart(shell: Shell) -> None:
    entry = entry_of(varied().record)
    judged = [
        dataclasses.replace(v, test=f"t.py::{name}::test_x") for name in ("TestA", "TestB") for v in entry.verdicts
    ]
    history.add(shell.path / "h.jsonl", dataclasses.replace(entry, verdicts=tuple(judged)))

    lines = shell.run("history", "--from", "h.jsonl").out.splitlines()

    for name in ("TestA", "TestB"):
        assert len([line for line in lines if line.startswith(f"{name}::test_x: dev against prod (")]) == 1


def test_runs_are_written_as_json_and_read_from_a_history_file(shell: Shell, runs: list[str]) -> None:
    written = shell.run("history", "test_tickets", "--json", "h.json")
    content = json.loads((shell.path / "h.json").read_text("utf-8"))
    lines = [json.dumps(entry) for entry in content["runs"]]
    (shell.path / "kept.jsonl").write_text("\n".join(lines))
    again = shell.run("history", "test_tickets", "--from", "kept.jsonl")

    assert (written.code, again.code) == (0, 0)
    assert [entry["run"] for entry in content["runs"]] == runs
    validator = jsonschema_rs.validator_for(PUBLISHED)
    for entry in content["runs"]:
        validator.validate(entry)
    assert again.out == written.out


def test_a_project_without_runs_says_so(shell: Shell) -> None:
    told = shell.run("history")

    assert (told.code, "was judged to its end" in told.out) == (0, True)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("test_tikets",), "judged 'test_tikets' (did you mean 'test_tickets'?); they judged: test_tickets"),
        (("some/folder/test_a.py::test_tikets",), " (did you mean 'test_tickets'?); they judged: test_tickets"),
        (("test_gone",), "judged 'test_gone'; they judged: test_tickets"),
        (("--from", "gone.jsonl"), "--from: there is no file gone.jsonl"),
        (("--from", "broken.jsonl"), "broken.jsonl:1: no line of a history"),
        (("--json", "gone/h.json"), "--json: gone/h.json names no file in a folder that is there"),
    ],
)
def test_what_cannot_be_shown_is_an_error(shell: Shell, runs: list[str], words: tuple[str, ...], why: str) -> None:
    (shell.path / "broken.jsonl").write_text("{")

    told = shell.run("history", *words)

    assert (told.code, why in told.err) == (4, True), told.err
    assert told.out == ""


def test_hostile_text_of_a_history_file_is_escaped(shell: Shell) -> None:
    entry = entry_of(varied().record)
    attacks = [dataclasses.replace(v, test="t.py::\x1b[31mx", kind="te\u202ext") for v in entry.verdicts]
    history.add(shell.path / "h.jsonl", dataclasses.replace(entry, verdicts=tuple(attacks), run="\x1b[2J"))

    told = shell.run("history", "--from", "h.jsonl")

    assert told.code == 0
    assert not {"\x1b", "\u202e"} & set(told.out)
