"""One connection to an engine, which writes a request, collects its answer, watches the deadlines; two ways to read it.

``KernelReader`` reads its own non-blocking socket with ``recvmsg`` and takes the kernel's arrival stamp, which stays
right when our process was not scheduled in time. asyncio's transports offer no ``recvmsg``, hence the second one:
``TransportReader`` is a ``BufferedProtocol`` and stamps as the first statement after the read; it serves TLS and every
system but Linux. Both hand what they read to their ``Connection``, and look at the socket when they are told to
``settle``.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Literal, Protocol

from pytest_llmparity.core.errors import ProtocolError, Timeout
from pytest_llmparity.transport.exchange import Exchange, Limits, Read, ResponseParser

_NS = 1_000_000_000
MAX_OFFSET_MOVE_NS = 50_000
"""A realtime clock that moved more than this during an exchange was stepped: its stamps are not used."""
_TIMED_OUT = re.compile(rb"HTTP/1\.[01] 408\b")
"""How a server says that it waited long enough for a request; many do before they close a connection."""
BUFFER_BYTES = 64 * 1024
TLS_BUFFER_BYTES = 512 * 1024
"""More than asyncio's TLS decrypts of one read (256 KiB of them and a record begun before).

What does not fit it reads in a later turn of its loop, and where the connection ends before that, never.
"""
_SETTLE_TURNS = 64
"""Turns of the loop that bytes which have arrived may take to come through TLS; a few are needed."""
_SO_TIMESTAMPNS: int = getattr(socket, "SO_TIMESTAMPNS", 35)  # asm-generic/socket.h; Python has no name for it yet
_TIMESPEC = struct.Struct("@ll")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size) if hasattr(socket, "CMSG_SPACE") else 0

KERNEL_STAMPS = sys.platform == "linux"
"""Whether ``KernelReader`` can be used here."""


def realtime_offset_ns() -> int:
    """Return how far the realtime clock is ahead of ``perf_counter_ns``, in nanoseconds.

    The best of five bracketed readings: a reading during which we were scheduled away has a wide bracket and loses.
    """
    best = (1 << 62, 0)
    for _ in range(5):
        before = time.perf_counter_ns()
        realtime = time.time_ns()
        after = time.perf_counter_ns()
        best = min(best, (after - before, realtime - (before + after) // 2))
    return best[1]


class ClosedEarlyError(Exception):
    """The connection ended before the first byte of an answer."""


class UnaskedError(ClosedEarlyError):
    """The connection was closed because bytes came that no request asked for: they are nobody's answer."""


