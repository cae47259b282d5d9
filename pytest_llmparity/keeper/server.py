"""The loop of the keeper process: one thread, one selector; answers on a Unix socket and watches its owner.

A connection says who it is in its first line, ``{"token", "pid"}``; every further line is a request, ``{"op", …}``,
and gets one line back, ``{"ok": …}`` or ``{"error": TEXT}``. What has to wait for processes to end first gets
``{"patience_s"}``: how long its answer may take.

Modules of the keeper import nothing but the standard library, and only its light parts: it is up in about a tenth of a
second.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any  # requests are JSON, written by our own client

from pytest_llmparity.keeper.engines import EngineProcess, EngineProcesses
from pytest_llmparity.keeper.removal import STEERING
from pytest_llmparity.keeper.tree import adopt_orphans

ORPHAN_GRACE_S = 1.0
"""What engines get to end by themselves once the owner is gone; nobody waits for them any more."""
_LAST_SWEEP_S = 2.0
REMOVALS = "removals"
"""The file beside the socket that has the commands by which containers are removed, a line of JSON each."""
_LINE_LIMIT = 16 * 1024 * 1024
_POLL_S = 0.5

Request = dict[str, Any]


class Connection:
    """One client connection: lines in, lines out."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.pid: int | None = None
        self.received = b""
        self.unsent = b""

    def fileno(self) -> int:
        """Let a selector watch it."""
        return self.sock.fileno()


