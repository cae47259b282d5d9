"""Actors of a cluster called by name, and what Ray says of those that are gone, in our words."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, NodeDiedError, RayActorError, RayError

from pytest_llmparity.core.errors import KeeperError, LaunchError
from pytest_llmparity.run.gather.cluster.joining import first_line
from pytest_llmparity.run.loop import outside
from pytest_llmparity.run.sending.lines import NodeLost

ANSWERED_S: Final = 60.0
"""How long an actor may take to answer a call that does not wait for its engine: its loop does nothing but that."""
FATE_S: Final = 60.0
"""How long the cluster may take to say that a node is dead: it took 13 s with one that was killed. It asks five times,
each up to ten seconds.
"""
_WAITS: Final = frozenset({"start", "stop", "hear", "tell"})
"""Methods that take as long as the engine does, which the others do not wait for."""
_SLICE_S: Final = 0.25


class Method(Protocol):
    """A method of an actor: called there, it returns a reference to what it will return."""

    def remote(self, *args: object, **named: object) -> Any:
        """Call it."""


class Handle(Protocol):
    """The handle of an actor; each of its methods is a :class:`Method`."""

    _actor_id: Any


class ReplicaHandle(Handle, Protocol):
    """The handle of a ``ReplicaProcess``, whose other methods are called by name."""

    stop: Method


class OwnerHandle(Handle, Protocol):
    """The handle of an ``Owner``."""

    group: Method
    actor: Method
    actors: Method


class ReplicaActor:
    """The actor of one replica; errors of Ray that mean that it is gone are :class:`NodeLost`.

    ``place`` is the id of the node of Ray that it is on, ``info`` what its starter found out. ``became`` says what
    became of one that is lost.
    """

    def __init__(self, name: str, actor: ReplicaHandle, place: str) -> None:
        self.name = name
        self.id = str(actor._actor_id.hex())
        self.lost = False
        self.became = ""
        self.doubtful = False
        """Whether it is lost because nobody answered: its node may be dead, or it alone may hang."""
        self.info: Mapping[str, Any] = {}
        self.place = place
        self._actor = actor

    @property
    def where(self) -> str:
        """The node it is on, in words."""
        return f"node {self.place[:8]}" if self.place else "a node"

    def ask(
        self,
        method: str,
        *args: object,
        stop: Callable[[], str | None] = lambda: None,
        limit_s: float | None = None,
        failure: str = "was not waited for",
    ) -> object:
        """Call a method and wait for what it returns.

        Raises :class:`NodeLost`, and ``LaunchError`` when ``stop`` says why nobody waits or after ``limit_s`` seconds.
        """
        try:
            return waited(self._method(method).remote(*args), stop, limit_s=limit_s, failure=f"{self.name} {failure}")
        except RayError as error:
            raise self._told(error) from error

    async def call(self, method: str, *args: object) -> Any:
        """Return what a method returns, awaited in an event loop; a replica that does not answer in time is lost."""
        try:
            async with asyncio.timeout(None if method in _WAITS else ANSWERED_S):
                return await self._method(method).remote(*args)
        except RayError as error:
            raise await outside(functools.partial(self._told, error)) from error
        except TimeoutError:
            became = f"{self.where} of the cluster did not answer for {ANSWERED_S:g} s"
            raise self._gone_for_us(became, doubtful=True) from None

    def leave(self, method: str, *args: object) -> None:
        """Call a method and wait for nothing."""
        self._method(method).remote(*args)

    def _method(self, name: str) -> Method:
        method: Method = getattr(self._actor, name)
        return method

    def _told(self, error: RayError) -> Exception:
        """Return an error of Ray as one of ours; an ``OSError`` of a method of the replica is both, and stays."""
        if isinstance(error, OSError):
            return error
        if not isinstance(error, (RayActorError, NodeDiedError)):
            return KeeperError(f"{self.name}, on {self.where} of the cluster: {first_line(error)}")
        where, doubtful = f"{self.where} of the cluster", isinstance(error, ActorUnavailableError)
        self._gone_for_us(f"{where} is not reached", doubtful=doubtful)  # whatever the cluster says next
        if not is_alive(self.place):
            became = f"{where} is gone"
        elif doubtful:
            became = f"{where} is not reached"
        else:
            became = f"its process on {where} ended"
        return self._gone_for_us(f"{became} ({type(error).__name__})", doubtful=doubtful)

    def _gone_for_us(self, became: str, *, doubtful: bool) -> NodeLost:
        self.became = f"{self.name}: {became}"
        self.lost, self.doubtful = True, doubtful
        return NodeLost(self.became)


def is_alive(place: str) -> bool:
    """Tell whether the cluster takes a node to be alive; one that it does not know of is."""
    return all(node["Alive"] for node in ray.nodes() if node["NodeID"] == place)


def became_of(replica: ReplicaActor, stop: Callable[[], str | None]) -> bool:
    """Tell whether the node of a lost actor is dead, once that is known; ``LaunchError`` if nobody waits for that."""
    deadline = time.monotonic() + FATE_S
    while replica.doubtful and is_alive(replica.place) and time.monotonic() < deadline:
        if (why := stop()) is not None:
            raise LaunchError(f"{replica.name} was not started again: {why}", engine=replica.name)
        time.sleep(_SLICE_S)
    return not is_alive(replica.place)


def waited(reference: Any, stop: Callable[[], str | None], *, failure: str, limit_s: float | None = None) -> object:
    """Return what a reference brings, looking in between whether anybody still waits; ``LaunchError`` if not."""
    began = time.monotonic()
    while True:
        try:
            return ray.get(reference, timeout=_SLICE_S)
        except GetTimeoutError:
            why = stop()
            if why is None and limit_s is not None and time.monotonic() - began >= limit_s:
                why = f"waited for {limit_s:g} s"
            if why is not None:
                raise LaunchError(f"{failure}: {why}") from None


@contextlib.contextmanager
def placing(name: str) -> Iterator[None]:
    """Turn errors of the cluster, while a replica is placed on it, into ``LaunchError`` with the next step."""
    try:
        yield
    except RayError as error:
        raise LaunchError(
            f"{name} was not started: the cluster failed to place it: {first_line(error)} (ray status on its head says "
            "how it is)",
            engine=name,
        ) from error
