"""A proxy on loopback between an application and its engine, which keeps what was asked and what was answered.

Every run of the application has an address of its own, a path in front of the engine's, so that runs beside each other
are told apart whatever client makes the calls. Headers pass and are never kept: they hold keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from pytest_llmparity.core.errors import LLMParityError, ProtocolError
from pytest_llmparity.core.sample import ApplicationCall
from pytest_llmparity.core.values.calls import answer_of, request_of
from pytest_llmparity.run.loop import LoopThread
from pytest_llmparity.transport.dial import connect, parse_origin, parse_proxy
from pytest_llmparity.transport.exchange import Limits, ResponseParser

LEFT: Final = 499
"""The status of a call that the application gave up before any of its answer had come."""
_NOT_WAITED: Final = "not waited for"
_HEAD_BYTES: Final = 256 * 1024
_BODY_BYTES: Final = 256 * 2**20
_READ: Final = 64 * 1024
_CONNECT_S: Final = 30.0
_DROPPED: Final = frozenset(
    {"host", "connection", "keep-alive", "proxy-connection", "te", "upgrade", "expect", "accept-encoding"}
    | {"content-length", "transfer-encoding"}
)
"""Headers of a request that belong to one connection, or that ask for an answer nobody could read here."""


class Recorder:
    """Passes on what runs of an application send, and keeps it by run; it listens from :meth:`start` to :meth:`close`.

    ``base_url`` is the engine's, ``ca_bundle`` and ``proxy`` say how it is reached.
    """

    def __init__(self, base_url: str, *, ca_bundle: Path | None = None, proxy: str | None = None) -> None:
        self._origin = parse_origin(base_url)
        self._proxy = None if proxy is None else parse_proxy(proxy)
        self._tls = ssl.create_default_context(cafile=ca_bundle) if self._origin.tls else None
        self._token = secrets.token_hex(8)
        self._calls: dict[str, list[list[ApplicationCall]]] = defaultdict(list)
        self._loop = LoopThread()
        self._server: asyncio.Server | None = None
        self._port = 0

    def start(self) -> None:
        """Listen on a free port."""
        self._loop.run(self._listen())

    def close(self) -> None:
        """Listen no more; connections that are open are closed."""
        self._loop.run(self._end())
        self._loop.close()

    def address(self, run: str) -> str:
        """Return the engine's base URL for one run."""
        return f"http://127.0.0.1:{self._port}/{self._token}/{run}{self._origin.prefix}"

    def taken(self, run: str) -> tuple[ApplicationCall, ...]:
        """Return the calls of a run in the order in which they began, and forget them."""
        calls = self._calls.pop(run, [])
        return tuple(call for place in calls for call in place)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_HEAD_BYTES)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:  # answers that nobody waits for
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request of an application; its connection is closed behind the answer."""
        try:
            await self._exchange(reader, writer)
        except asyncio.CancelledError:  # by the end: asyncio before 3.12 prints the traceback of a task that is
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.rstrip("\r\n").split("\r\n")
            method, target, _ = line.split(" ", 2)
            headers = [(name.strip(), value.strip()) for name, _, value in (part.partition(":") for part in fields)]
            token, _, rest = target.removeprefix("/").partition("/")
            run, slash, path = rest.partition("/")
            if not secrets.compare_digest(token, self._token) or not slash:
                writer.write(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            else:
                known = {name.lower(): value for name, value in headers}
                if known.get("expect", "").lower() == "100-continue":
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await _body(reader, known)
                await self._pass_on(writer, run, method, f"/{path}", headers, body)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
            await writer.wait_closed()

    async def _pass_on(
        self,
        client: asyncio.StreamWriter,
        run: str,
        method: str,
        path: str,
        headers: list[tuple[str, str]],
        body: bytes,
    ) -> None:
        """Send one request to the engine and its answer back, as it comes; keep both."""
        asks = bool(body) or method not in ("GET", "HEAD", "OPTIONS")  # to look for models is to ask nothing
        call = ApplicationCall(path=path.partition("?")[0], request=request_of(body), status=LEFT, answer=_NOT_WAITED)
        place = [call] if asks else []
        self._calls[run].append(place)
        parser = ResponseParser(self._origin.where, Limits())

        def keep(status: int, answer: str) -> None:
            place[:] = [msgspec.structs.replace(call, status=status, answer=answer)] if asks else []

        try:
            await self._relay(client, parser, method, path, headers, body, keep)
        except _ClientGone:
            pass
        except (OSError, LLMParityError, TimeoutError, asyncio.IncompleteReadError) as error:
            keep(0, str(error) or type(error).__name__)
            client.transport.abort()  # what has no answer ends without one, as it would without us
        finally:
            parser.release()

    async def _relay(
        self,
        client: asyncio.StreamWriter,
        parser: ResponseParser,
        method: str,
        path: str,
        headers: list[tuple[str, str]],
        body: bytes,
        keep: Callable[[int, str], None],
    ) -> None:
        async with asyncio.timeout(_CONNECT_S):
            sock = await connect(self._origin, self._proxy, answered=False)
            name = self._origin.host if self._tls is not None else None
            reader, writer = await asyncio.open_connection(sock=sock, ssl=self._tls, server_hostname=name)
        try:
            kept = [(key, value) for key, value in headers if key.lower() not in _DROPPED]
            kept += [("Host", self._origin.host_header), ("Connection", "close"), ("Accept-Encoding", "identity")]
            kept += [("Content-Length", str(len(body)))] if body or method not in ("GET", "HEAD") else []
            lines = "".join(f"{key}: {value}\r\n" for key, value in kept)
            writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body)
            await writer.drain()
            await self._answer(client, reader, parser, keep)
        finally:
            writer.close()

    async def _answer(
        self,
        client: asyncio.StreamWriter,
        reader: asyncio.StreamReader,
        parser: ResponseParser,
        keep: Callable[[int, str], None],
    ) -> None:
        """Send an answer back piece by piece until it is complete; it is kept before the last piece is sent."""
        pending, head_sent = b"", False
        ended = False
        while not ended:
            piece = await reader.read(_READ)
            now = time.monotonic_ns()
            if piece:
                parser.feed(memoryview(piece), now, now)
            elif not parser.seen_bytes:
                raise ProtocolError(f"{self._origin.where} closed the connection without an answer.")
            else:
                parser.feed_eof(reset=False)
            ended = parser.complete
            if ended:
                keep(parser.status, answer_of(bytes(parser.body)))
            if head_sent:
                client.write(piece)
            else:
                pending += piece
                if parser.status >= 200 and b"\r\n\r\n" in pending:
                    client.write(_closing(pending))
                    head_sent = True
                    if not ended:  # an application may read the beginning of an answer and leave the rest
                        keep(parser.status, _NOT_WAITED)
            try:
                await client.drain()
            except OSError as error:
                raise _ClientGone from error


class _ClientGone(Exception):
    """The application closed its connection before the answer was complete."""


def _closing(begun: bytes) -> bytes:
    """Return the beginning of an answer with a head that says that its connection closes."""
    head, _, rest = begun.partition(b"\r\n\r\n")
    while head.split(b" ", 2)[1].startswith(b"1"):  # 100 Continue and the like are between us and the engine
        head, _, rest = rest.partition(b"\r\n\r\n")
    dropped = (b"connection:", b"keep-alive:")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(dropped)]
    return b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + rest


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """Return the body of a request, by its length or in chunks."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = bytearray()
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            if size < 0 or len(body) + size > _BODY_BYTES:
                raise ValueError("a request that is too long")
            body += (await reader.readexactly(size + 2))[:-2]
        while (await reader.readuntil(b"\r\n")) != b"\r\n":
            pass
        return bytes(body)
    length = int(headers.get("content-length") or 0)
    if not 0 <= length <= _BODY_BYTES:
        raise ValueError("a request that is too long")
    return await reader.readexactly(length)
