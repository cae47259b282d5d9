"""A server that puts record, segment and chunk boundaries anywhere, and deliveries of answers for it to send."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from hypothesis import strategies as st

Framing = Literal["length", "chunked", "close"]
_RECORD_BYTES = 16 * 1024  # no TLS record holds more

Cuts = Sequence[int]
"""Where a run of bytes is cut: places from its beginning, negative ones from its end, those outside of it none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One answer: its body, and where chunks, TLS records and TCP segments end; ``pauses`` lets the client read there.

    ``surplus`` is sent after it, with the last segment or, with ``apart``, in one of its own.
    """

    seed: int
    size: int
    framing: Framing = "length"
    chunks: Cuts = ()
    records: Cuts = ()
    segments: Cuts = ()
    pauses: Sequence[bool] = (False,)
    surplus: bytes = b""
    apart: bool = False

    @property
    def body(self) -> bytes:
        """The body: no two deliveries with different seeds share a stretch of it."""
        return random.Random(self.seed).randbytes(self.size)

    def answer(self) -> bytes:
        """Return the whole answer as HTTP has it."""
        body = self.body
        head = b"HTTP/1.1 200 OK\r\nX-Seed: %d\r\n" % self.seed
        if self.framing == "length":
            return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        if self.framing == "close":
            return head + b"Connection: close\r\n\r\n" + body
        pieces = [b"%x\r\n%s\r\n" % (len(part), part) for part in cut(body, self.chunks)]
        return b"".join([head, b"Transfer-Encoding: chunked\r\n\r\n", *pieces, b"0\r\n\r\n"])


def cut(body: bytes, places: Cuts) -> list[bytes]:
    """Return the pieces of some bytes, none of them empty."""
    inside = {place if place >= 0 else len(body) + place for place in places}
    edges = sorted({0, len(body), *(place for place in inside if 0 < place < len(body))})
    return [body[start:end] for start, end in pairwise(edges)]


_near = st.integers(-40, 120)
_far = st.integers(120, 300_000)
_cuts = st.lists(_near | _far, max_size=10) | st.just(tuple(range(0, 400, 7))) | st.just(tuple(range(0, 2**19, 2**14)))
_sizes = st.integers(0, 60) | st.integers(0, 4_000) | st.sampled_from([16_384, 65_536, 150_000, 262_144, 300_000])


def deliveries() -> st.SearchStrategy[list[Delivery]]:
    """Return runs of answers that are asked for one after another."""
    delivery = st.builds(
        Delivery,
        seed=st.integers(0, 2**32),
        size=_sizes,
        framing=st.sampled_from(["length", "chunked", "length", "chunked", "close"]),
        chunks=_cuts,
        records=_cuts,
        segments=_cuts,
        pauses=st.lists(st.booleans(), min_size=1, max_size=5),
    )
    return st.lists(delivery, min_size=1, max_size=8)


@dataclass(slots=True)
class TortureServer:
    """Serves answers by number, ``deliveries[3]`` at ``/3``. With ``tls`` it frames the records itself."""

    tls: ssl.SSLContext | None
    deliveries: list[Delivery] = field(default_factory=list)
    connections: int = 0
    asked: list[str] = field(default_factory=list)
    hangs_up: set[int] = field(default_factory=set)
    """Requests, by their place in ``asked``, that are read and answered by closing the connection."""
    newest: _Line | None = None
    server: asyncio.Server | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self.server is not None
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        """Listen."""
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)

    async def stop(self) -> None:
        """Stop listening and drop the connections."""
        assert self.server is not None
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.server.wait_closed()

    def send_unasked(self, body: bytes) -> None:
        """Send bytes on the newest connection at once, whatever was asked there."""
        assert self.newest is not None
        self.newest.send_now(body)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            try:
                line = self.newest = _Line(reader, writer, self.tls)
                await line.shake_hands()
                while (request := await line.request()) is not None:
                    self.asked.append(request.split()[1].decode())
                    if len(self.asked) - 1 in self.hangs_up:
                        break
                    if not await self._answer(line, self.deliveries[int(request.split()[1][1:])]):
                        break
            finally:
                writer.close()

    async def _answer(self, line: _Line, delivery: Delivery) -> bool:
        """Send one answer; False when it ends with the connection."""
        whole = delivery.answer()
        pieces = [part for run in cut(whole, delivery.records) for part in cut(run, range(0, len(run), _RECORD_BYTES))]
        sealed = b"".join(line.seal(piece) for piece in pieces)
        extra = line.seal(delivery.surplus) if delivery.surplus else b""
        segments = cut(sealed if delivery.apart else sealed + extra, delivery.segments) + (
            [extra] if delivery.apart else []
        )
        for number, segment in enumerate(segments):
            await line.send(segment, pause=delivery.pauses[number % len(delivery.pauses)])
        if delivery.framing == "close":
            await line.farewell()
            return False
        return True


class _Line:
    """One connection of the server, with TLS by hand where there is any."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext | None
    ) -> None:
        self._reader, self._writer = reader, writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        if context is not None:
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._plain = bytearray()

    async def shake_hands(self) -> None:
        while self._tls is not None:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._more()
            else:
                return await self._flush()

    async def request(self) -> bytes | None:
        """Return the head of the next request; ``None`` when the client has gone."""
        while b"\r\n\r\n" not in self._plain:
            if self._tls is None:
                if not (received := await self._reader.read(65_536)):
                    return None
                self._plain += received
                continue
            try:
                if not (received := self._tls.read(65_536)):
                    return None
                self._plain += received
            except ssl.SSLWantReadError:
                await self._more()
        head, _, rest = bytes(self._plain).partition(b"\r\n\r\n")
        self._plain = bytearray(rest)
        return head

    def seal(self, plain: bytes) -> bytes:
        """Return some bytes as one TLS record (or as they are)."""
        if self._tls is None:
            return plain
        self._tls.write(plain)
        return self._outgoing.read()

    async def send(self, segment: bytes, *, pause: bool) -> None:
        """Send a segment; with ``pause`` the client, who shares this loop, reads it before the next one leaves."""
        self._writer.write(segment)
        await self._writer.drain()
        for _ in range(2 if pause else 0):
            await asyncio.sleep(0)

    def send_now(self, plain: bytes) -> None:
        """Put bytes into the socket before this returns."""
        self._writer.write(self.seal(plain))

    async def farewell(self) -> None:
        """Say goodbye as TLS does."""
        if self._tls is not None:
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.unwrap()
            await self._flush()

    async def _more(self) -> None:
        received = await self._reader.read(65_536)
        if not received:
            raise ConnectionError("the client has gone")
        self._incoming.write(received)

    async def _flush(self) -> None:
        self._writer.write(self._outgoing.read())
        await self._writer.drain()
