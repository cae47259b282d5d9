"""Joining a cluster of Ray, and seeing that its nodes can run what is ours."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

import ray
from ray.exceptions import AuthenticationError, GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.extras import PACKAGE, step_elsewhere

AUTH_MODE: Final = "RAY_AUTH_MODE"
"""The variable by which a person or Ray says whether this process shows a token (``disabled``, ``token``)."""
REACHED_S: Final = 5.0
"""How long the address of a cluster may take to accept a connection: Ray itself would try for minutes."""
CONNECTED_S: Final = 60.0
"""How long Ray may take to join a cluster, or to start one here."""
LOOKED_S: Final = 120.0
"""How long a node may take to say what is installed on it: the first process of a job is started for that."""


def connect(address: str, token: str) -> Callable[[], None]:
    """Join a cluster, or start one on this machine; return a function that leaves it, which joined ones do not notice.

    ``UsageError`` for an address where none answers, and for one of another version.
    """
    if ray.is_initialized():
        return lambda: None
    if address.startswith("ray://"):
        raise UsageError(
            f"--parity-executor ray={address}: a client of Ray has no part in its cluster; run pytest on a machine of "
            "the cluster (ray start --address=HEAD:6379) and give HEAD:6379"
        )
    if address and address != "auto":
        refuse_unreachable(address)
    options: dict[str, Any] = {"address": address or None, "namespace": token, "log_to_driver": False}
    if not (address or os.environ.get("RAY_ADDRESS")):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # for one that is started here
        options["include_dashboard"] = None
    # In a thread of its own: Ray takes SIGTERM over in the main one, which is pytest's.
    joined, done, left = Future[None](), threading.Event(), threading.Event()
    joined.add_done_callback(lambda _: done.set())
    threading.Thread(target=_belong, args=(options, joined, left), name="llmparity-ray", daemon=True).start()

    def leave() -> None:
        try:
            ray.shutdown()
        finally:
            left.set()

    if not done.wait(CONNECTED_S):
        left.set()  # whoever joins after all leaves at once
        where = address or "on this machine"
        raise UsageError(f"--parity-executor ray: no cluster of Ray answered {where} within {CONNECTED_S:g} s")
    _raise_if_failed(joined, address)
    return leave


def _belong(options: Mapping[str, Any], joined: Future[None], left: threading.Event) -> None:
    """Join, and stay until everybody has left: Linux ends what Ray started here with the thread that started it.

    Ray asks for that by ``PR_SET_PDEATHSIG`` (``ray/_private/utils.py``), which means a thread and not its process
    (prctl(2)).
    """
    try:
        _init(options)
    except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
        joined.set_exception(error)
    else:
        late = left.is_set()
        joined.set_result(None)
        left.wait()
        if late:
            ray.shutdown()


def _init(options: Mapping[str, Any]) -> None:
    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.init(configure_logging=False, **{name: value for name, value in options.items() if value is not None})


def _raise_if_failed(joined: Future[None], address: str) -> None:
    error = joined.exception()
    if error is not None:
        raise UsageError(f"--parity-executor ray: {why_not_joined(error, address)}") from error


def why_not_joined(error: BaseException, address: str) -> str:
    """Return what keeps this process from a cluster, from the error of ``ray.init``, and the next step."""
    if "ersion mismatch" in str(error):  # a RuntimeError of ray/_private/utils.py, check_version_info
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return (
            f"the cluster and this process do not match: {' '.join(lines)} Install the same versions of Ray and Python "
            "on both"
        )
    where = f"at {address}" if address else "on this machine"
    if any(isinstance(cause, AuthenticationError) or "InvalidAuthToken" in str(cause) for cause in _causes(error)):
        return (
            f"the cluster {where} asks for a token: set RAY_AUTH_MODE=token here, and have its token in "
            "~/.ray/auth_token or RAY_AUTH_TOKEN (ray get-auth-token on its head prints it)"
        )
    return f"the cluster {where} cannot be used: {first_line(error)}"


def why_no_process(error: BaseException, *, token_of_ray: bool) -> str:
    """Return what keeps processes of ours from a cluster that was joined.

    ``token_of_ray``: Ray itself found a token here and shows it. A cluster that asks for none takes it, and ends the
    first actor of whoever has one, because it cannot call back (seen with 2.60).
    """
    if token_of_ray and isinstance(error, RayActorError):
        return (
            "the cluster ended the first process of this run; most likely it asks for no token, and this process shows "
            "the one that Ray found here (~/.ray/auth_token or RAY_AUTH_TOKEN): set RAY_AUTH_MODE=disabled, or start "
            "the cluster with tokens"
        )
    return f"the cluster cannot be used: {first_line(error)}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it came from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def refuse_unreachable(address: str) -> None:
    """Raise ``UsageError`` where nothing accepts a connection at the address of a cluster."""
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdigit()):
        raise UsageError(f"--parity-executor ray={address}: this is no address; expected HOST:PORT such as head:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"--parity-executor ray={address}: nobody answers there ({error}); ray status on its head says where it is"
        ) from error


def refuse_unfit(nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raise ``UsageError`` where a node lacks this package, or has another version of it."""
    ours = importlib.metadata.version(PACKAGE)
    alive = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes if node["Alive"]}
    version_of = ray.remote(importlib.metadata.version)
    versions = {
        node: version_of.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node, soft=False), max_retries=0
        ).remote(PACKAGE)
        for node in alive
    }
    for node, version in versions.items():
        where = f"node {node[:8]} ({alive[node]})"
        try:
            theirs = ray.get(version, timeout=LOOKED_S)
        except importlib.metadata.PackageNotFoundError:
            raise UsageError(
                f"--parity-executor ray: {PACKAGE} is not installed on {where}; engines are asked by it there: "
                f"{step_elsewhere('ray', version=ours)} in the environment of its Ray"
            ) from None
        except (GetTimeoutError, RayError) as error:
            raise UsageError(f"--parity-executor ray: {where} cannot be used: {first_line(error)}") from error
        if theirs != ours:
            raise UsageError(
                f"--parity-executor ray: {PACKAGE} is {theirs} on {where} and {ours} here; it has to be the same "
                f"there: {step_elsewhere('ray', version=ours)}"
            )


def first_line(error: BaseException) -> str:
    """Return the first line of an error that has something in it; those of Ray go on for pages."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
