"""Sessions without pytest around them: real store, real keeper, loopback engines or a small process in their place."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.core.ports import Embedder
from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.report.progress import Silent
from pytest_llmparity.run.session import Session
from pytest_llmparity.settings.specification import EngineSpec, Settings
from pytest_llmparity.testing import LoopbackEngine
from tests.doubles.posing import PosingEngine

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "fixtures/models/tiny/tiny-Q4_0.gguf"

SERVER = (
    f"import sys\nsys.path.append({str(ROOT)!r})"
    + """
import argparse, os, signal, socket
from tests.doubles.posing import PosingEngine
parser = argparse.ArgumentParser()
for name in ("--alias", "--port", "--ctx-size", "--parallel"):
    parser.add_argument(name)
flags, _ = parser.parse_known_args()
with open(os.environ["STARTS"], "a") as out:
    out.write(f"{os.environ['NAME']} starts\\n")
print(os.environ["NAME"], "wakes up", flush=True)
mode = os.environ.get("MODE", "")
if mode == "exit":
    sys.exit("the weights are broken")
if mode == "once" and open(os.environ["STARTS"]).read().count(os.environ["NAME"] + " starts") > 1:
    sys.exit("the weights are gone")
if mode == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "taken" and open(os.environ["STARTS"]).read().count("starts") == 1:
    other = socket.create_server(("127.0.0.1", int(flags.port)))
def stop(*_):
    with open(os.environ["STARTS"], "a") as out:
        out.write(f"{os.environ['NAME']} stops\\n")
        out.flush()
        if mode == "lingers":
            open("told", "w").close()
            open("leave").close()
            out.write(f"{os.environ['NAME']} leaves\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
engine = PosingEngine(model=flags.alias, poses_as="llamacpp", port=int(flags.port), quantization="Q4_0")
engine.script = "well, yes"
with engine:
    while True:
        signal.pause()
"""
)


GATHER = """
import sys
from pathlib import Path
from pytest_llmparity.settings.specification import EngineSpec, Settings
from pytest_llmparity.report.progress import Silent
from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.run.session import Session
path, name, url, limit = Path(sys.argv[1]), *sys.argv[2:]
spec = EngineSpec(name=name, kind="llamacpp", model="loopback", base_url=url)
session = Session(
    Settings(engines=(spec,), baseline=name, max_requests=int(limit)), root=path, token="an earlier process",
    keeper=lambda: Keeper.spawn(path / ".llmparity"), version="1", progress=Silent(),
)
session.gates.declare("t", ["prompts.jsonl"], {"max_tokens": 8}, folder=path)
session.gather()
print(session.run)
session.close()
"""


class Project:
    """A folder with prompts, engines and any number of sessions in it, closed when the test ends."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self._stack = stack
        self.prompts(12)

    def prompts(self, count: int, **row: Any) -> None:
        """Write ``prompts.jsonl``."""
        rows = [
            {"id": f"c{i}", "messages": [{"role": "user", "content": f"question {i}"}], **row} for i in range(count)
        ]
        (self.path / "prompts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))

    def engine(self, *args: Any, **kwargs: Any) -> PosingEngine:
        """Start an engine that lives as long as the test."""
        return self._stack.enter_context(PosingEngine(*args, **kwargs))

    def attached(self, name: str, engine: LoopbackEngine, **keys: Any) -> EngineSpec:
        """Return the spec of an engine that runs already."""
        return EngineSpec(name=name, base_url=engine.base_url, **{"kind": "llamacpp", "model": "loopback"} | keys)

    def process(self, name: str, mode: str = "", **keys: Any) -> EngineSpec:
        """Return the spec of an engine that is started as a process and notes starts and stops in :attr:`events`."""
        script = self.path / "server.py"
        script.write_text(SERVER)
        return EngineSpec(
            name=name,
            kind="llamacpp",
            launch="process",
            model=MODEL.name,
            model_path=MODEL,
            command=(sys.executable, str(script)),
            context_length=512,
            env={"STARTS": str(self.path / "events"), "NAME": name, "MODE": mode},
            **keys,
        )

    @property
    def events(self) -> list[str]:
        """What started and stopped, in order."""
        path = self.path / "events"
        return path.read_text().splitlines() if path.exists() else []

    def keeper(self) -> Keeper:
        """Spawn a keeper that stops everything when the test ends."""
        keeper = Keeper.spawn(self.path / ".llmparity")
        self._stack.callback(keeper.close)
        return keeper

    def session(
        self,
        *specs: EngineSpec,
        token: str = "one",
        embedder: Callable[[], Embedder | None] = lambda: None,
        **settings: Any,
    ) -> Session:
        """Return a session; the first spec is the baseline unless named otherwise."""
        chosen: dict[str, Any] = {"engines": specs, "baseline": specs[0].name if specs else None} | settings
        session = Session(
            Settings(**chosen),
            root=self.path,
            token=token,
            keeper=lambda: Keeper.spawn(self.path / ".llmparity"),
            version="1",
            progress=Silent(),
            embedder=embedder,
        )
        self._stack.callback(session.close)
        return session

    def gathered_before(self, name: str, engine: LoopbackEngine, *, limit: int) -> str:
        """Let another process gather a part of the prompts and end; returns its run."""
        argv = [sys.executable, "-c", GATHER, str(self.path), name, engine.base_url, str(limit)]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout.strip()

    def process_ended(self) -> None:
        """Let the runs so far be those of a process that is no more, whose id another one has now."""
        with closing(sqlite3.connect(self.path / ".llmparity/samples.sqlite")) as db, db:
            db.execute("UPDATE holders SET born = 0")

    def declare(self, session: Session, *checks: Any, test: str = "t", **keywords: Any) -> None:
        """Declare one gate over the prompts, with answers no longer than the horizon unless told otherwise."""
        session.gates.declare(test, ["prompts.jsonl", *checks], {"max_tokens": 8} | keywords, folder=self.path)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project of its own."""
    with ExitStack() as stack:
        yield Project(tmp_path, stack)


@pytest.fixture
def at_once() -> Callable[..., list[Any]]:
    """Call functions in threads of their own at the same time; returns what each returned."""

    def run(*calls: Callable[[], Any]) -> list[Any]:
        results: list[Any] = [None] * len(calls)

        def call(place: int) -> None:
            results[place] = calls[place]()

        threads = [threading.Thread(target=call, args=(place,)) for place in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    return run
