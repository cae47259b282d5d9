"""Fixtures: what forks pytest for every test of this process, and commands that start pytest as such a fork."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.plugin.warm_pytest import SAFE, Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Callable[[], Nursery]]:
    """Return what forks pytest for every test; it begins to import when it is first asked for."""
    started: list[Nursery] = []

    def once() -> Nursery:
        if not started:
            started.append(Nursery())
        return started[0]

    yield once
    for each in started:
        each.close()


@pytest.fixture
def warm_commands(nursery: Callable[[], Nursery], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a command that starts ``python -m pytest`` start a fork: most of what a gate takes are its imports."""
    if SAFE:
        monkeypatch.setattr("sys.executable", str(nursery().program(tmp_path / "warm-python")))
