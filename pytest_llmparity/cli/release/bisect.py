"""``llmparity bisect``: gate versions of one engine until the first that no longer passes is known."""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_llmparity.cli.release.gate import (
    add_project,
    add_suite,
    came_to_nothing,
    decision_on,
    name_of,
    policy_of,
    refuse_missing,
    refuse_partial,
    refuse_unwritable,
    run_suite,
)
from pytest_llmparity.cli.verbs import complain, root_of, selected, told_by_options
from pytest_llmparity.core.gate import JUDGED_OPTION, VARIANTS_OPTION
from pytest_llmparity.core.words.exits import OF_DECISION, REFUSED
from pytest_llmparity.core.words.printable import printable, uncommanded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from pytest_llmparity.cli.verbs import Commands
    from pytest_llmparity.core.gate.bisecting import Search, Stands
    from pytest_llmparity.core.gate.policy import Policy
    from pytest_llmparity.core.identity.lock import Difference
    from pytest_llmparity.report.release.bisect import Version
    from pytest_llmparity.run.judge.decided import Decided
    from pytest_llmparity.settings.configuration import Config
    from pytest_llmparity.settings.variants import Variant

_LAST_LINES: Final = 12
"""Lines of a pytest that came to no decision which are shown; all of them are in its log."""
_OF_RUNS: Final = ("--parity-fresh", "--parity-resume", "--parity-retry-failed")


def add(commands: Commands) -> None:
    """Add the verb to the command line."""
    does = "Gate versions of one engine, as few as it takes, and name the first that no longer passes."
    parser = commands.add_parser("bisect", help=does, description=does)
    parser.add_argument("--engine", metavar="NAME", required=True, help="The configured engine that has versions")
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument(
        "--versions",
        action="append",
        metavar="V[,V...]",
        help="Versions of the package that the engine's requires names, the oldest first",
    )
    sources.add_argument("--models", action="append", metavar="FILE[,FILE...]", help="Files, or names, of its model")
    sources.add_argument("--revisions", action="append", metavar="REV[,REV...]", help="Revisions of its model")
    sources.add_argument(
        "--images", action="append", metavar="TAG[,TAG...]", help="Tags or digests of its image, or whole images"
    )
    sources.add_argument(
        "--versions-from",
        metavar="FILE",
        help="TOML file of NAME = { key = value } lines: keys of the engine that are others in that version",
    )
    parser.add_argument(
        "--baseline",
        metavar="ENGINE",
        help="What versions are held against: golden:NAME, or an engine as --engines (default: the configured "
        "baseline, else the first version)",
    )
    parser.add_argument("--good", metavar="VERSION", help="A version that is known to pass; none before it is gated")
    parser.add_argument("--bad", metavar="VERSION", help="One that is known not to pass; none after it is gated")
    add_suite(parser)
    parser.add_argument("--json", metavar="FILE", help="Write what the search came to as JSON too")
    parser.add_argument("--fresh", action="store_true", help="Ask again what is stored of an earlier gate")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="Show what pytest prints (default: it is in a log)"
    )
    add_project(parser)
    parser.set_defaults(command=_bisect, name="bisect")


class Job(NamedTuple):
    """What is searched: variants of an engine, the oldest first, against a baseline, as ``--engines`` takes it."""

    engine: str
    variants: Sequence[Variant]
    baseline: str
    against: str
    known: Mapping[int, Stands]


def _bisect(asked: argparse.Namespace) -> int:
    from pytest_llmparity.report.release import bisect
    from pytest_llmparity.store.whole import replace

    root, policy = root_of(asked), policy_of(asked.policy)
    refuse_unwritable(asked.json)
    job = _job(asked, root)
    search, versions = searched(job, lambda variant: _gate(asked, job, variant, root, policy), asked=asked)
    changed = _changed(root, job.engine, search, versions)
    print()
    lines = bisect.message(job.engine, versions, search, changed=changed, width=_width())
    print(*map(uncommanded, lines), sep="\n")
    if asked.json is not None:
        record = bisect.record(
            job.engine, versions, search, baseline=job.against, outcome=outcome(search), changed=changed, root=root
        )
        try:
            replace(Path(asked.json), [json.dumps(record, indent=1, allow_nan=False), "\n"])
        except OSError as error:
            return complain(printable(f"--json: {asked.json} could not be written: {error.strerror}"), REFUSED)
    return OF_DECISION[outcome(search)]


