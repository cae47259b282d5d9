"""Tests that run several times: which gate an item stands for, and which of its attempts is the last.

pytest-repeat makes several items of a test, pytest-rerunfailures runs one item until it passes.
"""

from __future__ import annotations

import re

import pytest

from pytest_llmparity.core.words.explain import plain

_STEP = "__pytest_repeat_step_number"
"""The argument by which pytest-repeat multiplies a test; its id, such as ``2-3``, ends the item's."""
_ID = re.compile(r"(?:^|-)(\d+)-(\d+)$", re.ASCII)


def gate_of(item: pytest.Item) -> str:
    """Return the node id of the gate an item is an attempt at: its own, without the number of its repetition."""
    part = _repetition(item)
    if part is None:
        return item.nodeid
    whole = str(item.callspec.id)  # type: ignore[attr-defined]  # a parametrised item has one
    parameters = whole[: part.start()]
    return item.nodeid.removesuffix(f"[{whole}]") + (f"[{parameters}]" if parameters else "")


def is_last(item: pytest.Item) -> bool:
    """Tell whether an item is the last repetition of its gate, or its only one."""
    part = _repetition(item)
    return part is None or part[1] == part[2]


class Attempts:
    """Keeps verdicts of attempts that are made again out of what is told of them; sees every report in its order."""

    def __init__(self) -> None:
        self._again: set[tuple[str, str | None]] = set()

    def settle(self, report: pytest.TestReport) -> None:
        """Take our properties from the last report of an attempt that pytest-rerunfailures makes again."""
        attempt = (report.nodeid, getattr(report, "worker_id", None))
        if str(report.outcome) == "rerun":
            self._again.add(attempt)
        elif report.when == "setup":
            self._again.discard(attempt)
        if attempt in self._again:
            from pytest_llmparity.report.junit import ours

            report.user_properties[:] = [(name, value) for name, value in report.user_properties if not ours(name)]


WHY = "llmparity_why"


def say_why(report: pytest.TestReport, error: BaseException | None, *, judged: bool) -> None:
    """Write into the report of a test that failed why it did, unless its verdicts say so: builtins travel with it."""
    if not judged:
        text = (report.longreprtext if error is None else str(error)).strip().partition("\n")[0]
        if error is not None and not isinstance(error, (AssertionError, pytest.fail.Exception)):
            text = f"{type(error).__name__}: {text}".removesuffix(": ")
        setattr(report, WHY, plain(text, 160))


class Unjudged(dict[str, str]):
    """Every test, and why it failed where no verdict says so, else nothing; sees every report in its order."""

    def settle(self, report: pytest.TestReport) -> None:
        """Take note of a test that begins, perhaps again, so that it may pass yet, and of its failure."""
        if report.when == "setup":
            self[report.nodeid] = ""
        if report.failed and hasattr(report, WHY):
            self[report.nodeid] = getattr(report, WHY)
        elif report.failed and report.when not in ("setup", "call", "teardown"):  # xdist lost the worker that ran it
            self[report.nodeid] = plain(report.longreprtext.strip().partition("\n")[0], 160)

    def end(self, exitstatus: int) -> None:
        """Take note of a run that was stopped: what it has not come to may have failed."""
        if exitstatus == pytest.ExitCode.INTERRUPTED:
            self["the run"] = "stopped before every test had run"

    def uncollected(self, report: pytest.CollectReport) -> None:
        """Take note of a file, or of a part of one, that could not be collected."""
        if report.failed:
            last = report.longreprtext.strip().rpartition("\n")[2]
            self[report.nodeid] = plain(f"could not be collected: {last.removeprefix('E').strip()}", 160)


def _repetition(item: pytest.Item) -> re.Match[str] | None:
    callspec = getattr(item, "callspec", None)
    if callspec is None or _STEP not in callspec.params:
        return None
    return _ID.search(str(callspec.id))
