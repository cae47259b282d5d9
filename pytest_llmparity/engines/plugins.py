"""Kinds of engine that come with other distributions: entry points of the group ``llmparity.engines``.

Read only when a run asks for engines, so an installed but unused adapter costs nothing.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from typing import Final

from pytest_llmparity.core.errors import EngineSelectionError
from pytest_llmparity.engines import registry

GROUP: Final = "llmparity.engines"
"""The entry-point group; an entry's name is the kind, its value the class: ``koboldcpp = "my_package:KoboldCpp"``."""


def discover() -> None:
    """Make the kinds of every installed distribution known.

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
            registry.add(loaded)
        except EngineSelectionError as error:
            raise _broken(entry, f"cannot be used: {error}") from None


def bring(adapters: object, *, by: str) -> None:
    """Make the kinds known that this run's own code brings; ``EngineSelectionError`` begins with ``by``."""
    if isinstance(adapters, type) or not isinstance(adapters, Iterable):
        raise EngineSelectionError(f"{by} returned {adapters!r}; expected a list of adapter classes.")
    for adapter in adapters:
        try:
            registry.add(adapter)
        except EngineSelectionError as error:
            raise EngineSelectionError(f"{by}: {error}") from None


def _broken(entry: importlib.metadata.EntryPoint, what: str) -> EngineSelectionError:
    source = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "a nameless distribution"
    return EngineSelectionError(
        f"The engine {entry.name!r} ({entry.value}) of {source} {what} Correct, update or uninstall {source}."
    )
