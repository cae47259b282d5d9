"""Where a project is that nobody named."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path


def project_root(cwd: Path) -> Path:
    """Return what pytest, started in ``cwd`` without arguments, takes for its rootdir.

    That is the nearest folder upwards with a configuration of pytest; where there is none, with a ``pyproject.toml``,
    a ``setup.py``, else ``cwd`` itself.
    """
    upwards = (cwd, *cwd.parents)
    for marks in (_configures_pytest, _holds("pyproject.toml"), _holds("setup.py")):
        for folder in upwards:
            if marks(folder):
                return folder
    return cwd


def _holds(name: str) -> Callable[[Path], bool]:
    return lambda folder: (folder / name).is_file()


def _configures_pytest(folder: Path) -> bool:
    if any((folder / name).is_file() for name in ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini")):
        return True
    sections = {"tox.ini": r"^\[pytest\]", "setup.cfg": r"^\[tool:pytest\]"}
    if any(re.search(section, _readable(folder / name), re.MULTILINE) for name, section in sections.items()):
        return True
    try:
        return bool(tomllib.loads(_readable(folder / "pyproject.toml")).get("tool", {}).get("pytest"))
    except tomllib.TOMLDecodeError:
        return False


def _readable(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.is_file() else ""
