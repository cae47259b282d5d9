"""The tokens an answer lists and counts: bytes, logprobs and alternatives, in the shapes of both OpenAI routes."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from pytest_llmparity.core.sample import TokenLogprob
from pytest_llmparity.engines.facts.values import count, mapping, mappings, sequence, string, valid

UNKNOWN_LOGPROB: Final = -9999.0
"""vLLM's stand-in for a missing value; llama.cpp's is -3.4e38. No token a model generates is this unlikely."""


def records(logprobs: Mapping[str, Any]) -> Iterator[TokenLogprob]:
    """Yield the tokens of one ``logprobs`` object."""
    for entry in sequence(logprobs.get("content")):
        entry = mapping(entry)
        alternatives = mappings(entry.get("top_logprobs"))
        known = [(_token(other), lp) for other in alternatives if (lp := number(other.get("logprob"))) is not None]
        yield TokenLogprob(
            token=_token(entry), logprob=number(entry.get("logprob")), top=_best_first(known), id=count(entry.get("id"))
        )
    if "tokens" not in logprobs:
        return
    # The old completions route: parallel lists, alternatives as a mapping of text to logprob, no bytes.
    values, tops = sequence(logprobs.get("token_logprobs")), sequence(logprobs.get("top_logprobs"))
    for place, token in enumerate(sequence(logprobs.get("tokens"))):
        value = values[place] if place < len(values) else None
        top = mapping(tops[place]) if place < len(tops) else {}
        known = [(_encode(text), lp) for text, raw in top.items() if (lp := number(raw)) is not None]
        yield TokenLogprob(token=_encode(string(token)), logprob=number(value), top=_best_first(known))


def _best_first(pairs: list[tuple[bytes, float]]) -> tuple[tuple[bytes, float], ...]:
    return tuple(sorted(pairs, key=lambda pair: -pair[1]) if len(pairs) > 1 else pairs)


def _token(entry: Mapping[str, Any]) -> bytes:
    """Return a token's bytes: the ``bytes`` list where there is one, for the text of half a character is lossy."""
    raw = entry.get("bytes")
    if isinstance(raw, list) and raw:
        try:
            return bytes(raw)
        except (TypeError, ValueError):
            pass  # no numbers, or not of bytes: the text says it
    return _encode(string(entry.get("token")))


def _encode(text: str) -> bytes:
    return valid(text).encode("utf-8")


def number(value: object) -> float | None:
    """Return a finite number that is no engine's stand-in for one it does not know, else ``None``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        known = float(value)
    except OverflowError:
        return None
    return known if math.isfinite(known) and known > UNKNOWN_LOGPROB else None


def spelling(chunks: Sequence[Sequence[TokenLogprob]], text: str, *, whole: str) -> tuple[TokenLogprob, ...]:
    """Return the tokens of an answer that spell ``text``, of all that its chunks listed.

    ``whole`` is the text as it was streamed. Where that is the text, all of them are; else those of the last chunk, of
    all chunks but the last (repetitions), or those behind the reasoning that was taken out; none where none fit.
    """
    everything = tuple(token for chunk in chunks for token in chunk)
    if text == whole or not everything:
        return everything
    wanted = text.encode("utf-8", "surrogatepass")
    for tokens in (tuple(chunks[-1]), tuple(token for chunk in chunks[:-1] for token in chunk)):
        if wanted and _spelt(tokens).startswith(wanted):  # an end token may follow
            return tokens
    start, at = _spelt(everything).rfind(wanted), 0
    for place, token in enumerate(everything):
        if at == start and wanted:
            return everything[place:]
        at += len(token.token)
    return ()


def _spelt(tokens: Sequence[TokenLogprob]) -> bytes:
    return b"".join(token.token for token in tokens)


# ---- tokens as a vocabulary spells them ------------------------------------------------------------------------------

# Servers that name tokens by their entry in the tokenizer's vocabulary show ``Ġcapital`` or ``▁capital`` where the text
# has `` capital``. Both spellings lose nothing, but which one it is cannot be seen on every token, so callers try both
# against a text they know.

_BYTE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _alphabet() -> Mapping[str, int]:
    """Return the letter that stands for each byte in GPT-2's spelling (``bytes_to_unicode`` of its encoder.py)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


_LETTERS: Final = _alphabet()


def byte_level(token: str) -> bytes:
    r"""Return the bytes of a token in GPT-2's spelling; a special token written in other letters stays as it is.

    >>> byte_level("Ġcapital"), byte_level("Ã©"), byte_level("<|im_end|>")
    (b' capital', b'\xc3\xa9', b'<|im_end|>')
    """
    if all(letter in _LETTERS for letter in token):
        return bytes(_LETTERS[letter] for letter in token)
    return token.encode("utf-8", "replace")


def sentence_piece(token: str) -> bytes:
    r"""Return the bytes of a token in SentencePiece's spelling.

    >>> sentence_piece("▁capital"), sentence_piece("<0xC3>")
    (b' capital', b'\xc3')
    """
    single = _BYTE.fullmatch(token)
    return bytes([int(single[1], 16)]) if single else token.replace("▁", " ").encode("utf-8", "replace")


SPELLINGS: Final[tuple[Callable[[str], bytes], ...]] = (byte_level, sentence_piece)
"""Every spelling known here, the commoner first."""


# ---- how many tokens an answer counts, under whichever names and wherever its server writes them ---------------------

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

COUNTED: Final = _TOLD | {"usage", "usageMetadata", "usage_metadata", "x_groq"}
"""What a chunk or its choice that counts tokens has."""

_FROM_CACHE: Final = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""Anthropic's ``input_tokens`` are those that no cache held; these are the others of the prompt."""


def counts(chunk: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, int]:
    """Return what a chunk (or whole answer) counts: ``prompt``, ``completion``, ``cached``, ``reasoning``.

    A prompt has tokens and so has an answer, so 0 of them were not counted (LocalAI 3436).
    """
    known: dict[str, int] = {}
    for usage in _places(chunk, choice):
        if _TOLD.isdisjoint(usage):
            continue  # of thousands of chunks one has counts
        for kind, names in _NAMES.items():
            name = next((name for name in names if _count(usage.get(name))), None)
            if name is not None:
                cached = _FROM_CACHE if name == "input_tokens" else ()
                known[kind] = sum(_count(usage.get(part)) or 0 for part in (name, *cached))
        for kind, (name, holders) in _DETAILS.items():
            for holder in holders:
                detail = _count(mapping(usage.get(holder)).get(name))
                if detail is not None:
                    known[kind] = detail
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
