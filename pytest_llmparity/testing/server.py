"""The HTTP side both doubles share: a threaded loopback server that stops at once, whatever its handlers wait for."""

from __future__ import annotations

import abc
import socket
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Hangup(Exception):  # not an error of ours: the handler ends the connection on purpose
    """Ends the connection without another byte."""


class Call:
    """One request as a double sees it, and the ways to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler, body: bytes, stopping: threading.Event) -> None:
        self.method = handler.command
        self.path = handler.path
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self.body = body
        self._handler = handler
        self._stopping = stopping

    def wait(self, seconds: float | None) -> None:
        """Let time pass (``None``: until the server stops); a stopping server ends the connection instead."""
        if self._stopping.wait(seconds):
            raise Hangup

    def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Answer with a whole body."""
        self._head(status, {"content-type": "application/json", **(headers or {}), "content-length": str(len(body))})
        self._handler.wfile.write(body)

    def begin(self, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Begin a chunked answer, an event stream unless the headers say otherwise."""
        self._head(status, {"content-type": "text/event-stream", **(headers or {}), "transfer-encoding": "chunked"})

    def chunk(self, data: bytes) -> None:
        """Send one piece of a chunked answer in one write."""
        self._handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """End a chunked answer."""
        self._handler.wfile.write(b"0\r\n\r\n")

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self._handler.send_response_only(status)
        for name, value in headers.items():
            self._handler.send_header(name, value)
        self._handler.end_headers()


class LoopbackServer(abc.ABC):
    """A server on 127.0.0.1 that runs between ``start`` and ``stop``; usable as a context manager.

    ``accepting`` ``False`` closes every new connection at once, as a server that is going down does.
    """

    def __init__(self, port: int = 0) -> None:
        self.accepting = True
        self._wanted_port = port
        self._stopping = threading.Event()
        self._server: _Threaded | None = None
        self._thread: threading.Thread | None = None

    @abc.abstractmethod
    def answer(self, call: Call) -> None:
        """Answer one request; called in a thread of its own."""

    @property
    def port(self) -> int:
        """The port, known once it was started."""
        if self._server is None:
            raise RuntimeError(f"{type(self).__name__} has not been started: use it in a with statement")
        return self._server.server_address[1]

    @property
    def base_url(self) -> str:
        """The server's root, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Listen on a free loopback port and serve; returns itself."""
        self._stopping.clear()
        self._server = _Threaded(("127.0.0.1", self._wanted_port), self, self._stopping)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name=type(self).__name__, daemon=True
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving; open connections are closed, waiting handlers end."""
        if self._server is None or self._thread is None:
            return
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Threaded(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512
    server_address: tuple[str, int]

    def __init__(self, address: tuple[str, int], owner: LoopbackServer, stopping: threading.Event) -> None:
        self.owner = owner
        self.stopping = stopping
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return self.owner.accepting

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        with self._lock:
            kept = list(self._open)
        for connection in kept:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # its handler was faster

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away in the middle are what these doubles are for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Threaded

    def _serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        call = Call(self, self.rfile.read(length), self.server.stopping)
        try:
            self.server.owner.answer(call)
        except (Hangup, ConnectionError):
            self.close_connection = True

    do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = _serve  # noqa: N815  # names http.server looks up

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet; what was asked is in the double's ``requests``."""
