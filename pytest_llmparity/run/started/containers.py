"""Containers of one engine: runtime and image are found before anything starts, then one is run for each try."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import filelock

from pytest_llmparity.core.errors import LaunchError
from pytest_llmparity.core.ports import Layers
from pytest_llmparity.core.sample import Fact, Identity
from pytest_llmparity.engines.start import container, memory, pulling, runtimes
from pytest_llmparity.engines.start.environments import LOCK_POLL_S, KeptRunner
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.start.runtimes import Image
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.keeper.client import EngineState
from pytest_llmparity.settings.specification import EngineSpec

KILLED: Final = 137
"""Exit code of a container whose process was killed: 128 and the number of SIGKILL."""
_NO_GPU: Final = re.compile(
    r"could not select device driver|unresolvable CDI devices|nvidia-container-cli", re.IGNORECASE
)


class Containers:
    """Runs one engine in containers. Runtime and image are looked for when it is made: ``LaunchError`` says what lacks.

    ``environ`` is what the runtime's client inherits. An image that is not there is fetched by ``runner`` where
    ``download`` is set, with its output in ``log``; ``stop`` says why nobody waits any more, ``say`` is told that it is
    fetched, ``fetch`` how much has come, ``None`` at the end.
    """

    def __init__(
        self,
        spec: EngineSpec,
        environ: Mapping[str, str],
        *,
        log: Path,
        runner: KeptRunner,
        stop: Callable[[], str | None],
        say: Callable[[str], None],
        fetch: Callable[[Layers | None], None],
    ) -> None:
        self._spec = spec
        self._environ = environ
        self._log = log
        self._runner = runner
        self._stop = stop
        self._say = say
        self._fetch = fetch
        self._name = ""
        self.runtime = runtimes.runtime_of(spec, environ)
        self._image = runtimes.image_of(spec, self.runtime, environ)
        if self._image is None and not spec.download:
            raise self._missing()

    def launch(self, kind: type[Adapter], launch: Launch, *, port: int, run: str) -> Launch:
        """Return the launch of a container for what a kind says of its inside; ``run`` labels all of one run."""
        spec = self._spec
        self._name = f"llmparity-{spec.name}-{uuid.uuid4().hex[:12]}"
        box = container.Box(
            runtime=self.runtime,
            image=self.image,
            name=self._name,
            run=run,
            port=port,
            cache=kind.hub_models and spec.model_path is None,
            secrets=tuple(spec.env_from),
            shm_size=kind.shm_size,
        )
        return container.contained(launch, spec, box, self._environ)

    @property
    def image(self) -> Image:
        """The image that is run, fetched if it has to be."""
        if self._image is None:
            self._image = self._fetched()
        return self._image

    def identity(self, identity: Identity) -> Identity:
        """Return what a server says of itself with the digest of the image it runs from."""
        digest = Fact(value=self.image.digest, source="reported", raw=f"{self._spec.image}, {self.runtime}")
        return dataclasses.replace(identity, facts={**identity.facts, "image_digest": digest})

    def listening(self, port: int) -> str:
        """Say on which ports the last container listens where ``port`` is none of them; empty where nobody can tell."""
        argv = [*self.runtime.argv, "inspect", "--format", "{{.State.Pid}}", self._name]
        _, pid, _ = runtimes.run(argv, self._environ)
        ports = memory.listening(int(pid)) if pid.strip().isdecimal() else set()
        if not ports or port in ports:
            return ""
        listed = " and ".join(map(str, sorted(ports)))
        return (
            f"\nIts container listens on port {listed}, and was told to listen on {port}: give a command with which "
            "its image takes the port that it is told."
        )

    def _missing(self) -> LaunchError:
        return self._spec.launch_error(
            f"the image {self._spec.image} is not on this machine. Fetch it with: "
            f"{runtimes.pull_of(self._spec, self.runtime)} (or set download = true)"
        )

    def _fetched(self) -> Image:
        """Return the image once it is there; of several processes that need it one fetches it, the others wait."""
        self._log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._alone():
            image = runtimes.image_of(self._spec, self.runtime, self._environ)
            if image is not None:
                return image
            self._say(f"{self._spec.name}: fetching {self._spec.image} with {self.runtime}")
            self._fetch(Layers(0, 0, 0, 0))
            argv = pulling.command([*self.runtime.argv, "pull", str(self._spec.image)])
            try:
                code, tail = self._runner(argv, env=self._environ, cwd=Path("/"), log=self._log, watch=self._watch)
            finally:
                self._fetch(None)
            if code != 0:
                raise self._spec.launch_error(
                    f"{self._spec.image} could not be fetched by {self.runtime.name}:\n{pulling.client_words(tail)}"
                )
            image = runtimes.image_of(self._spec, self.runtime, self._environ)
            if image is None:
                raise self._missing()
            return image

    def _watch(self) -> None:
        layers = pulling.how_far(self._log)
        if layers is not None:
            self._fetch(layers)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock of this image while it is fetched; whoever waits for it ends when the run does."""
        lock = filelock.FileLock(self._log.with_suffix(".lock"))
        while True:
            try:
                lock.acquire(timeout=LOCK_POLL_S)
                break
            except filelock.Timeout:
                if why := self._stop():
                    raise self._spec.launch_error(f"was not started: {why}") from None
        try:
            yield
        finally:
            lock.release()


def ending(spec: EngineSpec, state: EngineState, tail: str) -> str:
    """Return what is known of the end of a container beside its exit code, as the end of a sentence; perhaps nothing.

    ``tail`` are the last lines of its log.
    """
    if spec.gpus is not None and _NO_GPU.search(tail):
        return (
            f": gpus = {spec.gpus!r} asks for a GPU, and the runtime has none to give. Look whether nvidia-smi shows "
            "one and the NVIDIA Container Toolkit is installed, or leave gpus out"
        )
    try:
        about = json.loads(state.container)
    except ValueError:
        return ""
    state_then, limit = about.get("state") or {}, about.get("memory") or 0
    room = f" (--memory {memory.shown(limit)})" if limit else ""
    if state_then.get("OOMKilled"):
        return f": its container ran out of memory{room}. Give it more by run_args, or a smaller context or fewer slots"
    # podman on cgroups v1 does not say OOMKilled, seen with 4.3.1: the kernel's log alone tells then.
    if limit and state.returncode == KILLED and state_then.get("ExitCode") == KILLED:
        return (
            f": its process was killed in a container with a limit of memory{room}, most likely because that was "
            "reached. Give it more by run_args, or a smaller context or fewer slots"
        )
    return ""
