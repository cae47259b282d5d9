"""``llmparity golden``: a stored run becomes golden answers; what there is, how it differs, and what nobody asks."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmparity.cli.verbs import add_rootdir, root_of, store_of
from pytest_llmparity.core.words.exits import OK, WRONG
from pytest_llmparity.core.words.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_llmparity.cli.verbs import Commands, Parser
    from pytest_llmparity.core.golden.records import Golden
    from pytest_llmparity.settings.given import Given
    from pytest_llmparity.store.runs import Store

NEWEST = "newest"
_RUN = "a run, as llmparity runs lists them, or the word newest"


def add(commands: Commands) -> None:
    """Add the verb to the command line."""
    does = "Golden answers: make them from a stored run, show them, compare them, remove what nobody asks any more."
    parser = commands.add_parser("golden", help=does, description=does)
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    made = _verb(verbs, "from", "Make the answers of a stored run golden; nobody is asked.")
    made.add_argument("run", metavar="RUN", help=_RUN)
    made.add_argument("engines", nargs="*", metavar="ENGINE", help="engines of the run (default: all that are live)")
    made.add_argument(
        "--update",
        choices=("missing", "changed", "all"),
        default="all",
        help="write cases that have no answer yet, those that answer otherwise as well, or all (default: all)",
    )
    _changes(made)
    made.set_defaults(command=_from, verb="from")

    shown = _verb(verbs, "show", "Show what golden answers there are.")
    shown.add_argument("engine", nargs="?", metavar="ENGINE", help="show its cases (default: a line for every file)")
    shown.add_argument("--set", metavar="SET", help="this prompt set alone")
    shown.add_argument("--case", metavar="ID", help="all that stands of this case")
    shown.set_defaults(command=_show)

    differing = _verb(verbs, "diff", "Show where golden answers differ from those of a run, or of another engine.")
    differing.add_argument("engine", metavar="ENGINE", help="whose golden answers")
    differing.add_argument(
        "other",
        nargs="?",
        default=NEWEST,
        metavar="RUN|ENGINE",
        help=f"{_RUN} (the default), or an engine with golden answers",
    )
    differing.add_argument("--set", metavar="SET", help="this prompt set alone")
    differing.set_defaults(command=_diff)

    pruned = _verb(verbs, "prune", "Remove the golden answers that no test of a run asks for, of the sets it asked.")
    pruned.add_argument("run", nargs="?", default=NEWEST, metavar="RUN", help=f"{_RUN} (the default)")
    pruned.add_argument("--sets", action="store_true", help="remove whole prompt sets as well that no test of it asks")
    pruned.add_argument("--dry-run", action="store_true", help="remove nothing, show it")
    _changes(pruned)
    pruned.set_defaults(command=_prune, verb="prune")


def _verb(verbs: Commands, name: str, does: str) -> Parser:
    parser = verbs.add_parser(name, help=does, description=does)
    add_rootdir(parser)
    return parser


def _changes(parser: argparse.ArgumentParser) -> None:
    """Add what a verb is given that changes golden answers."""
    parser.add_argument("--config", metavar="FILE", help="Configuration file, whose keys are looked for")
    parser.add_argument(
        "--in-ci",
        action="store_true",
        help="write where CI is set too, in a job that proposes the change to people",
    )


def _given(asked: argparse.Namespace, root: Path) -> Given:
    """Return what the command was given; ``UsageError`` where golden answers may not change now."""
    from pytest_llmparity.engines import registry
    from pytest_llmparity.settings.given import Given
    from pytest_llmparity.settings.given.contradictions import check_golden_verb
    from pytest_llmparity.settings.resolving import known

    registry.discover()
    named = {"config": asked.config, "update_golden_in_ci": asked.in_ci}
    given = Given(named.get, os.environ, root=root, cwd=Path.cwd(), prefix="--")
    frozen = known(given, kinds=registry.known()).frozen
    check_golden_verb(given, f"llmparity golden {asked.verb}", frozen=frozen, allowed="--in-ci")
    return given


def _from(asked: argparse.Namespace) -> int:
    from importlib import metadata

    from pytest_llmparity.core.golden.updating import Update
    from pytest_llmparity.core.words.masking import Mask
    from pytest_llmparity.engines import registry
    from pytest_llmparity.run.golden.requests import engines_in
    from pytest_llmparity.run.recording import writing
    from pytest_llmparity.settings.resolving import key_variables

    root = root_of(asked)
    given = _given(asked, root)
    configured = key_variables(given, kinds=registry.known())
    with store_of(root) as store:
        run = _run(store, asked.run)
        names = {*configured, *engines_in(store, run)[1]}
        wrote = writing.record(
            store,
            run,
            root=root,
            update=Update(asked.update),
            mask=Mask({name: value for name in names if (value := os.environ.get(name, "").strip())}),
            secrets=names,
            folders=writing.folders_of(root),
            only=asked.engines,
            plugin=metadata.version("pytest-llmparity"),
        )
    for written in wrote:
        print(f"{'wrote ' if written.renewed.wrote else ''}{written.sentence()}")
    return OK


def _show(asked: argparse.Namespace) -> int:
    from pytest_llmparity.core.errors import GoldenError
    from pytest_llmparity.core.words.nearest import nearest
    from pytest_llmparity.report import golden as report

    goldens = _read(root_of(asked), engine=asked.engine, prompt_set=asked.set)
    for line in report.overview(goldens):
        print(line)
    if asked.case is None:
        for golden in _each(goldens) if asked.engine else ():
            print("\n".join(report.cases(golden)))
        return OK
    lines = [
        (engine, prompt_set, line)
        for prompt_set, by_engine in goldens.items()
        for engine, golden in by_engine.items()
        for line in golden.lines.values()
        if line.id == asked.case
    ]
    if not lines:
        ids = [line.id for golden in _each(goldens) for line in golden.lines.values()]
        raise GoldenError(f"no golden answer has a case {printable(asked.case)}{nearest(asked.case, ids)}")
    for engine, prompt_set, of_case in lines:
        print("\n".join(report.whole(of_case, engine=engine, prompt_set=prompt_set)))
    return OK


def _diff(asked: argparse.Namespace) -> int:
    from pytest_llmparity.core.errors import GoldenError
    from pytest_llmparity.core.golden.updating import Update, renew
    from pytest_llmparity.report import golden as report
    from pytest_llmparity.run.recording import writing
    from pytest_llmparity.store.golden import files

    root = root_of(asked)
    ours = _read(root, engine=asked.engine, prompt_set=asked.set)
    theirs: dict[str, Golden] = {}
    if asked.other in files.listing(root):
        name = asked.other
        theirs = {
            prompt_set: by_engine[name] for prompt_set, by_engine in _read(root, engine=name, prompt_set=None).items()
        }
    else:
        with store_of(root) as store:
            name = _run(store, asked.other)
            whose = next(iter(_each(ours))).provenance.engine
            for made in writing.recordings(store, name, only=[whose]):
                new = renew(None, made.provenance, made.folded, update=Update.ALL).golden
                if new is not None:
                    theirs[made.prompt_set] = new
    differ, compared = False, False
    for prompt_set, by_engine in ours.items():
        if prompt_set not in theirs:
            print(printable(f"golden/{prompt_set}: {name} has no answers to it"))
            differ = True
            continue
        compared = True
        lines, differing = report.differences(by_engine[asked.engine], theirs[prompt_set], names=(asked.engine, name))
        print(printable(f"golden/{prompt_set}: {asked.engine} and {name}"))
        print("\n".join(lines))
        differ = differ or differing
    if not compared:
        raise GoldenError(f"nothing is compared: {name} has no answers to the sets of {asked.engine}")
    return WRONG if differ else OK


def _prune(asked: argparse.Namespace) -> int:
    from pytest_llmparity.run.recording import pruning

    root = root_of(asked)
    if not asked.dry_run:
        _given(asked, root)
    with store_of(root) as store:
        run = _run(store, asked.run)
        dropped = pruning.prune(store, run, root=root, write=not asked.dry_run)
        left_over = pruning.sets_left_over(store, run, root=root)
    does = "would remove" if asked.dry_run else "removed"
    for file, cases in dropped.items():
        print(printable(f"{does} from {file}: {', '.join(cases)}"))
    for prompt_set, engines in left_over.items():
        whole = f"golden/{prompt_set} ({', '.join(engines)})"
        if not asked.sets:
            print(printable(f"left {whole}: no test of run {run} asks this set; if none of another does, add --sets"))
            continue
        if not asked.dry_run:
            pruning.remove_set(root, prompt_set, engines)
        print(printable(f"{does} {whole}: no test asks this set"))
    if not dropped and not left_over:
        print(f"nothing to remove: run {run} asks all that is golden of its sets")
    return OK


def _read(root: Path, *, engine: str | None, prompt_set: str | None) -> dict[str, dict[str, Golden]]:
    """Return what there is by set and engine; ``GoldenError`` where that is nothing."""
    from pytest_llmparity.core.errors import GoldenError
    from pytest_llmparity.core.words.nearest import nearest
    from pytest_llmparity.settings.specification import GOLDEN
    from pytest_llmparity.store.golden import files

    goldens: dict[str, dict[str, Golden]] = {}
    listing = files.listing(root)
    for name, sets in listing.items():
        for each in sets:
            if engine in (None, name) and prompt_set in (None, each):
                golden = files.read(root, each, name)
                if golden is not None:
                    goldens.setdefault(each, {})[name] = golden
    if not goldens:
        of_engine = f" of {printable(engine)}" if engine else ""
        to_set = f" to {printable(prompt_set)}" if prompt_set else ""
        known = ", ".join(f"{name} ({', '.join(sets)})" for name, sets in listing.items())
        known_sets = {each for sets in listing.values() for each in sets}
        close = nearest(engine, listing) if engine and engine not in listing else nearest(prompt_set or "", known_sets)
        there = f"; there are: {known}" if known else ""
        raise GoldenError(
            f"there are no golden answers{of_engine}{to_set} in {root / GOLDEN}{close}{there}. Record them: "
            "pytest --engines ENGINE --parity-update-golden missing"
        )
    return dict(sorted(goldens.items()))


def _each(goldens: dict[str, dict[str, Golden]]) -> Iterator[Golden]:
    for by_engine in goldens.values():
        yield from by_engine.values()


def _run(store: Store, wanted: str) -> str:
    """Return the id of a run that is there; ``StoreError`` names those that are."""
    runs = store.runs()
    return runs[-1].id if wanted == NEWEST and runs else store.info(wanted).id
