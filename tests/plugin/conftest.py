"""A harness for whole pytest runs against loopback engines: files in, outcomes and texts out."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.engines.kinds.openai import OpenAIAdapter
from pytest_llmparity.testing import LoopbackEngine
from tests.doubles.posing import PosingEngine
from tests.plugin import warm_pytest
from tests.plugin.warm_pytest import IDLE, UNSEEN, Nursery, WarmPytest, leave_out

warm_pytest.keep_imported()
warm_pytest.remember_installed()
warm_pytest.narrow()

HERE = Path(__file__).parent
MODELS = HERE.parents[1] / "fixtures/models/tiny"
NAMES = "abcdefgh"
"""What engines are called in a run, the first is the baseline."""
LIMIT_S = 240.0
"""For what takes a second or two, on a machine that is busy."""
PROMPTS, TOKENS = 8, 12
"""The fewest cases and tokens by which text can pass a margin of 5 % on every pass of its floor; rates ask for more."""

PROJECT = "[pytest]\nasyncio_default_fixture_loop_scope = function\naddopts = {options}\n"

SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("prompts.jsonl", {checks}, max_tokens={tokens})
def test_gate({fixtures}):
    {body}
"""


class Bench:
    """One throw-away project: prompts, engines, a test file; ``run`` is pytest on it."""

    def __init__(self, pytester: pytest.Pytester, stack: ExitStack, nursery: Callable[[], Nursery]) -> None:
        self.pytester = pytester
        self._stack = stack
        self._nursery = nursery
        self._spawned = 0
        self.by_address = False
        """Whether engines are chosen by their address alone: to find out what is there takes ten questions of each."""
        self.prompts()

    def prompts(self, count: int = PROMPTS, **row: Any) -> None:
        """Write the prompt file."""
        rows = [
            {"id": f"case-{i}", "messages": [{"role": "user", "content": f"question {i}"}], **row} for i in range(count)
        ]
        (self.pytester.path / "prompts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))

    def engine(self, *args: Any, **kwargs: Any) -> PosingEngine:
        """Start an engine that lives as long as the test."""
        return self._stack.enter_context(PosingEngine(*args, **kwargs))

    def selected(self, engine: LoopbackEngine) -> str:
        """Return how an engine is chosen on the command line."""
        kind = engine.poses_as if isinstance(engine, PosingEngine) else "openai"
        return engine.base_url if self.by_address else f"{kind}:{engine.model}@{engine.base_url}"

    def asked(self, engine: LoopbackEngine) -> list[Mapping[str, Any]]:
        """Return the requests that carried one of the prompts: neither warm-ups nor probes."""
        return [received.json for received in engine.requests if "question" in str(received.json)]

    def gate(
        self,
        checks: str = "check.text(margin=0.05)",
        body: str = "...",
        fixtures: str = "parity_run",
        tokens: int = TOKENS,
    ) -> None:
        """Write a test file with one gate whose answers are short."""
        text = SUITE.format(checks=checks, body=body, fixtures=fixtures, tokens=tokens)
        self.pytester.makepyfile(test_gate=text)

    def run(
        self, *args: str, engines: Sequence[LoopbackEngine] = (), left_out: Sequence[str] = (*UNSEEN, *IDLE)
    ) -> pytest.RunResult:
        """Run pytest in this process, without some plugins; engines are named a, b, c, …, the first is the baseline."""
        chosen = [f"--engines={name}={self.selected(engine)}" for name, engine in zip(NAMES, engines, strict=False)]
        return warm_pytest.run(self.pytester, self._nursery, *chosen, *args, left_out=left_out)

    def configure(self, text: str) -> None:
        """Write ``llmparity.toml``."""
        (self.pytester.path / "llmparity.toml").write_text(text)

    def process(self, name: str, behaviour: str = "", **keys: Any) -> str:
        """Return the configuration of an engine that is a process of its own: ``fake_engine.py``, which behaves so."""
        table = {
            "kind": "llamacpp",
            "model": str(MODELS / "tiny-Q4_0.gguf"),
            "command": [sys.executable, str(HERE / "fake_engine.py")],
            "context_length": 512,
            **keys,
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        starts = str(self.pytester.path / f"{name}.starts")
        env = f"[engines.{name}.env]\nFAKE_STARTS = {json.dumps(starts)}\nFAKE_BEHAVIOUR = {json.dumps(behaviour)}\n"
        return "\n".join([f"[engines.{name}]", *lines, env])

    def starts(self, name: str) -> list[int]:
        """Process ids of every start of a fake engine."""
        path = self.pytester.path / f"{name}.starts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def spawn(
        self, *args: str, engines: Sequence[LoopbackEngine] = (), stdin: str = "", imported: bool = True
    ) -> Spawned:
        """Start pytest as a process of its own, for what concerns signals and exit; ``imported``: with a head start."""
        chosen = [f"--engines={name}={self.selected(engine)}" for name, engine in zip(NAMES, engines, strict=False)]
        self._spawned += 1
        nursery = self._nursery() if imported and warm_pytest.SAFE else None
        argv = ["-p", "no:cacheprovider", *chosen, *args]
        spawned = Spawned(argv, self.pytester.path, self._spawned, stdin, nursery)
        self._stack.callback(spawned.kill)
        return spawned

    def report(self, folder: str = "out") -> Any:
        """Return ``run.json`` of a run with ``--parity-report=json --parity-out=FOLDER``."""
        return json.loads((self.pytester.path / folder / "run.json").read_text())


class Spawned:
    """A running pytest whose output goes to a file."""

    process: subprocess.Popen[bytes] | WarmPytest

    def __init__(self, args: Sequence[str], folder: Path, number: int, stdin: str, nursery: Nursery | None) -> None:
        self._output = folder / f"pytest-{number}.txt"
        typed = folder / f"typed-{number}.txt"
        typed.write_text(stdin)
        with self._output.open("wb") as out, typed.open("rb") as read:
            if nursery:
                self.process = nursery.fork(args, folder, read.fileno(), out.fileno())
                return
            argv = [sys.executable, "-m", "pytest", *args]
            self.process = subprocess.Popen(
                argv, cwd=folder, stdin=read, stdout=out, stderr=out, start_new_session=True
            )

    def wait(self) -> int:
        """Return the exit code."""
        return self.process.wait(LIMIT_S)

    @property
    def output(self) -> str:
        """What it printed so far."""
        return self._output.read_text("utf-8", "replace")

    def kill(self) -> None:
        """End it without warning, if it still runs, as a machine that kills for memory does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(LIMIT_S)


def until(done: Callable[[], object], limit_s: float = LIMIT_S) -> float:
    """Wait until something is true; return the seconds it took."""
    began = time.monotonic()
    pause = threading.Event()
    while not done():
        assert time.monotonic() - began < limit_s, f"not within {limit_s:g} s"
        pause.wait(0.02)
    return time.monotonic() - began


@pytest.fixture
def wait_until() -> Callable[..., float]:
    """Wait until something is true; return the seconds it took."""
    return until


@pytest.fixture
def apart(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty project, without the environment of whoever runs these tests.

    Where a gate fails nobody asks why, unless a test says ``--parity-explain-requests``: that takes many requests.
    """
    for name in ("LLMPARITY_ENGINES", "CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLMPARITY_EXPLAIN_REQUESTS", "0")
    monkeypatch.setenv("LLMPARITY_EMBEDDING_MODEL", "none")
    pytester.makeini(PROJECT.format(options=" ".join(leave_out())))
    return pytester


@pytest.fixture
def bench(apart: pytest.Pytester, nursery: Callable[[], Nursery], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A project of its own.

    Engines of kind openai are not asked what else they may be, in thirteen questions that are a sixth of a gate: ours
    are nothing else. Who gives an address alone asks, as does a process; tests/engines/test_recognise.py holds it.
    """
    monkeypatch.setattr(OpenAIAdapter, "_seen_as", lambda _: {})
    with ExitStack() as stack:
        yield Bench(apart, stack, nursery)


@pytest.fixture
def echo() -> Callable[[dict[str, Any]], str]:
    """An answer that repeats the last message."""
    return lambda request: str(request["messages"][-1]["content"])
