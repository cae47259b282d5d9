"""The small process that owns engine processes, seen from pytest and its xdist workers: start, stop, close.

:meth:`Keeper.spawn` starts it, its ``address`` goes to the workers as a plain string, :meth:`Keeper.connect` uses it
there. Whatever happens to pytest, ``kill -9`` included, no engine process outlives it by more than a few seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from pytest_llmparity.core.errors import KeeperError, StoreError, advice
from pytest_llmparity.core.words.hiding import NOTHING, TextMask
from pytest_llmparity.core.words.printable import elide, printable
from pytest_llmparity.keeper import leftovers
from pytest_llmparity.store.folder import own_folder, refuse_link

if TYPE_CHECKING:
    import psutil

Lifecycle = Literal["absent", "starting", "ready", "failed", "exited", "stopped"]

_UP_S = 30.0
_ANSWER_S = 30.0
"""The keeper answers within a millisecond; this is for a machine that swaps."""
_KILLED_S = 1.0
_SOCKET_PATH_LIMIT = 100
"""``sun_path`` holds 104 bytes on macOS and 108 on Linux."""
_SOCKET_NAME = 40
"""Bytes an engine's own name of a socket may have: vLLM's are a UUID."""
_TAIL_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineState:
    """One engine as the keeper sees it.

    ``absent``: never started. ``starting``: its process runs, nobody has announced it. ``ready``: announced; ``info``
    is what the starter announced. ``failed``: could not be started, or the starter said so or went away. ``exited``:
    its process ended by itself. ``stopped``: it was asked to. ``reason`` says why in a sentence. ``returncode`` is the
    exit code, negative for a signal, ``None`` while the process runs. ``container`` is what was said of its container
    when it ended, as ``state`` of a :class:`Removal` asks for it. ``first`` is true for the one caller whose
    ``start`` started it: that one must announce or fail it.
    """

    name: str
    state: Lifecycle
    pid: int | None = None
    returncode: int | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    container: str = ""
    first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Commands for what an engine has beside its processes: a container.

    ``state`` is run when its process has ended by itself and says what became of the container; ``commands`` remove it,
    whatever happened before, and are repeated until ``left`` prints nothing.
    """

    state: Sequence[str]
    commands: Sequence[Sequence[str]]
    left: Sequence[str]


_ROOT = str(Path(__file__).resolve().parents[2])
PROGRAM = f"import sys; sys.path.append({_ROOT!r}); from pytest_llmparity.keeper.server import main; main()"
"""What the isolated Python of the keeper runs, which knows nothing but the standard library: ours comes last, so that
what lies beside this package can hide nothing."""

APART = "import os\nif os.fork(): os._exit(0)\n"
"""What makes a process the child of nobody who started it."""


