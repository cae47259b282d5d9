"""Whole runs on a cluster of Ray with two nodes, made on this machine: the same verdicts, and what happens to nodes."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.live.conftest import LIMIT_S, REPO, LiveRun, until
from tests.unavailable import unavailable

pytestmark = [pytest.mark.live, pytest.mark.slow]

TRIES = 4
"""A node gives up when parts of it are not up within 15 seconds, which cannot be changed; a busy machine is slower."""
SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity({prompts!r}, check.prompts(), check.text(margin=0.05), max_tokens={tokens})
def test_close(parity_run): ...
"""
CLUSTER = """
import json, os, socket, sys
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

second = another()
print(json.dumps({"address": cluster.address}), flush=True)
for line in sys.stdin:
    word = line.strip()
    if word == "kill":
        cluster.remove_node(second, allow_graceful=False)
    elif word == "add":
        second = another()
    else:
        break
    print(json.dumps({"done": word}), flush=True)
cluster.shutdown()
"""


class TwoNodes:
    """A head with the resource ``one`` and a node with ``two``, in a process of their own."""

    def __init__(self) -> None:
        variables = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "40"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            env={**os.environ, **variables},
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
        """Kill the second node, as a machine that loses its power (``kill``), or ``add`` another one like it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        assert self._answer() == {"done": word}

    def close(self) -> None:
        """Take it down, and whatever is left of it."""
        left = psutil.Process(self._process.pid).children(recursive=True) if self._process.poll() is None else []
        try:
            self._process.communicate("end\n", timeout=60)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
        for process in psutil.wait_procs(left, 5)[1]:
            process.kill()


@pytest.fixture(scope="module")
def ray() -> None:
    """Skip where Ray is not installed."""
    needs_ray()


def needs_ray() -> None:
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


@pytest.fixture(scope="module")
def cluster() -> Iterator[TwoNodes]:
    with closing(two_nodes()) as running:
        yield running


@pytest.fixture(scope="module")
def config(llamacpp: None, gguf: Callable[..., str]) -> str:
    """F16 on both nodes, a 4-bit copy on the second."""
    f16 = gguf("f16", "F16").replace("[engines.f16.pin]", "replicas = 2\n[engines.f16.pin]")
    return f16 + gguf("q4", "Q4_0").replace("[engines.q4.pin]", "resources = {two = 1}\n[engines.q4.pin]")


def outcomes(run: LiveRun) -> dict[tuple[str, str], tuple[str, object, object]]:
    """What a run came to, with its numbers."""
    return {(kind, engine): (v["outcome"], v["estimate"], v["n"]) for (_, kind, engine), v in run.verdicts().items()}


@pytest.fixture(scope="module")
def suite(prompts: Path) -> str:
    return SUITE.format(prompts=str(prompts / "mixed.jsonl"), tokens=24)


@pytest.fixture(scope="module")
def here(launch: Callable[..., LiveRun], suite: str, config: str) -> LiveRun:
    """The same engines on this machine, once each."""
    run = launch(
        "--engines=f16,q4", "--parity-explain-requests=0", suite=suite, config=config.replace("replicas = 2", "")
    )
    assert run.wait() == 1, run.output
    return run


def of_ray() -> set[int]:
    """The processes of clusters on this machine."""
    return {
        process.pid for process in psutil.process_iter(["name"]) if process.info["name"] in ("raylet", "gcs_server")
    }


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "workers"])
def test_a_cluster_that_is_started_for_the_run_lives_as_long(
    workers: list[str], here: LiveRun, launch: Callable[..., LiveRun], suite: str, config: str
) -> None:
    """Ray's own processes end with the thread that started them.

    The first test here: where two nodes on one address are up, Ray takes them for this machine's cluster, and the first
    actor dies there (seen with 2.60; with one node, as ``ray start`` makes it, it lives).
    """
    before = of_ray()
    config = config.replace("replicas = 2", "replicas = 2\nnum_cpus = 0.5").replace(
        "resources = {two = 1}", "num_cpus = 0.5"
    )
    run = launch(
        "--engines=f16,q4", "--parity-explain-requests=0", "--parity-executor=ray", *workers, suite=suite, config=config
    )

    assert run.wait() == 1, run.output
    assert outcomes(run) == outcomes(here)
    left = [psutil.Process(pid) for pid in of_ray() - before]
    assert not psutil.wait_procs(left, 15)[1]


def written(process: psutil.Process) -> str:
    """The command line of a process, empty of one that is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "workers"])
def test_verdicts_are_those_of_one_machine(
    workers: list[str], cluster: TwoNodes, here: LiveRun, launch: Callable[..., LiveRun], suite: str, config: str
) -> None:
    options = ["--engines=f16,q4", "--parity-explain-requests=0", f"--parity-executor=ray={cluster.address}"]
    run = launch(*options, *workers, suite=suite, config=config)

    assert run.wait() == 1, run.output
    assert outcomes(run) == outcomes(here)
    assert ("text", "q4") in outcomes(run)
    assert f"on the cluster of Ray at {cluster.address}: f16 2 times (1 CPU each), q4 (1 CPU and 1 two)" in " ".join(
        run.output.split()
    )
    assert "f16@2 runs on node" in run.output
    assert "not alike" not in run.output


