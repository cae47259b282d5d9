"""Fixtures: what forks pytest for every test of this process, and commands that start pytest as such a fork."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.warm_pytest import SAFE, Nursery

ADDRESS = "nursery"
"""What a worker of these tests is told the address of the nursery by that all of them share."""
SHARED = pytest.StashKey[Nursery]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Let the workers of these tests share one nursery: each of its own would import the same for two seconds."""
    if SAFE:
        if SHARED not in node.config.stash:
            node.config.stash[SHARED] = Nursery()
        node.workerinput[ADDRESS] = node.config.stash[SHARED].address


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let the shared one end, in the process that started the workers."""
    if shared := config.stash.get(SHARED, None):
        shared.close()


def shared(config: pytest.Config) -> str:
    """Return the address of the nursery that workers share, empty in a process without any."""
    return str(getattr(config, "workerinput", {}).get(ADDRESS, ""))


@pytest.fixture(scope="session")
def nursery(request: pytest.FixtureRequest) -> Iterator[Callable[[], Nursery]]:
    """Return what forks pytest for every test; it begins to import when it is first asked for a fork."""
    started: list[Nursery] = []

    def once() -> Nursery:
        if not started:
            started.append(Nursery(shared(request.config)))
        return started[0]

    yield once
    for each in started:
        each.close()


@pytest.fixture
def warm_commands(nursery: Callable[[], Nursery], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a command that starts ``python -m pytest`` start a fork: most of what a gate takes are its imports."""
    if SAFE:
        monkeypatch.setattr("sys.executable", str(nursery().program(tmp_path / "warm-python")))
