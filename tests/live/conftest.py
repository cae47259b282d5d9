"""Whole pytest runs on real engines, as processes of their own, so that they can be killed."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from pytest_llmparity import lockfile
from pytest_llmparity.core.identity.lock import NAME, Locked
from tests.engines.live import FORKING, Served
from tests.live.ray_nodes import TwoNodes, two_nodes
from tests.live.watching import Look, watch
from tests.plugin.nursery import shared
from tests.plugin.warm_pytest import SAFE, UNSEEN, Nursery, WarmPytest, leave_out
from tests.unavailable import unavailable

REPO = Path(__file__).parents[2]
MODELS = REPO / "fixtures/models/tiny"
PROMPTS = REPO / "fixtures/prompts"
LIMIT_S = 900.0
"""Longest wait for a run or a command: it ends what hangs. Both cores may be busy with other engines meanwhile."""
ONE_THREAD = {"OMP_THREAD_LIMIT": "1"}
"""For a llama.cpp whose configuration no test writes: its threads wait for each other in loops, beside other tests
three times as long. Not for torch, which calculates wrongly with fewer threads than it counts on.
"""
GONE_S = 30.0
"""After so many seconds nothing of a killed run is left. The five of the promise are held in ``tests/keeper``, where
no other engine keeps the cores that end gigabytes of this one.
"""

STARTING_PYTEST = ("bisect", "gate", "merge", "record")
"""The commands that start pytest, and no engine themselves."""
NOTHING: Mapping[str, str] = {}

OBSERVER = """
import json

def pytest_llmparity_check_finished(item, verdict):
    seen = {name: getattr(verdict, name) for name in ("kind", "engine", "estimate", "upper", "margin", "n", "message")}
    with open("verdicts.jsonl", "a") as out:
        out.write(json.dumps({"test": item.name, "outcome": str(verdict.outcome), **seen}) + "\\n")
"""
"""Writes every verdict down at once: a run that is killed leaves no report."""

STAY = """

def test_stay():
    import pathlib, threading
    pathlib.Path("all-up").touch()
    threading.Event().wait(900)
"""
"""The last test of a run that is to be killed with every engine alive."""


LOCK = (sys.executable, "-m", "pytest_llmparity", "lock")

VLLM = """
[engines.bf16]
kind = "vllm"
python = "{python}"
model = "tiny"
context_length = 1024
slots = 8
args = ["--dtype", "bfloat16", "--enforce-eager", "--num-gpu-blocks-override", "128"]
[engines.bf16.env]
TORCHDYNAMO_DISABLE = "1"
OMP_NUM_THREADS = "1"
VLLM_ENABLE_V1_MULTIPROCESSING = "01"
PYTHONPATH = "../forking"
[engines.bf16.pin]
context_length = 1024
"""
"""vLLM on the folder ``tiny`` beside the configuration; nothing is compiled for the few tokens that are asked for.

It is a server and an engine core, as on one GPU: on the CPU a plain 1 would give the worker a process besides, for
which the core waits busily. Where the folder ``forking`` stands beside the configuration, that core is a fork of the
server, which saves eight seconds of a processor; where it does not, it is started anew, as users have it.
"""


def own_environment() -> dict[str, str]:
    """Return the environment without what the tests are told; a run in it loads no plugin that only they use.

    Hypothesis imports itself at the end of every run, which takes a tenth of a short one.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("LLMPARITY_")}
    return own | {"PYTEST_ADDOPTS": "-p no:hypothesispytest -p no:rerunfailures"}


