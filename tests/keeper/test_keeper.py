"""The keeper with real processes. A pipe every fake engine inherits tells when the last of its tree is gone."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from pytest_llmparity.core.errors import KeeperError
from pytest_llmparity.keeper.client import EngineState, Keeper, log_tail
from tests.doubles.ended import Ended

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="engines are not started on Windows")

LIMIT_S = 20.0
"""For what takes milliseconds, on a machine that is busy."""

ENGINE = """
import os, select, signal, sys
pipe = os.open(sys.argv[1], os.O_WRONLY)
def say(word):
    os.write(pipe, f"{word} {os.getpid()}\\n".encode())
def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
def hang():
    while True:
        signal.pause()
"""
PLAIN = "say('up'); hang()"
POLITE = "signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(0))); say('up'); hang()"
DEAF = "deaf(); say('up'); hang()"
DETACHED = """
deaf()
if not os.fork():
    os.setsid()
    if not os.fork():
        os.setsid()
        say('detached')
        hang()
    os._exit(0)
os.wait()
say('up')
hang()
"""
SPAWNING = """
deaf()
if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    say('spawning')
    while True:  # a new process every few milliseconds, each in a session of its own, its parent gone
        if os.fork():
            os._exit(0)
        os.setsid()
        if not os.fork():
            hang()
        select.select([], [], [], 0.005)
say('up')
hang()
"""
OWNER = """
import os, signal, sys
from pathlib import Path
from pytest_llmparity.keeper.client import Keeper
keeper = Keeper.spawn(Path(sys.argv[1]))
print(keeper._process.pid, keeper.address, flush=True)
"""
WAITING = "signal.pause()"
FORKED = """
if not os.fork():  # a sibling that holds every pipe and is nobody's descendant of ours to kill
    os.setsid()
    print('sibling', os.getpid(), flush=True)
    signal.pause()
signal.pause()
"""


class Pipe:
    """A named pipe that engines write to; its end means that no process holds it any more."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._read = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._seen = b""

    def hear(self, *words: str) -> dict[str, int]:
        """Wait until each of the words was said; give who said it."""
        self._until(lambda: all(f"{word} ".encode() in self._seen for word in words))
        lines = [line.split() for line in self._seen.decode().splitlines()]
        return {word: int(pid) for word, pid in lines}

    def ended(self, limit_s: float = LIMIT_S) -> float:
        """Wait until every process that held the pipe is gone; give the seconds it took."""
        started = time.monotonic()
        self._until(None, limit_s)
        return time.monotonic() - started

    def _until(self, done: Callable[[], bool] | None, limit_s: float = LIMIT_S) -> None:
        deadline = time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._read, selectors.EVENT_READ)
            while done is None or not done():
                assert selector.select(deadline - time.monotonic()), f"nothing more within {limit_s} s: {self._seen!r}"
                chunk = os.read(self._read, 4096)
                if not chunk:
                    assert done is None, f"ended after {self._seen!r}"
                    return
                self._seen += chunk

    def close(self) -> None:
        os.close(self._read)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    pipe = Pipe(tmp_path / "pipe")
    yield pipe
    pipe.close()


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    keeper = Keeper.spawn(tmp_path / "work")
    pid, directory = pid_of(keeper), directory_of(keeper.address)
    yield keeper
    keeper.close()
    assert not directory.exists()
    assert not psutil.pid_exists(pid)
    assert (tmp_path / "work" / "keeper.log").read_text() == ""


def pid_of(keeper: Keeper) -> int:
    assert keeper._process is not None
    return keeper._process.pid


def directory_of(address: str) -> Path:
    return Path(address.partition("@")[2]).parent


def start(
    keeper: Keeper,
    pipe: Pipe,
    body: str,
    *,
    name: str = "engine",
    grace_s: float = 10.0,
    secrets: Mapping[str, str] | None = None,
) -> EngineState:
    return keeper.start(
        name,
        argv=[sys.executable, "-ISc", ENGINE + body, str(pipe.path)],
        env={"PATH": os.environ["PATH"], "ODD": "caf\udce9"},
        cwd=pipe.path.parent,
        log=pipe.path.parent / f"{name}.log",
        stop_signal=signal.SIGTERM,
        grace_s=grace_s,
        secrets=secrets,
    )


