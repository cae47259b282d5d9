"""Seconds to ready in a container against a process of the same program, and what is left after `kill -9` of pytest.

    python -m benchmarks.containers [--starts 10] [--kills 5]

The real llama-server (or xllamacpp) of tests/real_runtimes.py with the tiny model, as root, in a podman store of its
own (`vfs`: every container copies its image). A start is from asking for the engine to its identity, warm-up included,
container and process in turn. A kill is of a whole pytest with one engine in a container that was up: seconds until no
container, no conmon and no process of that run is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.settings.specification import EngineSpec
from tests.real_runtimes import IMAGE, RUN, Podman, llama_server

MODEL: Final = Path(__file__).resolve().parent.parent / "fixtures/models/tiny/tiny-F16.gguf"
STAYS: Final = """
import pathlib, threading
def test_stays(engine):
    pathlib.Path("up").touch()
    threading.Event().wait(300)
"""


def specs(podman: Podman) -> tuple[EngineSpec, EngineSpec]:
    """Return the engine in a container, and the same program as a process."""
    boxed = EngineSpec(
        name="boxed",
        kind="llamacpp",
        launch="container",
        image=IMAGE,
        runtime="podman",
        runtime_args=podman.args,
        run_args=RUN,
        volumes=podman.volumes,
        model=MODEL.name,
        model_path=MODEL,
        context_length=512,
        slots=2,
        args=("--threads", "1"),
    )
    program = llama_server()
    own: tuple[str, ...] = () if program is None else (str(program),)
    bare = dataclasses.replace(
        boxed, name="bare", launch="process", image=None, runtime=None, runtime_args=(), run_args=(), volumes=()
    )
    return boxed, dataclasses.replace(bare, command=own)


def start_s(spec: EngineSpec) -> tuple[float, float]:
    """Return the seconds an engine takes until it is known, and those until nothing of it is left."""
    with tempfile.TemporaryDirectory(prefix="lp-bench-") as folder:
        keeper = Keeper.spawn(Path(folder) / ".llmparity")
        fleet = Fleet({spec.name: spec}, keeper=lambda: keeper, workdir=Path(folder) / ".llmparity")
        began = time.perf_counter()
        error = fleet.engage(spec.name).record.error
        up = time.perf_counter()
        assert error is None, error
        keeper.stop(spec.name)
        gone = time.perf_counter()
        keeper.close()
    return up - began, gone - up


@contextmanager
def running(podman: Podman, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a pytest whose engine is up in a container."""
    (folder / "llmparity.toml").write_text(podman.table("boxed", MODEL))
    (folder / "test_stays.py").write_text(STAYS)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--engines=boxed"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("LLMPARITY_")}
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(argv, cwd=folder, env=env, stdout=out, stderr=out)
    while not (folder / "up").exists():
        assert process.poll() is None, (folder / "out").read_text()
        time.sleep(0.05)
    yield process


def kill_s(podman: Podman) -> tuple[float, int]:
    """Return the seconds after which nothing of a killed pytest is left, and how many processes there were."""
    with tempfile.TemporaryDirectory(prefix="lp-bench-") as folder, running(podman, Path(folder)) as process:
        family = psutil.Process(process.pid).children(recursive=True)
        began = time.perf_counter()
        process.kill()
        process.wait()
        while podman.containers() or any(map(alive, family)):
            time.sleep(0.02)
        return time.perf_counter() - began, len(family)


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def told(name: str, seconds: list[float]) -> None:
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    print(f"{name:<34} median {middle:5.2f} s, {low:5.2f} to {high:5.2f} s, n {len(seconds)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--kills", type=int, default=5)
    asked = parser.parse_args()
    podman = Podman(Path(tempfile.mkdtemp(prefix="lp-podman-", dir="/tmp")))
    try:
        podman.load()
        print(f"program: {'xllamacpp' if llama_server() is None else 'llama-server'}; load {os.getloadavg()[0]:.1f}")
        boxed, bare = specs(podman)
        times = [(start_s(boxed), start_s(bare)) for _ in range(asked.starts)]
        told("ready in a container", [container[0] for container, _ in times])
        told("ready as a process", [process[0] for _, process in times])
        told("gone from a container, asked", [container[1] for container, _ in times])
        told("gone as a process, asked", [process[1] for _, process in times])
        kills = [kill_s(podman) for _ in range(asked.kills)]
        told("nothing left after kill -9", [seconds for seconds, _ in kills])
        print(f"containers left: {len(podman.containers())}; conmon left: {conmons(podman)}")
    finally:
        podman.clear()


def conmons(podman: Podman) -> int:
    """Return how many monitors of containers of this store are alive."""
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return sum("conmon" in line and str(podman.folder) in line for line in lines)


if __name__ == "__main__":
    main()
