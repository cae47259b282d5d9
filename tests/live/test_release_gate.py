"""``llmparity gate`` on a real llama.cpp: F16 replaces its own golden answers, a copy in 4 bits does not."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUITE = ("--config", "fixtures/gate/llmparity.toml", "--suite", "fixtures/gate")

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("llamacpp")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the golden answers of this repository and the suite that reads them, on half of its prompts."""
    for folder in ("golden", "fixtures/gate"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    prompts = tmp_path / "fixtures/gate/mixed48.jsonl"
    prompts.write_text("".join(prompts.read_text("utf-8").splitlines(keepends=True)[::2]), "utf-8")
    (tmp_path / "fixtures/models").symlink_to(ROOT / "fixtures/models")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = -p no:cacheprovider -p no:asyncio --parity-explain-requests=0\n"
    )
    (tmp_path / "release.toml").write_text("[[rule]]\nlevel = 'advisory'\ncheck = 'logprobs'\n")
    return tmp_path


def test_an_upgrade_is_decided(project: Path, command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    def gate(*words: str) -> tuple[int, str]:
        done = command(project, "pytest_llmparity", "gate", *words)
        return done.returncode, done.stdout + done.stderr

    same, said_of_same = gate(*SUITE, "--baseline", "golden:f16", "--candidate", "f16")
    smaller, said_of_smaller = gate(*SUITE, "--baseline", "golden:f16", "--candidate", "q4_0", "--json", "d.json")
    middle, said_of_middle = gate(*SUITE, "--baseline", "golden:f16", "--candidate", "q8_0", "--policy", "release.toml")
    strict, _ = gate("--run", "newest")
    _, history = gate("--history")

    assert same == 0, said_of_same
    assert "SHIP: f16 may replace golden-f16." in said_of_same
    assert smaller == 1, said_of_smaller
    assert "quantization: F16 -> Q4_0" in said_of_smaller
    decision = json.loads((project / "d.json").read_text("utf-8"))
    assert decision["flips"]["regressions"] > 0
    assert middle in (0, 2), said_of_middle  # its answers may take more prompts than these; its logprobs are other ones
    assert strict == 1, "without the policy its logprobs hold it"
    assert [line.split()[2] for line in history.splitlines()][:2] == ["SHIP", "HOLD"]
