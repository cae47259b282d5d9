"""What is left of an engine beside its processes, and how it is removed: a container. Part of the keeper process.

A container's runtime is a program that is asked by command lines: one says what became of the container, some remove
it, one lists it as long as it is there. They are children of the keeper like engines are; the loop never waits for one.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from pytest_llmparity.keeper import tree

COMMAND_S: Final = 10.0
"""What one command gets; a runtime whose daemon hangs answers never."""
_AGAIN_S: Final = 0.2
"""Pause before what is still listed is removed once more."""
_MOST: Final = 60_000
"""Bytes of a command's output that are read: less than a pipe holds, so that none waits for us."""
_TAIL: Final = 300
STEERING: Final = (
    *("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
    *("DBUS_SESSION_BUS_ADDRESS", "DOCKER_API_VERSION", "DOCKER_CERT_PATH", "DOCKER_CONFIG", "DOCKER_CONTEXT"),
    *("DOCKER_HOST", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "CONTAINER_CONNECTION", "CONTAINER_HOST", "CONTAINER_SSHKEY"),
    *("CONTAINERS_CONF", "CONTAINERS_CONF_OVERRIDE", "CONTAINERS_STORAGE_CONF", "STORAGE_DRIVER", "STORAGE_OPTS"),
)
"""Variables that tell a runtime's client where its containers are: addresses, folders and names, none a secret
(docker(1), podman(1), containers-storage.conf(5))."""


class Removal:
    """Removes what an engine leaves; :meth:`advance` is called again and again until ``done``.

    ``state`` is a command whose output is kept as :attr:`told`; then come ``commands``, whatever they return, and
    ``left``, whose output is empty once nothing is left. ``env`` is the environment of all of them.
    """

    def __init__(
        self,
        state: Sequence[str],
        commands: Sequence[Sequence[str]],
        left: Sequence[str],
        *,
        env: Mapping[str, str],
    ) -> None:
        self.told = ""
        """What the state's command said."""
        self.asked = False
        """Whether it was asked."""
        self.done = False
        self.words = ""
        """What the last command that failed had to say."""
        self._state = list(state)
        self._commands = [list(command) for command in commands]
        self._left = list(left)
        self._env = {name: value for name, value in env.items() if name != tree.MARKER}
        self._pending: list[list[str]] = []
        self._running: subprocess.Popen[bytes] | None = None
        self._argv: list[str] = []
        self._until = 0.0
        self._pause_until = 0.0
        self._looked = False

    def ask(self, now: float) -> None:
        """Ask what became of the container, without removing anything."""
        if not self.asked and self._running is None:
            self._run(self._state, now)

    def advance(self, now: float) -> None:
        """Start the next command where none is running."""
        if self.done or self._running is not None or now < self._pause_until:
            return
        if not self.asked:
            self._run(self._state, now)
            return
        if not self._pending:
            self._pending = [*self._commands, self._left]
        self._run(self._pending.pop(0), now)

    def check_again(self) -> bool:
        """Once all processes have gone, see whether the container is back; ``False`` where that was done."""
        if self._looked or not self.done:
            return False
        self._looked, self.done, self._pending = True, False, [self._left]
        return True

    @property
    def pid(self) -> int | None:
        """The process of the command that is running."""
        return None if self._running is None else self._running.pid

    def expire(self, now: float) -> None:
        """Kill a command that takes too long."""
        if self._running is not None and now > self._until:
            tree.send(self._running.pid, signal.SIGKILL)

    def ended(self, code: int, now: float) -> None:
        """Take note of the end of the running command."""
        process, self._running = self._running, None
        assert process is not None
        process.returncode = code
        out, err = _read(process.stdout), _read(process.stderr)
        if code != 0:
            self.words = (err.strip().splitlines() or [f"exit code {code}"])[-1][:_TAIL]
        if self._argv is self._state:
            self.asked, self.told = True, out if code == 0 else ""
        elif self._argv is self._left:
            self.done = code == 0 and not out.strip()
            self._pause_until = now + _AGAIN_S

    def deadline(self, now: float) -> float:
        """Return when there is something to do again, unless a command ends before."""
        return self._until if self._running is not None else max(now, self._pause_until)

    def _run(self, argv: list[str], now: float) -> None:
        self._argv, self._until = argv, now + COMMAND_S
        try:
            self._running = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env=self._env,
                start_new_session=True,
            )
        except OSError as error:
            self.words, self._pause_until = str(error)[:_TAIL], now + _AGAIN_S
            self.asked = True

    def by_hand(self) -> str:
        """Return the command with which a person removes what is left."""
        return " ".join(self._commands[-1])


def _read(pipe: object) -> str:
    """Return what is in a pipe now and close it; whoever inherited its other end is not waited for."""
    assert pipe is not None
    descriptor = pipe.fileno()  # type: ignore[attr-defined]
    os.set_blocking(descriptor, False)
    try:
        return os.read(descriptor, _MOST).decode("utf-8", "replace")
    except BlockingIOError:
        return ""
    finally:
        pipe.close()  # type: ignore[attr-defined]
