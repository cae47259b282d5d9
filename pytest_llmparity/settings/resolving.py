"""Options become settings: finds, reads and applies the configuration when a run asks for engines.

The same for pytest's command line and for ``llmparity``'s, which does without importing pytest. Who knows kinds of
engine and running servers is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from pytest_llmparity.core.errors import EngineSelectionError, UsageError
from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.core.words.problems import dotted
from pytest_llmparity.settings.configuration import Config, Places, has_table, parse_config, select
from pytest_llmparity.settings.file import ProfileTable
from pytest_llmparity.settings.given import Given
from pytest_llmparity.settings.given.contradictions import (
    check_placed,
    check_portion,
    check_shard,
    check_turns,
    check_update,
    policy_of,
    refuse_unknown_goldens,
    refuse_unknown_recordings,
)
from pytest_llmparity.settings.selection import Kind, parse_engines, told_of
from pytest_llmparity.settings.sources import ENGINES_VARIABLE, FILE, OUT, SOURCES
from pytest_llmparity.settings.specification import (
    DEFAULT,
    LOCAL,
    RECORDINGS,
    EngineSpec,
    Settings,
)


def resolve(
    given: Given,
    *,
    kinds: Mapping[str, Kind],
    settle: Callable[[Sequence[EngineSpec]], tuple[EngineSpec, ...]],
    offer: Callable[[Sequence[str]], str],
    otherwise_all: bool = False,
) -> Settings:
    """Return the settings of a run, each value with its origin: options, environment, profile, file, default.

    With ``otherwise_all`` every configured engine is selected where none was asked for. ``settle`` decides of engines
    that may mean a daemon that is running whether they do, ``offer`` returns what is running that would do for kinds
    that were named without a model. Raises ``core.errors.UsageError`` for whatever cannot be used.
    """
    path, config = _read_config(given, kinds)
    layers = _Layers(given, path, config, _profile(given, config))
    texts, named_by = _selection(layers, otherwise_all=otherwise_all)
    with told_of(named_by):
        engines = _select(layers, texts, named_by, kinds, offer)
        if given.live:
            refuse_unknown_goldens(engines, given.root)
            refuse_unknown_recordings(engines)
    return _settings(layers, settle(engines) if given.live else engines, texts, named_by, kinds)


class _Layers(NamedTuple):
    """What may set a value: command line and environment, profile, file. ``path`` is the file's."""

    given: Given
    path: Path | None
    config: Config | None
    profile: ProfileTable | None

    def find(self, setting: str) -> tuple[Any, str]:
        """Return a value and its origin; ``(None, "default")`` where nobody gave one."""
        value, origin = self.given.find(setting) if setting in SOURCES else (None, "")
        if value is not None:
            return value, origin
        if (value := getattr(self.profile, setting, None)) is not None:
            return value, f"profile {self.given.value('profile')}"
        if self.config is not None and (value := getattr(self.config.content, setting, None)) is not None:
            return value, f"{self.config.source}: {dotted((*self.config.table, setting))}"
        return None, DEFAULT


def key_variables(given: Given, *, kinds: Mapping[str, Kind]) -> tuple[str, ...]:
    """Return the names of the secrets of every configured engine; raises ``ConfigError`` as :func:`resolve` does."""
    return _key_variables(_read_config(given, kinds)[1])


class Known(NamedTuple):
    """What a project's configuration says without any engine being selected: itself, and what is in force of it."""

    config: Config | None
    baseline: str | None
    frozen: bool
    looked: str


def known(given: Given, *, kinds: Mapping[str, Kind]) -> Known:
    """Return what the configuration says; raises ``core.errors.UsageError`` as :func:`resolve` does."""
    path, config = _read_config(given, kinds)
    layers = _Layers(given, path, config, _profile(given, config))
    looked = _configuration_source(given, path)
    return Known(config, layers.find("baseline")[0], bool(layers.find("frozen")[0]), looked)


def _profile(given: Given, config: Config | None) -> ProfileTable | None:
    name, named_by = given.find("profile")
    if name is None:
        return None
    if config is None:
        raise UsageError(
            f"{named_by} is {name!r}, but there is no configuration: neither {FILE} nor [tool.llmparity] in "
            f"pyproject.toml in {given.root}; name the file with {given.spelt('config')}"
        )
    return config.profile(name)


def _selection(layers: _Layers, *, otherwise_all: bool) -> tuple[Sequence[str], str]:
    """Return the texts that select engines, and what named them."""
    texts, named_by = layers.given.engines
    if texts:
        return texts, named_by
    if layers.profile is not None and layers.profile.engines:
        return layers.profile.engines, f"profile {layers.given.value('profile')}"
    if otherwise_all and layers.config is not None:
        return list(layers.config.engines), layers.config.source
    return [], ""


