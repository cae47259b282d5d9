"""What a schema that vLLM enforces leaves of its drift: forks and shift with the constraint and without it.

    LLMPARITY_VLLM_PYTHON=~/vllm/bin/python python -m benchmarks.constrained [--prompts 96]

The same tickets on llama.cpp (F16) and vLLM (BF16, guided by its default backend) of the tiny model, asked as they are
and with ``response_format``; 64 tokens, four at once. The table goes into docs/statistics.md. Minutes of a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs/statistics.md"
MARK: Final = "<!-- constrained: made by benchmarks/constrained.py -->\n"
END: Final = "<!-- /constrained -->"
SETS: Final = ("tickets", "tickets_constrained")
GATES: Final = """
import pytest
from pytest_llmparity import check
CHECKS = (check.text(margin=0.05, horizon=64), check.logprobs(shift=0.06))
@pytest.mark.parity("tickets.jsonl", *CHECKS, max_tokens=64, concurrency=4)
def test_free(): pass
@pytest.mark.parity("tickets_constrained.jsonl", *CHECKS, max_tokens=64, concurrency=4)
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


def judged(prompts: int) -> str:
    """Run both gates on so many of the tickets, from all over the set; return ``run.json``."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        for name in SETS:
            rows = (ROOT / f"fixtures/prompts/{name}.jsonl").read_text("utf-8").splitlines()
            chosen = [rows[at * len(rows) // prompts] for at in range(prompts)]
            (here / f"{name}.jsonl").write_text("\n".join(chosen), "utf-8")
        (here / "test_gates.py").write_text(GATES)
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
        return report.read_text("utf-8")


def line(verdict: Mapping[str, Any]) -> str:
    """Return a verdict as a row of the table; one that measured nothing says why."""
    where = WORDS[verdict["test"].rpartition("::")[2]]
    numbers = [verdict[name] for name in ("estimate", "lower", "upper")]
    told = f"{verdict['n']} prompts: " * bool(verdict["n"]) + verdict["message"].partition("\n")[0]
    if None not in numbers:
        nats = verdict["kind"] == "logprobs"
        estimate, lower, upper = (f"{number:.4f}" if nats else f"{100 * number:.1f} %" for number in numbers)
        told = f"{estimate}{' nats' if nats else ''} ({lower} to {upper}), {verdict['n']} prompts"
    return f"| {where} | {verdict['kind']} of {verdict['engine']} | {verdict['outcome']} | {told} |\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run both gates and write their verdicts into the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.constrained")
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--report", type=Path, help="run.json of such a run: kept there, and read where it is there")
    asked = parser.parse_args(argv)
    kept = asked.report is not None and asked.report.exists()
    told = asked.report.read_text("utf-8") if kept else judged(asked.prompts)
    if asked.report is not None and not kept:
        asked.report.write_text(told, "utf-8")
    rows = [line(verdict) for verdict in json.loads(told)["verdicts"]]
    table = "| asked | judged | verdict | |\n|---|---|---|---|\n" + "".join(rows)
    print(table)
    text = PAGE.read_text("utf-8")
    begin, end = text.index(MARK) + len(MARK), text.index(END)
    PAGE.write_text(text[:begin] + table + text[end:], "utf-8")
    return 0


WORDS: Final = {"test_free": "as they are", "test_constrained": "with the schema"}

if __name__ == "__main__":
    sys.exit(main())
