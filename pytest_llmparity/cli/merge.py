"""``llmparity merge``: put the shards of a run together, and judge them as the one run they are."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmparity.cli.release.gate import run_pytest
from pytest_llmparity.cli.verbs import add_rootdir, root_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_llmparity.cli.verbs import Commands


def add(commands: Commands) -> None:
    """Add the verb to the command line."""
    does = "Put the shards of a run together (pytest --parity-shard N/M) and judge them as one run; nobody is asked."
    usage = "llmparity merge [RUN|DIR ...] [--suite PATH] [--rootdir DIR] [-- ARGUMENT ...]"
    behind = "What stands behind -- is pytest's, such as --parity-report html. The exit code is pytest's."
    parser = commands.add_parser("merge", help=does, description=does, usage=usage, epilog=behind)
    parser.add_argument(
        "places",
        nargs="*",
        metavar="RUN|DIR",
        help="A shard's run as llmparity runs lists it, or a folder with a store, such as the .llmparity of another "
        "machine, of which the newest shards count (default: the newest shards of the project's own store)",
    )
    parser.add_argument(
        "--suite",
        action="append",
        default=[],
        metavar="PATH",
        help="Tests that judge, as pytest takes them; may be repeated (default: those that the shards ran)",
    )
    add_rootdir(parser)
    parser.set_defaults(command=_merge, name="merge", more=[])


def _merge(asked: argparse.Namespace) -> int:
    root = root_of(asked)
    run = merged(root, asked.places)
    return judged(root, run, suite=asked.suite, more=asked.more)


def merged(root: Path, places: Sequence[str]) -> str:
    """Put shards together into one run of the project's store and return it; nothing of it is judged yet."""
    from pytest_llmparity.run.shards.merging import merge
    from pytest_llmparity.store.runs import Store

    with Store.open(root / ".llmparity") as store:
        return merge(store, places, cwd=Path.cwd())


def judged(root: Path, run: str, *, suite: Sequence[str] = (), more: Sequence[str] = ()) -> int:
    """Run the tests that gathered a run, or those of ``suite``, on what it holds; return pytest's exit code."""
    from pytest_llmparity.run.judge.asked import tests_of
    from pytest_llmparity.run.ledger import RunState, read_state
    from pytest_llmparity.store.runs import Store

    tests = list(suite)
    with Store.open(root / ".llmparity") as store:
        portion = (read_state(store, run) or RunState()).portion.words
        if not tests:
            tests = [os.path.relpath(root / test.partition("::")[0]) + _inside(test) for test in tests_of(store, run)]
    command = [sys.executable, "-m", "pytest", "--rootdir", str(root), "--parity-mode", f"replay={run}"]
    command += [*portion, *more, *tests]
    return run_pytest(command, env={name: value for name, value in os.environ.items() if name != "LLMPARITY_MODE"})


def _inside(test: str) -> str:
    """Return what of a test's node id stands behind its file."""
    _, colons, inside = test.partition("::")
    return colons + inside
