"""The options of the plugin: added to pytest's parser, read when a run asks for engines.

Imported in every run of everybody who has the plugin installed, so the module level imports only stdlib and what
reads the options; what reads the configuration is imported when engines are asked for.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.settings.sources import (
    ENGINES_VARIABLE,
    FILE,
    FORMATS,
    OUT,
    SOURCES,
    budget,
    formats,
    inconclusive,
    mode,
    positive,
)

if TYPE_CHECKING:
    from pytest_llmparity.settings.resolving import Given
    from pytest_llmparity.settings.specification import Settings


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


def resolve(config: pytest.Config, environ: Mapping[str, str] = os.environ, *, attached: str | None = None) -> Settings:
    """Return the settings of this run: command line, else environment, else profile, else file, else default.

    ``attached`` is what another process of this run found out about running daemons (``daemons.to_text``).
    Raises ``pytest.UsageError`` (exit 4) with a sentence for every misuse: an unreadable or wrong configuration, an
    engine nobody knows, a baseline that is not selected, options that contradict each other, required engines missing.
    """
    from pytest_llmparity.core.errors import UsageError
    from pytest_llmparity.engines import daemons
    from pytest_llmparity.run import resolving

    try:
        _bring_engines(config)
        given = given_to(config, environ)
        decided = None if attached is None else daemons.from_text(attached)
        return resolving.resolve(given, decided=decided)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None


def _bring_engines(config: pytest.Config) -> None:
    """Make the kinds of engine known that conftest files and plugins bring to this run."""
    from pytest_llmparity.engines import registry

    # Another run in this process may bring its own of the same name.
    config.add_cleanup(functools.partial(registry.restore, registry.added()))
    for adapters in config.hook.pytest_llmparity_engines(config=config):
        registry.bring(adapters, by="pytest_llmparity_engines")


def given_to(config: pytest.Config, environ: Mapping[str, str] = os.environ) -> Given:
    """Return what was asked for on pytest's command line and in the environment."""
    from pytest_llmparity.settings.resolving import Given

    return Given(
        lambda option: config.getoption(option if option == "engines" else f"parity_{option}"),
        environ,
        root=config.rootpath,
        cwd=config.invocation_params.dir,
        prefix="--parity-",
    )
