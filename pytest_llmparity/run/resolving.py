"""Options become settings with the kinds of engine that are installed and the daemons that are running here."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_llmparity.engines import daemons, registry
from pytest_llmparity.settings import resolving
from pytest_llmparity.settings.resolving import Given
from pytest_llmparity.settings.specification import Settings


def resolve(given: Given, *, otherwise_all: bool = False, decided: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of a run as ``settings.resolving.resolve`` does.

    Kinds of engine of installed distributions are known from here on. A model's name may mean a daemon that is running:
    it is looked for, unless ``decided`` says what another process of this run found.
    """
    registry.discover()
    return resolving.resolve(
        given,
        kinds=registry.known(),
        settle=lambda specs: daemons.settle(specs, given.environ, decided=decided),
        offer=lambda kinds: daemons.offer(kinds, given.environ),
        otherwise_all=otherwise_all,
    )
