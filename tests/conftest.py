"""Shared by every test: pytest's own harness for plugins."""

from __future__ import annotations

pytest_plugins = ["pytester"]
