"""The golden answers of this repository, held against the engine they were recorded from, and against a 4-bit copy."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engines.live import python_of

if TYPE_CHECKING:
    from tests.engines.live import Served

Command = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.live

ROWS = """
import pytest

@pytest.mark.parity("mixed48.jsonl", max_tokens=24)
@pytest.mark.parametrize("name", {engines})
def test_rows(parity_run, name):
    recorded, now = parity_run["golden-" + name], parity_run[name]
    equal = [case for case in now if now[case].text == recorded[case].text]
    assert len(now) == {prompts}
    assert len(equal) >= len(now) - {others}, (len(equal), len(now))
"""
OPTIONS = ("-p", "no:asyncio")
FEW = 8
"""Prompts that are asked of an engine that takes seconds to start, or for each."""
OTHERS = {"vllm": FEW // 2}
"""How many answers may be others. Near-ties in bfloat16 part by the CPU and by what shares a batch: vLLM gave 8 of 8
where it was recorded, 5 of 8 on a busy CPU of another make.
"""


@pytest.mark.usefixtures("llamacpp")
def test_an_engine_is_as_it_was_recorded_and_a_4_bit_copy_is_not(tmp_path: Path, command: Command) -> None:
    for folder in ("golden", "fixtures/gate"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "fixtures/models").symlink_to(ROOT / "fixtures/models")
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    words = ("fixtures/gate", "--parity-config=fixtures/gate/llmparity.toml", "--engines=golden:f16,f16,q4_0")

    done = command(
        tmp_path, "pytest", *words, "--parity-report=json", "--parity-out=out", "--parity-explain-requests=0"
    )

    assert done.returncode == 1, done.stdout + done.stderr
    verdicts = json.loads((tmp_path / "out/run.json").read_text())["verdicts"]
    outcomes = {(verdict["kind"], verdict["engine"]): verdict["outcome"] for verdict in verdicts}
    assert {outcomes[kind, "f16"] for kind in ("prompts", "text", "logprobs")} == {"PASS"}, done.stdout
    assert outcomes["logprobs", "q4_0"] == "FAIL"


@pytest.mark.slow
@pytest.mark.usefixtures("llamacpp")
def test_the_other_copies_answer_as_they_were_recorded(tmp_path: Path, command: Command) -> None:
    for folder in ("golden", "fixtures/gate"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "fixtures/models").symlink_to(ROOT / "fixtures/models")
    (tmp_path / "fixtures/gate/test_gate.py").write_text(ROWS.format(engines=["q8_0", "q4_0"], prompts=48, others=1))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    words = (*OPTIONS, "fixtures/gate/test_gate.py", "--parity-config=fixtures/gate/llmparity.toml")

    done = command(tmp_path, "pytest", *words, "--engines=golden:q8_0,q8_0,golden:q4_0,q4_0")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def rows(command: Command, folder: Path, engine: str, table: str) -> None:
    """Hold that an engine of this configuration answers a few prompts of the set as it was recorded."""
    shutil.copytree(ROOT / "golden", folder / "golden")
    (folder / "tiny").symlink_to(ROOT / "fixtures/models/tiny")
    lines = (ROOT / "fixtures/gate/mixed48.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "mixed48.jsonl").write_text("".join(lines[:: len(lines) // FEW][:FEW]), "utf-8")
    (folder / "test_rows.py").write_text(ROWS.format(engines=[engine], prompts=FEW, others=OTHERS.get(engine, 1)))
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "llmparity.toml").write_text(table)

    done = command(folder, "pytest", *OPTIONS, f"--engines=golden:{engine},{engine}")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@pytest.mark.slow
def test_an_engine_answers_as_it_was_recorded(tmp_path: Path, command: Command) -> None:
    """In the folder's own type, BF16, while the one that other tests share computes in F32."""
    python = python_of("transformers")

    table = f'[engines.transformers]\nkind = "transformers"\npython = "{python}"\nmodel = "tiny"\n'
    rows(
        command, tmp_path, "transformers", table + 'env = {OMP_NUM_THREADS = "1"}\n'
    )  # more wait for each other busily


@pytest.mark.parametrize("served", ["vllm", pytest.param("mlx", marks=pytest.mark.slow)], indirect=True)
def test_an_engine_that_runs_answers_as_it_was_recorded(
    served: Served, attached: Callable[..., str], tmp_path: Path, command: Command
) -> None:
    """What takes seconds to start is asked a few prompts of the set."""
    kind = served.adapter.kind
    pinned = "[engines.vllm.pin]\ncontext_length = 1024\n" if kind == "vllm" else ""
    rows(command, tmp_path, kind, attached(kind, served) + pinned)
