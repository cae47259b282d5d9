"""Under xdist the controller owns the keeper and hands its address to the workers; they hand back what they planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import pytest

KEY = "llmparity"
"""Our entry in ``workerinput`` and ``workeroutput``."""

OUTCOME = "llmparity.outcome"
"""User property that carries a test's worst outcome to the controller; the report's category follows from it."""


class Node(Protocol):
    """The part of xdist's worker controller we use."""

    workerinput: dict[str, object]


class XdistHooks:
    """Hooks xdist calls in the controller; only builtins cross.

    ``share`` returns what workers need and spawns the keeper, ``collected`` takes the node ids of a worker's tests in
    their order, ``ended`` what it handed back.
    """

    def __init__(
        self,
        share: Callable[[], dict[str, str]],
        collected: Callable[[Sequence[str]], None],
        ended: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._share = share
        self._collected = collected
        self._ended = ended

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Node) -> None:
        """Give a new worker the keeper's address and this run's token."""
        node.workerinput[KEY] = self._share()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Learn which tests there are, before any of them runs: every worker collects the same."""
        self._collected(ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Take what a worker handed back; one that crashed handed back nothing."""
        given = getattr(node, "workeroutput", {}).get(KEY)
        if given is not None:
            self._ended(given)


def shared(config: pytest.Config) -> dict[str, str] | None:
    """Return what the controller gave this worker, ``None`` in the controller and without xdist."""
    given = getattr(config, "workerinput", {}).get(KEY)
    return dict(given) if given else None


def hand_back(config: pytest.Config, given: Mapping[str, Any]) -> None:
    """Leave builtins for the controller; in a worker, when its session ends."""
    config.workeroutput[KEY] = dict(given)  # type: ignore[attr-defined]  # xdist adds it


def is_worker(config: pytest.Config) -> bool:
    """Tell whether this process is a worker."""
    return hasattr(config, "workerinput")


def is_controller(config: pytest.Config) -> bool:
    """Tell whether tests run in workers and this process only hands them out."""
    return not is_worker(config) and config.getoption("dist", "no") != "no"
