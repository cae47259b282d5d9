"""A real Ollama for live tests: daemons with a store and a port of their own that serve the tiny model.

``real_ollama`` is one daemon for the whole session, ``start_ollama`` starts more with variables of their own. Both skip
where there is no Ollama, and fail there when ``LLMPARITY_REQUIRE_LIVE`` names it.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import pytest

from pytest_llmparity.engines.start.readiness import free_port
from tests.unavailable import unavailable

PROGRAM: Final = "LLMPARITY_OLLAMA"
"""The variable that names the program; without it the one of ``PATH`` is taken."""
MODELS: Final = Path(__file__).parents[1] / "fixtures/models/tiny"
START_S: Final = 60.0
SCRUBBED: Final = ("OLLAMA_", "LLAMA_ARG_")
"""What a daemon of a test never inherits from the shell that runs the tests."""


def program() -> str:
    """Return the path of the program, or end the test: skipped, or failed where the run requires an Ollama."""
    path = os.environ.get(PROGRAM) or shutil.which("ollama")
    return path or unavailable("ollama", f"{PROGRAM} does not name an Ollama and there is none in PATH")


class RealOllama:
    """A running daemon. It ends, with the processes of its models, when the ``with`` block does.

    ``url`` is its address, ``store`` the folder of its models, ``log`` the file it writes to. ``env`` goes over what
    a test usually wants: two slots, and models that stay loaded.
    """

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None, *, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self.url = f"http://127.0.0.1:{self.port}"
        self.store = folder / "models"
        self.log = folder / "daemon.log"
        self.env = {"OLLAMA_NUM_PARALLEL": "2", "OLLAMA_KEEP_ALIVE": "-1", **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the daemon, again after :meth:`stop` on the same port, and wait until it answers."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(SCRUBBED)}
        own = {
            "OLLAMA_HOST": f"127.0.0.1:{self.port}",
            "OLLAMA_MODELS": str(self.store),
            "OLLAMA_NO_CLOUD": "1",
            "OLLAMA_NOPRUNE": "1",
        }
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [program(), "serve"],
                env=inherited | own | self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        until = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(ConnectionError):
                self._send("GET", "/api/version")
                return
            time.sleep(0.02)
        self.stop()
        pytest.fail(f"Ollama did not start: {self.log.read_text('utf-8', 'replace')[-2000:]}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the daemon and everything it started."""
        if self._process is None:
            return
        self._process.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        with contextlib.suppress(ProcessLookupError):  # nothing of the session may be left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def call(self, path: str, **body: object) -> dict[str, Any]:
        """Return the answer of the daemon's own API: ``GET`` without a body, else ``POST``; the last line of several.

        An answer that is no success fails the test.
        """
        text = self._send("POST", path, json.dumps(body).encode()) if body else self._send("GET", path)
        value: dict[str, Any] = json.loads(text.strip().rpartition("\n")[2] or "{}")
        assert "error" not in value, f"{path}: {text}"
        return value

    def model(self, quantization: str, name: str | None = None, **fields: object) -> str:
        """Return the name of a model made of one of the tiny model's files, made where it is not there yet.

        ``fields`` are further ones of ``/api/create``: ``template``, ``parameters``, ``system``. One thread each: what
        else runs on a small machine makes more of them wait for each other.
        """
        name = name or f"tiny:{quantization.lower()}"
        if name not in self.names():
            file = MODELS / f"tiny-{quantization}.gguf"
            content = file.read_bytes()
            digest = "sha256:" + hashlib.sha256(content).hexdigest()
            if not (self.store / "blobs" / digest.replace(":", "-")).exists():
                self._send("POST", f"/api/blobs/{digest}", content)
            self.call(
                "/api/create", model=name, files={file.name: digest}, **{"parameters": {"num_thread": 1}, **fields}
            )
        return name

    def copy(self, source: str, target: str) -> None:
        """Let another name mean a model, as ``ollama cp`` does."""
        self.call("/api/copy", source=source, destination=target)

    def unload(self) -> None:
        """Let go of every loaded model."""
        for name in self.loaded():
            self.call("/api/generate", model=name, keep_alive=0)
        while self.loaded():
            time.sleep(0.02)

    def names(self) -> list[str]:
        """Return the models that the daemon has."""
        return [model["name"] for model in self.call("/api/tags")["models"]]

    def loaded(self) -> dict[str, int]:
        """Return the models in memory with the context each was loaded with."""
        return {model["name"]: model["context_length"] for model in self.call("/api/ps")["models"]}

    def _send(self, method: str, path: str, body: bytes | None = None) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            answer = connection.getresponse()
            text = answer.read().decode()
        assert answer.status in (200, 201), f"{path}: {answer.status} {text}"
        return text


@pytest.fixture(scope="session")
def real_ollama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealOllama]:
    """The daemon that the tests of a session share: leave its models as they are, or give yours names of your own."""
    with RealOllama(tmp_path_factory.mktemp("ollama")) as daemon:
        yield daemon


@pytest.fixture
def start_ollama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RealOllama]]:
    """Start daemons with variables of their own (``OLLAMA_MAX_LOADED_MODELS="1"``) that end with the test."""
    with contextlib.ExitStack() as stack:

        def start(**env: str) -> RealOllama:
            return stack.enter_context(RealOllama(tmp_path_factory.mktemp("ollama"), env))

        yield start
