"""Bars show each engine's requests while capture is lifted, and leave the terminal as it was."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import pytest

from pytest_llmparity.report.progress import Bars, Silent


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make rich draw although nobody watches."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


class Lifted:
    """Counts how often capture was lifted and put back."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        self.events.append("lifted")
        yield
        self.events.append("back")


def test_every_engine_has_a_bar_that_counts_its_requests() -> None:
    stream, lifted = io.StringIO(), Lifted()
    bars = Bars(stream, lifted)

    bars.begin("vllm", 2)
    bars.begin("ollama", 7)
    bars.advance("vllm")
    bars.advance("vllm")
    bars.advance("nobody of this name")
    bars.end()

    drawn = stream.getvalue()
    assert "vllm" in drawn
    assert "ollama" in drawn
    assert "2/2" in drawn
    assert "0/7" in drawn
    assert lifted.events == ["lifted", "back"]


def test_bars_can_be_drawn_again_after_their_end() -> None:
    lifted = Lifted()
    bars = Bars(io.StringIO(), lifted)
    for _ in range(2):
        bars.begin("a", 1)
        bars.end()
    bars.end()

    assert lifted.events == ["lifted", "back"] * 2


def test_what_takes_its_time_is_a_line_with_and_without_bars() -> None:
    stream, lifted = io.StringIO(), Lifted()
    bars = Bars(stream, lifted)

    bars.say("installing [vllm]\x1b[2J")
    before = stream.getvalue()
    bars.begin("vllm", 2)
    bars.say("waiting [for another]")
    bars.end()

    assert before == "installing [vllm]\\x1b[2J\n"
    assert "waiting [for another]" in stream.getvalue()
    assert lifted.events == ["lifted", "back"] * 2


def test_nothing_is_drawn_before_there_is_something_to_do() -> None:
    stream, lifted = io.StringIO(), Lifted()
    bars = Bars(stream, lifted)

    bars.advance("a")
    bars.end()

    assert (stream.getvalue(), lifted.events) == ("", [])


def test_silence(capfd: pytest.CaptureFixture[str]) -> None:
    silent = Silent()

    silent.say("installing")
    silent.begin("a", 3)
    silent.advance("a")
    silent.end()

    assert capfd.readouterr() == ("", "")
