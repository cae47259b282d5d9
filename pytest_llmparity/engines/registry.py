"""Which kinds of engine there are, those that come with other distributions included, and the adapter of a spec."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from pytest_llmparity.core.errors import EngineSelectionError
from pytest_llmparity.core.sample import Sampling
from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.engines import recognise
from pytest_llmparity.engines.played import played
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.control import resolve_headers
from pytest_llmparity.settings.selection import KINDS, LETTERS, NAME, Kind
from pytest_llmparity.settings.specification import EngineSpec

GROUP: Final = "llmparity.engines"
"""The entry-point group; an entry's name is the kind, its value the class: ``koboldcpp = "my_package:KoboldCpp"``."""

_RESERVED: Final = {"golden", "http", "https", "replay"}
"""Words that lead an entry of ``--engines`` of another form."""

_added: dict[str, type[Adapter]] = {}


def add(adapter: object) -> None:
    """Make a kind known that comes from elsewhere. Adding the same class again changes nothing.

    ``EngineSelectionError`` when it is no adapter, its name is taken or something about it cannot work.
    """
    if not isinstance(adapter, type) or not issubclass(adapter, Adapter):
        raise EngineSelectionError(f"{adapter!r} is no subclass of pytest_llmparity.adapter.Adapter.")
    kind, name = adapter.kind, f"{adapter.__module__}.{adapter.__qualname__}"
    problem = _problem(adapter)
    if problem:
        raise EngineSelectionError(f"{name} {problem}.")
    if _added.get(kind) is adapter:
        return
    if kind in KINDS or kind in _added:
        owner = _added[kind].__module__ if kind in _added else __package__
        raise EngineSelectionError(
            f"{name} brings an engine kind {kind!r}, and {owner} has one of that name; give it another name."
        )
    _added[kind] = adapter


def discover() -> None:
    """Make the kinds of every installed distribution known: those at entry points of :data:`GROUP`.

    Asked only when a run has engines, so an installed but unused adapter costs nothing.

    ``EngineSelectionError`` names the distribution whose entry point cannot be loaded, is no adapter, brings another
    kind than it is named after, or brings one that is taken.
    """
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            loaded = entry.load()
        except Exception as error:
            raise _broken(entry, f"cannot be loaded ({type(error).__name__}: {error}).") from error
        if getattr(loaded, "kind", entry.name) != entry.name:
            raise _broken(entry, f"brings the kind {loaded.kind!r} and has to be named after it.")
        try:
            add(loaded)
        except EngineSelectionError as error:
            raise _broken(entry, f"cannot be used: {error}") from None


def bring(adapters: object, *, by: str) -> None:
    """Make the kinds known that this run's own code brings; ``EngineSelectionError`` begins with ``by``."""
    if isinstance(adapters, type) or not isinstance(adapters, Iterable):
        raise EngineSelectionError(f"{by} returned {adapters!r}; expected a list of adapter classes.")
    for adapter in adapters:
        try:
            add(adapter)
        except EngineSelectionError as error:
            raise EngineSelectionError(f"{by}: {error}") from None


def _broken(entry: importlib.metadata.EntryPoint, problem: str) -> EngineSelectionError:
    source = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "a nameless distribution"
    return EngineSelectionError(
        f"The engine {entry.name!r} ({entry.value}) of {source} {problem} Correct, update or uninstall {source}."
    )


def added() -> Mapping[str, type[Adapter]]:
    """Return the kinds that come from elsewhere, as they are now."""
    return dict(_added)


def restore(before: Mapping[str, type[Adapter]]) -> None:
    """Go back to what :func:`added` returned earlier, for the end of the run that brought more."""
    _added.clear()
    _added.update(before)


def _problem(adapter: type[Adapter]) -> str:
    """Return the end of a sentence about an adapter class that cannot work; empty when nothing is wrong with it."""
    kind: object = adapter.kind
    if not isinstance(kind, str) or not NAME.fullmatch(kind) or kind in _RESERVED:
        return f"has kind {kind!r}; {LETTERS}, and {', '.join(sorted(_RESERVED))} mean something else"
    unknown = sorted(set(adapter.fields) - set(Sampling.__dataclass_fields__))
    if unknown:
        return f"maps {', '.join(unknown)} in fields, which are no sampling parameters: write our name, then the wire's"
    if not isinstance(inspect.getattr_static(adapter, "launch"), classmethod):
        return "has a launch that is no classmethod: it is asked before there is a server"
    return ""


def known() -> Mapping[str, Kind]:
    """Return what the core must know of every kind, those from elsewhere included; loads no adapter of ours."""
    return {**KINDS, **{name: facts(adapter) for name, adapter in _added.items()}}


def facts(adapter: type[Adapter]) -> Kind:
    """Return what the core must know of an adapter's kind, read from the class."""
    launch = inspect.getattr_static(adapter, "launch")
    return Kind(
        starts=launch is not inspect.getattr_static(Adapter, "launch"),
        local_model=adapter.local_model,
        routes=adapter.routes,
        unloads=adapter.unloads,
        daemon=adapter.daemon,
        listens=adapter.listens,
    )


def kinds() -> Mapping[str, type[Adapter]]:
    """Return every kind with its adapter class."""
    return {name: adapter_for(name) for name in sorted({*KINDS, *_added})}


def adapter_for(kind: str) -> type[Adapter]:
    """Return the adapter class of a kind that was written down; ``EngineSelectionError`` names the nearest one."""
    if kind in _added:
        return _added[kind]
    if kind in KINDS:  # its module is named after it, and loaded when a run names the kind
        home = vars(importlib.import_module(f"pytest_llmparity.engines.kinds.{kind.replace('-', '_')}"))
        adapter: type[Adapter] = next(value for value in home.values() if getattr(value, "kind", None) == kind)
        return adapter
    names = sorted({*KINDS, *_added})
    close = nearest(kind, names)
    other = "" if close else " Any server with OpenAI's API can be used as kind 'openai'."
    raise EngineSelectionError(f"There is no engine kind {kind!r}{close}; known are {', '.join(names)}.{other}")


def adapter_of(spec: EngineSpec) -> type[Adapter]:
    """Return the adapter class of an engine; raises as :func:`adapter_for`."""
    adapter = adapter_for(spec.kind or recognise.GENERIC)
    return adapter if spec.recording is None else played(adapter)


def make(
    spec: EngineSpec, base_url: str, *, environ: Mapping[str, str], time_left: Callable[[], float | None] = lambda: None
) -> Adapter:
    """Return the adapter for a spec around the server at ``base_url``.

    Header variables are read from ``environ`` (``ConfigError`` if one is not set). The server of a spec without a kind
    is recognised. ``time_left`` is how many seconds the run may still take: no control call lasts longer.
    """
    headers = resolve_headers(spec, environ)
    adapter = adapter_of(spec)(spec, base_url, headers)
    adapter.time_left = time_left
    if spec.kind is None:
        seen = recognise.seen(adapter.control)
        adapter = adapter_for(recognise.kind_of(seen))(spec, base_url, headers)
        adapter.recognised, adapter.time_left = seen, time_left
    return adapter
