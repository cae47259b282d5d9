"""What a marker says beside its prompts and checks: sampling, further fields of requests, reasoning, numbers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.prompts.entries import passed_through
from pytest_llmparity.core.prompts.sampling import sampling_of
from pytest_llmparity.core.sample import Sampling
from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.settings.sources import SIGNATURE

THINKING: Final = ("reasoning_effort", "chat_template_kwargs")
"""Arguments of the marker that say how much engines reason, by their names in requests."""
KEYWORDS = ("max_tokens", "sampling", "concurrency", "repeats", "extra_body", *THINKING)


def refuse_unknown(kwargs: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` for an argument that the marker does not take, with the nearest that it does."""
    for name in kwargs:
        if name not in KEYWORDS:
            raise UsageError(f"the parity marker takes no argument {name!r}{nearest(name, KEYWORDS)}; {SIGNATURE}")


def positive(kwargs: Mapping[str, Any], name: str, default: int) -> int:
    """Return an argument that is a whole number of at least 1; ``UsageError`` where it is none."""
    value = kwargs.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{name} of the parity marker is {value!r}; it is a whole number of at least 1")
    return value


def with_extra(prompts: PromptSet, extra_body: object) -> PromptSet:
    """Return the prompts with further fields of every request's body; what a case says itself wins."""
    if extra_body is None:
        return prompts
    place = "extra_body of the parity marker"
    if not isinstance(extra_body, Mapping) or not all(isinstance(name, str) for name in extra_body):
        raise UsageError(f"{place} is a dictionary such as {{'chat_template_kwargs': {{}}}}, not {extra_body!r}")
    try:
        passed_through(extra_body)
        json.dumps(extra_body, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{place}: {error}") from error
    cases = (msgspec.structs.replace(case, extra_body={**extra_body, **case.extra_body}) for case in prompts.cases)
    return PromptSet(name=prompts.name, cases=tuple(cases))


def with_thinking(prompts: PromptSet, given: Mapping[str, object]) -> PromptSet:
    """Return the prompts with what the marker says of reasoning; what a case says itself wins.

    Raises ``UsageError`` for what cannot be sent, and where a prompt is raw: no chat template reads it.
    """
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name, value in fields.items():
        place = f"{name} of the parity marker"
        if name == "reasoning_effort" and not (isinstance(value, str) and value):
            raise UsageError(f"{place} is a word such as 'none', 'low' or 'high', not {value!r}")
        if name == "chat_template_kwargs" and not (isinstance(value, Mapping) and value):
            raise UsageError(f"{place} is a dictionary such as {{'enable_thinking': False}}, not {value!r}")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{place}: {error}") from error
        if raw := next((case.id for case in prompts.cases if case.prompt is not None), None):
            raise UsageError(f"{place}: the prompt {raw} is raw, and no chat template reads it")
        if twice := next((case.id for case in prompts.cases if name in case.extra_body), None):
            raise UsageError(f"{place}: the prompt {twice} has it in its extra_body too; say it once")
    if not fields:
        return prompts
    cases = (msgspec.structs.replace(case, thinking={**fields, **case.thinking}) for case in prompts.cases)
    return PromptSet(name=prompts.name, cases=tuple(cases))


def sampling_in(kwargs: Mapping[str, Any]) -> Sampling:
    """Return the marker's sampling: greedy and neutral but for what it names."""
    given = kwargs.get("sampling") or {}
    if isinstance(given, Sampling):
        values: dict[str, Any] = {f.name: getattr(given, f.name) for f in dataclasses.fields(given)}
    elif isinstance(given, Mapping):
        values = dict(given)
    else:
        raise UsageError(f"sampling of the parity marker is a dictionary such as {{'temperature': 0.7}}, not {given!r}")
    if kwargs.get("max_tokens") is not None:
        values["max_tokens"] = positive(kwargs, "max_tokens", 64)
    return sampling_of(values, place="sampling of the parity marker")
