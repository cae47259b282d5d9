"""The doctor on a real llama.cpp: what is promised of it is true, and a lie of the configuration is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.cli import main
from tests.engines.lora import write_adapter

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("llamacpp")]


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run the doctor on a configuration; gives exit code and what it says as JSON."""
    monkeypatch.chdir(tmp_path)
    for name in ("ENGINES", "BASELINE", "PROFILE", "CONFIG"):
        monkeypatch.delenv(f"LLMPARITY_{name}", raising=False)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    def run(config: str, *args: str) -> tuple[int, dict[str, Any]]:
        (tmp_path / "llmparity.toml").write_text(config)
        code = main(["doctor", "--json", *args])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_what_is_promised_of_llama_cpp_is_true(
    doctor: Callable[..., Any], gguf: Callable[..., str], prompts: Path
) -> None:
    code, report = doctor(gguf("f16", "F16"), "--prompts", str(prompts / "needle.jsonl"))

    (engine,) = report["engines"]
    assert (code, engine["wrong"], engine["remarks"]) == (0, [], {})
    able = {name: content["value"] for name, content in engine["capabilities"].items()}
    assert able.pop("context_length") > 800
    assert able == {
        "logprobs": True,
        "token_ids": True,
        "json_schema": True,
        "schema_order": True,
        "seed": True,
        "tools": True,
        "raw_prompt": True,
        "stream_equal": True,
        "unknown_fields": "dropped",
        "overflow": "refused",
        "reasoning_effort": False,
        "thinking_switch": False,
        "reasons": False,
        "images": False,
        "audio": False,
        "odd_logprobs": None,
    }
    told = {"images", "audio"}  # by /props
    probed = [content["probed"] for name, content in engine["capabilities"].items() if name not in told]
    assert sum(probed) == len(able) - len(told)  # all but what says that nothing is odd
    assert engine["identity"]["quantization"] == {"value": "F16", "source": "reported", "raw": "F16"}
    assert any("temperature 0.8" in advice for advice in engine["advice"])


def test_a_pin_that_lies_and_a_context_too_small_are_found(
    doctor: Callable[..., Any], gguf: Callable[..., str], prompts: Path
) -> None:
    config = gguf("q4", "Q4_0", pinned="Q8_0").replace("context_length = 1024", "context_length = 128")

    code, report = doctor(config, "--prompts", str(prompts / "needle.jsonl"))

    (engine,) = report["engines"]
    assert code == 1
    assert any("quantization is pinned to Q8_0" in wrong for wrong in engine["wrong"])
    assert any(
        "the longest of needle, has" in advice and "of a context of 256" in advice for advice in engine["advice"]
    )
    assert "context_length is 128 in the configuration, and the server gives 256" in engine["advice"]


def test_an_adapter_and_flash_attention_are_known_with_rank_and_scale(
    doctor: Callable[..., Any], gguf: Callable[..., str], prompts: Path, tmp_path: Path
) -> None:
    write_adapter(tmp_path / "sql.gguf", rank=8)
    flags = f'"--lora-scaled", "{tmp_path / "sql.gguf"}:0.5", "-fa", "on"'
    config = gguf("f16", "F16").replace('"--threads", "1"', f'"--threads", "1", {flags}')

    code, report = doctor(config.replace("pin]\n", 'pin]\nadapters = "sql.gguf rank 8 x 0.5"\nspeculative = "off"\n'))

    (engine,) = report["engines"]
    facts = {name: (fact["value"], fact["source"]) for name, fact in engine["identity"].items()}
    assert (code, engine["wrong"]) == (0, [])
    assert facts["adapters"] == ("sql.gguf rank 8 x 0.5", "reported")
    assert facts["speculative"] == ("off", "reported")
    assert (facts["attention"], facts["prefix_cache"]) == (("flash", "declared"), ("off", "declared"))