def test_nothing_is_left_when_the_driver_is_killed(
    cluster: TwoNodes, launch: Callable[..., LiveRun], suite: str, config: str, stay: str, models: Path
) -> None:
    options = ["--engines=f16,q4", "--parity-explain-requests=0", f"--parity-executor=ray={cluster.address}"]
    run = launch(*options, suite=suite + stay, config=config)
    run.wait_for("all-up")
    started = [process for process in psutil.process_iter() if models.joinpath("tiny-").as_posix() in written(process)]
    assert started
    run.kill_9()

    assert not psutil.wait_procs(started, 30)[1]


FAKE = """
[engines.{name}]
kind = "llamacpp"
model = "{model}"
command = ["{python}", "{program}"]
context_length = 512
replicas = {replicas}
resources = {{{resources}}}
[engines.{name}.env]
FAKE_STARTS = "{starts}"
FAKE_BEHAVIOUR = "slow"
"""


@pytest.fixture
def fakes(tmp_path: Path, models: Path) -> Callable[..., str]:
    """Return the configuration of an engine that takes its time, and notes where it was started."""

    def write(name: str, *, replicas: int = 1, resources: str = "") -> str:
        return FAKE.format(
            name=name,
            model=models / "tiny-Q4_0.gguf",
            python=sys.executable,
            program=REPO / "tests/plugin/fake_engine.py",
            replicas=replicas,
            resources=resources,
            starts=tmp_path / f"{name}.starts",
        )

    return write


def answered(run: LiveRun, engine: str) -> int:
    """How many answers of an engine are in the store by now."""
    path = run.folder / ".llmparity/samples.sqlite"
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db, contextlib.suppress(sqlite3.Error):
        (count,) = db.execute("SELECT count(*) FROM samples WHERE engine = ? AND phase = 'main'", (engine,)).fetchone()
        return int(count)
    return 0


@pytest.mark.parametrize("replicas", [2, 1])
def test_a_node_that_is_killed_costs_only_what_it_had_not_answered(
    replicas: int,
    launch: Callable[..., LiveRun],
    fakes: Callable[..., str],
    some: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Of two replicas the other one goes on; the only one is started again as soon as another node has room for it."""
    config = fakes("a", resources="one = 1") + fakes(
        "b", replicas=replicas, resources="" if replicas > 1 else "two = 1"
    )
    suite = SUITE.format(prompts=str(some("mixed", 72)), tokens=12)
    with closing(two_nodes()) as nodes:
        option = f"--parity-executor=ray={nodes.address}"
        run = launch("--engines=a,b", option, "--parity-explain-requests=0", suite=suite, config=config)
        until(lambda: answered(run, "b") >= 30 or run.process.poll() is not None, LIMIT_S, run)
        nodes.tell("kill")
        if replicas == 1:
            nodes.tell("add")
        status = run.wait()

    told = " ".join(run.output.split())
    assert status == 0, run.output
    assert {outcome for outcome, _, _ in outcomes(run).values()} == {"PASS"}
    assert answered(run, "b") == 72
    assert "of the cluster is gone" in told
    lost = int(re.findall(r"(\d+) requests? had no answer by then", told)[0])
    assert 0 < lost <= 72 - 30 + 8
    assert len((tmp_path / "b.starts").read_text().split()) == 2


@pytest.mark.parametrize(
    ("executor", "keys", "expected"),
    [
        ("ray=127.0.0.1:1", "", "nobody answers there"),
        ("ray=nowhere", "", "this is no address; expected HOST:PORT"),
        ("ray=ray://127.0.0.1:1", "", "a client of Ray has no part in its cluster"),
        ("", "num_gpus = 1", "f16 needs 1 CPU and 1 GPU on one node, and no node has that; 2 nodes: 2 CPU and 4"),
        ("", "resources = {h200 = 1}", "f16 needs 1 CPU and 1 h200 on one node"),
        ("", "replicas = 5", "all engines together (f16 5 times) need 5 CPU where the cluster has 4"),
    ],
)
def test_what_cannot_work_is_told_before_anything_starts(
    executor: str,
    keys: str,
    expected: str,
    cluster: TwoNodes,
    launch: Callable[..., LiveRun],
    suite: str,
    gguf: Callable[..., str],
) -> None:
    config = gguf("f16", "F16").replace("[engines.f16.pin]", f"{keys}\n[engines.f16.pin]")
    run = launch(
        f"--parity-executor={executor or f'ray={cluster.address}'}", "--engines=f16", suite=suite, config=config
    )

    assert run.wait() == 4, run.output
    assert expected in " ".join(run.output.split())
