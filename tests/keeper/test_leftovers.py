"""What is left where a keeper and its pytest are killed together goes with the next keeper, and nothing else does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil
import pytest

from pytest_llmparity.core.errors import KeeperError
from pytest_llmparity.keeper import leftovers
from pytest_llmparity.keeper.client import Keeper, Removal
from pytest_llmparity.keeper.leftovers import Owner
from pytest_llmparity.keeper.removal import STEERING
from pytest_llmparity.keeper.tree import MARKER

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="engines cannot be started on Windows")

LIMIT_S = 20.0
STAYS = "import signal; signal.pause()"
HANGS = ["sh", "-c", "sleep 600; true"]  # what the shell has started holds what it prints to
OWNER = """
import json, signal, sys
from pathlib import Path
from pytest_llmparity.keeper.client import Keeper

here = Path(sys.argv[1])
keeper = Keeper.spawn(here)
state = keeper.start(
    "a", argv=[sys.executable, "-c", "import signal; signal.pause()"], env={}, cwd=here, log=here / "log",
    stop_signal=signal.SIGTERM, grace_s=5.0,
)
print(json.dumps({"engine": state.pid, "keeper": keeper._process.pid, "address": keeper.address}), flush=True)
signal.pause()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short path, because there are sockets in it."""
    with tempfile.TemporaryDirectory(prefix="lp-", dir="/tmp") as folder:
        yield Path(folder)


@contextmanager
def marked(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An engine of the keeper of this folder, which would never end by itself."""
    with subprocess.Popen([sys.executable, "-c", STAYS], env={MARKER: f"{folder.name}.1"}) as engine:
        try:
            yield engine
        finally:
            engine.kill()


def this_process(folder: Path) -> Owner:
    """Note this process as the owner of the keeper of a folder, and return the note."""
    leftovers.note_owner(folder)
    return msgspec.json.decode((folder / "owner").read_bytes(), type=Owner)


def left_by(place: Path, name: str, *, listens: socket.socket | None = None, owner: Mapping[str, object] = {}) -> Path:
    """Make the folder of a keeper, whose socket nobody listens on unless one is given for that.

    Its owner is by default a process of this process's number that began before it, changed by ``owner``.
    """
    folder = place / f"{leftovers.PREFIX}{name}"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) if listens is None else listens.dup() as bound:
        bound.bind(str(folder / "socket"))
        if listens is not None:
            bound.listen()
    noted = msgspec.structs.replace(this_process(folder), **{"began": "before"} | dict(owner))
    (folder / "owner").write_bytes(msgspec.json.encode(noted))
    return folder


def note(commands: Sequence[Sequence[str]], left: Sequence[str], env: dict[str, str] | None = None) -> str:
    """Return the note of a container, as the keeper writes one."""
    variables = {"PATH": os.environ["PATH"]} if env is None else env
    return f"\n{json.dumps({'commands': commands, 'left': left, 'env': variables})}\n"


def note_of(box: Path) -> str:
    """Return the note of a container, which is a file."""
    return note([["rm", "-f", str(box)]], ["sh", "-c", 'if [ -e "$0" ]; then echo box; fi', str(box)])


def note_container(folder: Path, box: Path) -> None:
    with (folder / "removals").open("a") as notes:
        notes.write(note_of(box))


def test_containers_and_processes_of_a_keeper_that_is_no_more_are_removed_with_its_folder(place: Path) -> None:
    folder, box = left_by(place, "gone"), place / "box"
    box.touch()
    note_container(folder, box)

    with marked(folder) as engine:
        names = leftovers.sweep([place])

        assert names == [folder.name]
        engine.wait(LIMIT_S)
    assert list(place.iterdir()) == []


