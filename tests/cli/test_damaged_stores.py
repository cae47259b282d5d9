"""A store that is damaged, or that somebody else made, ends every verb in a sentence, and none in a decision."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.core.words.exits import REFUSED
from pytest_llmparity.store.packing import DEEPEST, refuse_deep
from pytest_llmparity.store.runs import FILE_NAME
from tests.cli.test_report import store_run
from tests.report.html.made import varied

if TYPE_CHECKING:
    from tests.cli.conftest import Shell

NESTED = b'{"x": ' + b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1) + b"}"
DEEP = b"[" * 100_000 + b"]" * 100_000
REPORT = ("report", "RUN", "--html", "--md", "--json", "--out", "out")
GATE = ("gate", "--run", "RUN", "--candidate", "dev")
FROM, PRUNE = ("golden", "from", "RUN"), ("golden", "prune", "RUN")


PUT = "INSERT OR REPLACE INTO notes (run, name, content) VALUES (?, ?, ?)"
REQUESTS = (
    b'{"schemas": {}, "units": {"u": {"set": "s", "file": "s.jsonl", "concurrency": 1, "sampling": {}, '
    b'"cases": {"c": ["p", "s", ""]}}}}'
)


def put(shell: Shell, statement: str, *values: object) -> None:
    """Write into the store behind its back."""
    with contextlib.closing(sqlite3.connect(shell.path / ".llmparity" / FILE_NAME)) as file, file:
        file.execute(statement, values)


def damaged(shell: Shell, statement: str, *values: object) -> str:
    """Store a run, write something else into it, and return its id."""
    run = store_run(shell, varied().record.verdicts)
    put(shell, statement, *(run if value == "RUN" else value for value in values))
    return run


def ends(shell: Shell, words: tuple[str, ...], run: str, why: str) -> None:
    """Run a verb and hold that it refuses the run in one sentence."""
    told = shell.run(*(run if word == "RUN" else word for word in words))

    assert told.code == REFUSED, told
    assert why in told.err
    assert "Traceback" not in told.err
    assert len(told.err) < 600


@pytest.mark.parametrize(
    ("words", "name"),
    [
        *((REPORT, name) for name in ("gathered", "reported", "decisions", "agreed", "asked")),
        *((GATE, name) for name in ("gathered", "reported", "decisions", "agreed", "asked", "locked")),
        *((FROM, name) for name in ("gathered", "requests", "locked")),
        *((PRUNE, name) for name in ("gathered", "requests", "requests of skipped tests")),
        (("merge", "RUN"), "shard"),
    ],
)
@pytest.mark.parametrize("content", [b"[]", NESTED], ids=["a list", "nested"])
def test_a_document_of_another_form_is_refused(shell: Shell, words: tuple[str, ...], name: str, content: bytes) -> None:
    run = damaged(shell, PUT, "RUN", "requests", b'{"units": {}, "schemas": {}}')
    put(shell, PUT, run, name, content)

    ends(shell, words, run, f"run {run} cannot be read ({name})")


@pytest.mark.parametrize(
    ("verb", "name", "content"),
    [
        *(("history", name, content) for name in ("history", "reported", "gathered") for content in (b"[]", NESTED)),
        *(("runs", name, content) for name in ("gathered", "judged", "asked") for content in (b"[]", NESTED)),
        ("runs", "judged", b'{"worst": 3}'),
        ("history", "history", b'{"run": 3}'),
    ],
)
def test_a_damaged_run_is_named_and_the_others_are_listed(shell: Shell, verb: str, name: str, content: bytes) -> None:
    whole = store_run(shell, varied().record.verdicts)
    run = damaged(shell, PUT, "RUN", name, content)

    told = shell.run(verb)

    assert told.code == 1, told
    assert whole in told.out
    assert run not in told.out
    assert f"run {run} cannot be read ({name})" in told.err
    assert whole not in told.err
    assert len(told.err) < 600


@pytest.mark.parametrize(
    ("words", "name", "content"),
    [
        *((REPORT, "reported", content) for content in (b"", b"\xc1", b'{"x": NaN}', DEEP)),
        (REPORT, "reported", b'{"verdicts": [{"outcome": "FAIL"}], "reproduce": {}}'),
        (REPORT, "reported", b'{"verdicts": [], "reproduce": {"t": 3}}'),
        (REPORT, "gathered", b'{"engines": {"prod": {"name": 3, "kind": "vllm"}}}'),
        (REPORT, "asked", b'{"u": {"tests": "t", "prompt_set": "s", "concurrency": 1, "cases": {}}}'),
        (REPORT, "asked", b'{"u": {"tests": [], "prompt_set": "s", "concurrency": 1, "cases": {"c": {"expect": 3}}}}'),
        (GATE, "reported", b'{"verdicts": 3}'),
        (GATE, "decisions", b'{"sha256": 3}'),
        (GATE, "decisions", b'{"decisions": [{"outcome": "SHIP"}]}'),
        (GATE, "locked", b'{"engines": 3}'),
        (GATE, "agreed", b'{"ladders": 3, "margins": 3}'),
        (FROM, "requests", b'{"units": {"u": {"set": "s"}}, "schemas": {}}'),
        (FROM, "requests", REQUESTS.replace(b'"s", ""', b'"s", "gone"')),
        (FROM, "requests", REQUESTS.replace(b'["p", "s", ""]', b'["p", 3]')),
    ],
)
def test_values_of_another_type_are_refused(shell: Shell, words: tuple[str, ...], name: str, content: bytes) -> None:
    run = damaged(shell, PUT, "RUN", name, content)

    ends(shell, words, run, f"run {run} cannot be read ({name})")


@pytest.mark.parametrize("words", [REPORT, GATE])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(
            ("completion", value)
            for value in (b"\xc1", b'{"text": 3}', b'{"text": "x", "tool_calls": 3}', "text", DEEP)
        ),
        *(("case_id", b"x"), ("repeat", "first"), ("repeat", -1), ("concurrency", b"x")),
        *(("failure", b"{}"), ("timing", b'{"e2e_s": "x"}'), ("omitted", "[3]"), ("omitted", "x"), ("ends", b"abc")),
    ],
)
def test_an_answer_of_another_form_is_refused(shell: Shell, words: tuple[str, ...], column: str, value: object) -> None:
    update = f"UPDATE samples SET {column} = ? WHERE number = (SELECT max(number) FROM samples WHERE run = ?)"
    run = damaged(shell, update, value, "RUN")

    ends(shell, words, run, f"run {run} cannot be read (an answer of ")


def test_brackets_in_texts_are_no_depth(shell: Shell) -> None:
    run = store_run(shell, varied().record.verdicts)
    tests = {"t": "[" * 500 + "{" * 500 + '"]' * 3}
    put(shell, PUT, run, "reported", json.dumps({"verdicts": [], "reproduce": {}, "tests": tests}).encode())

    assert shell.run("report", run).code == 0


def test_brackets_in_texts_hide_no_depth() -> None:
    refuse_deep(b'{"x": ["' + b"[" * 500 + b'", "\\"[]"], "y": [' + b"[]," * 500 + b"[]]}")
    with pytest.raises(ValueError, match="nested deeper"):
        refuse_deep(b'["]",' * (DEEPEST + 1) + b"0" + b"]" * (DEEPEST + 1))
