"""What experiments take away: one thing each that may differ between two engines, made the same for both. Pure.

A removal says how a request is asked otherwise, or how answers are compared otherwise. Several are taken away at once
by applying them in the order of :data:`REMOVALS`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from pytest_llmparity.core.compare.calls import with_calls
from pytest_llmparity.core.compare.json import parse_json
from pytest_llmparity.core.diagnosis.layers import response_schema
from pytest_llmparity.core.sample import Completion, Request

ASKED_FOR: Final = "Answer with JSON only, by this JSON Schema: "
"""What stands before a schema in a prompt."""
PROMPT: Final = "prompt"
SAMPLING: Final = "sampling"
PENALTIES: Final = "penalties"
DEFAULTS: Final = "defaults"
LENGTH: Final = "length"
STREAM: Final = "stream"
ALONE: Final = "alone"
CACHE: Final = "cache"
ORDER: Final = "order"
SCHEMA: Final = "schema"
STOP: Final = "stop"
REASONING: Final = "reasoning"
SPACES: Final = "spaces"
CALLS: Final = "calls"
TAGS: Final = "tags"
TOKENS: Final = "tokens"
FREE: Final = "free"
DESCRIBED: Final = "described"

REMOVALS: Final[Mapping[str, str]] = {
    SPACES: "white space around answers left out of the comparison",
    CALLS: "tool calls in the text of answers read as calls",
    TAGS: "what stands in tags before an answer left out of the comparison",
    LENGTH: "prompts shortened to their ends",
    PROMPT: "the same rendered prompt sent raw to both",
    SAMPLING: "top_k 1 sent beside the temperature, so that only the best token is left",
    PENALTIES: "a window of 0 tokens sent for repetition penalties, so that none can act",
    DEFAULTS: "samplers that no request names turned off",
    STREAM: "answers asked for whole instead of streamed",
    CACHE: "no part of a prompt taken from the prompt cache",
    ALONE: "one request at a time",
    ORDER: "the schema's properties declared in the order in which they were answered",
    SCHEMA: "the schema sent in the engine's own field instead of response_format",
    STOP: "answers asked for no longer than the baseline's",
    REASONING: "reasoning turned off",
    TOKENS: "the baseline's tokens sent to both in place of the text",
    FREE: "the schema left out, so that nothing forces answers to fit it",
    DESCRIBED: "the schema said in the prompt, so that nothing forces answers to fit it",
}
"""What each removal does, in the order in which several are applied."""
COMPARED: Final = (SPACES, CALLS, TAGS)
"""Removals that only compare otherwise and cost no request."""
UNCONSTRAINED: Final = (FREE, DESCRIBED)
"""Two ways to ask without the constraint of a schema: as a prompt is that says itself what is wanted, and one that does
not."""

_TAGGED: Final = re.compile(r"\s*(?:<(?!tool_call>)([\w:|-]+)>.*?</\1>|\[(\w+)\].*?\[/\2\])\s*", re.DOTALL)
"""A call as many models write one (Hermes, Qwen), which servers are to take out of the text."""
SHORT: Final = 8
"""Part of a long prompt that is left where nobody knows how much of it arrives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of one case before an experiment: who renders it, how long its texts may be, and its answers.

    ``tokens`` is how long the baseline's answer was, without an end token; ``keys`` is the candidate's answer as JSON.
    """

    render: Callable[[Request], str | None] = lambda request: None
    characters: int | None = None
    tokens: int | None = None
    keys: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request in an experiment: what both engines are asked, and which further fields each adds in its own words."""

    request: Request
    schema: Mapping[str, Any] | None = None
    names: frozenset[str] = field(default_factory=frozenset)


