"""Where a setting may come from, and how its text is read: the same for options and environment variables.

Imported in every run of everybody who has the plugin installed, so the module level imports only stdlib.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final, NamedTuple

SIGNATURE: Final = "parity(prompts, *checks, max_tokens=64, sampling=None, concurrency=None, repeats=1)"
"""The marker as users write it: registered with pytest and quoted in every error about it."""

FORMATS = ("json",)
"""Report formats of this version."""

FILE = "llmparity.toml"
OUT = ".llmparity/report"
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


def budget(text: str) -> float:
    """Read ``--parity-budget``: ``900`` (seconds), ``90s``, ``15m``, ``1h30m``; returns seconds."""
    from pytest_llmparity.settings.specification import seconds

    try:
        return seconds(text.strip())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """Read a whole number above zero."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10 and int(digits) > 0):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number above zero")
    return int(digits)


def formats(text: str) -> tuple[str, ...]:
    """Read ``--parity-report``: formats separated by commas, each once, in order."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not allowed; expected one of: {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(names))


def mode(text: str) -> tuple[str, str | None]:
    """Read ``--parity-mode``: ``("live", None)``, ``("replay", None)`` for the newest run, ``("replay", RUN)``."""
    word, equals, run = text.strip().partition("=")
    if (word == "live" and not equals) or (word == "replay" and (run or not equals)):
        return word, run or None
    raise argparse.ArgumentTypeError(f"{text[:40]!r} is not allowed; expected live, replay or replay=RUN")


def inconclusive(text: str) -> str:
    """Read ``--parity-inconclusive``."""
    if text not in ("show", "fail", "skip"):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not allowed; expected show, fail or skip")
    return text


def switch(text: str) -> bool:
    """Read a yes or no from the environment."""
    word = text.strip().lower()
    if word not in (*_TRUE, *_FALSE):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not allowed; expected one of: {', '.join((*_TRUE, *_FALSE))}"
        )
    return word in _TRUE


class Source(NamedTuple):
    """Where a value may come from besides the command line: an environment variable and how its text is read."""

    option: str
    variable: str
    read: Callable[[str], Any]


SOURCES = {
    source.option: source
    for source in (
        Source("baseline", "LLMPARITY_BASELINE", str),
        Source("profile", "LLMPARITY_PROFILE", str),
        Source("config", "LLMPARITY_CONFIG", str),
        Source("required", "LLMPARITY_REQUIRED", switch),
        Source("frozen", "LLMPARITY_FROZEN", switch),
        Source("mode", "LLMPARITY_MODE", mode),
        Source("inconclusive", "LLMPARITY_INCONCLUSIVE", inconclusive),
        Source("max_requests", "LLMPARITY_MAX_REQUESTS", positive),
        Source("budget", "LLMPARITY_BUDGET", budget),
        Source("sequential", "LLMPARITY_SEQUENTIAL", switch),
        Source("report", "LLMPARITY_REPORT", formats),
        Source("out", "LLMPARITY_OUT", str),
    )
}
ENGINES_VARIABLE = "LLMPARITY_ENGINES"
