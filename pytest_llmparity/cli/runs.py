"""``llmparity runs``: list what the store holds, and name the runs that it must keep."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmparity.cli.verbs import OK
from pytest_llmparity.core.words.printable import printable

if TYPE_CHECKING:
    from pytest_llmparity.cli.verbs import Commands


def add(commands: Commands) -> None:
    """Add the verb to the command line."""
    does = "List the stored runs; name one that must never be removed, or take the name back."
    parser = commands.add_parser("runs", help=does, description=does)
    parser.add_argument("--root", default=".", metavar="DIR", help="Folder of the project (default: where you are)")
    parser.add_argument("--keep", action="append", default=[], metavar="RUN", help="Never remove this run")
    parser.add_argument("--release", action="append", default=[], metavar="RUN", help="Let this run age like others")
    parser.set_defaults(command=_runs, name="runs")


def _runs(asked: argparse.Namespace) -> int:
    from pytest_llmparity.store.runs import FILE_NAME, Store

    folder = Path(asked.root) / ".llmparity"
    if not (folder / FILE_NAME).exists():
        print(printable(f"no run is stored in {folder}"))
        return OK
    with Store.open(folder) as store:
        for run in asked.keep:
            store.name(run, kept=True)
        for run in asked.release:
            store.name(run, kept=False)
        kept = store.named()
        for run in store.runs():
            began = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started))
            ended = "unfinished" if run.finished is None else "finished"
            print(printable(f"{run.id}  {began}  {ended}{', kept' if run.id in kept else ''}"))
    return OK