class Server:
    """Everything one keeper knows. Binding happens here; :meth:`serve` runs until nothing is left to keep.

    ``apart``: the owner is not our parent.
    """

    def __init__(self, *, owner: int, token: str, directory: str, apart: bool = False) -> None:
        self._owner = owner
        self._apart = apart
        self._token = token
        self._directory = directory
        self._address = os.path.join(directory, "socket")
        self._engines = EngineProcesses(label=os.path.basename(directory), adopts=adopt_orphans())
        self._connections: set[Connection] = set()
        self._waiters: list[tuple[float, Connection, str]] = []
        self._stoppers: list[tuple[Connection, EngineProcess]] = []
        self._starters: list[tuple[Connection, Request]] = []
        self._closers: list[Connection] = []
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._watch_signals()
        self._watch_owner()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        bound = os.path.join(directory, "bound")
        self._listener.bind(bound)
        self._listener.listen(128)
        os.rename(bound, self._address)  # whoever is refused there may know that nobody listens any more
        self._listener.setblocking(False)
        self._on_readable(self._listener, self._accept)

    def serve(self) -> None:
        """Answer until closed or orphaned and every engine has ended, then remove what is ours."""
        while not (self._closing and not any(engine.ending for engine in self._engines.all())):
            for key, events in self._selector.select(self._patience()):
                key.data(events)
            if self._orphaned():
                self._close(ORPHAN_GRACE_S)
            self._engines.reap()
            self._engines.sweep(time.monotonic())
            self._settle(time.monotonic())
        self._engines.kill_everything(_LAST_SWEEP_S)
        for engine in self._engines.all():
            if engine.log is not None:
                engine.log.close()
        with contextlib.suppress(FileNotFoundError):  # somebody took us for dead; who closes is answered all the same
            os.unlink(self._address)
        import shutil  # only here: whoever starts a keeper waits for its imports

        shutil.rmtree(self._directory, ignore_errors=True)
        for connection in self._closers:
            self._send(connection, {"ok": None})

    # what is watched

    def _on_readable(self, source: int | socket.socket, act: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, lambda _: act())

    def _watch_signals(self) -> None:
        """Let SIGCHLD wake the loop and the signals that ask us to go end it in order.

        Handlers, not SIG_IGN: a handler is reset in the engines, an ignored signal stays ignored there, and whoever
        stops an engine by SIGINT would wait in vain when pytest itself runs in the background of a shell.
        """
        receiver, sender = socket.socketpair()
        receiver.setblocking(False)
        sender.setblocking(False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        self._wakeup = (receiver, sender)

        def woken() -> None:
            if set(receiver.recv(4096)) - {int(signal.SIGCHLD)}:
                self._close(ORPHAN_GRACE_S)

        self._on_readable(receiver, woken)

    def _watch_owner(self) -> None:
        """Notice the end of the owner by its process, whatever it forked, and by its pipe; see also ``_patience``."""

        def orphaned() -> None:
            self._close(ORPHAN_GRACE_S)

        def piped() -> None:
            if not os.read(0, 4096):
                self._selector.unregister(0)
                orphaned()

        self._polls = False
        try:
            if sys.platform == "linux":
                watch = os.pidfd_open(self._owner)
            else:
                queue = select.kqueue()
                ends = select.kevent(self._owner, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
                queue.control([ends], 0)
                self._queue, watch = queue, queue.fileno()

            def gone() -> None:
                self._selector.unregister(watch)
                orphaned()

            self._on_readable(watch, gone)
        except (OSError, AttributeError):
            # A kernel, a sandbox or a Python built without it, or the owner is gone already: our parent's id tells.
            self._polls = True
        self._on_readable(0, piped)

    def _orphaned(self) -> bool:
        """Tell whether the owner is gone; one that is not our parent is looked for by its number, where we poll."""
        if not self._apart:
            return os.getppid() != self._owner
        if not self._polls:
            return False
        try:
            os.kill(self._owner, 0)
        except ProcessLookupError:
            return True
        return False

    def _patience(self) -> float | None:
        now = time.monotonic()
        times = [deadline for deadline, _, _ in self._waiters]
        times += self._engines.deadlines(now)
        if self._polls:
            times.append(now + _POLL_S)
        return max(0.0, min(times) - now) if times else None

    def _watch_log(self, engine: EngineProcess) -> None:
        log = engine.log
        if log is None:
            return

        def wrote() -> None:
            if not log.copy():
                self._selector.unregister(log.fileno())
                log.close()

        self._on_readable(log.fileno(), wrote)

    # connections

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        connection = Connection(sock)
        self._connections.add(connection)
        self._selector.register(connection, selectors.EVENT_READ, lambda events: self._serve(connection, events))

    def _serve(self, connection: Connection, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                self._flush(connection)
            if not events & selectors.EVENT_READ:
                return
            received = connection.sock.recv(65536)
        except OSError:
            received = b""
        if not received:
            self._drop(connection)
            return
        connection.received += received
        if len(connection.received) > _LINE_LIMIT:
            self._drop(connection)
            return
        while b"\n" in connection.received and connection in self._connections:
            line, _, connection.received = connection.received.partition(b"\n")
            self._take(connection, line)

    def _take(self, connection: Connection, line: bytes) -> None:
        """Act on one line. Whoever cannot name the token or sends no JSON is refused and dropped."""
        try:
            request = json.loads(line)
            if connection.pid is None:
                if request["token"] != self._token:
                    raise ValueError("wrong token")
                connection.pid = int(request["pid"])
                return
            act = _OPS[request["op"]]
        except (ValueError, TypeError, KeyError) as error:
            self._send(connection, {"error": f"the keeper does not understand this request: {error!r}"})
            self._drop(connection)
            return
        act(self, connection, request)

    def _send(self, connection: Connection, reply: Request) -> None:
        if connection in self._connections:
            connection.unsent += json.dumps(reply).encode() + b"\n"
            self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        try:
            connection.unsent = connection.unsent[connection.sock.send(connection.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            return  # its end is read as an empty message
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
        self._selector.modify(connection, events, self._selector.get_key(connection).data)

    def _drop(self, connection: Connection) -> None:
        """Forget a connection: what it was starting has failed."""
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        self._selector.unregister(connection)
        connection.sock.close()
        for engine in self._engines.all():
            if engine.starter is connection and engine.state == "starting":
                reason = f"{engine.name}: the process that was starting it (pid {connection.pid}) went away"
                self._engines.fail(engine, f"{reason} before it was ready")

    # requests

    def _ping(self, connection: Connection, request: Request) -> None:
        self._send(connection, {"ok": None})

    def _start(self, connection: Connection, request: Request) -> None:
        if self._closing:
            self._send(connection, {"error": f"{request['name']} is not started: the keeper is closing"})
            return
        engine = self._engines.get(request["name"])
        first = engine is None or (engine.state == "stopped" and not engine.ending)
        if first:
            arguments = {key: value for key, value in request.items() if key != "op"}
            try:
                self._remember(request)
            except OSError as error:
                why = f"how its container is removed could not be noted in {self._directory}: {error.strerror}"
                self._send(connection, {"error": f"{request['name']} is not started: {why}"})
                return
            engine = self._engines.start(**arguments, starter=connection)
            self._watch_log(engine)
        elif engine is not None and engine.state == "stopped":
            self._send(connection, {"patience_s": engine.grace_s + engine.limit_s})
            self._starters.append((connection, request))  # until the old one has gone
            return
        self._answer(connection, request["name"], first=first)

    def _remember(self, request: Request) -> None:
        """Note how a container is removed, for whoever clears away after a keeper that was killed.

        No secret is on a runtime's command line, nor among the variables that are noted.
        """
        removal = request.get("removal")
        if removal is None:
            return
        env = {name: request["env"][name] for name in STEERING if name in request["env"]}
        entry = {"commands": removal["commands"], "left": removal["left"], "env": env}
        with open(os.path.join(self._directory, REMOVALS), "a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps(entry)}\n")  # on a line of its own, also after one that did not fit on the disk

    def _state(self, connection: Connection, request: Request) -> None:
        self._answer(connection, request["name"])

    def _members(self, connection: Connection, request: Request) -> None:
        self._send(connection, {"ok": sorted(self._engines.left(request["name"]))})

    def _answer(self, connection: Connection, name: str, *, first: bool = False) -> None:
        engine = self._engines.get(name)
        wire = {"name": name, "state": "absent"} if engine is None else engine.wire()
        self._send(connection, {"ok": {**wire, "first": first}})

    def _wait(self, connection: Connection, request: Request) -> None:
        self._waiters.append((time.monotonic() + request["timeout_s"], connection, request["name"]))

    def _announce(self, connection: Connection, request: Request) -> None:
        engine = self._engines.get(request["name"])
        if engine is None or engine.state not in ("starting", "ready"):
            why = "it was never started" if engine is None else engine.reason or f"it is {engine.state}"
            self._send(connection, {"error": f"{request['name']!r} cannot be announced as ready: {why}"})
            return
        engine.state, engine.info, engine.starter = "ready", request["info"], None
        self._answer(connection, engine.name)

    def _fail(self, connection: Connection, request: Request) -> None:
        engine = self._engines.get(request["name"])
        if engine is None or engine.state == "stopped":
            self._send(connection, {"error": f"{request['name']!r} cannot fail: it is not running"})
            return
        self._engines.fail(engine, request["reason"])
        self._answer(connection, engine.name)

    def _stop(self, connection: Connection, request: Request) -> None:
        engine = self._engines.get(request["name"])
        if engine is None:
            self._answer(connection, request["name"])
            return
        engine.state = "stopped"
        self._engines.end(engine, engine.grace_s)
        self._send(connection, {"patience_s": engine.grace_s + engine.limit_s})
        self._stoppers.append((connection, engine))

    def _shut(self, connection: Connection, request: Request) -> None:
        longest = max((engine.grace_s + engine.limit_s for engine in self._engines.all()), default=0.0)
        self._send(connection, {"patience_s": longest + _LAST_SWEEP_S})
        self._closers.append(connection)
        self._close(float("inf"))

    def _close(self, grace_s: float) -> None:
        """End every engine, each within its own grace, ``grace_s`` at most; the loop ends with the last of them."""
        self._closing = True
        for engine in self._engines.all():
            if engine.state in ("starting", "ready"):
                engine.state, engine.reason = "stopped", "the keeper is closing"
            self._engines.end(engine, min(grace_s, engine.grace_s))

    # what was put off

    def _settle(self, now: float) -> None:
        """Answer everyone whose wait is over."""
        waiters, self._waiters = self._waiters, []
        for deadline, connection, name in waiters:
            engine = self._engines.get(name)
            if engine is not None and engine.state == "starting" and now < deadline:
                self._waiters.append((deadline, connection, name))
            else:
                self._answer(connection, name)
        stoppers, self._stoppers = self._stoppers, []
        for connection, engine in stoppers:
            if engine.ending:
                self._stoppers.append((connection, engine))
            else:
                self._answer(connection, engine.name)
        starters, self._starters = self._starters, []
        for connection, request in starters:
            if connection not in self._connections:
                continue
            engine = self._engines.get(request["name"])
            if engine is not None and engine.ending and not self._closing:
                self._starters.append((connection, request))
            else:
                self._start(connection, request)


_OPS: dict[str, Callable[[Server, Connection, Request], None]] = {
    "ping": Server._ping,
    "start": Server._start,
    "state": Server._state,
    "wait": Server._wait,
    "announce": Server._announce,
    "fail": Server._fail,
    "stop": Server._stop,
    "members": Server._members,
    "close": Server._shut,
}


def main() -> None:
    """Be the keeper process: serve one owner until it closes or is gone; then nothing that was started here is left.

    Its standard input has one line of JSON: ``{"owner": PID, "token": TEXT, "directory": PATH, "apart": BOOL}``.
    It listens on ``directory/socket``, writes ``ready PID`` and a newline to its standard output, and removes the
    directory at the end.
    """
    line = b""
    while not line.endswith(b"\n"):  # unbuffered: the rest of standard input is watched as a pipe
        byte = os.read(0, 1)
        if not byte:
            return
        line += byte
    order = json.loads(line)
    server = Server(owner=order["owner"], token=order["token"], directory=order["directory"], apart=order["apart"])
    os.write(1, f"ready {os.getpid()}\n".encode())
    os.dup2(2, 1)
    server.serve()
