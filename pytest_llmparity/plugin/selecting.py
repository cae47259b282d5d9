"""Whether a run has all gates there are, and any test for its engines: some selected tests do not speak for others."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_llmparity.plugin.telling.ending import Tally
    from pytest_llmparity.run.session import Session


class Selection:
    """Tells a session where only some of the gates were selected, and a tally whether any test is for the engines."""

    def __init__(self, session: Session, tally: Tally, rootpath: Path) -> None:
        self._session = session
        self._tally = tally
        self._rootpath = rootpath
        self._lacking = False

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Take note of gates that ``-k``, ``-m`` or ``--deselect`` left out."""
        self._lacking = True
        if any(item.get_closest_marker("parity") is not None for item in items):
            self._session.gates.partly = True

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Take note of files that could not be collected, or skip themselves and speak of gates: nobody asks them."""
        self._lacking = self._lacking or not report.passed
        if report.failed or (report.skipped and self._speaks_of_gates(report)):
            self._session.gates.partly = True

    def _speaks_of_gates(self, report: pytest.CollectReport) -> bool:
        try:
            return "parity" in (self._rootpath / report.nodeid.partition("::")[0]).read_text("utf-8", "replace")
        except OSError:
            return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Take note of tests, files and folders that were named; ``--lf`` leaves out files without a word."""
        config = session.config
        if config.getoption("lf", default=False) or _left_out(config) or not _whole(config):
            self._session.gates.partly = self._lacking = True
        if session.items:
            self._tally.reached.append(self._lacking or any(map(for_engines, session.items)))


def for_engines(item: pytest.Item) -> bool:
    """Tell whether a test is one for engines: it has our marker, or takes one of our fixtures."""
    return item.get_closest_marker("parity") is not None or "llmparity_door" in getattr(item, "fixturenames", ())


def _left_out(config: pytest.Config) -> bool:
    """Whether the command line leaves files out or names packages; what ``addopts`` says holds in every run."""
    return any(str(arg).startswith(("--ignore", "--pyargs")) for arg in config.invocation_params.args)


def _whole(config: pytest.Config) -> bool:
    """Whether tests were looked for in all of the project: below its root, or everywhere that ``testpaths`` names."""
    here, root = config.invocation_params.dir, config.rootpath
    named = [Path(os.path.abspath(here / arg)) for arg in config.args]
    patterns = config.getini("testpaths")  # read as pytest does, which takes ".", absolute paths and empty ones
    below = [path for pattern in patterns for path in glob.glob(pattern, root_dir=root, recursive=True)]
    whole = [Path(os.path.abspath(root / path)) for path in below] or [root]
    return all(any(path.is_relative_to(folder) for folder in named) for path in whole)
