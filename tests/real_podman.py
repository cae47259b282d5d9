"""Real containers for live tests: an image of llama.cpp in a store of its own, run by podman as root.

``real_podman`` is one store for the whole session; it skips where there is no podman that starts containers, and fails
there when ``LLMPARITY_REQUIRE_LIVE`` names it.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from pytest_llmparity.engines.kinds import llamacpp
from tests.unavailable import unavailable

IMAGE: Final = "localhost/llmparity-llama:test"
STORE: Final = ("--runtime", "runc", "--cgroup-manager", "cgroupfs", "--storage-driver", "vfs")
"""What works as root in a container or a small virtual machine, where overlays and systemd are not to be had."""
RUN: Final = ("--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
LIBRARY: Final = re.compile(r"(?:=>\s*)?(/\S+)\s+\(0x[0-9a-f]+\)")
LIMIT_S: Final = 120.0
ENDS: Final = (
    "import os, runpy, signal, sys; signal.signal(signal.SIGTERM, lambda *_: os._exit(0)); sys.path.insert(0, '/app'); "
    "runpy.run_path('/app/child.py', run_name='__main__')"
)
"""Runs the child as the first process of a container, for which a signal without a handler does nothing."""


class Podman:
    """A podman with a store of its own in ``folder``. ``argv`` is how its command lines begin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.args = ("--root", str(folder / "root"), "--runroot", str(folder / "run"), *STORE)
        self.argv = ("podman", *self.args)
        self.tree = folder / "tree"
        self.entry, self.volumes = fill(self.tree)

    def __call__(self, *words: str) -> str:
        """Return what a command prints; one that fails fails the test."""
        ended = subprocess.run([*self.argv, *words], capture_output=True, timeout=LIMIT_S, check=False)
        assert ended.returncode == 0, f"podman {' '.join(words)}: {ended.stderr.decode('utf-8', 'replace')}"
        return ended.stdout.decode()

    def load(self, image: str = IMAGE) -> None:
        """Import llama.cpp as an image: each time another one."""
        archive = self.folder / "image.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(self.tree, arcname=".")
        self("import", "--change", f"ENTRYPOINT {json.dumps(self.entry)}", str(archive), image)
        archive.unlink()

    def containers(self) -> list[str]:
        """Return the names of all containers there are, running or not."""
        return self("ps", "--all", "--format", "{{.Names}}").split()

    def table(self, name: str, model: Path, *, image: str = IMAGE, **keys: object) -> str:
        """Return the table of an engine of kind ``llamacpp`` that runs here, for ``llmparity.toml``."""
        run_args = [*RUN, *keys.pop("more", ())]  # type: ignore[misc]
        values = {
            **{"kind": "llamacpp", "model": str(model), "image": image, "runtime": "podman"},
            **{
                "runtime_args": list(self.args),
                "run_args": run_args,
                "context_length": 512,
                "args": ["--threads", "1"],
                "volumes": list(self.volumes),
            },
            **keys,
        }
        return f"[engines.{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())

    def clear(self) -> None:
        """Remove every container and the store."""
        subprocess.run([*self.argv, "rm", "--all", "--force"], capture_output=True, timeout=LIMIT_S, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def libraries(program: Path) -> list[Path]:
    """Return every library that the loader finds for a program or a library."""
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, timeout=60, check=False).stdout
    return [Path(path) for path in LIBRARY.findall(listed)]


def copy_with_libraries(program: Path, tree: Path, place: str) -> None:
    """Copy a program into ``place`` of a tree, and every library that the loader finds for it."""
    target = tree / place.lstrip("/")
    copy(program, target)
    for library in libraries(program):
        beside = library.parent == program.parent
        copy(library, target.with_name(library.name) if beside else tree / str(library).lstrip("/"))


def copy(file: Path, target: Path) -> None:
    """Copy what a file or link leads to; a place that is taken stays."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)


def llama_server() -> Path | None:
    """Return a ``llama-server`` of this machine: the one that is named, on ``PATH``, or beside an Ollama."""
    ollama = os.environ.get("LLMPARITY_OLLAMA") or shutil.which("ollama")
    beside = Path(ollama).resolve().parent.parent / "lib/ollama/llama-server" if ollama else None
    named = os.environ.get("LLMPARITY_LLAMA_SERVER") or shutil.which("llama-server")
    return Path(named) if named else beside if beside is not None and beside.is_file() else None


def fill(tree: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Fill a folder with a llama.cpp server; return how it is started there, and the volumes it wants.

    It is ``llama-server`` where there is one, else the ``xllamacpp`` of this interpreter. Of that the image has the
    loader and the system's libraries; interpreter and package, a quarter of a gigabyte, are mounted: this store copies
    an image for every container.
    """
    (tree / "tmp").mkdir(parents=True)
    program = llama_server()
    if program is not None:
        copy_with_libraries(program, tree, "/app/llama-server")
        return ("/app/llama-server",), ()
    xllamacpp = pytest.importorskip("xllamacpp")
    package, python = Path(xllamacpp.__file__).parent, Path(sys.executable).resolve()
    stdlib = Path(sysconfig.get_path("stdlib"))
    for file in [python, *package.glob("*.so"), *stdlib.glob("lib-dynload/*.so")]:
        for library in libraries(file):
            copy(library, tree / str(library).lstrip("/"))
    copy(Path(llamacpp.__file__).with_name("child.py"), tree / "app/child.py")
    volumes = {python: python, stdlib: stdlib, package: Path("/app/xllamacpp")}
    return (str(python), "-c", ENDS), tuple(f"{source}:{place}:ro" for source, place in volumes.items())


@functools.cache
def why_not() -> str:
    """Say why there are no containers here; empty where there are."""
    if shutil.which("podman") is None or shutil.which("runc", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        return "podman and runc are not both there"
    return "" if os.geteuid() == 0 else "podman's tests need root: they run without a user's namespaces"


@pytest.fixture(scope="session")
def real_podman() -> Iterator[Podman]:
    """A podman that has :data:`IMAGE`. Its store is in a short path: sockets are in it."""
    if reason := why_not():
        unavailable("podman", reason)
    podman = Podman(Path(tempfile.mkdtemp(prefix="lp-podman-", dir="/tmp")))
    try:
        podman.load()
        yield podman
    finally:
        podman.clear()
