"""Whether a run has all gates there are: one of selected tests does not say what the others ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_llmparity.run.session import Session


class Selection:
    """Tells a session where only some of the gates were selected."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Take note of gates that ``-k``, ``-m`` or ``--deselect`` left out."""
        if any(item.get_closest_marker("parity") is not None for item in items):
            self._session.partly = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Take note of tests and files that were given by their names; ``--lf`` leaves out files without a word."""
        config = session.config
        if config.getoption("lf", default=False) or any("::" in arg or arg.endswith(".py") for arg in config.args):
            self._session.partly = True
