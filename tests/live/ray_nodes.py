"""A cluster of Ray with two nodes on this machine, whose nodes can be killed and added."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.unavailable import unavailable

SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity({prompts!r}, check.prompts(), check.text(margin=0.05), max_tokens={tokens})
def test_close(parity_run): ...
"""
TRIES = 4
"""A node gives up when parts of it are not up within 15 seconds, which cannot be changed; a busy machine is slower."""
VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "40",
    "RAY_health_check_period_ms": "1000",  # three times as often as by default, so that a node is gone the sooner
}
PORTS = ("dashboard_agent_listen_port", "metrics_export_port", "runtime_env_agent_port")
"""Of each node its own: Ray counts on one for each machine."""
CLUSTER = """
import json, os, socket, sys
import ray
from ray._common.usage import usage_constants, usage_lib
from ray._private import ray_constants
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster

def ports():
    names = ("dashboard_agent_listen_port", "metrics_agent_port", "metrics_export_port", "runtime_env_agent_port")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    numbers = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return dict(zip(names, numbers))

cluster = Cluster(
    initialize_head=True,
    head_node_args={
        "num_cpus": 2, "include_dashboard": False, "resources": {"one": 4}, **ports()
    },
)

def another():
    for attempt in range(4):
        try:
            return cluster.add_node(num_cpus=2, resources={"two": 4}, **ports())
        except Exception as error:
            last = error
    raise last

def say(version):
    client = GcsClient(address=cluster.address)
    told = usage_lib.get_cluster_metadata(client) | {"ray_version": version}
    place = usage_constants.CLUSTER_METADATA_KEY, ray_constants.KV_NAMESPACE_CLUSTER
    client.internal_kv_put(place[0], json.dumps(told).encode(), overwrite=True, namespace=place[1])

second = another()
print(json.dumps({"address": cluster.address}), flush=True)
for line in sys.stdin:
    word, _, version = line.strip().partition(" ")
    if word == "says":
        say(version or ray.__version__)
    elif word == "kill":
        cluster.remove_node(second, allow_graceful=False)
    elif word == "add":
        second = another()
    else:
        break
    print(json.dumps({"done": line.strip()}), flush=True)
cluster.shutdown()
"""


class TwoNodes:
    """A head with the resource ``one`` and a node with ``two``, in a process of their own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            env={**os.environ, **VARIABLES},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        answer = self._answer()
        self.address = str(answer.get("address", ""))

    def _answer(self) -> Mapping[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        return {}

    def tell(self, word: str) -> None:
        """Kill the second node, as a machine that loses its power (``kill``), or ``add`` another one like it.

        ``says VERSION`` has the cluster say that it is of another Ray, ``says`` of the one it is.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        assert self._answer() == {"done": word}

    def processes(self, title: str) -> list[psutil.Process]:
        """Return what runs on it under a title that begins so."""
        family = psutil.Process(self._process.pid).children(recursive=True)
        return [process for process in family if " ".join(process.cmdline()).startswith(title)]

    @contextlib.contextmanager
    def joined_by(self, python: Path) -> Iterator[None]:
        """Have a third node join for a block, whose processes run in the environment of this Python."""
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in PORTS]
            ports = [f"--{name.replace('_', '-')}={s.getsockname()[1]}" for name, s in zip(PORTS, sockets, strict=True)]
        start = (python, "-m", "ray.scripts.scripts", "start", "--block", f"--address={self.address}", *ports)
        node = subprocess.Popen(
            [*map(str, start), "--num-cpus=1", "--disable-usage-stats"],
            env={**os.environ, **VARIABLES},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert node.stdout is not None
            lines: list[str] = []
            while not (lines and "Ray runtime started" in lines[-1]):
                line = node.stdout.readline()
                assert line, "".join(lines)
                lines.append(line)
            yield
        finally:
            left = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
            node.terminate()
            for process in psutil.wait_procs(left, 15)[1]:
                process.kill()
            node.communicate()

    def close(self) -> None:
        """Take it down, and whatever is left of it."""
        left = psutil.Process(self._process.pid).children(recursive=True) if self._process.poll() is None else []
        try:
            self._process.communicate("end\n", timeout=60)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
        for process in psutil.wait_procs(left, 5)[1]:
            process.kill()


def needs_ray() -> None:
    """Skip where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        unavailable("ray", "ray is not installed")


def two_nodes() -> TwoNodes:
    """Make a cluster, or skip where Ray is not installed."""
    needs_ray()
    for _ in range(TRIES):
        cluster = TwoNodes()
        if cluster.address:
            return cluster
        cluster.close()
    pytest.fail(f"no cluster of Ray was up in {TRIES} tries")
