"""The door to pytest: hooks and fixtures, a few lines each. What they do is in ``door``, ``run`` and ``report``.

Module level imports nothing heavy, and nothing that only runs with engines need: pytest reads every module of a plugin
in a way of its own that takes a millisecond, and an installed but unused plugin costs nothing that can be noticed.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.plugin import hookspecs, options
from pytest_llmparity.plugin.fixtures import (  # noqa: F401 - pytest finds fixtures and hooks in the plugin's own module
    DOOR,
    UNSELECTED,
    engine,
    engines,
    llmparity_door,
    llmparity_engine_name,
    parity,
    parity_engine,
    parity_run,
    pytest_fixture_setup,
    pytest_generate_tests,
    pytest_pyfunc_call,
)
from pytest_llmparity.settings.sources import MARKER

if TYPE_CHECKING:
    from pytest_llmparity.plugin.door import Door

CARRIED = "llmparity"
MISUSED = pytest.StashKey[str]()
UNRUNNABLE = pytest.StashKey[list[str]]()


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Offer our hooks to conftest files and other plugins."""
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--engines`` and ``--parity-*``."""
    options.add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | pytest.ExitCode | None:
    """Begin anew where a value of ours misled pytest about the project's root."""
    if not options.with_values(config.invocation_params.args):
        return None
    from pytest_llmparity.plugin import rootdir

    return rootdir.start_over(config)


def pytest_configure(config: pytest.Config) -> None:
    """Resolve every setting, once, before collection: a mistake ends here with exit code 4."""
    config.addinivalue_line("markers", MARKER)
    options.warn_of_variables(config)
    if "PYTEST_VERSION" not in os.environ:  # pytest before 8.2 tells nobody that it runs, and checks want to know
        os.environ["PYTEST_VERSION"] = pytest.__version__
        config.add_cleanup(_untold)
    if not options.requested(config):
        return
    from pytest_llmparity.core.collecting import seldom_collected

    with seldom_collected():  # modules stay: looking through them for garbage takes a tenth of their import
        from pytest_llmparity.plugin import selecting, xdist
        from pytest_llmparity.plugin.door import Door

    door = Door(config, options.resolve(config, attached=(xdist.shared(config) or {}).get("attached")))
    config.stash[DOOR] = door
    config.pluginmanager.register(selecting.Selection(door.session, door.tally, config.rootpath), "llmparity-selection")
    if not xdist.is_worker(config):
        config.pluginmanager.register(Receiver(door), "llmparity-receiver")
    if xdist.is_controller(config):
        config.pluginmanager.register(xdist.XdistHooks(door.share, door.collected, door.tally.ended), "llmparity-xdist")


