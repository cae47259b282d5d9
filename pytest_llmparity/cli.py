"""The command line beside pytest: ``llmparity lock`` and what else is done with engines outside a test run.

Exit codes: 0 all is well, 1 something is wrong with an engine or a file, 2 a mistake on the command line, in the
environment or in the configuration, 130 interrupted. Module level imports only stdlib: ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmparity.options import ENGINES_VARIABLE, FILE

if TYPE_CHECKING:
    from pytest_llmparity.run.session import Session

OK, WRONG, MISUSE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a mistake in ``argv`` ends in ``SystemExit(2)``, as argparse does."""
    asked = _parser().parse_args(argv)
    from pytest_llmparity.core.errors import LLMParityError, UsageError
    from pytest_llmparity.core.printable import printable_lines

    try:
        code: int = asked.command(asked)
    except UsageError as error:
        return _complain(printable_lines(str(error)), MISUSE)
    except LLMParityError as error:
        return _complain(printable_lines(str(error)), WRONG)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    return code


def _complain(text: str, code: int) -> int:
    print(f"llmparity: {text}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llmparity", description="What is behind the engines of a project.")
    parser.add_argument(
        "--version", action="version", version=f"pytest-llmparity {metadata.version('pytest-llmparity')}"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_lock(commands)
    return parser


def _add_command(commands: Any, name: str, *, does: str, **more: Any) -> argparse.ArgumentParser:
    """Add a command that works on engines, with the options that select them."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=does, description=does, **more)
    parser.add_argument(
        "engines",
        nargs="*",
        metavar="ENGINE",
        help=f"as --engines of pytest takes them (default: ${ENGINES_VARIABLE}, else the profile's, else every "
        "configured one)",
    )
    parser.add_argument(
        "--engines", action="append", metavar="SPEC[,SPEC...]", dest="more", help="the same, as pytest spells it"
    )
    parser.add_argument("--profile", metavar="NAME", help="Profile of the configuration to use (default: none)")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"Configuration file (default: {FILE}, or [tool.llmparity] in pyproject.toml, in the root)",
    )
    parser.add_argument(
        "--rootdir", metavar="DIR", help="The project's root (default: the one pytest finds from this folder)"
    )
    return parser


@contextlib.contextmanager
def live(asked: argparse.Namespace) -> Iterator[Session]:
    """Resolve the engines a command was asked for; gives the session that starts or attaches them, and stops them.

    Raises ``core.errors.UsageError`` as pytest's own command line does, also where no engine is selected.
    """
    from pytest_llmparity.core.errors import EngineSelectionError
    from pytest_llmparity.report.progress import Silent
    from pytest_llmparity.resolving import Given, load, project_root, settings
    from pytest_llmparity.run.keeper import Keeper
    from pytest_llmparity.run.session import Session

    cwd = Path.cwd()
    root = (cwd / asked.rootdir).resolve() if asked.rootdir else project_root(cwd)
    named = {
        "engines": [*asked.engines, *(asked.more or ())],
        "profile": asked.profile,
        "config": asked.config,
        "mode": ("live", None),
        "required": False,
    }
    given = Given(named.get, os.environ, root=root, cwd=cwd, prefix="--")
    chosen = settings(given, load(given, otherwise_all=True))
    if not chosen.engines:
        raise EngineSelectionError(
            f"no engine is named and none is configured in {root}; name one, such as llmparity {asked.name} "
            "http://127.0.0.1:8080, or write llmparity.toml"
        )
    session = Session(
        chosen,
        root=root,
        token=uuid.uuid4().hex,
        keeper=lambda: Keeper.spawn(root / ".llmparity"),
        version=metadata.version("pytest-llmparity"),
        progress=Silent(),
    )
    try:
        yield session
    finally:
        session.close()


# lock -----------------------------------------------------------------------------------------------------------------


def _add_lock(commands: Any) -> None:
    parser = _add_command(commands, "lock", does="Start or attach to the engines and say what they are.")
    parser.set_defaults(command=_lock, name="lock")


def _lock(asked: argparse.Namespace) -> int:
    from pytest_llmparity.core.errors import LLMParityError

    code = OK
    with live(asked) as session:
        for spec in session.settings.engines:
            try:
                identity = session.available(spec.name)[1]
            except LLMParityError as error:
                code = _complain(str(error), WRONG)
                continue
            print(spec.name)
            for field, fact in identity.facts.items():
                print(f"  {field}: {fact.value} ({fact.source})")
    return code
