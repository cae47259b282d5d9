"""The fixtures: what tests are handed. Their names are this plugin's public API."""

from __future__ import annotations

from collections.abc import Iterator
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
    return pytestconfig.stash[DOOR]


@pytest.fixture(scope="session")
def llmparity_engine_name(request: pytest.FixtureRequest) -> str:
    """Name of the engine this test runs on; parametrised over the selection."""
    return str(request.param)


@pytest.fixture(scope="session")
def parity_engine(llmparity_door: Door, llmparity_engine_name: str) -> Iterator[EngineHandle]:
    """One selected engine for application code; tests that use it run once per engine. The same as ``engine``.

    ``engine.openai()`` and ``engine.async_openai()`` are clients, ``engine.base_url``, ``engine.api_key`` and
    ``engine.model`` serve everything else. Parity's sampling parameters are not applied to them.
    """
    with llmparity_door.lent(llmparity_engine_name) as handle:
        yield handle


@pytest.fixture(scope="session")
def engine(parity_engine: EngineHandle) -> EngineHandle:
    """One selected engine for application code, as ``parity_engine``: for suites with an ``engine`` of their own."""
    return parity_engine


@pytest.fixture(scope="session")
def engines(llmparity_door: Door) -> Engines:
    """Every selected engine by name, all running; ``engines.baseline`` is the one the others are compared with."""
    return llmparity_door.all_lent()


@pytest.fixture
def parity(llmparity_door: Door) -> Parity:
    """Ask every engine on the spot: ``parity.ask("…").check(check.similarity(at_least=0.85))``."""
    return llmparity_door.parity()


@pytest.fixture
def parity_run(llmparity_door: Door, request: pytest.FixtureRequest) -> ParityRun:
    """What this test's marker gathered: rows by engine and case, and checks on them."""
    gathered = llmparity_door.run_of(request.node)
    if gathered is None:
        pytest.fail("parity_run needs a marker: @pytest.mark.parity('prompts.jsonl', check.text())", pytrace=False)
    return gathered
