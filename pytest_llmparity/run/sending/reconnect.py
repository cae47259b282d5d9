"""A server we attach to that goes away while it is asked: all its requests wait for it, as for one that starts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from pytest_llmparity.core.errors import (
    EngineDied,
    EngineError,
    LLMParityError,
    Overloaded,
    ProtocolError,
    ServerFailure,
    Timeout,
    Unreachable,
)
from pytest_llmparity.core.words import explain
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.ledger import Allowance
from pytest_llmparity.run.loop import outside

T = TypeVar("T")

RESTARTS: Final = 2
"""A prompt is asked again after so many restarts at most: one that brings its server down does so every time."""

DOUBT_S: Final = 0.5
"""A server that goes down may cut its connections a little before it stops listening: it is looked at once more."""
DOUBTS: Final = 8
"""So often at most: one that breaks off every answer is no server that goes down."""
_SIGNS: Final = (EngineDied, Overloaded, ProtocolError, ServerFailure, Timeout, Unreachable)


class Watch:
    """Tells the requests of one engine whether a failure of theirs came from a restart of its server.

    ``hold`` waits up to so many seconds for the server, holds what it is then against pins and lock, and returns why
    it cannot be asked any more, ``None`` when it can; its second argument says when nobody waits any longer.
    ``patience_s`` is how long a server may be away. ``restarts`` counts how often it was.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        hold: Callable[[float, Callable[[], str | None]], str | None],
        patience_s: float,
        allowance: Allowance,
    ) -> None:
        self._adapter = adapter
        self._hold = hold
        self._patience_s = patience_s
        self._allowance = allowance
        self._lock = asyncio.Lock()
        self._stopped = threading.Event()
        self._doubts = DOUBTS
        self.restarts = 0
        self.away_s = 0.0
        self.lost: str | None = None

    async def calm(self) -> None:
        """Return when nobody is waiting for the server."""
        async with self._lock:
            return

    async def restarted(self, error: EngineError, before: int) -> bool:
        """Tell whether a request failed because the server restarted; it has by then, and can be asked again.

        ``before`` is what ``restarts`` was when the request was sent. False also where the server did not come back or
        is another one now: ``lost`` says so.
        """
        if self._patience_s <= 0 or not isinstance(error, _SIGNS):
            return False
        if await self._was_away(error, before):
            return True
        if self.lost is not None or not isinstance(error, ProtocolError) or not self._doubts:
            return False
        self._doubts -= 1
        await asyncio.sleep(DOUBT_S)
        return await self._was_away(error, before)

    async def _was_away(self, error: EngineError, before: int) -> bool:
        async with self._lock:
            if self.lost is not None:
                return False
            if self.restarts > before:
                return True
            if not await self._outside(lambda: self._is_away(error)):
                return False
            return await self._wait()

    async def _wait(self) -> bool:
        left, began = self._allowance.left_s, time.monotonic()
        patience = self._patience_s if left is None else min(self._patience_s, left)
        self.lost = await self._outside(lambda: self._hold(patience, self._why_stop))
        if self.lost is not None:
            return False
        self.restarts += 1
        self.away_s += time.monotonic() - began
        return True

    async def _outside(self, ask: Callable[[], T]) -> T:
        try:
            return await outside(ask)
        except asyncio.CancelledError:
            self._stopped.set()
            raise

    def _why_stop(self) -> str | None:
        return "it was interrupted" if self._stopped.is_set() else None

    def _is_away(self, error: EngineError) -> bool:
        """Tell whether the server is not there, or there and not ready: what a failure alone does not say."""
        if isinstance(error, (Unreachable, EngineDied)):
            return True  # nothing accepted a connection a moment ago
        try:
            if isinstance(error, (Overloaded, ServerFailure)):
                return self._adapter.ready() is not None
            self._adapter.control.get("/")
        except Unreachable:
            return True
        except LLMParityError:
            return False  # it answers, whatever it says
        return False

    def sentence(self) -> str | None:
        """Return what the reader of the run should know, ``None`` when the server was there all the time."""
        if not self.restarts:
            return None
        times = "" if self.restarts == 1 else f" {explain.counted(self.restarts, 'time')}, together"
        return (
            f"{self._adapter.name} restarted while it was asked: it was away{times} for {explain.seconds(self.away_s)} "
            "and is what it was; prompts under way were asked again"
        )
