"""A margin accepted for F16 against its 8-bit copy: the copy passes it, and a 4-bit one does not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity import lockfile
from pytest_llmparity.core.identity.lock import NAME
from tests.live.conftest import ONE_THREAD

if TYPE_CHECKING:
    from tests.live.conftest import LiveRun

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("llamacpp")]

SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("{mixed}", check.logprobs(), check.logprobs(shift={shift}), max_tokens=32)
def test_gate(): ...
"""


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory,
    gguf: Callable[..., str],
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> Path:
    """A project in which F16 and Q8_0 were calibrated, and "q4" is the 4-bit copy that took the place of another."""
    folder = tmp_path_factory.mktemp("calibrated")
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "llmparity.toml").write_text(gguf("f16", "F16") + gguf("q8", "Q8_0"))
    done = command(folder, "pytest_llmparity", "calibrate", "f16", "q8")
    assert done.returncode == 0, done.stderr
    assert "f16 against itself" in done.stdout
    return folder


@pytest.mark.slow
def test_the_copy_passes_what_was_accepted_and_a_coarser_one_fails_it(
    project: Path, launch: Callable[..., LiveRun], gguf: Callable[..., str], some: Callable[..., Path]
) -> None:
    (accepted,) = lockfile.agreed(project / NAME).margins
    assert accepted.lower < 0.06 < accepted.shift < 0.2
    assert accepted.floor < 0.001
    suite = SUITE.format(mixed=some("mixed", 24), shift=accepted.shift)

    options, f16 = ("--engines=f16,q8", "--parity-explain-requests=0"), gguf("f16", "F16")
    honest = launch(*options, suite=suite, config=f16 + gguf("q8", "Q8_0"), project=project)
    swapped = launch(*options, suite=suite, config=f16 + gguf("q8", "Q4_0"), project=project)

    assert honest.wait() == 0, honest.output
    assert swapped.wait() == 1, swapped.output
    whole = (swapped.folder / "output.txt").read_text("utf-8").splitlines()  # ``output`` is its end
    lines = [line for line in whole if "logprobs, q8 against f16" in line]
    assert any("INCOMPARABLE" in line and "digest sha256:" in line for line in lines), lines
    assert any(line.startswith("FAIL") and f"margin {accepted.shift:g} nats" in line for line in lines), lines


LADDER_SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("{prompts}", check.logprobs(), check.text(), max_tokens=32)
def test_gate(): ...
"""


def one_of_each_group(file: Path) -> str:
    """Return the first prompt of each group of a set: bounds are as close as groups are many."""
    first: dict[str, str] = {}
    for line in file.read_text("utf-8").splitlines():
        first.setdefault(json.loads(line)["group"], line)
    return "\n".join(first.values())


@pytest.mark.slow
def test_verdicts_name_the_class_on_the_ladder_of_the_model(
    launch: Callable[..., LiveRun],
    gguf: Callable[..., str],
    prompts: Path,
    models: Path,
    tmp_path_factory: pytest.TempPathFactory,
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Copies by the gguf package, so that it needs no llama-quantize; the 4-bit one is declared as such."""
    folder = tmp_path_factory.mktemp("ladder")
    stories = folder / "stories.jsonl"  # free text, where copies part most
    stories.write_text(one_of_each_group(prompts / "stories.jsonl"), "utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n")
    source = str(models / "tiny-F16.gguf")
    words = ("calibrate", "--ladder", source, "--types", "Q8_0,Q4_0", "--prompts", str(stories))
    done = command(folder, "pytest_llmparity", *words, more=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    (ladder,) = lockfile.agreed(folder / NAME).ladders
    fine, coarse = ladder.rungs
    assert (fine.quantization, coarse.quantization) == ("Q8_0", "Q4_0")
    assert fine.upper < coarse.lower
    assert not list(folder.rglob("*.gguf"))

    suite = LADDER_SUITE.format(prompts=stories)
    honest = launch("--engines=f16,q8", suite=suite, config=gguf("f16", "F16") + gguf("q8", "Q8_0"), project=folder)
    honest.wait()

    verdicts = honest.verdicts()
    assert verdicts["test_gate", "logprobs", "q8"]["outcome"] == "PASS", honest.output
    assert "Q8_0 on the ladder of" in verdicts["test_gate", "logprobs", "q8"]["message"]
    assert coarse.least_forks is not None
    assert verdicts["test_gate", "text", "q8"]["margin"] == min(max(0.02, 1.5 * fine.most_forks), coarse.least_forks)
    assert verdicts["test_gate", "text", "q8"]["outcome"] == "PASS", honest.output
