"""A harness for whole pytest runs against loopback engines: files in, outcomes and texts out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import openai  # noqa: F401 - see below
import pytest

# pytester forgets modules that a run inside this process imported, and numpy cannot be imported twice.
import pytest_llmparity.check
import pytest_llmparity.door  # noqa: F401 - see above
from pytest_llmparity.testing import LoopbackEngine

PROMPTS = 100
"""Enough cases for every design the tests use."""

SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("prompts.jsonl", {checks})
def test_gate({fixtures}):
    {body}
"""


class Bench:
    """One throw-away project: prompts, engines, a test file; ``run`` is pytest on it."""

    def __init__(self, pytester: pytest.Pytester, stack: ExitStack) -> None:
        self.pytester = pytester
        self._stack = stack
        self.prompts()

    def prompts(self, count: int = PROMPTS, **row: Any) -> None:
        """Write the prompt file."""
        rows = [
            {"id": f"case-{i}", "messages": [{"role": "user", "content": f"question {i}"}], **row} for i in range(count)
        ]
        (self.pytester.path / "prompts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))

    def engine(self, *args: Any, **kwargs: Any) -> LoopbackEngine:
        """Start an engine that lives as long as the test."""
        return self._stack.enter_context(LoopbackEngine(*args, **kwargs))

    def gate(self, checks: str = "check.text(margin=0.05)", body: str = "...", fixtures: str = "parity_run") -> None:
        """Write a test file with one gate."""
        self.pytester.makepyfile(test_gate=SUITE.format(checks=checks, body=body, fixtures=fixtures))

    def run(self, *args: str, engines: Sequence[LoopbackEngine] = ()) -> pytest.RunResult:
        """Run pytest in this process; engines are named a, b, c, …, the first is the baseline."""
        chosen = [f"--engines={name}={engine.base_url}" for name, engine in zip("abcdef", engines, strict=False)]
        return self.pytester.runpytest_inprocess("-p", "no:cacheprovider", *chosen, *args)


@pytest.fixture
def bench(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A project of its own, without the environment of whoever runs these tests."""
    monkeypatch.delenv("LLMPARITY_ENGINES", raising=False)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    with ExitStack() as stack:
        yield Bench(pytester, stack)


@pytest.fixture
def echo() -> Callable[[dict[str, Any]], str]:
    """An answer that repeats the last message."""
    return lambda request: str(request["messages"][-1]["content"])