def apply(request: Request, removed: Collection[str], known: Known) -> Asked | None:
    """Return a request with these things taken away, ``None`` where that cannot be done with this case."""
    schema = response_schema(request)
    if DESCRIBED in removed and schema is not None:
        if (worded := described(request, schema)) is None:
            return None
        request = worded
    if schema is not None and not {FREE, DESCRIBED}.isdisjoint(removed):
        request, schema = dataclasses.replace(request, response_format=None), None
    if ORDER in removed and schema is not None and known.keys is not None:
        schema = _ordered(schema, known.keys)
        request = dataclasses.replace(request, response_format=_with_schema(request, schema))
    if LENGTH in removed:
        request = shortened(request, known.characters)
    if PROMPT in removed and request.messages is not None:
        rendered = None if request.tools else known.render(request)
        if rendered is None:
            return None
        request = dataclasses.replace(request, messages=None, prompt=rendered, response_format=None)
    elif SCHEMA in removed and schema is not None:
        request = dataclasses.replace(request, response_format=None)
    elif request.response_format is not None:
        schema = None  # it is in the request
    sampling = request.sampling
    if SAMPLING in removed:
        sampling = dataclasses.replace(sampling, top_k=1)
    if STOP in removed and known.tokens is not None:
        sampling = dataclasses.replace(sampling, max_tokens=max(1, min(known.tokens, sampling.max_tokens)))
    return Asked(request=dataclasses.replace(request, sampling=sampling), schema=schema, names=frozenset(removed))


def compared(answer: Completion, removed: Collection[str]) -> Completion:
    """Return an answer as it is compared where something is left out of the comparison."""
    if CALLS in removed:
        answer = with_calls(answer)
    text = answer.text
    if TAGS in removed:
        match = _TAGGED.match(text)
        text = text[match.end() :] if match else text
    if SPACES in removed:
        text = text.strip()
    if text == answer.text:
        return answer
    finish = "length" if answer.cut else answer.finish_reason
    return msgspec.structs.replace(answer, text=text, finish_reason=finish)


def shortened(request: Request, characters: int | None) -> Request:
    """Return a request for the end of what it asks: its last message, or prompt, of at most so many characters."""

    def end_of(text: str) -> str:
        return text[-(characters or max(1, len(text) // SHORT)) :]

    if request.messages is None:
        return dataclasses.replace(request, prompt=end_of(request.prompt or ""))
    last = request.messages[-1]
    content = last.get("content")
    cut = end_of(content) if isinstance(content, str) else content
    return dataclasses.replace(request, messages=({**last, "content": cut},))


def newest(request: Request, keep: int) -> Request | None:
    """Return a chat with its system prompt and its last ``keep`` messages, ``None`` where it has no more."""
    messages = request.messages or ()
    system = [message for message in messages if message.get("role") == "system"]
    turns = [message for message in messages if message.get("role") != "system"]
    if len(turns) <= keep:
        return None
    return dataclasses.replace(request, messages=(*system, *turns[-keep:]))


def begins_with_tag(text: str) -> bool:
    """Whether an answer begins with something in tags, as reasoning does that was left in it."""
    return _TAGGED.match(text) is not None


def keys_of(answer: Completion | None) -> Any:
    """Return an answer as JSON, whatever stands in tags before it; ``None`` where it is none."""
    if answer is None:
        return None
    parsed = parse_json(compared(answer, COMPARED).text)
    return None if parsed.error is not None else parsed.value


def _with_schema(request: Request, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    wanted = request.response_format or {}
    return {**wanted, "json_schema": {**wanted["json_schema"], "schema": schema}}


def _ordered(schema: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    """Return a schema with the properties of its objects in the order of a value's keys; others follow."""
    changed = dict(schema)
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and isinstance(value, Mapping):
        names = [name for name in value if name in properties] + [name for name in properties if name not in value]
        changed["properties"] = {name: _ordered_any(properties[name], value.get(name)) for name in names}
    items = schema.get("items")
    if isinstance(items, Mapping) and isinstance(value, list) and value:
        changed["items"] = _ordered(items, value[0])
    return changed


def _ordered_any(schema: Any, value: Any) -> Any:
    return _ordered(schema, value) if isinstance(schema, Mapping) else schema


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