class Keeper:
    """A connection to the keeper process; may be used from several threads at once. Made by spawn or connect.

    Every method raises :class:`KeeperError` when the keeper is gone or refuses.
    """

    def __init__(
        self,
        address: str,
        *,
        process: subprocess.Popen[bytes] | None = None,
        apart: psutil.Process | None = None,
    ) -> None:
        """``process`` is what :meth:`spawn` started; ``apart`` the keeper itself, where that is another one."""
        self.address = address
        self._process = process
        self._apart = apart
        self._home = os.getpid()
        self._starting: dict[str, _Line] = {}
        self._lock = threading.Lock()

    @property
    def label(self) -> str:
        """A text that no other keeper has."""
        return Path(self.address.partition("@")[2]).parent.name

    def sockets(self) -> Path | None:
        """Return a folder for sockets of engines, which goes with the keeper; ``None`` where its path is too long."""
        folder = Path(self.address.partition("@")[2]).parent / "ipc"
        if len(os.fsencode(folder)) + _SOCKET_NAME > _SOCKET_PATH_LIMIT:
            return None
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    @classmethod
    def spawn(cls, workdir: Path, *, apart: bool = False) -> Keeper:
        """Start a keeper that lives as long as this process; what it has to complain about goes to its log there.

        What keepers of this user left that were killed together with their pytest is cleared away before.

        ``apart``: it is no child of this process, which may be of those that kill their children when they end, the
        keeper first and nobody after it (a worker of Ray).
        """
        if sys.platform == "win32":
            raise KeeperError(
                "engines cannot be started on Windows, only attached to: start the server yourself and give its "
                "base_url (or run pytest inside WSL)"
            )
        try:
            log = refuse_link(own_folder(workdir) / "keeper.log")
        except StoreError as error:
            raise KeeperError(str(error)) from error
        leftovers.sweep()
        token, directory = secrets.token_hex(16), _private_directory()
        try:
            leftovers.note_owner(directory)
            with os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as complaints:
                process = subprocess.Popen(
                    [sys.executable, "-I", "-c", f"{APART}{PROGRAM}" if apart else PROGRAM],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=complaints,
                    cwd="/",
                    start_new_session=True,
                )
            order = {"owner": os.getpid(), "token": token, "directory": str(directory), "apart": apart}
            pid = _wait_up(process, order, log)
        except BaseException as error:
            shutil.rmtree(directory, ignore_errors=True)
            if isinstance(error, OSError):
                file = "" if error.filename is None else f"{error.filename}: "
                raise KeeperError(f"the engine keeper could not be started: {file}{advice(error)}") from error
            raise
        itself = None
        if apart:
            process.wait()  # it has left the keeper behind
            itself = _process_of(pid)
        return cls(f"{token}@{directory / 'socket'}", process=process, apart=itself)

    @classmethod
    def connect(cls, address: str) -> Keeper:
        """Return a client of the keeper that another process spawned, by that keeper's ``address``."""
        keeper = cls(address)
        keeper._ask({"op": "ping"})
        return keeper

    def start(
        self,
        name: str,
        *,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str | Path,
        log: str | Path,
        stop_signal: int,
        grace_s: float,
        secrets: Mapping[str, str] | None = None,
        removal: Removal | None = None,
    ) -> EngineState:
        """Start a process unless one of this name was started before; exactly one caller gets ``first``.

        The process gets exactly ``env`` (and one variable by which its descendants are found), an empty standard
        input, and writes to ``log``, which is emptied first and only this user can read; the values of ``secrets`` are
        replaced by their names on the way. It starts anew only after :meth:`stop`. ``stop_signal``
        and ``grace_s`` (seconds) say how it is asked to end and how long it may take before it is killed. With a
        ``removal`` the process is the client of a container's runtime.
        """
        request = {
            "op": "start",
            "name": name,
            "argv": list(argv),
            "env": dict(env),
            "cwd": os.path.abspath(cwd),
            "log": os.path.abspath(log),
            "secrets": dict(secrets or {}),
            "stop_signal": int(stop_signal),
            "grace_s": grace_s,
            **({} if removal is None else {"removal": asdict(removal)}),
        }
        line = self._dial()
        try:
            state = _state(line.ask(request, _ANSWER_S))
        except BaseException:
            line.close()
            raise
        if state.first and state.state == "starting":
            self._hold(name, line)  # while it lives the others know that somebody cares for this engine
        else:
            line.close()
        return state

    def state(self, name: str) -> EngineState:
        """Return what is known of an engine now; the end of its process is noticed at once."""
        return _state(self._ask({"op": "state", "name": name}))

    def wait(self, name: str, timeout_s: float) -> EngineState:
        """Return the engine's state once it is not ``starting``, or after ``timeout_s`` seconds as it is then."""
        request = {"op": "wait", "name": name, "timeout_s": timeout_s}
        return _state(self._ask(request, wait_s=timeout_s))

    def announce(self, name: str, info: Mapping[str, Any]) -> EngineState:
        """Tell everyone that the engine is ready; ``info`` is JSON. Refused when its process has ended."""
        return self._settled({"op": "announce", "name": name, "info": dict(info)})

    def fail(self, name: str, reason: str) -> EngineState:
        """Tell everyone that the engine cannot be used and why; its processes are ended in the background."""
        return self._settled({"op": "fail", "name": name, "reason": reason})

    def stop(self, name: str) -> EngineState:
        """End an engine and everything it started, and return when nothing of it is left."""
        return self._settled({"op": "stop", "name": name})

    def members(self, name: str) -> tuple[int, ...]:
        """Return the processes there are of an engine now, everything it started included; empty when all have gone."""
        return tuple(cast("list[int]", self._ask({"op": "members", "name": name})))

    def close(self) -> None:
        """Disconnect; the process that spawned the keeper stops every engine, then the keeper. May be called again."""
        with self._lock:
            lines, self._starting = list(self._starting.values()), {}
            process, self._process = self._process, None
        if process is not None and os.getpid() == self._home:
            try:
                self._ask({"op": "close"})
                process.wait(_ANSWER_S)
            except (KeeperError, subprocess.TimeoutExpired):
                process.kill()
                process.wait()
                _kill(self._apart)
                leftovers.clear(Path(self.address.partition("@")[2]).parent)
            finally:
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        pipe.close()
        for line in lines:
            line.close()

    def _settled(self, request: Mapping[str, Any]) -> EngineState:
        """Return the state of an engine that was settled by this request: nobody is starting it any more."""
        state = _state(self._ask(request))
        self._hold(state.name, None)
        return state

    def _hold(self, name: str, line: _Line | None) -> None:
        with self._lock:
            old = self._starting.pop(name, None)
            if line is not None:
                self._starting[name] = line
        if old is not None:
            old.close()

    def _dial(self) -> _Line:
        token, _, path = self.address.partition("@")
        return _Line(path, token)

    def _ask(self, request: Mapping[str, object], *, wait_s: float = 0.0) -> object:
        with contextlib.closing(self._dial()) as line:
            return line.ask(request, wait_s + _ANSWER_S)


