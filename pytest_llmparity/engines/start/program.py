"""Command lines of engines: the program that is started, what is beside it, and what its arguments say."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from pytest_llmparity.core.identity.quantization import PLAIN, says_less
from pytest_llmparity.core.sample import Fact
from pytest_llmparity.engines.facts import files, values
from pytest_llmparity.engines.start import inside
from pytest_llmparity.settings.specification import EngineSpec

_LIBRARY: Final = re.compile(r"\.(so(\.\d+)*|dylib|dll)$")
_DTYPES: Final = {"auto": "", "half": "float16", "float": "float32"}
"""What vLLM and SGLang take ``--dtype`` by, where it is no type's name."""


def program(
    spec: EngineSpec,
    environ: Mapping[str, str],
    *,
    command: str,
    module: str | None = None,
    install: str,
    in_image: Sequence[str] = (),
) -> list[str]:
    """Return how the engine's program begins its command line.

    ``spec.command``, else ``spec.python -m module`` (or ``command`` beside that interpreter, where ``module`` is
    ``None``), else ``command`` from PATH. ``LaunchError`` names what is missing and ends in ``install``. In a container
    it is ``spec.command``, else ``in_image``, else ``command``, as the image has them.
    """
    if spec.launch == "container":
        return inside.entry(spec, *(in_image or (command,)))
    wanted = spec.command[0] if spec.command else spec.python or command
    path = shutil.which(wanted, path=environ.get("PATH"))
    if path is None:
        raise spec.launch_error(f"{wanted!r} is not on PATH. {install}")
    if spec.command:
        return [path, *spec.command[1:]]
    if spec.python is None:
        return [path]
    if module is not None:
        return [path, "-m", module]
    beside = Path(path).with_name(command)
    if not beside.is_file():
        raise spec.launch_error(f"there is no {command!r} beside {path!r}. {install}")
    return [str(beside)]


def files_of(spec: EngineSpec, root: Path) -> list[Path]:
    """Return the files and folders that an engine acts by, as far as its specification names them.

    Its model, its program with the libraries beside it, and what ``command``, ``args`` and ``env`` name, a template or
    an adapter say; relative to the folder we are in or to ``root``.
    """
    acts_by = [] if spec.model_path is None else [spec.model_path]
    if spec.launch == "container":
        mounted = (Path(volume.partition(":")[0]) for volume in spec.volumes)
        return acts_by + [place for place in mounted if place.is_absolute() and _is_input(place, root)]
    if spec.launch != "process":
        return acts_by
    wanted = spec.command[0] if spec.command else spec.python or ""
    if path := shutil.which(wanted) if wanted else None:
        acts_by.append(Path(path))
        if Path(wanted).name != wanted:  # built somewhere, not what the system has
            acts_by += [file for file in Path(path).resolve().parent.iterdir() if _LIBRARY.search(file.name)]
    words = [*spec.command, *spec.args, *spec.env.values()]
    words += [word.partition("=")[2] for word in words]
    places = [folder / word for word in words if word for folder in (Path.cwd(), root)]
    return list(dict.fromkeys([*acts_by, *(place for place in places if _is_input(place, root))]))


def _is_input(place: Path, root: Path) -> bool:
    """Whether a path is a file, or a folder that is not one the whole project stands in."""
    try:
        return place.is_file() or (place.is_dir() and not root.resolve().is_relative_to(place.resolve()))
    except (OSError, ValueError):  # an argument that is no name of a file, such as a whole template
        return False


def flags(table: Mapping[str, object]) -> list[str]:
    """Return flags with their values as a command line has them, in order; without those whose value is ``None``.

    ``True`` stands for a flag without a value.

    >>> flags({"--port": 8000, "--offline": True, "--revision": None})
    ['--port', '8000', '--offline']
    """
    given = ((name,) if value is True else (name, str(value)) for name, value in table.items() if value is not None)
    return [part for flag in given for part in flag]


def option(args: tuple[str, ...], *names: str) -> str | None:
    """Return the value of a flag in a list of arguments (``--name value`` or ``--name=value``); the last one wins."""
    given = None
    for place, arg in enumerate(args):
        for name in names:
            if arg == name and place + 1 < len(args):
                given = args[place + 1]
            elif arg.startswith(f"{name}="):
                given = arg.partition("=")[2]
    return given


def dtype(name: object) -> str:
    """Return the type that a ``--dtype`` means; empty for ``auto`` and for what is no text."""
    return _DTYPES.get(name, name) if isinstance(name, str) else ""


def quantization(
    checkpoint: Fact | None, args: tuple[str, ...], *names: str, converted: Collection[str]
) -> dict[str, Fact]:
    """Return what the weights are served as: what a flag or ``--dtype`` asks for, else the checkpoint's own.

    ``--dtype`` is not the type of weights that are quantised. A flag that only names the method of a checkpoint whose
    bits are known says less than that. ``converted`` are the types a checkpoint is not served in unless somebody asks:
    the engine chooses by the device, so nothing is known.
    """
    plain = checkpoint is None or checkpoint.value in PLAIN
    asked = option(args, *names) or (dtype(option(args, "--dtype")) if plain else "")
    if asked and not (checkpoint is not None and says_less(asked, str(checkpoint.value))):
        return values.quantization(asked, source="declared")
    return {} if checkpoint is None or checkpoint.value in converted else {"quantization": checkpoint}


def of_folder(folder: Path | None, args: tuple[str, ...], *flags: str, converted: Collection[str]) -> dict[str, Fact]:
    """Return what a model folder says, its weights as they are served (:func:`quantization`); nothing without one."""
    if folder is None or not folder.is_dir():
        return {}
    known = files.hf_facts(folder)
    checkpoint = known.pop("quantization", None)
    return known | quantization(checkpoint, args, *flags, converted=converted)


def installed(program: str, distribution: str) -> dict[str, Fact]:
    """Return the version of a package beside a program of its virtual environment (``version``, by file), else nothing.

    Nothing is run for it, so a system's interpreter, whose packages may be anywhere, tells nothing.
    """
    folders = [str(folder) for folder in Path(program).parent.parent.glob("lib/python3*/site-packages")]
    for package in importlib.metadata.distributions(name=distribution, path=folders):
        return values.facts({"version": package.version}, source="file", raw=f"{distribution} {package.version}")
    return {}


def sees_gpu(spec: EngineSpec, environ: Mapping[str, str]) -> bool:
    """Tell whether the engine will see a GPU: in a container one that it was given."""
    return inside.sees_gpu(spec) if spec.launch == "container" else gpu_visible(environ)


def gpu_visible(environ: Mapping[str, str]) -> bool:
    """Tell whether a process started now would see an NVIDIA or AMD GPU, from the devices and variables alone."""
    if environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return False
    return any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))
