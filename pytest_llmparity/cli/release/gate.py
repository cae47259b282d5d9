"""``llmparity gate``: run a suite, hold what it came to against a policy, and say whether to ship."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_llmparity.cli.verbs import add_rootdir, complain, root_of, selected, store_of, told_by_options
from pytest_llmparity.core.gate import PLUGIN, RUN_OPTION
from pytest_llmparity.core.words.exits import OF_DECISION, OK, REFUSED
from pytest_llmparity.core.words.printable import printable, uncommanded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import IO

    from pytest_llmparity.cli.verbs import Commands, Parser
    from pytest_llmparity.core.gate.policy import Policy
    from pytest_llmparity.run.judge.decided import Decided

NEWEST: Final = "newest"
_HISTORY: Final = 10
_PARTLY: Final = ("--parity-tag", "--parity-sample", "--parity-case")
"""Options that choose prompts, so that what is judged is not the suite."""
_FAILED: Final = 1
"""pytest's exit code where tests failed; 0 and this one come with verdicts."""


def add(commands: Commands) -> None:
    """Add the verb to the command line."""
    does = "Run a suite and decide by a policy whether a candidate may replace a baseline: SHIP, HOLD or INCONCLUSIVE."
    parser = commands.add_parser("gate", help=does, description=does)
    parser.add_argument("--baseline", metavar="ENGINE", help="What is in use: golden:NAME, or an engine as --engines")
    parser.add_argument("--candidate", metavar="ENGINE", help="What may replace it")
    add_suite(parser)
    parser.add_argument(
        "--run", metavar="RUN", help=f"Decide on a stored run and ask nobody; RUN as llmparity runs, or {NEWEST}"
    )
    parser.add_argument("--json", metavar="FILE", help="Write the decision as JSON too")
    parser.add_argument(
        "--history",
        nargs="?",
        const=_HISTORY,
        type=int,
        metavar="N",
        help=f"Show the last decisions (default: {_HISTORY}) and decide nothing",
    )
    add_project(parser)
    parser.set_defaults(command=_gate, name="gate")


def add_suite(parser: Parser) -> None:
    """Add the options that say what is run, and by which policy it is decided."""
    parser.add_argument(
        "--suite",
        action="append",
        default=[],
        metavar="PATH",
        help="Tests to run, as pytest takes them; may be repeated (default: what pytest runs without arguments)",
    )
    parser.add_argument("--policy", metavar="FILE", help="What is required and what advisory (default: all required)")


def add_project(parser: Parser) -> None:
    """Add the options that name the project and its configuration, and what is left to pytest."""
    parser.add_argument("--profile", metavar="NAME", help="Profile of the configuration to use (default: none)")
    parser.add_argument("--config", metavar="FILE", help="Configuration file")
    add_rootdir(parser)
    parser.add_argument("more", nargs="*", metavar="-- ARGUMENT", help="Further arguments for pytest, behind --")


def _gate(asked: argparse.Namespace) -> int:
    root = root_of(asked)
    if asked.history is not None:
        return _history(root, asked.history)
    policy = policy_of(asked.policy)
    refuse_unwritable(asked.json)
    run, baseline, candidate = _stored(asked) if asked.run else _run(asked)
    if run is None:
        return REFUSED
    decided = decision_on(root, run, policy, baseline, candidate)
    return _tell(decided, root, asked)


def policy_of(file: str | None) -> Policy:
    """Return the policy in a file, or the one that is in force without any; raises ``ConfigError``."""
    from pytest_llmparity.core.gate.policy import Policy
    from pytest_llmparity.settings.given.contradictions import read_policy

    return Policy() if file is None else read_policy(Path(file), source=file, named_by="--policy")


def refuse_unwritable(file: str | None) -> None:
    """Raise ``UsageError`` where ``--json`` names no file in a folder that is there."""
    from pytest_llmparity.core.errors import UsageError

    if file is not None and (Path(file).is_dir() or not Path(file).absolute().parent.is_dir()):
        raise UsageError(f"--json: {file} names no file in a folder that is there")


