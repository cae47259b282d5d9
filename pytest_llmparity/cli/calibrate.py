"""``llmparity calibrate``: measure how far two engines are apart and accept that as the margin of the pair."""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmparity.cli.verbs import OK, add_verb, selected, serving

if TYPE_CHECKING:
    from pytest_llmparity.cli.verbs import Commands, Selection
    from pytest_llmparity.core.identity.agreed import Accepted
    from pytest_llmparity.run.session import Session


def add(commands: Commands) -> None:
    """Add the verb to the command line."""
    does = "Measure the shift between two engines and write the margin it proposes into llmparity.lock."
    parser = add_verb(
        commands, "calibrate", does=does, engines="BASELINE and CANDIDATE, as --engines of pytest takes them"
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="Prompt file to ask, of at least 24 groups (default: 32 varied prompts that come with this package)",
    )
    parser.add_argument("--dry-run", action="store_true", help="Show what is measured and write nothing")
    parser.set_defaults(command=_calibrate, name="calibrate")


def _calibrate(asked: argparse.Namespace) -> int:
    import datetime

    from pytest_llmparity.report import calibration
    from pytest_llmparity.run.calibrate.pair import measure

    selection = _pair(asked)
    with (
        tempfile.TemporaryDirectory(prefix="llmparity-calibrate-") as stored,
        serving(selection, stored=Path(stored)) as session,
    ):
        today = datetime.datetime.now(tz=datetime.UTC).date()
        accepted = measure(session, prompts=_prompts(asked), today=today)
        for line in calibration.pair_lines(accepted):
            print(line)
        if not asked.dry_run:
            print(_write(session, accepted))
    return OK


def _pair(asked: argparse.Namespace) -> Selection:
    """Return the selection of the two engines, the first of them the baseline whatever the configuration says."""
    from pytest_llmparity.core.errors import EngineSelectionError
    from pytest_llmparity.settings.selection import parse_engines

    named = [*asked.engines, *(asked.more or ())]
    if len(entries := parse_engines(named)) != 2:
        raise EngineSelectionError(
            f"a pair is calibrated, and {len(entries)} engines are named; write: llmparity calibrate BASELINE CANDIDATE"
        )
    selection = selected(asked)
    settings = dataclasses.replace(
        selection.settings,
        baseline=entries[0].name,
        baseline_source="first of the command",
        sequential=False,
        resume="fresh",
    )
    return selection._replace(settings=settings)


def _prompts(asked: argparse.Namespace) -> Path:
    from pytest_llmparity.run.calibrate.pair import prompts_of

    return Path(asked.prompts).absolute() if asked.prompts else prompts_of("calibration")


def _write(session: Session, accepted: Accepted) -> str:
    """Put the margin into the lock of the project, and say so."""
    from pytest_llmparity import lockfile
    from pytest_llmparity.core.identity import lock
    from pytest_llmparity.engines.wire.control import secrets_of

    path = session.root / lock.NAME
    engines, agreed = lockfile.read(path) or {}, lockfile.agreed(path)
    lock.refuse_private_texts(accepted.texts(), session.mask, secrets_of(session.settings.engines, os.environ))
    lockfile.write(path, engines, agreed.accepting(accepted))
    return f"wrote {path}; commit it, and check.logprobs() holds {accepted.candidate} to it"
