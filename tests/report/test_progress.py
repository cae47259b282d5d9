"""Bars show each engine's requests while capture is lifted, and leave the terminal as it was."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import pytest

from pytest_llmparity.core.ports import Layers
from pytest_llmparity.report.progress import LINE_EVERY_S, Bars, Lines, Silent


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


def test_an_image_that_is_fetched_has_a_bar_of_its_bytes_which_goes_when_it_is_there() -> None:
    stream, lifted = io.StringIO(), Lifted()
    bars = Bars(stream, lifted)

    bars.fetch("vllm", Layers(0, 0, 0, 0))
    bars.fetch("vllm", Layers(2, 7, 610_000_000, 2_440_000_000))
    assert bars._bars is not None
    bars._bars.refresh()
    percentage = bars._bars.tasks[0].percentage
    bars.fetch("vllm", None)

    assert percentage == 25
    assert "vllm: its image" in stream.getvalue()
    assert "2 of 7 layers, 610.0 MB of 2.4 GB" in stream.getvalue()
    assert lifted.events == ["lifted", "back"]


def test_of_a_runtime_that_tells_no_bytes_layers_are_drawn_beside_the_requests_of_another_engine() -> None:
    stream, lifted = io.StringIO(), Lifted()
    bars = Bars(stream, lifted)

    bars.begin("ollama", 4)
    bars.fetch("vllm", Layers(3, 4, 0, 0))
    assert bars._bars is not None
    bars._bars.refresh()
    drawn = [task.percentage for task in bars._bars.tasks]
    bars.fetch("vllm", None)
    before = list(lifted.events)
    bars.end()

    assert drawn == [0, 75]
    assert "3 of 4 layers" in stream.getvalue()
    assert before == ["lifted"], "the bar of the other engine stays"
    assert lifted.events == ["lifted", "back"]


def test_without_a_terminal_a_line_says_now_and_then_how_far_an_image_is() -> None:
    stream, lifted, now = io.StringIO(), Lifted(), [0.0]
    lines = Lines(stream, lifted, clock=lambda: now[0])

    lines.say("installing")
    lines.begin("vllm", 3)
    lines.fetch("vllm", Layers(0, 0, 0, 0))
    lines.fetch("vllm", Layers(1, 7, 0, 0))
    now[0] = LINE_EVERY_S
    lines.fetch("vllm", Layers(2, 7, 610_000_000, 2_440_000_000))
    lines.fetch("vllm", None)
    lines.end()

    assert stream.getvalue().splitlines() == [
        "vllm: fetching its image",
        "vllm: fetching its image: 2 of 7 layers, 610.0 MB of 2.4 GB",
    ]
    assert lifted.events == ["lifted", "back"] * 2


def test_without_a_terminal_a_line_says_now_and_then_how_many_requests_have_ended() -> None:
    stream, lifted, now = io.StringIO(), Lifted(), [0.0]
    lines = Lines(stream, lifted, clock=lambda: now[0])

    lines.begin("vllm", 3)
    lines.advance("vllm")
    lines.advance("nobody of this name")
    before = stream.getvalue()
    now[0] = LINE_EVERY_S
    lines.more("vllm", 4)
    lines.advance("vllm")
    lines.advance("vllm")
    lines.end()
    lines.advance("vllm")

    assert before == "", "who is done in a moment says nothing"
    assert stream.getvalue() == "vllm: 2 of 7 requests\n"
    assert lifted.events == ["lifted", "back"]


def test_without_a_terminal_experiments_are_told_as_they_begin_and_then_now_and_then() -> None:
    stream, lifted, now = io.StringIO(), Lifted(), [0.0]
    lines = Lines(stream, lifted, clock=lambda: now[0])

    for sent, at in ((0, 0.0), (1, 1.0), (64, LINE_EVERY_S), (65, LINE_EVERY_S + 1)):
        now[0] = at
        lines.experiments("q4 against f16", sent, 400)
    lines.end()
    lines.experiments("q4 against f16", 0, 400)

    assert stream.getvalue().splitlines() == [
        "q4 against f16: experiments that show a cause, at most 400 requests",
        "q4 against f16: experiments that show a cause, 64 requests of at most 400",
        "q4 against f16: experiments that show a cause, at most 400 requests",
    ]


def test_experiments_have_a_bar_that_promises_no_end() -> None:
    stream, lifted = io.StringIO(), Lifted()
    bars = Bars(stream, lifted)

    bars.experiments("q4 against f16", 0, 400)
    bars.experiments("q4 against f16", 96, 400)
    assert bars._bars is not None
    bars._bars.refresh()
    (task,) = bars._bars.tasks
    bars.end()

    assert task.total is None
    assert "experiments" in stream.getvalue()
    assert "96 requests, 400 at most" in stream.getvalue()
    assert lifted.events == ["lifted", "back"]


def test_silence(capfd: pytest.CaptureFixture[str]) -> None:
    silent = Silent()

    silent.say("installing")
    silent.fetch("a", Layers(1, 2, 3, 4))
    silent.begin("a", 3)
    silent.more("a", 2)
    silent.advance("a")
    silent.experiments("a against b", 1, 2)
    silent.end()

    assert capfd.readouterr() == ("", "")
