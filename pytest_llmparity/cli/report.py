"""``llmparity report``: show a stored run again, write its reports, or say what changed from one run to another."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmparity.cli.verbs import add_rootdir, complain, root_of, store_of
from pytest_llmparity.core.words.exits import OK, REFUSED
from pytest_llmparity.core.words.printable import WIDTH, printable, uncommanded
from pytest_llmparity.settings.sources import FORMATS, OUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_llmparity.cli.verbs import Commands
    from pytest_llmparity.core.history.entries import Entry
    from pytest_llmparity.core.verdict import Verdict
    from pytest_llmparity.report.overview import Change
    from pytest_llmparity.run.judge.recorded import WholeRun

_NAMES = {"json": "run.json and samples.jsonl", "html": "one page", "md": "a text for a pull request"}


def add(commands: Commands) -> None:
    """Add the verb to the command line."""
    does = "Show a stored run again and write its reports, or say what changed between two; nobody is asked."
    parser = commands.add_parser("report", help=does, description=does)
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="One run, the shards of one, or two to compare (default: the newest that was judged)",
    )
    for name in FORMATS:
        parser.add_argument(f"--{name}", action="store_true", help=f"Write {_NAMES[name]}")
    parser.add_argument("--out", metavar="DIR", help=f"Folder for reports (default: {OUT} in the root)")
    parser.add_argument(
        "--comment",
        metavar="NAME",
        help="Write what the run came to into the pull request that a workflow of GitHub runs for: one comment of this "
        "name, which a later run changes. Takes the job's variables and GITHUB_TOKEN",
    )
    parser.add_argument("--instead", metavar="TEXT", help="With --comment: why there is no run; it is said instead")
    add_rootdir(parser)
    parser.set_defaults(command=_report, name="report")


def _report(asked: argparse.Namespace) -> int:
    from pytest_llmparity.core.errors import UsageError
    from pytest_llmparity.run.judge.history import up_to
    from pytest_llmparity.run.judge.recorded import newest_judged, stored

    formats = [name for name in FORMATS if getattr(asked, name)]
    root = root_of(asked)
    if asked.instead is not None:
        return _instead(asked.comment, asked.instead)
    runs = _merged(root, asked.runs)
    if len(runs) > 2:
        raise UsageError(f"one run is reported or two are compared, and there are {len(runs)}; shards are merged")
    if len(runs) == 2 and (formats or asked.comment):
        word = formats[0] if formats else "comment"
        raise UsageError(f"--{word} writes the report of one run; name one, or leave it out to compare two")
    with store_of(root) as store:
        runs = runs or [newest_judged(store)]
        stored_runs = [stored(store, run, root=root) for run in runs]
        if len(stored_runs) == 2:
            lines = _compared(stored_runs[0], stored_runs[1])
        else:
            whole = asked.html and not stored_runs[0].record.portion  # a part stands in no line with whole sets
            past = up_to(store, stored_runs[0].record, kept=None) if whole else []
            lines = _shown(stored_runs[0], formats, Path(asked.out).absolute() if asked.out else root / OUT, root, past)
    for line in map(uncommanded, lines):
        print(line)
    return OK if asked.comment is None else _comment(asked.comment, stored_runs[0], root)


def _comment(name: str, whole: WholeRun, root: Path) -> int:
    """Write the comment on a run, where there is a pull request."""
    from pytest_llmparity.report.workflow import comment
    from pytest_llmparity.transport.pulls import link_of

    link = link_of(os.environ)
    text = comment.of_run(whole.record, whole.samples, name=name, link=link, root=root, origin=whole.origin)
    return _put(name, text)


def _instead(name: str | None, why: str) -> int:
    """Write that there is no run, so that an earlier comment does not stand."""
    from pytest_llmparity.core.errors import UsageError
    from pytest_llmparity.report.workflow import comment
    from pytest_llmparity.transport.pulls import link_of

    if name is None:
        raise UsageError("--instead is what --comment says where there is no run; give both")
    return _put(name, comment.of_none(why, name=name, link=link_of(os.environ)))


def _put(name: str, text: str) -> int:
    from pytest_llmparity.report.workflow.comment import marked
    from pytest_llmparity.transport import pulls

    pull = pulls.pull_of(os.environ)
    if pull is None:
        print("no comment: this is no workflow of a pull request, or no token is in GITHUB_TOKEN")
        return OK
    try:
        print(printable(pulls.put(pull, marked(name), text)))
    except pulls.Refused as refused:
        if refused.status not in pulls.FORBIDDEN:
            return complain(printable(f"the comment could not be written: {refused}"), REFUSED)
        # So it is for the pull request of a fork, which is no failure of the run.
        print(printable(f"no comment: the token may not write one ({refused}); the step's summary has the same"))
    return OK


def _merged(root: Path, runs: Sequence[str]) -> list[str]:
    """Return the runs, the shards of one as the run that they are together: it is judged here."""
    from pytest_llmparity.cli.merge import judged, merged
    from pytest_llmparity.run.shards.merging import shards_of

    with store_of(root) as store:
        if not shards_of(store, runs):
            return list(runs)
    run = merged(root, runs)
    judged(root, run, more=["-q", "--no-summary"])
    return [run]


def _shown(whole: WholeRun, formats: Sequence[str], out: Path, root: Path, past: Sequence[Entry]) -> list[str]:
    from pytest_llmparity.report import files, terminal
    from pytest_llmparity.report.release import gate
    from pytest_llmparity.report.terminal.troubles import failed
    from pytest_llmparity.settings.root import as_typed

    columns = shutil.get_terminal_size((WIDTH, 24)).columns
    width, record = min(120, columns), whole.record
    lines = [*failed(record, width=width), *terminal.summary(record, width=width)]
    for decision in record.decisions:
        lines += ["", *gate.message(decision, whole, width=min(gate.WIDTH, columns))]
    written = files.write(formats, record, whole.samples, out, root=root, origin=whole.origin, history=past)
    return [*lines, *(printable(f"report: {as_typed(path, Path.cwd())}") for path in written)]


def _compared(before: WholeRun, after: WholeRun) -> list[str]:
    """Return what got worse, better, stayed open, and was only asked once, with both runs' numbers."""
    from pytest_llmparity.core.history.entries import entry_of
    from pytest_llmparity.core.words.explain import count
    from pytest_llmparity.core.words.nodeids import names_apart
    from pytest_llmparity.report import overview

    earlier, later = before.record, after.record
    origins = (entry_of(earlier).origins, entry_of(later).origins)
    changes = overview.changes(earlier.verdicts, later.verdicts, origins=origins)
    names = names_apart(verdict.test for verdict in (*earlier.verdicts, *later.verdicts))
    lines = [f"{before.record.run} to {after.record.run}"]
    if earlier.portion != later.portion:
        parts = (f"{record.run} asked {_part(record.portion)}" for record in (earlier, later))
        lines.append(f"{' and '.join(parts)}: what differs may be the prompts")
    for title, pairs in (("worse", changes.worse), ("better", changes.better), ("undecided", changes.undecided)):
        lines += [f"{title}:", *(f"  {_change(pair, names)}" for pair in pairs)] if pairs else []
    for run, verdicts in ((before.record.run, changes.gone), (after.record.run, changes.new)):
        lines += [f"only in {run}:", *(f"  {_named(verdict, names)}: {verdict.outcome}" for verdict in verdicts)]
        if not verdicts:
            lines.pop()
    lines.append(f"{count(changes.same, 'verdict')} decided alike")
    return [printable(line) for line in lines]


def _part(portion: str) -> str:
    return f"a part of the prompts ({portion})" if portion else "all prompts"


def _change(pair: Change, names: Mapping[str, str]) -> str:
    return f"{_named(pair.after, names)}: {_outcome(pair.before)} to {_outcome(pair.after)}"


def _named(verdict: Verdict, names: Mapping[str, str]) -> str:
    from pytest_llmparity.core.words.explain import pair

    return f"{names[verdict.test]}: {verdict.kind}, {pair(verdict)}"


def _outcome(verdict: Verdict) -> str:
    from pytest_llmparity.core.words.explain import bounds, number

    if verdict.estimate is None:
        return str(verdict.outcome)
    between = bounds(verdict)
    numbers = f"{number(verdict.estimate, verdict.unit)}{f', {between}' if between else ''}"
    return f"{verdict.outcome} ({numbers})"
