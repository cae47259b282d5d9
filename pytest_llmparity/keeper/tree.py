"""Finding and killing whole process trees, re-parented and detached members included. Part of the keeper process.

Standard library only: the keeper must be up within a fraction of a second (see ``server``).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping

MARKER = "_LLMPARITY_ENGINE"
"""Environment variable every engine is started with; it tells whose a process is once its parents are gone."""

Table = dict[int, tuple[int, int, int]]
"""Process id to (parent, process group, session); zombies are left out."""

_PASSES = 100
"""Rounds of stopping before killing. Two are enough unless something forks faster than we read the table."""


def adopt_orphans() -> bool:
    """Become the parent of every descendant whose own parent dies; ``False`` where the system has no such thing.

    ``prctl(PR_SET_CHILD_SUBREAPER)`` of Linux 3.4: without it a process that forks twice belongs to init and is
    found no more.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    pr_set_child_subreaper = 36
    return bool(ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0) == 0)


def read_table() -> Table:
    """Return every process there is now."""
    return proc_table() if sys.platform == "linux" else ps_table()


def proc_table(root: str = "/proc") -> Table:
    """Return every process from Linux' ``/proc/<pid>/stat`` (proc(5))."""
    table: Table = {}
    for entry in os.listdir(root):
        if not entry.isdigit():
            continue
        try:
            with open(f"{root}/{entry}/stat", "rb") as file:
                # The command in parentheses may itself hold spaces and parentheses.
                state, parent, group, session = file.read().rpartition(b")")[2].split()[:4]
        except (OSError, ValueError):
            continue  # gone between the two reads
        if state not in (b"Z", b"X"):
            table[int(entry)] = (int(parent), int(group), int(session))
    return table


def ps_table() -> Table:
    """Return every process from ``ps``, which macOS and Linux have; the session is not told there and left 0."""
    lister = subprocess.Popen(["ps", "-A", "-o", "pid=,ppid=,pgid=,stat="], stdout=subprocess.PIPE)
    listed = lister.communicate()[0]
    table: Table = {}
    for line in listed.splitlines():
        pid, parent, group, state = line.split()[:4]
        if int(pid) != lister.pid and not state.startswith(b"Z"):
            table[int(pid)] = (int(parent), int(group), 0)
    return table


def descendants(table: Mapping[int, tuple[int, int, int]], roots: Iterable[int]) -> set[int]:
    """Return every process below the roots, the roots themselves left out."""
    children: dict[int, list[int]] = {}
    for pid, (parent, _, _) in table.items():
        children.setdefault(parent, []).append(pid)
    below: set[int] = set()
    ahead = list(roots)
    while ahead:
        new = [pid for pid in children.get(ahead.pop(), ()) if pid not in below]
        below.update(new)
        ahead.extend(new)
    return below.difference(roots)


def members(
    table: Table, *, main: int, marker: str, keeper: int, adopts: bool, marker_of: Callable[[int], str | None]
) -> set[int]:
    """Return what is left of one engine: its first process, all below it, and what was re-parented away from it.

    Where orphans come to the keeper (``adopts``), an orphan is the engine's when it is in the engine's session or
    carries its marker. Elsewhere only the process group tells; one that left both tree and group is not found.
    """
    roots = set()
    for pid, (parent, group, session) in table.items():
        if adopts:
            if parent == keeper and (main in (pid, group, session) or marker_of(pid) == marker):
                roots.add(pid)
        elif group == main:
            roots.add(pid)
    return roots | descendants(table, roots)


def marker_of(pid: int) -> str | None:
    """Return the marker a process was started with (Linux), ``None`` when it has none or cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:
        return None
    start = f"{MARKER}=".encode()
    for variable in variables:
        if variable.startswith(start):
            return variable[len(start) :].decode("utf-8", "replace")
    return None


def kill_all(find: Callable[[], set[int]]) -> set[int]:
    """Kill everything ``find`` returns and return it. What was killed may take a moment to be gone.

    All are stopped before one is killed, until a search finds nothing new: something that keeps starting processes
    would otherwise stay ahead of us.
    """
    stopped: set[int] = set()
    for _ in range(_PASSES):
        new = find() - stopped
        if not new:
            break
        for pid in new:
            send(pid, signal.SIGSTOP)
        stopped |= new
    for pid in stopped:
        send(pid, signal.SIGKILL)
    return stopped


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone or, run by ``sudo``, not ours to signal."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
