"""``llmparity history``: what the stored runs, or those of a history file, came to, one after another."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmparity.cli.verbs import add_rootdir, complain, root_of, tell_damaged
from pytest_llmparity.core.words.exits import REFUSED
from pytest_llmparity.core.words.printable import printable, uncommanded

if TYPE_CHECKING:
    from pytest_llmparity.cli.verbs import Commands
    from pytest_llmparity.core.history.entries import Entry


def add(commands: Commands) -> None:
    """Add the verb to the command line."""
    does = "Show drift, bounds and latency over the stored runs and engine versions, or over those of a history file."
    parser = commands.add_parser("history", help=does, description=does)
    parser.add_argument("test", nargs="?", metavar="TEST", help="A test, by a piece of its node id (default: all)")
    parser.add_argument("--from", dest="file", metavar="FILE", help="Runs of this file, which --parity-history wrote")
    parser.add_argument("--json", metavar="FILE", help="Write the runs as JSON too")
    add_rootdir(parser)
    parser.set_defaults(command=_history, name="history")


def _history(asked: argparse.Namespace) -> int:
    from pytest_llmparity.core.errors import UsageError
    from pytest_llmparity.core.history.entries import about
    from pytest_llmparity.core.words.nearest import nearest
    from pytest_llmparity.core.words.nodeids import name_of_test
    from pytest_llmparity.report import history
    from pytest_llmparity.store.whole import replace

    if asked.json is not None and (Path(asked.json).is_dir() or not Path(asked.json).absolute().parent.is_dir()):
        raise UsageError(f"--json: {asked.json} names no file in a folder that is there")
    entries, where, damaged = _entries(asked)
    if asked.test is not None and entries:
        known = dict.fromkeys(name_of_test(v.test) for entry in entries for v in entry.verdicts)
        entries = about(entries, asked.test)
        if not entries:
            close = nearest(name_of_test(asked.test), known)
            words = f"no run {where} judged {asked.test!r}{close}; they judged: {', '.join(known) or 'nothing'}"
            return complain(printable(words), REFUSED)
    width = min(history.WIDTH, shutil.get_terminal_size((history.WIDTH, 24)).columns)
    lines = history.lines(entries, width=width) or [printable(f"no run {where} was judged to its end")]
    print(*map(uncommanded, lines), sep="\n")
    if asked.json is not None:
        try:
            replace(Path(asked.json), [json.dumps(history.record(entries), indent=1, allow_nan=False), "\n"])
        except OSError as error:
            return complain(printable(f"--json: {asked.json} could not be written: {error.strerror}"), REFUSED)
    return tell_damaged(damaged)


def _entries(asked: argparse.Namespace) -> tuple[list[Entry], str, list[str]]:
    """Return the runs, the oldest first, where they are from, as a message says it, and what cannot be read of them."""
    from pytest_llmparity.core.errors import UsageError
    from pytest_llmparity.core.history.entries import in_order
    from pytest_llmparity.run.judge.history import of_store
    from pytest_llmparity.store import history
    from pytest_llmparity.store.runs import FILE_NAME, Store

    if asked.file is not None:
        if not Path(asked.file).is_file():
            raise UsageError(f"--from: there is no file {asked.file}")
        return in_order(history.read(Path(asked.file))), f"of {asked.file}", []
    folder = root_of(asked) / ".llmparity"
    if not (folder / FILE_NAME).exists():
        return [], f"in {folder}", []
    with Store.open(folder) as store:
        entries, damaged = of_store(store)
        return entries, f"in {folder}", damaged
