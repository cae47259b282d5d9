"""Where every value of the configuration in force comes from: command line, variable, profile, file, default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from pytest_llmparity.core.identity.examination import Setting
from pytest_llmparity.core.words.problems import dotted
from pytest_llmparity.run.resolving import Given, Loaded
from pytest_llmparity.settings.file import EngineTable
from pytest_llmparity.settings.selection import Entry
from pytest_llmparity.settings.specification import EngineSpec, EnvRef, Settings

COMMAND_LINE: Final = "command line"
DEFAULT: Final = "default"
ALWAYS: Final = (
    *("route", "download", "strict_pins", "request_timeout_s", "idle_timeout_s", "connect_timeout_s", "reconnect_s"),
)
"""Keys of an engine that are in force whether or not anybody set them; others are shown where they are set."""
SHOWN: Final = (
    *("kind", "model", "base_url", "revision", "python", "requires", "extra_index_urls", "constraints", "overrides"),
    *("command", "args", "env", "headers", "api_key_env", "context_length", "slots", "ca_bundle", "proxy"),
    *("start_timeout_s", *ALWAYS),
)


def of_engine(spec: EngineSpec, entry: Entry, loaded: Loaded, *, environ: Mapping[str, str]) -> Iterator[Setting]:
    """Yield the values of one engine in force, each with what set it. Of keys and variables only names are told."""
    table = None if loaded.config is None or entry.configured is None else loaded.config.engines[entry.configured]
    where = "" if loaded.config is None else f"{loaded.config.source}: "
    inside = () if loaded.config is None else (*loaded.config.table, "engines", entry.configured or "")
    named = COMMAND_LINE if loaded.named_by == "--engines" else loaded.named_by
    for key in SHOWN:
        text = _text(_value(spec, key))
        if not text:
            continue
        origin = _origin(key, entry, table, file=f"{where}{dotted((*inside, key))}", named=named)
        if key == "base_url" and spec.daemon:
            origin = "found running"
        if key == "api_key_env" and not environ.get(text, "").strip():
            text += " (not set)"
        yield Setting(key=key, value=text, origin=origin)
    for field, value in spec.pin.items():
        yield Setting(key=f"pin.{field}", value=str(value), origin=f"{where}{dotted((*inside, 'pin', field))}")
    yield Setting(
        key="launch",
        value=spec.launch,
        origin=_launch_origin(spec, table),
    )


def _value(spec: EngineSpec, key: str) -> object:
    if key == "env":
        return {**spec.env, **{name: EnvRef(variable) for name, variable in spec.env_from.items()}}
    return getattr(spec, key)


def _launch_origin(spec: EngineSpec, table: EngineTable | None) -> str:
    if spec.daemon:
        return f"the {spec.kind} that is running has the model"
    if table is not None and table.launch is not None:
        return "launch is given"
    return "base_url is given" if spec.launch == "attach" else "no base_url is given"


def _origin(key: str, entry: Entry, table: EngineTable | None, *, file: str, named: str) -> str:
    if table is not None:
        return file if key in table.model_fields_set else DEFAULT
    return named if getattr(entry, key, None) is not None else DEFAULT


def of_run(settings: Settings, given: Given, loaded: Loaded) -> Iterator[Setting]:
    """Yield what concerns all engines, each value with what set it."""
    named = COMMAND_LINE if loaded.named_by == "--engines" else loaded.named_by
    yield Setting(key="engines", value=", ".join(spec.name for spec in settings.engines), origin=named)
    yield Setting(key="baseline", value=settings.baseline or "", origin=settings.baseline_source)
    for key in ("concurrency", "residency", "gather", "inconclusive", "max_requests", "budget"):
        value = getattr(settings, "budget_s" if key == "budget" else key)
        if value is not None:
            yield Setting(key=key, value=_text(value), origin=_of_run(key, given, loaded))


def _of_run(key: str, given: Given, loaded: Loaded) -> str:
    if key not in ("concurrency", "residency", "gather"):
        asked, source = given.find(key)
        if asked is not None and source:
            return source
    if getattr(loaded.profile, key, None) is not None:
        return f"profile {given.value('profile')}"
    if loaded.config is not None and getattr(loaded.config.content, key, None) is not None:
        return f"{loaded.config.source}: {dotted((*loaded.config.table, key))}"
    return DEFAULT


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, EnvRef):
        return f"${value.env}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_text(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(_text, value))
    return "" if value is None else str(value)
