from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.run.judge.asked import ASKED
from pytest_llmparity.run.ledger import RunState, write_state
from pytest_llmparity.store.runs import JUDGED, Store

if TYPE_CHECKING:
    from tests.cli.conftest import Shell


def test_stored_runs_are_listed_named_and_released(shell: Shell) -> None:
    assert shell.run("runs").out == f"no run is stored in {shell.path / '.llmparity'}\n"
    with Store.open(shell.path / ".llmparity") as store:
        runs = [store.begin(plan_hash="p", session=f"{n}", version="1", resume="fresh").id for n in range(2)]
        store.finish(runs[0])

    named = shell.run("runs", "--keep", runs[0])
    released = shell.run("runs", "--release", runs[0])
    unknown = shell.run("runs", "--keep", "nobodys")

    lines = {line.split()[0]: line for line in named.out.splitlines()}
    assert lines[runs[0]].endswith("finished, kept")
    assert lines[runs[1]].endswith("unfinished")
    assert "kept" not in released.out
    assert (unknown.code, "there is no run nobodys" in unknown.err) == (4, True)


@pytest.mark.parametrize(
    ("state", "ended"),
    [
        (RunState(open=True), "finished, goes on when prompts are added"),
        (RunState(open=True, incomplete="stopped after 5 requests (--parity-max-requests)"), "unfinished"),
        (RunState(incomplete="stopped after 5 requests (--parity-max-requests)"), "unfinished"),
    ],
)
def test_a_run_is_finished_when_nothing_more_can_be_asked(shell: Shell, state: RunState, ended: str) -> None:
    with Store.open(shell.path / ".llmparity") as store:
        run = store.begin(plan_hash="p", session="s", version="1").id
        write_state(store, run, state)

    assert shell.run("runs").out.splitlines()[0].endswith(f"  {ended}")


def test_a_run_says_its_worst_outcome_its_engines_and_its_tests(shell: Shell) -> None:
    with Store.open(shell.path / ".llmparity") as store:
        run = store.begin(plan_hash="p", session="s", version="1").id
        engines = {name: EngineRecord(name=name, kind="vllm") for name in ("prod", "dev")}
        write_state(store, run, RunState(engines=engines, cases=("q1", "q2")))
        asked = {"prompt_set": "s", "concurrency": 1, "cases": {}}
        units = {
            "one": {"tests": ["test_a.py::test_x", "test_b.py::test_y"], **asked},
            "two": {"tests": ["test_a.py::test_x"], **asked},
        }
        store.put_document(run, ASKED, units)
        store.put_document(run, JUDGED, {"worst": "INCONCLUSIVE"})
        store.finish(run)

    assert (
        shell.run("runs")
        .out.rstrip()
        .endswith("finished  INCONCLUSIVE  prod,dev  test_a.py::test_x test_b.py::test_y  --parity-case q1,q2")
    )


@pytest.mark.parametrize("option", ["--keep", "--release"])
def test_a_run_named_where_none_is_stored_is_an_error(shell: Shell, option: str) -> None:
    ended = shell.run("runs", option, "mine")

    assert (ended.code, ended.out) == (4, "")
    assert f"there is no run mine: no run is stored in {shell.path / '.llmparity'}; --rootdir" in ended.err


def test_the_project_is_found_as_every_verb_finds_it(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(shell.path / ".llmparity") as store:
        run = store.begin(plan_hash="p", session="s", version="1", resume="fresh").id
    (shell.path / "tests").mkdir()
    monkeypatch.chdir(shell.path / "tests")

    assert run in shell.run("runs").out
    assert run not in shell.run("runs", "--rootdir", ".").out
    assert run in shell.run("runs", "--rootdir", "..").out
    assert shell.run("runs", "--rootdir", "nowhere").code == 4