def test_an_engine_is_absent_then_starting_then_ready_then_stopped(keeper: Keeper, pipe: Pipe, tmp_path: Path) -> None:
    assert keeper.state("engine") == EngineState(name="engine", state="absent")
    started = start(keeper, pipe, POLITE)
    assert (started.state, started.first) == ("starting", True)
    assert pipe.hear("up")["up"] == started.pid

    ready = keeper.announce("engine", {"url": "http://127.0.0.1:1", "identity": {"a": [1, None]}})
    assert (ready.state, ready.first) == ("ready", False)
    assert keeper.state("engine").info == {"url": "http://127.0.0.1:1", "identity": {"a": [1, None]}}

    stopped = keeper.stop("engine")
    assert (stopped.state, stopped.returncode) == ("stopped", 0)
    assert pipe.ended(0.5) < 0.5
    assert log_tail(tmp_path / "engine.log") == "bye"
    assert keeper.stop("engine").state == "stopped"


def test_no_key_is_in_an_engines_log_and_only_its_user_can_read_it(keeper: Keeper, pipe: Pipe, tmp_path: Path) -> None:
    key = "sk-live-0123456789abcdef"
    body = (
        "import base64\n"
        "log = lambda text: os.write(1, text.encode())\n"
        f"k = {key!r}\n"
        "log('caf\\u00e9 ' + k[:9]); say('half'); log(k[9:] + ' ' + base64.b64encode(k.encode()).decode())\n"
        "log(' ' + 'x' * 290 + k + 'y' * 300 + chr(10) + 'truncated: ' + k[:12]); say('up'); sys.exit(3)"
    )
    log = tmp_path / "engine.log"
    log.write_text("what an earlier start wrote\n")

    start(keeper, pipe, body, secrets={"THE_KEY": key})

    assert keeper.wait("engine", LIMIT_S).returncode == 3
    kept = log.read_text("utf-8")
    assert kept == f"caf\u00e9 «THE_KEY» «THE_KEY» {'x' * 290}«THE_KEY»{'y' * 300}\ntruncated: «THE_KEY»"
    assert log.stat().st_mode & 0o777 == 0o600
    assert key not in str(psutil.Process(pid_of(keeper)).cmdline()) + str(psutil.Process(pid_of(keeper)).environ())


def test_an_engine_whose_log_is_copied_does_not_wait_for_the_disk(keeper: Keeper, pipe: Pipe, tmp_path: Path) -> None:
    body = "[os.write(1, b'line of a log' * 8 + b'.\\n') for _ in range(40_000)]; say('up'); hang()"

    start(keeper, pipe, body, secrets={"THE_KEY": "sk-live-0123456789abcdef"})

    pipe.hear("up")
    assert keeper.stop("engine").state == "stopped"
    assert (tmp_path / "engine.log").stat().st_size == 40_000 * 106


def test_an_engine_gets_its_own_session_no_input_its_environment_and_folder(
    keeper: Keeper, pipe: Pipe, tmp_path: Path
) -> None:
    body = "print(sorted(os.environ), os.getcwd(), os.getsid(0) == os.getpid(), sys.stdin.read() == '', flush=True)"
    odd = "; print(ascii(os.environ['ODD']), signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    (tmp_path / "engine.log").write_text("what an earlier start wrote\n")
    start(keeper, pipe, body + odd)

    assert keeper.wait("engine", LIMIT_S).returncode == 0
    first, second = log_tail(tmp_path / "engine.log").splitlines()
    assert first.endswith(f"'ODD', 'PATH', '_LLMPARITY_ENGINE'] {tmp_path} True True")
    assert second == "'caf\\udce9' True"


