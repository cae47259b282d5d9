"""The configuration, and the engines that ``--engines`` selects with it.

It stands in ``llmparity.toml`` or under ``[tool.llmparity]`` in ``pyproject.toml``. Pure: takes text, and asks about
files through the functions it is given.
"""

from __future__ import annotations

import dataclasses
import os.path
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pytest_llmparity.core.errors import ConfigError, EngineSelectionError, UsageError
from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.core.words.problems import describe, dotted, given
from pytest_llmparity.settings import containers
from pytest_llmparity.settings.file import KEYS, ConfigTable, EngineTable, Pin, ProfileTable
from pytest_llmparity.settings.selection import (
    KINDS,
    Entry,
    Kind,
    address_behind,
    address_of,
    is_bare_address,
    is_path,
    parse_engines,
)
from pytest_llmparity.settings.specification import EngineSpec, EnvRef, Key, LaunchMode
from pytest_llmparity.settings.variants import Variant, add_to

_KEY = 'keys never belong in the file; name the environment variable that holds yours: api_key_env = "VLLM_API_KEY"'
HINTS = {
    "api_key": _KEY,
    "apikey": _KEY,
    "key": _KEY,
    "token": _KEY,
    "password": _KEY,
    "ctx": "write context_length, the tokens one request gets",
    "ctx_size": "write context_length, the tokens one request gets",
    "n_ctx": "write context_length, the tokens one request gets",
    "host": 'write base_url = "http://HOST:PORT" to attach; an engine we start listens on 127.0.0.1',
    "port": 'write base_url = "http://HOST:PORT" to attach; an engine we start gets a free port',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A configuration that was read and found right. ``source`` is the file as messages name it.

    ``written`` has the tables of its engines as they stand in the file.
    """

    source: str
    table: tuple[str, ...]
    content: ConfigTable
    written: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def engines(self) -> Mapping[str, EngineTable]:
        """The configured engines by name."""
        return self.content.engines

    def profile(self, name: str) -> ProfileTable:
        """Return one profile; ``ConfigError`` names the known ones."""
        profiles = self.content.profiles
        if name not in profiles:
            known = f"known profiles: {', '.join(profiles)}" if profiles else "it has no profiles"
            raise ConfigError(f"{self.source}: no profile {given(name)}{nearest(name, profiles)}; {known}")
        return profiles[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where paths lead: ``folders`` are tried in order for relative ones, ``home`` stands for ``~``."""

    folders: tuple[Path, ...]
    exists: Callable[[Path], bool]
    home: Path | None = None

    def find(self, written: str) -> Path | None:
        """Return the absolute path of what is written if it exists."""
        return next((path for path in self.candidates(written) if self.exists(path)), None)

    def candidates(self, written: str) -> list[Path]:
        """Return every absolute path a written one may stand for, in order."""
        if written.startswith("~/") and self.home is not None:
            return [self.home / written[2:]]
        return [Path(os.path.normpath(folder / written)) for folder in self.folders]


def has_table(text: str) -> bool:
    """Tell whether the text of a ``pyproject.toml`` has ``[tool.llmparity]``; broken TOML has none."""
    if "llmparity" not in text:
        return False
    try:
        tool = tomllib.loads(text).get("tool")
    except (tomllib.TOMLDecodeError, RecursionError):
        return False
    return isinstance(tool, dict) and "llmparity" in tool


def parse_config(
    text: str,
    *,
    source: str,
    table: Sequence[str] = (),
    kinds: Mapping[str, Kind] = KINDS,
    variants: Sequence[Variant] = (),
) -> Config:
    """Read a configuration from text; ``table`` is where it sits in the file (``("tool", "llmparity")``).

    It is as if it had the ``variants`` of its engines too. Raises ``ConfigError`` with every problem at once, each
    naming file, key, what was given and what is allowed.
    """
    value = add_to(_table(_toml(text, source), source, table), variants, source=source)
    try:
        content = ConfigTable.model_validate(value, context={"kinds": kinds})
    except ValidationError as error:
        sentences = describe(error, ConfigTable, prefix=tuple(table), hints=HINTS)
        raise ConfigError("\n".join(f"{source}: {sentence}" for sentence in sentences)) from None
    problems = _cross(content, tuple(table))
    if problems:
        raise ConfigError("\n".join(f"{source}: {sentence}" for sentence in problems))
    return Config(source=source, table=tuple(table), content=content, written=value.get("engines", {}))


def _toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        reason, _, place = str(error).rpartition(" (at ")
        digits = re.match(r"line (\d+)", place)
        line = int(digits.group(1)) if digits else text.count("\n") + 1  # else "end of document"
        raise ConfigError(f"{source}:{line}: not TOML: {reason}") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply") from None


def _table(value: Any, source: str, table: Sequence[str]) -> Any:
    for part in table:
        if not isinstance(value, dict) or part not in value:
            raise ConfigError(f"{source}: holds no [{'.'.join(table)}]")
        value = value[part]
    return value


def _cross(content: ConfigTable, prefix: tuple[str, ...]) -> list[str]:
    """Return what is wrong between keys that are each right: names that lead nowhere."""
    problems = []

    def check(place: tuple[str | int, ...], name: str | None, known: Sequence[str]) -> None:
        if name is not None and known and name not in known:
            where = dotted((*prefix, *place))
            problems.append(f"{where} is {given(name)}{nearest(name, known)}; known here: {', '.join(known)}")

    configured = list(content.engines)
    check(("baseline",), content.baseline, configured)
    for name, profile in content.profiles.items():
        entries = parse_engines(profile.engines or ())
        for entry in entries:
            check(("profiles", name, "engines"), entry.configured, configured)
        check(("profiles", name, "baseline"), profile.baseline, [entry.name for entry in entries] or configured)
    return problems


def select(
    entries: Iterable[Entry],
    config: Config | None,
    *,
    places: Places,
    config_places: Places | None = None,
    recordings: Path = Path("recordings"),
    kinds: Mapping[str, Kind] = KINDS,
    looked: str = "",
    origin: str = "--engines",
) -> tuple[EngineSpec, ...]:
    """Turn entries of ``--engines`` into specs, looking configured names up.

    ``origin`` is what gave the entries. ``places`` serves models written on the command line, ``config_places`` (the
    file's folder) those of the file. ``recordings`` is the project's folder of recordings. ``looked`` says which file
    was read, or where one was looked for. Raises ``EngineSelectionError`` for an unknown name or kind (the nearest is
    offered) and a model that should be a file and is not there; ``ConfigError`` for files a configured engine names.
    One error tells of all entries. Whether there is a golden or a recording of a name nobody looks here.
    """
    specs: list[EngineSpec] = []
    problems: list[UsageError] = []
    for entry in entries:
        try:
            if entry.recording is not None:
                specs.append(_played(entry, recordings, origin))
            elif entry.configured is not None and config is not None and entry.configured in config.engines:
                specs.append(_configured(entry, config, entry.configured, config_places or places, kinds))
            else:
                specs.append(_written(entry, places, kinds, origin, unknown=_unknown(entry, config, kinds, looked)))
        except UsageError as error:
            problems.append(error)
    if problems:
        kind = ConfigError if all(isinstance(problem, ConfigError) for problem in problems) else EngineSelectionError
        raise kind("\n".join(map(str, problems)))
    return tuple(specs)


def _written(
    entry: Entry, places: Places, kinds: Mapping[str, Kind], origin: str, *, unknown: EngineSelectionError
) -> EngineSpec:
    """Return the spec of an entry that says by itself what it is; raises ``unknown`` where it does not."""
    if entry.golden is not None:
        return EngineSpec(
            name=entry.name,
            launch="golden",
            golden=entry.golden,
            origins={"golden": origin, "launch": "golden answers, nobody is asked"},
        )
    if entry.configured is not None or entry.kind not in (None, *kinds):
        raise unknown
    origins = {name: origin for name in ("kind", "model", "base_url") if getattr(entry, name) is not None}
    origins["launch"] = "no base_url is given" if entry.base_url is None else "base_url is given"
    spec = EngineSpec(
        name=entry.name, kind=entry.kind, model=entry.model, base_url=entry.base_url, api=entry.api, origins=origins
    )
    if entry.kind is None:
        return spec
    kind = kinds[entry.kind]
    if entry.base_url is None and (apart := address_behind(entry.model or "")):
        raise EngineSelectionError(
            f"--engines: {entry.text!r}: {apart[1]!r} lacks its scheme; write {entry.kind}:{apart[0]}@http://{apart[1]}"
        )
    if entry.base_url is None and not (kind.starts or kind.daemon):
        raise EngineSelectionError(
            f"--engines: {entry.text!r}: an engine of kind {entry.kind!r} is attached to, never started; "
            f"write {entry.kind}:{entry.model}@URL"
        )
    try:
        path = _model_path(entry.model, kind, places, started=entry.base_url is None)
    except ValueError as error:
        raise EngineSelectionError(f"--engines: {entry.text!r}: the model {error}") from None
    return dataclasses.replace(
        spec,
        launch="attach" if entry.base_url or not kind.starts else "process",
        daemon=kind.daemon and entry.base_url is None and path is None,
        model_path=path,
    )


def _played(entry: Entry, recordings: Path, origin: str) -> EngineSpec:
    """Return the spec of a recording; what it is of stands in its file, which nobody reads here."""
    return EngineSpec(
        name=entry.name,
        launch="process",
        recording=recordings / f"{entry.recording}.jsonl",
        pace=entry.pace,
        origins={"recording": origin, "launch": "a recording is played from here"},
    )


def _unknown(entry: Entry, config: Config | None, kinds: Mapping[str, Kind], looked: str) -> EngineSelectionError:
    configured = list(config.engines) if config else []
    word = entry.configured or entry.kind or ""
    if config:
        where = f"configured in {looked or config.source}: {', '.join(configured) or 'none'}"
    else:
        where = f"no configuration was found: {looked}" if looked else "none is configured"
    if word in kinds:
        return EngineSelectionError(
            f"--engines: {entry.text!r}: {word!r} is a kind, and no engine of that name is configured ({where}); write "
            f"{word}:MODEL, {word}:MODEL@URL, or a table [engines.{word}] in llmparity.toml"
        )
    address = entry.text.partition("=")[2] if entry.text.startswith(f"{entry.name}=") else entry.text
    if is_bare_address(address):
        return EngineSelectionError(
            f"--engines: {entry.text!r}: {address!r} is no engine's name, and an address starts with its scheme; "
            f"write http://{address} (or https://); {where}"
        )
    noun = "engine" if entry.configured else "kind"
    close = nearest(word, configured) if entry.configured else ""  # by itself a kind is no engine: it comes second
    written = "" if entry.text == word else f"{entry.text!r}: "
    return EngineSelectionError(
        f"--engines: {written}unknown {noun} {word!r}{close or nearest(word, kinds)}; {where}; "
        f"kinds (KIND:MODEL): {', '.join(sorted(kinds))}; any OpenAI-compatible server: http://HOST:PORT[#MODEL]"
    )


def _configured(entry: Entry, config: Config, configured: str, places: Places, kinds: Mapping[str, Kind]) -> EngineSpec:
    table = config.engines[configured]
    where = f"{config.source}: {dotted((*config.table, 'engines', configured))}"
    kind = kinds[table.kind] if table.kind is not None else None
    started = table.base_url is None and (kind is None or kind.starts)
    address = None if table.base_url is None else address_of(table.base_url)
    try:
        path = _model_path(table.model, kind, places, started=table.base_url is None) if kind is not None else None
    except ValueError as error:
        raise ConfigError(f"{where}.model {error}") from None
    given = table.given()
    origins = {name: f"{where}.{name}" for name in given if name != "pin"}
    origins |= {f"pin.{name}": f"{where}.pin.{name}" for name in _plain(given.get("pin", {}))}
    how = "launch" if "launch" in given else "base_url"
    origins["launch"] = f"{how} is given" if how in given else "no base_url is given"
    inside = table.image is not None
    values = {
        name: _as_used(KEYS[name], value, f"{where}.{name}", places, inside=inside) for name, value in given.items()
    }
    env = values.pop("env", {})
    values |= {
        "name": entry.name,
        "base_url": address and address.root,
        "api": address and address.api,
        "launch": _launch(table, started=started),
        "daemon": kind is not None and kind.daemon and path is None and table.means_daemon,
        "env": {name: value for name, value in env.items() if isinstance(value, str)},
        "env_from": {name: value.env for name, value in env.items() if isinstance(value, EnvRef)},
        "model_path": path,
        "origins": origins,
    }
    return EngineSpec(**values)


def _launch(table: EngineTable, *, started: bool) -> LaunchMode:
    if not started or table.launch == "attach":
        return "attach"
    return "process" if table.image is None else "container"


def _as_used(key: Key, value: Any, where: str, places: Places, *, inside: bool) -> Any:
    """Return the value of a key as a specification holds it: paths absolute, nothing that can be changed.

    ``inside``: its program is one of an image.
    """
    if key.written == "file":
        return _file(value, where, places)
    if key.written == "program":
        return _program(value, places)
    if key.written == "volumes":
        return tuple(_volume(volume, where, places) for volume in value)
    if key.written == "command" and not inside:
        return (_program(value[0], places), *value[1:])
    return tuple(value) if isinstance(value, list) else _plain(value)


def _plain(value: Any) -> Any:
    return value.model_dump(exclude_none=True) if isinstance(value, Pin) else value


def _model_path(model: str | None, kind: Kind, places: Places, *, started: bool) -> Path | None:
    """Return the local path a model stands for. ``ValueError`` when it must be one and nothing is there.

    A server we attach to may name its model by a path of its own machine, so there nothing has to exist.
    """
    if model is None or not kind.local_model or not (started or is_path(model)):
        return None
    path = places.find(model)
    if path is None and started and is_path(model):
        raise ValueError(f"{model!r} is not there; looked for {' and '.join(map(str, places.candidates(model)))}")
    return path


def _program(written: str, places: Places) -> str:
    """Return a program as it is started: relative to the file when written as a path, else left for PATH."""
    return str(places.candidates(written)[0]) if "/" in written else written


def _volume(written: str, where: str, places: Places) -> str:
    """Return a volume as the runtime takes it: what is a path on this machine absolute, and there."""
    source, place = written.split(":", 1)
    return f"{_file(source, where, places)}:{place}" if containers.is_folder(source) else written


def _file(written: str, where: str, places: Places) -> Path:
    path = places.find(written)
    if path is None:
        looked = " and ".join(map(str, places.candidates(written)))
        raise ConfigError(f"{where} is {written!r}, which is not there; looked for {looked}")
    return path
