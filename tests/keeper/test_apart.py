"""A keeper that is no child of the process it serves: for owners that kill their children before they end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from pytest_llmparity.keeper.client import Keeper

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="engines cannot be started on Windows")

OWNER = """
import json, os, signal, sys
from pathlib import Path
import psutil
from pytest_llmparity.keeper.client import Keeper

here = Path(sys.argv[1])
keeper = Keeper.spawn(here, apart=True)
state = keeper.start(
    "a", argv=[sys.executable, "-c", "import signal; signal.pause()"], env={}, cwd=here, log=here / "log",
    stop_signal=signal.SIGTERM, grace_s=5.0,
)
children = psutil.Process().children()
print(json.dumps({"engine": state.pid, "children": [child.pid for child in children]}), flush=True)
if sys.argv[2] == "close":
    keeper.close()
else:
    for child in children:  # as a worker of Ray does
        child.kill()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("ends", ["close", "killed"])
def test_an_engine_ends_with_its_owner_also_where_that_kills_its_children_first(tmp_path: Path, ends: str) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path), ends], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    told = json.loads(owner.stdout.readline())
    try:
        engine = psutil.Process(told["engine"])
    except psutil.NoSuchProcess:
        engine = None
    owner.communicate(timeout=60)

    assert told["children"] == []
    assert engine is None or not psutil.wait_procs([engine], 20)[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_keeper_apart_that_hangs_or_was_killed_is_cleared_away_with_its_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with tempfile.TemporaryDirectory(prefix="lp-", dir="/tmp") as place:
        monkeypatch.setattr(tempfile, "tempdir", place)
        keeper = Keeper.spawn(tmp_path, apart=True)
        state = keeper.start(
            "a",
            argv=[sys.executable, "-c", "import signal; signal.pause()"],
            env={},
            cwd=tmp_path,
            log=tmp_path / "log",
            stop_signal=signal.SIGTERM,
            grace_s=5.0,
        )
        assert keeper._apart is not None
        itself, engine = keeper._apart, psutil.Process(state.pid)
        monkeypatch.setattr("pytest_llmparity.keeper.client._ANSWER_S", 0.2)
        itself.send_signal(number)

        keeper.close()

        assert not psutil.wait_procs([itself, engine], 20)[1]
        assert list(Path(place).iterdir()) == []
    assert (tmp_path / "keeper.log").read_text() == ""
