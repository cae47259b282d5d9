"""Putting a request into an OpenAI-shaped server's words: deterministic bytes, nothing left to its defaults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from pytest_llmparity.core.errors import ParameterNotHonoured
from pytest_llmparity.core.sample import NEUTRAL, Request, Sampling, WireRequest

CHAT_PATH: Final = "/v1/chat/completions"
RAW_PATH: Final = "/v1/completions"

EVERY_SERVER: Final = {
    "temperature": "temperature",
    "top_p": "top_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "seed": "seed",
    "stop": "stop",
    "max_tokens": "max_tokens",
}
"""Sampling fields of OpenAI's own API, our name to the wire's."""


def sampling_fields(
    sampling: Sampling, fields: Mapping[str, str], *, engine: str, case: str, off: Collection[str] = ()
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the wire's sampling fields and the names left out.

    ``fields`` is the engine's allow-list. A neutral value it has no word for is left out of a greedy request only:
    ``top_k`` and ``min_p`` cannot change an argmax. (A server that penalises repetition by default could still change
    a greedy answer; nobody can tell from outside, so the name is recorded.) What the engine is known to leave off
    by itself (``off``) is left out of any request, and not recorded: nothing hangs on a default. Anything else raises
    ``ParameterNotHonoured``.
    """
    sent: dict[str, Any] = {}
    omitted: list[str] = []
    for name in Sampling.__dataclass_fields__:
        value = getattr(sampling, name)
        if value is None or value == ():
            continue
        if name in fields:
            sent[fields[name]] = list(value) if isinstance(value, tuple) else value
        elif value != NEUTRAL.get(name):
            raise ParameterNotHonoured(
                f"{engine} has no field for {name}={value!r} of case {case!r}. Leave {name} neutral "
                f"({NEUTRAL.get(name)!r}), or name the engine's kind if it is one that has it.",
                engine=engine,
                case=case,
            )
        elif name in off:
            continue
        elif sampling.temperature > 0:
            raise ParameterNotHonoured(
                f"{engine} has no field for {name}, and case {case!r} samples at temperature {sampling.temperature:g}, "
                f"where the server's unknown default of {name} would change the answer. Ask greedily (temperature 0), "
                "or name the engine's kind if it is one that has it.",
                engine=engine,
                case=case,
            )
        else:
            omitted.append(name)
    return sent, tuple(omitted)


def encode(body: Mapping[str, Any]) -> bytes:
    """Return the body's bytes: compact JSON in the order given, UTF-8, lone surrogates as escapes.

    The order is kept because it is meaning: engines force a schema's properties in the order they are declared.
    """
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # JSON's escape of a lone surrogate is spelled like Python's, and UTF-8 has no other way to carry one.
    return text.encode("utf-8", "backslashreplace")


def wire(path: str, body: Mapping[str, Any], omitted: tuple[str, ...]) -> WireRequest:
    """Return the finished request with its hash."""
    data = encode(body)
    return WireRequest(path=path, body=data, sha256=hashlib.sha256(data).hexdigest(), omitted=omitted)


def chat_fields(request: Request) -> dict[str, Any]:
    """Return the chat route's fields that are the request's own: messages, tools, tool choice, format."""
    body: dict[str, Any] = {"messages": list(request.messages or ())}
    if request.tools:
        body["tools"] = list(request.tools)
        if request.tool_choice is not None:
            body["tool_choice"] = request.tool_choice
    if request.response_format is not None:
        body["response_format"] = dict(request.response_format)
    return body


def refuse(what: str, why: str, *, engine: str, case: str) -> ParameterNotHonoured:
    """Return the error of a request that asks for what the engine would ignore; ``why`` names the source of that."""
    return ParameterNotHonoured(
        f"{engine} would ignore {what} of case {case!r}: {why}. Leave it out of the case, or compare on an engine that "
        "has it.",
        engine=engine,
        case=case,
    )
