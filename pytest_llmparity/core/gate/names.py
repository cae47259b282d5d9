"""The names by which a policy knows tests, and the patterns it names them by."""

from __future__ import annotations

import re
from collections.abc import Iterable


def names_of_test(test: str) -> tuple[str, str, str]:
    """Return a node id, what of it stands behind the file, and the test's own name with its parameters."""
    inside = test.partition("::")[2] or test
    plain, bracket, parameters = inside.partition("[")
    return test, inside, f"{plain.rpartition('::')[2]}{bracket}{parameters}"


def pattern(text: str) -> re.Pattern[str]:
    """Return a pattern in which only ``*`` and ``?`` are special: names of tests and tags have brackets."""
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in re.sub(r"\*+", "*", text))
    return re.compile("".join(parts), re.DOTALL)


def some(names: Iterable[str], limit: int = 6) -> str:
    """Return the first of these names, and how many more there are."""
    each = list(dict.fromkeys(names))
    more = f" and {len(each) - limit} more" if len(each) > limit else ""
    return (", ".join(each[:limit]) + more) or "none"
