"""One connection to an engine: writes a request, collects its answer, watches the deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable

from pytest_llmparity.core.errors import ProtocolError, Timeout
from pytest_llmparity.transport.exchange import Exchange, Limits, Read, ResponseParser
from pytest_llmparity.transport.readers import Reader, realtime_offset_ns

_NS = 1_000_000_000
MAX_OFFSET_MOVE_NS = 50_000
"""A realtime clock that moved more than this during an exchange was stepped: its stamps are not used."""


_TIMED_OUT = re.compile(rb"HTTP/1\.[01] 408\b")
"""How a server says that it waited long enough for a request; many do before they close a connection."""


class ClosedEarlyError(Exception):
    """The connection ended before the first byte of an answer."""


class UnaskedError(ClosedEarlyError):
    """The connection was closed because bytes came that no request asked for: they are nobody's answer."""


class Connection:
    """One connection with at most one exchange at a time; the ``Sink`` of its reader.

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
        """Take one read (the reader's call)."""
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
        """Learn that nothing more will come (the reader's call)."""
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
            what = f"sent nothing for {limits.idle_s:g} s, after {len(response.body)} body bytes (idle limit)"
        else:
            gap_end_ns = self._sent_ns + int(limits.first_byte_s * _NS)
            what = f"sent no byte of an answer within {limits.first_byte_s:g} s (first byte limit)"
        if self._deadline_ns <= gap_end_ns:
            gap_end_ns = self._deadline_ns
            what = f"did not finish within {limits.total_s:g} s; {len(response.body)} body bytes came (total limit)"
        unsent = 0 if self._reader is None or response.seen_bytes else self._reader.unsent
        if unsent:
            waited_s = (gap_end_ns - self._sent_ns) / _NS
            what = f"did not take the whole request within {waited_s:.3g} s; {unsent} bytes of it were never sent"
        left_ns = gap_end_ns - time.perf_counter_ns()
        if left_ns > 0:
            # Not later than an idle gap from now: with the first byte the due time may come nearer.
            self._watcher = self._loop.call_later(min(left_ns / _NS, limits.idle_s), self._watch)
        else:
            done.set_exception(Timeout(f"{self._where} {what}. Raise the limit, or ask why the engine is that slow."))

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
