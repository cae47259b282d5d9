"""A project and its servers for what a public bug report led to; each test module names its report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.reported.wire import Answer, Json, WireServer, serving
from tests.plugin.warm_pytest import Nursery, run


class Project:
    """A throw-away project: ``engine`` starts a server, ``write`` puts files beside it, ``run`` is pytest on it."""

    def __init__(self, pytester: pytest.Pytester, stack: ExitStack, nursery: Callable[[], Nursery]) -> None:
        self.pytester = pytester
        self._nursery = nursery
        self._stack = stack
        self._engines: list[str] = []

    def engine(self, name: str, answer: Callable[[Json], Answer], **server: Any) -> WireServer:
        """Start a server and select it as an engine; the first is the baseline. ``server`` as ``serving`` has it."""
        started = self._stack.enter_context(serving(answer, **server))
        scheme = "https" if server.get("tls") else "http"
        self._engines.append(f"--engines={name}={scheme}://127.0.0.1:{started.port}")
        return started

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.pytester.path / name
        path.write_text(text, "utf-8")
        return path

    def prompts(self, rows: Sequence[Json]) -> None:
        """Write ``prompts.jsonl``."""
        self.write("prompts.jsonl", "\n".join(json.dumps(row) for row in rows))

    def gate(self, checks: str, body: str = "...", marker: str = "") -> None:
        """Write a test file with one gate; ``marker`` is further arguments of the marker."""
        self.write(
            "test_gate.py",
            f"import json\nimport pytest\nfrom pytest_llmparity import check\n\n"
            f'@pytest.mark.parity("prompts.jsonl", {checks}, {marker})\ndef test_gate(parity_run):\n    {body}\n',
        )

    def run(self, *args: str) -> pytest.RunResult:
        """Run pytest on the started engines, in this process; it writes a JSON report too."""
        report = ("--parity-report=json", "--parity-out=out")
        return run(self.pytester, self._nursery, *self._engines, *report, *args)

    def report(self) -> Any:
        """Return ``run.json`` of the last run."""
        return json.loads((self.pytester.path / "out" / "run.json").read_text("utf-8"))

    def verdicts(self, kind: str) -> list[Any]:
        """Return the last run's verdicts of one kind, as ``run.json`` has them."""
        return [verdict for verdict in self.report()["verdicts"] if verdict["kind"] == kind]


@pytest.fixture
def project(apart: pytest.Pytester, nursery: Callable[[], Nursery]) -> Iterator[Project]:
    """A project of its own."""
    with ExitStack() as stack:
        yield Project(apart, stack, nursery)
