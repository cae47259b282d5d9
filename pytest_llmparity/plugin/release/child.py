"""What ``llmparity gate``, ``bisect`` and ``record`` add to the pytest they start: its run is named.

Loaded by ``-p`` and by nobody else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.core.gate import JUDGED_OPTION, RECORDER_OPTION, RUN_OPTION, VARIANTS_OPTION

if TYPE_CHECKING:
    from pytest_llmparity.core.identity.record import RunRecord


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options by which the command talks to its child."""
    group = parser.getgroup("llmparity-gate")
    group.addoption(RUN_OPTION, dest="parity_gate_run", metavar="FILE", help="File that is told the run's id")
    group.addoption(RECORDER_OPTION, dest="parity_recorder", metavar="FILE", help="File that answers are noted in")
    group.addoption(
        VARIANTS_OPTION,
        dest="parity_variants",
        metavar="JSON",
        help="Configured engines with other values of some keys",
    )
    group.addoption(
        JUDGED_OPTION,
        dest="parity_judged_too",
        action="store_true",
        default=None,
        help="Ask nobody where a run of the same plan has every answer, also one that was judged already",
    )


def pytest_llmparity_report(config: pytest.Config, record: RunRecord) -> None:
    """Say which run this is."""
    if (path := config.getoption("parity_gate_run")) is not None:
        Path(path).write_text(record.run, "utf-8")
