"""Commands in this process, in a project of their own, against loopback engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pytest_llmparity.cli import main
from tests.doubles.posing import PosingEngine


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Shell:
    """A folder with a project; ``run`` is one command in it."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str], stack: ExitStack) -> None:
        self.path = path
        self._capsys = capsys
        self._stack = stack
        (path / "pytest.ini").write_text("[pytest]\n")

    def engine(self, **kwargs: Any) -> PosingEngine:
        """Start an engine that lives as long as the test."""
        return self._stack.enter_context(PosingEngine(**kwargs))

    def configure(self, text: str) -> None:
        """Write ``llmparity.toml``."""
        (self.path / "llmparity.toml").write_text(text)

    def run(self, *argv: str) -> Ended:
        """Run a command; gives exit code and both outputs."""
        self._capsys.readouterr()
        try:
            code = main(argv)
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = self._capsys.readouterr()
        return Ended(code, out, err)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    """A project of its own, on a person's machine, without the environment of whoever runs these tests."""
    ours = (f"LLMPARITY_{name}" for name in ("ENGINES", "BASELINE", "PROFILE", "CONFIG", "REQUIRED", "MODE"))
    for name in (*ours, "CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        yield Shell(tmp_path, capsys, stack)


@pytest.fixture
def configured() -> Callable[..., str]:
    """The text of a configuration with these engines, attached to."""

    def text(**engines: PosingEngine) -> str:
        return "\n".join(f'[engines.{name}]\nbase_url = "{engine.base_url}"\n' for name, engine in engines.items())

    return text
