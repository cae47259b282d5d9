"""What a marker says of reasoning, for all of its prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.core.prompts import PromptSet

THINKING: Final = ("reasoning_effort", "chat_template_kwargs")
"""Arguments of the marker that say how much engines reason, by their names in requests."""


def with_thinking(prompts: PromptSet, given: Mapping[str, object]) -> PromptSet:
    """Return the prompts with what the marker says of reasoning; what a case says itself wins.

    Raises ``UsageError`` for what cannot be sent, and where a prompt is raw: no chat template reads it.
    """
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name, value in fields.items():
        what = f"{name} of the parity marker"
        if name == "reasoning_effort" and not (isinstance(value, str) and value):
            raise UsageError(f"{what} is a word such as 'none', 'low' or 'high', not {value!r}")
        if name == "chat_template_kwargs" and not (isinstance(value, Mapping) and value):
            raise UsageError(f"{what} is a dictionary such as {{'enable_thinking': False}}, not {value!r}")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{what}: {error}") from error
        if raw := next((case.id for case in prompts.cases if case.prompt is not None), None):
            raise UsageError(f"{what}: the prompt {raw} is raw, and no chat template reads it")
        if twice := next((case.id for case in prompts.cases if name in case.extra_body), None):
            raise UsageError(f"{what}: the prompt {twice} has it in its extra_body too; say it once")
    if not fields:
        return prompts
    cases = (msgspec.structs.replace(case, thinking={**fields, **case.thinking}) for case in prompts.cases)
    return PromptSet(name=prompts.name, cases=tuple(cases))
