"""Reading how many tokens an answer counts, under whichever names and wherever its server writes them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pytest_llmparity.engines.wire.values import mapping

_NAMES: Final = {
    "prompt": (
        *("prompt_tokens", "input_tokens", "prompt_eval_count", "promptTokens", "inputTokens"),
        *("prompt_token_count", "promptTokenCount"),
    ),
    "completion": (
        *("completion_tokens", "output_tokens", "eval_count", "completionTokens", "outputTokens"),
        *("candidates_token_count", "candidatesTokenCount", "generated_tokens"),
    ),
}
"""What servers call their counts: OpenAI's chat and responses routes, Ollama, Google's API, gateways before others."""

_DETAILS: Final = {
    "cached": ("cached_tokens", ("prompt_tokens_details", "input_tokens_details")),
    "reasoning": ("reasoning_tokens", ("completion_tokens_details", "output_tokens_details")),
}

_TOLD: Final = frozenset(itertools.chain(*_NAMES.values(), *(holders for _, holders in _DETAILS.values())))

_BESIDE: Final = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""Anthropic's ``input_tokens`` are those that no cache held; these are the others of the prompt."""


def counts(chunk: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, int]:
    """Return what a chunk (or whole answer) counts: ``prompt``, ``completion``, ``cached``, ``reasoning``.

    A prompt has tokens and so has an answer, so 0 of them were not counted (LocalAI 3436).
    """
    known: dict[str, int] = {}
    for usage in _places(chunk, choice):
        if _TOLD.isdisjoint(usage):
            continue  # of thousands of chunks one has counts
        for what, names in _NAMES.items():
            name = next((name for name in names if _count(usage.get(name))), None)
            if name is not None:
                beside = _BESIDE if name == "input_tokens" else ()
                known[what] = sum(_count(usage.get(part)) or 0 for part in (name, *beside))
        for what, (name, holders) in _DETAILS.items():
            for holder in holders:
                detail = _count(mapping(usage.get(holder)).get(name))
                if detail is not None:
                    known[what] = detail
    return known


def _places(chunk: Mapping[str, Any], choice: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield where counts may stand, the usual place last because it is believed most."""
    yield chunk
    for name in ("usageMetadata", "usage_metadata"):  # Google
        yield mapping(chunk.get(name))
    yield mapping(mapping(chunk.get("x_groq")).get("usage"))
    for usage in (mapping(choice.get("usage")), mapping(chunk.get("usage"))):
        yield mapping(usage.get("tokens"))  # Cohere
        yield usage


def _count(value: object) -> int | None:
    """Return a number of tokens, also where a server writes it as text or with a decimal point."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 16:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if 0 <= value < 2**53 and value == int(value) else None
