from __future__ import annotations

import asyncio
import json
import socket
import sys
import tracemalloc
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Literal

import pytest

from pytest_llmparity.core.errors import ConfigError, EngineDied, ProtocolError, Timeout, Unreachable
from pytest_llmparity.transport import Client, Limits
from pytest_llmparity.transport.exchange import sse

if TYPE_CHECKING:
    from tests.transport.conftest import Piece, StartPeer

pytestmark = pytest.mark.asyncio

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

MakeClient = Callable[..., Client]


@pytest.fixture(
    params=[
        pytest.param("kernel", marks=pytest.mark.skipif(sys.platform != "linux", reason="kernel stamps are Linux's")),
        "transport",
    ]
)
def reader(request: pytest.FixtureRequest) -> Literal["kernel", "transport"]:
    kind: Literal["kernel", "transport"] = request.param
    return kind


@pytest.fixture
def make(reader: Literal["kernel", "transport"]) -> MakeClient:
    return partial(Client, reader=reader)


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


def sized(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


# ------------------------------------------------------------------------------------------------- whole answers


async def test_chunked(start_peer: StartPeer, make: MakeClient) -> None:
    events = [b"data: %d\n\n" % n for n in range(20)]
    peer = await start_peer([CHUNKED, *map(chunk, events), b"0\r\n\r\n"])
    async with make(peer.url) as client:
        exchange = await client.send("POST", "/v1/x", b"{}")

    assert exchange.status == 200
    assert exchange.body == b"".join(events)
    assert [event.data for event in sse(exchange.body)] == [b"%d" % n for n in range(20)]
    assert exchange.reads[-1].end == len(exchange.body)
    assert not exchange.reused


async def test_length(start_peer: StartPeer, make: MakeClient) -> None:
    peer = await start_peer([sized(b'{"a": 1}', b"X-One: a", b"x-one: b", b"Content-Type: application/json")])
    async with make(peer.url) as client:
        exchange = await client.send("GET", "/")

    assert json.loads(exchange.body) == {"a": 1}
    assert exchange.headers["x-one"] == "a, b"
    assert exchange.headers["content-type"] == "application/json"


@pytest.mark.parametrize("head", [OK, b"HTTP/1.0 200 OK\r\n", OK + b"Connection: close\r\n"])
async def test_body_until_close(start_peer: StartPeer, make: MakeClient, head: bytes) -> None:
    peer = await start_peer([head + b"\r\nhalf ", b"and half", "close"])
    async with make(peer.url) as client:
        exchange = await client.send("GET", "/")
        again = await client.send("GET", "/")

    assert exchange.body == again.body == b"half and half"
    assert not again.reused


async def test_interim_answers_are_skipped(start_peer: StartPeer, make: MakeClient) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    peer = await start_peer([*interim, b"".join(interim) + sized(b"ok")])
    async with make(peer.url) as client:
        exchange = await client.send("GET", "/")

    assert (exchange.status, exchange.body) == (200, b"ok")
    assert "link" not in exchange.headers


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", 304),
        (sized(b""), 200),
    ],
)
async def test_without_a_body(start_peer: StartPeer, make: MakeClient, answer: bytes, status: int) -> None:
    peer = await start_peer([answer])
    async with make(peer.url) as client:
        exchange = await client.send("GET", "/")
        again = await client.send("GET", "/")

    assert (exchange.status, exchange.body, exchange.reads) == (status, b"", ())
    assert exchange.sent_ns < exchange.done_ns
    assert again.reused


async def test_an_error_status_is_an_answer(start_peer: StartPeer, make: MakeClient) -> None:
    peer = await start_peer([sized(b"slow down", b"Retry-After: 3", status=b"429 Too Many Requests")])
    async with make(peer.url) as client:
        exchange = await client.send("POST", "/", b"{}")

    assert (exchange.status, exchange.headers["retry-after"], exchange.body) == (429, "3", b"slow down")


@pytest.mark.parametrize("whole", [CHUNKED + chunk(b"data: a\r\n\r\n") + b"0\r\nX-Trailer: t\r\n\r\n", sized(b"xyz")])
async def test_split_at_every_byte(start_peer: StartPeer, make: MakeClient, whole: bytes) -> None:
    peer = await start_peer([whole[n : n + 1] for n in range(len(whole))])
    async with make(peer.url) as client:
        exchange = await client.send("GET", "/")

    assert exchange.body in (b"data: a\r\n\r\n", b"xyz")
    assert "x-trailer" not in exchange.headers


