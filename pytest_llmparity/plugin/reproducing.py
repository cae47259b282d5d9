"""The command that runs one test again, with the same engines and settings."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from pytest_llmparity.core.gate import PLUGIN, VARIANTS_OPTION
from pytest_llmparity.plugin import repeats
from pytest_llmparity.plugin.options import given_to
from pytest_llmparity.settings.variants import to_text

if TYPE_CHECKING:
    import pytest

    from pytest_llmparity.settings.specification import Settings


def command(item: pytest.Item, settings: Settings, *, run: str | None) -> str:
    """Return the command that repeats a test with the same selection, wherever the selection came from.

    ``run`` is the one that a replay judges.
    """
    inside = repeats.gate_of(item).partition("::")[2]
    config = item.config
    words = ["pytest", f"{os.path.relpath(item.path, config.invocation_params.dir)}::{inside}"]
    given = given_to(config)
    for value in given.engines[0]:
        words += ["--engines", value]
    for option in ("baseline", "config", "profile"):
        if given.value(option) is not None:
            words += [f"--parity-{option}", str(given.value(option))]
    if given.variants:
        words += ["-p", PLUGIN, VARIANTS_OPTION, to_text(given.variants)]
    for option in ("frozen", "sequential"):
        if getattr(settings, option):
            words.append(f"--parity-{option}")
    if settings.mode == "replay":
        words += ["--parity-mode", f"replay={run}"]
    return shlex.join(words)
