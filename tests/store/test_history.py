"""The file that a project commits: a line for each run, and files of somebody else."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.errors import StoreError
from pytest_llmparity.core.history.entries import Entry
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.store import history

ENTRY = Entry(run="20261101-101500-ab12", began="2026-11-01T10:15:00+00:00", version="1", outcome=Outcome.PASS)


def other(run: str) -> Entry:
    return dataclasses.replace(ENTRY, run=run)


def test_runs_are_added_and_read_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"

    assert history.read(path) == []
    for run in ("a", "b"):
        history.add(path, other(run))

    assert [entry.run for entry in history.read(path)] == ["a", "b"]
    assert path.read_bytes().count(b"\n") == 2


def test_the_line_of_a_run_that_is_judged_again_is_replaced_and_all_others_keep_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    for run in ("a", "b"):
        history.add(path, other(run))
    first, _ = path.read_bytes().splitlines(keepends=True)

    history.add(path, dataclasses.replace(other("b"), outcome=Outcome.FAIL))

    assert path.read_bytes().startswith(first)
    assert [(entry.run, entry.outcome) for entry in history.read(path)] == [("a", Outcome.PASS), ("b", Outcome.FAIL)]


def test_a_last_line_that_an_editor_left_open_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history.add(path, other("a"))
    path.write_bytes(path.read_bytes().rstrip(b"\n"))

    history.add(path, other("b"))

    assert [entry.run for entry in history.read(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("<<<<<<< HEAD\n", ":1: no line of a history"),
        ("[]\n", ":1: no line of a history"),
        ('{"run": "a"}\n', ":1: no line of a history"),
        ("\n" + json.dumps({"run": "a", "began": "", "version": "1", "outcome": "MAYBE"}), ":2: no line of a history"),
        (json.dumps({"format": 2, "run": "a", "began": "", "version": "1", "outcome": None}), ":1: format 2, and this"),
        ('{"format":2,"new":1}\n', ":1: format 2, and this version reads 1"),
        ("[" * 100_000, ":1: no line of a history"),
    ],
)
def test_a_file_that_is_no_history_is_refused_with_the_line_and_left_as_it_is(
    tmp_path: Path, content: str, why: str
) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(content)

    for use in (history.read, history.refuse_unusable, lambda path: history.add(path, ENTRY)):
        with pytest.raises(StoreError) as error:
            use(path)
        assert f"{path}{why}" in str(error.value)
    assert path.read_text() == content


def test_half_a_line_that_a_crash_left_is_named_with_what_to_delete(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    for run in ("a", "b"):
        history.add(path, other(run))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])

    with pytest.raises(StoreError) as error:
        history.refuse_unusable(path)

    assert f"{path}:2: no line of a history: it is the last one and was cut off" in str(error.value)
    assert "delete this line" in str(error.value)
    path.write_bytes(whole[: whole.index(b"\n") + 1])
    assert [entry.run for entry in history.read(path)] == ["a"]


@given(st.binary(max_size=200))
def test_any_bytes_are_runs_or_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(content)
    try:
        assert all(isinstance(entry, Entry) for entry in history.read(path))
    except StoreError as error:
        assert str(path) in str(error)  # noqa: PT017 - most bytes are no history


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone" / "history.jsonl"):
        with pytest.raises(StoreError, match="names no file in a folder that is there"):
            history.refuse_unusable(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_is_read_only_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history.add(path, ENTRY)
    path.chmod(0o400)

    with pytest.raises(StoreError, match="cannot be written by this account"):
        history.refuse_unusable(path)
