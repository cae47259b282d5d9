"""``llmparity record``: what an engine answers, with the time of every chunk, becomes a file that can be played."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_llmparity.cli.release.gate import run_pytest
from pytest_llmparity.cli.verbs import add_rootdir, complain, root_of, selected, serving
from pytest_llmparity.core.gate import PLUGIN, RECORDER_OPTION, RUN_OPTION
from pytest_llmparity.core.words.exits import OK, REFUSED

if TYPE_CHECKING:
    from pytest_llmparity.cli.verbs import Commands
    from pytest_llmparity.core.evidence import Check
    from pytest_llmparity.core.recording import Recorded
    from pytest_llmparity.settings.specification import EngineSpec, Settings

TEST: Final = "llmparity record"
"""What the asking is called where a test's name would stand."""
_QUANTILE: Final = 0.5
"""Of the timed phase of ``--prompts``: the one that needs the fewest requests."""
_FAILED: Final = 1
"""pytest's exit code where tests failed; 0 and this one come with answers."""


def add(commands: Commands) -> None:
    """Add the verb to the command line."""
    does = "Record what an engine answers, with the time of every chunk, to be played by --engines replay:NAME."
    parser = commands.add_parser("record", help=does, description=does)
    parser.add_argument("engine", metavar="ENGINE", help="As --engines of pytest takes it")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--suite",
        action="append",
        default=[],
        metavar="PATH",
        help="Tests whose prompts to ask as they ask them, as pytest takes them; may be repeated (default: what pytest "
        "runs without arguments)",
    )
    source.add_argument(
        "--prompts", metavar="FILE", help="Prompt file to ask instead, streamed, as check.text() asks it"
    )
    parser.add_argument("--max-tokens", type=int, default=None, metavar="N", help="With --prompts: of an answer (64)")
    parser.add_argument(
        "--timed",
        type=int,
        default=None,
        metavar="N",
        help="With --prompts: timed requests (default: none)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="NAME",
        help="What the recording is called: NAME, or recordings/NAME.jsonl of the project (default: the engine's name)",
    )
    parser.add_argument("--profile", metavar="NAME", help="Profile of the configuration to use (default: none)")
    parser.add_argument("--config", metavar="FILE", help="Configuration file")
    add_rootdir(parser)
    parser.epilog = "What stands behind -- is pytest's: llmparity record prod --suite tests/parity -- -k tickets"
    parser.set_defaults(command=_record, name="record", more=[])


def _record(asked: argparse.Namespace) -> int:
    from pytest_llmparity.core.words.masking import Mask
    from pytest_llmparity.run.recording import streams

    root = root_of(asked)
    spec, settings = _engine(asked)
    path = _output(asked.output, spec, root)
    _refuse_options(asked, settings)
    with tempfile.TemporaryDirectory(prefix="llmparity-") as folder:
        made = _of_prompts(asked, Path(folder)) if asked.prompts else _of_suite(asked, spec, root, Path(folder))
    if made is None:
        return REFUSED
    secrets = settings.key_variables or spec.secret_variables
    names = dict.fromkeys((*secrets, *spec.secret_variables))
    mask = Mask({name: value for name in names if (value := os.environ.get(name, "").strip())})
    replaced = "replaced" if path.exists() else "wrote"
    print(f"{replaced} {streams.write(path, made, root=root, mask=mask, secrets=names)}")
    print(f"play it: pytest --engines replay:{path.stem}")
    return OK


def _engine(asked: argparse.Namespace) -> tuple[EngineSpec, Settings]:
    """Return the one engine that is recorded; what is wrong with it is told before anything starts."""
    from pytest_llmparity.core.errors import EngineSelectionError
    from pytest_llmparity.settings.given.contradictions import check_recordable

    settings = selected(argparse.Namespace(**{**vars(asked), "engines": [asked.engine], "more": None})).settings
    if len(settings.engines) != 1:
        raise EngineSelectionError(f"record takes one engine, not {len(settings.engines)}")
    (spec,) = settings.engines
    if spec not in settings.recordable:
        raise EngineSelectionError(
            f"{spec.name} has answers that were recorded already; name an engine that is there to answer"
        )
    check_recordable(spec)
    return spec, settings


