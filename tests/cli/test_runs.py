from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.run.judge.state import RunState, write_state
from pytest_llmparity.store.runs import Store

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
    assert (unknown.code, "there is no run nobodys" in unknown.err) == (1, True)


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


@pytest.mark.parametrize("option", ["--keep", "--release"])
def test_a_run_named_where_none_is_stored_is_an_error(shell: Shell, option: str) -> None:
    ended = shell.run("runs", option, "mine")

    assert (ended.code, ended.out) == (1, "")
    assert f"there is no run mine: no run is stored in {shell.path / '.llmparity'}; --rootdir" in ended.err


def test_the_project_is_found_as_every_verb_finds_it(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(shell.path / ".llmparity") as store:
        run = store.begin(plan_hash="p", session="s", version="1", resume="fresh").id
    (shell.path / "tests").mkdir()
    monkeypatch.chdir(shell.path / "tests")

    assert run in shell.run("runs").out
    assert run not in shell.run("runs", "--rootdir", ".").out
    assert run in shell.run("runs", "--rootdir", "..").out
    assert shell.run("runs", "--rootdir", "nowhere").code == 2
