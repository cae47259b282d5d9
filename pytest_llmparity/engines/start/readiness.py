"""Waiting until an engine can answer, while watching that it is still alive."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from typing import Final, Protocol

from pytest_llmparity.core.errors import LaunchError

THEIRS: Final = "Start it, or correct its address."
"""The next step where a server that somebody else starts does not answer."""
POLL_S: Final = 0.1
"""Pause between two questions: short beside any start-up, long beside a loopback answer."""


class Startable(Protocol):
    """What is waited for."""

    @property
    def name(self) -> str:
        """The engine's name in this run."""

    def ready(self) -> str | None:
        """Return ``None`` when it can answer, else why not yet."""


def wait_ready(
    adapter: Startable,
    alive: Callable[[], str | None],
    deadline_s: float,
    *,
    longer: str = "Raise start_timeout_s if it needs longer.",
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> float:
    """Return the seconds it took until ``adapter`` was ready.

    ``alive`` returns ``None`` while the process runs and how it ended (exit status, last log lines) once it does not;
    then ``LaunchError`` is raised at once, not after the deadline. Past ``deadline_s`` the error says what the server
    last answered, and ``longer``, the next step. An adapter that raises (key refused, another server on the port) ends
    the wait too.
    """
    began = clock()
    while True:
        # Liveness comes first: if our process is gone, whoever answers on its port is not ours.
        ended = alive()
        if ended is not None:
            raise LaunchError(f"{adapter.name} did not start: {ended}", engine=adapter.name)
        why = adapter.ready()
        took = clock() - began
        if why is None:
            return took
        if took >= deadline_s:
            raise LaunchError(
                f"{adapter.name} was not ready after {deadline_s:g} s: {why}. {longer}", engine=adapter.name
            )
        pause(min(POLL_S, max(0.0, deadline_s - took)))


def free_port() -> int:
    """Return a loopback port that was free a moment ago; whoever uses it must be ready to try another."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_listened_to(port: int) -> bool:
    """Tell whether somebody listens on a loopback port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def port_was_taken(log_tail: str) -> bool:
    """Tell from an engine's last log lines whether it ended because another process had its port (then try another)."""
    words = log_tail.lower()
    taken = r"address already in use|errno (98|48)|(couldn't|could not|failed to) bind|port is already allocated"
    return re.search(taken, words) is not None
