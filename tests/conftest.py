"""Shared by every test: pytest's own harness for plugins, and a real Ollama where there is one."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

pytest_plugins = ["pytester", "tests.real_ollama"]

# A busy machine must not fail a property because one example took long; a build that failed must fail again.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "here")

# A job in the background ignores Ctrl-C, and so would what its tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
