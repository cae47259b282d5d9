"""A lock on a real Ollama with room for one model: unchanged engines pass, a name that means another model does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_llmparity import lockfile
from pytest_llmparity.core.identity.lock import NAME
from pytest_llmparity.core.sample import Identity
from pytest_llmparity.engines.registry import adapter_for
from pytest_llmparity.settings.specification import EngineSpec
from tests.live.conftest import LIMIT_S
from tests.real_ollama import RealOllama

pytestmark = pytest.mark.live

SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("short.jsonl", check.prompts(), max_tokens=4)
def test_short(): ...
"""
ENGINE = '[engines.{name}]\nkind = "ollama"\nmodel = "{model}"\nbase_url = "{url}"\n'


def llmparity(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("LLMPARITY_")}
    return subprocess.run(
        [sys.executable, "-m", *argv], cwd=folder, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def test_a_daemon_with_room_for_one_model_is_as_locked_until_a_name_means_another_model(
    start_ollama: Callable[..., RealOllama], tmp_path: Path
) -> None:
    daemon = start_ollama(OLLAMA_MAX_LOADED_MODELS="1")
    models = {"first": daemon.model("F16"), "second": daemon.model("Q8_0")}
    (tmp_path / "llmparity.toml").write_text(
        "".join(ENGINE.format(name=name, model=model, url=daemon.url) for name, model in models.items())
    )
    rows = [{"id": f"q{place}", "messages": [{"role": "user", "content": f"Say {place}."}]} for place in range(4)]
    (tmp_path / "short.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "test_gate.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    frozen = ("pytest", "-p", "no:cacheprovider", "--engines=first,second", "--parity-frozen")

    first = llmparity(tmp_path, "pytest_llmparity", "lock")
    unchanged = llmparity(tmp_path, *frozen)
    daemon.copy(daemon.model("Q4_0"), models["second"])
    swapped = llmparity(tmp_path, *frozen)

    assert first.returncode == 0, first.stdout + first.stderr
    locked = lockfile.read(tmp_path / NAME) or {}
    assert [locked[name].identity["context_length"].value for name in models] == [1024, 1024]
    assert unchanged.returncode == 0, unchanged.stdout + unchanged.stderr
    assert NAME not in unchanged.stdout
    assert swapped.returncode == 1
    said = " ".join(swapped.stdout.split())
    assert "INCOMPARABLE prompts, second against first: second: it differs from llmparity.lock" in said
    assert "quantization: Q8_0 -> Q4_0" in said
    assert "digest: sha256:" in said


@pytest.mark.slow
@pytest.mark.usefixtures("llamacpp")
def test_a_ladder_of_the_blob_is_that_of_the_model_whatever_its_manifest(
    start_ollama: Callable[..., RealOllama], tmp_path: Path
) -> None:
    """``ollama create`` rewrites what the ``gguf`` package wrote, so the blob is measured and not the file."""
    daemon = start_ollama()
    identities = {}
    for weights in ("F16", "Q4_0"):
        model = daemon.model(weights)
        spec = EngineSpec(name="o", kind="ollama", model=model, base_url=daemon.url)
        identities[weights] = adapter_for("ollama")(spec, daemon.url, {}).reported()
    digest = identities["F16"]["digest"].raw
    blob = daemon.store / "blobs" / digest.replace(":", "-")

    done = llmparity(tmp_path, "pytest_llmparity", "calibrate", "--ladder", str(blob), "--types", "Q8_0")

    assert done.returncode == 0, done.stdout + done.stderr
    agreed = lockfile.agreed(tmp_path / NAME)
    ladder = agreed.ladder(Identity(facts=identities["F16"]))
    assert ladder is not None
    assert ladder.digest == digest != identities["F16"]["digest"].value
    assert agreed.ladder(Identity(facts=identities["Q4_0"])) is None