def _stored(asked: argparse.Namespace) -> tuple[str, str | None, str | None]:
    """Return the stored run that is named, and the names of the two engines as far as they are given."""
    from pytest_llmparity.core.errors import UsageError

    if asked.suite or asked.more:
        raise UsageError("--run decides on answers that are stored; leave --suite and arguments of pytest out")
    names = [None if text is None else name_of(text, option) for option, text in _two(asked)]
    return asked.run, names[0], names[1]


def _two(asked: argparse.Namespace) -> Iterator[tuple[str, str | None]]:
    yield "--baseline", asked.baseline
    yield "--candidate", asked.candidate


def name_of(text: str, option: str) -> str:
    """Return the name in the run of the one engine that an option gives."""
    from pytest_llmparity.core.errors import EngineSelectionError
    from pytest_llmparity.settings.selection import parse_engines

    try:
        entries = parse_engines([text])
    except EngineSelectionError as error:
        raise EngineSelectionError(str(error).replace("--engines", option, 1)) from None
    if len(entries) != 1:
        raise EngineSelectionError(f"{option} takes one engine, not {len(entries)}")
    return entries[0].name


def _run(asked: argparse.Namespace) -> tuple[str | None, str | None, str | None]:
    """Run the suite on both engines in a pytest of its own; return its run, ``None`` where it came to none."""
    from pytest_llmparity.core.errors import EngineSelectionError, UsageError
    from pytest_llmparity.settings.selection import without_name

    for option, text in _two(asked):
        if text is None:
            raise UsageError(f"{option} is missing; name both engines, or a stored run with --run")
    refuse_missing(asked.suite)
    refuse_partial(asked.more)
    baseline, candidate = (name_of(text, option) for option, text in _two(asked) if text is not None)
    if baseline == candidate:
        raise EngineSelectionError(
            f"--baseline and --candidate are both named {candidate!r}; put another name before one of them: "
            f"NAME={without_name(asked.candidate)}"
        )
    both = argparse.Namespace(**{**vars(asked), "engines": [asked.baseline, asked.candidate], "more": None})
    with told_by_options({"--baseline": asked.baseline, "--candidate": asked.candidate}):
        selected(both, baseline=baseline)  # what is wrong with them is told before pytest starts
    code, run = run_suite(asked, f"{asked.baseline},{asked.candidate}", baseline=baseline)
    if why := came_to_nothing(code, run):
        complain(f"{why}, so nothing is decided", REFUSED)
        return None, None, None
    return run, baseline, candidate


def refuse_missing(suite: Sequence[str]) -> None:
    """Raise ``UsageError`` for a path of the suite that is not there."""
    from pytest_llmparity.core.errors import UsageError

    if missing := [path for path in suite if not Path(path.partition("::")[0]).exists()]:
        raise UsageError(f"--suite: there is no {missing[0]}")


def refuse_partial(more: Sequence[str]) -> None:
    """Raise ``UsageError`` where arguments for pytest leave prompts out: of these nothing could be said.

    Where the suite's own ``addopts`` hold them, the pytest that is started refuses them.
    """
    from pytest_llmparity.core.errors import UsageError

    given = {word.partition("=")[0] for word in more}
    if "--parity-shard" in given:
        raise UsageError(
            "--parity-shard gathers a share of the cases and judges nothing: gather the shards with pytest, put them "
            "together (llmparity merge), and decide on that run (llmparity gate --run newest)"
        )
    if option := next((option for option in _PARTLY if option in given), ""):
        raise UsageError(
            f"a decision is about whole runs, and {option} leaves prompts out of this one; take it out of what stands "
            "behind --. What a part of the prompts says is shown by pytest itself, without a decision"
        )


def came_to_nothing(code: int, run: str) -> str:
    """Say why there is nothing to decide on after a pytest, empty where there is."""
    if code not in (OK, _FAILED):
        return f"pytest ended with exit code {code}"
    return "" if run else "no test of the suite asked the engines anything"


