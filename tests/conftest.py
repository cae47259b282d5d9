"""Shared by every test: pytest's own harness for plugins."""

from __future__ import annotations

from hypothesis import settings

pytest_plugins = ["pytester"]

# A busy machine must not fail a property because one example took long.
settings.register_profile("llmparity", deadline=None)
settings.load_profile("llmparity")
