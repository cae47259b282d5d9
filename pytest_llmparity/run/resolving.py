"""Options become settings: finds, reads and applies the configuration when a run asks for engines.

The same for pytest's command line and for ``llmparity``'s, which does without importing pytest.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pytest_llmparity.core.errors import EngineSelectionError, UsageError
from pytest_llmparity.core.words.problems import nearest
from pytest_llmparity.engines import daemons, registry
from pytest_llmparity.settings.configuration import Config, Places, has_table, parse_config, parse_engines, select
from pytest_llmparity.settings.file import ProfileTable
from pytest_llmparity.settings.selection import Kind
from pytest_llmparity.settings.sources import ENGINES_VARIABLE, FILE, OUT, SOURCES
from pytest_llmparity.settings.specification import EngineSpec, Mode, Resume, Settings

T = TypeVar("T")


class Given:
    """What the person asked for on a command line or, failing that, in the environment.

    ``option`` returns the value of an option by its bare name (``baseline``), ``None`` where it was not given.
    ``prefix`` is what its name starts with as it is written on this command line.
    """

    def __init__(
        self, option: Callable[[str], Any], environ: Mapping[str, str], *, root: Path, cwd: Path, prefix: str
    ) -> None:
        self._option = option
        self.environ = environ
        self._prefix = prefix
        self.root = root
        self.cwd = cwd

    def spelt(self, option: str) -> str:
        """Return an option as it is written on this command line."""
        return self._prefix + option.replace("_", "-")

    def find(self, option: str) -> tuple[Any, str]:
        """Return a value and what named it (the option or the variable); ``(None, "")`` when nobody did."""
        value = self._option(option)
        if value is not None:
            return value, self.spelt(option)
        source = SOURCES[option]
        text = self.environ.get(source.variable, "").strip()
        if not text:
            return None, ""
        try:
            return source.read(text), source.variable
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"{source.variable}: {error}") from None

    def value(self, option: str) -> Any:
        """Return a value, ``None`` when nobody named one."""
        return self.find(option)[0]

    @property
    def engines(self) -> tuple[list[str], str]:
        """The texts of ``--engines`` and what named them."""
        texts = self._option("engines")
        if texts:
            return texts, "--engines"
        text = self.environ.get(ENGINES_VARIABLE, "").strip()
        return ([text], ENGINES_VARIABLE) if text else ([], "")

    @property
    def mode(self) -> tuple[Mode, str | None]:
        """Live or replay, and the run to judge again (``None``: the newest)."""
        return self.value("mode") or ("live", None)

    @property
    def cases(self) -> list[str]:
        """Ids the run is restricted to."""
        return self._option("case") or []

    @property
    def resume(self) -> Resume:
        """What becomes of an earlier run of the same plan."""
        options: dict[Resume, str] = {"resume": "resume", "fresh": "fresh", "retry": "retry_failed"}
        given = [(word, self.spelt(option)) for word, option in options.items() if self._option(option)]
        if len(given) > 1:
            names = " and ".join(option for _, option in given)
            raise UsageError(f"{names} contradict each other; give one of them")
        return given[0][0] if given else "auto"


def project_root(cwd: Path) -> Path:
    """Return what pytest, started in ``cwd`` without arguments, takes for its rootdir.

    That is the nearest folder upwards with a configuration of pytest; where there is none, with a ``pyproject.toml``,
    a ``setup.py``, else ``cwd`` itself.
    """
    upwards = (cwd, *cwd.parents)
    for marks in (_configures_pytest, _has("pyproject.toml"), _has("setup.py")):
        for folder in upwards:
            if marks(folder):
                return folder
    return cwd


def _has(name: str) -> Callable[[Path], bool]:
    return lambda folder: (folder / name).is_file()


def _configures_pytest(folder: Path) -> bool:
    if any((folder / name).is_file() for name in ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini")):
        return True
    sections = {"tox.ini": r"^\[pytest\]", "setup.cfg": r"^\[tool:pytest\]"}
    if any(re.search(section, _readable(folder / name), re.MULTILINE) for name, section in sections.items()):
        return True
    try:
        return bool(tomllib.loads(_readable(folder / "pyproject.toml")).get("tool", {}).get("pytest"))
    except tomllib.TOMLDecodeError:
        return False


def _readable(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.is_file() else ""


class Loaded(NamedTuple):
    """What the configuration says, and the engines selected with it."""

    config: Config | None = None
    path: Path | None = None
    profile: ProfileTable | None = None
    engines: tuple[EngineSpec, ...] = ()
    named_by: str = ""
    selection: tuple[str, ...] = ()


def load(given: Given, *, otherwise_all: bool = False, decided: Mapping[str, str] | None = None) -> Loaded:
    """Read the configuration and select engines; with ``otherwise_all`` every configured one where none was asked for.

    Kinds of engine of installed distributions are known from here on. A model's name may mean a daemon that is running:
    it is looked for, unless ``decided`` says what was found. Raises ``core.errors.UsageError``.
    """
    registry.discover()
    kinds = registry.known()
    path, config = _read_config(given, kinds)
    name, named_by = given.find("profile")
    profile = None
    if name is not None:
        if config is None:
            raise UsageError(
                f"{named_by} is {name!r}, but there is no configuration: neither {FILE} nor [tool.llmparity] in "
                f"pyproject.toml in {given.root}; name the file with {given.spelt('config')}"
            )
        profile = config.profile(name)
    texts, source = given.engines
    if not texts and profile is not None and profile.engines:
        texts, source = profile.engines, f"profile {name}"
    if not texts and otherwise_all and config is not None:
        texts, source = list(config.engines), config.source
    # A stored run is judged again without its engines, so their files may be gone.
    live = given.mode[0] == "live"
    exists = _exists if live else _always
    home = _home()
    places = Places(folders=tuple(dict.fromkeys((given.cwd, given.root))), exists=exists, home=home)
    beside = Places(folders=(path.parent,), exists=exists, home=home) if path else None
    entries = parse_engines(texts)
    try:
        engines = select(entries, config, places=places, config_places=beside, kinds=kinds, looked=_looked(given, path))
    except EngineSelectionError as error:
        known = () if config is None else config.engines
        words = [
            word for entry in entries if (word := entry.configured) in kinds and word is not None and word not in known
        ]
        if not words or not live:
            raise
        raise EngineSelectionError(f"{error}\n{daemons.offer(words, given.environ)}") from None
    if live:
        engines = daemons.settle(engines, given.environ, decided=decided)
    return Loaded(config, path, profile, engines, source, tuple(texts))


def _looked(given: Given, path: Path | None) -> str:
    """Return which file was read, or where one was looked for and where there is one that was not."""
    if path is not None:
        return str(path)
    text = f"neither {FILE} nor [tool.llmparity] in pyproject.toml is in {given.root}, the root of this run"
    folders = dict.fromkeys((given.cwd, *given.cwd.parents, *given.root.parents))
    elsewhere = next((folder / FILE for folder in folders if _exists(folder / FILE)), None)
    option = given.spelt("config")
    return f"{text}; there is {elsewhere}: name it with {option}" if elsewhere else f"{text} ({option} names another)"


def _read_config(given: Given, kinds: Mapping[str, Kind]) -> tuple[Path | None, Config | None]:
    named, named_by = given.find("config")
    own, shared = given.root / FILE, given.root / "pyproject.toml"
    if named is not None:
        path = given.cwd / named
        if not path.is_file():
            raise UsageError(f"{named_by}: there is no file {str(path)!r}")
        text = _text(path)
    else:
        inside = shared.is_file() and has_table(_text(shared))
        if own.is_file() and inside:
            raise UsageError(
                f"both {own} and [tool.llmparity] in {shared} configure engines; keep one of them, "
                f"or choose with {given.spelt('config')}"
            )
        if not own.is_file() and not inside:
            return None, None
        path = shared if inside else own
        text = _text(path)
    source = str(path.relative_to(given.root)) if path.is_relative_to(given.root) else str(path)
    table = ("tool", "llmparity") if path.name == "pyproject.toml" else ()
    return path, parse_config(text, source=source, table=table, kinds=kinds)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


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
    """Put options, environment, profile and file together; raises ``core.errors.UsageError`` for contradictions."""
    profile, content = loaded.profile, loaded.config.content if loaded.config else None
    mode_word, run = given.mode
    required, required_by = given.find("required")
    if required is None and profile is not None:
        required, required_by = profile.required, "the profile"
    if required and not loaded.engines and mode_word == "live":
        raise UsageError(
            f"no engines are selected, and {required_by} makes that an error; give --engines A,B, "
            f"${ENGINES_VARIABLE} or a profile with engines"
        )
    if mode_word == "replay" and given.resume != "auto":
        option = given.spelt("retry_failed" if given.resume == "retry" else given.resume)
        raise UsageError(f"--parity-mode replay judges a stored run; {option} is for live runs")
    baseline, source = _baseline(given, loaded)
    out = given.value("out")
    defaults: dict[str, Any] = {
        "inconclusive": _first(given.value("inconclusive"), profile and profile.inconclusive),
        "max_requests": _first(given.value("max_requests"), profile and profile.max_requests),
        "budget_s": _first(given.value("budget"), profile and profile.budget),
        "sequential": _first(given.value("sequential"), profile and profile.sequential),
        "concurrency": _first(profile and profile.concurrency, content and content.concurrency),
        "frozen": _first(given.value("frozen"), profile and profile.frozen),
        "residency": _first(profile and profile.residency, content and content.residency),
        "gather": _first(profile and profile.gather, content and content.gather),
        "reports": given.value("report"),
    }
    if defaults["residency"] == "one-at-a-time" and mode_word == "live":
        if defaults["gather"] == "side-by-side" and len(loaded.engines) > 1:
            raise UsageError(
                "residency = 'one-at-a-time' keeps one engine in memory, and gather = 'side-by-side' asks all of them "
                "at the same time; leave gather out, or use residency = 'together'"
            )
        _check_turns(loaded.engines)
    return Settings(
        engines=loaded.engines,
        selection=loaded.selection,
        baseline=baseline,
        baseline_source=source,
        config_path=loaded.path,
        profile=given.value("profile"),
        required=bool(required),
        mode=mode_word,
        replay_run=run,
        resume=given.resume,
        cases=tuple(dict.fromkeys(given.cases)),
        key_variables=_key_variables(loaded),
        out=given.cwd / out if out else given.root / OUT,
        **{name: value for name, value in defaults.items() if value is not None},
    )


def _key_variables(loaded: Loaded) -> tuple[str, ...]:
    tables = loaded.config.engines.values() if loaded.config else ()
    return tuple(dict.fromkeys(name for table in tables for name in table.key_variables))


def _check_turns(engines: Sequence[EngineSpec]) -> None:
    """Refuse servers that run elsewhere and cannot be told to unload, where one engine at a time may be in memory."""
    kinds = registry.known()
    staying = [s for s in engines if s.launch == "attach" and not (s.kind is not None and kinds[s.kind].unloads)]
    if not staying or len(engines) < 2:
        return
    shown = ", ".join(f"{spec.name} ({spec.kind or 'of a kind that is not named'})" for spec in staying)
    raise UsageError(
        f"residency = 'one-at-a-time' keeps one engine in memory, and {shown} "
        f"{'runs' if len(staying) == 1 else 'run'} elsewhere and cannot be told to unload. Only these kinds can: "
        f"{', '.join(sorted(name for name, kind in kinds.items() if kind.unloads))} (a URL alone does not say which it "
        "is: write KIND:MODEL@URL). Leave base_url out so that it is started by us, or use residency = 'together'"
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
            raise UsageError(
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
