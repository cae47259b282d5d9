"""Which printed lines a CI service executes, by the rules of those who read the log."""

from __future__ import annotations

import re
import unicodedata


def executed(line: str) -> bool:
    """Tell whether a service takes a line for a command of the workflow, whatever the command's name.

    GitHub (actions/runner, ``ActionCommand.TryParse`` and ``TryParseV2``): ``##[`` anywhere and a ``]`` behind it;
    ``::`` at the start once blanks are trimmed, and another ``::``. Azure (``##vso[``) and TeamCity
    (``##teamcity[``) as the first. All search by culture: characters without weight are not seen.
    """
    seen = "".join(c for c in line if c.isspace() or not _weightless(c)).lstrip()
    parts = seen.split("::")
    return re.search(r"##(vso|teamcity)?\[.*\]", seen) is not None or (len(parts) > 2 and not parts[0])


def executed_lines(printed: str) -> list[str]:
    """Return the lines that :func:`executed` takes; a carriage return ends a line too."""
    return [line for line in re.split(r"\r\n|\n|\r", printed) if executed(line)]


def _weightless(char: str) -> bool:
    return char == "\ufffd" or unicodedata.category(char) in {"Cc", "Cf", "Cn", "Mn", "Me"}
