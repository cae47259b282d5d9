"""A run as the comment of a pull request: the text of its Markdown report, with a mark by which it is known again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.core.identity.record import RunRecord
from pytest_llmparity.core.sample import Sample
from pytest_llmparity.report.workflow.markdown import Origin, escape, to_markdown

MOST: Final = 65_536
"""Characters that a comment may have on GitHub."""
_LINK: Final = 2_000
_NAME: Final = re.compile(r"[\w .-]{1,60}", re.ASCII)


def marked(name: str) -> str:
    """Return the line, which nobody sees, that begins the comment of this name; ``UsageError`` for another name.

    >>> marked("cpu")
    '<!-- pytest-llmparity: cpu -->'
    """
    if not _NAME.fullmatch(name) or "--" in name:
        raise UsageError(f"a comment's name is up to 60 letters, digits, blanks, dots and dashes, not {name[:60]!r}")
    return f"<!-- pytest-llmparity: {name} -->"


def of_run(
    record: RunRecord, samples: Iterable[Sample], *, name: str, link: str = "", root: Path | None = None, origin: Origin
) -> str:
    """Return the comment on a run; ``link`` is where the rest of it is."""
    # A character is a byte at least, so a text of so many bytes is no longer than the limit.
    text = to_markdown(record, samples, root=root, origin=origin, limit=MOST - _LINK)
    return _whole(text, name, link)


def of_none(why: str, *, name: str, link: str = "") -> str:
    """Return the comment where no run was judged, so that what an earlier one says does not stand."""
    return _whole(f"### LLM parity: nothing was judged\n\n{escape(why[:1000])}\n", name, link)


def _whole(text: str, name: str, link: str) -> str:
    beside = f"\n<sub>[the run of the workflow, with the whole report]({link})</sub>\n" if link else ""
    return f"{marked(name)}\n{text}{beside}"