def test_of_many_who_start_the_same_engine_one_is_first_and_all_get_what_it_announces(
    keeper: Keeper, pipe: Pipe
) -> None:
    barrier = threading.Barrier(8)

    def worker(number: int) -> tuple[bool, EngineState]:
        mine = Keeper.connect(keeper.address)
        barrier.wait()
        state = start(mine, pipe, PLAIN)
        if state.first:
            pipe.hear("up")
            mine.announce("engine", {"by": number})
        seen = mine.wait("engine", LIMIT_S)
        mine.close()
        return state.first, seen

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(worker, range(8)))

    first = [number for number, (was_first, _) in enumerate(results) if was_first]
    assert len(first) == 1
    assert [seen.info for _, seen in results] == [{"by": first[0]}] * 8
    assert len({seen.pid for _, seen in results}) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("sys.exit(3)", 3, "engine exited with code 3 before it was ready"),
        ("os.kill(os.getpid(), 9)", -9, "engine was killed by signal 9 before it was ready"),
    ],
)
def test_an_exit_while_starting_wakes_who_waits(keeper: Keeper, pipe: Pipe, body: str, code: int, words: str) -> None:
    assert start(keeper, pipe, body).first

    ended = keeper.wait("engine", LIMIT_S)
    assert (ended.state, ended.returncode, ended.reason) == ("exited", code, words)
    with pytest.raises(KeeperError, match=words):
        keeper.announce("engine", {})
    again = start(keeper, pipe, PLAIN)
    assert (again.state, again.first) == ("exited", False)


def test_the_death_of_a_ready_engine_is_noticed_and_its_workers_go_with_it(keeper: Keeper, pipe: Pipe) -> None:
    pid = start(keeper, pipe, DETACHED).pid
    pipe.hear("up", "detached")
    keeper.announce("engine", {})
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    pipe.ended()
    ended = keeper.state("engine")
    assert (ended.state, ended.returncode, ended.reason) == ("exited", -9, "engine was killed by signal 9")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "words"), [(["/no/such/engine"], "No such file"), (["a\0b"], "null byte")], ids=["missing", "null"]
)
def test_what_cannot_be_started_has_failed_with_the_reason(
    keeper: Keeper, tmp_path: Path, argv: list[str], words: str
) -> None:
    state = keeper.start(
        "engine", argv=argv, env={}, cwd=tmp_path, log=tmp_path / "log", stop_signal=signal.SIGTERM, grace_s=1.0
    )

    assert (state.state, state.first, state.pid) == ("failed", True, None)
    assert state.reason is not None
    assert words in state.reason
    assert keeper.stop("engine").state == "stopped"


@pytest.mark.slow
def test_failing_an_engine_tells_the_others_why_and_ends_it(keeper: Keeper, pipe: Pipe) -> None:
    start(keeper, pipe, DEAF, grace_s=0.1)
    pipe.hear("up")
    assert keeper.fail("engine", "never became ready").reason == "never became ready"

    pipe.ended()
    other = Keeper.connect(keeper.address)
    state = start(other, pipe, PLAIN)
    assert (state.state, state.reason, state.first) == ("failed", "never became ready", False)
    assert keeper.stop("engine").returncode == -9
    with pytest.raises(KeeperError, match="'engine' cannot fail: it is not running"):
        keeper.fail("engine", "twice")
    with pytest.raises(KeeperError, match="'other' cannot be announced as ready: it was never started"):
        keeper.announce("other", {})


@pytest.mark.slow
def test_who_waits_is_not_left_alone_when_the_starter_goes(keeper: Keeper, pipe: Pipe) -> None:
    starter = Keeper.connect(keeper.address)
    start(starter, pipe, DEAF, grace_s=0.1)
    pipe.hear("up")
    assert keeper.wait("engine", 0.0).state == "starting"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(keeper.wait, "engine", LIMIT_S)
        starter.close()
        state = waiting.result()

    assert state.state == "failed"
    assert state.reason == (
        f"engine: the process that was starting it (pid {os.getpid()}) went away before it was ready"
    )
    pipe.ended()