async def test_five_megabytes_both_ways(start_peer: StartPeer, make: MakeClient) -> None:
    body = bytes(range(256)) * 20_480
    peer = await start_peer([sized(body)])
    async with make(peer.url) as client:
        exchange = await client.send("POST", "/", body)

    assert exchange.body == body
    assert peer.requests[0].endswith(body)


async def test_an_answer_before_the_request_has_left(make: MakeClient) -> None:
    over = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sized(b"too much", status=b"413 Content Too Large"))
        await over.wait()  # and never read on
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with make(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        exchange = await client.send("POST", "/", bytes(20_000_000))
    over.set()
    server.close()
    while len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert (exchange.status, exchange.body) == (413, b"too much")


# ---------------------------------------------------------------------------------------------------- the request


async def test_what_is_written(start_peer: StartPeer, make: MakeClient) -> None:
    peer = await start_peer([sized(b"")])
    async with make(f"{peer.url}/prefix/", headers={"Authorization": "Bearer k", "content-type": "text/x"}) as client:
        await client.send("POST", "/v1/chat", b"{}")
        await client.send("GET", "/v1/models")

    head = (
        b"Host: 127.0.0.1:%d\r\nAccept: */*\r\nUser-Agent: pytest-llmparity\r\ncontent-type: text/x\r\n"
        b"Accept-Encoding: identity\r\nAuthorization: Bearer k\r\n"
    ) % peer.port
    assert peer.requests == [
        b"POST /prefix/v1/chat HTTP/1.1\r\n" + head + b"Content-Length: 2\r\n\r\n{}",
        b"GET /prefix/v1/models HTTP/1.1\r\n" + head + b"\r\n",
    ]


@pytest.mark.parametrize(("method", "path"), [("GET", "no-slash"), ("GET", "/a b"), ("GET", "/\r\nX: y"), ("G T", "/")])
async def test_a_request_that_is_none(make: MakeClient, method: str, path: str) -> None:
    async with make("http://127.0.0.1:9") as client:
        with pytest.raises(ValueError, match="must be a token and a quoted path"):
            await client.send(method, path)


@pytest.mark.parametrize(
    "headers",
    [{"X": "secret-value\r\nY: z"}, {"X": "secret-value\u2028"}, {"b d": "secret-value"}, {"Expect": "secret-value"}],
)
async def test_a_header_that_cannot_be_sent(make: MakeClient, headers: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make("http://127.0.0.1:9", headers=headers)

    assert "secret-value" not in str(caught.value)


# ------------------------------------------------------------------------------------------------- kept connections


async def test_connections_are_kept(start_peer: StartPeer, make: MakeClient) -> None:
    peer = await start_peer([CHUNKED, chunk(b"a"), b"0\r\n\r\n"])
    async with make(peer.url) as client:
        exchanges = [await client.send("GET", "/") for _ in range(3)]

    assert [exchange.reused for exchange in exchanges] == [False, True, True]
    assert peer.connections == 1


async def test_a_connection_for_every_request_under_way(start_peer: StartPeer, make: MakeClient) -> None:
    peer = await start_peer([sized(b"ok")])
    async with make(peer.url) as client:
        await client.open(30)
        await client.open(20)
        exchanges = await asyncio.gather(*(client.send("GET", "/") for _ in range(40)))

    assert [exchange.reused for exchange in exchanges] == [False] * 40  # opened, but never used for a request before
    assert peer.connections == 40


async def test_connection_close_is_obeyed(start_peer: StartPeer, make: MakeClient) -> None:
    peer = await start_peer([sized(b"ok", b"Connection: close"), "close"])
    async with make(peer.url) as client:
        for _ in range(2):
            assert (await client.send("GET", "/")).body == b"ok"

    assert peer.connections == 2


async def test_a_kept_connection_that_closes_as_we_write_is_replaced(start_peer: StartPeer, make: MakeClient) -> None:
    seen: list[bytes] = []

    def script(request: bytes) -> Iterable[Piece]:
        seen.append(request)
        return ["close"] if len(seen) == 2 else [sized(b"ok")]

    peer = await start_peer(script)
    async with make(peer.url) as client:
        await client.send("GET", "/1")
        exchange = await client.send("GET", "/2")

    assert exchange.body == b"ok"
    assert not exchange.reused
    assert [request.split()[1] for request in seen] == [b"/1", b"/2", b"/2"]


async def test_a_kept_connection_closed_while_idle_is_not_used(start_peer: StartPeer, make: MakeClient) -> None:
    peer = await start_peer([sized(b"ok"), "close"])
    async with make(peer.url) as client:
        await client.send("GET", "/1")
        await asyncio.gather(*peer.tasks)
        await client.send("GET", "/2")

    assert [request.split()[1] for request in peer.requests] == [b"/1", b"/2"]


async def test_bytes_on_an_idle_connection_end_it(start_peer: StartPeer, make: MakeClient) -> None:
    peer = await start_peer([sized(b"ok"), "gate", sized(b"nobody asked")])
    async with make(peer.url) as client:
        await client.send("GET", "/")
        peer.gate.set()
        await asyncio.gather(*peer.tasks)  # ends because we closed
        peer.gate.clear()
        exchange = await client.send("GET", "/")

    assert exchange.body == b"ok"
    assert not exchange.reused


async def test_the_client_can_be_used_after_closing(start_peer: StartPeer, make: MakeClient) -> None:
    peer = await start_peer([sized(b"ok")])
    client = make(peer.url)
    async with client:
        await client.send("GET", "/")
    async with client:
        assert not (await client.send("GET", "/")).reused


async def test_a_cancelled_request_does_not_poison_the_next(start_peer: StartPeer, make: MakeClient) -> None:
    peer = await start_peer(lambda request: ["hang"] if b" /hang " in request else [sized(b"ok")])
    async with make(peer.url) as client:
        await client.send("GET", "/")
        task = asyncio.create_task(client.send("GET", "/hang"))
        while len(peer.requests) < 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        exchange = await client.send("GET", "/")

    assert exchange.body == b"ok"
    assert not exchange.reused


# ------------------------------------------------------------------------------------------------------- bad answers

GARBAGE = {
    "ssh": (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP/1.1"),
    "http09": (b"<html>hello</html>\r\n\r\n", "does not speak HTTP/1.1"),
    "http2": (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", "answered with HTTP/2.0, expected HTTP/1.1"),
    "tls": (b"\x15\x03\x01\x00\x02\x02\x16", "speaks TLS"),
    "bad chunk": (CHUNKED + b"zz\r\n", "in the body's chunks"),
    "two lengths": (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", "does not speak HTTP/1.1"),
    "too long": (sized(b"ab") + b"cd", "more bytes than the answer it announced"),
    "two answers": (sized(b"ab") + sized(b"cd"), "more bytes than the answer it announced"),
    "after close": (sized(b"ab", b"Connection: close") + b"cd", "more bytes than the answer it announced"),
    "gzip": (sized(b"\x1f\x8b", b"Content-Encoding: gzip"), "it compressed its answer"),
    "te": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "transfer encoding other than chunked"),
    "upgrade": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", "another protocol"),
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage(start_peer: StartPeer, make: MakeClient, name: str) -> None:
    answer, text = GARBAGE[name]
    peer = await start_peer([answer, "hang"])
    async with make(peer.url, headers={"Authorization": "Bearer secret-value"}) as client:
        with pytest.raises(ProtocolError, match=text) as caught:
            await client.send("GET", "/")

    assert f"127.0.0.1:{peer.port}" in str(caught.value)
    assert "secret-value" not in str(caught.value)


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([CHUNKED, chunk(b"data: a\n\n"), "close"], "closed the connection .* 9 body bytes came, the end is missing"),
        ([CHUNKED, b"ff\r\nabc", "close"], "3 body bytes came, the end is missing"),
        ([sized(b"abcdef")[:-2], "close"], "4 body bytes came, 6 were announced"),
        ([OK + b"X-Half", "close"], "in the middle of its headers"),
        ([CHUNKED, chunk(b"a"), "reset"], "reset the connection .* 1 body bytes came"),
        ([OK + b"\r\nabc", "reset"], "reset the connection .* 3 body bytes came"),
        (["close"], "closed it without a byte of an answer"),
        (["reset"], "closed it without a byte of an answer"),
    ],
)
async def test_half_an_answer(start_peer: StartPeer, make: MakeClient, pieces: list[Piece], text: str) -> None:
    peer = await start_peer(pieces)
    async with make(peer.url) as client:
        with pytest.raises(ProtocolError, match=text) as caught:
            await client.send("GET", "/")

    assert f"127.0.0.1:{peer.port}" in str(caught.value)


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("https://key@other.example:8443/path?token=secret", "redirect to 'other.example:8443'"),
        ("/elsewhere", "redirect to another path on the same host"),
        ("http://[broken/", "redirect to another path on the same host"),
    ],
)
async def test_redirects_are_errors(start_peer: StartPeer, make: MakeClient, location: str, text: str) -> None:
    peer = await start_peer([sized(b"", b"Location: " + location.encode(), status=b"307 Temporary Redirect")])
    async with make(peer.url) as client:
        with pytest.raises(ProtocolError, match=text) as caught:
            await client.send("GET", "/")

    assert caught.value.status == 307
    assert "secret" not in str(caught.value)
    assert "key@" not in str(caught.value)


# ----------------------------------------------------------------------------------------------- limits, nobody there


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([OK + b"X-Big: " + b"a" * 5000 + b"\r\n\r\n"], "more than 1000 bytes of headers"),
        ([OK + b"X-A: aaa\r\n", *[b"X-B: %s\r\n" % (b"b" * 200)] * 9, "hang"], "more than 1000 bytes of headers"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"] * 99, "more than 1000 bytes of headers"),
        ([CHUNKED + chunk(b"a"), b"0\r\nX-Trailer: " + b"t" * 2000 + b"\r\n\r\n"], "more than 1000 bytes of headers"),
        ([sized(b"a" * 3001)], "announced with 3001 bytes, past the limit of 2000 bytes"),
        ([CHUNKED, *[chunk(b"a" * 100)] * 40, "hang"], "passed the limit of 2000 bytes"),
    ],
)
async def test_size_limits(start_peer: StartPeer, make: MakeClient, pieces: list[Piece], text: str) -> None:
    peer = await start_peer(pieces)
    async with make(peer.url, limits=Limits(header_bytes=1000, body_bytes=2000)) as client:
        with pytest.raises(ProtocolError, match=text):
            await client.send("GET", "/")