class LiveRun:
    """A running pytest in a folder of its own, with a head start where there is a nursery."""

    process: subprocess.Popen[bytes] | WarmPytest

    def __init__(
        self,
        folder: Path,
        *,
        suite: str,
        config: str,
        args: Sequence[str],
        project: Path | None,
        nursery: Nursery | None = None,
    ) -> None:
        self.folder = folder
        if project is not None:
            shutil.copytree(project, folder, dirs_exist_ok=True)
        (folder / "test_live_suite.py").write_text(suite)
        (folder / "conftest.py").write_text(OBSERVER)
        (folder / "llmparity.toml").write_text(config)
        (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
        args = ("-p", "no:cacheprovider", *args)
        with (folder / "output.txt").open("wb") as out, open(os.devnull, "rb") as nothing:
            if nursery:
                args = (*leave_out(UNSEEN), *args)
                self.process = nursery.fork(args, folder, nothing.fileno(), out.fileno(), environ=own_environment())
                return
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *args],
                cwd=folder,
                env=own_environment(),
                stdin=nothing,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it printed so far, and the logs of its engines."""
        logs = sorted((self.folder / ".llmparity").glob("logs/*.log"))
        parts = [path.read_text("utf-8", "replace")[-3000:] for path in [self.folder / "output.txt", *logs]]
        return "\n----\n".join(parts)

    def verdicts(self) -> dict[tuple[str, str, str], dict[str, Any]]:
        """Every verdict so far by test, kind and engine."""
        lines = (self.folder / "verdicts.jsonl").read_text().splitlines()
        return {(v["test"], v["kind"], v["engine"]): v for v in map(json.loads, lines)}

    def outcomes(self) -> dict[tuple[str, str], tuple[str, object, object]]:
        """What it came to by kind and engine, with estimate and number of cases."""
        return {
            (kind, engine): (v["outcome"], v["estimate"], v["n"]) for (_, kind, engine), v in self.verdicts().items()
        }

    def wait_for(self, file: str) -> None:
        """Wait until the run wrote a file; fail with its output when it ends before."""
        until(lambda: (self.folder / file).exists() or self.process.poll() is not None, LIMIT_S, self)
        assert (self.folder / file).exists(), self.output

    def wait(self) -> int:
        """Wait until the run has ended; return its exit status."""
        return self.process.wait(LIMIT_S)

    def family(self) -> list[psutil.Process]:
        """Every living process this run started: keeper, engines, and what those started."""
        return [p for p in psutil.Process(self.process.pid).children(recursive=True) if p.is_running()]

    def kill_9(self) -> list[psutil.Process]:
        """Kill pytest alone; return what of its family is alive after the promised seconds."""
        family = self.family()
        self.process.kill()
        self.process.wait()
        return psutil.wait_procs(family, GONE_S)[1]

    def close(self) -> None:
        """Leave nothing behind, whatever the test found."""
        if self.process.poll() is None:
            for process in self.kill_9():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def until(done: Callable[[], object], limit_s: float, run: LiveRun) -> None:
    began, pause = time.monotonic(), threading.Event()
    while not done():
        assert time.monotonic() - began < limit_s, f"not within {limit_s:g} s\n{run.output}"
        pause.wait(0.1)


@pytest.fixture(scope="session")
def llamacpp() -> None:
    """Say that llama.cpp can be started here."""
    if shutil.which("llama-server") is None and importlib.util.find_spec("xllamacpp") is None:
        unavailable("llamacpp", "there is neither llama-server nor xllamacpp")


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """Name the interpreter that has vLLM."""
    python = os.environ.get("LLMPARITY_VLLM_PYTHON", "")
    if not python:
        unavailable("vllm", "LLMPARITY_VLLM_PYTHON does not name an interpreter that has vLLM")
    return python


@pytest.fixture(scope="session")
def vllm(vllm_python: str) -> str:
    """Return the configuration of one vLLM, which serves the folder ``tiny`` beside it."""
    return VLLM.format(python=vllm_python)


@pytest.fixture(scope="session")
def nursery(request: pytest.FixtureRequest) -> Iterator[Nursery | None]:
    """What whole runs are forked from, which saves each the imports; ``None`` where forks are not safe after them."""
    if not SAFE:
        yield None
        return
    with contextlib.closing(Nursery(shared(request.config))) as nursery:
        yield nursery


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery | None) -> Iterator[Callable[..., LiveRun]]:
    """Start runs that end with the module, each in a folder of its own: empty, or a copy of ``project``."""
    with contextlib.ExitStack() as stack:

        def start(*args: str, suite: str, config: str, project: Path | None = None) -> LiveRun:
            folder = tmp_path_factory.mktemp("live")
            run = LiveRun(folder, suite=suite, config=config, args=args, project=project, nursery=nursery)
            stack.callback(run.close)
            return run

        yield start


@pytest.fixture(scope="session")
def command(
    nursery: Nursery | None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``pytest`` or ``pytest_llmparity`` in a folder, as ``python -m`` does, until it has ended.

    A command that starts pytest starts a fork as well. ``more`` is what its environment has besides.
    """
    python = nursery.program(tmp_path_factory.mktemp("warm") / "python") if nursery else None

    def run(
        folder: Path, module: str, *args: str, more: Mapping[str, str] = NOTHING
    ) -> subprocess.CompletedProcess[str]:
        if module == "pytest":
            args = ("-p", "no:cacheprovider", *args)
        argv, environ = [sys.executable, "-m", module, *args], own_environment() | dict(more)
        if nursery is None:
            return subprocess.run(
                argv, cwd=folder, env=environ, capture_output=True, text=True, timeout=LIMIT_S, check=False
            )
        if module == "pytest":
            args = (*leave_out(UNSEEN), *args)
        with open(os.devnull, "rb") as nothing, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = nursery.fork(
                *(args, folder, nothing.fileno(), out.fileno()),
                stderr=err.fileno(),
                environ=environ,
                module=module,
                python=python if args[0] in STARTING_PYTEST else None,
            )
            try:
                code = process.wait(LIMIT_S)
            finally:
                process.kill()
            out.seek(0)
            err.seek(0)
            stdout, stderr = out.read().decode("utf-8", "replace"), err.read().decode("utf-8", "replace")
        return subprocess.CompletedProcess(argv, code, stdout, stderr)

    return run


