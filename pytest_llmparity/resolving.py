"""Options become settings: finds, reads and applies the configuration when a run asks for engines."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

from pytest_llmparity.core.config import Config, Places, has_table, parse_config, parse_engines, select
from pytest_llmparity.core.config_file import ProfileTable
from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.core.problems import nearest
from pytest_llmparity.core.settings import EngineSpec, Mode, Resume, Settings
from pytest_llmparity.options import ENGINES_VARIABLE, FILE, OUT, SOURCES

T = TypeVar("T")


def resolve(config: pytest.Config, environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of this run: command line, else environment, else profile, else file, else default.

    Raises ``pytest.UsageError`` (exit 4) with a sentence for every misuse: an unreadable or wrong configuration, an
    engine nobody knows, a baseline that is not selected, options that contradict each other, required engines missing.
    """
    try:
        given = Given(config, environ)
        return settings(given, load(given))
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None


class Given:
    """What the person asked for on the command line or, failing that, in the environment."""

    def __init__(self, config: pytest.Config, environ: Mapping[str, str]) -> None:
        self._config = config
        self._environ = environ
        self.root = config.rootpath
        self.cwd = config.invocation_params.dir

    def find(self, option: str) -> tuple[Any, str]:
        """Return a value and what named it (``--parity-x`` or the variable); ``(None, "")`` when nobody did."""
        value = self._config.getoption(f"parity_{option}")
        if value is not None:
            return value, "--parity-" + option.replace("_", "-")
        source = SOURCES[option]
        text = self._environ.get(source.variable, "").strip()
        if not text:
            return None, ""
        try:
            return source.read(text), source.variable
        except argparse.ArgumentTypeError as error:
            raise pytest.UsageError(f"{source.variable}: {error}") from None

    def value(self, option: str) -> Any:
        """Return a value, ``None`` when nobody named one."""
        return self.find(option)[0]

    @property
    def engines(self) -> tuple[list[str], str]:
        """The texts of ``--engines`` and what named them."""
        texts = self._config.getoption("engines")
        if texts:
            return texts, "--engines"
        text = self._environ.get(ENGINES_VARIABLE, "").strip()
        return ([text], ENGINES_VARIABLE) if text else ([], "")

    @property
    def mode(self) -> tuple[Mode, str | None]:
        """Live or replay, and the run to judge again (``None``: the newest)."""
        return self.value("mode") or ("live", None)

    @property
    def cases(self) -> list[str]:
        """Ids the run is restricted to."""
        return self._config.getoption("parity_case") or []

    @property
    def resume(self) -> Resume:
        """What becomes of an unfinished run."""
        resume, fresh = self._config.getoption("parity_resume"), self._config.getoption("parity_fresh")
        if resume and fresh:
            raise pytest.UsageError("--parity-resume and --parity-fresh contradict each other; give one of them")
        return "resume" if resume else "fresh" if fresh else "auto"


class Loaded(NamedTuple):
    """What the configuration says, and the engines selected with it."""

    config: Config | None = None
    path: Path | None = None
    profile: ProfileTable | None = None
    engines: tuple[EngineSpec, ...] = ()
    named_by: str = ""


def load(given: Given) -> Loaded:
    """Read the configuration and select engines; raises ``pytest.UsageError`` or one of ``core.errors.UsageError``."""
    path, config = _read_config(given)
    name, named_by = given.find("profile")
    profile = None
    if name is not None:
        if config is None:
            raise pytest.UsageError(
                f"{named_by} is {name!r}, but there is no configuration: neither {FILE} nor [tool.llmparity] in "
                f"pyproject.toml in {given.root}; name the file with --parity-config"
            )
        profile = config.profile(name)
    texts, source = given.engines
    if not texts and profile is not None and profile.engines:
        texts, source = profile.engines, f"profile {name}"
    # A stored run is judged again without its engines, so their files may be gone.
    exists = _exists if given.mode[0] == "live" else _always
    home = _home()
    places = Places(folders=tuple(dict.fromkeys((given.cwd, given.root))), exists=exists, home=home)
    beside = Places(folders=(path.parent,), exists=exists, home=home) if path else None
    return Loaded(
        config, path, profile, select(parse_engines(texts), config, places=places, config_places=beside), source
    )


