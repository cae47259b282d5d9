"""Text from a model or a server made harmless for a terminal and for the log of a CI service, and cut to a width.

What an engine wrote is data: it may hold escape sequences that recolour, retitle or clear a terminal, direction
marks that reorder what is read, lone surrogates that no output can encode, or words that the service which runs the
tests takes for an order of the workflow.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from typing import Final

WIDTH: Final = 80
"""Columns that a terminal has at least."""

_KEPT = frozenset("\u200c\u200d")
"""Joiners that emoji and several scripts are written with; they move nothing."""

_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

# GitHub's runner executes ##[NAME …] anywhere in a line and ::NAME …:: at the start of one, blanks before it trimmed
# (actions/runner, ActionCommand); Azure's agent ##vso[ and TeamCity ##teamcity[. They search by the rules of a
# language, for which joiners, marks and whatever else has no weight is not there: so a break has to be visible to break
# anything, and any character outside ASCII may stand in between.
_ANYWHERE = re.compile(r"(#[^\x20-\x7e\n\r]*#[^\s\[#]*)\[")
_AT_START = re.compile(r"((?:^|[\n\r])(?:\s|[^\x00-\x7e])*):([^\x20-\x7e\n\r]*:)")


def printable(text: str) -> str:
    r"""Return the text on one line with every control, direction and unencodable character as its Python escape.

    So is the one character without which the text would be no :func:`uncommanded`.
    """
    if not (text.isascii() and text.isprintable()):
        text = "".join(_shown(char) for char in text)
    return uncommanded(text)


def uncommanded(text: str) -> str:
    r"""Return the text with nothing in it that a CI service would execute: ``[`` or ``:`` is shown as its escape.

    >>> uncommanded("see ##[add-mask]all"), uncommanded(" ::error::no"), uncommanded("test_a.py::test_b")
    ('see ##\\x5badd-mask]all', ' \\x3a:error::no', 'test_a.py::test_b')
    """
    if "#" in text:
        text = _ANYWHERE.sub(r"\1\\x5b", text)
    if ":" in text:
        text = _AT_START.sub(r"\1\\x3a\2", text)
    return text


def uncommanded_json(text: str) -> str:
    """Return a JSON text with the same value that can be printed: what :func:`uncommanded` shows it escapes as JSON."""
    return _ANYWHERE.sub(r"\1\\u005b", text)


def wrapped(text: str, width: int, *, head: str = "", indent: str = "") -> list[str]:
    """Return a :func:`printable` text in lines of at most ``width`` columns, wherever they break :func:`uncommanded`.

    The first line comes after ``head``, the others after ``indent``.
    """
    lines = textwrap.wrap(text, width, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False)
    return [elide(uncommanded(line), width) for line in lines]


def hanging(line: str, width: int, *, by: int = 4) -> list[str]:
    """Return a :func:`printable` line that keeps its indentation, broken at words; the rest stands further in.

    >>> hanging("  four words of text", 12)
    ['  four words', '      of', '      text']
    """
    text = line.lstrip(" ")
    own = len(line) - len(text)
    return wrapped(text, width, head=" " * own, indent=" " * (own + by)) or [line.rstrip()]


def wrapped_after(head: str, text: str, *, width: int) -> list[str]:
    """Return the text in lines of at most ``width`` columns, the first one after ``head``, the rest indented."""
    indent = " " * min(cells(head) if len(head) < 30 else 4, 16)
    return wrapped(text, width, head=head, indent=indent)


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
    from wcwidth import wcswidth  # where a text needs it: the command line answers at once

    return max(0, wcswidth(text))


def elide(text: str, width: int) -> str:
    """Return a :func:`printable` text in at most ``width`` columns, its middle replaced by ``…`` where it is longer.

    Both ends stay because names are told apart by either. ``width`` below 1 gives an empty text.
    """
    if cells(text) <= width:
        return text
    if width < 1:
        return ""
    room = (width - 1) // 2
    tail = next(text[at:] for at in range(max(0, len(text) - 4 * room), len(text) + 1) if cells(text[at:]) <= room)
    room = width - 1 - cells(tail)
    kept = min(len(text), 4 * room)  # marks take no room
    while cells(text[:kept]) > room:
        kept -= 1
    return f"{text[:kept]}…{tail}"


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
