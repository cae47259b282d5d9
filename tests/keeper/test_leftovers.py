"""What is left where a keeper and its pytest are killed together goes with the next keeper, and nothing else does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pytest_llmparity.keeper import leftovers
from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.keeper.tree import MARKER

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="engines cannot be started on Windows")

STAYS = "import signal; signal.pause()"
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


def left_by(place: Path, name: str, *, listens: socket.socket | None = None) -> Path:
    """Make the folder of a keeper, whose socket nobody listens on unless one is given for that."""
    folder = place / f"{leftovers.PREFIX}{name}"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) if listens is None else listens.dup() as bound:
        bound.bind(str(folder / "socket"))
        if listens is not None:
            bound.listen()
    return folder


def note_container(folder: Path, box: Path) -> None:
    """Note a container, which is a file, as the keeper notes one."""
    shown = [sys.executable, "-c", f"import os; print('box' if os.path.exists({str(box)!r}) else '')"]
    removal = {"commands": [["rm", "--force", str(box)]], "left": shown}
    (folder / "removals").write_text(json.dumps(removal) + "\n")


def test_containers_and_processes_of_a_keeper_that_is_no_more_are_removed_with_its_folder(place: Path) -> None:
    folder, box = left_by(place, "gone"), place / "box"
    box.touch()
    note_container(folder, box)
    engine = subprocess.Popen([sys.executable, "-c", STAYS], env={MARKER: f"{folder.name}.1"})

    names = leftovers.sweep([place])

    assert names == [folder.name]
    engine.wait(20)  # it would never end by itself
    assert sorted(path.name for path in place.iterdir()) == []


def test_a_keeper_that_listens_a_folder_without_a_socket_and_what_is_no_folder_stay(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        there = [left_by(place, "lives", listens=listener), place / f"{leftovers.PREFIX}new", place / "other"]
        there[1].mkdir()
        left_by(place, "else").rename(there[2])
        (place / f"{leftovers.PREFIX}file").touch()
        before = sorted(place.iterdir())

        assert leftovers.sweep([place]) == []
        assert sorted(place.iterdir()) == before


def test_a_container_that_cannot_be_removed_is_left_for_the_next_time(place: Path) -> None:
    folder, box = left_by(place, "gone"), place / "box"
    box.mkdir()  # which rm --force does not remove
    note_container(folder, box)

    first = leftovers.sweep([place])
    box.rmdir()
    second = leftovers.sweep([place])

    assert (first, second) == ([], [folder.name])


@pytest.mark.slow
def test_the_engine_of_a_keeper_that_was_killed_with_its_owner_ends_when_the_next_begins(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    told = json.loads(owner.stdout.readline())
    engine = psutil.Process(told["engine"])
    os.kill(told["keeper"], signal.SIGKILL)
    owner.kill()
    owner.communicate(timeout=60)

    before = engine.is_running()
    Keeper.spawn(tmp_path).close()

    assert before
    assert not psutil.wait_procs([engine], 20)[1]
    assert not Path(told["address"].partition("@")[2]).parent.exists()
