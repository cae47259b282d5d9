"""The golden answers of this repository, held against the engine they were recorded from, and against a 4-bit copy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.conftest import LIMIT_S, own_environment

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("llamacpp")]


def test_an_engine_is_as_it_was_recorded_and_a_4_bit_copy_is_not(tmp_path: Path) -> None:
    for folder in ("golden", "fixtures/gate"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "fixtures/models").symlink_to(ROOT / "fixtures/models")
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "fixtures/gate"]
    command += ["--parity-config", "fixtures/gate/llmparity.toml", "--engines", "golden:f16,f16,q4_0"]

    done = subprocess.run(
        [*command, "--parity-report=json", "--parity-out=out"],
        cwd=tmp_path,
        env=own_environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )

    assert done.returncode == 1, done.stdout + done.stderr
    verdicts = json.loads((tmp_path / "out/run.json").read_text())["verdicts"]
    outcomes = {(verdict["kind"], verdict["engine"]): verdict["outcome"] for verdict in verdicts}
    assert {outcomes[kind, "f16"] for kind in ("prompts", "text", "logprobs")} == {"PASS"}, done.stdout
    assert outcomes["logprobs", "q4_0"] == "FAIL"
