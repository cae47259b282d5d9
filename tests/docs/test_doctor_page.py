"""The output that docs/doctor.md shows is the doctor's, but for what is left out there and for ports."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pytest_llmparity.cli import main
from tests.doubles.abilities import Abilities
from tests.doubles.posing import PosingEngine

PAGE = Path(__file__).parents[2] / "docs/doctor.md"
LEFT_OUT = "…"


def test_the_output_that_is_shown_is_the_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ENGINES", "BASELINE", "PROFILE", "CONFIG"):
        monkeypatch.delenv(f"LLMPARITY_{name}", raising=False)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    long = {"id": "long-1", "messages": [{"role": "user", "content": "word " * 4200}]}
    (tmp_path / "tickets.jsonl").write_text(json.dumps(long))
    with PosingEngine(
        poses_as="ollama",
        model="qwen3:8b",
        quantization="Q4_K_M",
        context_length=4096,
        abilities=Abilities(schema="sorted", tools="taken", overflow="oldest"),
    ) as engine:
        (tmp_path / "llmparity.toml").write_text(
            f'[engines.dev]\nkind = "ollama"\nmodel = "qwen3:8b"\nbase_url = "{engine.base_url}"\n'
            '[engines.dev.pin]\nquantization = "Q4_K_M"\nattention = "flash"\n'
        )
        code = main(["doctor", "--prompts", "tickets.jsonl"])

    printed = iter([without_port(line) for line in capsys.readouterr().out.splitlines()])
    block = re.search(r"^```text doctor\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None
    shown = [line for line in block[1].splitlines() if line.strip() != LEFT_OUT]
    assert code == 0
    assert len(shown) > 30
    for line in shown:
        assert without_port(line) in printed, f"not there, or not after the lines before it: {line}"


def without_port(line: str) -> str:
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:N", line).rstrip()
