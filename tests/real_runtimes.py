"""Real containers for live tests: llama.cpp in an image, in podman and in a Docker daemon of our own, and a registry.

``real_runtime`` is each of the two for the whole session, with ``ON_ONE`` one, and has a store of its own; it skips
where that runtime starts no containers, and fails there when ``LLMPARITY_REQUIRE_LIVE`` names it. ``registry`` serves
images on loopback.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_llmparity.engines.kinds import llamacpp
from pytest_llmparity.engines.start.readiness import free_port
from pytest_llmparity.settings.specification import EngineSpec
from tests.unavailable import unavailable

IMAGE: Final = "localhost/llmparity-llama:test"
STORE: Final = ("--runtime", "runc", "--cgroup-manager", "cgroupfs", "--storage-driver", "vfs")
DAEMON: Final = (
    *("--bridge", "none", "--iptables=false", "--ip6tables=false", "--storage-driver", "vfs"),
    *("--exec-opt", "native.cgroupdriver=cgroupfs"),
)
"""What works as root in a container or a small virtual machine: no overlays, no systemd, no bridges."""
LIMITS: Final = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
RUN: Final = ("--network", "host", *LIMITS)
DIES_WITH_US: Final = ("setpriv", "--pdeathsig", "TERM")
"""Lets a program be told to end when this process does, however that comes."""
MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
LIBRARY: Final = re.compile(r"(?:=>\s*)?(/\S+)\s+\(0x[0-9a-f]+\)")
LIMIT_S: Final = 120.0
UP_S: Final = 30.0
ENDS: Final = (
    "import os, runpy, signal, sys; signal.signal(signal.SIGTERM, lambda *_: os._exit(0)); sys.path.insert(0, '/app'); "
    "runpy.run_path('/app/child.py', run_name='__main__')"
)
"""Runs the child as the first process of a container, for which a signal without a handler does nothing."""


class RealRuntime:
    """A runtime with a store of its own in ``folder``. ``argv`` is how its command lines begin."""

    name = ""

    def __init__(self, folder: Path, args: Sequence[str]) -> None:
        self.folder = folder
        self.args = tuple(args)
        self.argv = (self.name, *self.args)
        self.tree = folder / "tree"
        self.entry, self.volumes = fill(self.tree)

    def __call__(self, *words: str) -> str:
        """Return what a command prints; one that fails fails the test."""
        ended = subprocess.run([*self.argv, *words], capture_output=True, timeout=LIMIT_S, check=False)
        assert ended.returncode == 0, f"{self.name} {' '.join(words)}: {ended.stderr.decode('utf-8', 'replace')}"
        return ended.stdout.decode()

    def load(
        self, image: str = IMAGE, *options: str, flags: Sequence[str] = (), env: str = "", tree: Path | None = None
    ) -> None:
        """Import llama.cpp as an image: each time another one.

        ``options`` are the import's, ``flags`` stand in its entry point behind the program, ``env`` is a variable of
        it, ``tree`` is what it has in place of llama.cpp.
        """
        archive = self.folder / "image.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(self.tree if tree is None else tree, arcname=".")
        changes = [f"ENTRYPOINT {json.dumps([*self.entry, *flags])}", *([f"ENV {env}"] if env else [])]
        self("import", *options, *(part for change in changes for part in ("--change", change)), str(archive), image)
        archive.unlink()

    def containers(self) -> list[str]:
        """Return the names of all containers there are, running or not."""
        return self("ps", "--all", "--format", "{{.Names}}").split()

    def digest(self, image: str = IMAGE) -> str:
        """Return what :mod:`pytest_llmparity` should take for the digest of an image that was imported here."""
        (about,) = json.loads(self("image", "inspect", image))
        return str(about.get("Digest") or about["Id"])

    def table(self, name: str, model: Path, *, image: str = IMAGE, **keys: object) -> str:
        """Return the table of an engine of kind ``llamacpp`` that runs here, for ``llmparity.toml``."""
        run_args = [*RUN, *keys.pop("more", ())]  # type: ignore[misc]
        values = {
            **{"kind": "llamacpp", "model": str(model), "image": image, "runtime": self.name},
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

    def spec(self, models: Path, *more: str, **keys: Any) -> EngineSpec:
        """Return an engine that runs here, with ``more`` arguments of ``run``."""
        model = models / "tiny-F16.gguf"
        spec = EngineSpec(
            **{
                **{"name": "boxed", "kind": "llamacpp", "launch": "container", "model": model.name},
                **{"model_path": model, "image": IMAGE, "volumes": self.volumes, "context_length": 128, "slots": 1},
                **{"runtime": self.name, "runtime_args": self.args, "run_args": (*RUN, *more)},
                **keys,
            }
        )
        return dataclasses.replace(spec, args=("--threads", "1", *spec.args))

    def clear(self) -> None:
        """Remove every container and the store."""
        subprocess.run([*self.argv, "rm", "--all", "--force"], capture_output=True, timeout=LIMIT_S, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


class Podman(RealRuntime):
    """podman as root."""

    name = "podman"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ("--root", str(folder / "root"), "--runroot", str(folder / "run"), *STORE))


class Docker(RealRuntime):
    """A daemon of our own, as root. It ends with this process."""

    name = "docker"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ("--host", f"unix://{folder}/docker.sock"))
        self.log = folder / "daemon.log"
        argv = [
            *(
                *DIES_WITH_US,
                "dockerd",
                *DAEMON,
                "--data-root",
                str(folder / "data"),
                "--exec-root",
                str(folder / "exec"),
            ),
            *("--pidfile", str(folder / "pid"), "--host", f"unix://{folder}/docker.sock"),
        ]
        with self.log.open("wb") as log:
            self.daemon = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        began = time.monotonic()
        while subprocess.run([*self.argv, "version"], capture_output=True, check=False).returncode:
            if self.daemon.poll() is not None or time.monotonic() - began > UP_S:
                words = self.log.read_text("utf-8", "replace").strip().splitlines()[-1:]
                self.clear()
                unavailable("docker", f"dockerd does not answer: {' '.join(words)}")
            time.sleep(0.1)

    def clear(self) -> None:
        """Remove every container, end the daemon and remove its store."""
        with contextlib.suppress(OSError, AssertionError):
            for name in self.containers():
                self("rm", "--force", name)
        self.daemon.terminate()
        try:
            self.daemon.wait(UP_S)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
        # The daemon leaves the network of the machine mounted there, which keeps the folder.
        subprocess.run(["umount", str(self.folder / "exec/netns/default")], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


class Registry:
    """Docker's registry on a port of loopback, where both runtimes speak plain HTTP to it.

    Docker does so to any registry on loopback; podman is told by ``configuration``, the file that the variable
    ``CONTAINERS_REGISTRIES_CONF`` names.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder, self.address = folder, f"127.0.0.1:{free_port()}"
        self.configuration = folder / "registries.conf"
        self.configuration.write_text(f'[[registry]]\nlocation = "{self.address}"\ninsecure = true\n')
        (folder / "registry.yml").write_text(
            json.dumps(
                {
                    "version": "0.1",
                    "log": {"level": "warn"},
                    "storage": {"filesystem": {"rootdirectory": str(folder / "images")}},
                    "http": {"addr": self.address},
                }
            )
        )
        with (folder / "log").open("wb") as log:
            argv = [*DIES_WITH_US, "docker-registry", "serve", str(folder / "registry.yml")]
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        wait_for_port(self.address, self._process)

    def push(self, runtime: RealRuntime, repository: str, *, image: str = IMAGE) -> str:
        """Push an image under another name, which is returned; only :data:`IMAGE` stays in the runtime's own store."""
        name = f"{self.address}/{repository}"
        runtime("tag", image, name)
        runtime("push", name)
        runtime("rmi", name, *([] if image == IMAGE else [image]))
        return name

    def digest(self, name: str) -> str:
        """Return the digest that the registry itself has of an image that was pushed."""
        repository, tag = name.removeprefix(f"{self.address}/").split(":")
        return self._ask("GET", f"/v2/{repository}/manifests/{tag}")[1]["Docker-Content-Digest"]

    def for_arm64(self, name: str, tag: str) -> str:
        """Put an image that was pushed under another tag as one for other processors; return its name."""
        repository, old = name.removeprefix(f"{self.address}/").split(":")
        text, about = self._ask("GET", f"/v2/{repository}/manifests/{old}")
        manifest = json.loads(text)
        config = json.loads(self._ask("GET", f"/v2/{repository}/blobs/{manifest['config']['digest']}")[0])
        blob = json.dumps({**config, "architecture": "arm64"}).encode()
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        place = self._ask("POST", f"/v2/{repository}/blobs/uploads/")[1]["Location"]
        self._ask("PUT", f"{place}&digest={digest}", blob, "application/octet-stream")
        manifest["config"] |= {"digest": digest, "size": len(blob)}
        self._ask("PUT", f"/v2/{repository}/manifests/{tag}", json.dumps(manifest).encode(), about["Content-Type"])
        return f"{self.address}/{repository}:{tag}"

    def _ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = ""
    ) -> tuple[bytes, Mapping[str, str]]:
        url = path if path.startswith("http") else f"http://{self.address}{path}"
        headers = {"Accept": MANIFEST, **({"Content-Type": kind} if kind else {})}
        asked = urllib.request.Request(url, data=body, headers=headers, method=method)
        with urllib.request.urlopen(asked, timeout=UP_S) as answer:
            return answer.read(), dict(answer.headers)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(UP_S)


