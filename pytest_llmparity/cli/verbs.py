"""What verbs share: how a command line is read, the options that select engines, and the session that runs them."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import uuid
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from pytest_llmparity.core.words.exits import OK, REFUSED, WRONG
from pytest_llmparity.core.words.printable import printable, printable_lines
from pytest_llmparity.extras import localised
from pytest_llmparity.settings.sources import ENGINES_VARIABLE, FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TypeAlias

    from pytest_llmparity.run.session import Session
    from pytest_llmparity.settings.given import Given
    from pytest_llmparity.settings.specification import Settings
    from pytest_llmparity.store.runs import Store

    Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


class _Paragraphs(argparse.HelpFormatter):
    """Help whose last words may be several paragraphs."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(super(_Paragraphs, self)._fill_text(part, width, indent) for part in text.split("\n\n"))


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes end with the code that all mistakes have, and name the nearest right word."""

    def __init__(self, **words: Any) -> None:
        super().__init__(**{"formatter_class": _Paragraphs, "allow_abbrev": False, **words})

    def verbs(self) -> list[Parser]:
        """Return what stands below this command: ``golden`` has ``from``, ``show``, …."""
        below = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        return [verb for action in below for verb in action.choices.values()]

    def error(self, message: str) -> NoReturn:
        """Say on stderr what is wrong, and end; gives nothing back."""
        self.print_usage(sys.stderr)
        self.exit(REFUSED, f"{self.prog}: error: {message}\n")

    def parse_known_args(  # type: ignore[override]  # typeshed has overloads for other kinds of namespace
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Return what was asked for; an option that is not known is told here, where those that are known are."""
        words = list(sys.argv[1:] if args is None else args)
        first = words[0].partition("=")[0] if words and self._subparsers is not None else ""
        if first.startswith("--") and first not in self._option_string_actions:
            self._refuse_unknown(words[:1])
        asked, unknown = super().parse_known_args(words, namespace)
        self._refuse_unknown(unknown)
        return asked, unknown

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        if not words:
            return
        from pytest_llmparity.core.words.nearest import nearest

        option = next((word.partition("=")[0] for word in words if word.startswith("-")), "")
        close = nearest(option, self._option_string_actions) if option.startswith("--") else ""
        self.error(f"unrecognized arguments: {' '.join(words)}{close}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            from pytest_llmparity.core.words.nearest import nearest

            known = [str(choice) for choice in action.choices]
            close = nearest(str(value), known) if isinstance(value, str) else ""
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}{close}; choose from {', '.join(known)}")


def complain(text: str, code: int) -> int:
    """Say on stderr what is wrong, and return the exit code given.

    What is to be installed is named here, for all verbs, as it can be installed on this machine.
    """
    print(f"llmparity: {printable_lines(localised(text))}", file=sys.stderr)
    return code


def tell_damaged(sentences: Sequence[str]) -> int:
    """Say behind a list which runs are not in it because they cannot be read; return the exit code of the list."""
    for sentence in sentences:
        complain(printable(sentence), WRONG)
    return WRONG if sentences else OK


