"""A small application on real engines: its values on copies of a model, and the page that shows what came of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.conftest import LIMIT_S, own_environment

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/application-values.md"

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.usefixtures("llamacpp")]


def test_a_4_bit_copy_ends_in_other_tickets_and_the_page_shows_what_is_said(tmp_path: Path) -> None:
    project = tmp_path / "fixtures/application"
    shutil.copytree(ROOT / "fixtures/application", project, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    (tmp_path / "fixtures/models").symlink_to(ROOT / "fixtures/models")
    command = re.search(r"`pytest (fixtures/application [^`]+)`", PAGE.read_text("utf-8"))
    assert command is not None

    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", *command[1].split(), "-p", "no:cacheprovider", "-p", "no:asyncio"),
            *("--parity-report=json", "--parity-out=out"),
        ],
        cwd=tmp_path,
        env=own_environment() | {"COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )

    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    report = json.loads((tmp_path / "out/run.json").read_text("utf-8"))
    outcomes = {(verdict["kind"], verdict["engine"]): verdict["outcome"] for verdict in report["verdicts"]}
    assert outcomes == {
        **{("value.rate", engine): "PASS" for engine in ("f16", "q8_0", "q4_0")},
        ("value.agree", "q8_0"): "PASS",
        ("value.agree", "q4_0"): "FAIL",
    }
    (shown,) = re.findall(r"```text value\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert shown in done.stdout, done.stdout
