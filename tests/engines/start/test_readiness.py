from __future__ import annotations

import socket

import pytest

from pytest_llmparity.core.errors import LaunchError, NotAuthorised
from pytest_llmparity.engines.start.readiness import POLL_S, free_port, is_listened_to, port_was_taken, wait_ready


class Scripted:
    """Becomes ready after some polls, on a clock that only moves when somebody pauses."""

    name = "cand"

    def __init__(self, *answers: str | Exception | None) -> None:
        self.answers = list(answers)
        self.now = 100.0
        self.pauses: list[float] = []

    def ready(self) -> str | None:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def wait(engine: Scripted, deadline_s: float = 60.0, ended: list[str | None] | None = None) -> float:
    states = ended or [None]

    def alive() -> str | None:
        return states.pop(0) if len(states) > 1 else states[0]

    return wait_ready(engine, alive, deadline_s, clock=engine.clock, pause=engine.pause)


def test_time_until_ready_is_returned() -> None:
    engine = Scripted("loading", "loading", None)

    assert wait(engine) == pytest.approx(2 * POLL_S)
    assert engine.pauses == [POLL_S, POLL_S]


def test_exit_ends_the_wait_at_once_with_its_reason() -> None:
    engine = Scripted("nothing listens")

    with pytest.raises(LaunchError, match="cand did not start: exit status 1: no such model") as caught:
        wait(engine, ended=[None, "exit status 1: no such model"])

    assert caught.value.engine == "cand"
    assert engine.now == pytest.approx(100.0 + POLL_S)


def test_answer_on_the_port_does_not_count_once_the_process_is_gone() -> None:
    engine = Scripted(None)

    with pytest.raises(LaunchError, match="address in use"):
        wait(engine, ended=["address in use"])


def test_deadline_says_what_was_last_heard() -> None:
    engine = Scripted("loading the model")

    with pytest.raises(LaunchError, match=r"not ready after 0.25 s: loading the model\. Raise start_timeout_s"):
        wait(engine, deadline_s=0.25)

    assert engine.pauses == pytest.approx([0.1, 0.1, 0.05])


def test_final_no_of_the_adapter_ends_the_wait() -> None:
    with pytest.raises(NotAuthorised):
        wait(Scripted("loading", NotAuthorised("wrong key", engine="cand")))


def test_free_port_can_be_bound() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))

        assert taken.getsockname()[1] > 0


@pytest.mark.parametrize(
    ("tail", "taken"),
    [
        ("OSError: [Errno 98] Address already in use", True),
        ("main: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080", True),
        ("failed to load model", False),
    ],
)
def test_port_clash_is_read_from_the_log(tail: str, taken: bool) -> None:
    assert port_was_taken(tail) is taken


def test_a_port_is_listened_to_as_long_as_somebody_does() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert is_listened_to(port)

    assert not is_listened_to(port)