@pytest.mark.slow
@pytest.mark.parametrize("body", [DEAF, DETACHED, SPAWNING], ids=["deaf", "detached", "spawning"])
@pytest.mark.skipif(sys.platform != "linux", reason="detached processes are found by Linux' subreaper")
def test_stopping_one_engine_ends_its_whole_tree_and_nothing_else(
    keeper: Keeper, pipe: Pipe, tmp_path: Path, body: str
) -> None:
    other = Pipe(tmp_path / "other")
    start(keeper, other, DETACHED, name="other", grace_s=0.2)
    other.hear("up", "detached")
    start(keeper, pipe, body, grace_s=0.2)
    pipe.hear("up")
    pid = start(keeper, pipe, body).pid
    assert pid in keeper.members("engine")

    assert keeper.stop("engine").returncode == -9
    assert pipe.ended(0.5) < 0.5
    assert keeper.members("engine") == keeper.members("nobody") == ()
    for survivor in other.hear("up", "detached").values():
        assert psutil.Process(survivor).status() != psutil.STATUS_STOPPED
    again = start(keeper, pipe, PLAIN)
    assert (again.first, again.pid != pid) == (True, True)
    keeper.stop("other")
    assert other.ended(0.5) < 0.5
    other.close()


@pytest.mark.slow
def test_a_start_during_a_stop_waits_until_the_old_one_is_gone(keeper: Keeper, pipe: Pipe) -> None:
    old = start(keeper, pipe, DEAF, grace_s=0.5)
    pipe.hear("up")
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(keeper.stop, "engine")
        while keeper.state("engine").state != "stopped":
            pass
        new = start(keeper, pipe, POLITE)
        stopping.result()

    assert new.first
    assert old.pid is not None
    assert not psutil.pid_exists(old.pid)


def owner(script: str, *arguments: str) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )


def test_nobody_gets_in_without_the_token(keeper: Keeper) -> None:
    directory = directory_of(keeper.address)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert len(os.fsencode(directory / "socket")) < 100
    with pytest.raises(KeeperError, match="wrong token"):
        Keeper.connect(f"guessed@{directory / 'socket'}")
    assert keeper.state("engine").state == "absent"


def test_a_connected_keeper_only_disconnects(keeper: Keeper, pipe: Pipe) -> None:
    start(keeper, pipe, PLAIN)
    pipe.hear("up")
    keeper.announce("engine", {})
    other = Keeper.connect(keeper.address)
    other.close()
    other.close()

    assert keeper.state("engine").state == "ready"


@pytest.mark.slow
def test_closing_ends_every_engine_by_its_signal_first_and_may_be_repeated(tmp_path: Path, pipe: Pipe) -> None:
    keeper = Keeper.spawn(tmp_path)
    start(keeper, pipe, POLITE)
    pipe.hear("up")  # it alone: only now does it listen to the signal
    start(keeper, pipe, DETACHED, name="deaf", grace_s=0.2)
    pipe.hear("detached")
    keeper.close()

    assert pipe.ended(0.5) < 0.5
    assert log_tail(tmp_path / "engine.log") == "bye"
    assert not directory_of(keeper.address).exists()
    keeper.close()
    with pytest.raises(KeeperError, match="is gone"):
        keeper.state("engine")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_keeper_that_was_killed_leaves_nothing_after_close(tmp_path: Path, pipe: Pipe, number: int) -> None:
    keeper = Keeper.spawn(tmp_path)
    start(keeper, pipe, DETACHED)
    pipe.hear("up", "detached")
    assert keeper._process is not None
    keeper._process.send_signal(number)
    keeper._process.wait(LIMIT_S)
    with pytest.raises(KeeperError, match="gone"):
        keeper.state("engine")
    keeper.close()

    pipe.ended()
    assert not directory_of(keeper.address).exists()


@pytest.mark.slow
@pytest.mark.parametrize("body", [PLAIN, DEAF, DETACHED, SPAWNING], ids=["plain", "deaf", "detached", "spawning"])
@pytest.mark.parametrize("after", [WAITING, FORKED], ids=["alone", "with a forked sibling"])
@pytest.mark.skipif(sys.platform != "linux", reason="detached processes are found by Linux' subreaper")
def test_kill_9_of_the_owner_leaves_no_process_after_five_seconds(
    tmp_path: Path, pipe: Pipe, body: str, after: str
) -> None:
    with ExitStack() as cleanup, owner(OWNER + after, str(tmp_path)) as process:
        cleanup.callback(process.kill)
        assert process.stdout is not None
        pid, address = process.stdout.readline().split()
        if after == FORKED:
            cleanup.callback(os.kill, int(process.stdout.readline().split()[1]), signal.SIGKILL)
        worker = Keeper.connect(address)
        start(worker, pipe, body)
        pipe.hear("up")
        with selectors.DefaultSelector() as selector:
            the_keeper = os.pidfd_open(int(pid))  # readable when it has ended, reaped or not
            cleanup.callback(os.close, the_keeper)
            selector.register(the_keeper, selectors.EVENT_READ)
            process.kill()

            took = pipe.ended(5.0)
            assert selector.select(5.0 - took)
        assert not directory_of(address).exists()
        worker.close()


