"""What configuration and options come down to: one value per selected engine, one value for the whole run.

Plain dataclasses without pydantic, so that an unused plugin can name them at no cost.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Launch = Literal["attach", "process", "golden"]
Route = Literal["openai", "native"]
Residency = Literal["together", "one-at-a-time"]
Gather = Literal["side-by-side", "in-turn"]
Inconclusive = Literal["show", "fail", "skip"]
Mode = Literal["live", "replay"]
Resume = Literal["auto", "resume", "fresh", "retry"]

DEFAULT_CONCURRENCY = 4
"""Requests in flight per engine when neither marker, profile nor file says otherwise."""


_DURATION = re.compile(r"(?=\d)(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s?)?", re.ASCII)


def seconds(text: str) -> float:
    """Read a duration: ``900`` (seconds), ``90s``, ``15m``, ``2h``, ``1h30m``. ``ValueError`` unless it is above zero.

    >>> seconds("1h30m")
    5400.0
    """
    match = _DURATION.fullmatch(text)
    hours, minutes, rest = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = hours * 3600 + minutes * 60 + rest
    if total == 0:
        raise ValueError(f"{text[:40]!r} is no time above zero; write 900 (seconds), 90s, 15m or 1h30m")
    return float(total)


@dataclass(frozen=True, slots=True)
class EnvRef:
    """A value that is read from the environment variable ``env`` when it is needed, and never stored."""

    env: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """One selected engine, everything known before it is touched.

    ``kind`` is ``None`` for a bare URL, whose server is asked what it is. ``base_url`` is the root, without a trailing
    ``/`` or ``/v1``; with it we attach, without it ``launch`` is ``process`` and we start the engine. ``api`` is what
    OpenAI's routes start with below the root, ``None`` where nobody said so: ``/v1``, or nothing. ``model`` is the
    name as written, ``model_path`` the absolute local file or folder it stands for, if it is one. ``context_length`` is
    what one request gets, in tokens. ``pin`` is held against what the server reports; with ``strict_pins`` a pin the
    server cannot confirm counts as contradicted. ``requires`` are the packages of an isolated environment the engine
    is run from, with ``extra_index_urls``, ``constraints`` and ``overrides`` as uv understands them. ``command``
    replaces the program that is started, ``args`` are added to it. ``env`` is laid over its environment, and so is
    ``env_from``, whose values are names of variables to read. ``daemon`` means the server of this kind that is running
    already, if it has the model (``engines.daemons`` finds out; then ``base_url`` is its address). Times are seconds;
    ``start_timeout_s`` ``None`` leaves the deadline to the kind; ``reconnect_s`` is how long a server we attach to may
    be away while it is asked.
    """

    name: str
    kind: str | None = None
    model: str | None = None
    base_url: str | None = None
    api: str | None = None
    launch: Launch = "attach"
    daemon: bool = False
    revision: str | None = None
    python: str | None = None
    requires: tuple[str, ...] = ()
    extra_index_urls: tuple[str, ...] = ()
    constraints: Path | None = None
    overrides: Path | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    env_from: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str | EnvRef] = field(default_factory=dict)
    api_key_env: str | None = None
    route: Route = "openai"
    pin: Mapping[str, str | int | float] = field(default_factory=dict)
    strict_pins: bool = False
    context_length: int | None = None
    slots: int | None = None
    ca_bundle: Path | None = None
    proxy: str | None = None
    download: bool = False
    start_timeout_s: float | None = None
    request_timeout_s: float = 300.0
    idle_timeout_s: float = 120.0
    connect_timeout_s: float = 10.0
    reconnect_s: float = 30.0
    model_path: Path | None = None
    golden: str | None = None

    @property
    def spec_hash(self) -> str:
        """Hex sha256 of everything but the name: two engines with the same hash were configured the same.

        Secrets are not in it, because a spec holds only the names of their variables.
        """
        content = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "name"}
        text = json.dumps(content, sort_keys=True, default=_plain)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def secret_variables(self) -> tuple[str, ...]:
        """Names of the environment variables whose values must never be written down."""
        names = [self.api_key_env] if self.api_key_env else []
        names += [value.env for value in self.headers.values() if isinstance(value, EnvRef)]
        names += self.env_from.values()
        return tuple(dict.fromkeys(names))


def _plain(value: object) -> object:
    if isinstance(value, EnvRef):
        return {"env": value.env}
    return str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every option of a run, resolved once: command line, environment, profile, file, default (in this order).

    ``engines`` are in the order selected, by the entries of ``selection``; ``baseline`` is the name of one of them and
    ``baseline_source`` says which setting named it. ``concurrency`` is what a marker may still override.
    ``max_requests`` and ``budget_s`` (seconds) are hard stops, ``None`` for none. ``sequential`` stops asking when
    nothing is open. ``cases`` restricts the run to rows with these ids and forbids verdicts. ``frozen`` refuses engines
    that are not as the lock file says. ``replay_run`` is the run to judge again in mode ``replay``, ``None`` for the
    newest. ``out`` and ``config_path`` are absolute. ``key_variables`` are the names of every configured engine's
    secrets, selected or not: an engine's process gets its own only. ``gather`` says whether engines are asked at the
    same time; ``None`` leaves it to their addresses.
    """

    engines: tuple[EngineSpec, ...] = ()
    selection: tuple[str, ...] = ()
    baseline: str | None = None
    baseline_source: str = ""
    config_path: Path | None = None
    profile: str | None = None
    required: bool = False
    mode: Mode = "live"
    replay_run: str | None = None
    resume: Resume = "auto"
    inconclusive: Inconclusive = "show"
    max_requests: int | None = None
    budget_s: float | None = None
    sequential: bool = False
    cases: tuple[str, ...] = ()
    reports: tuple[str, ...] = ()
    out: Path = field(default_factory=lambda: Path(".llmparity/report"))
    concurrency: int = DEFAULT_CONCURRENCY
    residency: Residency = "together"
    gather: Gather | None = None
    key_variables: tuple[str, ...] = ()
    frozen: bool = False

    def in_turn(self) -> list[EngineSpec]:
        """Return the engines in the order they are asked: the baseline first, then as selected."""
        return sorted(self.engines, key=lambda spec: spec.name != self.baseline)

    def engine(self, name: str) -> EngineSpec:
        """Return the selected engine with this name; ``KeyError`` if it is not selected."""
        for spec in self.engines:
            if spec.name == name:
                return spec
        raise KeyError(name)
