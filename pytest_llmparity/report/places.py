"""Paths of this machine in sentences: shortened before the sentences leave it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any


class Places:
    """Shortens absolute paths in texts: below ``root`` to relative ones, below ``home`` to ``~``, ``files`` to names.

    Only these are known to be paths; anything else that looks like one may be what a model wrote, and stays.
    """

    def __init__(self, *, root: Path | None = None, home: Path | None = None, files: Iterable[str] = ()) -> None:
        short: dict[str, str] = {}
        for folder, stands in ((home, "~"), (root, ".")):  # the root wins where both are the same
            if folder is not None and folder != folder.parent:  # the top of a file system is in front of every path
                short |= dict.fromkeys(_spellings(folder), stands)
        for file in files:
            path = absolute(file)
            if path is not None:
                short |= dict.fromkeys(_spellings(path), path.name)
        self._short = short
        longest_first = sorted(short, key=len, reverse=True)
        known = "|".join(map(re.escape, longest_first))
        # Not in the middle of a longer path or name; a full stop behind may end the sentence.
        self._known = re.compile(rf"(?<![\w.-])({known})(?![\w-]|\.\w)([/\\]+(?=[\w.~-]))?") if known else None

    def shorten(self, value: Any) -> Any:
        """Return text, or JSON builtins with all their texts, without these folders."""
        if self._known is None:
            return value
        if isinstance(value, str):
            return self._known.sub(self._replace, value)
        if isinstance(value, dict):
            return {key: self.shorten(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.shorten(item) for item in value]
        return value

    def _replace(self, match: re.Match[str]) -> str:
        stands, behind = self._short[match[1]], match[2] or ""
        return "" if stands == "." and behind else stands + behind


def here(root: Path | None, files: Iterable[str]) -> Places:
    """Return the places of this process: ``root``, the user's home and ``files``."""
    try:
        home = Path.home()
    except RuntimeError:  # an account without one
        home = None
    return Places(root=root, home=home, files=files)


def absolute(text: str) -> PurePath | None:
    """Return the text as an absolute path of a POSIX system or Windows, ``None`` when it is neither."""
    return next((path for path in (PurePosixPath(text), PureWindowsPath(text)) if path.is_absolute()), None)


def _spellings(path: PurePath) -> set[str]:
    """Return how sentences write a path: as it is, with forward slashes, and as a Python or JSON literal."""
    return {str(path), path.as_posix(), str(path).replace("\\", "\\\\")}
