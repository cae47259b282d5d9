"""What real engines say of themselves is the same at the next start, in another folder: a lock can be held."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_llmparity import lockfile
from pytest_llmparity.core.identity.lock import NAME

pytestmark = pytest.mark.live

CANARIES = "  canaries: 12 with logprobs, the same up to 0.005 nats\n"
UNCHANGED = f"f16: unchanged (at most 0.005 nats, 0 of 12 answers part)\n{CANARIES}"


def told(lock: subprocess.CompletedProcess[str]) -> str:
    """What a lock printed, with its limit in place of the nats that it saw."""
    return re.sub(r"0\.00[0-4]\d nats,", "at most 0.005 nats,", lock.stdout)


LLAMACPP = """
[engines.f16]
kind = "llamacpp"
model = "tiny-F16.gguf"
context_length = 256
args = ["--threads", "1"]
"""

Lock = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def project(tmp_path: Path, models: Path) -> Path:
    """A project with a model of its own."""
    folder = tmp_path / "project"
    shutil.copytree(models, folder / "tiny", ignore=shutil.ignore_patterns("*.gguf", "*.py"))
    shutil.copy(models / "tiny-F16.gguf", folder)
    (folder / "pytest.ini").write_text("")
    return folder


@pytest.mark.usefixtures("llamacpp")
def test_llamacpp_is_as_locked_in_another_folder_until_it_is_started_otherwise(
    project: Path, tmp_path: Path, lock: Lock
) -> None:
    (project / "llmparity.toml").write_text(LLAMACPP)
    first = lock(project)
    moved = project.rename(tmp_path / "moved")

    again = lock(moved, "--check")
    (moved / "llmparity.toml").write_text(LLAMACPP.replace('"1"', '"1", "--batch-size", "256"'))
    otherwise = lock(moved, "--check")

    assert first.returncode == 0, first.stderr
    assert (again.returncode, told(again)) == (0, UNCHANGED), again.stderr
    changed = f"f16: changed\n  args: --threads 1 -> --threads 1 --batch-size 256\n{CANARIES}"
    assert (otherwise.returncode, otherwise.stdout) == (1, changed)
    known = (lockfile.read(moved / NAME) or {})["f16"].identity
    assert {name: fact.source for name, fact in known.items()}.items() >= {
        "quantization": "reported",
        "sampling_defaults": "reported",
        "digest": "file",
        "tokenizer_sha256": "file",
        "kv_cache": "declared",
    }.items()


@pytest.mark.usefixtures("llamacpp")
@pytest.mark.slow
def test_the_canaries_of_llamacpp_tell_8_bits_from_16(project: Path, models: Path, lock: Lock) -> None:
    (project / "llmparity.toml").write_text(LLAMACPP)
    first = lock(project)
    kept = (lockfile.read(project / NAME) or {})["f16"].canaries
    same = [lock(project, "--check") for _ in range(2)]
    shutil.copy(models / "tiny-Q8_0.gguf", project / "tiny-F16.gguf")
    other = lock(project, "--check")

    assert first.returncode == 0, first.stderr
    assert kept is not None
    assert (len(kept.answers), kept.unstable) == (12, 0)
    assert kept.floor is not None
    assert kept.floor < 0.001
    assert [(each.returncode, told(each)) for each in same] == [(0, UNCHANGED)] * 2
    assert other.returncode == 1
    assert "  canaries: other weights or arithmetic (0.0" in other.stdout, other.stdout
