"""What pytest prints of a test, with nothing in it that a CI service would execute, short where one line is."""

from __future__ import annotations

import re
from typing import Any

from pytest_llmparity.core.words.printable import uncommanded

_DEPTH = 12
"""An explanation of chained exceptions is nested less deeply than this."""


def harmless(shown: Any) -> Any:
    """Return a report's explanation or captured output with every text of it ``uncommanded``.

    Objects that know how to print themselves are changed in place, and so are those they hold.
    """
    return _harmless(shown, set(), _DEPTH)


def shorten(shown: Any, words: str) -> None:
    """Make the one line that a short summary shows of an explanation: ``words``, else the first line there is."""
    crash = getattr(shown, "reprcrash", None)
    message = getattr(crash, "message", None)
    if isinstance(message, str):
        setattr(crash, "message", words or message.removeprefix("Failed: ").partition("\n")[0])  # noqa: B010 - a class of pytest's own


def _harmless(shown: Any, seen: set[int], depth: int) -> Any:
    if isinstance(shown, str):
        return uncommanded(shown)
    if type(shown) is tuple and len(shown) == 3 and str(shown[2]).startswith("Skipped: "):
        # pytest breaks this text itself where a line is full, so no place in it is surely within a line.
        return (*shown[:2], uncommanded(re.sub("::(?=.*::)", r"\\x3a:", shown[2])))
    if type(shown) in (list, tuple):
        return type(shown)(_harmless(part, seen, depth) for part in shown)
    if depth and hasattr(shown, "toterminal") and id(shown) not in seen:
        seen.add(id(shown))
        for name, part in vars(shown).items():
            setattr(shown, name, _harmless(part, seen, depth - 1))
    return shown
