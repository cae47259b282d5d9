from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.core.sample import to_json
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.run.judge.recorded import DECISIONS, keep
from pytest_llmparity.run.ledger import RunState, write_state
from pytest_llmparity.store.runs import Store
from tests.report.html.made import HOSTILE, TEST, decision, varied

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.cli.conftest import Shell


def store_run(shell: Shell, verdicts: Sequence[Verdict]) -> str:
    """Put a judged run into the shell's project and return its id."""
    made = varied()
    with Store.open(shell.path / ".llmparity") as store:
        run = store.begin(plan_hash="p", session=str(len(store.runs())), version="1", resume="fresh").id
        write_state(store, run, RunState(engines={e.name: e for e in made.record.engines}, baseline="prod"))
        store.put(run, made.samples[:-20])
        store.finish(run)
        keep(store, run, verdicts, made.record.reproduce)
    return run


def test_the_newest_run_is_shown_and_its_reports_are_written(shell: Shell) -> None:
    store_run(shell, varied().record.verdicts)

    told = shell.run("report", "--html", "--md", "--json", "--out", "there")

    assert told.code == 0
    assert "dev: FAIL  text  10 %/token, margin 5 %  (test_tickets)" in told.out
    written = {path.name for path in (shell.path / "there").iterdir()}
    assert written == {"report.html", "summary.md", "run.json", "samples.jsonl"}
    assert "fork-2" in (shell.path / "there" / "report.html").read_text("utf-8")


def test_a_gate_that_failed_is_told_as_pytest_told_it(shell: Shell) -> None:
    store_run(shell, varied().record.verdicts)

    told = shell.run("report").out

    head, _, rest = told.partition("\n")
    assert head == f"failed: {TEST}"
    assert rest.startswith("  FAIL text, dev against prod: 10 % of tokens fork, at least 8 %, margin 5 %")
    text = rest.partition("\n\n")[0]
    assert "    first fork: " in text
    assert "  reproduce: pytest tests/test_gate.py::test_tickets --engines prod,dev" in text.splitlines()
    assert HOSTILE not in told
    assert "\x1b" not in told


def test_a_decision_is_told_as_the_gate_told_it(shell: Shell) -> None:
    run = store_run(shell, varied().record.verdicts)
    policy = {"sha256": "ab" * 32, "limits": "", "policy": "release.toml"}
    old = {key: value for key, value in to_json(decision()).items() if isinstance(value, str)}
    with Store.open(shell.path / ".llmparity") as store:
        store.put_document(run, DECISIONS, {**policy, "decisions": [to_json(decision()), old]})

    told = shell.run("report").out

    new, of_old = told.split("\nHOLD: ")[1:]
    for words in (
        "Against it:\n  FAIL  test_tickets, text: 10 %",
        "What changed from prod to dev:\n  template_sha256: ab",
        "  context_length: 4096 -> 2048\n  args: --ctx-size 4096 -> --ctx-size 2048",
        "Regressions, the gravest first:\n  silent-6  no answer (EngineTimeout)\n    prod  'amber'\n",
    ):
        assert words in new
    assert of_old.splitlines()[2:] == [
        "Policy: release.toml (sha256 abababababab).",
        f"Run: {run}. The whole of it:",
        f"    llmparity report {run} --html",
    ]
    assert max(map(len, new.splitlines())) <= 80


def test_two_runs_are_compared(shell: Shell) -> None:
    verdicts = varied().record.verdicts
    before = store_run(shell, verdicts)
    turned = {"text": Outcome.PASS, "schema.agree": Outcome.FAIL}
    after = store_run(shell, [dataclasses.replace(v, outcome=turned.get(v.kind, v.outcome)) for v in verdicts[:-1]])

    lines = shell.run("report", before, after).out.splitlines()

    assert lines[:2] == [f"{before} to {after}", "worse:"]
    assert lines[2].startswith(
        "  test_tickets: schema.agree, dev against prod: PASS (98 %, at least 95 %) to FAIL (98 %"
    )
    assert lines[3] == "better:"
    assert lines[4].startswith("  test_tickets: text, dev against prod: FAIL (10 %, at least 8 %) to PASS (10 %")
    assert [line for line in lines if line.endswith(":")] == ["worse:", "better:", "undecided:", f"only in {before}:"]
    assert lines[-1] == "2 verdicts decided alike"


def test_tests_of_one_name_are_told_apart_between_two_runs(shell: Shell) -> None:
    (text,) = [v for v in varied().record.verdicts if (v.kind, v.engine) == ("text", "dev")]
    both = [dataclasses.replace(text, test=f"t.py::{name}::test_x") for name in ("TestA", "TestB")]
    before = store_run(shell, both)
    after = store_run(shell, [dataclasses.replace(verdict, outcome=Outcome.PASS) for verdict in both])

    lines = shell.run("report", before, after).out.splitlines()

    assert [line.partition(":")[0] for line in lines[1:4]] == ["better", "  TestA", "  TestB"]
    assert lines[2].startswith("  TestA::test_x: text, dev against prod: FAIL")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("a", "b", "c"), "one run is reported or two are compared, and there are 3"),
        (("a", "b", "--md"), "--md writes the report of one run"),
        (("a",), "there is no run a"),
        ((), "was judged to its end"),
    ],
)
def test_what_cannot_be_reported_is_said(shell: Shell, words: tuple[str, ...], why: str) -> None:
    with Store.open(shell.path / ".llmparity") as store:
        store.begin(plan_hash="p", session="s", version="1")

    told = shell.run("report", *words)

    assert (told.code, why in told.err) == (4, True), told.err


def test_a_run_that_was_not_judged_says_what_to_do(shell: Shell) -> None:
    with Store.open(shell.path / ".llmparity") as store:
        run = store.begin(plan_hash="p", session="s", version="1").id
        write_state(store, run, RunState())

    assert f"pytest --parity-mode replay={run} --parity-report html judges it" in shell.run("report", run).err
    assert TEST not in shell.run("report").out


def test_a_project_without_runs_says_so(shell: Shell) -> None:
    assert "no run is stored in" in shell.run("report").err
