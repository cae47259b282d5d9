"""Command line options and environment variables, and how they become one ``Settings``.

Imported in every run of everybody who has the plugin installed, so the module level imports only stdlib;
what reads the configuration is imported when engines are asked for.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pytest

FORMATS = ("json",)
"""Report formats of this version."""

FILE = "llmparity.toml"
OUT = ".llmparity/report"
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


def budget(text: str) -> float:
    """Read ``--parity-budget``: ``900`` (seconds), ``90s``, ``15m``, ``1h30m``; returns seconds."""
    from pytest_llmparity.core.settings import seconds

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


def add_options(parser: pytest.Parser) -> None:
    """Register every option of the plugin; for ``pytest_addoption``."""
    group = parser.getgroup("llmparity", "LLM parity")

    def add(name: str, **rest: Any) -> None:
        group.addoption(name, dest=name.removeprefix("--").replace("-", "_"), **rest)

    add(
        "--engines",
        action="append",
        metavar="SPEC[,SPEC...]",
        help="Inference engines to compare, the first one being the baseline: NAME (from llmparity.toml), "
        "KIND:MODEL[@URL] or URL[#MODEL], each with NAME= before it if wanted; may be repeated "
        "(default: $LLMPARITY_ENGINES, else none, and tests that need engines are skipped)",
    )
    add(
        "--parity-baseline",
        metavar="NAME",
        help="Engine the others are compared with (default: from the configuration, else the first)",
    )
    add("--parity-profile", metavar="NAME", help="Profile of the configuration to use (default: none)")
    add(
        "--parity-config",
        metavar="FILE",
        help=f"Configuration file (default: {FILE}, or [tool.llmparity] in pyproject.toml, in rootdir)",
    )
    add(
        "--parity-required",
        action="store_true",
        default=None,
        help="Make it an error when no engines are selected, when an engine lacks what a check needs, or when nothing "
        "is judged, of one gate or in the whole run (default: off)",
    )
    add(
        "--parity-frozen",
        action="store_true",
        default=None,
        help="Refuse to judge an engine that is not in llmparity.lock, or not as it stands there (default: off, a "
        "difference is told)",
    )
    add(
        "--parity-mode",
        type=mode,
        metavar="live|replay[=RUN]",
        help="live asks the engines, replay judges a stored run again without engines (default: live; RUN: the newest)",
    )
    add(
        "--parity-resume",
        action="store_true",
        default=False,
        help="Resume the newest unfinished run of the same plan, however old; fail if there is none (default: resume "
        "it if under 6 hours old, else start anew; one that was gathered and not judged is judged without asking)",
    )
    add(
        "--parity-fresh",
        action="store_true",
        default=False,
        help="Start a new run even if an unfinished one could be resumed, and probe the engines again",
    )
    add(
        "--parity-retry-failed",
        action="store_true",
        default=False,
        help="Ask only what failed or is missing in the newest run of the same plan, finished or not, and judge that "
        "run as a whole; fail if there is none (default: off)",
    )
    add(
        "--parity-inconclusive",
        type=inconclusive,
        metavar="show|fail|skip",
        help="What becomes of tests that could not be decided: shown as an outcome of their own, failed or skipped "
        "(default: show)",
    )
    add(
        "--parity-max-requests",
        type=positive,
        metavar="N",
        help="Stop after N requests; what is missing becomes inconclusive (default: no limit)",
    )
    add(
        "--parity-budget",
        type=budget,
        metavar="TIME",
        help="Stop gathering after this time, such as 900 (seconds), 15m or 1h30m; what is missing becomes "
        "inconclusive (default: no limit)",
    )
    add(
        "--parity-sequential",
        action="store_true",
        default=None,
        help="Ask in waves and stop as soon as every check is settled, by a test that stays valid whenever one stops; "
        "a run that ends inconclusive is continued when prompts were added (default: off)",
    )
    add(
        "--parity-case",
        action="append",
        metavar="ID",
        help="Gather only the case with this id and show its rows, never a verdict; may be repeated",
    )
    add(
        "--parity-report",
        type=formats,
        metavar="FORMAT[,FORMAT...]",
        help=f"Write reports; formats: {', '.join(FORMATS)} (default: none)",
    )
    add("--parity-out", metavar="DIR", help=f"Folder for reports (default: {OUT} in rootdir)")


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
WITH_VALUE = (
    "--engines",
    *("--parity-baseline", "--parity-profile", "--parity-config", "--parity-mode", "--parity-inconclusive"),
    *("--parity-max-requests", "--parity-budget", "--parity-case", "--parity-report", "--parity-out"),
)
"""Options that a value follows, as ``=VALUE`` or as a word of its own."""


def requested(config: pytest.Config, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell, at the cost of a few look-ups, whether this run asks anything of the plugin.

    True when engines, a profile, a configuration file or a mode is named, or engines are required.
    """
    if config.getoption("engines") or environ.get(ENGINES_VARIABLE, "").strip():
        return True
    return any(
        config.getoption(f"parity_{option}") or environ.get(SOURCES[option].variable)
        for option in ("profile", "config", "mode", "required")
    )
