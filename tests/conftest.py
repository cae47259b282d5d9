"""Shared by every test: pytest's own harness for plugins, and a real Ollama where there is one."""

from __future__ import annotations

import os
import signal
import sys

from hypothesis import settings
from platformdirs import user_cache_path

pytest_plugins = ["pytester", "tests.real_ollama"]

# A busy machine must not fail a property because one example took long; a build that failed must fail again.
settings.register_profile("daily", deadline=None, max_examples=25)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "daily")

# A job in the background ignores Ctrl-C, and so would what its tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Where byte code is forbidden, as in many images, each of hundreds of processes would compile all that it imports.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(user_cache_path("pytest-llmparity") / "bytecode")