def _untold() -> None:
    os.environ.pop("PYTEST_VERSION", None)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say which engines are compared."""
    return config.stash[DOOR].header() if DOOR in config.stash else []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without engines, skip what needs them, but for a gate with a check that could not be made: that fails."""
    if DOOR in config.stash:
        return
    for item in items:
        marker = item.get_closest_marker("parity")
        if marker is not None and (misused := [arg for arg in marker.args if getattr(arg, "misuse", "")]):
            item.stash[MISUSED] = f"{misused[0].misuse} ({misused[0].where.removeprefix(f'{config.rootpath}/')})"
        elif marker is not None or "llmparity_door" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason=UNSELECTED))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Read the markers of the tests that are left after ``-k``, ``-m`` and ``--lf``."""
    door = session.config.stash.get(DOOR, None)
    if door is not None:
        door.prepare(session.items)


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Show the plan: what will be asked of every engine."""
    door = config.stash.get(DOOR, None)
    if door is None:
        return []
    return door.plan_lines(detailed=config.option.collectonly or options.verbosity(config) > 0)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Gather before the first test: here no per-test timeout can cut a gathering in half."""
    config = session.config
    door = config.stash.get(DOOR, None)
    errors = session.testsfailed and not config.option.continue_on_collection_errors
    if door is not None and not config.option.collectonly and not errors:
        from pytest_llmparity.plugin import xdist

        if not xdist.is_controller(config):
            door.gather()
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tell a gate that cannot run what is wrong with it."""
    door = item.config.stash.get(DOOR, None)
    trouble = door.attempt(item) if door is not None else item.stash.get(MISUSED, None)
    if trouble:
        pytest.fail(trouble, pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Set a gate's outcome when its call phase ends: all checks run, then the test fails once."""
    door = item.config.stash.get(DOOR, None)
    if door is None:
        return (yield)
    run_of_test = door.run_of(item)
    try:
        result = yield
    except pytest.skip.Exception:
        raise
    except (Exception, pytest.fail.Exception) as error:
        door.defuse(error)
        if run_of_test is not None:
            door.annotate(error, item, door.conclude(item, run_of_test))
        raise
    if run_of_test is not None:
        verdicts = door.conclude(item, run_of_test)
        door.raise_outcome(item, verdicts, run_of_test)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the verdicts travel with the call's report, as builtins: xdist carries them to the controller."""
    report = yield
    door = item.config.stash.get(DOOR, None)
    if door is not None:
        door.tidy(item, report, call.excinfo.value if call.excinfo else None)
    if door is not None and report.when == "call":
        setattr(report, CARRIED, door.carry(item, judged=not report.skipped or hasattr(report, "wasxfail")))
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, tuple[str, Mapping[str, bool]]] | None:
    """Show ``inconclusive`` as an outcome of its own."""
    if report.when == "call" and report.passed and report.user_properties:
        from pytest_llmparity.plugin import xdist

        if (xdist.OUTCOME, "INCONCLUSIVE") in report.user_properties:
            return "inconclusive", "i", ("INCONCLUSIVE", {"yellow": True})
    return None


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write reports and stop every engine before the summary is printed; a report that is missing fails the run."""
    door = session.config.stash.get(DOOR, None)
    if door is not None:
        session.exitstatus = door.ending.finish(session.exitstatus)
    elif session.config.option.collectonly and (misused := [item for item in session.items if MISUSED in item.stash]):
        from pytest_llmparity.plugin.telling.planned import told_ahead

        problems = {item.nodeid: item.stash[MISUSED] for item in misused}
        session.config.stash[UNRUNNABLE] = told_ahead(session, problems)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the grid, or the one line that says why gates were skipped."""
    door = config.stash.get(DOOR, None)
    summary = door.ending.summary if door is not None else config.stash.get(UNRUNNABLE, [])
    skipped = [r for r in terminalreporter.getreports("skipped") if UNSELECTED in str(r.longrepr)]
    if not summary and not skipped:
        return
    from pytest_llmparity.plugin import xdist

    if xdist.is_worker(config):
        return
    if summary:
        terminalreporter.section("LLM parity")
        for line in [*summary, *(door.ending.notes if door is not None else [])]:
            terminalreporter.write_line(line)
    if skipped:
        noun = "test" if len(skipped) == 1 else "tests"
        terminalreporter.write_line(f"llmparity: {len(skipped)} {noun} skipped, {UNSELECTED}", yellow=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave no engine behind, however the session ended."""
    door = config.stash.get(DOOR, None)
    if door is not None:
        door.session.close()


class Receiver:
    """Takes verdicts out of the reports: of this process without xdist, of every worker with it."""

    def __init__(self, door: Door) -> None:
        from pytest_llmparity.plugin import repeats

        self._door = door
        self._attempts = repeats.Attempts()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep what could not be collected."""
        self._door.tally.unjudged.uncollected(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a gate's call report carries, before others write down what is told of a test."""
        self._attempts.settle(report)
        self._door.tally.hear(report)
        if (carried := getattr(report, CARRIED, None)) is not None:
            self._door.tally.receive(carried, ran=report.nodeid)
