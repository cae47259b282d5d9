"""Where engines run that we start: on this machine, or on a cluster that this process joins.

The process that pytest was started as connects before anything is collected, so that what cannot work ends there.
Workers of xdist join its cluster when they need an engine.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_llmparity import extras
from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.settings.specification import EngineSpec, Settings

if TYPE_CHECKING:
    from pytest_llmparity.run.gather.cluster.ray import RayCluster

CLUSTER = "cluster"
"""Our entry in what the controller of xdist gives its workers: the address of the cluster."""
SINCE: Final = "2.60"
"""The first Ray that this was tried with; the extra ``ray`` installs no older one."""


class Placing:
    """The cluster of one run, for one of its processes. ``address`` is what the controller gave a worker."""

    def __init__(self, settings: Settings, *, token: str, workdir: Path, address: str | None = None) -> None:
        self._settings = settings
        self._token = token
        self._logs = workdir / "logs"
        self._address = address
        self._cluster: RayCluster | None = None
        self._joining = threading.Lock()

    def refuse_unfit(self) -> None:
        """Connect, and see that every engine can be placed; ``pytest.UsageError`` says why not."""
        by = self._settings.origins.get("executor", "--parity-executor")
        needs = f"{by}: {self._settings.executor} needs Ray {SINCE} or later"
        if (why := why_no_ray()) is not None:
            raise pytest.UsageError(f"{needs}, {why}")
        try:
            from pytest_llmparity.run.gather.cluster.ray import RayCluster
        except ImportError as error:
            raise pytest.UsageError(f"{needs}, and what is installed cannot be imported: {error}") from error
        try:
            self._cluster = RayCluster.begin(
                self._settings.executor,
                self._settings.placed,
                token=self._token,
                logs=self._logs,
                secrets=_secrets,
            )
        except UsageError as error:
            raise pytest.UsageError(str(error)) from None

    def cluster(self) -> RayCluster:
        """Return the cluster of this run."""
        with self._joining:  # engines start in threads
            if self._cluster is None:
                from pytest_llmparity.run.gather.cluster.ray import RayCluster

                assert self._address is not None
                self._cluster = RayCluster.join(self._address, token=self._token, logs=self._logs, secrets=_secrets)
            return self._cluster

    def share(self) -> dict[str, str]:
        """Return what a worker needs to join."""
        return {CLUSTER: self.cluster().address}

    def close(self) -> list[str]:
        """Leave the cluster, and where this process began it end every engine; return what went wrong.

        It may be called again.
        """
        cluster, self._cluster = self._cluster, None
        return [] if cluster is None else cluster.close()

    def leave(self) -> None:
        """Leave, where pytest ends before the session did."""
        self.close()


def why_no_ray() -> str | None:
    """Say why Ray cannot be imported here, and the next step; ``None`` where it can, as far as that is seen without.

    Any folder ``ray`` on ``sys.path`` is a package to Python: a checkout's, or a session's of Ray below ``/tmp``.
    """
    alike, apart = " and on every node of the cluster", ", and Ray (the same extra) in the environment of every node"
    install = f"{extras.command('ray')} here{apart if extras.is_local() else alike}"
    try:
        version = metadata.version("ray")
    except metadata.PackageNotFoundError:
        version = None
    spec = importlib.util.find_spec("ray")
    if spec is None:
        return f"which is not installed: {install}"
    folders = list(spec.submodule_search_locations or ())
    if not any((Path(folder) / "_private" / "services.py").is_file() for folder in folders):
        where = folders[0] if folders else spec.origin
        if version is None and spec.origin is None:
            return f"which is not installed ({where} is a folder of that name without it): {install}"
        return f"and {where}, which comes first on sys.path, is not Ray: rename it or run pytest from elsewhere" + (
            "" if version is not None else f"; then {install}"
        )
    if version is not None:
        from packaging.version import Version  # its import is for whoever asks for Ray alone

        if Version(version) < Version(SINCE):
            return f"and {version} is installed: {install}"
    return None


def _secrets(spec: EngineSpec) -> dict[str, str]:
    """Return the values that an engine's own variables have here; they go to its node by a call and are not stored."""
    return {name: os.environ[name] for name in spec.secret_variables if name in os.environ}
