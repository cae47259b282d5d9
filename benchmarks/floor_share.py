"""What the noise floor takes of a gate: requests, tokens and the engine's seconds, with whole and with cut answers.

    python -m benchmarks.floor_share [--prompts 200] [--tokens 64] [--set fixtures/prompts/mixed.jsonl]

Two llama.cpp of the tiny model (F16, Q8_0) are asked by ``pytest`` with one ``check.text()``: once comparing as many
tokens as answers have, so that those of the floor are whole, once comparing 32. The engine's seconds are those of all
its answers, one at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pytest_llmparity.core.evidence import FLOOR_PHASES
from pytest_llmparity.store.runs import Store

ROOT = Path(__file__).resolve().parent.parent
GATE = """
import pytest
from pytest_llmparity import check
@pytest.mark.parity("prompts.jsonl", check.text(margin=0.05, horizon={horizon}), max_tokens={tokens}, concurrency=1)
def test_gate(): pass
"""
ENGINES = """
[engines.f16]
kind = "llamacpp"
model = "{folder}/tiny-F16.gguf"
[engines.q8_0]
kind = "llamacpp"
model = "{folder}/tiny-Q8_0.gguf"
"""


def prompts(path: Path, count: int) -> str:
    """Return so many prompts of a file, one after the other and again with a number before them where it has fewer."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    chosen = []
    for number in range(count):
        row = json.loads(json.dumps(rows[number % len(rows)]))
        if number >= len(rows):
            row["id"] = f"{row['id']}-{number // len(rows)}"
            row["messages"][-1]["content"] += f" ({number // len(rows)})"
        chosen.append(json.dumps(row))
    return "\n".join(chosen)


def measure(folder: Path, rows: str, *, horizon: int, tokens: int) -> None:
    """Run one gate in a folder of its own and print what its floor took."""
    folder.mkdir()
    (folder / "prompts.jsonl").write_text(rows)
    (folder / "test_gate.py").write_text(GATE.format(horizon=horizon, tokens=tokens))
    (folder / "llmparity.toml").write_text(ENGINES.format(folder=ROOT / "fixtures/models/tiny"))
    command = [sys.executable, "-m", "pytest", "-q", "--engines", "f16,q8_0", "-p", "no:cacheprovider"]
    subprocess.run(command, cwd=folder, env=os.environ | {"CI": ""}, capture_output=True, check=False)
    with Store.open(folder / ".llmparity") as store:
        (run,) = store.runs()
        for engine in ("f16", "q8_0"):
            requests, generated, seconds = Counter[bool](), Counter[bool](), Counter[bool]()
            for sample in store.get(run.id, engine):
                floor = sample.phase in FLOOR_PHASES
                requests[floor] += 1
                generated[floor] += (sample.completion and sample.completion.completion_tokens) or 0
                seconds[floor] += 0.0 if sample.timing is None else sample.timing.e2e_s  # type: ignore[assignment]
            share = seconds[True] / (seconds[True] + seconds[False])
            print(
                f"| {horizon} | {engine} | {requests[True]} of {requests.total()} | "
                f"{generated[True]} of {generated.total()} | "
                f"{seconds[True]:.1f} of {seconds.total():.1f} s ({100 * share:.0f} %) |"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor_share")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--set", type=Path, default=ROOT / "fixtures/prompts/mixed.jsonl")
    options = parser.parse_args(argv)
    rows = prompts(options.set, options.prompts)
    print("| tokens compared | engine | the floor's requests | its tokens | its seconds |\n|--:|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for horizon in (options.tokens, 32):
            measure(Path(folder) / str(horizon), rows, horizon=horizon, tokens=options.tokens)
    return 0


if __name__ == "__main__":
    sys.exit(main())