def _width() -> int:
    from pytest_llmparity.report.release.bisect import WIDTH

    return min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)


def outcome(search: Search) -> str:
    """Return what the search comes to, in the words of a gate."""
    from pytest_llmparity.core.gate.bisecting import Stands

    if search.bad is not None:
        return "HOLD" if len(search.among) == 1 else "INCONCLUSIVE"
    return "SHIP" if search.known.get(search.count - 1) is Stands.GOOD else "INCONCLUSIVE"


def searched(
    job: Job, gate: Callable[[Variant], Decided], *, asked: argparse.Namespace
) -> tuple[Search, list[Version]]:
    """Gate what has to be gated, telling about each; return how far that came and what is known of each version."""
    import dataclasses

    from pytest_llmparity.core.gate.bisecting import Search, stands
    from pytest_llmparity.report.release.bisect import Version, announcement, gated

    versions = [
        Version(label=variant.label, keys=variant.keys, stands=job.known.get(place), told=place in job.known)
        for place, variant in enumerate(job.variants)
    ]
    search = Search(count=len(versions), known=dict(job.known))
    labels = [version.label for version in versions]
    before = announcement(job.engine, labels, search, baseline=job.against, stored=not asked.fresh, width=_width())
    print(*map(uncommanded, before), sep="\n", flush=True)
    most, gates = search.most, 0
    while (place := search.next) is not None:
        gates += 1
        of = f" of at most {most}" if gates <= most else ""
        print(uncommanded(printable(f"gate {gates}{of}: {labels[place]}")), flush=True)
        decided = gate(job.variants[place])
        how = stands(decided.decision)
        versions[place] = dataclasses.replace(versions[place], stands=how, decided=decided)
        search = Search(count=search.count, known={**search.known, place: how})
        print(uncommanded(f"  {gated(versions[place])}"), flush=True)
    return search, versions


# what is asked for ----------------------------------------------------------------------------------------------------


def _job(asked: argparse.Namespace, root: Path) -> Job:
    """Read everything that is asked for; whatever cannot be used is an error here, before anybody is started."""
    from pytest_llmparity.core.errors import ConfigError, EngineSelectionError, UsageError
    from pytest_llmparity.core.words.explain import count
    from pytest_llmparity.core.words.nearest import nearest
    from pytest_llmparity.engines import registry
    from pytest_llmparity.settings.given import Given
    from pytest_llmparity.settings.resolving import known
    from pytest_llmparity.settings.variants import to_text
    from pytest_llmparity.settings.versions import named

    refuse_missing(asked.suite)
    refuse_partial(asked.more)
    if mine := [word for word in asked.more if word in _OF_RUNS]:
        raise UsageError(f"{mine[0]} is for one run, and bisect makes several; --fresh asks again what is stored")
    registry.discover()
    given = Given(
        {"profile": asked.profile, "config": asked.config}.get, os.environ, root=root, cwd=Path.cwd(), prefix="--"
    )
    project = known(given, kinds=registry.known())
    if project.frozen:
        raise ConfigError(
            "this project is frozen (a profile or LLMPARITY_FROZEN says so): engines that are not as llmparity.lock "
            "says are refused, and all versions but one are; choose another profile, or set LLMPARITY_FROZEN=0"
        )
    config = project.config
    if config is None or asked.engine not in config.engines:
        names = [] if config is None else list(config.engines)
        raise EngineSelectionError(
            f"--engine: no engine {asked.engine!r} is configured{nearest(asked.engine, names)}; "
            f"{'configured: ' + (', '.join(names) or 'none') if config else project.looked}"
        )
    values = _values(asked, config, root)
    if len(values) < 2:
        raise UsageError(
            f"{_source(asked)} names {count(len(values), 'version')}, and a search needs two: one that passes and one "
            "that may not; llmparity gate decides about one"
        )
    variants = named(asked.engine, values, config.engines)
    variants, stands = _told(asked, variants)
    default = project.baseline if project.baseline != asked.engine else None
    baseline = asked.baseline or default or variants[0].name
    if baseline == asked.engine:  # as it is configured, beside its versions, which have its name in a run
        baseline = f"{asked.engine}-configured={asked.engine}"
    against = name_of(baseline, "--baseline")
    for variant in variants:
        both = [baseline, f"{asked.engine}={variant.name}"]
        picked = argparse.Namespace(**{**vars(asked), "engines": both, "more": None})
        with told_by_options({"--baseline" if asked.baseline else "the baseline": baseline, "--engine": both[1]}):
            selected(picked, baseline=against, variants=to_text([variants[0], variant]))
    shown = f"{variants[0].label}, the first of them" if baseline == variants[0].name else against
    return Job(engine=asked.engine, variants=variants, baseline=baseline, against=shown, known=stands)


