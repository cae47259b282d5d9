"""What a schema that vLLM enforces leaves of its drift: forks and shift with the constraint and without it.

    LLMPARITY_VLLM_PYTHON=~/vllm/bin/python python -m benchmarks.constrained

The same 96 tickets on llama.cpp (F16) and vLLM (BF16, guided by its default backend) of the tiny model, asked as they
are and with ``response_format``; 64 tokens, four at once. Minutes, most of them vLLM's start on a CPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
GATES: Final = """
import pytest
from pytest_llmparity import check
CHECKS = (check.text(margin=0.05, horizon=64), check.logprobs(shift=0.06))
@pytest.mark.parity("{prompts}/tickets.jsonl", *CHECKS, max_tokens=64, concurrency=4)
def test_free(): pass
@pytest.mark.parity("{prompts}/tickets_constrained.jsonl", *CHECKS, max_tokens=64, concurrency=4)
def test_constrained(): pass
"""
ENGINES: Final = """
[engines.llamacpp]
kind = "llamacpp"
model = "{models}/tiny-F16.gguf"
context_length = 1024
slots = 4
[engines.vllm]
kind = "vllm"
model = "{models}"
python = "{python}"
context_length = 1024
slots = 8
args = ["--dtype", "bfloat16", "--enforce-eager", "--num-gpu-blocks-override", "128"]
env = {{ TORCHDYNAMO_DISABLE = "1", OMP_NUM_THREADS = "1" }}
"""


def main() -> int:
    """Run both gates and print their verdicts as a table."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "test_gates.py").write_text(GATES.format(prompts=ROOT / "fixtures/prompts"))
        python = os.environ["LLMPARITY_VLLM_PYTHON"]
        (here / "llmparity.toml").write_text(ENGINES.format(models=ROOT / "fixtures/models/tiny", python=python))
        command = [sys.executable, "-m", "pytest", "--engines", "llamacpp,vllm", "--parity-report=json"]
        env = {name: value for name, value in os.environ.items() if name != "CI"}
        done = subprocess.run(
            [*command, "--parity-explain-requests=0", "-p", "no:cacheprovider"],
            cwd=here,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        report = here / ".llmparity/report/run.json"
        if not report.exists():
            raise SystemExit(done.stdout + done.stderr)
        print("| prompts | check | verdict | estimate | lower | upper | n |\n|---|---|---|--:|--:|--:|--:|")
        for verdict in json.loads(report.read_text("utf-8"))["verdicts"]:
            numbers = ("nothing" if verdict[name] is None else f"{verdict[name]:.4f}" for name in _NUMBERS)
            where = verdict["test"].rpartition("::")[2].removeprefix("test_")
            print(f"| {where} | {verdict['kind']} | {verdict['outcome']} | {' | '.join(numbers)} | {verdict['n']} |")
            if verdict["reason"]:
                print(f"  {verdict['reason']}")
    return 0


_NUMBERS: Final = ("estimate", "lower", "upper")

if __name__ == "__main__":
    sys.exit(main())
