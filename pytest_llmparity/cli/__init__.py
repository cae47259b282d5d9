"""The command line beside pytest: ``llmparity lock``, ``serve`` and what else is done with engines outside a test run.

Exit codes: 0 all is well, 1 something is wrong with an engine or a file, 2 a mistake on the command line, in the
environment or in the configuration, 130 interrupted. Module level imports only stdlib: ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_llmparity.core.words.printable import printable, printable_lines, uncommanded, uncommanded_json
from pytest_llmparity.settings.sources import ENGINES_VARIABLE, FILE

if TYPE_CHECKING:
    from pytest_llmparity.core.identity.lock import Difference, Locked
    from pytest_llmparity.run.resolving import Given, Loaded
    from pytest_llmparity.run.session import Session
    from pytest_llmparity.settings.specification import EngineSpec, Settings

OK, WRONG, MISUSE, INTERRUPTED = 0, 1, 2, 130
GONE_S = 0.2
"""How often ``serve`` looks whether its engine still runs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a mistake in ``argv`` ends in ``SystemExit(2)``, as argparse does."""
    asked = _parser().parse_args(argv)
    from pytest_llmparity.core.errors import LLMParityError, UsageError

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
    _add_doctor(commands)
    _add_lock(commands)
    _add_serve(commands)
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


class Chosen(NamedTuple):
    """What a command was asked for, as given, as the configuration completes it, and as it is in force."""

    given: Given
    loaded: Loaded
    settings: Settings


def chosen(asked: argparse.Namespace) -> Chosen:
    """Resolve the engines a command was asked for.

    Raises ``core.errors.UsageError`` as pytest's own command line does, also where no engine is selected.
    """
    from pytest_llmparity.core.errors import EngineSelectionError
    from pytest_llmparity.run.resolving import Given, load, project_root, settings

    cwd = Path.cwd()
    root = (cwd / asked.rootdir).resolve() if asked.rootdir else project_root(cwd)
    named = {
        "engines": [*asked.engines, *(asked.more or ())],
        "profile": asked.profile,
        "config": asked.config,
        "mode": ("live", None),
        "required": False,
        "frozen": False,
    }
    given = Given(named.get, os.environ, root=root, cwd=cwd, prefix="--")
    loaded = load(given, otherwise_all=True)
    found = settings(given, loaded)
    if not found.engines:
        raise EngineSelectionError(
            f"no engine is named and none is configured in {root}; name one, such as llmparity {asked.name} "
            "http://127.0.0.1:8080, or write llmparity.toml"
        )
    return Chosen(given, loaded, found)


@contextlib.contextmanager
def live(asked: argparse.Namespace) -> Iterator[Session]:
    """Give the session that starts or attaches the engines a command was asked for, and stops them at the end.

    Raises as :func:`chosen` does.
    """
    with serving(chosen(asked)) as session:
        yield session


@contextlib.contextmanager
def serving(found: Chosen) -> Iterator[Session]:
    """Give the session that starts or attaches these engines, and stops them at the end."""
    from pytest_llmparity.keeper.client import Keeper
    from pytest_llmparity.report.progress import Silent
    from pytest_llmparity.run.session import Session

    root = found.given.root
    session = Session(
        found.settings,
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


# doctor ---------------------------------------------------------------------------------------------------------------


def _add_doctor(commands: Any) -> None:
    does = "Start or attach to the engines and say what they are, what they can do, and what to change."
    parser = _add_command(commands, "doctor", does=does)
    parser.add_argument(
        "--prompts", nargs="+", metavar="FILE", help="Prompt files to hold against the engines' context and words"
    )
    parser.add_argument("--json", action="store_true", help="Print JSON, as schemas/doctor.schema.json describes it")
    parser.set_defaults(command=_doctor, name="doctor")


def _doctor(asked: argparse.Namespace) -> int:
    from pytest_llmparity.report import doctor as report
    from pytest_llmparity.run import origins
    from pytest_llmparity.run.declare import load_prompts
    from pytest_llmparity.run.doctor import examine
    from pytest_llmparity.settings.selection import parse_engines

    found = chosen(asked)
    entries = parse_engines(found.loaded.selection)
    folders = (found.given.cwd, found.given.root)
    prompts = [load_prompts(name, folders) for name in asked.prompts or ()]
    whole = list(origins.of_run(found.settings, found.given, found.loaded))
    examined = []
    with serving(found) as session:
        for spec, entry in zip(found.settings.engines, entries, strict=True):
            told = list(origins.of_engine(spec, entry, found.loaded, environ=os.environ))
            one = examine(session, spec, settings=told, prompts=prompts)
            examined.append(one)
            if not asked.json:
                print(*map(uncommanded, report.engine_lines(one)), "", sep="\n", flush=True)
        keys = session.mask.unsearched
        if asked.json:
            record = json.dumps(report.to_record(examined, whole, keys, version=session.version), indent=1)
            print(uncommanded_json(record))
        else:
            print(*map(uncommanded, report.ending_lines(examined, whole, keys)), sep="\n")
    return OK if all(one.well for one in examined) else WRONG


# lock -----------------------------------------------------------------------------------------------------------------


def _add_lock(commands: Any) -> None:
    does = "Start or attach to the engines and write down in llmparity.lock what they are."
    parser = _add_command(commands, "lock", does=does)
    parser.add_argument(
        "--check",
        action="store_true",
        help="Write nothing; exit with 1 when an engine is not in the lock, or not as it stands there",
    )
    parser.set_defaults(command=_lock, name="lock")


def _lock(asked: argparse.Namespace) -> int:
    from pytest_llmparity import lockfile
    from pytest_llmparity.core.identity import lock

    with live(asked) as session:
        path = session.root / lock.NAME
        before = lockfile.read(path) or {}
        seen = _seen(session)
        names = [spec.name for spec in session.settings.engines]
        gone = before.keys() - set(names) if _every_engine(asked) else set()
    after = lock.renewed({name: locked for name, locked in before.items() if name not in gone}, seen)
    touched = {*seen, *gone}
    stale = False
    for name, found in lock.changes(before, after).items():
        if name in touched:
            stale |= found is None or any(difference.fails for difference in found)
            _tell(name, before.get(name), after.get(name), found)
    for name, locked in seen.items():
        if blind := lock.unseen(locked):
            print(printable(f"{name} {blind}"))
    for sentence in lock.twins(seen):
        print(printable(sentence))
    if not asked.check and after != before:
        lockfile.write(path, after)
        print(f"wrote {path}")
    return WRONG if len(seen) < len(names) or (asked.check and stale) else OK


def _seen(session: Session) -> dict[str, Locked]:
    """Return what the lock keeps of every engine that is there; of the others the reason is told."""
    from pytest_llmparity.core.errors import LLMParityError
    from pytest_llmparity.core.identity import lock
    from pytest_llmparity.run import locking
    from pytest_llmparity.run.session import secrets_of

    found = {}
    variables = secrets_of(session.settings.engines)
    for spec in session.settings.engines:
        try:
            adapter, identity = session.available(spec.name)
            locked = locking.entry(spec, identity, kind=adapter.kind, plugin=session.version, root=str(session.root))
            lock.refuse_private(spec.name, locked, session.mask, variables)
        except LLMParityError as error:
            _complain(printable_lines(str(error)), WRONG)
        else:
            found[spec.name] = locked
    return found


def _every_engine(asked: argparse.Namespace) -> bool:
    """Tell whether the command speaks of all the project has, so that what else stands in the lock is left over."""
    chosen = [asked.engines, asked.more, asked.profile]
    return not any(chosen) and not any(os.environ.get(f"LLMPARITY_{name}") for name in ("ENGINES", "PROFILE"))


def _tell(name: str, before: Locked | None, after: Locked | None, found: list[Difference] | None) -> None:
    state = "removed" if after is None else "new" if before is None else "changed" if found else "unchanged"
    if found and all(difference.untold for difference in found):
        state = "tells less than it did"
    print(f"{name}: {state}")
    if before is None and after is not None:
        for field, fact in after.identity.items():
            print(printable(f"  {field}: {fact.value} ({fact.source})"))
    for difference in found or ():
        print(printable(f"  {difference}"))


# serve ----------------------------------------------------------------------------------------------------------------


def _add_serve(commands: Any) -> None:
    does = "Start one engine as a run would, say where it is, and stop it at Ctrl-C."
    parser = _add_command(commands, "serve", does=does)
    parser.set_defaults(command=_serve, name="serve")


def _serve(asked: argparse.Namespace) -> int:
    from pytest_llmparity.core.errors import UsageError

    found = chosen(asked)
    if len(found.settings.engines) != 1:
        names = ", ".join(spec.name for spec in found.settings.engines)
        raise UsageError(f"serve starts one engine, and these are selected: {names}; name one of them")
    (spec,) = found.settings.engines
    if spec.launch != "process":
        where = spec.base_url or "its own address"
        raise UsageError(f"{spec.name} is not started by us, it is attached to at {where}; there is nothing to serve")
    # Not the handler of SIGINT: a shell's job in the background has that ignored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with serving(found) as session:
            print(f"{spec.name} is starting; its output goes to .llmparity/logs/{spec.name}.log", flush=True)
            print(*_served(session, spec), sep="\n", flush=True)
            while (why := session.gone(spec.name)) is None:
                time.sleep(GONE_S)
    except KeyboardInterrupt:
        print(f"{spec.name} was stopped")
        return OK
    return _complain(printable_lines(why), WRONG)


def _served(session: Session, spec: EngineSpec) -> Iterator[str]:
    """Start the engine; yield what it is and how to reach it."""
    adapter, identity = session.available(spec.name)
    names = ("version", "quantization", "context_length", "slots", "digest")
    facts = [f"{name} {identity.get(name)}" for name in names if identity.get(name) is not None]
    yield printable(f"{spec.name}: {', '.join([adapter.kind, *facts])}")
    yield printable(f"  base URL for clients of openai: {adapter.openai_base_url}")
    yield printable(f"  model: {adapter.model}")
    yield printable(f"  to attach a run to it: --engines {spec.name}={adapter.kind}:{adapter.model}@{adapter.base_url}")
    yield "  Ctrl-C stops it"
