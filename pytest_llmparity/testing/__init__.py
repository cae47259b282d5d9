"""Test doubles for code that talks to inference engines: real HTTP on loopback, no patching.

>>> from pytest_llmparity.testing import Fault, LoopbackEngine
>>> with LoopbackEngine("Paris.") as engine:
...     engine.base_url.startswith("http://127.0.0.1:")
True

:class:`LoopbackEngine` is an engine whose answers, drift and faults a test decides, and whose methods a subclass may
replace, for a server that says some things otherwise. :class:`Replay` serves recordings of real engines piece by piece.
:class:`FaultProxy` makes any engine another one by a change that is known: ``proxy.hidden_system("Be brief.")``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from pytest_llmparity.testing.loopback import LoopbackEngine, Received
from pytest_llmparity.testing.script import Fault, Reply

__all__ = ["Fault", "FaultProxy", "LoopbackEngine", "Received", "Replay", "Reply"]

if TYPE_CHECKING:
    from pytest_llmparity.testing.proxy import FaultProxy
    from pytest_llmparity.testing.replay import Replay
else:

    def __getattr__(name: str) -> object:
        """Import what reads recordings, or asks another server, when it is asked for: it takes longer than the rest."""
        modules = {"FaultProxy": "proxy", "Replay": "replay"}
        if name not in modules:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{modules[name]}"), name)
