"""Images of a real registry on loopback: fetched, refused, pinned, and another engine once their tag has moved."""

from __future__ import annotations

import os
import pty
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.engines.start.readiness import free_port
from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.run.fleet import Fleet
from tests.live.conftest import LIMIT_S, own_environment
from tests.real_runtimes import ON_ONE, RealRuntime, Registry, real_runtime, registry

__all__ = ["real_runtime", "registry"]

pytestmark = pytest.mark.live
LAYER = 6_000_000
"""Bytes of a file that no registry packs any smaller."""
PACE = 2_000_000
"""Bytes a second that a slow registry sends."""
SUITE = """
def test_up(engine):
    assert engine.model
"""
GATE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("{prompts}", check.text(margin=0.2), max_tokens=16)
def test_same(): ...
"""


@pytest.fixture(scope="module")
def pushed(real_runtime: RealRuntime, registry: Registry) -> str:
    """The image of llama.cpp in the registry; it is not on this machine."""
    return registry.push(real_runtime, f"{real_runtime.name}/llama:v1")


@pytest.fixture
def engaged(real_runtime: RealRuntime, models: Path, tmp_path: Path) -> Iterator[Any]:
    """Engage an engine that runs from an image."""
    keeper = Keeper.spawn(tmp_path / ".llmparity")

    def engage(image: str, **keys: Any) -> EngineRecord:
        spec = real_runtime.spec(models, image=image, **keys)
        fleet = Fleet({spec.name: spec}, keeper=lambda: keeper, workdir=tmp_path / ".llmparity")
        record = fleet.engage(spec.name).record
        keeper.stop(spec.name)
        return record

    yield engage
    keeper.close()


def test_the_command_that_is_told_fetches_an_image_whose_digest_is_the_registrys(
    engaged: Any, pushed: str, registry: Registry
) -> None:
    missing = engaged(pushed).error or ""
    command = re.search(r"is not on this machine\. Fetch it with: (.+) \(or set download = true\)", missing)
    assert command is not None, missing
    subprocess.run(shlex.split(command[1]), check=True, capture_output=True, timeout=LIMIT_S)

    record = engaged(pushed)

    assert record.error is None
    assert record.identity.get("image_digest") == registry.digest(pushed)


@pytest.mark.slow
def test_a_tag_that_has_moved_is_refused_by_a_pin_and_by_its_digest_the_image_is_still_had(
    engaged: Any, real_runtime: RealRuntime, registry: Registry
) -> None:
    name = registry.push(real_runtime, f"{real_runtime.name}/moves:v1")
    before = registry.digest(name)
    held = engaged(name, download=True, pin={"image_digest": before})
    real_runtime.load("localhost/moved:v1")
    registry.push(real_runtime, f"{real_runtime.name}/moves:v1", image="localhost/moved:v1")
    moved = engaged(name, download=True, pin={"image_digest": before})
    by_digest = engaged(f"{name.rpartition(':')[0]}@{before}", download=True, pin={"image_digest": before})

    assert registry.digest(name) != before
    assert (held.error, held.incomparable) == (None, None)
    assert f"image_digest is pinned to {before[:19]}" in (moved.incomparable or ""), moved
    assert (by_digest.error, by_digest.incomparable) == (None, None)


@pytest.mark.slow
def test_what_a_registry_does_not_have_is_told_in_the_runtimes_words(engaged: Any, pushed: str) -> None:
    record = engaged(pushed.replace(":v1", ":none"), download=True)

    assert f"could not be fetched by {pushed.split('/')[1]}" in (record.error or "")
    assert "manifest unknown" in (record.error or "")


@pytest.mark.slow
def test_a_registry_that_is_not_there_is_told(engaged: Any, real_runtime: RealRuntime) -> None:
    record = engaged(f"127.0.0.1:{free_port()}/llama:v1", download=True)

    assert f"could not be fetched by {real_runtime.name}" in (record.error or "")
    assert "connection refused" in (record.error or "")


@pytest.mark.slow
def test_an_image_for_other_processors_is_refused_once_it_is_there(
    engaged: Any, pushed: str, registry: Registry
) -> None:
    record = engaged(registry.for_arm64(pushed, "arm"), download=True)

    assert "is for arm64 and this machine is amd64" in (record.error or "")


@ON_ONE
@pytest.mark.slow
def test_the_first_of_three_images_that_answers_otherwise_is_found(
    real_runtime: RealRuntime,
    registry: Registry,
    models: Path,
    some: Callable[..., Path],
    tmp_path: Path,
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Two that are the same say the same, token by token; with another template nearly every answer is another one."""
    for tag, flags in {"v1": (), "v2": (), "v3": ("--chat-template", "vicuna")}.items():
        real_runtime.load("localhost/version:v0", flags=flags)
        image = registry.push(real_runtime, f"{real_runtime.name}/version:{tag}", image="localhost/version:v0")
    config = real_runtime.table("dev", models / "tiny-F16.gguf", image=image, download=True)
    (tmp_path / "llmparity.toml").write_text(f"explain_requests = 0\n{config}")
    (tmp_path / "test_same.py").write_text(GATE.format(prompts=some("mixed", 12)))
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider -p no:asyncio\n")
    words = ("--engine", "dev", "--images", "v1,v2,v3", "--suite", "test_same.py")

    done = command(tmp_path, "pytest_llmparity", "bisect", *words)
    told = " ".join(done.stdout.split())

    assert done.returncode == 1, done.stdout + done.stderr
    assert "v3 is the first version of dev that no longer passes; v2, before it, does." in told
    assert f"image_digest: {registry.digest(image.replace('v3', 'v2'))[:19]}" in told
    assert f"-> {registry.digest(image)[:19]}" in told