@pytest.fixture(scope="session")
def lock(command: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``llmparity lock`` in a folder."""

    def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
        return command(folder, "pytest_llmparity", "lock", *args)

    return run


@pytest.fixture(scope="session")
def cluster() -> Iterator[TwoNodes]:
    """Make the cluster of Ray that tests share, or skip where Ray is not installed. Leave it with its two nodes."""
    with contextlib.closing(two_nodes()) as nodes:
        yield nodes


@dataclass(frozen=True)
class InTurn:
    """A folder in which ``llmparity lock`` started engines one at a time, and what was seen of their processes."""

    folder: Path
    looks: list[Look]

    def locked(self) -> Mapping[str, Locked]:
        """Return what stands in the lock, by engine."""
        return lockfile.read(self.folder / NAME) or {}


@pytest.fixture(scope="session")
def in_turn(llamacpp: None, vllm_python: str, vllm: str, tmp_path_factory: pytest.TempPathFactory) -> InTurn:
    """Lock a vLLM between two llama.cpp, one engine at a time."""
    folder = tmp_path_factory.mktemp("in-turn")
    shutil.copytree(MODELS, folder / "tiny", ignore=shutil.ignore_patterns("*.gguf", "*.py"))
    shutil.copytree(FORKING, folder / FORKING.name)
    (folder / "pytest.ini").write_text("")
    config = 'residency = "one-at-a-time"\n' + gguf("q8", "Q8_0") + vllm + gguf("f16", "F16")
    (folder / "llmparity.toml").write_text(config)
    with (folder / "output.txt").open("wb") as out:
        process = subprocess.Popen(LOCK, cwd=folder, env=own_environment(), stdout=out, stderr=out)
    looks = watch(process, LIMIT_S)
    assert process.returncode == 0, (folder / "output.txt").read_text()
    return InTurn(folder, looks)


def gguf(name: str, quantization: str, *, pinned: str | None = None) -> str:
    """Return the configuration of one llama.cpp process."""
    return (
        f'[engines.{name}]\nkind = "llamacpp"\nmodel = "{MODELS / f"tiny-{quantization}.gguf"}"\n'
        f'context_length = 1024\nargs = ["--threads", "1"]\n'
        f'[engines.{name}.pin]\nquantization = "{pinned or quantization}"\ncontext_length = 1024\n'
    )


@pytest.fixture(scope="session", name="gguf")
def gguf_fixture() -> Callable[..., str]:
    """Return the configuration of one llama.cpp process."""
    return gguf


@pytest.fixture(scope="session")
def attached() -> Callable[..., str]:
    """Return the configuration of an engine that tests share, which a run is attached to."""

    def config(name: str, served: Served) -> str:
        adapter = served.adapter
        return (
            f'[engines.{name}]\nkind = "{adapter.kind}"\nmodel = "{adapter.model}"\nbase_url = "{adapter.base_url}"\n'
        )

    return config


@pytest.fixture(scope="session")
def prompts() -> Path:
    """Return the folder of the prompt sets."""
    return PROMPTS


@pytest.fixture(scope="session")
def some(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write as many prompts of a set as a test needs, from all over it; return the path of the file."""
    folder = tmp_path_factory.mktemp("prompts")

    def write(name: str, count: int) -> Path:
        lines = (PROMPTS / f"{name}.jsonl").read_text("utf-8").splitlines()
        path = folder / f"{name}-{count}.jsonl"
        path.write_text("\n".join(lines[at * len(lines) // count] for at in range(count)), "utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def models() -> Path:
    """Return the folder of the tiny model."""
    return MODELS


@pytest.fixture(scope="session")
def stay() -> str:
    """Return a last test that keeps the run alive with every engine up."""
    return STAY
