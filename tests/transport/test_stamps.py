"""What the stamps promise, held against a server's own stamps: never earlier, in order. No absolute times."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import pytest

from pytest_llmparity.core.errors import Timeout
from pytest_llmparity.transport import Client, Exchange, Limits, Read
from pytest_llmparity.transport.connection import (
    MAX_OFFSET_MOVE_NS,
    ClosedEarlyError,
    Connection,
    KernelReader,
    UnaskedError,
    realtime_offset_ns,
)
from pytest_llmparity.transport.exchange import sse

if TYPE_CHECKING:
    from tests.transport.conftest import Piece, StartPeer

pytestmark = pytest.mark.asyncio
linux = pytest.mark.skipif(sys.platform != "linux", reason="kernel stamps are Linux's")


def stamped(request: bytes) -> Iterable[Piece]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for _ in range(30):
        event = b"data: %d\n\n" % time.perf_counter_ns()
        yield b"%x\r\n%s\r\n" % (len(event), event)
    yield b"0\r\n\r\n"


@pytest.mark.parametrize("reader", [pytest.param("kernel", marks=linux), "transport"])
async def test_nothing_arrives_before_it_was_sent(
    start_peer: StartPeer, reader: Literal["kernel", "transport"]
) -> None:
    peer = await start_peer(stamped)
    async with Client(peer.url, reader=reader) as client:
        exchanges = [await client.send("GET", "/") for _ in range(5)]

    for exchange in exchanges:
        order = [exchange.sent_ns, exchange.headers_ns, *(read.arrived_ns for read in exchange.reads), exchange.done_ns]
        assert order == sorted(order)
        assert all(read.arrived_ns <= read.seen_ns for read in exchange.reads)
        for event in sse(exchange.body):
            read = next(read for read in exchange.reads if read.end >= event.end)
            # the realtime clock may be slewed by as much as is accepted between two looks at it
            assert read.arrived_ns >= int(event.data) - MAX_OFFSET_MOVE_NS


@linux
async def test_kernel_stamps_come(start_peer: StartPeer) -> None:
    peer = await start_peer(stamped)
    async with Client(peer.url, reader="kernel") as client:
        # Linux switches stamping on in the background when the first socket asks for it.
        exchanges = [await client.send("GET", "/") for _ in range(50)]

    assert exchanges[-1].clock == "kernel"
    assert any(read.arrived_ns < read.seen_ns for read in exchanges[-1].reads)


class Fed:
    """A reader that hands over what the test tells it to."""

    def __init__(self, clock: Literal["kernel", "user"]) -> None:
        self.clock: Literal["kernel", "user"] = clock
        self.written: list[bytes] = []
        self.open = True

    unsent = 0

    async def settle(self) -> None: ...

    def finish(self) -> None: ...

    def write(self, segment: bytes) -> None:
        self.written.append(segment)

    def close(self) -> None:
        self.open = False

    async def wait_closed(self) -> None: ...


OFFSET = 7_000_000_000
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"o", b"k"


async def exchange_of(
    kernel: Iterable[int | None], *, moved_ns: int = 0, clock: Literal["kernel", "user"] = "kernel"
) -> tuple[int, Exchange]:
    """Feed an answer whose reads are seen 1, 2, 3 ms after now and arrived ``kernel`` ns after now (None: no stamp)."""
    offsets = iter([OFFSET, OFFSET + moved_ns])
    connection = Connection("h:1", Limits(), clock_offset=lambda: next(offsets))
    connection.attach(Fed(clock))
    task = asyncio.create_task(connection.exchange(b"GET", time.perf_counter_ns() + 10**12))
    await asyncio.sleep(0)
    now = time.perf_counter_ns()
    for number, (part, after) in enumerate(zip(ANSWER, kernel, strict=True), 1):
        connection.received(memoryview(part), 0 if after is None else now + after + OFFSET, now + number * 1_000_000)
    return now, await task


async def test_kernel_stamps_are_moved_onto_our_clock() -> None:
    now, exchange = await exchange_of([100, 200, 300], moved_ns=MAX_OFFSET_MOVE_NS)

    assert exchange.clock == "kernel"
    assert exchange.headers_ns == now + 100
    assert exchange.reads == (Read(now + 200, now + 2_000_000, 1), Read(now + 300, now + 3_000_000, 2))
    assert exchange.done_ns == now + 300


@pytest.mark.parametrize(
    ("kernel", "moved_ns"),
    [([100, 200, 300], MAX_OFFSET_MOVE_NS + 1), ([100, 200, 300], -(10**9)), ([100, None, 300], 0), ([None] * 3, 0)],
)
async def test_a_stepped_clock_or_a_missing_stamp_leaves_the_user_s(kernel: list[int | None], moved_ns: int) -> None:
    now, exchange = await exchange_of(kernel, moved_ns=moved_ns)

    assert exchange.clock == "user"
    assert exchange.headers_ns == now + 1_000_000
    assert [read.arrived_ns for read in exchange.reads] == [now + 2_000_000, now + 3_000_000]
    assert exchange.done_ns == now + 3_000_000


async def test_nothing_arrives_after_it_was_seen() -> None:
    now, exchange = await exchange_of([100, 2_000_500, 300])

    assert exchange.reads[0].arrived_ns == now + 2_000_000


async def test_the_offset_is_the_difference_of_the_clocks() -> None:
    assert abs(realtime_offset_ns() - (time.time_ns() - time.perf_counter_ns())) < 10**9


async def test_a_connection_of_no_use_says_so() -> None:
    connection = Connection("h:1", Limits())
    with pytest.raises(ClosedEarlyError):
        await connection.exchange(b"GET", 0)
    await connection.wait_closed()
    connection.attach(Fed("user"))
    connection.closed(None)
    connection.closed(None)

    assert not connection.usable


async def test_what_follows_the_answer_at_once_ends_the_connection() -> None:
    connection = Connection("h:1", Limits())
    connection.attach(Fed("user"))
    task = asyncio.create_task(connection.exchange(b"GET", time.perf_counter_ns() + 10**12))
    await asyncio.sleep(0)
    for part in (*ANSWER, b"more"):
        connection.received(memoryview(part), 0, time.perf_counter_ns())

    assert (await task).body == b"ok"
    assert not connection.usable


async def test_what_arrived_before_the_request_was_written_is_no_answer() -> None:
    """The bytes of another answer came between the look at the socket and the write; their stamp tells."""
    connection = Connection("h:1", Limits(), clock_offset=lambda: OFFSET)
    connection.attach(Fed("kernel"))
    for early_ns in (-1, 20_000):
        task = asyncio.create_task(connection.exchange(b"GET", time.perf_counter_ns() + 10**12))
        before = time.perf_counter_ns()
        await asyncio.sleep(0)
        now = time.perf_counter_ns()
        if early_ns > 0:
            connection.received(memoryview(b"".join(ANSWER)), before - early_ns + OFFSET, now)
            with pytest.raises(UnaskedError):
                await task
        else:
            connection.received(memoryview(b"".join(ANSWER)), now + OFFSET, now)
            assert (await task).body == b"ok"

    assert connection.unasked
    assert not connection.usable


@pytest.mark.parametrize(("surplus", "unasked"), [(ANSWER[0], True), (b"HTTP/1.1 408 Request Timeout\r\n", False)])
async def test_bytes_between_two_requests_end_the_connection(surplus: bytes, unasked: bool) -> None:
    connection = Connection("h:1", Limits())
    connection.attach(Fed("user"))
    connection.received(memoryview(surplus), 0, time.perf_counter_ns())

    assert not connection.usable
    assert connection.unasked is unasked


async def test_a_request_that_the_socket_never_took_is_not_called_unanswered() -> None:
    reader = Fed("user")
    reader.unsent = 77
    connection = Connection("h:1", Limits(first_byte_s=0.01))
    connection.attach(reader)
    with pytest.raises(Timeout, match=r"h:1 did not take the whole request within 0.01 s; 77 bytes of it were never"):
        await connection.exchange(b"GET", time.perf_counter_ns() + 10**12)


async def test_a_deadline_that_has_passed() -> None:
    connection = Connection("h:1", Limits())
    reader = Fed("user")
    connection.attach(reader)
    with pytest.raises(Timeout, match=r"total limit"):
        await connection.exchange(b"GET", time.perf_counter_ns() - 1)

    assert not reader.open


@linux
async def test_writing_to_one_who_has_gone_is_told_by_reading() -> None:
    here, far = socket.socketpair()
    here.setblocking(False)
    connection = Connection("h:1", Limits())
    reader = KernelReader(here, connection, bytearray(100))
    connection.attach(reader)
    far.close()
    with pytest.raises(ClosedEarlyError):
        await connection.exchange(b"GET", time.perf_counter_ns() + 10**12)
    reader.close()
