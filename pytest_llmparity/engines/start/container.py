"""Engines in containers: where things are inside, and the command line of Docker or podman that starts one.

A kind says how its server is started as for a process, with what :mod:`.inside` says of files, address and program;
:func:`contained` puts the runtime's ``run`` before that.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_llmparity.engines.start.inside import (
    FOLDER,
    HUB,
    OWN_ENTRY,
    above_links,
    hub_cache,
    on_host_network,
    visible,
)
from pytest_llmparity.engines.start.runtimes import Image, Runtime
from pytest_llmparity.keeper.client import Removal
from pytest_llmparity.settings.specification import EngineSpec

if TYPE_CHECKING:
    from pytest_llmparity.engines.start.launch import Launch

LABEL: Final = "pytest-llmparity"
"""Begins the labels of a container: ``.run`` has the keeper's, ``.engine`` the engine's name, ``.name`` its own."""
_STEERS: Final = ("PATH", "HOME", "TMPDIR", "LD_*", "XDG_*", "DOCKER_*", "CONTAINER*", "REGISTRY_*", "BUILDAH_*")
"""Variables that the runtime's own client goes by, so that an engine's value has no place in its environment."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """What one container is started with, beside what its engine asks for.

    ``name`` is its own, ``run`` the label of all of one run. ``cache`` is whether the engine reads models by their hub
    name. ``secrets`` are names of variables whose values its client is given. ``shm_size`` is what its kind needs.
    """

    runtime: Runtime
    image: Image
    name: str
    run: str
    port: int
    cache: bool
    secrets: Sequence[str]
    shm_size: str = ""


def contained(launch: Launch, spec: EngineSpec, box: Box, environ: Mapping[str, str]) -> Launch:
    """Return the launch of the runtime's client for a launch whose command line is meant inside of the container.

    It stays in the foreground, so that what the engine prints goes to its log and signals reach it. Variables are
    handed over by name: their values are in the client's environment, never on its command line. ``LaunchError`` where
    something cannot be mounted.
    """
    env = dict(launch.env)
    caches, cache = dict(launch.caches), hub_cache(environ)
    mounts = [_mounted(spec, path) for path in launch.reads if not path.is_relative_to(cache)]
    if box.cache or any(path.is_relative_to(cache) for path in launch.reads):
        caches[HUB] = cache
        env = {"HF_HUB_CACHE": HUB, "HUGGINGFACE_HUB_CACHE": HUB} | env
    for target, folder in caches.items():
        if spec.download:
            folder.mkdir(parents=True, exist_ok=True)
        elif not folder.is_dir():
            raise spec.launch_error(f"there is no {folder}, where its models are; set download = true, or name a file.")
        mounts.append(_mount(folder, target, writable=spec.download))
    steering = [name for name in env if any(fnmatch(name, pattern) for pattern in _STEERS)]
    if led := [name for name in box.secrets if any(fnmatch(name, pattern) for pattern in _STEERS)]:
        raise spec.launch_error(
            f"env.{led[0]} is read from a variable, and {box.runtime.name} itself goes by {led[0]}; write its value."
        )
    by_name = [name for name in dict.fromkeys([*env, *box.secrets]) if name not in steering]
    program, *words = launch.argv
    options = [
        *("--name", box.name, "--log-driver", "none"),
        *(f"--label={LABEL}.{key}={value}" for key, value in _labels(spec, box).items()),
        *(() if on_host_network(spec) else ("--publish", f"127.0.0.1:{box.port}:{box.port}")),
        *(part for name in by_name for part in ("--env", name)),
        *(part for name in steering for part in ("--env", f"{name}={env[name]}")),
        *(part for mount in dict.fromkeys(mounts) for part in ("--mount", mount)),
        *(part for volume in spec.volumes for part in ("--volume", volume)),
        *_gpus(spec, box.runtime),
        *_shared_memory(spec, box),
        *(("--workdir", FOLDER) if launch.beside_model else ()),
        *spec.run_args,
        *(("--entrypoint", program) if program != OWN_ENTRY else ()),
    ]
    return dataclasses.replace(
        launch,
        argv=(*box.runtime.argv, "run", *options, box.image.id, *words),
        env={name: value for name, value in env.items() if name in by_name},
        scrub=(),
        removal=removal_of(box),
    )


def removal_of(box: Box) -> Removal:
    """Return how a container is asked for its end and removed."""
    argv = box.runtime.argv
    return Removal(
        state=(*argv, "inspect", "--format", '{"state":{{json .State}},"memory":{{.HostConfig.Memory}}}', box.name),
        commands=((*argv, "kill", box.name), (*argv, "rm", "--force", "--volumes", box.name)),
        left=(*argv, "ps", "--all", "--quiet", "--filter", f"label={LABEL}.name={box.name}"),
    )


def _shared_memory(spec: EngineSpec, box: Box) -> list[str]:
    """Return the size of ``/dev/shm``; a container that shares another one has none of its own."""
    given = any(word.partition("=")[0] in ("--ipc", "--shm-size") for word in spec.run_args)
    size = spec.shm_size or ("" if given else box.shm_size)
    return ["--shm-size", size] if size else []


def _labels(spec: EngineSpec, box: Box) -> dict[str, str]:
    return {"run": box.run, "engine": spec.name, "name": box.name}


def _mounted(spec: EngineSpec, path: Path) -> str:
    """Return the mount of a file or folder that an engine reads, read-only: of split files, all of them."""
    above = above_links(path)
    if above.parent == above or above == Path.home():
        raise spec.launch_error(
            f"{str(path)!r} holds links that lead out of it, and only {str(above)!r} holds all they lead to, which is "
            "not handed to a container. Give a folder without such links, or mount it by volumes and name it in args."
        )
    return _mount(above, f"{FOLDER}/{above.name}", writable=False)


def _mount(source: Path, target: str, *, writable: bool) -> str:
    fields = ["type=bind", f"source={source}", f"target={target}", *(() if writable else ("readonly",))]
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(fields)
    return text.getvalue()


def _gpus(spec: EngineSpec, runtime: Runtime) -> list[str]:
    """Return the options that hand over GPUs.

    Docker's ``--gpus`` takes ``all``, a count, or ``"device=0,1"`` with its quotes, as a comma parts its fields; podman
    names devices of the Container Device Interface, ``nvidia.com/gpu=0`` (podman-run(1), NVIDIA Container Toolkit
    documentation, "Support for Container Device Interface"). Never tried with a GPU.
    """
    if spec.gpus is None:
        return []
    if runtime.name == "docker":
        listed = isinstance(spec.gpus, str) and spec.gpus != "all"
        return ["--gpus", f'"device={spec.gpus}"' if listed else str(spec.gpus)]
    which = visible(spec)
    names = ["all"] if which is None else which.split(",")
    return [part for name in names for part in ("--device", f"nvidia.com/gpu={name}")]
