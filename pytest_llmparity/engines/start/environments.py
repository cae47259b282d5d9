"""Environments of engines: packages installed apart by uv, once, and kept for every run that asks for the same.

An engine with ``requires`` runs from here, so its dependencies never meet those of the project under test, and its
version is what was asked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import sys
import sysconfig
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import filelock

from pytest_llmparity.core.errors import LaunchError
from pytest_llmparity.core.sample import Fact, Identity
from pytest_llmparity.core.words.hiding import TextMask
from pytest_llmparity.extras import plain_command
from pytest_llmparity.keeper.client import Keeper, log_tail
from pytest_llmparity.settings.specification import EngineSpec

FOLDER_VARIABLE: Final = "LLMPARITY_ENVIRONMENTS"
"""Names the folder that environments are kept in, instead of the user's cache folder."""

LOCK_POLL_S: Final = 0.5
"""How often whoever waits for an environment that another run makes looks whether it was interrupted."""

GRACE_S: Final = 5.0
"""What an installer that is interrupted gets to end by itself."""
STOP_POLL_S: Final = 0.5
"""How often it is looked whether the run was interrupted."""

_MADE: Final = "made.json"
_OURS: Final = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "__PYVENV_LAUNCHER__")
"""Variables by which the environment of the tests would reach into another one."""
_CHOOSING: Final = (
    *("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX_STRATEGY"),
    *("UV_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE", "UV_EXCLUDE_NEWER", "UV_PRERELEASE", "UV_RESOLUTION"),
    *("UV_FORK_STRATEGY", "UV_TORCH_BACKEND", "UV_NO_BINARY", "UV_NO_BUILD", "UV_CONFIG_FILE"),
)
"""uv's own variables that change which packages it takes: they are part of what makes two environments the same."""


class Runner(Protocol):
    """Runs a program for us: :class:`KeptRunner` does, and it ends with pytest."""

    def __call__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> tuple[int | None, str]:
        """Run to the end with all output in ``log``; return exit code (``None``: not started) and the last lines."""