def test_a_keeper_that_listens_a_folder_without_a_socket_and_what_is_no_folder_stay(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        left_by(place, "lives", listens=listener)
        (left_by(place, "new") / "socket").unlink()
        left_by(place, "else").rename(place / "other")
        (place / f"{leftovers.PREFIX}file").touch()
        before = sorted(place.iterdir())

        assert leftovers.sweep([place]) == []
        assert sorted(place.iterdir()) == before
        assert len(before) == 4


def test_while_its_owner_lives_only_that_one_clears_after_a_keeper_that_was_killed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    keeper = Keeper.spawn(place / "work")
    folder = Path(keeper.address.partition("@")[2]).parent
    assert keeper._process is not None
    keeper._process.kill()
    keeper._process.wait(LIMIT_S)

    with marked(folder) as engine:
        assert leftovers.sweep([place]) == []
        assert engine.poll() is None

        keeper.close()

        engine.wait(LIMIT_S)
    assert not folder.exists()


def test_an_owner_is_no_more_once_it_was_killed_though_its_parent_has_not_asked_for_its_end(place: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", STAYS]) as owner:
        began = leftovers._began(owner.pid)
        folder = left_by(place, "owned", owner={"pid": owner.pid, "began": began})
        while_it_lives = leftovers.sweep([place])
        owner.kill()
        os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)

        assert (while_it_lives, leftovers.sweep([place])) == ([], [folder.name])


@pytest.mark.parametrize(
    "other", [{"boot": "another"}, {"boot": ""}, {"host": "another"}, {"namespace": "pid:[1]"}, {"began": ""}]
)
def test_what_a_keeper_of_another_machine_boot_or_namespace_left_is_not_touched(
    place: Path, other: dict[str, str]
) -> None:
    folder = left_by(place, "elsewhere", owner=other)
    note_container(folder, place / "box")
    (place / "box").touch()

    with marked(folder) as engine:
        assert leftovers.sweep([place]) == []
        assert engine.poll() is None
    assert (folder / "removals").exists()
    assert (place / "box").exists()


@pytest.mark.parametrize("text", [None, b"", b'{"pid": 1, "began": "1', b"[]", b'{"pid": "1"}', b"\xff", b"{}"])
def test_a_folder_that_does_not_say_whose_it_is_is_not_touched(place: Path, text: bytes | None) -> None:
    folder = left_by(place, "cut")
    owner = folder / "owner"
    owner.unlink()
    if text is not None:  # before there were such notes there was none
        owner.write_bytes(text)

    with marked(folder) as engine:
        assert leftovers.sweep([place]) == []
        assert engine.poll() is None
    assert folder.exists()


def test_an_owner_that_may_not_be_read_keeps_no_other_folder(place: Path) -> None:
    odd, gone = left_by(place, "a"), left_by(place, "b")
    (odd / "owner").unlink()
    (odd / "owner").mkdir()

    assert leftovers.sweep([place]) == [gone.name]
    assert odd.exists()


@pytest.mark.parametrize(
    "text",
    [
        '{"commands": [["rm", "-f"',
        '[["docker", "rm", "x"]]',
        '{"commands": [["true"]], "left": ["true"]}',
        '{"commands": [[]], "left": ["true"], "env": {}}',
    ],
)
def test_of_notes_that_cannot_be_read_the_folder_stays_and_what_can_be_is_cleared(place: Path, text: str) -> None:
    folder, box = left_by(place, "gone"), place / "box"
    box.touch()
    (folder / "removals").write_text(text)
    note_container(folder, box)

    with marked(folder) as engine:
        assert leftovers.sweep([place]) == []
        engine.wait(LIMIT_S)
    assert not box.exists()
    assert (folder / "removals").exists()


def test_notes_that_may_not_be_read_leave_the_folder_and_hinder_no_start(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = left_by(place, "odd")
    (folder / "removals").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))

    Keeper.spawn(place / "work").close()

    assert folder.exists()


@pytest.mark.parametrize("program", ["box", "none"])
def test_a_container_that_cannot_be_removed_is_left_for_the_next_time(place: Path, program: str) -> None:
    folder, box = left_by(place, "gone"), place / "box"
    box.mkdir()  # which rm -f does not remove
    note_container(folder, box)
    if program == "none":
        (folder / "removals").write_text(note([["/nowhere/docker"]], ["/nowhere/docker"]))

    first = leftovers.sweep([place])
    box.rmdir()
    (folder / "removals").write_text(note_of(box))
    second = leftovers.sweep([place])

    assert (first, second) == ([], [folder.name])