def _output(written: str | None, spec: EngineSpec, root: Path) -> Path:
    """Return where the recording goes; ``UsageError`` for a place that ``replay:NAME`` would not look in.

    A name without a folder is that of a recording, with its suffix or without.
    """
    from pytest_llmparity.core.errors import RecordingError, UsageError
    from pytest_llmparity.store import recordings

    name = spec.name if written is None else Path(written).name.removesuffix(recordings.SUFFIX)
    try:
        path = recordings.place(root, name)
    except RecordingError as error:
        raise UsageError(f"-o: {error}") from None
    bare = written is None or Path(written).name == written
    if written is not None and not bare and Path(written).absolute() != path and root / written != path:
        raise UsageError(f"-o: {written} is not {path}; recordings lie in that folder and end in {recordings.SUFFIX}")
    return path


def _refuse_options(asked: argparse.Namespace, settings: Settings) -> None:
    from pytest_llmparity.core.errors import UsageError
    from pytest_llmparity.core.stats.quantiles import min_requests

    if asked.prompts and asked.more:
        raise UsageError("arguments of pytest belong to --suite; with --prompts no test is run")
    for option in ("max_tokens", "timed"):
        value = getattr(asked, option)
        if value is not None and not asked.prompts:
            raise UsageError(f"--{option.replace('_', '-')} belongs to --prompts; tests say themselves what they ask")
        if option == "max_tokens" and value is not None and value < 1:
            raise UsageError("--max-tokens takes a whole number, at least 1")
    least = max(min_requests(_QUANTILE), settings.concurrency)
    if asked.timed is not None and asked.timed < least:
        raise UsageError(
            f"--timed takes at least {least} requests (this project asks {settings.concurrency} at once), not "
            f"{asked.timed}; without it there is no timed phase"
        )
    if missing := [path for path in asked.suite if not Path(path.partition("::")[0]).exists()]:
        raise UsageError(f"--suite: there is no {missing[0]}")


def _of_suite(asked: argparse.Namespace, spec: EngineSpec, root: Path, folder: Path) -> Recorded | None:
    """Run the tests on the engine in a pytest of its own, and return what it answered."""
    from importlib import metadata

    from pytest_llmparity.run.recording import streams
    from pytest_llmparity.run.sending.overhearing import overheard
    from pytest_llmparity.store.runs import Store

    heard, named = folder / "notes", folder / "run"
    command = [sys.executable, "-m", "pytest", "-p", PLUGIN, RUN_OPTION, str(named), RECORDER_OPTION, str(heard)]
    command += ["--engines", asked.engine, "--parity-mode", "live", "--parity-fresh", "--parity-inconclusive", "show"]
    for option, value in (
        ("--parity-profile", asked.profile),
        ("--parity-config", asked.config),
        ("--rootdir", asked.rootdir),
    ):
        command += [] if value is None else [option, value]
    code = run_pytest([*command, *asked.more, *asked.suite])
    if code not in (OK, _FAILED) or not named.exists():
        why = (
            f"pytest ended with exit code {code}" if code not in (OK, _FAILED) else "no test asked the engine anything"
        )
        complain(f"{why}, so nothing is recorded", REFUSED)
        return None
    with Store.open(root / ".llmparity") as store:
        run, plugin = named.read_text("utf-8"), metadata.version("pytest-llmparity")
        return streams.recorded(store, run, spec, overheard(heard), plugin=plugin, today=_today())


def _of_prompts(asked: argparse.Namespace, folder: Path) -> Recorded:
    """Ask a prompt file, and return what the engine answered."""
    from pytest_llmparity import check
    from pytest_llmparity.core.checks.latency import LatencyCheck
    from pytest_llmparity.run.recording import streams
    from pytest_llmparity.run.sending.overhearing import overheard

    heard, prompts = folder / "notes", Path(asked.prompts).absolute()
    selection = selected(argparse.Namespace(**{**vars(asked), "engines": [asked.engine], "more": None}))
    (spec,) = selection.settings.engines
    engines = (dataclasses.replace(spec, recorder=heard),)
    settings = dataclasses.replace(selection.settings, engines=engines, sequential=False, resume="fresh")
    checks: list[Check] = [check.text(margin=0.5)]
    if asked.timed:
        checks.append(LatencyCheck(n=asked.timed))  # times and judges nothing, so that one prompt is enough
    with serving(selection._replace(settings=settings), stored=folder) as session:
        max_tokens = asked.max_tokens or 64
        session.gates.declare(TEST, (str(prompts), *checks), {"max_tokens": max_tokens}, folder=prompts.parent)
        session.gather()
        assert session.run is not None
        return streams.recorded(
            session.store(), session.run, spec, overheard(heard), plugin=session.version, today=_today()
        )


def _today() -> datetime.date:
    return datetime.datetime.now(tz=datetime.UTC).date()
