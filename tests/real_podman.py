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
LEFT_OUT: Final = ("site-packages", "__pycache__", "test", "idlelib", "tkinter", "ensurepip", "lib2to3", "pydoc_data")


class Podman:
    """A podman with a store of its own in ``folder``. ``argv`` is how its command lines begin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.args = ("--root", str(folder / "root"), "--runroot", str(folder / "run"), *STORE)
        self.argv = ("podman", *self.args)

    def __call__(self, *words: str) -> str:
        """Return what a command prints; one that fails fails the test."""
        ended = subprocess.run([*self.argv, *words], capture_output=True, timeout=LIMIT_S, check=False)
        assert ended.returncode == 0, f"podman {' '.join(words)}: {ended.stderr.decode('utf-8', 'replace')}"
        return ended.stdout.decode()

    def load(self, tree: Path, image: str = IMAGE, *, entry: tuple[str, ...]) -> None:
        """Import a folder as an image that starts with ``entry``."""
        archive = self.folder / "image.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(tree, arcname=".")
        self("import", "--change", f"ENTRYPOINT {json.dumps(entry)}", str(archive), image)
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
            },
            **keys,
        }
        return f"[engines.{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())

    def clear(self) -> None:
        """Remove every container and the store."""
        subprocess.run([*self.argv, "rm", "--all", "--force"], capture_output=True, timeout=LIMIT_S, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def copy_with_libraries(program: Path, tree: Path, place: str) -> None:
    """Copy a program into ``place`` of a tree, and every library that the loader finds for it."""
    copy(program, tree / place.lstrip("/"))
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, timeout=60, check=True).stdout
    for library in map(Path, LIBRARY.findall(listed)):
        beside = library.parent == program.parent
        copy(library, (tree / place.lstrip("/")).with_name(library.name) if beside else tree / str(library).lstrip("/"))


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


def server_tree(tree: Path) -> tuple[str, ...]:
    """Fill a folder with a llama.cpp server and all it needs; return how it is started there.

    It is ``llama-server`` where there is one, else the ``xllamacpp`` of this interpreter with its standard library.
    """
    (tree / "tmp").mkdir(parents=True)
    program = llama_server()
    if program is not None:
        copy_with_libraries(program, tree, "/app/llama-server")
        return ("/app/llama-server",)
    xllamacpp = pytest.importorskip("xllamacpp")
    package, python = Path(xllamacpp.__file__).parent, Path(sys.executable).resolve()
    copy_with_libraries(python, tree, str(python))
    paths = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    for folder in {path for path in paths if not path.is_relative_to(sys.prefix) or sys.prefix == sys.base_prefix}:
        shutil.copytree(
            folder, tree / str(folder).lstrip("/"), ignore=shutil.ignore_patterns(*LEFT_OUT), dirs_exist_ok=True
        )
    for library in [*package.glob("*.so"), *Path(sysconfig.get_path("stdlib")).glob("lib-dynload/*.so")]:
        listed = subprocess.run(["ldd", str(library)], capture_output=True, text=True, timeout=60, check=False).stdout
        for needed in map(Path, LIBRARY.findall(listed)):
            copy(needed, tree / str(needed).lstrip("/"))
    shutil.copytree(package, tree / "app/xllamacpp", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(Path(llamacpp.__file__).with_name("child.py"), tree / "app/child.py")
    return (str(python), "/app/child.py")


@functools.cache
def why_not() -> str:
    """Say why there are no containers here; empty where there are."""
    if shutil.which("podman") is None or shutil.which("runc") is None:
        return "podman and runc are not both on PATH"
    return "" if os.geteuid() == 0 else "podman's tests need root: they run without a user's namespaces"


@pytest.fixture(scope="session")
def real_podman() -> Iterator[Podman]:
    """A podman that has :data:`IMAGE`. Its store is in a short path: sockets are in it."""
    if reason := why_not():
        unavailable("podman", reason)
    podman = Podman(Path(tempfile.mkdtemp(prefix="lp-podman-", dir="/tmp")))
    try:
        tree = podman.folder / "tree"
        podman.load(tree, entry=server_tree(tree))
        yield podman
    finally:
        podman.clear()
