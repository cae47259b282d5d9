"""Latency on one real Ollama: engines that take each other's place in memory, and requests that wait in its queue."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.real_ollama import RealOllama

if TYPE_CHECKING:
    from tests.live.conftest import LiveRun

pytestmark = pytest.mark.live

SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity(
    "{prompts}",
    check.latency(e2e_p50="60s", n=16),
    check.latency(e2e_p50="x1000", n=16),
    max_tokens=8,
    concurrency=4,
)
def test_capitals(): ...
"""
ENGINE = """
[engines.{name}]
kind = "ollama"
model = "{model}"
base_url = "{url}"
route = "{route}"
"""
LOADS = {("f16", 0): 4, ("f16", 1): 8, ("f16", 2): 4, ("q4", 0): 8, ("q4", 1): 8}
"""How many of 16 requests each load answers with four changes, F16 first."""
REPORT = ("--parity-report=json", "--parity-out=out")


def run(
    start: Callable[..., LiveRun],
    daemon: RealOllama,
    engines: dict[str, tuple[str, str]],
    prompts: Path,
    *,
    settings: str = "",
) -> tuple[LiveRun, Any, list[Any]]:
    """Run the gate; return the run, its ``run.json`` and the rows of its timed samples."""
    config = settings + "".join(
        ENGINE.format(name=name, model=model, url=daemon.url, route=route) for name, (model, route) in engines.items()
    )
    args = (f"--engines={','.join(engines)}", *REPORT)
    running = start(*args, suite=SUITE.format(prompts=prompts), config=config)
    running.wait()
    out = running.folder / "out"
    assert out.exists(), running.output
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    return running, json.loads((out / "run.json").read_text()), [row for row in rows if row["phase"] == "timed"]


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Four prompts: what is tested here is when they are asked."""
    rows = [{"id": f"c{n}", "messages": [{"role": "user", "content": f"What is {n} plus {n}?"}]} for n in range(4)]
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def loads(daemon: RealOllama) -> int:
    return daemon.log.read_text("utf-8", "replace").count("starting llama-server")


@pytest.mark.slow
def test_models_that_do_not_fit_together_are_timed_in_blocks(
    start_ollama: Callable[..., RealOllama], launch: Callable[..., LiveRun], few: Path
) -> None:
    daemon = start_ollama(OLLAMA_MAX_LOADED_MODELS="1", OLLAMA_NUM_PARALLEL="1")
    engines = {"f16": (daemon.model("F16"), "openai"), "q4": (daemon.model("Q4_0"), "openai")}

    running, report, timed = run(launch, daemon, engines, few)

    assert "the daemon has room for one of their models at a time" in running.output
    # Engaged, probed, gathered and warmed up by turns, then once for each of the changes of the timed phase.
    assert loads(daemon) <= 14, running.output
    assert len(timed) == 2 * 16
    assert {row["timing"]["block"] for row in timed} == {0, 1, 2, 3}
    assert Counter((row["engine"], row["timing"]["load"]) for row in timed) == LOADS
    assert not any(row["timing"]["met_load"] for row in timed)
    assert len({row["prefix"] for row in timed}) == 2 * 16, "every timed prompt is a new one"
    # Two requests do not tell where the machine stalls while they are answered: then nothing is said of its queue.
    slots = {engine["identity"].get("slots", {}).get("value") for engine in report["engines"]}
    assert slots <= {1, None}
    assert ("answers 1 request at a time (probed)" in json.dumps(report)) is (1 in slots)


def test_two_models_of_one_daemon_are_timed_one_at_a_time(
    start_ollama: Callable[..., RealOllama], launch: Callable[..., LiveRun], few: Path
) -> None:
    daemon = start_ollama(OLLAMA_NUM_PARALLEL="4")
    engines = {"q4": (daemon.model("Q4_0"), "openai"), "f16": (daemon.model("F16"), "openai")}

    running, _, timed = run(launch, daemon, engines, few, settings='residency = "one-at-a-time"\n')

    assert "2 engines one at a time: q4, then f16" in running.output
    # Gathered in turn, then in turn again; the model that was asked last begins, and is not loaded for it.
    assert loads(daemon) == 6, running.output
    assert Counter((row["engine"], row["timing"]["load"]) for row in timed) == LOADS
    assert not any(row["timing"]["met_load"] for row in timed)
    judged = [verdict for (_, kind, _), verdict in running.verdicts().items() if kind == "latency.e2e_p50"]
    assert [verdict["outcome"] for verdict in judged if verdict["margin"] == 1000] == ["PASS"]


@pytest.mark.slow
def test_two_routes_of_one_model_are_timed_in_blocks(
    start_ollama: Callable[..., RealOllama], launch: Callable[..., LiveRun], few: Path
) -> None:
    daemon = start_ollama(OLLAMA_NUM_PARALLEL="4")
    model = daemon.model("F16")

    running, report, timed = run(launch, daemon, {"v1": (model, "openai"), "api": (model, "native")}, few)

    assert "load options of route" in running.output
    assert {row["timing"]["block"] for row in timed} == {0, 1, 2, 3}
    assert not any(row["timing"]["met_load"] for row in timed)
    assert '"2 or more"' in json.dumps(report)