async def test_answers_that_are_too_long_leave_no_memory_behind(start_peer: StartPeer, make: MakeClient) -> None:
    peer = await start_peer([CHUNKED, *[chunk(b"a" * 500_000)] * 4, "hang"])
    async with make(peer.url) as client:
        tracemalloc.start()
        try:
            errors = []
            for _ in range(10):
                with pytest.raises(ProtocolError, match="passed the limit of 1000000 bytes") as caught:
                    await client.send("GET", "/", most_bytes=1_000_000)
                errors.append(caught.value)  # and with it its traceback
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert len(errors) == 10
    assert held < 3_000_000


@pytest.mark.parametrize(
    ("limits", "pieces", "text"),
    [
        (Limits(first_byte_s=0.03), ["hang"], r"no byte of an answer within 0.03 s \(first byte limit\)"),
        (
            Limits(idle_s=0.03),
            [CHUNKED, chunk(b"ab"), "hang"],
            r"nothing for 0.03 s, after \d body bytes \(idle limit\)",
        ),
        (Limits(total_s=0.03), [CHUNKED, chunk(b"abc"), "hang"], r"within 0.03 s; \d body bytes came \(total limit\)"),
    ],
)
async def test_time_limits(
    start_peer: StartPeer, make: MakeClient, limits: Limits, pieces: list[Piece], text: str
) -> None:
    peer = await start_peer(pieces)
    async with make(peer.url, limits=limits) as client:
        with pytest.raises(Timeout, match=text) as caught:
            await client.send("GET", "/")

    assert f"127.0.0.1:{peer.port}" in str(caught.value)


