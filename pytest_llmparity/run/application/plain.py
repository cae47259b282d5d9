"""Tests with the fixture ``engine`` that are no gate: what they send engines with ``record = true`` is kept by test."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import fields
from typing import Final

import msgspec

from pytest_llmparity.core.values.calls import Asked
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.application.clients import RecordedEngine
from pytest_llmparity.run.application.recorder import Recorder
from pytest_llmparity.run.parity import EngineHandle, handle_of

CALLS: Final = "calls"
"""Name of the run's document that says what plain tests sent."""
_PLAIN: Final = "plain"
"""What stands in the recorder's address for all of them: the tests of a process run one after the other."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What all plain tests of a run sent: the document's form."""

    asked: tuple[Asked, ...]


class Recorders:
    """A recorder before each engine that plain tests of this process speak to, from when it is first asked for."""

    def __init__(self) -> None:
        self._running: dict[str, Recorder] = {}
        self._guard = threading.Lock()

    def handle(self, adapter: Adapter) -> EngineHandle:
        """Return an engine for application code, reached through its recorder."""
        with self._guard:
            if adapter.name not in self._running:
                spec = adapter.spec
                recorder = Recorder(adapter.openai_base_url, ca_bundle=spec.ca_bundle, proxy=spec.proxy)
                recorder.start()
                self._running[adapter.name] = recorder
        engine = handle_of(adapter, base_url=self._running[adapter.name].address(_PLAIN))
        return RecordedEngine(**{part.name: getattr(engine, part.name) for part in fields(engine)})

    def taken(self, test: str) -> Sequence[Asked]:
        """Return what was sent since this was last asked, which is what this test sent, and forget it."""
        running = list(self._running.items())
        return [
            Asked(test=test, engine=name, calls=calls)
            for name, recorder in running
            if (calls := recorder.taken(_PLAIN))
        ]

    def close(self) -> None:
        """Listen no more."""
        with contextlib.ExitStack() as closing:
            while self._running:
                closing.callback(self._running.popitem()[1].close)