def _select(
    layers: _Layers, texts: Sequence[str], origin: str, kinds: Mapping[str, Kind], offer: Callable[[Sequence[str]], str]
) -> tuple[EngineSpec, ...]:
    """Look up what is selected. A kind without a model, which no engine is called, is answered with what is running."""
    given, path, config, _ = layers
    # A stored run is judged again without its engines, so their files may be gone.
    exists = _exists if given.live else lambda path: True
    home = _home()
    places = Places(folders=tuple(dict.fromkeys((given.cwd, given.root))), exists=exists, home=home)
    beside = Places(folders=(path.parent,), exists=exists, home=home) if path else None
    looked = _configuration_source(given, path)
    entries = parse_engines(texts)
    try:
        return select(
            entries,
            config,
            places=places,
            config_places=beside,
            recordings=given.root / RECORDINGS,
            kinds=kinds,
            looked=looked,
            origin=origin,
        )
    except EngineSelectionError as error:
        configured = {} if config is None else config.engines
        words = [entry.configured for entry in entries if entry.configured and entry.configured not in configured]
        words = [word for word in words if word in kinds]
        if not words or not given.live:
            raise
        raise EngineSelectionError(f"{error}\n{offer(words)}") from None


def _configuration_source(given: Given, path: Path | None) -> str:
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
    return path, parse_config(text, source=source, table=table, kinds=kinds, variants=given.variants)


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


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # an account without a home
        return None


SETTINGS: Final = {
    **{name: name for name in ("inconclusive", "max_requests", "sequential", "concurrency", "frozen", "residency")},
    **{name: name for name in ("gather", "timed_changes", "keep_runs", "explain", "explain_requests", "executor")},
    "budget": "budget_s",
    "report": "reports",
}
"""What concerns all engines and is in force as it was given: option or key, to the field of ``Settings``."""


_PLACED: Final = (("residency", "together"), ("executor", LOCAL))
"""What is in force of these settings where nobody gives them."""


def _settings(
    layers: _Layers, engines: tuple[EngineSpec, ...], texts: Sequence[str], named_by: str, kinds: Mapping[str, Kind]
) -> Settings:
    """Put everything together; raises ``core.errors.UsageError`` for contradictions."""
    given = layers.given
    mode, run = given.mode
    required, required_by = layers.find("required")
    if required and not engines and given.live:
        by = "the profile" if required_by.startswith("profile ") else required_by
        raise UsageError(
            f"no engines are selected, and {by} makes that an error; give --engines A,B, "
            f"${ENGINES_VARIABLE} or a profile with engines"
        )
    if not given.live and given.resume != "auto":
        option = given.spelt("retry_failed" if given.resume == "retry" else given.resume)
        raise UsageError(f"--parity-mode replay judges a stored run; {option} is for live runs")
    values = {setting: layers.find(setting) for setting in SETTINGS}
    check_portion(given)
    check_shard(given, sequential=bool(values["sequential"][0]))
    check_update(given, engines, frozen=bool(values["frozen"][0]))
    policy = policy_of(given, engines)
    baseline, baseline_source = _baseline(layers, engines, named_by)
    out = given.value("out")
    if values["residency"][0] == "one-at-a-time" and given.live:
        if values["gather"][0] == "side-by-side" and len(engines) > 1:
            raise UsageError(
                "residency = 'one-at-a-time' keeps one engine in memory, and gather = 'side-by-side' asks all of them "
                "at the same time; leave gather out, or use residency = 'together'"
            )
        check_turns(engines, kinds)
    if given.live:
        residency, executor = (str(values[setting][0] or default) for setting, default in _PLACED)
        check_placed(engines, executor=executor, residency=residency)
    return Settings(
        engines=engines,
        selection=tuple(texts),
        baseline=baseline,
        baseline_source=baseline_source,
        required=bool(required),
        mode=mode,
        replay_run=run,
        resume=given.resume,
        cases=tuple(dict.fromkeys(given.cases)),
        update_golden=given.update_golden,
        shard=given.shard,
        portion=given.portion,
        policy=policy,
        key_variables=_key_variables(layers.config),
        out=given.cwd / out if out else given.root / OUT,
        history=None if (kept := given.value("history")) is None else given.cwd / kept,
        origins={
            "engines": named_by,
            "baseline": baseline_source,
            **{setting: origin for setting, (_, origin) in values.items()},
        },
        **{SETTINGS[setting]: value for setting, (value, _) in values.items() if value is not None},
    )


def _key_variables(config: Config | None) -> tuple[str, ...]:
    tables = config.engines.values() if config else ()
    return tuple(dict.fromkeys(name for table in tables for name in table.key_variables))


def _baseline(layers: _Layers, engines: Sequence[EngineSpec], named_by: str) -> tuple[str | None, str]:
    """Return the baseline and what named it.

    One that was asked for has to be selected. The profile's or the file's is a habit: its golden answers stand in for
    that engine wherever they are selected, beside it as well, for what was recorded is the reference. A run without
    either takes its first.
    """
    names = [spec.name for spec in engines]
    asked, source = layers.given.find("baseline")
    if asked is not None:
        if names and asked not in names:
            raise UsageError(
                f"{source} is {asked!r}, which is not selected{nearest(asked, names)}; selected: {', '.join(names)}"
            )
        return asked, source
    if not engines:
        return None, ""
    first = f"first of {named_by}"
    configured, origin = layers.find("baseline")
    if configured is None:
        return names[0], first
    if recorded := [spec.name for spec in engines if spec.golden == configured]:
        return recorded[0], f"golden answers of {configured} ({origin})"
    if configured not in names:
        return names[0], f"{first}; {configured} ({origin}) is not selected"
    return configured, origin