def test_a_container_is_looked_for_where_it_was_started(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, there = left_by(place, "gone"), place / "there"
    there.mkdir()
    (there / "box").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(place / "here"))
    monkeypatch.setenv("DOCKER_HOST", "unix:///here")
    words = 'if [ -z "$DOCKER_HOST" ]; then rm -f "$XDG_DATA_HOME/box"; fi'
    lists = 'if [ -z "$DOCKER_HOST" ]; then ls "$XDG_DATA_HOME"; fi'
    env = {"PATH": os.environ["PATH"], "XDG_DATA_HOME": str(there)}
    (folder / "removals").write_text(note([["sh", "-c", words]], ["sh", "-c", lists], env))

    assert leftovers.sweep([place]) == [folder.name]
    assert list(there.iterdir()) == []


def test_a_keeper_notes_the_variables_that_steer_a_runtime_and_no_other(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    keeper = Keeper.spawn(place / "work")
    folder = Path(keeper.address.partition("@")[2]).parent
    steering = {"PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///there"}
    keeper.start(
        "a",
        argv=[sys.executable, "-c", STAYS],
        env={**steering, "HF_TOKEN": "sk-live-0123456789", "DOCKER_AUTH_CONFIG": "sk-live-0123456789"},
        cwd=place,
        log=place / "log",
        stop_signal=signal.SIGTERM,
        grace_s=5.0,
        removal=Removal(state=["true"], commands=[["true"]], left=["true"]),
    )
    read = leftovers._removals(folder)
    text = (folder / "removals").read_text()
    keeper.close()

    assert read == [leftovers.RemovalEntry(commands=[["true"]], left=["true"], env=steering)]
    assert "sk-live" not in text
    assert set(steering) < set(STEERING)


def test_what_cannot_be_noted_is_not_started(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    keeper = Keeper.spawn(place / "work")
    (Path(keeper.address.partition("@")[2]).parent / "removals").mkdir()
    with pytest.raises(KeeperError, match="a is not started: how its container is removed could not be noted in"):
        keeper.start(
            "a",
            argv=[sys.executable, "-c", STAYS],
            env={},
            cwd=place,
            log=place / "log",
            stop_signal=signal.SIGTERM,
            grace_s=5.0,
            removal=Removal(state=["true"], commands=[["true"]], left=["true"]),
        )
    state = keeper.state("a").state
    keeper.close()

    assert state == "absent"


@pytest.mark.slow
def test_a_runtime_that_hangs_costs_a_bounded_time_and_keeps_no_other_container(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "SWEEP_S", 6.0)
    hung, gone, box = left_by(place, "a"), left_by(place, "b"), place / "box"
    (hung / "removals").write_text(note([HANGS, HANGS], HANGS))
    box.touch()
    note_container(gone, box)

    with marked(hung) as engine:
        began = time.monotonic()
        names = leftovers.sweep([place])
        took = time.monotonic() - began

        assert names == [gone.name]
        engine.wait(LIMIT_S)
    assert took < leftovers.SWEEP_S + 1.0
    assert (box.exists(), hung.exists()) == (False, True)


def test_a_keeper_whose_folder_was_taken_ends_without_a_word(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    keeper = Keeper.spawn(place / "work")
    shutil.rmtree(Path(keeper.address.partition("@")[2]).parent)
    assert keeper._process is not None
    assert keeper._process.stdin is not None
    keeper._process.stdin.close()

    assert keeper._process.wait(LIMIT_S) == 0
    keeper.close()
    assert (place / "work/keeper.log").read_text() == ""


@pytest.mark.slow
def test_the_engine_of_a_keeper_that_was_killed_with_its_owner_ends_when_the_next_begins(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(place))  # where no other process of these tests clears away
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(place)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    told = json.loads(owner.stdout.readline())
    engine, keeper = psutil.Process(told["engine"]), psutil.Process(told["keeper"])
    keeper.kill()
    owner.kill()
    owner.communicate(timeout=60)
    psutil.wait_procs([keeper], LIMIT_S)  # one that is still dying still has its socket

    before = engine.is_running()
    Keeper.spawn(place).close()

    assert before
    assert not psutil.wait_procs([engine], LIMIT_S)[1]
    assert not Path(told["address"].partition("@")[2]).parent.exists()
