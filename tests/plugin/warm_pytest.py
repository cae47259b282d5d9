"""Pytest as a process of its own that has imported all before it begins: a fork of one that did nothing but import.

A run of two gates spends most of its time on imports. Run as a script, with the number of a socket, this imports
what a run does and then, for each message, forks: the fork gets its own session, folder, environment and files, is
pytest from its first line to the interpreter's last, and dies of signals as any. Only where forks after imports are
safe, which they are not on macOS.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

MODULES = (
    *("pytest", "xdist.plugin", "xdist.looponfail", "pytest_asyncio.plugin", "pytest_timeout", "anyio.pytest_plugin"),
    *("pytest_llmparity.check", "pytest_llmparity.plugin.door", "httpx", "httpcore", "httpcore2", "openai", "yaml"),
    *("numpy", "sqlite3", "psutil"),
)
"""What a run with engines imports, as far as it is installed."""
MESSAGE_SIZE = 1 << 20
SAFE = sys.platform == "linux"


class WarmPytest:
    """A running pytest, as far as ``subprocess.Popen`` is asked for here."""

    def __init__(self, link: socket.socket) -> None:
        self.pid = int(self._next(link))
        self._link = link
        self._code: int | None = None

    @staticmethod
    def _next(link: socket.socket) -> str:
        message = link.recv(64).decode()
        if not message:
            raise EOFError("whoever waits for the warm pytest is gone")
        return message

    def poll(self) -> int | None:
        """Return the exit code, the negative number of a signal, or ``None`` while it runs."""
        with contextlib.suppress(TimeoutError, BlockingIOError):
            return self.wait(0)
        return None

    def wait(self, timeout: float) -> int:
        """Return the exit code, or the negative number of the signal that ended it, once it has ended."""
        if self._code is None:
            self._link.settimeout(timeout)
            self._code = int(self._next(self._link))
            self._link.close()
        return self._code

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)


class Nursery:
    """The process that forks; it ends with whoever holds this."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], start_new_session=True)

    def fork(self, args: Sequence[str], folder: Path, env: Mapping[str, str], stdin: int, stdout: int) -> WarmPytest:
        """Return a new pytest with these arguments, which reads and writes these open files."""
        link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            message = json.dumps({"args": list(args), "folder": str(folder), "env": dict(env)}).encode()
            socket.send_fds(self._socket, [message], [theirs.fileno(), stdin, stdout])
        return WarmPytest(link)

    def close(self) -> None:
        """Let it end: what it forked goes on."""
        self._socket.close()
        self._process.wait()


def forked(requests: socket.socket) -> list[str] | None:
    """Return the arguments of pytest in each fork, and ``None`` in the process that forks, when its holder is gone."""
    while True:
        message, files, _, _ = socket.recv_fds(requests, MESSAGE_SIZE, 3)
        if not message:
            return None
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            requests.close()
            break
        for file in files:
            os.close(file)
    link, stdin, stdout = files
    pid = os.fork()
    if pid:  # waits for the other, and says how it ended
        os.close(stdin)
        os.close(stdout)
        os.write(link, str(pid).encode())
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):  # nobody may wait for it any more
            os.write(link, str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    os.close(link)
    os.setsid()
    for file, standard in ((stdin, 0), (stdout, 1), (stdout, 2)):
        os.dup2(file, standard)
    os.close(stdin)
    os.close(stdout)
    asked = json.loads(message)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["env"])
    return list(asked["args"])


def reap(*_: object) -> None:
    """Take leave of those that waited for a pytest, so that what they cost counts."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main() -> int:
    """Import, then fork until nobody asks any more; in the forks, ``python -m pytest`` with what was asked for."""
    for name in MODULES:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    signal.signal(signal.SIGCHLD, reap)
    args = forked(socket.socket(fileno=int(sys.argv[1])))
    if args is None:
        return 0
    # What was imported before pytest began cannot be rewritten, and nobody here reads the package's own assertions.
    sys.argv = ["pytest", "-W", "ignore::pytest.PytestAssertRewriteWarning", *args]
    sys.path[0] = os.getcwd()
    runpy.run_module("pytest", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
