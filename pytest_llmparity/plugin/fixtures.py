"""The fixtures: what tests are handed, and the hooks about them. Their names are this plugin's public API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_llmparity.plugin.door import Door
    from pytest_llmparity.run.parity import EngineHandle, Engines, Parity, ParityRun

DOOR: pytest.StashKey[Door] = pytest.StashKey()
UNSELECTED = "needs engines: pytest --engines NAME,NAME (or LLMPARITY_ENGINES)"


@pytest.fixture(scope="session")
def llmparity_door(pytestconfig: pytest.Config) -> Door:
    """The session behind our fixtures; tests that reach it need engines. Another plugin's ``engine`` does not."""
    if DOOR not in pytestconfig.stash:  # asked for in a test's body, where its collection could not be skipped
        pytest.skip(UNSELECTED)
    door = pytestconfig.stash[DOOR]
    door.tally.reached.append(True)  # a test that asks for a fixture in its body was not collected as one for engines
    return door


@pytest.fixture(scope="session")
def llmparity_engine_name(request: pytest.FixtureRequest) -> str:
    """Name of the engine this test runs on; parametrised over the selection."""
    return str(request.param)


@pytest.fixture(scope="session")
def parity_engine(llmparity_door: Door, llmparity_engine_name: str) -> EngineHandle:
    """One selected engine for application code; tests that use it run once per engine. The same as ``engine``.

    ``engine.openai()`` and ``engine.async_openai()`` are clients, ``engine.base_url``, ``engine.api_key`` and
    ``engine.model`` serve everything else. Parity's sampling parameters are not applied to them.
    """
    live(llmparity_door, "engine tests", llmparity_engine_name)
    return handle(llmparity_door, llmparity_engine_name)


@pytest.fixture(scope="session")
def engine(parity_engine: EngineHandle) -> EngineHandle:
    """One selected engine for application code, as ``parity_engine``: for suites with an ``engine`` of their own."""
    return parity_engine


@pytest.fixture(scope="session")
def engines(llmparity_door: Door) -> Engines:
    """Every selected engine by name, all running; ``engines.baseline`` is the one the others are compared with."""
    live(llmparity_door, "tests with all engines")
    settings = llmparity_door.settings
    if settings.residency == "one-at-a-time" and len(settings.engines) > 1:
        pytest.fail("engines needs all engines at once, and residency is one-at-a-time; use engine", pytrace=False)
    from pytest_llmparity.run.parity import Engines

    handles = {spec.name: handle(llmparity_door, spec.name) for spec in settings.engines}
    return Engines(handles, baseline=settings.baseline or "")


@pytest.fixture
def parity(llmparity_door: Door) -> Parity:
    """Ask every engine on the spot: ``parity.ask("…").check(check.similarity(at_least=0.85))``."""
    live(llmparity_door, "parity.ask")
    from pytest_llmparity.run.ask import SessionAsker
    from pytest_llmparity.run.parity import Parity

    return Parity(SessionAsker(llmparity_door.session))


@pytest.fixture
def parity_run(llmparity_door: Door, request: pytest.FixtureRequest) -> ParityRun:
    """What this test's marker gathered: rows by engine and case, and checks on them."""
    own = llmparity_door.run_of(request.node)
    if own is None:
        pytest.fail("parity_run needs a marker: @pytest.mark.parity('prompts.jsonl', check.text())", pytrace=False)
    return own


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that use ``engine`` once per selected engine; node ids are the engines' names.

    A test that is an application is one test for all engines.
    """
    if metafunc.definition.get_closest_marker("parity") is not None:
        from pytest_llmparity.plugin import applications  # suites without a gate do without it

        if applications.parametrize(metafunc):
            return
    if "llmparity_engine_name" not in metafunc.fixturenames:
        return
    door = metafunc.config.stash.get(DOOR, None)
    names = [spec.name for spec in door.settings.engines] if door is not None else []
    values: list[object] = [*names] or [pytest.param("none", marks=pytest.mark.skip(reason=UNSELECTED))]
    metafunc.parametrize("llmparity_engine_name", values, indirect=True, scope="session")


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest) -> None:
    """Notice an ``engine`` that is not ours."""
    door = request.config.stash.get(DOOR, None)
    if fixturedef.argname == "engine" and door is not None:
        from pytest_llmparity.plugin.applications import is_application

        if not is_application(request.node):
            door.notice(fixturedef.func)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Call no application here: it was called with every input before the first test."""
    if pyfuncitem.get_closest_marker("parity") is None:
        return None
    from pytest_llmparity.plugin.applications import is_application

    return True if is_application(pyfuncitem) else None


def handle(door: Door, name: str) -> EngineHandle:
    """Return one engine for application code, or fail the test with the reason. Workers share it.

    No lease is held: the fixture lives as long as its worker, and a worker that came late to gathering would wait for
    it for ever. Nobody gathers any more when a test runs.
    """
    from pytest_llmparity.core.errors import LLMParityError

    try:
        return door.session.handle(name)
    except LLMParityError as error:
        pytest.fail(str(error), pytrace=False)


def live(door: Door, purpose: str, name: str | None = None) -> None:
    """End a test that cannot have live engines in this run, or not the one of this name."""
    golden = [spec.name for spec in door.settings.goldens if name in (None, spec.name)]
    if golden:
        pytest.skip(f"{', '.join(golden)} has golden answers and is no live engine for {purpose}")
    played = [spec.name for spec in door.settings.asked if spec.recording is not None and name in (None, spec.name)]
    if played and purpose != "parity.ask":
        pytest.skip(f"{', '.join(played)} is a recording, which holds no requests of applications, for {purpose}")
    if door.settings.mode == "replay":
        pytest.skip(f"a replay has stored answers but no live engines for {purpose}")
    from pytest_llmparity.plugin.xdist import is_worker

    if is_worker(door.config) and door.settings.residency == "one-at-a-time":
        pytest.fail(f"{purpose} with one engine at a time cannot run under -n; run without it", pytrace=False)
