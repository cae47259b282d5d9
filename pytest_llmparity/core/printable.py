"""Text from a model or a server made harmless for a terminal, and cut to a width.

What an engine wrote is data: it may hold escape sequences that recolour, retitle or clear a terminal, direction
marks that reorder what is read, or lone surrogates that no output can encode.
"""

from __future__ import annotations

import unicodedata

_KEPT = frozenset("\u200c\u200d")
"""Joiners that emoji and several scripts are written with; they move nothing."""

_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    """Return the text on one line with every control, direction and unencodable character as its Python escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(char) for char in text)


def printable_lines(text: str) -> str:
    r"""Return :func:`printable` of every line; the lines stay.

    >>> printable_lines("one\ntwo\x1b[2J") == "one\ntwo\\x1b[2J"
    True
    """
    return "\n".join(map(printable, text.split("\n")))


def cells(text: str) -> int:
    """Return how many terminal columns a :func:`printable` text takes."""
    if text.isascii():
        return len(text)
    return sum(_width(char) for char in text)


def elide(text: str, width: int) -> str:
    """Return a :func:`printable` text in at most ``width`` columns, its middle replaced by ``…`` where it is longer.

    Both ends stay because names are told apart by either. ``width`` below 1 gives an empty text.
    """
    if cells(text) <= width:
        return text
    if width < 1:
        return ""
    tail = _fitting(text[::-1], (width - 1) // 2)[::-1]
    return _fitting(text, width - 1 - cells(tail)) + "…" + tail


def pad(text: str, width: int) -> str:
    """Return :func:`elide` of the text, filled with blanks on the right to exactly ``width`` columns."""
    shown = elide(text, width)
    return shown + " " * (width - cells(shown))


def _shown(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    if char not in _KEPT and unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return char.encode("unicode_escape").decode("ascii")
    return char


def _width(char: str) -> int:
    if unicodedata.combining(char) or char in _KEPT:
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def _fitting(text: str, width: int) -> str:
    """Return as much of the beginning of a wider text as fits."""
    kept = used = 0
    while (used := used + _width(text[kept])) <= width:
        kept += 1
    return text[:kept]
