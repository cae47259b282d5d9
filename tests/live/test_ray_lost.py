"""Nodes of a cluster that are killed while engines are asked there: what it costs, and who goes on."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.live.conftest import LIMIT_S, REPO, LiveRun, until
from tests.live.ray_nodes import SUITE, two_nodes

pytestmark = [pytest.mark.live, pytest.mark.slow]

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
    assert {outcome for outcome, _, _ in run.outcomes().values()} == {"PASS"}
    assert answered(run, "b") == 72
    assert "of the cluster is gone" in told
    lost = int(re.findall(r"(\d+) requests? had no answer by then", told)[0])
    assert 0 < lost <= 72 - 30 + 8
    assert len((tmp_path / "b.starts").read_text().split()) == 2
