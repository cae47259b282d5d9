"""Libraries that take longer to import than all the rest of a check, imported when they are first used.

A suite whose parity tests are not selected, ``--collect-only`` and a run that is refused compute nothing (but the power
of prompts that share groups, which the plan shows); writing ``check.text()`` should cost them nothing either. Used like
the modules themselves: ``from pytest_llmparity.core.late import np, special``, then ``np.array(...)``; what needs
numpy's types for annotations only imports them under ``TYPE_CHECKING``.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

__all__ = ["Floats", "distance", "jsonschema_rs", "np", "special"]


_MODULES: Final = ("numpy", "scipy.special", "rapidfuzz.distance", "jsonschema_rs")
"""In the order of the names below."""


class _Late:
    """A module that is imported when the first of its names is asked for.

    Names are not kept: a suite that replaces one in the module for a while means every use of it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._module: ModuleType | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # whoever looks at this object (copy, inspect, doctest) does not ask for the module
            raise AttributeError(name)
        if self._module is None:
            self._module = import_module(self._name)
        return getattr(self._module, name)


def load() -> None:
    """Import all of them, for a moment in which nothing else is to do; whoever uses one that is missing is told so."""
    for name in _MODULES:
        with suppress(Exception):
            import_module(name)


if TYPE_CHECKING:
    import jsonschema_rs
    import numpy as np
    from numpy.typing import NDArray
    from rapidfuzz import distance
    from scipy import special

    Floats = NDArray[np.float64]
else:
    Floats = Any
    np, special, distance, jsonschema_rs = map(_Late, _MODULES)
