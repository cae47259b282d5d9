"""The configuration: ``llmparity.toml``, or ``[tool.llmparity]`` in ``pyproject.toml``."""

from __future__ import annotations

from pytest_llmparity.core.settings import EngineSpec, EnvRef, Settings

__all__ = ["EngineSpec", "EnvRef", "Settings"]