def test_an_owner_that_ends_without_closing_takes_everything_with_it(tmp_path: Path, pipe: Pipe) -> None:
    with owner(OWNER + "input()", str(tmp_path)) as process:
        assert process.stdout is not None
        _, address = process.stdout.readline().split()
        worker = Keeper.connect(address)
        start(worker, pipe, POLITE)
        pipe.hear("up")
        process.communicate("\n")
    worker.close()

    assert pipe.ended(5.0) < 5.0
    assert log_tail(tmp_path / "engine.log") == "bye"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="takes pidfd away")
def test_without_pidfd_and_with_the_pipe_held_open_the_owner_is_still_missed(tmp_path: Path, pipe: Pipe) -> None:
    script = OWNER.replace(
        "keeper =",
        "import pytest_llmparity.keeper.client as client\n"
        "client.PROGRAM = 'import os; del os.pidfd_open; ' + client.PROGRAM\nkeeper =",
    )
    with ExitStack() as cleanup, owner(script + FORKED, str(tmp_path)) as process:
        cleanup.callback(process.kill)
        assert process.stdout is not None
        _, address = process.stdout.readline().split()
        cleanup.callback(os.kill, int(process.stdout.readline().split()[1]), signal.SIGKILL)
        worker = Keeper.connect(address)
        start(worker, pipe, DETACHED)
        pipe.hear("up", "detached")
        process.kill()

        assert pipe.ended(5.0) < 5.0
        worker.close()


@pytest.mark.slow
def test_an_owner_that_closes_its_pipe_is_gone_as_well(tmp_path: Path, pipe: Pipe) -> None:
    keeper = Keeper.spawn(tmp_path)
    start(keeper, pipe, PLAIN)
    pipe.hear("up")
    assert keeper._process is not None
    assert keeper._process.stdin is not None
    keeper._process.stdin.close()

    pipe.ended(5.0)
    assert keeper._process.wait(LIMIT_S) == 0
    keeper.close()


