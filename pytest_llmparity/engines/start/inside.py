"""Where things are in a container, for kinds that say how their server is started there.

Of an engine that is a process everything is where it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pytest_llmparity.settings.specification import EngineSpec

FOLDER: Final = "/llmparity"
"""Where in a container the files are that we mount: nothing of an image lies there."""
HUB: Final = f"{FOLDER}/hub"
"""Where in a container the cache of Hugging Face models is."""
OWN_ENTRY: Final = ""
"""In the place of a program: what the image starts by itself."""


def place(spec: EngineSpec, path: Path, environ: Mapping[str, str]) -> str:
    """Return a file of this machine as the engine sees it: mounted under its own name, or where it is in the hub."""
    if spec.launch != "container":
        return str(path)
    cache = hub_cache(environ)
    if path.is_relative_to(cache):
        return f"{HUB}/{path.relative_to(cache).as_posix()}"
    above = above_links(path)
    return f"{FOLDER}/{above.name}/{path.relative_to(above).as_posix()}" if above != path else f"{FOLDER}/{path.name}"


def host(spec: EngineSpec) -> str:
    """Return the address the engine listens on: loopback on the machine's own network, else all of the container's.

    Nothing but its one port is published. On the runtime's default network other containers of this machine can
    reach it nevertheless (Docker's bridge, podman's as root).
    """
    return "0.0.0.0" if spec.launch == "container" and not on_host_network(spec) else "127.0.0.1"  # noqa: S104


def on_host_network(spec: EngineSpec) -> bool:
    """Tell whether a container has the machine's own network, where nothing is published.

    >>> import dataclasses
    >>> spec = EngineSpec(name="a", launch="container", image="i", run_args=("--net=host",))
    >>> on_host_network(spec), on_host_network(dataclasses.replace(spec, run_args=("--network", "bridge")))
    (True, False)
    """
    asked = ""
    for index, word in enumerate(spec.run_args):
        name, equals, value = word.partition("=")
        if name in ("--network", "--net"):
            asked = value if equals else next(iter(spec.run_args[index + 1 :]), "")
    return asked == "host"


def entry(spec: EngineSpec, *own: str) -> list[str]:
    """Return the program in the image: ``command``, else the kind's ``own``, whose first may be :data:`OWN_ENTRY`."""
    return list(spec.command or own)


def sees_gpu(spec: EngineSpec) -> bool:
    """Tell whether a container was given a GPU, by ``gpus`` or in the runtime's own words."""
    words = " ".join(spec.run_args)
    return spec.gpus is not None or any(word in words for word in ("--gpus", "nvidia", "/dev/kfd", "/dev/dri"))


def visible(spec: EngineSpec) -> str | None:
    """Return which of this machine's NVIDIA GPUs a container sees, as ``CUDA_VISIBLE_DEVICES`` says it; ``None``: all.

    >>> [visible(EngineSpec(name="a", launch="container", gpus=gpus)) for gpus in (None, 2, "0,3", "all")]
    ['', '0,1', '0,3', None]
    """
    if isinstance(spec.gpus, int):
        return ",".join(map(str, range(spec.gpus)))
    if spec.gpus is None:
        return None if sees_gpu(spec) else ""
    return None if spec.gpus == "all" else spec.gpus


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Return the folder that models are cached in (huggingface_hub, constants.py)."""
    home = environ.get("HF_HOME") or str(Path(environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "huggingface")
    return Path(environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def above_links(path: Path) -> Path:
    """Return what has to be mounted for a file or folder: itself, or the folder that holds all its links lead to.

    A snapshot in a hub cache holds links to files beside it. Split GGUF files stand beside each other.
    """
    if path.is_file():
        split = "-of-" in path.name and path.suffix == ".gguf"
        return path.parent if split else path
    ends = [file.resolve() for file in path.iterdir() if file.is_symlink()] if path.is_dir() else []
    outside = [end for end in ends if not end.is_relative_to(path.resolve())]
    return Path(os.path.commonpath([path, *outside])) if outside else path
