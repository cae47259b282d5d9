"""The reports of a run that are files: which there are, and all that were asked for written into one folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from pytest_llmparity.core.history.entries import Entry
from pytest_llmparity.core.identity.record import RunRecord, SampleOrigin
from pytest_llmparity.core.sample import Sample
from pytest_llmparity.core.values.calls import Asked
from pytest_llmparity.report import json
from pytest_llmparity.report.workflow import markdown


def write(
    formats: Collection[str],
    record: RunRecord,
    samples: Sequence[Sample],
    folder: Path,
    *,
    root: Path | None,
    origin: Callable[[Sample], SampleOrigin | None],
    history: Sequence[Entry] = (),
    asked: Sequence[Asked] = (),
) -> list[Path]:
    """Write the reports of these formats (``json``, ``html``, ``md``) and return the file of each to begin with.

    The page shows the ``history`` of runs up to this one. ``asked`` is what plain tests sent engines that are recorded.

    Raises ``UsageError`` when one cannot be written.
    """
    written: list[Path] = []
    if "json" in formats:
        json.write(record, samples, folder, root=root, origin=origin, asked=asked)
        written.append(folder / "run.json")
    if "html" in formats:
        from pytest_llmparity.report.html import page  # only who wants a page waits for its template

        written.append(page.write(record, samples, folder, root=root, origin=origin, history=history))
    if "md" in formats:
        written.append(markdown.write(record, samples, folder, root=root, origin=origin))
    return written
