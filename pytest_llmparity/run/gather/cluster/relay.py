"""A port of this machine whose connections are carried to an engine on a node of a cluster.

An engine listens on its own machine's loopback only, there too. What asks it from here (probes, experiments that show a
cause, an application under test) connects to a port of this machine's loopback; what it writes goes to the node by the
calls of the cluster, which knows who may make them. Prompts of a gathering take no such way: they are sent on the node.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

from pytest_llmparity.core.errors import LLMParityError
from pytest_llmparity.run.loop import LoopThread

_READ: Final = 65536
Call = Callable[..., Awaitable[Any]]
"""Calls a method of a replica, where it runs, by its name."""


class Relay:
    """Listens as long as it is open; ``url`` is its address.

    ``replica`` returns a function that calls the replica where it is now: each connection stays with the one that it
    began with, and ends where that raises ``LLMParityError``.
    """

    def __init__(self, loop: LoopThread, replica: Callable[[], Call]) -> None:
        self._loop = loop
        self._replica = replica
        self._server = loop.run(self._listen())
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._connected, "127.0.0.1", 0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            call = self._replica()
            number = await call("dial")
        except (LLMParityError, OSError):
            writer.close()
            return
        there = asyncio.create_task(_to_replica(call, number, reader))
        try:
            while heard := await call("hear", number):
                writer.write(heard)
                await writer.drain()
        except (LLMParityError, OSError):
            pass  # who asks sees the connection end, as when the engine had
        finally:
            there.cancel()
            writer.close()
            with contextlib.suppress(LLMParityError, OSError, asyncio.CancelledError):
                await call("hang_up", number)

    def close(self) -> None:
        """Listen no more."""
        self._loop.run(self._closed())

    async def _closed(self) -> None:
        self._server.close()


async def _to_replica(call: Call, number: int, reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(LLMParityError, OSError):
        while sent := await reader.read(_READ):
            await call("tell", number, sent)
        await call("hang_up", number)
