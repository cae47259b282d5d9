"""The measuring HTTP/1.1 client: sends one prepared request, returns raw bytes with arrival stamps."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pytest_llmparity.core.errors import ConfigError, ProtocolError, Timeout
from pytest_llmparity.transport.connection import (
    BUFFER_BYTES,
    KERNEL_STAMPS,
    TLS_BUFFER_BYTES,
    ClosedEarlyError,
    Connection,
    KernelReader,
    TransportReader,
    UnaskedError,
)
from pytest_llmparity.transport.dial import Origin, connect, parse_origin, parse_proxy
from pytest_llmparity.transport.exchange import Exchange, Limits
from pytest_llmparity.transport.tls import speaks_tls, tls_context, tls_failure, wants_tls

_NS = 1_000_000_000
MIXED = (
    "the server sent more answers than it was asked for, and nobody knows whose this one was. What is in front of the "
    "engine (a proxy that asks twice?) can be told to close its connections after each answer."
)
"""What is wrong with an answer on a kept connection of a server for which :meth:`Client.part` says False."""
_PART_S = 0.05
_PART_MOST_S = 5.0
"""Least and longest time a server gets to end kept connections after the last request, or to show that it is not done.

In between it is twice the longest answer so far: an answer that is still to come, for a request that another answer was
taken for, comes by then.
"""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_TARGET = re.compile(r"/[!-~]*")
_OURS = frozenset({"content-length", "transfer-encoding", "connection", "accept-encoding", "expect"})


class Client:
    """Sends requests to one origin; as many connections as requests are under way, kept for the next ones.

    ``base_url`` is ``http(s)://host[:port][/prefix]``. ``headers`` go with every request (the place for a key; they
    never show in an error). ``ca_bundle`` names a PEM file that replaces the system's authorities; ``proxy`` an HTTP
    proxy used by CONNECT for ``http`` and ``https`` alike. ``reader`` picks how bytes are read: ``kernel`` needs Linux
    and ``http``, ``auto`` takes it where it can. Raises ``ConfigError`` for what cannot be used. Belongs to the event
    loop it is first used in.

    Every method that talks raises errors of ``core.errors`` with ``engine`` left empty.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        ca_bundle: Path | None = None,
        proxy: str | None = None,
        reader: Literal["auto", "kernel", "transport"] = "auto",
    ) -> None:
        self._origin = parse_origin(base_url)
        self._limits = limits or Limits()
        self._proxy = None if proxy is None else parse_proxy(proxy)
        self._tls = tls_context(ca_bundle) if self._origin.tls else None
        if reader == "kernel" and (self._origin.tls or not KERNEL_STAMPS):
            raise ConfigError("the kernel reader needs plain http on Linux; use reader='auto'")
        self._kernel = reader != "transport" and not self._origin.tls and KERNEL_STAMPS
        self._head = _common_headers(self._origin, headers or {})
        self._buffer = bytearray(TLS_BUFFER_BYTES if self._origin.tls else BUFFER_BYTES)
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._answered = False
        self._longest_s = 0.0
        self._keeps = True
        """Whether connections are kept; no longer once a server sent what nobody asked for on one of them."""

    async def __aenter__(self) -> Client:
        """Use the client in ``async with``; it is closed at the end."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close."""
        await self.aclose()

    async def send(self, method: str, path: str, body: bytes = b"", *, most_bytes: int | None = None) -> Exchange:
        """Send one request and return the whole answer, whatever its status, redirects excepted.

        ``path`` is appended to the base URL's prefix. ``sent_ns`` of the answer is taken just before the write; name
        look-up and connecting come before it. A kept connection that was closed meanwhile, or on which bytes came that
        nobody asked for, is replaced once. ``most_bytes`` is the longest body that can be an answer to this request,
        where that is less than the limits allow.
        Raises ``Unreachable``, ``EngineDied``, ``Timeout``, ``ProtocolError``.
        """
        request = self._request(method, path, body)
        deadline_ns = time.perf_counter_ns() + int(self._limits.total_s * _NS)
        connection = self._kept()
        if connection is not None:
            try:
                return await self._exchange(connection, request, deadline_ns, most_bytes)
            except ClosedEarlyError:
                pass  # the server's keep-alive ended as we wrote; once more on a fresh one, which starts a new clock
        connection = await self._dial(deadline_ns)
        try:
            return await self._exchange(connection, request, deadline_ns, most_bytes)
        except UnaskedError:
            raise ProtocolError(
                f"{self._origin.where} sent bytes before it was asked anything, so they are no answer. An HTTP server "
                "waits for a request: check host and port in base_url."
            ) from None
        except ClosedEarlyError:
            if await self._wants_tls():
                raise wants_tls(self._origin.where) from None
            raise ProtocolError(
                f"{self._origin.where} accepted the connection and closed it without a byte of an answer. "
                "The engine's log says why."
            ) from None

    async def open(self, count: int) -> None:
        """Have at least ``count`` kept connections, so that no measured request pays for connecting.

        Raises ``Unreachable``, ``EngineDied`` or ``Timeout``.
        """
        for connection in [connection for connection in self._idle if not connection.usable]:
            self._idle.remove(connection)
            self._forget(connection)
        missing = range(count - len(self._idle))
        deadline_ns = time.perf_counter_ns() + int(self._limits.total_s * _NS)
        results = await asyncio.gather(*(self._dial(deadline_ns) for _ in missing), return_exceptions=True)
        self._idle += [result for result in results if isinstance(result, Connection)]
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def part(self) -> bool:
        """Close the kept connections in order and tell whether this server sent only what it was asked for.

        False means that bytes nobody asked for came on a connection of this client, now or earlier: answers with
        ``reused`` may be other requests' then, those on fresh connections are not. More can be sent afterwards; such a
        server gets a fresh connection for each request.
        """
        kept, self._idle = self._idle, []
        patience_s = min(_PART_MOST_S, max(_PART_S, 2 * self._longest_s))
        await asyncio.gather(*(connection.part(patience_s) for connection in kept))
        for connection in kept:
            self._forget(connection)
            await connection.wait_closed()
        return self._keeps

    async def aclose(self) -> None:
        """Close every connection; requests under way fail. The client can be used again afterwards."""
        connections = list(self._open)
        self._idle.clear()
        self._open.clear()
        for connection in connections:
            connection.close()
        for connection in connections:
            await connection.wait_closed()

    def _request(self, method: str, path: str, body: bytes) -> bytes:
        target = self._origin.prefix + path
        if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(target):
            raise ValueError(
                f"method {method!r} and path {path!r} must be a token and a quoted path that starts with /"
            )
        head = f"{method} {target} HTTP/1.1\r\n{self._head}"
        if body or method not in ("GET", "HEAD"):
            head += f"Content-Length: {len(body)}\r\n"
        return head.encode("latin-1") + b"\r\n" + body

    def _kept(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            self._forget(connection)
        return None

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._keeps = self._keeps and not connection.unasked

    async def _exchange(
        self, connection: Connection, request: bytes, deadline_ns: int, most_bytes: int | None
    ) -> Exchange:
        try:
            exchange = await connection.exchange(request, deadline_ns, most_bytes)
        except BaseException:
            self._forget(connection)
            raise
        self._answered = True
        self._longest_s = max(self._longest_s, (exchange.done_ns - exchange.sent_ns) / _NS)
        if connection.usable and self._keeps:
            self._idle.append(connection)
        else:
            connection.close()
            self._forget(connection)
        if 300 <= exchange.status < 400 and exchange.status != 304:
            raise self._redirected(exchange)
        return exchange

    async def _dial(self, deadline_ns: int) -> Connection:
        left_s = (deadline_ns - time.perf_counter_ns()) / _NS
        connect_s, limit = min((self._limits.connect_s, "connect"), (left_s, "total"))
        where = self._origin.where
        try:
            async with asyncio.timeout(connect_s):
                return await self._connect(where)
        except TimeoutError:
            via = "" if self._proxy is None else f" through the proxy {self._proxy.where}"
            raise Timeout(
                f"connecting to {where}{via} took longer than {connect_s:.3g} s ({limit} limit). "
                "Is the address right, and does a firewall drop packets?"
            ) from None

    async def _connect(self, where: str) -> Connection:
        sock = await connect(self._origin, self._proxy, answered=self._answered)
        connection = Connection(where, self._limits)
        if self._kernel:
            connection.attach(KernelReader(sock, connection, self._buffer))
        else:
            loop = asyncio.get_running_loop()
            try:
                _, reader = await loop.create_connection(
                    lambda: TransportReader(connection, self._buffer if self._tls else None),
                    sock=sock,
                    ssl=self._tls,
                    server_hostname=self._origin.host if self._tls else None,
                    ssl_handshake_timeout=self._limits.connect_s if self._tls else None,
                )
            except OSError as error:
                sock.close()
                raise tls_failure(self._origin.where, error) from error
            connection.attach(reader)
        self._open.add(connection)
        return connection

    async def _wants_tls(self) -> bool:
        """Tell whether a server that never answered would, if it were asked over TLS."""
        if self._origin.tls or self._answered or self._proxy is not None:
            return False
        return await asyncio.to_thread(speaks_tls, self._origin.host, self._origin.port)

    def _redirected(self, exchange: Exchange) -> ProtocolError:
        try:
            target = urlsplit(exchange.headers.get("location", "")).netloc.rpartition("@")[2]
        except ValueError:
            target = ""
        there = f"to {target!r}" if target else "to another path on the same host"
        return ProtocolError(
            f"{self._origin.where} answered {exchange.status}, a redirect {there}. Redirects are not followed, "
            "because a measured request must go where it was sent. Put the final address into base_url.",
            status=exchange.status,
        )


def _common_headers(origin: Origin, headers: Mapping[str, str]) -> str:
    """Return the header lines every request has; a caller's own ones replace the defaults of the same name."""
    lines = {
        "host": f"Host: {origin.host_header}",
        "accept": "Accept: */*",
        "user-agent": "User-Agent: pytest-llmparity",
        "content-type": "Content-Type: application/json",
        "accept-encoding": "Accept-Encoding: identity",
    }
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value) or not _latin(value):
            raise ConfigError(f"header {name!r} has a name or a value with characters that HTTP does not allow")
        if name.lower() in _OURS:
            raise ConfigError(f"header {name!r} is set by the client itself. Remove it from headers")
        lines[name.lower()] = f"{name}: {value}"
    return "".join(f"{line}\r\n" for line in lines.values())


def _latin(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True
