"""``llmparity bisect`` on a real llama.cpp: the first of eight planted builds, and two real versions of its package."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unavailable import unavailable

ROOT = Path(__file__).resolve().parents[2]
DEV = """
[engines.dev]
kind = "llamacpp"
model = "fixtures/models/tiny/tiny-F16.gguf"
context_length = 1024
args = ["--threads", "1"]
requires = "xllamacpp==2026.10.11549"
"""
Bisect = Callable[..., tuple[int, str]]
NO_INDEX = ("Failed to fetch", "dns error", "Network connectivity is disabled")

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("llamacpp")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the golden answers of this repository, the suite that reads them, and an engine with requires.

    A third of the prompts: the same weights say the same, and 4 bits are 0.3 nats away where 0.005 is allowed.
    """
    for folder in ("golden", "fixtures/gate"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    prompts = tmp_path / "fixtures/gate/mixed48.jsonl"
    prompts.write_text("".join(prompts.read_text("utf-8").splitlines(keepends=True)[::3]), "utf-8")
    (tmp_path / "fixtures/models").symlink_to(ROOT / "fixtures/models")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = -p no:cacheprovider -p no:asyncio --parity-explain-requests=0\n"
    )
    (tmp_path / "dev.toml").write_text(DEV)
    return tmp_path


@pytest.fixture
def bisect(project: Path, command: Callable[..., subprocess.CompletedProcess[str]]) -> Bisect:
    """Search in the project; return the exit code and all that was written."""

    def run(*words: str) -> tuple[int, str]:
        done = command(project, "pytest_llmparity", "bisect", "--suite", "fixtures/gate", *words)
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.slow
def test_the_first_of_eight_builds_that_changed_takes_three_gates_between_ends_that_are_known(
    project: Path, bisect: Bisect
) -> None:
    planted = ("--config", "fixtures/gate/llmparity.toml", "--versions-from", "fixtures/gate/versions.toml")
    words = (*planted, "--engine", "f16", "--baseline", "golden:f16")

    code, told = bisect(*words, "--good", "build-1", "--bad", "build-8")
    decisions = (project / ".llmparity/decisions.jsonl").read_text("utf-8").splitlines()
    again, told_again = bisect(*words, "--good", "build-5", "--bad", "build-7")

    assert (code, again) == (1, 1), told + told_again
    text = " ".join(told.split())
    assert "build-6 is the first version of f16 that no longer passes; build-5, before it, does." in text
    assert "quantization: F16 -> Q4_0" in text
    assert [json.loads(line)["outcome"] for line in decisions] == ["SHIP", "HOLD", "SHIP"]
    assert told_again.count("its answers were stored, nobody was asked") == 1


@pytest.mark.slow
def test_versions_of_a_package_are_installed_and_gated_and_one_that_is_not_there_is_searched_around(
    bisect: Bisect,
) -> None:
    versions = "2026.9.11063,2026.9.99999,2026.10.11549"

    words = ("--config", "dev.toml", "--engine", "dev", "--baseline", "golden:f16", "--versions", versions)

    code, told = bisect(*words, "--good", "2026.9.11063", "--bad", "2026.10.11549")

    if any(why in told for why in NO_INDEX):
        unavailable("environments", f"no index can be reached: {told}")
    assert code == 2, told
    reason = "2026.9.99999 unusable requires = 'xllamacpp==2026.9.99999' could not be installed"
    assert reason in " ".join(told.split())

    code, told = bisect(*words)

    assert code == 0, told
    assert "2026.9.11063   SHIP" in told
    assert "2026.10.11549  SHIP" in told
