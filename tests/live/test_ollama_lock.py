"""A lock on a real Ollama with room for one model: unchanged engines pass, a name that means another model does not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_llmparity import lockfile
from pytest_llmparity.core.identity.lock import NAME
from pytest_llmparity.core.sample import Identity
from pytest_llmparity.engines.registry import adapter_for
from pytest_llmparity.settings.specification import EngineSpec
from tests.real_ollama import RealOllama

pytestmark = pytest.mark.live

SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("short.jsonl", check.prompts(), max_tokens=4)
def test_short(): ...
"""
ENGINE = '[engines.{name}]\nkind = "ollama"\nmodel = "{model}"\nbase_url = "{url}"\n'


def written(folder: Path, name: str, questions: list[str]) -> Path:
    """Write a prompt file; return its path."""
    rows = [{"id": f"q{at}", "messages": [{"role": "user", "content": text}]} for at, text in enumerate(questions)]
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_daemon_with_room_for_one_model_is_as_locked_until_a_name_means_another_model(
    start_ollama: Callable[..., RealOllama], tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    daemon = start_ollama(OLLAMA_MAX_LOADED_MODELS="1")
    models = {"first": daemon.model("F16"), "second": daemon.model("Q8_0")}
    (tmp_path / "llmparity.toml").write_text(
        "".join(ENGINE.format(name=name, model=model, url=daemon.url) for name, model in models.items())
    )
    written(tmp_path, "short", [f"Say {place}." for place in range(4)])
    (tmp_path / "test_gate.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    frozen = ("pytest", "--engines=first,second", "--parity-frozen")

    first = command(tmp_path, "pytest_llmparity", "lock")
    unchanged = command(tmp_path, *frozen)
    daemon.copy(daemon.model("Q4_0"), models["second"])
    swapped = command(tmp_path, *frozen)

    assert first.returncode == 0, first.stdout + first.stderr
    locked = lockfile.read(tmp_path / NAME) or {}
    assert [locked[name].identity["context_length"].value for name in models] == [1024, 1024]
    assert unchanged.returncode == 0, unchanged.stdout + unchanged.stderr
    assert NAME not in unchanged.stdout
    assert swapped.returncode == 1
    told = " ".join(swapped.stdout.split())
    assert "INCOMPARABLE prompts, second against first: second: it differs from llmparity.lock" in told
    assert "quantization: Q8_0 -> Q4_0" in told
    assert "digest: sha256:" in told


@pytest.mark.slow
@pytest.mark.usefixtures("llamacpp")
def test_a_ladder_of_the_blob_is_that_of_the_model_whatever_its_manifest(
    start_ollama: Callable[..., RealOllama],
    tmp_path: Path,
    command: Callable[..., subprocess.CompletedProcess[str]],
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

    short = written(tmp_path, "sums", [f"What is {n} plus {n}?" for n in range(24)])  # whose ladder it is, is the point

    ladder_of = ("calibrate", "--ladder", str(blob), "--types", "Q8_0", "--prompts", str(short))
    done = command(tmp_path, "pytest_llmparity", *ladder_of)

    assert done.returncode == 0, done.stdout + done.stderr
    agreed = lockfile.agreed(tmp_path / NAME)
    ladder = agreed.ladder(Identity(facts=identities["F16"]))
    assert ladder is not None
    assert ladder.digest == digest != identities["F16"]["digest"].value
    assert agreed.ladder(Identity(facts=identities["Q4_0"])) is None
