"""Test doubles for code that talks to inference engines: real HTTP on loopback, no patching.

>>> from pytest_llmparity.testing import Fault, LoopbackEngine
>>> with LoopbackEngine("Paris.") as engine:
...     engine.base_url.startswith("http://127.0.0.1:")
True

:class:`LoopbackEngine` is an engine whose answers, drift and faults a test decides; :class:`Abilities` say what it does
with schemas, tools and prompts that do not fit. :class:`Replay` serves recordings of real engines piece by piece.
"""

from pytest_llmparity.testing.abilities import Abilities
from pytest_llmparity.testing.loopback import LoopbackEngine, Received
from pytest_llmparity.testing.replay import Replay
from pytest_llmparity.testing.script import Fault, Reply

__all__ = ["Abilities", "Fault", "LoopbackEngine", "Received", "Replay", "Reply"]
