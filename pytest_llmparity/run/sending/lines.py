"""Lines by which the replicas of one engine are sent their requests, from here or beside them on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from pytest_llmparity.core.errors import LLMParityError
from pytest_llmparity.core.sample import Sample
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.ledger import Allowance
from pytest_llmparity.run.plan import Job
from pytest_llmparity.settings.specification import EngineSpec

Deliver = Callable[[Sequence[Sample]], None]


class NodeLost(LLMParityError):
    """The machine of a cluster that a replica ran on is gone, or what ran there for us; not the engine's doing.

    ``sent`` is how many requests of the last order were sent there as far as that was told, ``under_way`` those of them
    whose answers never came.
    """

    def __init__(self, message: str, *, sent: int = 0, under_way: int = 0) -> None:
        super().__init__(message)
        self.sent = sent
        self.under_way = under_way


class Line(Protocol):
    """Sends one replica its requests."""

    async def send(self, jobs: Sequence[Job], *, concurrency: int, allowance: Allowance, deliver: Deliver) -> int:
        """Send the jobs, and return the same, as ``run.sending.sender.send`` does; samples bear the replica's name.

        Raises :class:`NodeLost` when nobody is there any more: what was not delivered by then may be sent elsewhere.
        """

    async def aclose(self) -> None:
        """Hang up."""


class Elsewhere(Protocol):
    """Starts engines on other machines, and has them asked there."""

    def start(
        self,
        spec: EngineSpec,
        engine: EngineSpec,
        *,
        make: Callable[[EngineSpec, str], Adapter],
        slots: int,
        left_s: float | None,
        stop: Callable[[], str | None],
    ) -> Adapter:
        """Start a replica of an engine, once; return an adapter that asks it from here. ``LaunchError`` as locally.

        ``make`` makes the adapter of an address, the rest is as in ``run.started.starter.Starter``.
        """

    def info(self, name: str) -> Mapping[str, Any]:
        """Return what its starter found out: ``identity`` and what was ``installed``."""

    def where(self, name: str) -> str:
        """Return the machine a replica runs on, in words."""

    def gone(self, name: str) -> str | None:
        """Say why a replica is no more, ``None`` while it runs."""

    def line(self, adapter: Adapter) -> Line:
        """Return the line by which a replica is sent its requests, beside it."""

    def lost(self, name: str) -> bool:
        """Tell whether the machine of a replica is gone."""

    def close(self) -> list[str]:
        """End what was started, once; return what went wrong."""
