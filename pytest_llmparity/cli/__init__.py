"""The command line beside pytest: ``llmparity lock``, ``serve`` and what else is done with engines outside a test run.

Each verb is a file of its own. Exit codes: 0 all is well, 1 something is wrong with an engine or a file, 2 a mistake on
the command line, in the environment or in the configuration, 130 interrupted; ``gate`` and ``bisect`` have their own.
At their top, modules of this room import the standard library and what imports no more: ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from importlib import metadata
from typing import TYPE_CHECKING

from pytest_llmparity.cli.release.gate import UNDECIDED
from pytest_llmparity.cli.verbs import INTERRUPTED, MISUSE, WRONG, complain
from pytest_llmparity.core.words.printable import printable_lines

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a mistake in ``argv`` ends in ``SystemExit(2)``, as argparse does."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        asked = _asked(words)
    except SystemExit as end:
        if end.code == MISUSE and words[:1] in (["gate"], ["bisect"]):
            raise SystemExit(UNDECIDED) from None  # there 2 says something else
        raise
    from pytest_llmparity.core.errors import LLMParityError, UsageError

    try:
        code: int = asked.command(asked)
    except UsageError as error:
        return complain(printable_lines(str(error)), MISUSE)
    except LLMParityError as error:
        return complain(printable_lines(str(error)), WRONG)
    except KeyboardInterrupt:
        return complain("interrupted", INTERRUPTED)
    return code


def _asked(words: list[str]) -> argparse.Namespace:
    """Return what a command line asks for; argparse finds nothing behind -- where a word stands before options."""
    if words[:1] not in (["record"], ["merge"]) or "--" not in words:
        return _parser().parse_args(words)
    place = words.index("--")
    asked = _parser().parse_args(words[:place])
    asked.more = words[place + 1 :]
    return asked


def _parser() -> argparse.ArgumentParser:
    from pytest_llmparity.cli import (
        calibrate,
        doctor,
        golden,
        importing,
        init,
        lock,
        merge,
        record,
        report,
        runs,
        serve,
    )
    from pytest_llmparity.cli.release import bisect, gate, history

    parser = argparse.ArgumentParser(prog="llmparity", description="What is behind the engines of a project.")
    parser.add_argument(
        "--version", action="version", version=f"pytest-llmparity {metadata.version('pytest-llmparity')}"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    released = (gate, bisect, history)
    for verb in (init, importing, doctor, lock, calibrate, golden, record, *released, runs, merge, report, serve):
        verb.add(commands)
    return parser
