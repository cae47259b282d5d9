"""What cannot work on a cluster of Ray is told before anything starts, by the cluster itself and by real nodes."""

from __future__ import annotations

import importlib.metadata
import re
import sysconfig
import venv
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pytest_llmparity.extras import step_elsewhere
from tests.live.conftest import LiveRun
from tests.live.ray_nodes import SUITE, TwoNodes, needs_ray, two_nodes

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.fixture(scope="module")
def suite(some: Callable[..., Path]) -> str:
    return SUITE.format(prompts=str(some("mixed", 8)), tokens=24)


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


def refused(run: LiveRun) -> str:
    """What a run said that ended before anything was collected or started."""
    assert run.wait() == 4, run.output
    assert not (run.folder / ".llmparity/logs").exists()
    assert "collected" not in run.output
    return " ".join(run.output.split())


def test_a_cluster_of_another_ray_is_told_with_both_versions(
    cluster: TwoNodes, launch: Callable[..., LiveRun], suite: str, gguf: Callable[..., str]
) -> None:
    cluster.tell("says 2.9.3")
    try:
        run = launch(
            f"--parity-executor=ray={cluster.address}", "--engines=f16", suite=suite, config=gguf("f16", "F16")
        )
        told = refused(run)
    finally:
        cluster.tell("says")

    ours = importlib.metadata.version("ray")
    assert "--parity-executor ray: the cluster and this process do not match: Version mismatch: The cluster was" in told
    assert re.search(rf"started with: Ray: 2\.9\.3 Python: \S+ This process on .* Ray: {re.escape(ours)} ", told)
    assert told.endswith("Install the same versions of Ray and Python on both")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has everything this one has but the package itself."""
    folder = tmp_path_factory.mktemp("bare")
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    (there,) = folder.glob("lib/python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "pytest_llmparity" not in entry.name:
            (there / entry.name).symlink_to(entry)
    return folder / "bin/python"


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (None, "pytest-llmparity is not installed on {node}; engines are asked by it there: {install} in"),
        ("0.0.1", "pytest-llmparity is 0.0.1 on {node} and {ours} here; it has to be the same there: {install}"),
    ],
)
def test_a_node_without_this_package_or_with_another_version_of_it_is_named(
    version: str | None,
    expected: str,
    bare: Path,
    cluster: TwoNodes,
    launch: Callable[..., LiveRun],
    suite: str,
    gguf: Callable[..., str],
) -> None:
    ours = importlib.metadata.version("pytest-llmparity")
    (packages,) = bare.parents[1].glob("lib/python*/site-packages")
    if version is not None:
        (packages / f"pytest_llmparity-{version}.dist-info").mkdir()
        metadata = f"Name: pytest-llmparity\nVersion: {version}\n"
        (packages / f"pytest_llmparity-{version}.dist-info/METADATA").write_text(metadata)
    with cluster.joined_by(bare):
        run = launch(
            f"--parity-executor=ray={cluster.address}", "--engines=f16", suite=suite, config=gguf("f16", "F16")
        )
        told = refused(run)

    node = r"node [0-9a-f]{8} \([0-9.]+\)"
    install = step_elsewhere("ray", version=ours)
    refusal = re.escape(expected.format(node="NODE", ours=ours, install=install)).replace("NODE", node)
    assert re.search(refusal, told), told


def test_a_cluster_that_asks_for_no_token_is_told_where_ray_found_one(
    cluster: TwoNodes,
    launch: Callable[..., LiveRun],
    suite: str,
    gguf: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray takes the nodes that are up here for this machine's cluster, and shows them a token that it finds."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 32)
    run = launch("--parity-executor=ray", "--engines=f16", suite=suite, config=gguf("f16", "F16"))

    assert "most likely it asks for no token, and this process shows the one that Ray found here" in refused(run)


def test_a_cluster_that_asks_for_a_token_is_told_where_none_is_shown(
    launch: Callable[..., LiveRun], suite: str, gguf: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``ray start --head`` makes it where a token is there."""
    needs_ray()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 32)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with closing(two_nodes()) as nodes:
        monkeypatch.delenv("RAY_AUTH_MODE")
        monkeypatch.setenv("RAY_NUM_REDIS_GET_RETRIES", "2")  # Ray asks 20 times otherwise, a second apart
        option = f"--parity-executor=ray={nodes.address}"
        told = refused(launch(option, "--engines=f16", suite=suite, config=gguf("f16", "F16")))

    assert f"the cluster at {nodes.address} asks for a token: set RAY_AUTH_MODE=token here" in told