def _source(asked: argparse.Namespace) -> str:
    option = next(
        name for name in ("versions", "models", "revisions", "images", "versions_from") if getattr(asked, name)
    )
    return f"--{option.replace('_', '-')}"


def _values(asked: argparse.Namespace, config: Config, root: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return by version, in their order, the keys that make it one."""
    from pytest_llmparity.core.errors import UsageError
    from pytest_llmparity.engines import registry
    from pytest_llmparity.settings.versions import of_images, of_versions, read_versions

    engine, table = asked.engine, config.engines[asked.engine]
    if asked.versions_from is not None:
        try:
            content = Path(asked.versions_from).read_bytes()
        except OSError as error:
            raise UsageError(f"--versions-from: {asked.versions_from} cannot be read: {error.strerror}") from None
        written = config.written[engine]
        return read_versions(content, written, engine=engine, source=asked.versions_from, kinds=registry.known())
    option = _source(asked)
    texts = [part.strip() for value in getattr(asked, option[2:]) for part in value.split(",")]
    if "" in texts:
        raise UsageError(f"{option} has an empty entry; write versions separated by one comma")
    if twice := [text for text, times in Counter(texts).items() if times > 1]:
        raise UsageError(f"{option}: {twice[0]} is named twice; name each version once")
    if asked.versions:
        packages = registry.adapter_for(table.kind).distributions if table.kind else ()
        return of_versions(texts, table.requires, engine=engine, packages=packages)
    if asked.images:
        return of_images(texts, table.image, engine=engine)
    if asked.revisions:
        return {text: {"revision": text} for text in texts}
    return {text: {"model": _model(text, root)} for text in texts}


def _model(text: str, root: Path) -> str:
    """Return a model as the configuration takes it: a file by its whole path, what is none as it is."""
    from pytest_llmparity.core.errors import UsageError
    from pytest_llmparity.settings.selection import is_path

    for folder in (Path.cwd(), root):
        path = folder / Path(text).expanduser()
        if path.exists():
            return str(path.resolve())
    if is_path(text):
        folders = " and in ".join(str(folder) for folder in dict.fromkeys((Path.cwd(), root)))
        raise UsageError(f"--models: {text} is not there; looked in {folders}")
    return text


def _told(asked: argparse.Namespace, variants: Sequence[Variant]) -> tuple[list[Variant], dict[int, Stands]]:
    """Return the versions that are left to search, and how those at their ends stand as far as the person says."""
    from pytest_llmparity.core.errors import UsageError
    from pytest_llmparity.core.gate.bisecting import Stands
    from pytest_llmparity.core.words.nearest import nearest

    labels = [variant.label for variant in variants]
    for option in ("good", "bad"):
        named = getattr(asked, option)
        if named is not None and named not in labels:
            close = nearest(named, labels)
            raise UsageError(f"--{option}: {named} is none of the versions{close}: {', '.join(labels)}")
    first = 0 if asked.good is None else labels.index(asked.good)
    last = len(labels) - 1 if asked.bad is None else labels.index(asked.bad)
    if first >= last:
        raise UsageError(
            f"nothing is left between {labels[first]} and {labels[last]}: versions stand with the oldest first, so "
            "--good names one before the last, and --bad one after that"
        )
    stands = ({} if asked.good is None else {0: Stands.GOOD}) | (
        {} if asked.bad is None else {last - first: Stands.BAD}
    )
    return list(variants[first : last + 1]), stands


# one gate -------------------------------------------------------------------------------------------------------------


def _gate(asked: argparse.Namespace, job: Job, variant: Variant, root: Path, policy: Policy) -> Decided:
    """Gate one version, and once more where that may ask what it did not; keep and return the decision."""
    from pytest_llmparity.report.release import kept
    from pytest_llmparity.store import decisions

    once = functools.partial(_once, asked, job, variant, root, policy)
    first = once("--parity-fresh" if asked.fresh else JUDGED_OPTION)
    decided = completed(first, once, may_ask_more=functools.partial(_may_ask_more, root))
    _refuse_without_baseline(decided, job)
    now = datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")
    record = kept.record(decided.decision, decided.whole, decided=now, suite=asked.suite, root=root)
    decisions.append(root / ".llmparity", record)
    return decided


def completed(decided: Decided, once: Callable[[str], Decided], *, may_ask_more: Callable[[Decided], bool]) -> Decided:
    """Return what a gate decided, where it stays open and may ask more what it decides when it is made once more."""
    from pytest_llmparity.core.gate.bisecting import Stands, stands

    if stands(decided.decision) is Stands.OPEN and may_ask_more(decided):
        return once("--parity-retry-failed")
    return decided


def _once(asked: argparse.Namespace, job: Job, variant: Variant, root: Path, policy: Policy, how: str) -> Decided:
    from pytest_llmparity.core.errors import UsageError
    from pytest_llmparity.settings.variants import to_text
    from pytest_llmparity.store.folder import local_folder

    against = name_of(job.baseline, "--baseline")
    first = [job.variants[0]] if job.baseline == job.variants[0].name else []
    words = [VARIANTS_OPTION, to_text([*first, variant]), how, "--parity-explain-requests", "0"]
    engines = f"{job.baseline},{job.engine}={variant.name}"
    log = local_folder(root / ".llmparity") / "logs" / f"bisect-{variant.name}.log"
    if asked.verbose:
        code, run = run_suite(asked, engines, baseline=against, words=words)
    else:
        log.parent.mkdir(exist_ok=True)
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            code, run = run_suite(asked, engines, baseline=against, words=words, out=out)
    if why := came_to_nothing(code, run):
        raise UsageError(f"{variant.label}: {why}, so the search ends{'' if asked.verbose else _end_of(log)}")
    return decision_on(root, run, policy, against, job.engine)


def _end_of(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").rstrip().splitlines()[-_LAST_LINES:]
    return "\n".join([f"; its output {log} ends:", *(f"  {uncommanded(line)}" for line in lines)])


def _refuse_without_baseline(decided: Decided, job: Job) -> None:
    """Raise ``UsageError`` where the baseline cannot be used or fails a test by itself: every gate would stay open."""
    from pytest_llmparity.core.errors import UsageError
    from pytest_llmparity.core.gate.policy import Ruled

    engines = {engine.name: engine for engine in decided.whole.record.engines}
    if why := engines[decided.decision.baseline].unusable:
        raise UsageError(f"versions are held against {job.against}, which cannot be used, so the search ends: {why}")
    alone = [test for test in decided.decision.broken if test.level == "required" and test.ruled is Ruled.INCONCLUSIVE]
    if alone:
        raise UsageError(
            f"{alone[0].test} fails on {job.against} alone, so no version can pass and the search ends: "
            f"{alone[0].why}; put the test right, or make it advisory (--policy)"
        )


def _may_ask_more(root: Path, decided: Decided) -> bool:
    """Whether an open decision rests on a run that can ask more: a limit stopped it, or answers did not come."""
    from pytest_llmparity.run.ledger import read_state
    from pytest_llmparity.store.runs import Store

    with Store.open(root / ".llmparity") as store:
        state = read_state(store, decided.whole.record.run)
    return state is not None and (state.incomplete is not None or bool(decided.whole.record.failures))


def _changed(root: Path, engine: str, search: Search, versions: Sequence[Version]) -> list[Difference]:
    """Return in what the last good version and the first bad one differ, where both were gated and are neighbours."""
    from pytest_llmparity.run.judge.decided import changed_between
    from pytest_llmparity.store.runs import Store

    if search.good is None or search.bad is None or len(search.among) != 1:
        return []
    runs = [versions[place].run for place in (search.good, search.bad)]
    if not all(runs):
        return []
    with Store.open(root / ".llmparity") as store:
        return changed_between(store, runs[0], runs[1], engine)
