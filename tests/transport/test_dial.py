"""TLS, proxies and addresses: how a connection comes about."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
import pytest_asyncio
import trustme

from pytest_llmparity.core.errors import ConfigError, Timeout, Unreachable
from pytest_llmparity.transport import Client, Limits
from pytest_llmparity.transport.dial import Origin, parse_origin, parse_proxy

if TYPE_CHECKING:
    from tests.transport.conftest import StartPeer

pytestmark = pytest.mark.asyncio

ANSWER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n", b"6\r\n world\r\n", b"0\r\n\r\n"
READERS = ["transport", *(["kernel"] if sys.platform == "linux" else [])]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


StartProxy = Callable[[str], Awaitable[tuple[int, list[bytes]]]]


@pytest_asyncio.fixture
async def start_proxy() -> AsyncIterator[StartProxy]:
    """Start a proxy that obeys CONNECT when told ``obey``, else sends the text; returns port and requests seen."""
    servers: list[asyncio.Server] = []
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while received := await reader.read(65536):
                writer.write(received)
                await writer.drain()
        writer.close()

    async def start(behaviour: str) -> tuple[int, list[bytes]]:
        seen: list[bytes] = []

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                    seen.append(head)
                    if behaviour == "hang":
                        await asyncio.Event().wait()
                    if behaviour == "obey":
                        host, _, port = head.split()[1].decode().rpartition(":")
                        far_reader, far_writer = await asyncio.open_connection(host.strip("[]"), int(port))
                        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
                        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
                    else:
                        writer.write(behaviour.encode())
                finally:
                    writer.close()
                await writer.wait_closed()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port, seen

    yield start
    for server in servers:
        server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks)
    await asyncio.sleep(0)


# -------------------------------------------------------------------------------------------------------------- TLS


@pytest.mark.skipif(sys.platform != "linux", reason="what a full backlog does is the system's own")
async def test_a_connect_that_hangs() -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1))
        for _ in range(8):  # Linux drops what a full backlog cannot take
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        async with Client(f"http://127.0.0.1:{port}", limits=Limits(connect_s=0.05)) as client:
            with pytest.raises(Timeout, match=rf"connecting to 127.0.0.1:{port} took longer than 0.05 s"):
                await client.send("GET", "/")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_tls(start_peer: StartPeer, server_tls: ssl.SSLContext, bundle: Path, host: str) -> None:
    peer = await start_peer(ANSWER, tls=server_tls)
    async with Client(f"https://{host}:{peer.port}", ca_bundle=bundle) as client:
        exchanges = [await client.send("POST", "/", b"{}" * 50_000) for _ in range(2)]

    assert [(exchange.body, exchange.clock) for exchange in exchanges] == [(b"hello world", "user")] * 2
    assert [exchange.reused for exchange in exchanges] == [False, True]


async def test_tls_body_until_close(start_peer: StartPeer, server_tls: ssl.SSLContext, bundle: Path) -> None:
    peer = await start_peer([b"HTTP/1.1 200 OK\r\n\r\nall of it", "close"], tls=server_tls)
    async with Client(f"https://127.0.0.1:{peer.port}", ca_bundle=bundle) as client:
        assert (await client.send("GET", "/")).body == b"all of it"


async def test_ssl_cert_file_counts(
    start_peer: StartPeer, server_tls: ssl.SSLContext, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    peer = await start_peer(ANSWER, tls=server_tls)
    async with Client(f"https://127.0.0.1:{peer.port}") as client:
        assert (await client.send("GET", "/")).status == 200


async def test_a_certificate_nobody_knows(start_peer: StartPeer, server_tls: ssl.SSLContext) -> None:
    peer = await start_peer(ANSWER, tls=server_tls)
    async with Client(f"https://127.0.0.1:{peer.port}") as client:
        with pytest.raises(Unreachable, match=rf"certificate of 127.0.0.1:{peer.port} is not trusted .*ca_bundle"):
            await client.send("GET", "/")


async def test_tls_to_plain_http(start_peer: StartPeer) -> None:
    peer = await start_peer(ANSWER)

    async def answer_anything(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer_anything, "127.0.0.1", 0)
    async with Client(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        with pytest.raises(Unreachable, match=r"does not speak TLS\. Write http://"):
            await client.send("GET", "/")
    server.close()
    assert peer.requests == []


async def test_a_handshake_that_is_cut() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port = listening.getsockname()[1]

        async def hang_up() -> None:
            far, _ = await asyncio.get_running_loop().sock_accept(listening)
            far.close()

        async with Client(f"https://127.0.0.1:{port}") as client:
            hanging_up = asyncio.create_task(hang_up())
            with pytest.raises(Unreachable, match=rf"the TLS handshake with 127.0.0.1:{port} failed"):
                await client.send("GET", "/")
            await hanging_up


async def test_a_handshake_that_never_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        async with Client(f"https://127.0.0.1:{port}", limits=Limits(connect_s=0.05)) as client:
            with pytest.raises(Timeout, match=rf"connecting to 127.0.0.1:{port} took longer than 0.05 s"):
                await client.send("GET", "/")


async def test_the_kernel_reader_refuses_tls() -> None:
    with pytest.raises(ConfigError, match="the kernel reader needs plain http on Linux"):
        Client("https://127.0.0.1", reader="kernel")


async def test_a_bundle_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("no certificate", encoding="utf-8")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(ConfigError, match=rf"ca_bundle '.*{name}' cannot be read"):
            Client("https://127.0.0.1", ca_bundle=tmp_path / name)


# -------------------------------------------------------------------------------------------------------------- proxy


@pytest.mark.parametrize("reader", READERS)
async def test_http_through_a_proxy(
    start_peer: StartPeer, start_proxy: StartProxy, reader: Literal["kernel", "transport"]
) -> None:
    peer = await start_peer(ANSWER)
    port, seen = await start_proxy("obey")
    async with Client(peer.url, proxy=f"http://user:p%40ss@127.0.0.1:{port}", reader=reader) as client:
        for _ in range(2):
            assert (await client.send("GET", "/")).body == b"hello world"

    secret = base64.b64encode(b"user:p@ss")
    target = b"127.0.0.1:%d" % peer.port
    assert seen == [
        b"CONNECT %s HTTP/1.1\r\nHost: %s\r\nProxy-Authorization: Basic %s\r\n\r\n" % (target, target, secret)
    ]
    assert peer.requests[0].startswith(b"GET / HTTP/1.1\r\nHost: " + target)
    assert secret not in peer.requests[0]


async def test_https_through_a_proxy(
    start_peer: StartPeer, start_proxy: StartProxy, server_tls: ssl.SSLContext, bundle: Path
) -> None:
    peer = await start_peer(ANSWER, tls=server_tls)
    port, seen = await start_proxy("obey")
    async with Client(f"https://localhost:{peer.port}", proxy=f"http://127.0.0.1:{port}", ca_bundle=bundle) as client:
        assert (await client.send("GET", "/")).body == b"hello world"

    assert len(seen) == 1


@pytest.mark.parametrize(
    ("behaviour", "text"),
    [
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "answered 403"),
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "answered 407"),
        ("SOCKS", "gave no HTTP answer"),
        ("", "gave no HTTP answer"),
        ("HTTP/1.1 200 OK\r\n", "gave no HTTP answer"),
        ("HTTP/1.1 200 OK\r\n\r\nsurplus", "sent bytes that nobody asked for"),
        ("x" * 100_000, "gave no HTTP answer"),
    ],
)
async def test_a_proxy_that_refuses(start_proxy: StartProxy, behaviour: str, text: str) -> None:
    port, _ = await start_proxy(behaviour)
    async with Client("http://engine.example:8000", proxy=f"http://user:secret@127.0.0.1:{port}") as client:
        with pytest.raises(Unreachable, match=text) as caught:
            await client.send("GET", "/")

    assert f"the proxy 127.0.0.1:{port} was asked to CONNECT to engine.example:8000" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("limits", "limit"), [(Limits(connect_s=0.05), "connect"), (Limits(total_s=0.05), "total")])
async def test_a_proxy_that_hangs(start_proxy: StartProxy, limits: Limits, limit: str) -> None:
    port, _ = await start_proxy("hang")
    text = rf"connecting to h:80 through the proxy 127.0.0.1:{port} took longer than 0.05 s \({limit} limit\)"
    async with Client("http://h", proxy=f"http://127.0.0.1:{port}", limits=limits) as client:
        with pytest.raises(Timeout, match=text):
            await client.send("GET", "/")


async def test_a_proxy_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
    async with Client("http://h", proxy=f"http://127.0.0.1:{port}") as client:
        with pytest.raises(Unreachable, match=f"nothing accepts a connection at the proxy 127.0.0.1:{port}"):
            await client.send("GET", "/")


async def test_a_proxy_that_resets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port = listening.getsockname()[1]

        async def reset() -> None:
            far, _ = await asyncio.get_running_loop().sock_accept(listening)
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            far.close()

        async with Client("http://h", proxy=f"http://127.0.0.1:{port}") as client:
            resetting = asyncio.create_task(reset())
            with pytest.raises(Unreachable, match=r"broke the connection|gave no HTTP answer"):
                await client.send("GET", "/")
            await resetting


# ------------------------------------------------------------------------------------------------------------- origins


@pytest.mark.parametrize(
    ("url", "origin", "header"),
    [
        ("http://h", Origin(host="h", port=80, tls=False), "h"),
        ("HTTPS://H/", Origin(host="h", port=443, tls=True), "h"),
        ("http://h:443/a/b/", Origin(host="h", port=443, tls=False, prefix="/a/b"), "h:443"),
        ("http://[::1]:8000", Origin(host="::1", port=8000, tls=False), "[::1]:8000"),
        ("https://[::1]", Origin(host="::1", port=443, tls=True), "[::1]"),
        ("http://bücher.example", Origin(host="xn--bcher-kva.example", port=80, tls=False), "xn--bcher-kva.example"),
    ],
)
async def test_origins(url: str, origin: Origin, header: str) -> None:
    assert parse_origin(url) == origin
    assert origin.host_header == header


@pytest.mark.parametrize(
    "url",
    [
        "h:80",
        "ftp://h",
        "http://",
        "http://h:99999",
        "http://h:x",
        "http://[::1",
        "http://h/?secret=1",
        "http://h/#secret",
        "http://h/a b",
        "http://user:secret@h",
        "http://secret@h",
        "http://" + "a" * 64,
    ],
)
async def test_base_urls_that_cannot_be_used(url: str) -> None:
    with pytest.raises(ConfigError, match="base_url") as caught:
        parse_origin(url)

    assert "secret" not in str(caught.value)


async def test_proxies() -> None:
    assert parse_proxy("http://[::1]:3128").where == "[::1]:3128"
    assert parse_proxy("http://p").where == "p:80"
    assert "secret" not in repr(parse_proxy("http://user:secret@p"))
    with pytest.raises(ConfigError, match="proxy has scheme 'https' and host 'p'; expected http://host:port"):
        parse_proxy("https://p")
