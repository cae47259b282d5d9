"""The command line beside pytest: ``llmparity lock``, ``serve`` and what else is done with engines outside a test run.

Each verb is a file of its own; how they end is one rule (``core.words.exits``).
At their top, modules of this room import the standard library and what imports no more: ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from importlib import metadata
from typing import TYPE_CHECKING, Final

from pytest_llmparity.cli.verbs import Parser, complain
from pytest_llmparity.core.words.exits import FAULT, INTERRUPTED, REFUSED, UNREAD, told
from pytest_llmparity.core.words.printable import printable
from pytest_llmparity.settings.sources import unread_variables

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a mistake in ``argv`` ends in ``SystemExit`` with that of mistakes."""
    asked = _asked(list(sys.argv[1:] if argv is None else argv))
    from pytest_llmparity.core.errors import LLMParityError

    for sentence in unread_variables(os.environ):
        print(f"llmparity: {printable(sentence)}", file=sys.stderr)
    try:
        code: int = asked.command(asked)
        if sys.stdout is not None:  # closed by who started it
            sys.stdout.flush()
    except LLMParityError as error:
        return complain(str(error), REFUSED)
    except KeyboardInterrupt:
        return complain("interrupted", INTERRUPTED)
    except Exception as error:  # noqa: BLE001  # the border of the process: 1 would say that what was asked is done and something is wrong
        if _unread(error):  # who read it has seen enough (| head); what is left is not written at the end either
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return UNREAD
        traceback.print_exc()
        return complain("this is a fault of pytest-llmparity; please report it with the lines above", FAULT)
    return code


_WINDOWS: Final = os.name == "nt"


def _unread(error: Exception) -> bool:
    """Whether nobody reads what is printed any more: on Windows writing to a closed pipe is an invalid argument."""
    if _WINDOWS and isinstance(error, OSError) and error.errno == errno.EINVAL:
        return True
    return isinstance(error, BrokenPipeError)


def _asked(words: list[str]) -> argparse.Namespace:
    """Return what a command line asks for; argparse finds nothing behind -- where a word stands before options."""
    if words[:1] not in (["record"], ["merge"]) or "--" not in words:
        return _parser().parse_args(words)
    place = words.index("--")
    asked = _parser().parse_args(words[:place])
    asked.more = words[place + 1 :]
    return asked


def _parser() -> Parser:
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

    parser = Parser(
        prog="llmparity",
        description="What is behind the engines of a project.",
        epilog="How a command ends is one rule: docs/exit-codes.md.",
    )
    parser.add_argument(
        "--version", action="version", version=f"pytest-llmparity {metadata.version('pytest-llmparity')}"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    released = (gate, bisect, history)
    for verb in (init, importing, doctor, lock, calibrate, golden, record, *released, runs, merge, report, serve):
        verb.add(commands)
    for name, command in commands.choices.items():
        for each in (command, *command.verbs()):
            each.epilog = "\n\n".join(filter(None, (each.epilog, told(name))))
    return parser