def run_suite(
    asked: argparse.Namespace, engines: str, *, baseline: str, words: Sequence[str] = (), out: IO[bytes] | None = None
) -> tuple[int, str]:
    """Run the suite on ``engines`` in a pytest of its own; return its exit code and its run, empty where it has none.

    ``words`` are further arguments of it. What it prints goes to ``out``, else where our own output goes.
    """
    with tempfile.TemporaryDirectory(prefix="llmparity-") as folder:
        named = Path(folder) / "run"
        command = [sys.executable, "-m", "pytest", "-p", PLUGIN, RUN_OPTION, str(named)]
        command += ["--engines", engines, "--parity-baseline", baseline]
        command += ["--parity-mode", "live", "--parity-inconclusive", "show"]
        for option, value in (
            ("--parity-policy", asked.policy),
            ("--parity-profile", asked.profile),
            ("--parity-config", asked.config),
            ("--rootdir", asked.rootdir),
        ):
            command += [] if value is None else [option, value]
        code = run_pytest([*command, *words, *asked.more, *asked.suite], out)
        return code, named.read_text("utf-8") if named.exists() else ""


def run_pytest(command: Sequence[str], out: IO[bytes] | None = None, *, env: Mapping[str, str] | None = None) -> int:
    """Return the exit code of pytest, run with all its output to ``out``, else to where ours goes.

    ``env`` is its environment (default: ours). One that is interrupted stops its engines first.
    """
    sys.stdout.flush()
    child = subprocess.Popen(command, stdout=out, stderr=None if out is None else subprocess.STDOUT, env=env)

    def stop(number: int, frame: object) -> None:
        child.send_signal(signal.SIGINT)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.wait()  # it was told by us, or by the terminal as we were
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def decision_on(root: Path, run: str, policy: Policy, baseline: str | None, candidate: str | None) -> Decided:
    """Return the decision that a policy comes to on a stored run; raises as ``run.judge.decided.decided`` does."""
    from pytest_llmparity.core.errors import ConfigError
    from pytest_llmparity.run.judge.decided import OtherLimits, decided
    from pytest_llmparity.run.judge.recorded import newest_judged

    with store_of(root) as store:
        if run == NEWEST:
            run = newest_judged(store)
        try:
            return decided(store, run, policy, root=root, baseline=baseline, candidate=candidate)
        except OtherLimits:
            raise
        except ConfigError as error:
            again = f"llmparity gate --run {run} --policy {policy.source}"
            if policy.limits:  # with another one the run has to be judged again, which this verb never does
                again += (
                    f"; where that changes a limit: pytest --parity-mode replay={run} --parity-policy {policy.source}"
                )
            raise ConfigError(f"{error}\nput it right, and decide without asking anybody: {again}") from None


def _tell(decided: Decided, root: Path, asked: argparse.Namespace) -> int:
    from pytest_llmparity.core.errors import LLMParityError
    from pytest_llmparity.report.release import gate, kept
    from pytest_llmparity.report.workflow import github
    from pytest_llmparity.store import decisions
    from pytest_llmparity.store.whole import replace

    now = datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")
    record = kept.record(decided.decision, decided.whole, decided=now, suite=asked.suite, root=root)
    width = min(gate.WIDTH, shutil.get_terminal_size((gate.WIDTH, 24)).columns)
    lines = gate.message(kept.kept(decided.decision), decided.whole, width=width)
    try:
        decisions.append(root / ".llmparity", record)
        github.add_decision(gate.shared(lines, decided.whole, root=root), os.environ)
        if asked.json is not None:
            replace(Path(asked.json), [json.dumps(record, indent=1, allow_nan=False), "\n"])
    except (LLMParityError, OSError) as error:
        _print(lines)
        return complain(printable(f"the decision could not be kept, so it counts as none: {error}"), REFUSED)
    _print(lines)  # behind what is kept: who reads it may stop reading
    return OF_DECISION[decided.decision.outcome]


def _print(lines: Sequence[str]) -> None:
    print()
    print(*map(uncommanded, lines), sep="\n")


def _history(root: Path, count: int) -> int:
    from pytest_llmparity.core.errors import UsageError
    from pytest_llmparity.report.release import gate
    from pytest_llmparity.store import decisions

    if count < 1:
        raise UsageError("--history takes how many decisions to show, at least 1")
    folder = root / ".llmparity"
    lines = gate.history(decisions.newest(folder, count))
    print(*(lines or [printable(f"no decision is stored in {folder}")]), sep="\n")
    return OK
