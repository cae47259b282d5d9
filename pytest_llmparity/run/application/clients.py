"""The engine as an application is handed it: clients of the ``openai`` package over connections that all runs share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_llmparity.run.loop import LoopThread
from pytest_llmparity.run.parity import EngineHandle

if TYPE_CHECKING:
    import openai as sdk

C = TypeVar("C")


class Connections:
    """The HTTP clients under those that an application's runs on one engine make, closed when all have ended."""

    def __init__(self, loop: LoopThread) -> None:
        self._loop = loop  # to which the asynchronous one belongs
        self._guard = threading.Lock()
        self._direct: Any = None
        self._async_direct: Any = None

    def direct(self, make: Callable[[], C]) -> C:
        """Return the one client for threads."""
        with self._guard:
            self._direct = self._direct or make()
            client: C = self._direct
        return client

    def async_direct(self, make: Callable[[], C]) -> C:
        """Return the one client for coroutines."""
        with self._guard:
            self._async_direct = self._async_direct or make()
            client: C = self._async_direct
        return client

    def close(self) -> None:
        """Close what was opened."""
        if self._direct is not None:
            self._direct.close()
        if self._async_direct is not None:
            self._loop.run(self._async_direct.aclose())


@dataclass(frozen=True)
class RecordedEngine(EngineHandle):
    """One engine whose address is that of a recorder."""

    def _through(self) -> dict[str, Any]:
        return {"ca_bundle": None, "proxy": None}  # to the recorder, which goes the engine's way from there


@dataclass(frozen=True)
class CalledEngine(RecordedEngine):
    """One engine for one run of an application."""

    _shared: Connections = field(repr=False)

    def openai(self) -> sdk.OpenAI:
        """Return a client of the ``openai`` package as any engine does; all runs share its connections."""
        import openai

        from pytest_llmparity.run.clients import Direct, way

        shared = self._shared.direct(lambda: Direct(**way(self.base_url, **self._through())))
        return openai.OpenAI(**self._arguments(), http_client=shared)

    def async_openai(self) -> sdk.AsyncOpenAI:
        """Return the asynchronous client; all runs share its connections, in one loop."""
        import openai

        from pytest_llmparity.run.clients import AsyncDirect, way

        shared = self._shared.async_direct(lambda: AsyncDirect(**way(self.base_url, **self._through())))
        return openai.AsyncOpenAI(**self._arguments(), http_client=shared)


def called_engine(engine: EngineHandle, shared: Connections) -> CalledEngine:
    """Return an engine as an application's run gets it."""
    return CalledEngine(**{part.name: getattr(engine, part.name) for part in fields(engine)}, _shared=shared)