class Connection:
    """One connection with at most one exchange at a time.

    ``where`` (host:port) goes into error texts. :meth:`attach` gives it the reader before the first exchange.
    ``clock_offset`` returns realtime minus ``perf_counter_ns`` in nanoseconds; tests pass one that jumps.
    """

    def __init__(self, where: str, limits: Limits, clock_offset: Callable[[], int] = realtime_offset_ns) -> None:
        self._where = where
        self._limits = limits
        self._clock_offset = clock_offset
        self._loop = asyncio.get_running_loop()
        self._reader: Reader | None = None
        self._response: ResponseParser | None = None
        self._done: asyncio.Future[None] | None = None
        self._watcher: asyncio.TimerHandle | None = None
        self._open = True
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._used = self._kept = False
        self._unstamped = False
        self.unasked = False
        """Whether bytes came that nobody asked for, other than a 408: what such a server sends may be anybody's."""
        self._sent_ns = 0
        self._deadline_ns = 0
        self._offset_ns = 0

    def attach(self, reader: Reader) -> None:
        """Give the connection the reader that feeds it."""
        self._reader = reader

    @property
    def usable(self) -> bool:
        """Whether another request can be sent on it, as far as we know."""
        return self._open and self._done is None

    async def exchange(self, request: bytes, deadline_ns: int, most_bytes: int | None = None) -> Exchange:
        """Send ``request`` and return its answer, whatever its status.

        ``most_bytes`` limits the body of this answer. ``deadline_ns`` ends the whole exchange, on ``perf_counter_ns``'s
        clock. What arrived before the request is written is no answer to it, so the socket is looked at first. Raises
        ``Timeout``, ``ProtocolError``, or ``ClosedEarlyError`` when the connection ended before the first byte, an
        ``UnaskedError`` where bytes that nobody asked for ended it. After an error the connection is closed.
        """
        if self._reader is not None and self.usable:
            await self._reader.settle()
        if self._reader is None or not self.usable:
            raise UnaskedError if self.unasked else ClosedEarlyError
        response = self._response = ResponseParser(self._where, self._limits, most_bytes)
        self._done = self._loop.create_future()
        self._deadline_ns = deadline_ns
        self._unstamped = self._reader.clock == "user"
        self._offset_ns = 0 if self._unstamped else self._clock_offset()
        self._kept, self._used = self._used, True
        self._sent_ns = time.perf_counter_ns()
        self._reader.write(request)
        self._watch()
        try:
            await self._done
        except BaseException:
            self.close()
            response.body.clear()  # the error's traceback holds this frame in a cycle, and that may be megabytes
            raise
        finally:
            if self._watcher is not None:
                self._watcher.cancel()
            self._response = self._done = None
            response.release()
        if not response.keep_alive:
            self.close()
        return self._record(response)

    def _record(self, response: ResponseParser) -> Exchange:
        reads, head, last = tuple(response.reads), response.head, response.last
        kernel = not self._unstamped and self._steady()
        if not kernel:  # one clock for the whole exchange
            reads = tuple(Read(read.seen_ns, read.seen_ns, read.end) for read in reads)
        return Exchange(
            status=response.status,
            headers=response.headers,
            body=bytes(response.body),
            sent_ns=self._sent_ns,
            headers_ns=head.arrived_ns if kernel else head.seen_ns,
            done_ns=last.arrived_ns if kernel else last.seen_ns,
            reads=reads,
            clock="kernel" if kernel else "user",
            reused=self._kept,
        )

    def _steady(self) -> bool:
        """Tell whether the realtime clock, the kernel's stamps with it, still runs as it did when we wrote."""
        return abs(self._clock_offset() - self._offset_ns) <= MAX_OFFSET_MOVE_NS

    def received(self, piece: memoryview, kernel_ns: int, seen_ns: int) -> None:
        """Take one read (the reader's call).

        ``piece`` is valid during the call only, ``kernel_ns`` is realtime or 0 for "no stamp".
        """
        response, done = self._response, self._done
        if response is None or done is None or done.done():
            # More than the answer, or what is left of a broken one: nothing that follows can be trusted.
            nobody_s = response is None or response.complete
            self.unasked = self.unasked or (nobody_s and not _TIMED_OUT.match(piece))
            self.close()
            return
        if kernel_ns:
            arrived_ns = min(kernel_ns - self._offset_ns, seen_ns)
            if self._kept and not response.seen_bytes and arrived_ns < self._sent_ns and self._steady():
                # It came between the look at the socket and the write. A clock that is being slewed may say so of a
                # fast answer too: on a kept connection that costs one more request, on a fresh one it would an answer.
                self.unasked = True
                self.close()
                done.set_exception(UnaskedError())
                return
        else:
            arrived_ns = seen_ns
            self._unstamped = True
        try:
            response.feed(piece, arrived_ns, seen_ns)
        except ProtocolError as error:
            self.unasked = self.unasked or response.complete  # it was whole, and there was more
            done.set_exception(error)
        else:
            if response.complete:
                done.set_result(None)

    def closed(self, error: Exception | None) -> None:
        """Learn that nothing more will come (the reader's call); may be called more than once."""
        response, done = self._response, self._done
        self.close()
        if response is None or done is None or done.done():
            return
        if not response.seen_bytes:
            done.set_exception(ClosedEarlyError())
            return
        try:
            response.feed_eof(reset=error is not None)
        except ProtocolError as broken:
            done.set_exception(broken)
        else:
            done.set_result(None)

    def _watch(self) -> None:
        """Fail the exchange when a deadline has passed, else look again when the next one is due.

        One timer per exchange that is re-armed late, instead of one that is moved with every read.
        """
        response, done, limits = self._response, self._done, self._limits
        if response is None or done is None or done.done():
            return
        if response.seen_bytes:
            gap_end_ns = response.last.seen_ns + int(limits.idle_s * _NS)
            failure = f"sent nothing for {limits.idle_s:g} s, after {len(response.body)} body bytes (idle limit)"
        else:
            gap_end_ns = self._sent_ns + int(limits.first_byte_s * _NS)
            failure = f"sent no byte of an answer within {limits.first_byte_s:g} s (first byte limit)"
        if self._deadline_ns <= gap_end_ns:
            gap_end_ns = self._deadline_ns
            failure = f"did not finish within {limits.total_s:g} s; {len(response.body)} body bytes came (total limit)"
        unsent = 0 if self._reader is None or response.seen_bytes else self._reader.unsent
        if unsent:
            waited_s = (gap_end_ns - self._sent_ns) / _NS
            failure = f"did not take the whole request within {waited_s:.3g} s; {unsent} bytes of it were never sent"
        left_ns = gap_end_ns - time.perf_counter_ns()
        if left_ns > 0:
            # Not later than an idle gap from now: with the first byte the due time may come nearer.
            self._watcher = self._loop.call_later(min(left_ns / _NS, limits.idle_s), self._watch)
        else:
            done.set_exception(
                Timeout(f"{self._where} {failure}. Raise the limit, or ask why the engine is that slow.")
            )

    async def part(self, patience_s: float) -> None:
        """Close in order: ask nothing more, and see whether anything comes that nobody asked for (``unasked``).

        A server that has answered everything closes its side too, at once. One whose answers are ahead of our requests
        has more to send: it is waited for that or the end, ``patience_s`` seconds at most.
        """
        if self._reader is not None and self.usable and self._kept:  # one answer alone has no other to be taken for
            await self._reader.settle()
            self._reader.finish()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await asyncio.shield(self._ended)
        self.close()

    def close(self) -> None:
        """Close at once; may be called more than once."""
        self._open = False
        if not self._ended.done():
            self._ended.set_result(None)
        if self._reader is not None:
            self._reader.close()

    async def wait_closed(self) -> None:
        """Wait until the socket is gone."""
        if self._reader is not None:
            await self._reader.wait_closed()


