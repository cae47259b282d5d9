"""Under xdist the controller owns the keeper and hands its address to the workers; they hand back what they planned.

What a worker hands back comes when it ends, so the plan goes before, by a file: xdist carries no messages of others.
All workers plan the same, and to say what few prompts cannot show takes time, so the first one plans for all.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

KEY = "llmparity"
"""Our entry in ``workerinput`` and ``workeroutput``."""

FOLDER = "folder"
"""What a worker is given for the plan: a folder that is there on the controller's machine only."""

PLAN = "plan"
"""Name of the plan in that folder."""

PLANNING = "planning"
"""Name of what lies in that folder as soon as a worker makes the plan."""

OUTCOME = "llmparity.outcome"
"""User property that carries a test's worst outcome to the controller; the report's category follows from it."""


class Node(Protocol):
    """The part of xdist's worker controller we use."""

    workerinput: dict[str, object]


class XdistHooks:
    """Hooks xdist calls in the controller; only builtins cross.

    ``share`` returns what workers need and spawns the keeper, ``collected`` takes the node ids of a worker's tests in
    their order and the plan it made of them, ``ended`` what it handed back.
    """

    def __init__(
        self,
        share: Callable[[], dict[str, str]],
        collected: Callable[[Sequence[str], list[str]], None],
        ended: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._share = share
        self._collected = collected
        self._ended = ended
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        with contextlib.suppress(OSError):  # none can be written: the plan comes in the end
            self._folder = tempfile.TemporaryDirectory(prefix="llmparity-", ignore_cleanup_errors=True)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Node) -> None:
        """Give a new worker the keeper's address and this run's token."""
        node.workerinput[KEY] = self._share() | ({FOLDER: self._folder.name} if self._folder else {})

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Node, ids: Sequence[str]) -> None:
        """Learn which tests there are and what is planned, before any of them runs: every worker collects the same."""
        plan: list[str] = []
        if self._folder:
            with contextlib.suppress(OSError):  # of a worker on another machine, which hands it back in the end
                plan = Path(self._folder.name, PLAN).read_text("utf-8").split("\n")
        self._collected(ids, plan)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Take what a worker handed back; one that crashed handed back nothing."""
        given = getattr(node, "workeroutput", {}).get(KEY)
        if given is not None:
            self._ended(given)
        elif self._folder and not Path(self._folder.name, PLAN).exists():  # it may be the one that planned for all
            Path(self._folder.name, PLANNING).unlink(missing_ok=True)

    def pytest_unconfigure(self) -> None:
        """Remove the folder of the plan."""
        if self._folder:
            self._folder.cleanup()


def plans(config: pytest.Config) -> bool:
    """Whether this worker makes the plan: no other one on the controller's machine has begun to."""
    folder = (shared(config) or {}).get(FOLDER)
    if folder:
        with contextlib.suppress(OSError):  # the controller is elsewhere: this worker hands its plan back in the end
            try:
                Path(folder, PLANNING).touch(exist_ok=False)
            except FileExistsError:
                return False
    return True


def tell_plan(config: pytest.Config, lines: Sequence[str]) -> None:
    """Leave the plan where the controller finds it when it hears that a worker has collected its tests."""
    folder = (shared(config) or {}).get(FOLDER)
    if folder and lines:
        with contextlib.suppress(OSError):  # the controller is elsewhere
            written = Path(folder, f"{PLAN}-{config.workerinput['workerid']}")  # type: ignore[attr-defined]  # xdist's
            written.write_text("\n".join(lines), "utf-8", "replace")
            written.replace(Path(folder, PLAN))  # in one go: the controller may look at any time


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
