"""From a base URL to a connected socket: addresses and the proxy's CONNECT."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import socket
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from pytest_llmparity.core.errors import (
    ConfigError,
    EngineDied,
    EngineError,
    MachineError,
    Unreachable,
    advice,
    no_descriptors,
)

_MAX_PROXY_HEAD_BYTES = 64 * 1024
_PROXY_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})\b")
_VISIBLE = re.compile(r"[!-~]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    host: str
    port: int

    @property
    def where(self) -> str:
        """``host:port`` as error texts and CONNECT write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin(_Place):
    """Where an engine listens. ``prefix`` is the base URL's path without its trailing slash."""

    tls: bool
    prefix: str = ""

    @property
    def host_header(self) -> str:
        """The ``Host`` header: without the port where it is the scheme's own."""
        own = self.port == (443 if self.tls else 80)
        return self.where.rpartition(":")[0] if own else self.where


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy(_Place):
    """An HTTP proxy that is asked to CONNECT. ``authorization`` is a secret and stays out of ``repr``."""

    authorization: str = field(default="", repr=False)


def parse_origin(base_url: str) -> Origin:
    """Take a base URL apart; ``ConfigError`` if it is not ``http(s)://host[:port][/prefix]``, without credentials."""
    url, host, port = _split(base_url, "base_url", ("http", "https"))
    if url.username is not None or url.password is not None:
        raise ConfigError(
            f"base_url of {host} holds credentials. Put the key into a variable and name it (api_key_env)"
        )
    if url.query or url.fragment or not _VISIBLE.fullmatch(url.path):
        raise ConfigError(f"base_url of {host} has a query, a fragment or unquoted characters; expected a plain path")
    tls = url.scheme == "https"
    return Origin(host=host, port=port or (443 if tls else 80), tls=tls, prefix=url.path.rstrip("/"))


def parse_proxy(proxy_url: str) -> Proxy:
    """Take a proxy's URL apart; ``ConfigError`` if it is not ``http://[user:password@]host[:port]``."""
    url, host, port = _split(proxy_url, "proxy", ("http",))
    authorization = ""
    if url.username is not None:
        pair = f"{unquote(url.username)}:{unquote(url.password or '')}".encode()
        authorization = "Basic " + base64.b64encode(pair).decode("ascii")
    return Proxy(host=host, port=port or 80, authorization=authorization)


def _split(text: str, setting: str, schemes: tuple[str, ...]) -> tuple[SplitResult, str, int | None]:
    expected = " or ".join(f"{scheme}://host:port" for scheme in schemes)
    try:
        url = urlsplit(text)
        port = url.port
        host = (url.hostname or "").encode("ascii" if ":" in (url.hostname or "") else "idna").decode("ascii")
    except ValueError:  # UnicodeError is one; the text may hold a password, so it is not quoted
        raise ConfigError(f"{setting} is not a URL that can be used; expected {expected}") from None
    if url.scheme not in schemes or not host:
        raise ConfigError(f"{setting} has scheme {url.scheme!r} and host {host!r}; expected {expected}")
    return url, host, port


async def connect(origin: Origin, proxy: Proxy | None, *, answered: bool) -> socket.socket:
    """Return a non-blocking socket that reaches ``origin``, through ``proxy`` if there is one.

    Raises ``Unreachable``, or ``EngineDied`` when ``answered`` tells that the engine was there before. Has no
    deadline of its own: the caller sets one round it.
    """
    if proxy is None:
        return await _connect_tcp(origin.host, origin.port, origin.where, answered=answered)
    sock = await _connect_tcp(proxy.host, proxy.port, f"the proxy {proxy.where}", answered=False)
    try:
        await _ask_proxy(sock, origin, proxy)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect_tcp(host: str, port: int, where: str, *, answered: bool) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        if no_descriptors(error):
            raise _short(where, error) from error
        raise Unreachable(
            f"the name {host!r} cannot be resolved ({error.strerror}). Check base_url or proxy."
        ) from error
    refusal: OSError | None = None
    for family, kind, protocol, _, address in addresses:
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            if no_descriptors(error):
                raise _short(where, error) from error
            refusal = error  # a family this machine does not have
            continue
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            refusal = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    # asyncio puts a text of its own in place of the system's
    reason = os.strerror(refusal.errno) if refusal is not None and refusal.errno else str(refusal)
    if answered:
        raise EngineDied(f"{where} answered before and now accepts no connection ({reason}). Look at the engine's log.")
    raise Unreachable(
        f"nothing accepts a connection at {where} ({reason}). Is it running, and are host and port right?"
    )


def _short(where: str, error: OSError) -> MachineError:
    """Return the error of a connection that this machine, not the engine, has no room for."""
    return MachineError(f"no connection to {where} can be opened: {advice(error)}. What was answered is kept.")


async def _ask_proxy(sock: socket.socket, origin: Origin, proxy: Proxy) -> None:
    loop = asyncio.get_running_loop()
    lines = [f"CONNECT {origin.where} HTTP/1.1", f"Host: {origin.where}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    head = bytearray()
    try:
        await loop.sock_sendall(sock, "\r\n".join([*lines, "", ""]).encode("ascii"))
        while b"\r\n\r\n" not in head and len(head) < _MAX_PROXY_HEAD_BYTES:
            part = await loop.sock_recv(sock, 4096)
            if not part:
                break
            head += part
    except OSError as error:
        raise _refused(origin, proxy, f"broke the connection ({error.strerror})") from error
    status = _PROXY_STATUS.match(head)
    if status is None or b"\r\n\r\n" not in head:
        raise _refused(origin, proxy, "gave no HTTP answer")
    if not status[1].startswith(b"2"):
        raise _refused(origin, proxy, f"answered {status[1].decode()}")
    if not head.endswith(b"\r\n\r\n"):
        raise _refused(origin, proxy, "sent bytes that nobody asked for after its answer")


def _refused(origin: Origin, proxy: Proxy, answer: str) -> EngineError:
    return Unreachable(
        f"the proxy {proxy.where} was asked to CONNECT to {origin.where} and {answer}. "
        "Every request goes through CONNECT: allow that port in the proxy, or leave proxy unset for this engine."
    )
