"""A real llama.cpp is recorded with a suite, then held against itself as it was recorded, its streams included."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity(
    "fixtures/gate/mixed48.jsonl", check.prompts(), check.text(margin=0.05), check.logprobs(shift=0.02), max_tokens=24
)
def test_nothing_changed(parity_run): ...

# Long answers: a busy machine reads what comes within a few milliseconds at once.
@pytest.mark.parity("{stories}", check.latency(e2e_p50="60s", n=16), max_tokens=96)
def test_streams(): ...
"""

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("llamacpp")]


def test_a_live_engine_is_what_was_recorded_of_it(
    tmp_path: Path, some: Callable[..., Path], command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "fixtures").mkdir()
    shutil.copytree(ROOT / "fixtures/gate", tmp_path / "fixtures/gate")
    (tmp_path / "fixtures/models").symlink_to(ROOT / "fixtures/models")
    prompts = tmp_path / "fixtures/gate/mixed48.jsonl"
    prompts.write_text("".join(prompts.read_text("utf-8").splitlines(keepends=True)[::2]), "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider -p no:asyncio\n")
    (tmp_path / "test_stream.py").write_text(SUITE.format(stories=some("stories", 16)))
    config = ("fixtures/gate/llmparity.toml",)

    recorded = command(
        tmp_path, "pytest_llmparity", "record", "f16", "--config", *config, "--suite", "test_stream.py", "-o", "f16",
    )  # fmt: skip
    played = command(
        tmp_path, "pytest", "test_stream.py", "--parity-config", *config, "--engines", "replay:f16,f16",
        "--parity-report=json", "--parity-out=out",
    )  # fmt: skip

    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    assert played.returncode == 0, played.stdout + played.stderr
    report = json.loads((tmp_path / "out/run.json").read_text("utf-8"))
    drift = {verdict["outcome"] for verdict in report["verdicts"] if not verdict["kind"].startswith("latency")}
    assert drift == {"PASS"}, played.stdout  # how busy this machine is says nothing of a recording
    assert {engine["quantization"] for engine in report["engines"]} == {"F16"}
    lines = [json.loads(line) for line in (tmp_path / "recordings/f16.jsonl").read_text("utf-8").splitlines()]
    timed = [line for line in lines[1:] if line["phase"] == "timed"]
    assert len(timed) == 16
    chunks = [len(line["chunks"]) for line in timed]
    assert max(chunks) > 1, "streams came in pieces, all but what a busy machine read at once: once it was half of them"
    assert str(tmp_path) not in (tmp_path / "recordings/f16.jsonl").read_text("utf-8")
