"""This package as if it had been installed from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_llmparity.extras import PACKAGE


def installed_from(origin: Mapping[str, object] | None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first thing that is found of this package say where it came from: ``None`` is a registry."""
    about = folder / f"{PACKAGE.replace('-', '_')}-9.9.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 9.9\n")
    if origin is not None:
        (about / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(folder)