@pytest.mark.slow
def test_a_terminal_shows_a_bar_of_the_bytes_of_an_image_that_is_fetched(
    real_runtime: RealRuntime, registry: Registry, models: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "weights").write_bytes(os.urandom(LAYER))
    real_runtime.load("localhost/big:v1", tree=tree)
    name = registry.push(real_runtime, f"{real_runtime.name}/big:v1", image="localhost/big:v1")
    with slowed(registry.address) as slow, pytest.MonkeyPatch.context() as patch:
        conf = tmp_path / "registries.conf"
        conf.write_text(f'[[registry]]\nlocation = "{slow}"\ninsecure = true\n')
        patch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
        image = name.replace(registry.address, slow)
        config = real_runtime.table("c16", models / "tiny-F16.gguf", image=image, download=True)
        (tmp_path / "llmparity.toml").write_text(config)
        (tmp_path / "test_up.py").write_text(SUITE)
        drawn = at_a_terminal([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--engines=c16"], tmp_path)

    assert f"c16: fetching {image}" in drawn
    assert "c16: its image" in drawn
    come = [float(size) for size in re.findall(r"0 of 1 layers, ([\d.]+) MB of 6\.\d MB", drawn)]
    assert len(set(come)) > 1, drawn
    assert come == sorted(come)


def at_a_terminal(argv: list[str], folder: Path) -> str:
    """Return what a command writes to a terminal."""
    ours, theirs = pty.openpty()
    environment = {**own_environment(), "TERM": "xterm", "COLUMNS": "140"}
    process = subprocess.Popen(argv, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    try:
        while read := os.read(ours, 65536):
            written += read
    except OSError:  # the other end was closed
        pass
    os.close(ours)
    process.wait(LIMIT_S)
    return written.decode("utf-8", "replace")


@contextmanager
def slowed(address: str) -> Iterator[str]:
    """Serve what another address does, so many bytes a second; give the new address."""
    host, _, port = address.partition(":")
    listener = socket.create_server(("127.0.0.1", 0))

    def copy(source: socket.socket, target: socket.socket, pace: float) -> None:
        with source, target:
            try:
                while read := source.recv(65536):
                    target.sendall(read)
                    time.sleep(len(read) / pace)
            except OSError:
                pass

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection((host, int(port)))
            threading.Thread(target=copy, args=(client, server.dup(), 1e9), daemon=True).start()
            threading.Thread(target=copy, args=(server, client.dup(), PACE), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