def _read_config(given: Given) -> tuple[Path | None, Config | None]:
    named, named_by = given.find("config")
    own, shared = given.root / FILE, given.root / "pyproject.toml"
    if named is not None:
        path = given.cwd / named
        if not path.is_file():
            raise pytest.UsageError(f"{named_by}: there is no file {str(path)!r}")
        text = _text(path)
    else:
        inside = shared.is_file() and has_table(_text(shared))
        if own.is_file() and inside:
            raise pytest.UsageError(
                f"both {own} and [tool.llmparity] in {shared} configure engines; keep one of them, "
                "or choose with --parity-config"
            )
        if not own.is_file() and not inside:
            return None, None
        path = shared if inside else own
        text = _text(path)
    source = str(path.relative_to(given.root)) if path.is_relative_to(given.root) else str(path)
    table = ("tool", "llmparity") if path.name == "pyproject.toml" else ()
    return path, parse_config(text, source=source, table=table)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise pytest.UsageError(f"{path}: not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise pytest.UsageError(f"{path}: cannot be read: {error.strerror}") from None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long, a folder that may not be entered
        return False


def _always(path: Path) -> bool:
    return True


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # an account without a home
        return None


def settings(given: Given, loaded: Loaded) -> Settings:
    """Put options, environment, profile and file together; raises ``pytest.UsageError`` for contradictions."""
    profile, content = loaded.profile, loaded.config.content if loaded.config else None
    mode_word, run = given.mode
    required, required_by = given.find("required")
    if required is None and profile is not None:
        required, required_by = profile.required, "the profile"
    if required and not loaded.engines and mode_word == "live":
        raise pytest.UsageError(
            f"no engines are selected, and {required_by} makes that an error; give --engines A,B, "
            f"${ENGINES_VARIABLE} or a profile with engines"
        )
    if mode_word == "replay" and given.resume != "auto":
        raise pytest.UsageError(f"--parity-mode replay judges a stored run; --parity-{given.resume} is for live runs")
    baseline, source = _baseline(given, loaded)
    out = given.value("out")
    defaults: dict[str, Any] = {
        "inconclusive": _first(given.value("inconclusive"), profile and profile.inconclusive),
        "max_requests": _first(given.value("max_requests"), profile and profile.max_requests),
        "budget_s": _first(given.value("budget"), profile and profile.budget),
        "concurrency": _first(profile and profile.concurrency, content and content.concurrency),
        "residency": _first(profile and profile.residency, content and content.residency),
        "reports": given.value("report"),
    }
    attached = [spec.name for spec in loaded.engines if spec.launch == "attach"]
    if defaults["residency"] == "one-at-a-time" and attached and mode_word == "live":
        raise pytest.UsageError(
            f"residency = 'one-at-a-time' stops each engine before the next one starts, and {', '.join(attached)} "
            f"{'runs' if len(attached) == 1 else 'run'} elsewhere and cannot be stopped from here; leave base_url out "
            "so that it is started by us, or use residency = 'together'"
        )
    return Settings(
        engines=loaded.engines,
        baseline=baseline,
        baseline_source=source,
        config_path=loaded.path,
        profile=given.value("profile"),
        required=bool(required),
        mode=mode_word,
        replay_run=run,
        resume=given.resume,
        cases=tuple(dict.fromkeys(given.cases)),
        out=given.cwd / out if out else given.root / OUT,
        **{name: value for name, value in defaults.items() if value is not None},
    )


def _first(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)


def _baseline(given: Given, loaded: Loaded) -> tuple[str | None, str]:
    """Return the baseline and what named it.

    One that was asked for has to be selected. The configuration's is a habit: a run without that engine takes
    its first.
    """
    names = [spec.name for spec in loaded.engines]
    asked, source = given.find("baseline")
    if asked is not None:
        if names and asked not in names:
            raise pytest.UsageError(
                f"{source} is {asked!r}, which is not selected{nearest(asked, names)}; selected: {', '.join(names)}"
            )
        return asked, source
    if not loaded.engines:
        return None, ""
    first = f"first of {loaded.named_by}"
    if loaded.config is None:
        return names[0], first
    configured = _first(loaded.profile and loaded.profile.baseline, loaded.config.content.baseline)
    if configured is None:
        return names[0], first
    if configured not in names:
        return names[0], f"{first}; {configured}, the baseline of {loaded.config.source}, is not selected"
    return configured, loaded.config.source