@dataclass(repr=False)  # it holds keys
class KeptRunner:
    """Runs one program at a time under the keeper, for one engine. Satisfies :class:`Runner`.

    The programs end with pytest, however it ends.

    The values of ``secrets`` are hidden in its log. When ``stop`` returns a reason the program is ended and
    ``LaunchError`` says why.
    """

    engine: str
    keeper: Callable[[], Keeper]
    stop: Callable[[], str | None]
    secrets: Mapping[str, str] = field(default_factory=dict)

    def __call__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        watch: Callable[[], None] = lambda: None,
    ) -> tuple[int | None, str]:
        """Run to the end with all output in ``log``; return exit code (``None``: not started) and the last lines.

        ``watch`` is called now and then while it runs.
        """
        keeper, name = self.keeper(), f"{self.engine} installer"
        keeper.stop(name)  # a name is started anew only after it was stopped
        state = keeper.start(
            name,
            argv=argv,
            env=env,
            cwd=cwd,
            log=log,
            stop_signal=signal.SIGTERM,
            grace_s=GRACE_S,
            secrets=self.secrets,
        )
        while state.state == "starting":
            why = self.stop()
            if why is not None:
                keeper.stop(name)
                raise LaunchError(f"{self.engine} was not started: {why}", engine=self.engine)
            watch()
            state = keeper.wait(name, timeout_s=STOP_POLL_S)
        keeper.stop(name)
        return state.returncode, log_tail(log, mask=TextMask(self.secrets)) or (state.reason or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A whole environment. ``packages`` has every distribution in it by normalised name, with its version.

    ``took_s`` is how long it took to make, ``None`` when it was there already.
    """

    folder: Path
    packages: Mapping[str, str] = field(default_factory=dict)
    took_s: float | None = None

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self._scripts / ("python.exe" if os.name == "nt" else "python"))

    @property
    def _scripts(self) -> Path:
        return _place(self.folder, "scripts")

    def environ(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return variables for a process in it: its programs come first, nothing of the tests' environment is left."""
        kept = {name: value for name, value in inherited.items() if name not in _OURS}
        path = os.pathsep.join(part for part in (str(self._scripts), inherited.get("PATH", "")) if part)
        return kept | {"PATH": path, "VIRTUAL_ENV": str(self.folder)}

    def versions(self, distributions: Sequence[str]) -> dict[str, str]:
        """Return those of the named distributions that are in it, with their versions."""
        from packaging.utils import canonicalize_name  # here and below where it is used: few engines require anything

        names = [canonicalize_name(name) for name in distributions]
        return {name: self.packages[name] for name in names if name in self.packages}


def provide(
    spec: EngineSpec,
    *,
    environ: Mapping[str, str],
    run: Runner,
    say: Callable[[str], None] = lambda text: None,
    stop: Callable[[], str | None] = lambda: None,
) -> Environment:
    """Return the environment that ``spec.requires`` asks for, installed by uv if nobody has done so before.

    The interpreter is this one. Two who ask at once, in one process or in several, make it once. ``say`` is told when
    there is something to wait for; waiting for another run ends when ``stop`` returns a reason. Raises ``LaunchError``
    with uv's last words when it cannot be made, and when there is no uv.
    """
    try:
        folder = home(environ) / _key(spec, environ)
        made = _whole(folder)
        if made is not None:
            return made
        with _alone(folder, spec, say, stop):
            return _whole(folder) or _make(folder, spec, environ=environ, run=run, say=say)
    except OSError as error:
        raise spec.launch_error(
            f"no environment for its requires: {error}. Environments are kept in {home(environ)}; "
            f"{FOLDER_VARIABLE} names another folder."
        ) from error


def home(environ: Mapping[str, str]) -> Path:
    """Return the folder that environments are kept in: ``LLMPARITY_ENVIRONMENTS``, else below the user's cache."""
    named = environ.get(FOLDER_VARIABLE, "").strip()
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("pytest-llmparity") / "environments"


def with_version(identity: Identity, installed: Mapping[str, str]) -> Identity:
    """Return an identity that has the installed version where the server does not report one."""
    known = identity.facts.get("version")
    if not installed or (known is not None and known.source == "reported"):
        return identity
    name, version = next(iter(installed.items()))
    fact = Fact(value=version, source="file", raw=f"{name} {version}")
    return dataclasses.replace(identity, facts={**identity.facts, "version": fact})


def contradiction(spec: EngineSpec, installed: Mapping[str, str], identity: Identity) -> str | None:
    """Say that the server reports another version than was installed for it, ``None`` when it does not.

    Local version labels (``+cpu``) may differ; what is no version as Python packages have them cannot be compared.
    """
    seen = identity.facts.get("version")
    if not installed or seen is None or seen.source != "reported":
        return None
    from packaging.version import InvalidVersion, Version

    name, version = next(iter(installed.items()))
    try:
        same = Version(str(seen.value)).public == Version(version).public
    except InvalidVersion:
        return None
    if same:
        return None
    return f"requires = {_shown(spec)} installed {name} {version} but the server reports version {seen.value}"


def _key(spec: EngineSpec, environ: Mapping[str, str]) -> str:
    """Return the name of the folder of an environment: equal for all that would be installed the same."""
    files = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in _files(spec).items()}
    content = {
        "requires": sorted(spec.requires),
        "indexes": list(spec.extra_index_urls),  # uv takes a package from the first that has it
        "files": files,
        "uv": {name: environ[name] for name in _CHOOSING if environ.get(name)},
        "python": [sys.implementation.name, sys.version, sysconfig.get_platform()],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{'-'.join(_names(spec))[:40]}-{digest[:16]}"


def _names(spec: EngineSpec) -> list[str]:
    """Return what is asked for by name, for people who look into the folder; uv says which requirement is none."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    names: set[str] = set()
    for text in spec.requires:
        with contextlib.suppress(InvalidRequirement):
            names.add(canonicalize_name(Requirement(text).name))
    return sorted(names) or ["environment"]


def _files(spec: EngineSpec) -> dict[str, Path]:
    named = {"constraint": spec.constraints, "override": spec.overrides}
    return {name: path for name, path in named.items() if path is not None}


def _whole(folder: Path) -> Environment | None:
    """Return the environment of this folder if one was made to its end and its interpreter is still there."""
    try:
        made = json.loads((folder / _MADE).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    environment = Environment(folder=folder / made["folder"], packages=made["packages"])
    return environment if os.access(environment.python, os.X_OK) else None


@contextlib.contextmanager
def _alone(
    folder: Path, spec: EngineSpec, say: Callable[[str], None], stop: Callable[[], str | None]
) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / "lock")
    waiting = False
    while True:
        try:
            lock.acquire(timeout=LOCK_POLL_S)
            break
        except filelock.Timeout:
            why = stop()
            if why is not None:
                raise LaunchError(f"{spec.name} was not started: {why}", engine=spec.name) from None
            if not waiting:
                say(f"{spec.name}: waiting for another run that installs {_shown(spec)}")
            waiting = True
    try:
        yield
    finally:
        lock.release()


def _make(
    folder: Path, spec: EngineSpec, *, environ: Mapping[str, str], run: Runner, say: Callable[[str], None]
) -> Environment:
    """Install into a folder of its own; the file that names it comes last, so what is half made is never found."""
    uv = [*_uv(spec, environ), "--color", "never", "--no-progress"]
    say(f"{spec.name}: installing {_shown(spec)} into an environment of its own; this can take minutes")
    began = time.monotonic()
    for left in folder.glob("env-*"):
        shutil.rmtree(left, ignore_errors=True)
    made = Environment(folder=folder / f"env-{uuid.uuid4().hex[:8]}")
    variables = {name: value for name, value in environ.items() if name not in _OURS}
    options = [part for url in spec.extra_index_urls for part in ("--index", url)]
    options += [part for name, path in _files(spec).items() for part in (f"--{name}", str(path))]
    commands = {
        "venv": [*uv, "venv", "--no-project", "--python", sys.executable, str(made.folder)],
        "install": [*uv, "pip", "install", "--python", made.python, *options, "--", *spec.requires],
    }
    for step, argv in commands.items():
        log = folder / f"{step}.log"
        # Outside the project: uv would read the project's own settings from its pyproject.toml.
        code, tail = run(argv, env=variables, cwd=folder, log=log)
        if code != 0:
            shutil.rmtree(made.folder, ignore_errors=True)
            how = "could not be started" if code is None else f"ended with exit code {code}"
            raise spec.launch_error(
                f"requires = {_shown(spec)} could not be installed: uv {how}. Its log {log} ends:\n{tail}"
            )
    from packaging.utils import canonicalize_name

    packages = {
        str(canonicalize_name(package.name)): package.version
        for package in importlib.metadata.distributions(path=[str(_place(made.folder, "purelib"))])
    }
    record = folder / f"{_MADE}.new"
    record.write_text(json.dumps({"folder": made.folder.name, "packages": packages}, indent=1), "utf-8")
    record.replace(folder / _MADE)
    return dataclasses.replace(made, packages=packages, took_s=time.monotonic() - began)


def _uv(spec: EngineSpec, environ: Mapping[str, str]) -> list[str]:
    uv = shutil.which("uv", path=environ.get("PATH"))
    if uv is not None:
        return [uv]
    if importlib.util.find_spec("uv") is not None:
        return [sys.executable, "-m", "uv"]
    raise spec.launch_error(
        f"requires is installed by uv, which is neither on PATH nor in {sys.executable}. Install it with: "
        f"{plain_command('environments')}  (or: pip install uv)"
    )


def _place(folder: Path, name: str) -> Path:
    return Path(sysconfig.get_path(name, "venv", {"base": str(folder), "platbase": str(folder)}))


def _shown(spec: EngineSpec) -> str:
    return " ".join(map(repr, spec.requires))
