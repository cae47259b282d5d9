"""The proxy between an application and its engine keeps what passed, and leaves nothing open."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from pytest_llmparity.run.application.recorder import Recorder
from pytest_llmparity.testing import LoopbackEngine

ASKED = {"model": "loopback", "messages": [{"role": "user", "content": "where is it?"}]}


@pytest.fixture
def engine() -> Iterator[LoopbackEngine]:
    """An engine that says one thing."""
    with LoopbackEngine("at home") as running:
        yield running


@pytest.fixture
def recorder(engine: LoopbackEngine) -> Iterator[Recorder]:
    """A proxy in front of it."""
    proxy = Recorder(f"{engine.base_url}/v1")
    proxy.start()
    yield proxy
    proxy.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_is_passed_on_and_kept_by_its_run(recorder: Recorder, stream: bool) -> None:
    reply = httpx.post(f"{recorder.address('one')}/chat/completions", json={**ASKED, "stream": stream})

    assert reply.status_code == 200
    assert "at" in reply.text
    (call,) = recorder.taken("one")
    assert (call.path, call.status, call.answer) == ("/v1/chat/completions", 200, "at home")
    assert "loopback" not in call.request
    assert recorder.taken("one") == recorder.taken("other") == ()


def test_to_look_for_models_is_to_ask_nothing(recorder: Recorder) -> None:
    assert httpx.get(f"{recorder.address('one')}/models").status_code == 200
    assert recorder.taken("one") == ()


def test_whoever_does_not_know_the_address_is_told_nothing(recorder: Recorder, engine: LoopbackEngine) -> None:
    host = urlsplit(recorder.address("one")).netloc

    assert httpx.post(f"http://{host}/v1/chat/completions", json=ASKED).status_code == 404
    assert not engine.requests


def test_its_end_closes_open_connections_and_says_nothing(
    recorder: Recorder, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    where = urlsplit(recorder.address("one"))
    with socket.create_connection((str(where.hostname), where.port or 0), timeout=10) as idle:
        idle.sendall(b"POST / HTTP/1.1\r\n")  # and no more: its task waits for the rest of the head
        httpx.get(f"{recorder.address('one')}/models")  # by now the proxy has met the first one

        recorder.close()

        assert idle.recv(1) == b""
    assert capfd.readouterr().err == ""
    assert not caplog.records, "asyncio logs the traceback of a task that ends cancelled"
