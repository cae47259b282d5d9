"""Which engines of a command were there at the same time, as the process table says it from outside.

Every process that belongs to an engine carries a mark of its own start in its environment, which its children inherit,
so vLLM's engine core and workers count as well.
"""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import threading
from typing import NamedTuple

import psutil

from pytest_llmparity.keeper.tree import MARKER
from tests.plugin.warm_pytest import WarmPytest

LOOK_S = 0.05


class Look(NamedTuple):
    """What was there at one moment: the engines' marks, and their processes by mark."""

    marks: frozenset[str]
    processes: frozenset[tuple[int, float, str]]


def look(command: subprocess.Popen[bytes] | WarmPytest) -> Look:
    there: set[tuple[int, float, str]] = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(command.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError):
                mark = process.environ().get(MARKER)
                if mark is not None and process.status() != psutil.STATUS_ZOMBIE:
                    there.add((process.pid, process.create_time(), mark))
    return Look(frozenset(mark for _, _, mark in there), frozenset(there))


def watch(command: subprocess.Popen[bytes] | WarmPytest, limit_s: float) -> list[Look]:
    """Look again and again until the command has ended, which is killed when it takes longer."""
    looks: list[Look] = []
    pause, timer = threading.Event(), threading.Timer(limit_s, command.kill)
    timer.start()
    while command.poll() is None:
        seen = look(command)
        if seen.marks and (not looks or looks[-1] != seen):
            looks.append(seen)
        pause.wait(LOOK_S)
    timer.cancel()
    return looks


def starts(looks: list[Look]) -> list[str]:
    """Return the marks in the order they were first seen."""
    return list(dict.fromkeys(mark for seen in looks for mark in sorted(seen.marks)))


def never_together(looks: list[Look]) -> None:
    """Nothing of two starts was there at one moment, and none began before the last of the one before was last seen."""
    assert [seen for seen in looks if len(seen.marks) > 1] == []
    everything = {process for seen in looks for process in seen.processes}
    order = starts(looks)
    for before, after in itertools.pairwise(order):
        latest = max(created for _, created, mark in everything if mark == before)
        earliest = min(created for _, created, mark in everything if mark == after)
        assert latest < earliest
