from __future__ import annotations

import asyncio
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import pytest_llmparity
from pytest_llmparity.core.errors import ConfigError, DesignError, LLMParityError, Timeout, by_name
from pytest_llmparity.core.sample import WireRequest
from pytest_llmparity.run.timed import child, mock
from pytest_llmparity.run.timed import measure as measuring
from pytest_llmparity.run.timed.measure import Record, Schedule, Watched, measure
from pytest_llmparity.transport import Client, Exchange, Limits, Read
from tests.doubles.ended import Ended


class Engine:
    """A loopback server in a thread that answers every request at once and remembers what it saw."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.most_at_once = 0
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._started.wait(10)

    async def _run(self) -> None:
        self._loop, self._stop, under_way = asyncio.get_running_loop(), asyncio.Event(), 0

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal under_way
            try:
                while True:
                    self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
                    under_way += 1
                    self.most_at_once = max(self.most_at_once, under_way)
                    await asyncio.sleep(0.02)
                    under_way -= 1
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        await self._stop.wait()
        server.close()

    @property
    def asked(self) -> list[str]:
        return [head.split()[1] for head in self.heads]

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Engine]:
    server = Engine()
    yield server
    server.stop()


def requests(*cases: str) -> tuple[tuple[str, WireRequest], ...]:
    return tuple((case, WireRequest(method="GET", path=f"/{case}", body=b"", sha256="")) for case in cases)


def Target(*, requests: tuple[tuple[str, WireRequest], ...], **more: Any) -> measuring.Target:  # noqa: N802 - as the class
    """Return a target that is warmed up with its last request, as a set that is asked once around is."""
    return measuring.Target(
        requests=requests, **({"warm_up": requests[-1][1]} if requests else {"warm_up": get("/")}) | more
    )


def get(path: str) -> WireRequest:
    return WireRequest(method="GET", path=path, body=b"", sha256="")


def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        return f"http://127.0.0.1:{closing.getsockname()[1]}"


@pytest.mark.slow
def test_a_whole_measurement(server: Engine) -> None:
    asked = requests("a", "b", "c")
    key = {"Authorization": "Bearer secret-value"}
    there = Target(name="there", base_url=server.url, requests=asked, headers=key)
    gone = Target(name="gone", base_url=nobody(), requests=asked)

    result = measure([there, gone], concurrency=2, per_engine=8, blocks=2)

    places = [("there", 0), ("gone", 0), ("gone", 1), ("there", 1)]
    cases = {0: "abca", 1: "bcab"}
    assert [(record.engine, record.block, record.index, record.case) for record in result.records] == [
        (name, block, index, cases[block][index]) for name, block in places for index in range(4)
    ]
    for record in result.records:
        if record.engine == "there":
            assert record.exchange is not None
            assert (record.failure, record.exchange.body) == (None, b"ok")
        else:
            assert record.exchange is None
            assert record.failure is not None
            assert record.failure.kind == "Unreachable"
    assert not result.stopped
    assert server.asked[0] == "/c"  # the warm-up
    assert sorted(server.asked[1:]) == sorted(f"/{case}" for case in "abca" + "bcab")
    assert server.most_at_once == 2
    assert all("Authorization: Bearer secret-value" in head for head in server.heads)
    assert result.calibration.concurrency == 2
    assert result.calibration.ttft_error_p50_s <= result.calibration.ttft_error_p99_s


@pytest.mark.slow
def test_what_is_watched_is_asked_before_and_after_every_block(server: Engine) -> None:
    target = Target(name="x", base_url=server.url, requests=requests("a"), watch=get("/ps"))
    silent = Target(name="y", base_url=nobody(), requests=requests("a"), watch=get("/ps"))

    result = measure([target, silent], concurrency=1, per_engine=2, blocks=2)

    assert server.asked == ["/a", "/ps", "/a", "/ps", "/ps", "/a", "/ps"]
    assert [
        (watch.engine, watch.block, watch.before is not None, watch.after is not None) for watch in result.watched
    ] == [
        ("x", 0, True, True),
        ("y", 0, False, False),
        ("y", 1, False, False),
        ("x", 1, True, True),
    ]
    assert all(isinstance(watch, Watched) for watch in result.watched)


def test_a_key_is_not_shown() -> None:
    target = Target(
        name="x", base_url="http://h", requests=requests("a"), headers={"K": "secret-value"}, proxy="http://u:pw@p"
    )

    assert "secret-value" not in repr(target)
    assert "pw" not in repr(target)


@pytest.mark.slow
def test_the_deadline_ends_sending(server: Engine) -> None:
    target = Target(name="x", base_url=server.url, requests=requests("a"))
    result = measure([target], concurrency=1, per_engine=9, blocks=1, deadline_s=0.05)

    assert result.stopped
    assert 1 <= len(result.records) < 9
    assert len(server.asked) == 1 + len(result.records)


@pytest.mark.parametrize(
    ("cases", "numbers", "text"),
    [
        ((), (1, 1, 1), "at least one engine"),
        (("",), (1, 1, 1), "the same cases in the same order"),
        (("ab", "ba"), (1, 1, 1), "the same cases in the same order"),
        (("a",), (4, 15, 4), "15 timed requests per engine in 4 blocks cannot keep 4 under way; that takes 16"),
        (("a",), (0, 15, 4), "cannot keep 0 under way"),
        (("a",), (4, 15, 0), "in 0 blocks"),
    ],
)
def test_numbers_that_cannot_be_run(cases: Sequence[str], numbers: tuple[int, int, int], text: str) -> None:
    targets = [Target(name=f"e{n}", base_url="http://h", requests=requests(*names)) for n, names in enumerate(cases)]
    concurrency, per_engine, blocks = numbers
    with pytest.raises(DesignError, match=text):
        measure(targets, concurrency=concurrency, per_engine=per_engine, blocks=blocks)


def test_a_typed_error_crosses_the_pipe() -> None:
    target = Target(name="x", base_url="gopher://h", requests=requests("a"))
    with pytest.raises(ConfigError, match="base_url has scheme 'gopher'"):
        measure([target], concurrency=1, per_engine=1, blocks=1)


@pytest.mark.parametrize("popen", [subprocess.Popen, Ended], ids=["while it is told", "before"])
def test_a_child_that_breaks_is_reported(popen: type[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "BOOT", "raise SystemExit('no such thing')")
    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(LLMParityError, match=r"broke; its last lines:\nno such thing"):
        measure([Target(name="x", base_url="http://h", requests=requests("a"))], concurrency=1, per_engine=1, blocks=1)


def test_ctrl_c_ends_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def wait(self, timeout: float | None = None) -> int:
            if self not in started:
                started.append(self)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(measuring, "BOOT", "import os, sys; os.close(1); sys.stdin.read()")
    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure([Target(name="x", base_url="http://h", requests=requests("a"))], concurrency=1, per_engine=1, blocks=1)

    assert started[0].returncode != 0


def test_the_child_ends_with_its_parent() -> None:
    root = str(Path(pytest_llmparity.__file__).parents[1])
    target = Target(name="x", base_url="http://127.0.0.1:9", requests=requests("a"))
    schedule = Schedule(targets=(target,), concurrency=1, per_engine=1, blocks=1)
    argv = [sys.executable, "-P", "-c", measuring.BOOT, root, "pytest_llmparity.run.timed.child"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        output, _ = child.communicate(
            measuring.framed(schedule), timeout=60
        )  # closes its standard input right after the schedule

    assert output == b""
    assert child.returncode == 0


def test_errors_and_schedules_survive_the_pipe() -> None:
    error = pickle.loads(pickle.dumps(Timeout("late", engine="e", case="c", status=408)))

    assert (str(error), error.engine, error.case, error.status) == ("late", "e", "c", 408)
    assert by_name("Timeout") is type(error)


@pytest.mark.asyncio
@pytest.mark.parametrize("tls", [False, True])
async def test_calibration_with_either_reader(monkeypatch: pytest.MonkeyPatch, tls: bool) -> None:
    monkeypatch.setattr(sys, "argv", ["", str(Path(pytest_llmparity.__file__).parents[1])])
    calibration = await child.calibrate(3, tls=tls)

    if tls or sys.platform != "linux":
        assert calibration.clock == "user"
    assert calibration.ttft_error_p99_s >= calibration.ttft_error_p50_s > -1e-4


@pytest.mark.asyncio
async def test_a_mock_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["", ""])
    monkeypatch.setattr(child, "BOOT", "")
    with pytest.raises(LLMParityError, match="did not start"):
        await child.calibrate(1, tls=False)


@pytest.mark.asyncio
async def test_lost_answers_spoil_the_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lossy(*_: object, **__: object) -> list[Record]:
        return []

    monkeypatch.setattr(sys, "argv", ["", str(Path(pytest_llmparity.__file__).parents[1])])
    monkeypatch.setattr(child, "block", lossy)
    with pytest.raises(LLMParityError, match="lost 8 of 8 answers"):
        await child.calibrate(1, tls=False)


@pytest.mark.asyncio
async def test_the_mock_paces_and_stamps() -> None:
    server = await mock.start(0.0, 0.0, 3)
    async with Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        exchange = await client.send("GET", "/")
    server.close()
    while len(asyncio.all_tasks()) > 1:  # the mock's side of the connection ends
        await asyncio.sleep(0)
    await asyncio.sleep(0)

    stamps = [int(line[6:]) for line in exchange.body.splitlines() if line]
    assert exchange.sent_ns < stamps[0] <= stamps[1] <= stamps[2]


def test_calibration_by_hand() -> None:
    body = b"data: 1000\n\ndata: 2000\n\ndata: 3000\n\n"
    alone = Exchange(
        status=200, headers={}, body=body, sent_ns=0, headers_ns=0, done_ns=0, clock="kernel",
        reads=(Read(1010, 1500, 12), Read(2020, 2700, 24), Read(3030, 3900, 36)),
    )  # fmt: skip
    merged = Exchange(
        status=200, headers={}, body=body, sent_ns=0, headers_ns=0, done_ns=0,
        reads=(Read(3100, 3100, 36),),
    )  # fmt: skip

    first = child.judge([alone], 1)
    assert (first.clock, first.concurrency) == ("kernel", 1)
    assert (first.ttft_error_p50_s, first.ttft_error_p99_s) == (10e-9, 10e-9)
    both = child.judge([alone, merged], 2)
    assert both.clock == "user"
    assert both.ttft_error_p99_s == 2100e-9


def test_the_child_imports_little() -> None:
    code = "import sys, pytest_llmparity.run.timed.child; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    root = str(Path(pytest_llmparity.__file__).parents[1])
    environment: Mapping[str, str] = {"PYTHONPATH": root}
    argv = [sys.executable, "-c", code]
    loaded = set(subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout.split())

    assert not loaded & {"numpy", "scipy", "pydantic", "openai", "httpx", "pytest", "rich"}


@pytest.mark.slow
def test_limits_reach_the_child() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        target = Target(name="x", base_url=url, requests=requests("a"), limits=Limits(first_byte_s=0.02))
        result = measure([target], concurrency=1, per_engine=1, blocks=1)

    assert result.records[0].failure is not None
    assert result.records[0].failure.kind == "Timeout"


@pytest.mark.parametrize(("engine", "reused", "kept"), [("a", True, False), ("a", False, True), ("b", True, True)])
def test_an_answer_that_may_be_another_request_s_is_a_failed_request(engine: str, reused: bool, kept: bool) -> None:
    exchange = Exchange(status=200, headers={}, body=b"", sent_ns=0, headers_ns=1, done_ns=2, reused=reused)
    record = child.without_mixed(Record(engine=engine, block=0, index=0, case="c", exchange=exchange), mixed={"a"})

    assert (record.exchange is not None, record.failure is None) == (kept, kept)
