"""A loopback server that answers from a script, for every test of the transport."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Literal, Protocol

import pytest_asyncio

Piece = bytes | Literal["close", "reset", "gate", "hang"]
Script = Callable[[bytes], Iterable[Piece]]


class Peer:
    """Reads a request, sends the pieces its script returns for it (each its own segment), reads the next one."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.connections = 0
        self.gate = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server

    @property
    def port(self) -> int:
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            try:
                while await self._turn(reader, writer):
                    pass
            finally:
                writer.close()
            await writer.wait_closed()

    async def _turn(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0)
        request = head + await reader.readexactly(length)
        self.requests.append(request)
        for piece in self.script(request):
            if piece == "close":
                return False
            if piece == "reset":
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            if piece == "gate":
                await self.gate.wait()
                continue
            if piece == "hang":
                await asyncio.Event().wait()
            assert isinstance(piece, bytes)
            writer.write(piece)
            await writer.drain()
            for _ in range(2):  # the client is in this loop: let the selector see the bytes, then let it read them
                await asyncio.sleep(0)
        return True

    async def stop(self) -> None:
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks)
        await self.server.wait_closed()


class StartPeer(Protocol):
    async def __call__(
        self, script: Script | Iterable[Piece], *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> Peer: ...


@pytest_asyncio.fixture
async def start_peer() -> AsyncIterator[StartPeer]:
    peers: list[Peer] = []

    async def start(
        script: Script | Iterable[Piece], *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> Peer:
        if not callable(script):
            pieces = list(script)
            peer = Peer(lambda _: pieces)
        else:
            peer = Peer(script)
        peer.server = await asyncio.start_server(peer.serve, host, 0, ssl=tls)
        peers.append(peer)
        return peer

    yield start
    for peer in peers:
        await peer.stop()
