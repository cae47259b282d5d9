"""``llmparity runs``: list what the store holds, and name the runs that it must keep."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from pytest_llmparity.cli.verbs import add_rootdir, root_of, store_of, tell_damaged
from pytest_llmparity.core.words.exits import OK
from pytest_llmparity.core.words.printable import printable

if TYPE_CHECKING:
    from pytest_llmparity.cli.verbs import Commands
    from pytest_llmparity.run.ledger import RunState
    from pytest_llmparity.store.runs import RunInfo, Store


def add(commands: Commands) -> None:
    """Add the verb to the command line."""
    does = "List the stored runs; name one that must never be removed, or take the name back."
    parser = commands.add_parser("runs", help=does, description=does)
    add_rootdir(parser)
    parser.add_argument("--keep", action="append", default=[], metavar="RUN", help="Never remove this run")
    parser.add_argument("--release", action="append", default=[], metavar="RUN", help="Let this run age like others")
    parser.set_defaults(command=_runs, name="runs")


def _runs(asked: argparse.Namespace) -> int:
    from pytest_llmparity.core.errors import StoreError
    from pytest_llmparity.store.runs import FILE_NAME

    root = root_of(asked)
    named = [*asked.keep, *asked.release]
    if not (root / ".llmparity" / FILE_NAME).exists() and not named:
        print(printable(f"no run is stored in {root / '.llmparity'}"))
        return OK
    with store_of(root, wanted=next(iter(named), "")) as store:
        for run in asked.keep:
            store.name(run, kept=True)
        for run in asked.release:
            store.name(run, kept=False)
        kept = store.named()
        damaged = []
        for run in store.runs():
            try:
                print(printable(_line(store, run, kept=run.id in kept)))
            except StoreError as error:
                damaged.append(str(error))
    return tell_damaged(damaged)


def _line(store: Store, run: RunInfo, *, kept: bool) -> str:
    """Return a run's id, when it began, how it ended, the worst outcome it was judged to, its engines and its tests."""
    from pytest_llmparity.run.judge.asked import tests_of
    from pytest_llmparity.run.ledger import read_state
    from pytest_llmparity.store.runs import JUDGED

    state = read_state(store, run.id)
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started))
    outcome = (store.document(run.id, JUDGED, dict[str, str | None]) or {}).get("worst")
    tests = " ".join(tests_of(store, run.id))
    engines = ",".join(state.engines) if state else ""
    only = f"--parity-case {','.join(state.cases)}" if state and state.cases else ""
    only = only or (state.shard if state else "") or str(state.portion if state else "")
    ended = f"{_ended(run, state)}{', kept' if kept else ''}"
    return "  ".join(filter(None, [run.id, began, ended, outcome, engines, tests, only]))


def _ended(run: RunInfo, state: RunState | None) -> str:
    """Say whether anything of a run can still be asked; a sequential one that was left open waits for more prompts."""
    if run.finished is not None:
        return "finished"
    asked_all = state is not None and state.open and state.incomplete is None
    return "finished, goes on when prompts are added" if asked_all else "unfinished"
