"""Engines of a run as actors of a Ray cluster. Ray is imported here alone, and only when somebody asks for it.

One actor of this run, the owner, lives beside the driver and owns those of the engines: Ray ends them all when the
process that made it is gone, however that came, and the keeper of each node ends what ran there. Workers of xdist find
the owner by the run's token.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from pytest_llmparity.core.errors import KeeperError, LaunchError, StoreError, UsageError
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.gather.cluster.actors import (
    ANSWERED_S,
    OwnerHandle,
    ReplicaActor,
    ReplicaHandle,
    became_of,
    placing,
    waited,
)
from pytest_llmparity.run.gather.cluster.joining import (
    AUTH_MODE,
    LOOKED_S,
    REACHED_S,
    connect,
    first_line,
    refuse_unfit,
    why_no_process,
)
from pytest_llmparity.run.gather.cluster.process import Order, ReplicaProcess, Started
from pytest_llmparity.run.gather.cluster.relay import Call, Relay
from pytest_llmparity.run.gather.cluster.remote import RemoteLine
from pytest_llmparity.run.gather.cluster.resources import refuse_unplaceable
from pytest_llmparity.run.loop import LoopThread
from pytest_llmparity.run.sending.lines import NodeLost
from pytest_llmparity.settings.specification import EngineSpec, bundle_of
from pytest_llmparity.store.folder import refuse_link

PLACED_S: Final = 600.0
"""How long resources that others use may be waited for."""
ENDED_S: Final = 30.0
"""How long engines may take to end, all of them together."""
_SLICE_S: Final = 0.25
_OWNER: Final = "llmparity-owner"


class Owner:
    """Makes the actors of a run, each once, whichever process of the run asks; they end with it."""

    def __init__(self) -> None:
        self._groups: dict[str, PlacementGroup] = {}
        self._actors: dict[str, ReplicaHandle] = {}

    def group(self, engine: str, bundles: Sequence[Mapping[str, float]]) -> PlacementGroup:
        """Return the resources that are reserved for the replicas of an engine, on as many nodes as can be."""
        if engine not in self._groups:
            self._groups[engine] = placement_group([dict(bundle) for bundle in bundles], strategy="SPREAD")
        return self._groups[engine]

    def actor(
        self, name: str, engine: str, index: int, bundle: Mapping[str, float], *, instead_of: str
    ) -> ReplicaHandle:
        """Return the actor of a replica, made if there is none or the one there was is ``instead_of``.

        That one is ended: as long as it lives it holds what was reserved for its successor.
        """
        known = self._actors.get(name)
        if known is None or known._actor_id.hex() == instead_of:
            if known is not None:
                ray.kill(known)
            further = {resource: amount for resource, amount in bundle.items() if resource not in ("CPU", "GPU")}
            self._actors[name] = (
                ray.remote(ReplicaProcess)
                .options(
                    num_cpus=bundle.get("CPU", 0),
                    num_gpus=bundle.get("GPU", 0),
                    resources=further,
                    max_restarts=0,
                    scheduling_strategy=PlacementGroupSchedulingStrategy(
                        placement_group=self._groups[engine], placement_group_bundle_index=index
                    ),
                )
                .remote()
            )
        return self._actors[name]

    def actors(self) -> dict[str, ReplicaHandle]:
        """Return every actor that was made, by the name of its replica."""
        return dict(self._actors)


class RayCluster:
    """Starts the engines of a run on a cluster, and has them asked there. Satisfies ``Elsewhere``.

    Made by :meth:`begin` in the process that owns the run, by :meth:`join` in another one of it.
    """

    def __init__(
        self,
        owner: OwnerHandle,
        *,
        owns: bool,
        leave: Callable[[], None],
        logs: Path,
        secrets: Callable[[EngineSpec], Mapping[str, str]],
    ) -> None:
        self._owner = owner
        self._owns = owns
        self._leave = leave
        self._logs = logs
        self._secrets = secrets
        self._loop = LoopThread()
        self._replicas: dict[str, ReplicaActor] = {}
        self._relays: dict[str, Relay] = {}
        self._guard = threading.Lock()

    # connecting ------------------------------------------------------------------------------------------------------

    @classmethod
    def begin(
        cls,
        executor: str,
        specs: Sequence[EngineSpec],
        *,
        token: str,
        logs: Path,
        secrets: Callable[[EngineSpec], Mapping[str, str]],
    ) -> RayCluster:
        """Connect and see whether these engines can run there; ``UsageError`` says why not, before anything starts."""
        chosen = AUTH_MODE in os.environ
        leave = connect(executor.partition("=")[2], token)
        try:
            refuse_unfit(ray.nodes())
            refuse_unplaceable(specs, ray.nodes())
            here = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=False)
            owner = (
                ray.remote(Owner).options(name=_OWNER, namespace=token, num_cpus=0, scheduling_strategy=here).remote()
            )
            ray.get(owner.actors.remote(), timeout=LOOKED_S)
        except RayError as error:
            leave()
            token_of_ray = not chosen and os.environ.get(AUTH_MODE) == "token"
            why = why_no_process(error, token_of_ray=token_of_ray)
            raise UsageError(f"--parity-executor ray: {why}") from error
        except BaseException:
            leave()
            raise
        return cls(owner, owns=True, leave=leave, logs=logs, secrets=secrets)

    @classmethod
    def join(
        cls, address: str, *, token: str, logs: Path, secrets: Callable[[EngineSpec], Mapping[str, str]]
    ) -> RayCluster:
        """Connect another process of the run; ``address`` is the first one's."""
        leave = connect(address, token)
        try:
            owner = ray.get_actor(_OWNER, namespace=token)
        except (RayError, ValueError) as error:
            leave()
            raise UsageError(
                f"--parity-executor ray: the process that began this run is gone from the cluster ({first_line(error)})"
            ) from error
        return cls(owner, owns=False, leave=leave, logs=logs, secrets=secrets)

    @property
    def address(self) -> str:
        """Where the cluster is, for other processes of the run."""
        return str(ray.get_runtime_context().gcs_address)

    # engines ---------------------------------------------------------------------------------------------------------

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
        """Start a replica where it is placed unless it was; return an adapter that asks it by way of the cluster.

        Raises ``LaunchError`` with the reason of the node.
        """
        order = Order(spec=spec, slots=slots, secrets=self._secrets(spec), left_s=left_s)
        try:
            with placing(spec.name):
                replica = self._placed(spec, engine, stop)
            started = cast("Started", replica.ask("start", order, stop=stop))
        except NodeLost as error:
            raise LaunchError(f"{spec.name} was not started: {error}", engine=spec.name) from error
        if started.error is not None:
            raise LaunchError(started.error, engine=spec.name)
        replica.info = started.info
        with self._guard:
            if spec.name not in self._relays:
                self._relays[spec.name] = Relay(self._loop, functools.partial(self._caller, spec.name))
        return make(spec, self._relays[spec.name].url)

    def _caller(self, name: str) -> Call:
        """Return a function that calls a replica where it is now. A connection may still come while all is closed."""
        with self._guard:
            replica = self._replicas.get(name)
        if replica is None:
            raise NodeLost(f"{name}: the run has ended")
        return replica.call

    def _placed(self, spec: EngineSpec, engine: EngineSpec, stop: Callable[[], str | None]) -> ReplicaActor:
        """Return the actor of a replica, its process there and ready to be called; a lost one has a successor."""
        with self._guard:
            known = self._replicas.get(spec.name)
        if known is not None and not known.lost:
            return known
        index = [each.name for each in engine.each].index(spec.name)
        mine = self._owner.group.remote(engine.name, [bundle_of(engine)] * engine.replicas)
        group = cast("PlacementGroup", waited(mine, stop, limit_s=LOOKED_S, failure=f"{spec.name} was not placed"))
        waited(
            group.ready(), stop, limit_s=PLACED_S, failure=f"{spec.name} was not started: its resources are not free"
        )
        if known is not None and became_of(known, stop):
            _moved(group, index, known.place, stop)
        instead_of = "" if known is None else known.id
        made = self._owner.actor.remote(spec.name, engine.name, index, bundle_of(engine), instead_of=instead_of)
        actor = cast("ReplicaHandle", waited(made, stop, limit_s=LOOKED_S, failure=f"{spec.name} was not placed"))
        replica = ReplicaActor(spec.name, actor, placement_group_table(group)["bundles_to_node_id"].get(index, ""))
        with self._guard:
            self._replicas[spec.name] = replica
        replica.ask(
            "here", stop=stop, limit_s=LOOKED_S, failure="was not started: its process on the cluster did not begin"
        )
        replica.place = placement_group_table(group)["bundles_to_node_id"].get(index, "")
        return replica

    def info(self, name: str) -> Mapping[str, Any]:
        """Return what the starter of a replica found out."""
        return self._replicas[name].info

    def where(self, name: str) -> str:
        """Return the node a replica runs on, in words."""
        return self._replicas[name].where

    def gone(self, name: str) -> str | None:
        """Say why a replica is no more, ``None`` while it runs; waits for a node of which nothing is known."""
        replica = self._replicas[name]
        if replica.lost:
            return replica.became
        try:
            return cast("str | None", replica.ask("gone", limit_s=ANSWERED_S, failure="does not answer"))
        except (NodeLost, LaunchError, KeeperError) as error:
            return str(error)

    def lost(self, name: str) -> bool:
        """Tell whether the node of a replica is gone."""
        return self._replicas[name].lost

    def line(self, adapter: Adapter) -> RemoteLine:
        """Return the line by which a replica is sent its requests, beside it."""
        return RemoteLine(self._replicas[adapter.name], adapter)

    def close(self) -> list[str]:
        """In the process that owns the run, end every engine and keep the ends of their logs; disconnect.

        Returns a sentence for each engine of which it is not known that it ended.
        """
        try:
            for relay in self._relays.values():
                with contextlib.suppress(OSError, RuntimeError):  # the engines are still to be ended
                    relay.close()
            return self._stop_all() if self._owns else []
        finally:
            self._loop.close()
            self._replicas.clear()
            self._relays.clear()
            self._leave()

    def _stop_all(self) -> list[str]:
        try:
            actors: dict[str, ReplicaHandle] = ray.get(self._owner.actors.remote(), timeout=REACHED_S)
            return self._stop(actors)
        except RayError as error:
            return [f"engines on the cluster were not told to end ({first_line(error)}); they end with this process"]
        finally:
            with contextlib.suppress(RayError):
                ray.kill(self._owner)

    def _stop(self, actors: Mapping[str, ReplicaHandle]) -> list[str]:
        wrong = []
        stopping = {name: actor.stop.remote() for name, actor in actors.items()}
        deadline = time.monotonic() + ENDED_S
        for name, stopped in stopping.items():
            try:
                log: bytes = ray.get(stopped, timeout=max(0.0, deadline - time.monotonic()))
                if log:
                    self._keep_log(name, log)
            except GetTimeoutError:
                wrong.append(
                    f"{name} had not ended on its node {ENDED_S:g} s after it was told to; it ends with this process"
                )
            except RayError:
                continue  # its node is gone, and its keeper has ended what ran there
            except (OSError, StoreError) as error:
                wrong.append(f"the log of {name} was not kept: {error}")
        return wrong

    def _keep_log(self, name: str, log: bytes) -> None:
        self._logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = refuse_link(self._logs / f"{name}.log")
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as kept:
            kept.write(log)


def _moved(group: PlacementGroup, index: int, place: str, stop: Callable[[], str | None]) -> None:
    """Wait until what was reserved on a node that is gone is reserved on another one; ``LaunchError`` if it is not."""
    began = time.monotonic()
    while (table := placement_group_table(group))["state"] != "CREATED" or (
        table["bundles_to_node_id"].get(index, "") in ("", place)
    ):
        why = stop() or (f"waited for {PLACED_S:g} s" if time.monotonic() - began >= PLACED_S else None)
        if why is not None:
            raise LaunchError(f"no other node has what was reserved: {why}")
        time.sleep(_SLICE_S)
