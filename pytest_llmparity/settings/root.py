"""Where a project is that nobody named, and what a place in it is called from where somebody stands."""

from __future__ import annotations

import configparser
import glob
import os
import re
import shlex
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple


class Root(NamedTuple):
    """A project's root, and the name of the file in it that makes it that: empty where nothing does."""

    folder: Path
    mark: str


def project_root(cwd: Path) -> Path:
    """Return what pytest, started in ``cwd`` without arguments, takes for its rootdir."""
    return marked_root(cwd).folder


def marked_root(cwd: Path) -> Root:
    """Return what pytest, started in ``cwd`` without arguments, takes for its rootdir, and why.

    That is the nearest folder upwards with a configuration of pytest; where there is none, with a ``pyproject.toml``,
    a ``setup.py``, else ``cwd`` itself.
    """
    upwards = (cwd, *cwd.parents)
    for mark_in in (_configuration_in, _holding("pyproject.toml"), _holding("setup.py")):
        for folder in upwards:
            if mark := mark_in(folder):
                return Root(folder, mark)
    return Root(cwd, "")


def folders_of_tests(root: Path) -> list[Path]:
    """Return where pytest, started in ``root`` without arguments, looks for tests; nothing where that is all of it.

    ``testpaths`` is read as pytest does: patterns relative to the root, of which those that lead nowhere are left out.
    """
    return [path for path in _at(root, _testpaths(root)) if path.is_dir()]


def collects(root: Path, test: Path) -> bool:
    """Tell whether pytest, started in ``root`` without arguments, is led to a test file by what is written there.

    ``testpaths`` may name files, and none that is there, of which pytest warns when it looks everywhere instead.
    """
    testpaths = _testpaths(root)
    return test.is_relative_to(root) if not testpaths else any(map(test.is_relative_to, _at(root, testpaths)))


def _at(root: Path, testpaths: Sequence[str]) -> list[Path]:
    paths = [path for pattern in testpaths for path in sorted(glob.glob(pattern, root_dir=root, recursive=True))]
    return [Path(os.path.abspath(root / path)) for path in paths]


def _testpaths(root: Path) -> list[str]:
    mark = _configuration_in(root)
    text = _readable(root / mark) if mark else ""
    try:
        if mark.endswith(".toml"):
            table = tomllib.loads(text)
            table = table.get("tool", {}) if mark == "pyproject.toml" else table
            written = table["pytest"].get("ini_options", table["pytest"]).get("testpaths", [])
        else:
            parser = configparser.RawConfigParser(strict=False)
            parser.read_string(text)
            written = parser.get("tool:pytest" if mark == "setup.cfg" else "pytest", "testpaths", fallback="")
        words = shlex.split(written) if isinstance(written, str) else list(written)
    except (ValueError, KeyError, TypeError, AttributeError, configparser.Error):  # pytest tells what is wrong with it
        return []
    return [word for word in words if isinstance(word, str)]


def as_typed(path: Path, here: Path) -> str:
    """Return where a file is as it is typed ``here``, or from the root of the disk where that is shorter.

    A file that is a link is named as itself, not as what it leads to.

    >>> as_typed(Path("/project/tests/./../out//run.json"), Path("/project/tests"))
    '../out/run.json'
    >>> as_typed(Path("/tmp/run.json"), Path("/home/somebody/project"))
    '/tmp/run.json'
    """
    whole = path.parent.resolve() / path.name
    try:
        typed = os.path.relpath(whole, here.resolve())
    except ValueError:  # another drive
        return str(whole)
    return min(typed, str(whole), key=len)


def _holding(name: str) -> Callable[[Path], str]:
    return lambda folder: name if (folder / name).is_file() else ""


def _configuration_in(folder: Path) -> str:
    """Return the name of the file that configures pytest in a folder, an empty text where none does."""
    for name in ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini"):
        if (folder / name).is_file():
            return name
    try:
        if tomllib.loads(_readable(folder / "pyproject.toml")).get("tool", {}).get("pytest"):
            return "pyproject.toml"
    except tomllib.TOMLDecodeError:
        pass
    for name, section in {"tox.ini": r"^\[pytest\]", "setup.cfg": r"^\[tool:pytest\]"}.items():
        if re.search(section, _readable(folder / name), re.MULTILINE):
            return name
    return ""


def _readable(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.is_file() else ""
