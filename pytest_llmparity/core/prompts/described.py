"""A request that says in words what a schema would force: for asking an engine without its constraint."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Final

from pytest_llmparity.core.sample import Request

ASKED_FOR: Final = "Answer with JSON only, by this JSON Schema: "
"""What stands before a schema in a prompt."""


def described(request: Request, schema: Mapping[str, Any]) -> Request | None:
    r"""Return the request with its schema in the last message instead of ``response_format``.

    ``None`` where there is no text to put it behind.

    >>> called = {"role": "user", "content": "Who called?"}
    >>> free = described(Request(case="c", messages=(called,), response_format={}), {"type": "object"})
    >>> free.messages[-1]["content"], free.response_format
    ('Who called?\n\nAnswer with JSON only, by this JSON Schema: {"type": "object"}', None)
    """
    words = f"\n\n{ASKED_FOR}{json.dumps(schema, ensure_ascii=False)}"
    if request.messages is None:
        return dataclasses.replace(request, prompt=(request.prompt or "") + words, response_format=None)
    if not request.messages:
        return None
    *before, last = request.messages
    content = last.get("content")
    if isinstance(content, str):
        changed: Any = content + words
    elif isinstance(content, (list, tuple)):
        changed = [*content, {"type": "text", "text": words.strip()}]
    else:
        return None
    return dataclasses.replace(request, messages=(*before, {**last, "content": changed}), response_format=None)
