"""Servers that are running already: the daemon that the name of a model means, and what listens at known ports.

Everything here is asked before collection, while a person waits, so each question has a total and none is fatal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from pytest_llmparity.core.errors import EngineError, EngineSelectionError, LLMParityError
from pytest_llmparity.engines import recognise
from pytest_llmparity.engines.facts.values import mappings, names, string
from pytest_llmparity.engines.wire.control import Control
from pytest_llmparity.engines.wire.refusals import shown
from pytest_llmparity.settings.selection import KINDS, address_of
from pytest_llmparity.settings.specification import EngineSpec

T = TypeVar("T")

TOTAL_S: Final = 2.0
"""How long finding out about all daemons, or all ports, may take. Loopback answers in milliseconds."""

OLLAMA_PORT: Final = 11434
LMSTUDIO = "http://127.0.0.1:1234"
PORTS: Final = (1234, 8000, 8080, 30000, 4000, 3000, 5000, 5001, 1337, 12434)
"""Where servers listen that are started without an option: LM Studio; vLLM, transformers and llama-cpp-python;
llama.cpp, MLX and LocalAI; SGLang; LiteLLM; TGI; text-generation-webui; KoboldCpp; Jan; Docker's model runner."""

HOW_TO_START: Final = {
    "ollama": "ollama serve",
    "lmstudio": "lms daemon up && lms server start --port 1234",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that answered: what it is, where, and the models it lists."""

    kind: str
    base_url: str
    models: tuple[str, ...] = ()


# ---- where a daemon is -----------------------------------------------------------------------------------------------


def address(kind: str, environ: Mapping[str, str]) -> str:
    """Return where the daemon of a kind listens; ``EngineSelectionError`` where ``OLLAMA_HOST`` is no address."""
    if kind != "ollama":
        return LMSTUDIO
    return ollama_address(environ.get("OLLAMA_HOST", ""))


def ollama_address(host: str) -> str:
    """Return the URL that a value of ``OLLAMA_HOST`` means to a client (Ollama's envconfig, ``Host``).

    Host, port and scheme may each be missing; an address that means *every interface* to a server is loopback.

    >>> ollama_address("0.0.0.0"), ollama_address(":11500"), ollama_address("https://gpu")
    ('http://127.0.0.1:11434', 'http://127.0.0.1:11500', 'https://gpu:443')
    """
    scheme, sign, behind = host.strip().strip("\"'").strip().partition("://")
    if not sign:
        scheme, behind = "http", scheme
    own = {"http": 80, "https": 443}.get(scheme.lower(), OLLAMA_PORT) if sign else OLLAMA_PORT
    place, slash, path = behind.partition("/")
    name, port = _split_port(place)
    number = int(port) if port.isascii() and port.isdigit() and int(port) <= 65535 else own
    try:
        return address_of(f"{scheme}://{_connectable(name)}:{number}{slash}{path}").root
    except ValueError as error:
        raise EngineSelectionError(
            f"the daemon of Ollama is where OLLAMA_HOST says, and that {error}; write host:port there"
        ) from None


def _split_port(place: str) -> tuple[str, str]:
    if place.startswith("["):
        inside, _, port = place[1:].partition("]")
        return inside, port.removeprefix(":")
    if place.count(":") > 1:
        return place, ""  # an IPv6 address
    name, _, port = place.partition(":")
    return name, port


def _connectable(name: str) -> str:
    try:
        ip = ipaddress.ip_address(name)
    except ValueError:
        return name or "127.0.0.1"
    if ip.is_unspecified:
        return "127.0.0.1" if ip.version == 4 else "[::1]"
    return f"[{ip}]" if ip.version == 6 else str(ip)


# ---- the daemon a model's name means ---------------------------------------------------------------------------------


def settle(
    specs: Sequence[EngineSpec], environ: Mapping[str, str], *, decided: Mapping[str, str] | None = None
) -> tuple[EngineSpec, ...]:
    """Return the specs with every ``daemon`` decided: attached where the daemon answers and has the model.

    The others are started by us, as far as their kind can be: ``EngineSelectionError`` says of all those that cannot
    what to do. ``decided`` has the addresses of those that another process of this run found attached, by name, so
    that nobody asks a second time.
    """
    open_ones = [spec for spec in specs if spec.daemon]
    if not open_ones:
        return tuple(specs)
    if decided is None:
        places = list(dict.fromkeys((spec.kind or "", address(spec.kind or "", environ)) for spec in open_ones))
        listings = dict(zip(places, _together([functools.partial(running, *place) for place in places]), strict=True))
    settled, problems = [], []
    for spec in specs:
        if not spec.daemon:
            settled.append(spec)
            continue
        kind = spec.kind or ""
        if decided is not None:
            there = decided.get(spec.name)
        else:
            place = address(kind, environ)
            there = place if has(listings[kind, place], spec.model or "") else None
            if there is None and spec.launch == "attach":
                problems.append(_absent(spec, place, listings[kind, place]))
        settled.append(_attached(spec, there) if there else dataclasses.replace(spec, daemon=False))
    if problems:
        raise EngineSelectionError("\n".join(problems))
    return tuple(settled)


def _attached(spec: EngineSpec, base_url: str) -> EngineSpec:
    """Attach a spec to a daemon. What would have been asked of an engine of our own has to be so there."""
    wanted = {"context_length": spec.context_length} if spec.route != "native" else {}
    pins = {name: value for name, value in wanted.items() if value is not None}
    return spec.found_running(base_url, pins)


def _absent(spec: EngineSpec, place: str, daemon: Running | None) -> str:
    kind, head = spec.kind or "", f"--engines: {spec.name} ({spec.kind}:{spec.model})"
    if daemon is None:
        return (
            f"{head}: no {kind} answers at {place}. Start it ({HOW_TO_START.get(kind, 'as its manual says')}), or say "
            f"where it is: {kind}:{spec.model}@URL, or base_url in the configuration"
        )
    known = ", ".join(shown(model, 80) for model in daemon.models[:20]) or "none"
    fetch = {"lmstudio": "lms get", "ollama": "ollama pull"}.get(kind, "fetch")
    return f"{head}: the {kind} at {place} has no such model; it has {known}. Fetch it with: {fetch} {spec.model}"


def holder(kind: str, model: str, environ: Mapping[str, str]) -> str:
    """Return the address of the running daemon that has a model, empty when there is none."""
    try:
        place = address(kind, environ)
        [daemon] = _together([functools.partial(running, kind, place)])
    except LLMParityError:
        return ""
    return place if has(daemon, model) else ""


def has(daemon: Running | None, model: str) -> bool:
    """Tell whether a daemon lists a model under this name; Ollama's may leave the tag ``latest`` and its host out."""
    if daemon is None:
        return False
    if daemon.kind != "ollama":
        return model in daemon.models
    return full_name(model) in map(full_name, daemon.models)


def full_name(name: object) -> str:
    """Return a name of a model as Ollama lists it: with its tag, without the default registry, in one case."""
    text = str(name or "").casefold()
    text = text.removeprefix("registry.ollama.ai/").removeprefix("library/")
    return text if ":" in text.rpartition("/")[2] else f"{text}:latest"


def running(kind: str, base_url: str) -> Running | None:
    """Return the daemon of a kind at an address with the models it has; ``None`` where none of that kind answers."""
    control = Control(engine=kind, base_url=base_url, headers={})
    if kind == "ollama":
        version, tags = control.ask("/api/version"), control.ask("/api/tags")
        there = isinstance(version.get("version"), str) and isinstance(tags.get("models"), list)
        models = names(tags, "models", "name") if there else None
    else:
        models = _lmstudio(control)
    return None if models is None else Running(kind=kind, base_url=base_url, models=tuple(dict.fromkeys(models)))


def _lmstudio(control: Control) -> list[str] | None:
    listed = control.ask("/api/v1/models")
    if not isinstance(listed.get("models"), list):
        old = control.ask("/api/v0/models")  # before 0.4.0
        return names(old) if isinstance(old.get("data"), list) else None
    entries = mappings(listed["models"])
    stored = [string(entry.get(key)) for entry in entries for key in ("key", "selected_variant")]
    loaded = [name for entry in entries for name in names(entry, "loaded_instances")]
    return [name for name in (*stored, *loaded) if name]


# ---- what is running here --------------------------------------------------------------------------------------------


def listening(
    environ: Mapping[str, str], *, ports: Sequence[int] = PORTS, total_s: float = TOTAL_S
) -> tuple[Running, ...]:
    """Return the inference servers that answer on this machine, at Ollama's address and at known ports."""
    places = _places(environ, ports)
    answers = _together([functools.partial(_listening, url) for url in places], total_s=total_s)
    return tuple(server for server in answers if server is not None)


def _places(environ: Mapping[str, str], ports: Sequence[int]) -> list[str]:
    """Return the addresses where a server of this machine may listen, Ollama's first."""
    try:
        ollama = address("ollama", environ)
    except EngineSelectionError:
        ollama = ollama_address("")
    return list(dict.fromkeys([ollama, *(f"http://127.0.0.1:{port}" for port in ports)]))


def offer(
    words: Sequence[str], environ: Mapping[str, str], *, ports: Sequence[int] = PORTS, total_s: float = TOTAL_S
) -> str:
    """Return what was found running on this machine and the ``--engines`` line that would use it.

    ``words`` are the kinds that were asked for by their bare name.
    """
    places = _places(environ, ports)
    ollama = places[0]
    servers = listening(environ, ports=ports, total_s=total_s)
    if not servers:
        return f"Nothing was found running here (asked: {', '.join(_short(url) for url in places)})."
    lines = ["Found running on this machine:"]
    for server in servers:
        known = ", ".join(shown(model, 80) for model in server.models[:5]) or "no model listed"
        more = f" and {len(server.models) - 5} more" if len(server.models) > 5 else ""
        lines.append(f"  {server.kind} at {server.base_url}: {known}{more}")
    chosen = [next((server for server in servers if server.kind == word and server.models), None) for word in words]
    if usable := [_entry(server, ollama) for server in chosen if server is not None]:
        lines.append(f"This would use {'it' if len(usable) == 1 else 'them'}: --engines {','.join(usable)}")
    if missing := [word for word, server in zip(words, chosen, strict=True) if server is None]:
        lines.append(f"Not found with a model: {', '.join(missing)}.")
    return "\n".join(lines)


def _entry(server: Running, ollama: str) -> str:
    meant = f"{server.kind}:{server.models[0]}"
    return meant if server.kind == "ollama" and server.base_url == ollama else f"{meant}@{server.base_url}"


def _short(url: str) -> str:
    return url.partition("://")[2]


def _listening(base_url: str) -> Running | None:
    """Return the inference server at an address, ``None`` where none answers: most ports belong to other programs."""
    if not _accepts(base_url):
        return None
    control = Control(engine=base_url, base_url=base_url, headers={})
    try:
        kind = recognise.kind_of(recognise.seen(control))
    except EngineError:
        return None
    if (daemon := running(kind, base_url) if kind in ("ollama", "lmstudio") else None) is not None:
        return daemon
    listed = control.ask("/v1/models")
    if not isinstance(listed.get("data"), list) and kind == recognise.GENERIC:
        return None
    return Running(kind=kind if kind in KINDS else recognise.GENERIC, base_url=base_url, models=tuple(names(listed)))


def _accepts(base_url: str) -> bool:
    host, _, port = _short(base_url).partition("/")[0].rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=TOTAL_S / 2):
            return True
    except (OSError, ValueError):
        return False


def _together(questions: Sequence[Callable[[], T | None]], *, total_s: float = TOTAL_S) -> list[T | None]:
    """Return the answers to questions asked at once; ``None`` for one without an answer when ``total_s`` is over.

    Threads that are left behind are daemons, which hold nobody up.
    """
    answers: list[T | None] = [None] * len(questions)

    def ask(place: int) -> None:
        with contextlib.suppress(LLMParityError):
            answers[place] = questions[place]()

    threads = [threading.Thread(target=ask, args=(place,), daemon=True) for place in range(len(questions))]
    until = time.monotonic() + total_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return list(answers)


def to_text(specs: Sequence[EngineSpec]) -> str:
    """Return which specs were attached to a daemon, as text that other processes of the run are given."""
    return json.dumps({spec.name: spec.base_url for spec in specs if spec.daemon})


def from_text(text: str) -> Mapping[str, str]:
    """Return what :func:`to_text` wrote."""
    addresses: dict[str, str] = json.loads(text)
    return addresses
