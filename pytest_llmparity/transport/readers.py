"""Two ways to read a socket from asyncio, each telling when the bytes arrived.

``KernelReader`` reads its own non-blocking socket with ``recvmsg`` and takes the kernel's arrival stamp, which stays
right when our process was not scheduled in time. asyncio's transports offer no ``recvmsg``, hence the second one:
``TransportReader`` is a ``BufferedProtocol`` and stamps as the first statement after the read; it serves TLS and every
system but Linux. Both hand what they read to a ``Sink``, and look at the socket when they are told to ``settle``.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
import sys
import time
from typing import Literal, Protocol

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


class Sink(Protocol):
    """What a reader feeds."""

    def received(self, piece: memoryview, kernel_ns: int, seen_ns: int) -> None:
        """Take one read; ``piece`` is valid during the call only, ``kernel_ns`` is realtime or 0 for "no stamp"."""

    def closed(self, error: Exception | None) -> None:
        """Learn that nothing more will come; may be called more than once."""


class Reader(Protocol):
    """One open connection, reading all the time and writing on demand."""

    @property
    def clock(self) -> Literal["kernel", "user"]:
        """Which stamps ``Sink.received`` gets."""

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

    def __init__(self, sock: socket.socket, sink: Sink, buffer: bytearray) -> None:
        self._sock = sock
        self._sink = sink
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
        self._sink.received(self._view[:count], kernel_ns, seen_ns)

    def _lost(self, error: Exception | None) -> None:
        self._loop.remove_reader(self._sock)  # or an end of file would call us for ever
        self._sink.closed(error)

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

    def __init__(self, sink: Sink, buffer: bytearray | None = None) -> None:
        self._sink = sink
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
        self._sink.received(self._view[:nbytes], 0, time.perf_counter_ns())

    def eof_received(self) -> bool | None:
        """Hand on the end of the stream and let asyncio close (asyncio's callback)."""
        self._sink.closed(None)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand on that the connection is gone (asyncio's callback)."""
        if not self._gone.done():
            self._gone.set_result(None)
        self._sink.closed(exc)

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
        self._sink.closed(None)

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
