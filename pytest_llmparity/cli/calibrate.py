"""``llmparity calibrate``: measure how far two engines are apart, or a model's own copies, and keep it in the lock."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmparity.cli.verbs import add_verb, named_by, root_of, selected, serving, serving_as
from pytest_llmparity.core.words.exits import OK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_llmparity.cli.verbs import Commands, Selection
    from pytest_llmparity.core.identity.agreed import Agreed
    from pytest_llmparity.run.session import Session


def add(commands: Commands) -> None:
    """Add the verb to the command line."""
    does = "Measure the shift between two engines, or the ladder of a model, and write it into llmparity.lock."
    pair = "BASELINE and CANDIDATE, as --engines of pytest takes them"
    parser = add_verb(commands, "calibrate", does=does, engines=pair)
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="Prompt file to ask, of at least 24 groups (default: 32 varied prompts that come with this package)",
    )
    parser.add_argument("--dry-run", action="store_true", help="Show what is measured and write nothing")
    ladder = parser.add_argument_group("the ladder of a model")
    ladder.add_argument(
        "--ladder", metavar="F16.gguf", help="Make copies of this unquantised file, and measure each against it"
    )
    ladder.add_argument(
        "--types",
        metavar="TYPE[,TYPE...]",
        help="Classes of the copies (default: Q8_0 to Q2_K by llama-quantize, Q8_0 and Q4_0 without it)",
    )
    ladder.add_argument(
        "--quantize",
        metavar="PROGRAM",
        help="llama-quantize (default: that on PATH, else the gguf package)",
    )
    ladder.add_argument("--copies", metavar="DIR", help="Folder for the copies while they are served (default: /tmp)")
    parser.set_defaults(command=_calibrate, name="calibrate")


def _calibrate(asked: argparse.Namespace) -> int:
    return _ladder(asked) if asked.ladder else _pair(asked)


def _pair(asked: argparse.Namespace) -> int:
    from pytest_llmparity.report import calibration
    from pytest_llmparity.run.calibrate.pair import measure

    selection = _two(asked)
    with (
        tempfile.TemporaryDirectory(prefix="llmparity-") as stored,
        serving(selection, stored=Path(stored)) as session,
    ):
        accepted = measure(session, prompts=_prompts(asked), today=_today())
        _tell(calibration.pair_lines(accepted))
        if not asked.dry_run:
            path = _write(session, lambda agreed: agreed.accepting(accepted), accepted.texts())
            print(f"wrote {path}; commit it, and check.logprobs() holds {accepted.candidate} to it")
    return OK


def _ladder(asked: argparse.Namespace) -> int:
    from pytest_llmparity.core.errors import UsageError
    from pytest_llmparity.report import calibration
    from pytest_llmparity.run.calibrate import copies, ladder

    if asked.engines or asked.more:
        raise UsageError("--ladder takes a file and no engines: its copies are served by llama.cpp")
    if asked.copies and not Path(asked.copies).is_dir():
        raise UsageError(f"--copies: there is no folder {asked.copies}; name one that has room for the copies")
    root, source = root_of(asked), Path(asked.ladder).absolute()
    digest, program = ladder.digest_of(source), copies.quantizer(asked.quantize)
    classes = copies.classes_of(asked.types, program)
    with tempfile.TemporaryDirectory(prefix="llmparity-", dir=asked.copies) as folder:
        made = copies.make(source, Path(folder), classes, program, say=print)
        with serving_as(ladder.settings_for(source, made), root=root, stored=Path(folder)) as session:
            measured = ladder.measure(
                session,
                source=source,
                digest=digest,
                classes=classes,
                prompts=_prompts(asked),
                made_by="the gguf package" if program is None else Path(program).name,
                today=_today(),
            )
            _tell(calibration.ladder_lines(measured))
            if not asked.dry_run:
                path = _write(session, lambda agreed: agreed.measuring(measured), measured.texts())
                print(f"wrote {path}; commit it, and verdicts on {measured.model} name the class of a shift")
    return OK


def _two(asked: argparse.Namespace) -> Selection:
    """Return the selection of the two engines, the first of them the baseline whatever the configuration says."""
    from pytest_llmparity.core.errors import EngineSelectionError
    from pytest_llmparity.settings.selection import parse_engines, told_of

    with told_of(named_by(asked)):
        entries = parse_engines([*asked.engines, *(asked.more or ())])
    if len(entries) != 2:
        raise EngineSelectionError(
            f"a pair is calibrated, which takes two engines, not {len(entries)}; write: "
            "llmparity calibrate BASELINE CANDIDATE; or, for the copies of a model, "
            "llmparity calibrate --ladder F16.gguf"
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


def _today() -> datetime.date:
    return datetime.datetime.now(tz=datetime.UTC).date()


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _write(session: Session, change: Callable[[Agreed], Agreed], texts: Iterable[tuple[str, str]]) -> Path:
    """Write the lock of the project with what it now says of drift; ``texts`` must hold nothing of this machine."""
    from pytest_llmparity import lockfile
    from pytest_llmparity.core.identity import lock
    from pytest_llmparity.engines.wire.control import secrets_of

    path = session.root / lock.NAME
    engines, agreed = lockfile.read(path) or {}, lockfile.agreed(path)
    lock.refuse_private_texts(texts, session.mask, secrets_of(session.settings.engines, os.environ))
    lockfile.write(path, engines, change(agreed))
    return path
