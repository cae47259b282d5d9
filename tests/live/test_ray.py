"""Whole runs on a cluster of Ray with two nodes, made on this machine: the same verdicts, and what happens to nodes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.live.conftest import LiveRun
from tests.live.ray_nodes import SUITE, TwoNodes, needs_ray

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.fixture(scope="module")
def ray() -> None:
    """Skip where Ray is not installed."""
    needs_ray()


@pytest.fixture(scope="module")
def config(llamacpp: None, gguf: Callable[..., str]) -> str:
    """F16 on both nodes, a 4-bit copy on the second."""
    f16 = gguf("f16", "F16").replace("[engines.f16.pin]", "replicas = 2\n[engines.f16.pin]")
    return f16 + gguf("q4", "Q4_0").replace("[engines.q4.pin]", "resources = {two = 1}\n[engines.q4.pin]")


@pytest.fixture(scope="module")
def suite(some: Callable[..., Path]) -> str:
    """Return a gate that a 4-bit copy fails by far: at least 8.6 % of its tokens fork, where 2 % may."""
    return SUITE.format(prompts=str(some("mixed", 32)), tokens=24).replace("margin=0.05", "margin=0.02")


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

    The first test here: Ray would take the nodes of the others for this machine's cluster.
    """
    before = of_ray()
    config = config.replace("replicas = 2", "replicas = 2\nnum_cpus = 0.5").replace(
        "resources = {two = 1}", "num_cpus = 0.5"
    )
    run = launch(
        "--engines=f16,q4", "--parity-explain-requests=0", "--parity-executor=ray", *workers, suite=suite, config=config
    )

    assert run.wait() == 1, run.output
    assert run.outcomes() == here.outcomes()
    left = [psutil.Process(pid) for pid in of_ray() - before]
    assert not psutil.wait_procs(left, 15)[1]


def written(process: psutil.Process) -> str:
    """The command line of a process, empty of one that is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_verdicts_are_those_of_one_machine(
    cluster: TwoNodes, here: LiveRun, launch: Callable[..., LiveRun], suite: str, config: str
) -> None:
    """On a cluster that was there. Workers join it by the address it has then, as they do one that was started."""
    options = ["--engines=f16,q4", "--parity-explain-requests=0", f"--parity-executor=ray={cluster.address}"]
    run = launch(*options, suite=suite, config=config)

    assert run.wait() == 1, run.output
    assert run.outcomes() == here.outcomes()
    assert ("text", "q4") in run.outcomes()
    assert f"on the cluster of Ray at {cluster.address}: f16 2 times (1 CPU each), q4 (1 CPU and 1 two)" in " ".join(
        run.output.split()
    )
    assert "f16@2 runs on node" in run.output
    assert "not alike" not in run.output


def test_nothing_is_left_when_the_driver_is_killed(
    cluster: TwoNodes, launch: Callable[..., LiveRun], suite: str, config: str, stay: str, models: Path, tmp_path: Path
) -> None:
    """Its engines are known by the model in their command line, a copy: other tests may run on the same one beside."""
    own = shutil.copytree(models, tmp_path / "models")
    options = ["--engines=f16,q4", "--parity-explain-requests=0", f"--parity-executor=ray={cluster.address}"]
    run = launch(*options, suite=suite + stay, config=config.replace(str(models), str(own)))
    run.wait_for("all-up")
    started = [process for process in psutil.process_iter() if str(own) in written(process)]
    assert len(started) >= 3
    run.kill_9()

    assert not psutil.wait_procs(started, 30)[1]
