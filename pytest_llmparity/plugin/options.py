"""The options of the plugin: added to pytest's parser, read when a run asks for engines.

Imported in every run of everybody who has the plugin installed, so the module level imports only stdlib and what
reads the options; what reads the configuration is imported when engines are asked for.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.settings.sources import ENGINES_VARIABLE, OPTIONS, SOURCES, unread_variables

if TYPE_CHECKING:
    from pytest_llmparity.settings.given import Given
    from pytest_llmparity.settings.specification import Settings


def add_options(parser: pytest.Parser) -> None:
    """Register every option of the plugin; for ``pytest_addoption``."""
    group = parser.getgroup("llmparity", "LLM parity")

    group.addoption(
        "--engines",
        action="append",
        metavar="SPEC[,SPEC...]",
        help="Inference engines to compare, the first one being the baseline: NAME (from llmparity.toml), "
        "KIND:MODEL[@URL] or URL[#MODEL], each with NAME= before it if wanted; may be repeated "
        "(default: $LLMPARITY_ENGINES, else none, and tests that need engines are skipped)",
    )
    for option in OPTIONS:
        how: dict[str, Any] = {"action": "store_true", "default": None}
        if option.metavar:
            how = {"type": option.read, "metavar": option.metavar, "action": "append" if option.repeated else "store"}
        group.addoption(option.flag, dest=f"parity_{option.name}", help=option.help, **how)


WITH_VALUE = ("--engines", *(option.flag for option in OPTIONS if option.metavar))
"""Options that a value follows, as ``=VALUE`` or as a word of its own."""
ADDOPTS = "PYTEST_ADDOPTS"


def with_values(words: Sequence[object], environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether one of our options may have its value in a word of its own, so that pytest took it for a place."""
    return bool(environ.get(ADDOPTS)) or any(str(word) in WITH_VALUE for word in words)


def engines_typed(config: pytest.Config) -> bool:
    """Tell whether engines were named on this command line: those of ``addopts`` are for whatever is run."""
    return any(str(word).partition("=")[0] == "--engines" for word in config.invocation_params.args)


def verbosity(config: pytest.Config) -> int:
    """Return how often ``-v`` was given less how often ``-q`` was; 0 without the plugin that has these options."""
    times: int = config.getoption("verbose", 0)
    return times


def warn_of_variables(config: pytest.Config, environ: Mapping[str, str] = os.environ) -> None:
    """Warn of variables that look like ours and are not read: a run without engines would say nothing of them."""
    if hasattr(config, "workerinput"):  # the controller has
        return
    for sentence in unread_variables(environ):
        from pytest_llmparity.core.words.printable import printable

        config.issue_config_time_warning(pytest.PytestConfigWarning(printable(sentence)), stacklevel=2)


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
    from pytest_llmparity.core.errors import StoreError, UsageError
    from pytest_llmparity.engines import daemons
    from pytest_llmparity.run.session import settings_of
    from pytest_llmparity.store import history

    try:
        _bring_engines(config)
        given = given_to(config, environ)
        decided = None if attached is None else daemons.from_text(attached)
        settings = settings_of(given, decided=decided)
        if settings.history is not None:
            history.refuse_unusable(settings.history)
        return _noting(settings, config.getoption("parity_recorder", None))
    except StoreError as error:
        raise pytest.UsageError(f"--parity-history: {error}") from None
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None


def _noting(settings: Settings, file: str | None) -> Settings:
    """Return the settings with the file in which answers are noted for ``llmparity record``, if it started this run."""
    if file is None:
        return settings
    import dataclasses
    from pathlib import Path

    from pytest_llmparity.core.errors import EngineSelectionError
    from pytest_llmparity.settings.given.contradictions import check_recordable

    if len(settings.engines) != 1:
        names = ", ".join(spec.name for spec in settings.engines)
        raise EngineSelectionError(
            f"llmparity record records one engine, and this run has {names}: take --engines out of what stands behind "
            "-- and out of addopts"
        )
    (spec,) = settings.engines
    check_recordable(spec, executor=settings.executor)
    return dataclasses.replace(settings, engines=(dataclasses.replace(spec, recorder=Path(file)),))


def _bring_engines(config: pytest.Config) -> None:
    """Make the kinds of engine known that conftest files and plugins bring to this run."""
    from pytest_llmparity.engines import registry

    # Another run in this process may bring its own of the same name.
    config.add_cleanup(functools.partial(registry.restore, registry.added()))
    for adapters in config.hook.pytest_llmparity_engines(config=config):
        registry.bring(adapters, by="pytest_llmparity_engines")


def given_to(config: pytest.Config, environ: Mapping[str, str] = os.environ) -> Given:
    """Return what was asked for on pytest's command line and in the environment."""
    from pytest_llmparity.settings.given import Given

    return Given(
        lambda option: config.getoption(option if option == "engines" else f"parity_{option}", None),
        environ,
        root=config.rootpath,
        cwd=config.invocation_params.dir,
        prefix="--parity-",
    )
