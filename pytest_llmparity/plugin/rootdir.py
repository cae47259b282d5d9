"""Keeps the values of our options from deciding where a project's root is.

pytest finds its rootdir before plugins are loaded. An option it does not know yet may have no value, so the word behind
``--parity-out`` is a place of tests to it, and if that exists the root is looked for there. Where that could have gone
wrong the run is begun anew with option and value in one word.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_llmparity.plugin.options import ADDOPTS, WITH_VALUE
from pytest_llmparity.plugin.xdist import is_worker

_MARKS = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
"""What may make a folder the root; with ``setup.py``, which pytest looks for later."""


def start_over(config: pytest.Config) -> int | pytest.ExitCode | None:
    """Return the outcome of the run that was begun anew, ``None`` where this one has the right root."""
    if is_worker(config):  # the controller has seen to it
        return None
    before = os.environ.get(ADDOPTS, "")
    args, values = joined(config.invocation_params.args)
    more, others = joined(shlex.split(before))
    written = getattr(config.option, "file_or_dir", None)  # --help ends the reading of options before there is one
    places = [place.partition("::")[0] for place in written or ()]
    if not misleading([*values, *others], places, config.invocation_params.dir):
        return None
    try:
        if others:
            os.environ[ADDOPTS] = shlex.join(more)
        return pytest.main(args, plugins=list(config.invocation_params.plugins or ()))
    finally:
        if others:
            os.environ[ADDOPTS] = before


def joined(words: Sequence[object]) -> tuple[list[str], list[str]]:
    """Return the words with each of our options and its value in one, and those values that were words of their own.

    >>> joined(["-x", "--parity-out", "reports", "tests"])
    (['-x', '--parity-out=reports', 'tests'], ['reports'])
    """
    kept: list[str] = []
    values: list[str] = []
    left = list(map(str, words))
    while left:
        word = left.pop(0)
        if word == "--":
            return [*kept, word, *left], values
        if word in WITH_VALUE and left:
            values.append(left.pop(0))
            word = f"{word}={values[-1]}"
        kept.append(word)
    return kept, values


def misleading(values: Sequence[str], places: Sequence[str], folder: Path) -> bool:
    """Tell whether pytest may have found another root because of these values, which it took for places of tests.

    ``places`` are those that were meant, relative to ``folder`` like the values. A value changes nothing where it does
    not exist, or lies below what the places have in common without a configuration on the way.
    """
    meant = [there for place in places if (there := _folder(folder / place)) is not None]
    base = Path(os.path.commonpath(meant)) if meant else folder
    for value in values:
        there = _folder(folder / value)
        if there is None or there == base:
            continue
        if base not in there.parents:
            return True
        between = [there, *(parent for parent in there.parents if base in parent.parents)]
        if any((step / mark).is_file() for step in between for mark in (*_MARKS, "setup.py")):
            return True
    return False


def _folder(path: Path) -> Path | None:
    """Return the folder a path leads to or lies in, ``None`` where there is nothing."""
    path = Path(os.path.abspath(path))
    try:
        if not path.exists():
            return None
        return path if path.is_dir() else path.parent
    except OSError:  # a text too long for a name
        return None
