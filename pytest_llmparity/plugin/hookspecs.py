"""Hooks other plugins and conftest files may implement."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from pytest_llmparity.adapter import Adapter
    from pytest_llmparity.core.identity.record import RunRecord
    from pytest_llmparity.core.verdict import Verdict


def pytest_llmparity_engines(config: pytest.Config) -> list[type[Adapter]]:  # type: ignore[empty-body]
    """Bring kinds of engine of your own: subclasses of ``pytest_llmparity.adapter.Adapter``.

    Called once, before the configuration is read, in every process of a run that asks for engines; so a conftest.py
    that implements it lies in the rootdir or beside the tests named on the command line. Import the adapters inside.

    Example: ``def pytest_llmparity_engines(config): return [KoboldCppAdapter]``.
    """


def pytest_llmparity_check_finished(item: pytest.Item, verdict: Verdict) -> None:
    """Observe one settled verdict, in the process that ran the test.

    Example: ``def pytest_llmparity_check_finished(item, verdict): print(item.nodeid, verdict.outcome)``.
    """


def pytest_llmparity_report(config: pytest.Config, record: RunRecord) -> None:
    """Observe the record of the finished run, once, in the controlling process, before reports are written.

    Example: ``def pytest_llmparity_report(config, record): upload(record.verdicts)``.
    """
