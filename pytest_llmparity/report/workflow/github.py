"""What a workflow of GitHub shows of a run by itself: a summary of the step, and notes at the lines of checks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from pytest_llmparity.core.identity.record import RunRecord, SampleOrigin
from pytest_llmparity.core.sample import Sample
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.printable import printable
from pytest_llmparity.report import overview
from pytest_llmparity.report.workflow.markdown import LIMIT, escape, fenced, to_markdown

SUMMARY: Final = "GITHUB_STEP_SUMMARY"
"""The variable that names the file of a step's summary."""
MOST: Final = 10
"""Notes of one sort that GitHub shows of a step; further ones it drops."""
_LEAST: Final = 2048


def add_summary(
    record: RunRecord,
    samples: Iterable[Sample],
    environ: Mapping[str, str],
    *,
    root: Path,
    origin: Callable[[Sample], SampleOrigin | None],
) -> None:
    """Append the run to the summary of the workflow's step, where there is one; ``OSError`` when it cannot be written.

    It stays below what GitHub shows of a step, with what other programs wrote into it. What stands behind a decision
    follows in full by :func:`add_decision`.
    """
    _append(environ, lambda room: to_markdown(record, samples, root=root, origin=origin, limit=room - 1, decided=False))


def add_decision(lines: Sequence[str], environ: Mapping[str, str]) -> None:
    """Append a decision, as it is told, to the summary of the workflow's step; ``OSError`` as :func:`add_summary`.

    Its first line is the headline.
    """
    text = f"## {escape(lines[0].partition(':')[0])}\n\n{fenced(lines)}"
    _append(environ, lambda room: text if len(text.encode("utf-8", "replace")) < room else "")


def _append(environ: Mapping[str, str], made: Callable[[int], str]) -> None:
    """Append what is made for so many bytes to the summary, where there is one and room in it."""
    if not environ.get(SUMMARY):
        return
    path = Path(environ[SUMMARY])
    room = LIMIT - (path.stat().st_size if path.exists() else 0)
    if room > _LEAST:
        text = made(room)
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(f"{text}\n")


def commands(verdicts: Sequence[Verdict], environ: Mapping[str, str], *, root: Path) -> list[str]:
    """Return the commands that put a note at the check's line for each verdict that did not pass, the worst first.

    None outside a workflow of GitHub. Paths are those of the repository, of which ``root`` may be a part.
    """
    if environ.get("GITHUB_ACTIONS") != "true":
        return []
    lines: dict[str, list[str]] = {"error": [], "warning": []}
    for verdict in overview.in_order(verdicts):
        if not verdict.outcome.fails_test and verdict.outcome is not Outcome.INCONCLUSIVE:
            continue
        kind = "error" if verdict.outcome.fails_test else "warning"
        title = f"{verdict.outcome} {verdict.kind}, {explain.pair(verdict)}"
        message = explain.headline(verdict).partition("\n")[0]
        if verdict.cause:
            message += f"; cause: {verdict.cause}"
        lines[kind].append(
            f"::{kind} {_place(verdict.where, environ, root)}title={_property(title)}::{_message(message)}"
        )
    return [line for notes in lines.values() for line in dict.fromkeys(notes[:MOST])]


def _place(where: str, environ: Mapping[str, str], root: Path) -> str:
    """Return file and line as properties of a command, nothing where they are not known or not in the repository."""
    path, _, line = where.rpartition(":")
    if not path or not line.isdigit():
        return ""
    workspace = environ.get("GITHUB_WORKSPACE")
    inside = os.path.relpath(root / path, workspace) if workspace else path
    if inside.startswith(".."):
        return ""
    return f"file={_property(Path(inside).as_posix())},line={line},"


def _message(text: str) -> str:
    """Return text as the message of a command: one line, whatever it holds."""
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
