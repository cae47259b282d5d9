"""``llmparity serve``: one engine in the foreground, and nothing of it left at the end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Shell

ROOT = Path(__file__).parents[2]
FAKE = ROOT / "tests/plugin/fake_engine.py"
MODEL = ROOT / "fixtures/models/tiny/tiny-Q4_0.gguf"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="engines are started on POSIX only")


@pytest.fixture
def serve(shell: Shell) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``llmparity serve dev`` on an engine that behaves so, by way of a program where one is given."""
    started: list[subprocess.Popen[str]] = []

    def start(behaviour: str = "", before: Sequence[str] = ()) -> subprocess.Popen[str]:
        command = json.dumps([sys.executable, str(FAKE)])
        shell.configure(
            f'[engines.dev]\nkind = "llamacpp"\nmodel = "{MODEL}"\ncommand = {command}\ncontext_length = 512\n'
            f'env = {{ FAKE_STARTS = "{shell.path}/starts", FAKE_BEHAVIOUR = "{behaviour}" }}\n'
        )
        argv = [*before, sys.executable, "-m", "pytest_llmparity", "serve", "dev"]
        started.append(
            subprocess.Popen(argv, cwd=shell.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until(pattern: str, output: IO[str] | None) -> re.Match[str]:
    assert output is not None
    for line in output:
        if match := re.search(pattern, line):
            return match
    raise AssertionError(f"ended without {pattern}")


def gone(pid: int, limit_s: float = 20.0) -> bool:
    """Tell whether a process ends within the limit."""
    ends = time.monotonic() + limit_s
    pause = threading.Event()
    while time.monotonic() < ends:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        pause.wait(0.05)
    return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "before"),
    [(signal.SIGINT, ()), (signal.SIGTERM, ("sh", "-c", "trap '' INT; exec \"$@\"", "sh"))],
    ids=["ctrl-c", "sigterm-where-ctrl-c-is-ignored"],
)
def test_an_engine_is_served_until_it_is_told_to_stop(
    shell: Shell, serve: Callable[..., subprocess.Popen[str]], stop: signal.Signals, before: Sequence[str]
) -> None:
    process = serve(before=before)
    assert until("^dev: (.*)", process.stdout)[1].startswith("llamacpp, ")
    url = until("base URL for clients of openai: (.*)", process.stdout)[1]
    model = until("  model: (.*)", process.stdout)[1]

    asked = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
    assert httpx.post(f"{url}/chat/completions", json=asked).status_code == 200
    until("Ctrl-C stops it", process.stdout)
    process.send_signal(stop)

    assert process.communicate(timeout=60)[0] == "dev was stopped\n"
    assert process.returncode == 0
    assert gone(int((shell.path / "starts").read_text()))


@pytest.mark.slow
def test_an_engine_that_ends_by_itself_is_told(serve: Callable[..., subprocess.Popen[str]]) -> None:
    process = serve("exit")

    printed = process.communicate(timeout=60)[0]

    assert process.returncode == 4  # it never was ready, so nothing was served
    assert "the weights are" in printed


def test_what_is_attached_to_is_not_served(shell: Shell) -> None:
    shell.configure('[engines.prod]\nkind = "openai"\nbase_url = "http://127.0.0.1:9"\n')

    ended = shell.run("serve", "prod")

    assert (ended.code, ended.out) == (4, "")
    assert "prod is not started by us, it is attached to at http://127.0.0.1:9" in ended.err


def test_one_engine_is_served_at_a_time(shell: Shell) -> None:
    ended = shell.run("serve", "a=http://127.0.0.1:9", "b=http://127.0.0.1:10")

    assert ended.code == 4
    assert "these are selected: a, b; name one of them" in ended.err