def add_verb(commands: Commands, name: str, *, does: str, engines: str = "") -> Parser:
    """Add a verb that works on engines, with the options that select them; ``engines`` says which it takes."""
    parser = commands.add_parser(name, help=does, description=does)
    parser.add_argument(
        "engines",
        nargs="*",
        metavar="ENGINE",
        help=engines
        or f"as --engines of pytest takes them (default: ${ENGINES_VARIABLE}, else the profile's, else every "
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
    add_rootdir(parser)
    return parser


def add_rootdir(parser: Parser) -> None:
    """Add the option that names the project's root."""
    parser.add_argument(
        "--rootdir", metavar="DIR", help="The project's root (default: the one pytest finds from this folder)"
    )


def root_of(asked: argparse.Namespace) -> Path:
    """Return the project's root; raises ``core.errors.UsageError`` where ``--rootdir`` is no folder."""
    from pytest_llmparity.core.errors import UsageError
    from pytest_llmparity.settings.root import project_root

    if not asked.rootdir:
        return project_root(Path.cwd())
    root = Path(asked.rootdir).resolve()
    if not root.is_dir():
        raise UsageError(f"--rootdir: there is no folder {root}; name the one that has the project's configuration")
    return root


def store_of(root: Path, *, wanted: str = "") -> Store:
    """Open the project's store; raises ``core.errors.StoreError`` where no run was ever stored, also not ``wanted``."""
    from pytest_llmparity.core.errors import StoreError
    from pytest_llmparity.store.runs import FILE_NAME, Store

    folder = root / ".llmparity"
    if not (folder / FILE_NAME).exists():
        of_run = f"there is no run {wanted}: " if wanted else ""
        raise StoreError(f"{of_run}no run is stored in {folder}; --rootdir names another project")
    return Store.open(folder)


class Selection(NamedTuple):
    """What a command was asked for, as given and as it is in force."""

    given: Given
    settings: Settings


def selected(asked: argparse.Namespace, *, baseline: str | None = None, variants: str | None = None) -> Selection:
    """Resolve the engines a command was asked for; ``baseline`` is the one whatever the configuration says.

    ``variants`` of configured engines (``settings.variants``) may be among them. Raises ``core.errors.UsageError`` as
    pytest's own command line does, also where no engine is selected.
    """
    from pytest_llmparity.core.errors import EngineSelectionError
    from pytest_llmparity.run.session import settings_of
    from pytest_llmparity.settings.given import Given
    from pytest_llmparity.settings.selection import told_of

    root = root_of(asked)
    named = {
        "engines": [*asked.engines, *(asked.more or ())],
        "baseline": baseline,
        "profile": asked.profile,
        "config": asked.config,
        "variants": variants,
        "mode": ("live", None),
        "required": False,
        "frozen": False,
    }
    given = Given(named.get, os.environ, root=root, cwd=Path.cwd(), prefix="--")
    with told_of(named_by(asked)):
        in_force = settings_of(given, otherwise_all=True)
    if not in_force.engines:
        place = f"put one into {FILE} there" if (root / FILE).is_file() else f"let llmparity init write {FILE}"
        raise EngineSelectionError(
            f"no engine is named and none is configured in {root}; name one, such as llmparity {asked.name} "
            f"http://127.0.0.1:8080, or {place}"
        )
    return Selection(given, in_force)


_ARGUMENT: Final = "ENGINE"


def named_by(asked: argparse.Namespace) -> str:
    """Return what gave a command its engines, as messages name it: what it is called with, or ``--engines``."""
    return _ARGUMENT if asked.engines else "--engines"


@contextlib.contextmanager
def told_by_options(engines: Mapping[str, str]) -> Iterator[None]:
    """Let an error of :func:`selected` name the option that gave the engine; ``engines`` has by option its text."""
    from pytest_llmparity.core.errors import EngineSelectionError

    try:
        yield
    except EngineSelectionError as error:
        lines = [_of_option(line, engines) for line in str(error).split("\n")]
        raise EngineSelectionError("\n".join(lines)) from None


def _of_option(line: str, engines: Mapping[str, str]) -> str:
    """Return a sentence with the option of the engine it begins with: others may be mentioned, as the nearest name."""
    from pytest_llmparity.settings.selection import parse_engines

    argument, colon, sentence = line.partition(": ")
    if argument != _ARGUMENT or not colon:
        return line
    for option, text in engines.items():
        (entry,) = parse_engines([text])
        beginnings = (
            *(f"{entry.text!r}", f"unknown engine {entry.text!r}", f"{entry.name} (", f"{entry.name}: "),
            *(f"there are no golden answers of {entry.golden!r}", f"there is no recording {entry.recording!r}"),
        )
        if sentence.startswith(beginnings):
            return f"{option}: {sentence}"
    return f"{' and '.join(engines)}: {sentence}"


def serving(selection: Selection, *, stored: Path | None = None) -> contextlib.AbstractContextManager[Session]:
    """Return a context that gives the session which starts or attaches these engines, and stops them at its end.

    What it gathers is kept in ``stored``, where that is given, instead of the project's own store.
    """
    return serving_as(selection.settings, root=selection.given.root, stored=stored)


@contextlib.contextmanager
def serving_as(settings: Settings, *, root: Path, stored: Path | None = None) -> Iterator[Session]:
    """Yield the session of settings that no command line named. Who watches a terminal sees how far it is."""
    from pytest_llmparity.keeper.client import Keeper
    from pytest_llmparity.report.progress import Bars, Lines
    from pytest_llmparity.run.session import Session

    session = Session(
        settings,
        root=root,
        token=uuid.uuid4().hex,
        keeper=lambda: Keeper.spawn(root / ".llmparity"),
        version=metadata.version("pytest-llmparity"),
        progress=(Bars if sys.stderr.isatty() else Lines)(sys.stderr, contextlib.nullcontext),
        stored=stored,
    )
    try:
        yield session
    finally:
        session.close()
