"""Under xdist the controller owns the keeper and hands its address to the workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pytest

KEY = "llmparity"
"""Our entry in ``workerinput``."""


class Node(Protocol):
    """The part of xdist's worker controller we use."""

    workerinput: dict[str, object]


class XdistHooks:
    """Hooks xdist calls in the controller. ``share`` returns what workers need, as builtins; it spawns the keeper."""

    def __init__(self, share: Callable[[], dict[str, str]]) -> None:
        self._share = share

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Node) -> None:
        """Give a new worker the keeper's address and this run's token."""
        node.workerinput[KEY] = self._share()


def shared(config: pytest.Config) -> dict[str, str] | None:
    """Return what the controller gave this worker, ``None`` in the controller and without xdist."""
    given = getattr(config, "workerinput", {}).get(KEY)
    return dict(given) if given else None


def is_worker(config: pytest.Config) -> bool:
    """Tell whether this process is a worker."""
    return hasattr(config, "workerinput")


def is_controller(config: pytest.Config) -> bool:
    """Tell whether tests run in workers and this process only hands them out."""
    return not is_worker(config) and config.getoption("dist", "no") != "no"
