"""Options become settings: finds, reads and applies the configuration when a run asks for engines.

The same for pytest's command line and for ``llmparity``'s, which does without importing pytest. Who knows kinds of
engine and running servers is handed in.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from pytest_llmparity.core.errors import EngineSelectionError, UsageError
from pytest_llmparity.core.shards import Shard
from pytest_llmparity.core.words.problems import dotted, nearest
from pytest_llmparity.settings.answers import refuse_unknown_goldens, refuse_unknown_recordings
from pytest_llmparity.settings.configuration import Config, Places, has_table, parse_config, select
from pytest_llmparity.settings.file import ProfileTable
from pytest_llmparity.settings.selection import Kind, parse_engines
from pytest_llmparity.settings.sources import ENGINES_VARIABLE, FILE, OUT, SOURCES
from pytest_llmparity.settings.specification import (
    DEFAULT,
    RECORDINGS,
    EngineSpec,
    Mode,
    Resume,
    Settings,
    UpdateGolden,
)
from pytest_llmparity.settings.variants import Variant, from_text


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
    def live(self) -> bool:
        """Whether engines are asked: not where a stored run is judged again."""
        return self.mode[0] == "live"

    @property
    def cases(self) -> list[str]:
        """Ids the run is restricted to."""
        return self._option("case") or []

    @property
    def update_golden(self) -> UpdateGolden | None:
        """Which golden answers are written, ``None`` for none."""
        given: UpdateGolden | None = self._option("update_golden")
        return given

    @property
    def shard(self) -> Shard | None:
        """The share of the cases that is asked, ``None`` for all of them."""
        given: Shard | None = self._option("shard")
        return given

    @property
    def in_ci(self) -> bool:
        """Whether this is a job of a CI service that was not told to write what people have to look at."""
        told = any(self.environ.get(name, "").strip().lower() not in _NOT for name in _CI)
        return told and not self._option("update_golden_in_ci")

    @property
    def variants(self) -> list[Variant]:
        """Variants of configured engines that take part as if the file had them."""
        text = self._option("variants")
        return [] if text is None else from_text(text)

    @property
    def resume(self) -> Resume:
        """What becomes of an earlier run of the same plan."""
        options: dict[Resume, str] = {
            "resume": "resume",
            "fresh": "fresh",
            "retry": "retry_failed",
            "judged": "judged_too",
        }
        given = [(word, self.spelt(option)) for word, option in options.items() if self._option(option)]
        if len(given) > 1:
            names = " and ".join(option for _, option in given)
            raise UsageError(f"{names} contradict each other; give one of them")
        return given[0][0] if given else "auto"


_CI: Final = ("CI", "BUILD_NUMBER")
"""Variables by which pytest too knows a CI service."""
_NOT: Final = ("", "0", "false", "no", "off")


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
    **{name: name for name in ("gather", "timed_changes", "keep_runs", "explain", "explain_requests")},
    "budget": "budget_s",
    "report": "reports",
}
"""What concerns all engines and is in force as it was given: option or key, to the field of ``Settings``."""


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
    _check_shard(given, sequential=bool(values["sequential"][0]))
    _check_update(given, engines, frozen=bool(values["frozen"][0]))
    baseline, baseline_source = _baseline(layers, engines, named_by)
    out = given.value("out")
    if values["residency"][0] == "one-at-a-time" and given.live:
        if values["gather"][0] == "side-by-side" and len(engines) > 1:
            raise UsageError(
                "residency = 'one-at-a-time' keeps one engine in memory, and gather = 'side-by-side' asks all of them "
                "at the same time; leave gather out, or use residency = 'together'"
            )
        _check_turns(engines, kinds)
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
        key_variables=_key_variables(layers.config),
        out=given.cwd / out if out else given.root / OUT,
        origins={
            "engines": named_by,
            "baseline": baseline_source,
            **{setting: origin for setting, (_, origin) in values.items()},
        },
        **{SETTINGS[setting]: value for setting, (value, _) in values.items() if value is not None},
    )


def _check_update(given: Given, engines: Sequence[EngineSpec], *, frozen: bool) -> None:
    """Refuse to write golden answers where nobody would see it, or where they would not be whole."""
    option = given.spelt("update_golden")
    if given.update_golden is None:
        return
    if not given.live:
        raise UsageError(
            f"{option} writes what live engines answer, and {given.spelt('mode')} replay asks none; a stored run "
            "becomes golden by: llmparity golden from RUN"
        )
    if frozen:
        raise UsageError(
            f"{option} changes golden answers, and {given.spelt('frozen')} (or its setting) forbids that; leave one out"
        )
    if given.cases:
        raise UsageError(f"{option} needs whole runs, and {given.spelt('case')} asks single cases; leave one out")
    if engines and all(spec.launch == "golden" or spec.recording is not None for spec in engines):
        raise UsageError(
            f"{option} writes what live engines answer, and only golden answers (or recordings) are selected"
        )
    if given.in_ci:
        raise UsageError(
            f"{option} is refused where the variable CI is set: nobody would look at what it writes. Record on a "
            f"machine of yours, or give {given.spelt('update_golden_in_ci')} in a job that proposes the change"
        )


def _check_shard(given: Given, *, sequential: bool) -> None:
    """Refuse what takes the whole of a run, of which a shard has a share."""
    if given.shard is None:
        return
    option = given.spelt("shard")
    if not given.live:
        raise UsageError(
            f"{option} asks a share of the cases, and {given.spelt('mode')} replay asks none; the shards of a run are "
            "judged by: llmparity merge"
        )
    if sequential:
        raise UsageError(
            f"{option} asks a share of the cases, and {given.spelt('sequential')} (or its setting) stops when all "
            "together settle something, which no shard can know; leave one out"
        )
    if given.cases:
        raise UsageError(f"{option} deals out all cases, and {given.spelt('case')} names some; leave one out")
    if given.update_golden is not None:
        raise UsageError(
            f"{given.spelt('update_golden')} writes whole sets, and {option} asks a share of each; leave it out, and "
            "after llmparity merge make the merged run golden: llmparity golden from RUN"
        )


def _key_variables(config: Config | None) -> tuple[str, ...]:
    tables = config.engines.values() if config else ()
    return tuple(dict.fromkeys(name for table in tables for name in table.key_variables))


def _check_turns(engines: Sequence[EngineSpec], kinds: Mapping[str, Kind]) -> None:
    """Refuse servers that run elsewhere and cannot be told to unload, where one engine at a time may be in memory."""
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