def wait_for_port(address: str, process: subprocess.Popen[bytes]) -> None:
    host, _, port = address.partition(":")
    began = time.monotonic()
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1.0).close()
            return
        except OSError:
            assert process.poll() is None
            assert time.monotonic() - began < UP_S
            time.sleep(0.05)


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
def why_not(runtime: str) -> str:
    """Say why a runtime starts no containers here; empty where it may."""
    programs = {"podman": ("podman", "runc"), "docker": ("docker", "dockerd", "containerd", "runc", "setpriv")}[runtime]
    path = f"{os.environ['PATH']}:/usr/sbin"
    if missing := [program for program in programs if shutil.which(program, path=path) is None]:
        return f"there is no {' and no '.join(missing)}"
    return "" if os.geteuid() == 0 else f"{runtime}'s tests need root: they run without a user's namespaces"


def opened(runtime: str) -> RealRuntime:
    """Return a runtime without any image; skips or fails where there is none. It has a short path, for its sockets."""
    if reason := why_not(runtime):
        unavailable(runtime, reason)
    folder = Path(tempfile.mkdtemp(prefix=f"lp-{runtime}-", dir="/tmp"))
    return Docker(folder) if runtime == "docker" else Podman(folder)


ON_ONE: Final = pytest.mark.parametrize(
    "real_runtime", ["docker" if why_not("podman") and not why_not("docker") else "podman"], indirect=True
)
"""For what a test holds that is the same code whichever runtime it is: on podman, on Docker where that alone is."""


@pytest.fixture(scope="session", params=["podman", pytest.param("docker", marks=pytest.mark.slow)])
def real_runtime(request: pytest.FixtureRequest) -> Iterator[RealRuntime]:
    """A runtime that has :data:`IMAGE`; Docker's turn is slow: once more what is not :data:`ON_ONE`."""
    runtime = opened(request.param)
    try:
        runtime.load()
        yield runtime
    finally:
        runtime.clear()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry on loopback, which both runtimes use without TLS."""
    if shutil.which("docker-registry") is None:
        unavailable("registry", "there is no docker-registry")
    registry = Registry(tmp_path_factory.mktemp("registry") / "served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_REGISTRIES_CONF", str(registry.configuration))
        yield registry
    registry.close()
