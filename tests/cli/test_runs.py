from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmparity.store.runs import Store

if TYPE_CHECKING:
    from tests.cli.conftest import Shell


def test_stored_runs_are_listed_named_and_released(shell: Shell) -> None:
    assert shell.run("runs").out == "no run is stored in .llmparity\n"
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
