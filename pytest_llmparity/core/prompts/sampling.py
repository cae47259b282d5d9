"""Sampling parameters as somebody wrote them become a ``Sampling``, or a sentence about what is wrong with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.core.prompts.entries import SamplingEntry
from pytest_llmparity.core.sample import Sampling
from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.core.words.problems import describe

NAMES = tuple(field.name for field in dataclasses.fields(Sampling))


def sampling_of(values: Mapping[str, Any], *, place: str) -> Sampling:
    """Return the sampling that sets these fields and leaves the others greedy and neutral.

    The rules are those of the ``sampling`` of a prompt entry; ``stop`` may be one text or several. ``place`` names the
    place in messages (``sampling of the parity marker``). Raises ``UsageError`` for an unknown name, a value of another
    type or one out of bounds.
    """
    for name in values:
        if name not in NAMES:
            close = nearest(str(name), NAMES)
            raise UsageError(f"{place} has no parameter {name!r}{close}; it has {', '.join(NAMES)}")
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    try:
        entry = SamplingEntry.model_validate(listed)
    except ValidationError as error:
        raise UsageError(f"{place}: {'; '.join(describe(error, SamplingEntry, hints={}))}") from error
    return Sampling(**entry.overrides())