class Reader(Protocol):
    """One open connection, reading all the time and writing on demand."""

    @property
    def clock(self) -> Literal["kernel", "user"]:
        """Which stamps ``Connection.received`` gets."""

    @property
    def unsent(self) -> int:
        """How many bytes of what was written the socket has not taken yet."""

    async def settle(self) -> None:
        """Hand on all that has arrived by now, an end too: the next write answers nothing of it."""

    def write(self, request: bytes) -> None:
        """Send ``request``; the first part leaves before the call returns if the socket takes it."""

    def finish(self) -> None:
        """Tell the other side that nothing more will be asked; reading goes on."""

    def close(self) -> None:
        """Close at once, without a farewell; may be called more than once."""

    async def wait_closed(self) -> None:
        """Wait until the operating system's side is closed too."""


class KernelReader:
    """Reads a connected non-blocking TCP socket with arrival stamps of the kernel. Linux, without TLS.

    ``buffer`` may be shared by all readers of one event loop: it is used only inside a read.
    """

    clock: Literal["kernel", "user"] = "kernel"

    def __init__(self, sock: socket.socket, connection: Connection, buffer: bytearray) -> None:
        self._sock = sock
        self._connection = connection
        self._view = memoryview(buffer)
        self._buffers = [buffer]
        self._loop = asyncio.get_running_loop()
        self._unsent = memoryview(b"")
        self._waiting = False
        self._open = True
        # A kernel that refuses leaves the stamps out, and the exchange says "user".
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._loop.add_reader(sock, self._readable)

    def _readable(self) -> None:
        try:
            count, ancillary, _, _ = self._sock.recvmsg_into(self._buffers, _ANCILLARY_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(error)
            return
        seen_ns = time.perf_counter_ns()
        if not count:
            self._lost(None)
            return
        kernel_ns = 0
        for level, kind, stamp in ancillary:
            if kind == _SO_TIMESTAMPNS and level == socket.SOL_SOCKET:
                seconds, nanoseconds = _TIMESPEC.unpack_from(stamp)
                kernel_ns = seconds * 1_000_000_000 + nanoseconds
        self._connection.received(self._view[:count], kernel_ns, seen_ns)

    def _lost(self, error: Exception | None) -> None:
        self._loop.remove_reader(self._sock)  # or an end of file would call us for ever
        self._connection.closed(error)

    @property
    def unsent(self) -> int:
        """How many bytes of what was written the socket has not taken yet."""
        return len(self._unsent)

    async def settle(self) -> None:
        """Read what has arrived, if anything has."""
        if self._open:
            self._readable()

    def write(self, request: bytes) -> None:
        """Send ``request``, what the socket does not take at once as it becomes writable."""
        # A server may answer, and the next request be due, before it has read the last body to its end.
        self._unsent = memoryview(self._unsent.tobytes() + request)
        self._writable()

    def _writable(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            # The other side stopped reading. It may have answered first (413), so reading goes on and decides.
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._loop.add_writer(self._sock, self._writable)
            self._waiting = True
        elif self._waiting:
            self._loop.remove_writer(self._sock)
            self._waiting = False

    def finish(self) -> None:
        """End our direction of the socket; the other one stays open."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket at once; may be called more than once."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()

    async def wait_closed(self) -> None:
        """Return at once: a closed socket of ours is closed."""


class TransportReader(asyncio.BufferedProtocol):
    """Reads through asyncio's own transport, TLS or not, with stamps of our process.

    ``buffer`` may be shared by all readers with TLS of one event loop: it is filled and handed on in one go. Without
    one the reader has its own, because a proactor loop fills it while others run.
    """

    clock: Literal["kernel", "user"] = "user"

    def __init__(self, connection: Connection, buffer: bytearray | None = None) -> None:
        self._connection = connection
        self._view = memoryview(bytearray(BUFFER_BYTES) if buffer is None else buffer)
        self._transport: asyncio.WriteTransport  # asyncio sets it before it hands the reader out
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio's callback)."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the buffer (asyncio's callback).

        A memoryview: asyncio's TLS writes its second record into a slice of what it is lent, and a slice of a
        bytearray is a copy. The bytes would be counted and not be there (https://github.com/python/cpython/issues/156275).
        """
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on what was read (asyncio's callback)."""
        self._connection.received(self._view[:nbytes], 0, time.perf_counter_ns())

    def eof_received(self) -> bool | None:
        """Hand on the end of the stream and let asyncio close (asyncio's callback)."""
        self._connection.closed(None)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand on that the connection is gone (asyncio's callback)."""
        if not self._gone.done():
            self._gone.set_result(None)
        self._connection.closed(exc)

    @property
    def unsent(self) -> int:
        """How many bytes of what was written the socket has not taken yet."""
        return self._transport.get_write_buffer_size()

    async def settle(self) -> None:
        """Let the loop read until nothing is left to be read."""
        number = self._transport.get_extra_info("socket").fileno()
        for _ in range(_SETTLE_TURNS):
            if self._transport.is_closing() or number < 0 or not _has_arrived(number):
                return
            await asyncio.sleep(0)
        self.close()  # what never ends is no answer to the next request
        self._connection.closed(None)

    def write(self, request: bytes) -> None:
        """Send ``request``; asyncio tries the socket before the call returns."""
        self._transport.write(request)

    def finish(self) -> None:
        """End our direction of the socket; asyncio's TLS has no such thing, and the server's end needs no goodbye."""
        with contextlib.suppress(OSError):
            self._transport.get_extra_info("socket").shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Abort the transport; may be called more than once."""
        self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until asyncio has let go of the socket."""
        await self._gone


def _has_arrived(number: int) -> bool:
    """Tell whether a socket, by its file number, has bytes or an end that nobody has read."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([number], [], [], 0)[0])
    waiting = select.poll()
    waiting.register(number, select.POLLIN)
    return bool(waiting.poll(0))
