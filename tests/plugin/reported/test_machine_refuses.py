"""What the operating system refuses is a typed error before anything is lost, never a crash of pytest."""

from __future__ import annotations

import os
import sqlite3
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity import lockfile
from pytest_llmparity.core.errors import LockError, StoreError
from pytest_llmparity.store.folder import own_folder

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugin.conftest import Bench

FAILED = pytest.ExitCode.TESTS_FAILED
SCARCE = """
import os, resource
import pytest

def pytest_collection_finish():
    open_now = len(os.listdir("/proc/self/fd"))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + int(os.environ["LEFT"]), hard))

@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
"""
"""Leaves ``LEFT`` file descriptors for gathering; what comes after has as many as ever."""
RUNS = """
import os, sys
import pytest

for left in sys.argv[1].split(","):
    os.environ["LEFT"] = left
    print("exit code", int(pytest.main(sys.argv[2:])), flush=True)
"""
"""One run after the other in one process, which imports everything once."""


@pytest.mark.slow
@pytest.mark.parametrize("left", [(0, 5, 7, 12), (3,)], ids=str)
def test_without_file_descriptors_gates_say_so_and_what_was_answered_is_kept(
    bench: Bench, left: tuple[int, ...]
) -> None:
    bench.prompts(32)
    bench.pytester.makeconftest(SCARCE)
    bench.gate("check.prompts(), concurrency=32")
    engines = [bench.engine(first_delay_s=0.01), bench.engine()]
    chosen = [f"--engines={name}={engine.base_url}" for name, engine in zip("ab", engines, strict=True)]
    args = ("-p", "no:cacheprovider", "-p", "no:faulthandler", "--parity-fresh", *chosen)

    ran = bench.pytester.run(sys.executable, "-c", RUNS, ",".join(map(str, left)), *args)

    printed = ran.stdout.str() + ran.stderr.str()
    outputs = ran.stdout.str().split(f"exit code {int(FAILED)}")
    assert len(outputs) == len(left) + 1, printed
    assert "INTERNALERROR" not in printed
    assert "Traceback" not in printed
    assert "mistake in pytest-llmparity" not in " ".join(printed.split())
    assert [output for output in outputs[: len(left)] if "descriptor" not in output] == []
    answered = sum(len(bench.asked(engine)) for engine in engines)
    if answered:
        with sqlite3.connect(bench.pytester.path / ".llmparity/samples.sqlite") as db:
            ((stored,),) = db.execute("SELECT count(*) FROM samples").fetchall()
        db.close()
        assert stored <= answered


@pytest.mark.parametrize(
    "name", ["samples.sqlite", "samples.lock", "keeper.log", "logs/started.log", ".gitignore"], ids=lambda n: n
)
def test_a_file_of_ours_that_is_a_symbolic_link_is_refused_and_left_alone(bench: Bench, name: str) -> None:
    bench.gate("check.prompts()")
    bench.configure(bench.process("started"))
    target = bench.pytester.path / "precious.txt"
    target.write_text("precious")
    link = bench.pytester.path / ".llmparity" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(target)

    result = bench.run("--engines=started", engines=[bench.engine()])

    assert result.ret == FAILED
    printed = " ".join(result.stdout.str().split())
    assert "is a symbolic link" in printed
    assert "INTERNALERROR" not in printed
    assert target.read_text() == "precious"
    assert target.stat().st_mode & 0o777 == 0o644


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_folder(tmp_path / ".llmparity")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(StoreError, match=r"\.llmparity belongs to another user .*run as that user, or remove"):
        own_folder(tmp_path / ".llmparity")


def test_a_lock_file_that_is_a_symbolic_link_is_read_and_never_replaced(tmp_path: Path) -> None:
    shared, link = tmp_path / "shared.lock", tmp_path / "llmparity.lock"
    link.symlink_to(shared)
    with pytest.raises(LockError, match="leads to no file"):
        lockfile.read(link)
    lockfile.write(shared, {})

    assert lockfile.read(link) == {}
    with pytest.raises(LockError, match="symbolic link, which writing would replace"):
        lockfile.write(link, {})
    assert link.is_symlink()
