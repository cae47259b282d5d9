"""Prompts no server has seen: a number of their own before their first text, so that no prefix cache holds them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, Final

from pytest_llmparity.core.sample import Request

DIGITS: Final = 12
"""Digits of a number. Tokenisers cut digits into pieces of a fixed length, so two numbers have as many tokens."""


def number(*about: object) -> str:
    r"""Return the text for the request that ``about`` describes: twelve digits and a line break.

    >>> number("run-7", "dev", 0)
    '788111112644\n'
    """
    digest = hashlib.sha256("/".join(map(str, about)).encode()).hexdigest()
    return f"{int(digest, 16) % 10**DIGITS:0{DIGITS}d}\n"


def behind(prefix: str, request: Request) -> Request | None:
    """Return the request with ``prefix`` before its first text, ``None`` where it begins with none.

    A cache of prefixes answers from the first token on, so what differs there shares nothing after the chat template's
    own first words.
    """
    if request.prompt is not None:
        return dataclasses.replace(request, prompt=prefix + request.prompt)
    messages = list(request.messages or ())
    first = _before(prefix, messages[0]) if messages else None
    return None if first is None else dataclasses.replace(request, messages=(first, *messages[1:]))


def _before(prefix: str, message: Mapping[str, Any]) -> Mapping[str, Any] | None:
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": prefix + content}
    parts = list(content) if isinstance(content, (list, tuple)) else []
    if not parts or not isinstance(parts[0], Mapping) or not isinstance(parts[0].get("text"), str):
        return None
    return {**message, "content": [{**parts[0], "text": prefix + parts[0]["text"]}, *parts[1:]]}
