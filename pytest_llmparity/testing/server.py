"""The HTTP side both doubles share: a threaded loopback server that stops at once, whatever its handlers wait for."""

from __future__ import annotations

import abc
import contextlib
import selectors
import socket
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import BinaryIO, Self

_LINE_BYTES = 64 * 1024
_PHRASES = {int(status): status.phrase for status in HTTPStatus}
"""What stands behind a status; ``http.client`` has the same, and takes as long to import as all else here."""


class Hangup(Exception):  # not an error of ours: the handler ends the connection on purpose
    """Ends the connection without another byte."""


@dataclass(repr=False)  # it holds keys
class Call:
    """One request as a double sees it, and the ways to answer it."""

    connection: socket.socket
    stopping: threading.Event
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    last: bool = False
    """Whether the connection ends with this answer."""

    def wait(self, seconds: float | None) -> None:
        """Let time pass (``None``: until the server stops); a stopping server ends the connection instead."""
        if self.stopping.is_set() or (seconds != 0 and self.stopping.wait(seconds)):
            raise Hangup

    def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Answer with a whole body."""
        more = {"content-type": "application/json", **(headers or {}), "content-length": str(len(body))}
        self.connection.sendall(self._head(status, more) + body)

    def stream(self, pieces: Iterable[bytes], headers: Mapping[str, str] | None = None) -> None:
        """Answer with an event stream, as :meth:`begin` does, all of it in one write."""
        self.connection.sendall(b"".join((self._chunked(200, headers), *map(_chunk, pieces), _chunk(b""))))

    def begin(self, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Begin a chunked answer, an event stream unless the headers say otherwise."""
        self.connection.sendall(self._chunked(status, headers))

    def chunk(self, piece: bytes) -> None:
        """Send one piece of a chunked answer in one write."""
        self.connection.sendall(_chunk(piece))

    def end(self) -> None:
        """End a chunked answer."""
        self.connection.sendall(_chunk(b""))

    def _chunked(self, status: int, headers: Mapping[str, str] | None) -> bytes:
        more = {"content-type": "text/event-stream", **(headers or {}), "transfer-encoding": "chunked"}
        return self._head(status, more)

    def _head(self, status: int, headers: Mapping[str, str]) -> bytes:
        lowered = {name.lower(): value for name, value in headers.items()}
        self.last = self.last or lowered.get("connection", "").lower() == "close"
        lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, '')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join((*lines, "", "")).encode("latin-1")


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


class LoopbackServer(abc.ABC):
    """A server on 127.0.0.1 that runs between ``start`` and ``stop``; usable as a context manager.

    ``accepting`` ``False`` closes every new connection at once, as a server that is going down does.
    """

    def __init__(self, port: int = 0) -> None:
        self.accepting = True
        self._wanted_port = port
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._waker: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._connections: set[socket.socket] = set()
        self._guard = threading.Lock()

    @abc.abstractmethod
    def answer(self, call: Call) -> None:
        """Answer one request; called in a thread of its own."""

    @property
    def port(self) -> int:
        """The port, known once it was started."""
        if self._listener is None:
            raise RuntimeError(f"{type(self).__name__} has not been started: use it in a with statement")
        return int(self._listener.getsockname()[1])

    @property
    def base_url(self) -> str:
        """The server's root, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Listen on a free loopback port and serve; returns itself."""
        self._stopping.clear()
        self._listener = socket.create_server(("127.0.0.1", self._wanted_port), backlog=512)
        self._waker, woken = socket.socketpair()
        self._thread = threading.Thread(
            target=self._accept, args=(self._listener, woken), name=type(self).__name__, daemon=True
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving; open connections are closed, waiting handlers end."""
        if self._listener is None or self._waker is None or self._thread is None:
            return
        self._stopping.set()
        self._waker.close()
        self._thread.join()
        self._listener.close()
        self._listener = None
        with self._guard:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):  # its thread was faster
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _accept(self, listener: socket.socket, woken: socket.socket) -> None:
        """Take connections until the other end of ``woken`` is closed."""
        with woken, selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while all(key.fileobj is listener for key, _ in selector.select()):
                try:
                    connection, _ = listener.accept()
                except OSError:
                    continue  # whoever came has gone
                if not self.accepting:
                    _close(connection)
                    continue
                with self._guard:
                    self._connections.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """Answer the requests of one connection until one of the two sides ends it."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Says nothing of an error: clients that go away in the middle are what these doubles are for.
        with contextlib.suppress(Exception), connection.makefile("rb") as received:
            while (call := self._next(connection, received)) is not None:
                self.answer(call)
                if call.last:
                    break
        with self._guard:
            self._connections.discard(connection)
        _close(connection)

    def _next(self, connection: socket.socket, received: BinaryIO) -> Call | None:
        """Return the next request, ``None`` where there is none or none that can be read."""
        words = received.readline(_LINE_BYTES).decode("latin-1").split()
        if not words:
            return None
        headers: dict[str, str] = {}
        while (line := received.readline(_LINE_BYTES).decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            return None
        if headers.get("expect", "").lower() == "100-continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = received.read(int(headers.get("content-length") or 0))
        method, path, version = words
        asked = headers.get("connection", "").lower()
        last = "close" in asked or (version == "HTTP/1.0" and asked != "keep-alive")
        return Call(connection, self._stopping, method, path, headers, body, last)


def _close(connection: socket.socket) -> None:
    """Close a connection in order."""
    with contextlib.suppress(OSError):  # the other side was faster
        connection.shutdown(socket.SHUT_WR)
    connection.close()