class _Line:
    """One connection to the keeper: a request at a time, each with one answer."""

    def __init__(self, path: str, token: str) -> None:
        self._path = path
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            raise KeeperError(f"the engine keeper at {path} cannot be asked: {advice(error)}") from error
        self._socket.settimeout(_ANSWER_S)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise self._gone(error) from error
        self._answers = self._socket.makefile("rb")
        self._hello = {"token": token, "pid": os.getpid()}

    def ask(self, request: Mapping[str, object], timeout_s: float) -> object:
        """Send a request and return its answer, within ``timeout_s`` seconds."""
        hello, self._hello = self._hello, {}
        lines = [json.dumps(part) for part in (hello, request) if part]
        try:
            self._socket.sendall(("\n".join(lines) + "\n").encode())
            self._socket.settimeout(timeout_s)
            while True:
                answer = self._answers.readline()
                if not answer.endswith(b"\n"):
                    raise self._gone("it closed the connection")
                reply = cast("dict[str, Any]", json.loads(answer))
                if "patience_s" not in reply:
                    break
                self._socket.settimeout(reply["patience_s"] + _ANSWER_S)
        except TimeoutError as error:
            text = f"the engine keeper at {self._path} did not answer {request['op']!r} in time; is it stopped?"
            raise KeeperError(text) from error
        except OSError as error:
            raise self._gone(error) from error
        if "error" in reply:
            raise KeeperError(reply["error"])
        return cast("object", reply["ok"])

    def close(self) -> None:
        """Hang up."""
        self._answers.close()
        self._socket.close()

    def _gone(self, why: object) -> KeeperError:
        return KeeperError(
            f"the engine keeper at {self._path} is gone ({why}), and every engine it started with it: it ends with "
            "the pytest process that spawned it"
        )


def log_tail(path: str | Path, lines: int = 20, *, width: int = 300, mask: TextMask = NOTHING) -> str:
    """Return the last lines of a log with control sequences escaped and long lines elided; empty without a log.

    Of a line that rewrites itself (a progress bar) the last version is shown, as in a terminal. What ``mask`` knows is
    hidden before anything is cut.
    """
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            begin = max(0, file.tell() - _TAIL_BYTES)
            file.seek(begin)
            read = mask.binary(file.read(), torn=True)
            text = read.decode("utf-8", "replace")
    except OSError:
        return ""
    shown = [line.rstrip("\r").rpartition("\r")[2].expandtabs(4).rstrip() for line in text.split("\n")]
    return "\n".join(elide(printable(line), width) for line in [line for line in shown if line][-lines:])


def _state(answer: object) -> EngineState:
    return EngineState(**cast("dict[str, Any]", answer))


def _private_directory() -> Path:
    """Return a new directory only this user can enter, with a path short enough for a socket inside."""
    try:
        directory = Path(tempfile.mkdtemp(prefix=leftovers.PREFIX))
        if len(os.fsencode(directory / "socket")) < _SOCKET_PATH_LIMIT:
            return directory
        directory.rmdir()
        return Path(tempfile.mkdtemp(prefix=leftovers.PREFIX, dir="/tmp"))
    except OSError as error:
        raise KeeperError(f"the engine keeper needs a temporary folder for its socket: {error}") from error


def _process_of(pid: int) -> psutil.Process | None:
    """Return a process by its number, which may be of another one later; ``None`` where it has ended."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid)
    return None


def _kill(process: psutil.Process | None) -> None:
    """Kill a process that is no child of ours, unless it has ended; its number is no other's by then."""
    import psutil

    if process is not None:
        with contextlib.suppress(psutil.Error):
            process.kill()
            process.wait(_KILLED_S)


def _wait_up(process: subprocess.Popen[bytes], order: Mapping[str, object], log: Path) -> int:
    """Tell a new keeper what to keep, wait until it listens, and return its process's number."""
    assert process.stdin is not None
    assert process.stdout is not None
    ready = b""
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if selector.select(_UP_S):
                ready = process.stdout.readline()
    finally:
        pid = _pid_in(ready)
        if pid is None:
            process.kill()
            process.wait()
            process.stdout.close()
            with contextlib.suppress(BrokenPipeError):  # what it was to be told and did not wait for
                process.stdin.close()
    if pid is None:
        raise KeeperError(
            f"the engine keeper did not start (exit code {process.returncode}); its log {log} ends:\n{log_tail(log)}"
        )
    return pid


def _pid_in(ready: bytes) -> int | None:
    """Return what a keeper says of itself once it listens, ``None`` where that is not what it said."""
    word, _, pid = ready.partition(b" ")
    return int(pid) if word == b"ready" and pid.strip().isdigit() and pid.endswith(b"\n") else None