async def test_nobody_there(make: MakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
    async with make(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(Unreachable, match=rf"nothing accepts a connection at 127.0.0.1:{port} \(.*refused"):
            await client.send("GET", "/")
        with pytest.raises(Unreachable):
            await client.open(2)


async def test_gone_after_an_answer(start_peer: StartPeer, make: MakeClient) -> None:
    peer = await start_peer([sized(b"ok")])
    async with make(peer.url) as client:
        port = peer.port
        await client.send("GET", "/")
        await peer.stop()
        with pytest.raises(EngineDied, match=f"127.0.0.1:{port} answered before and now accepts no connection"):
            await client.send("GET", "/")


async def test_a_name_that_does_not_resolve(make: MakeClient) -> None:
    async with make("http://no-such-host.invalid") as client:
        with pytest.raises(Unreachable, match=r"the name 'no-such-host\.invalid' cannot be resolved"):
            await client.send("GET", "/")


async def test_ipv6(start_peer: StartPeer, make: MakeClient) -> None:
    try:
        peer = await start_peer([sized(b"ok")], host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    async with make(f"http://[::1]:{peer.port}") as client:
        assert (await client.send("GET", "/")).body == b"ok"

    assert b"Host: [::1]:%d\r\n" % peer.port in peer.requests[0]