@pytest.mark.slow
def test_a_keeper_that_hangs_is_cleared_away_with_its_engines(
    tmp_path: Path, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Keeper.spawn(tmp_path)
    start(keeper, pipe, DETACHED)
    pipe.hear("up", "detached")
    monkeypatch.setattr("pytest_llmparity.keeper.client._ANSWER_S", 0.2)
    os.kill(pid_of(keeper), signal.SIGSTOP)
    with pytest.raises(KeeperError, match=r"did not answer 'wait' in time; is it stopped\?"):
        keeper.wait("engine", 0.1)
    keeper.close()

    pipe.ended()
    assert not directory_of(keeper.address).exists()


@pytest.mark.slow
@pytest.mark.parametrize("nonsense", [b"nonsense\n", b"[]\n", b"7\n", b'{"pid": 1}\n', b"\xff\n", b"x" * 100])
def test_nonsense_is_refused_and_harms_nobody(keeper: Keeper, nonsense: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
        raw.settimeout(LIMIT_S)
        raw.connect(keeper.address.partition("@")[2])
        raw.sendall(nonsense)
        if nonsense.endswith(b"\n"):
            assert b"does not understand" in raw.recv(4096)
            assert raw.recv(4096) == b""
    with pytest.raises(KeeperError, match="does not understand this request: KeyError"):
        keeper._ask({"op": "dance"})
    assert keeper.state("engine").state == "absent"


@pytest.mark.slow
def test_an_answer_of_a_megabyte_arrives_whole(keeper: Keeper, pipe: Pipe) -> None:
    start(keeper, pipe, PLAIN)
    pipe.hear("up")
    keeper.announce("engine", {"text": "x" * 1_000_000})

    assert len(keeper.state("engine").info["text"]) == 1_000_000


@pytest.mark.slow
def test_nothing_is_started_while_the_keeper_closes(tmp_path: Path, pipe: Pipe) -> None:
    keeper = Keeper.spawn(tmp_path)
    pid = start(keeper, pipe, DEAF, grace_s=LIMIT_S).pid
    pipe.hear("up")
    assert pid is not None
    other = Keeper.connect(keeper.address)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(keeper.close)
        while other.state("engine").state != "stopped":
            pass
        with pytest.raises(KeeperError, match="second is not started: the keeper is closing"):
            start(other, pipe, PLAIN, name="second")
        os.kill(pid, signal.SIGKILL)
        closing.result()

    pipe.ended()


@pytest.mark.slow
def test_ctrl_c_reaches_neither_keeper_nor_engines(keeper: Keeper, pipe: Pipe) -> None:
    pid = start(keeper, pipe, PLAIN).pid
    pipe.hear("up")

    assert pid is not None
    groups = {os.getpgrp(), os.getpgid(pid_of(keeper)), os.getpgid(pid)}
    sessions = {os.getsid(0), os.getsid(pid_of(keeper)), os.getsid(pid)}
    assert (len(groups), len(sessions)) == (3, 3)


def test_windows_is_told_to_attach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(KeeperError, match="only attached to"):
        Keeper.spawn(tmp_path)


def test_a_long_temporary_folder_is_avoided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    keeper = Keeper.spawn(tmp_path)
    keeper.close()

    assert len(keeper.address.partition("@")[2]) < 100
    assert list(deep.iterdir()) == []


@pytest.mark.parametrize("popen", [subprocess.Popen, Ended], ids=["while it is told", "before"])
def test_a_keeper_that_cannot_start_says_why(
    popen: type[subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_llmparity.keeper.client.PROGRAM", "import nowhere_to_be_found")
    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(KeeperError, match=r"(?s)did not start \(exit code 1\).*No module named 'nowhere_to_be_found'"):
        Keeper.spawn(tmp_path)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(KeeperError, match=r"needs a folder it can write: .*file"):
        Keeper.spawn(tmp_path / "file")


def test_the_folder_it_makes_stays_out_of_git(tmp_path: Path) -> None:
    Keeper.spawn(tmp_path / ".llmparity").close()

    assert (tmp_path / ".llmparity/.gitignore").read_text() == "*\n"


def test_a_program_or_a_folder_for_the_socket_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", str(tmp_path / "no-python"))
        with pytest.raises(KeeperError, match=r"could not be started: .*no-python"):
            Keeper.spawn(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no-folder"))
    with pytest.raises(KeeperError, match="temporary folder for its socket"):
        Keeper.spawn(tmp_path)


def test_sockets_of_engines_have_a_folder_of_a_short_path_that_goes_with_the_keeper(tmp_path: Path) -> None:
    keeper = Keeper.spawn(tmp_path)
    folder = keeper.sockets()
    assert folder is not None
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / str(uuid.uuid4())))
    again = keeper.sockets()
    keeper.close()

    assert again == folder
    assert not folder.exists()
    assert Keeper(f"token@{tmp_path / ('long' * 30)}/socket").sockets() is None


def test_the_keeper_process_imports_little() -> None:
    root = Path(__file__).parents[2]
    script = (
        f"import sys; sys.path.append({str(root)!r}); import pytest_llmparity.keeper.server; "
        "print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names, "
        "*{'asyncio', 'dataclasses', 'inspect', 'ssl', 'logging'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)

    assert set(done.stdout.split()) == {"__main__", "pytest_llmparity"}


def test_the_end_of_a_log_is_harmless_and_short(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert log_tail(log) == ""
    lines = [f"line {number}" for number in range(30)]
    progress = "load 10 %\rload 90 %\rload 100 %\r"
    log.write_bytes("\n".join([*lines, "", "\x1b[31mred\x9b\x07\tend", progress, "y" * 999]).encode() + b"\xff\n")

    tail = log_tail(log, 4, width=20).splitlines()

    assert tail == ["line 29", "\\x1b[31mre…\\x07  end", "load 100 %", "yyyyyyyyyy…yyyyyyyy\ufffd"]
    assert len(log_tail(log).splitlines()) == 20
