"""How many lines of a golden are rewritten when one engine is recorded again and again: none should be.

    python -m benchmarks.golden [--times 10] [--prompts 48] [--update all] [ENGINE]

``ENGINE`` is an entry of ``--engines``; without it the tiny model in F16 on llama.cpp is started anew each time.
``--update all`` writes whatever differs by a byte, ``changed`` what a person would be shown.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "fixtures/models/tiny/tiny-F16.gguf"
GATE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("mixed.jsonl", check.prompts(), check.text(margin=0.05), check.logprobs(shift=0.06), max_tokens=24)
def test_recorded(): ...
"""
CONFIGURATION = f"""
[engines.engine]
kind = "llamacpp"
model = "{TINY}"
context_length = 1024
args = ["--threads", "1"]
"""
FILES = ("mixed/engine.jsonl", "mixed/engine.logprobs.jsonl")


def record(folder: Path, engine: str, update: str) -> dict[str, list[bytes]]:
    """Record the engine into the project in ``folder``; return the lines of its golden by file."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--engines={engine}"]
    command += [f"--parity-update-golden={update}", "--parity-update-golden-in-ci", "--parity-fresh"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ, check=False)
    if done.returncode not in (0, 1) or "golden: " not in done.stdout:
        raise SystemExit(done.stdout + done.stderr)
    return {name: (folder / "golden" / name).read_bytes().splitlines() for name in FILES}


def main() -> None:
    """Print of every recording after the first how many lines of each file are others than before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", nargs="?")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--update", choices=("changed", "all"), default="all")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = (ROOT / "fixtures/prompts/mixed.jsonl").read_text("utf-8").splitlines()
        (folder / "mixed.jsonl").write_text("\n".join(rows[:: max(1, len(rows) // asked.prompts)][: asked.prompts]))
        (folder / "test_recorded.py").write_text(GATE)
        (folder / "pytest.ini").write_text("[pytest]\n")
        engine = "engine" if asked.engine is None else f"engine={asked.engine}"
        if asked.engine is None:
            (folder / "llmparity.toml").write_text(CONFIGURATION)
        before = record(folder, engine, "all")
        total = 0
        for number in range(1, asked.times + 1):
            now = record(folder, engine, asked.update)
            rewritten = {
                file: sum(a != b for a, b in zip(before[file], now[file], strict=False))
                + abs(len(before[file]) - len(now[file]))
                for file in FILES
            }
            total += sum(rewritten.values())
            lines = ", ".join(f"{count} of {len(now[file])} in {file}" for file, count in rewritten.items())
            print(f"recording {number}: {lines}", flush=True)
            before = now
    print(f"{total} lines rewritten in {asked.times} recordings")


if __name__ == "__main__":
    main()
