"""Run the same prompts on several LLM inference engines and learn, with a stated error rate, whether they agree.

Users need two names: ``from pytest_llmparity import check`` builds checks for the ``parity`` marker;
``pytest_llmparity.testing`` has engines to test against. Everything is imported when it is used.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["__version__", "check", "testing"]


def __getattr__(name: str) -> ModuleType | str:
    if name in ("check", "testing"):
        return import_module(f"{__name__}.{name}")
    if name == "__version__":
        version: str = import_module("importlib.metadata").version("pytest-llmparity")
        return version
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
