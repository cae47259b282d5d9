"""Shared by every test: pytest's own harness for plugins, and a real Ollama where there is one."""

from __future__ import annotations

import os

from hypothesis import settings

pytest_plugins = ["pytester", "tests.real_ollama"]

# A busy machine must not fail a property because one example took long; a build that failed must fail again.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "here")
