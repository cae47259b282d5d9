"""The folder that is ours below the user's cache: what may be deleted at any time and costs time to make again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def folder(environ: Mapping[str, str]) -> Path:
    """Return ``pytest-llmparity`` below ``XDG_CACHE_HOME``, else below ``~/.cache``; nothing is made."""
    named = environ.get("XDG_CACHE_HOME", "")
    base = Path(named) if os.path.isabs(named) else Path("~/.cache").expanduser()  # the standard ignores relative ones
    return base / "pytest-llmparity"
