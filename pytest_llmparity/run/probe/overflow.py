"""Probes of the context: how much is seen to fit, and what happens to a conversation that does not.

Counted without a tokenizer: a word of the filler is at least one token everywhere, so a server that counts fewer prompt
tokens than there were words has cut the prompt. What it cut is told by counts too, where they tell it: an answer to one
prompt is not the same twice where a prompt cache holds part of it (seen with Ollama), a count is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from pytest_llmparity.core.errors import ContextOverflow, EngineError
from pytest_llmparity.core.identity.capabilities import Overflow
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.run.probe.probes import Probe, Prober, Undecided, asking

VERIFIED_TOKENS: Final = 1024
"""How far the context is verified: enough to catch a server that gives less than it says, seconds even on a CPU."""
OVERFLOW_TOKENS: Final = 8192
"""Largest context that is overfilled on purpose: a server that answers instead of refusing reads all of it."""
EXCESS: Final = 1.25
"""How many words are sent for every token of the context."""
TURNS: Final = 9
"""Messages of the conversation, the last one the user's. Each is small, so that none fills the context by itself."""
ANSWER_TOKENS: Final = 8
NOISE: Final = 4.0
"""A logprob has changed when it moved so many times as far as between two answers to one prompt. Chosen: the two are
few, and what moves them (caches, batches) moves others farther."""
LEAST: Final = 1e-3
"""And at least so far: two answers out of one cache are equal to the last bit. Chosen."""

_FILLER: Final = [
    *("the", "river", "by", "the", "old", "stone", "house", "was", "quiet", "and", "cold"),
    *("in", "the", "early", "light", "of", "day"),
]
_NAMES: Final = ("Vera", "Otto")
_QUESTIONS: Final = ("What is my name?", "How are you today?")


def conversation(
    words: int, *, name: str = _NAMES[0], question: str = _QUESTIONS[0], halved: int | None = None
) -> list[Mapping[str, Any]]:
    """Return a conversation of at least so many words: ``name`` in its first message, ``question`` in its last.

    The filler of the ``halved`` message is half as long, so the words may be that many fewer.
    """
    each = -(-words // TURNS)
    texts = [" ".join(_FILLER[at % len(_FILLER)] for at in range(each))] * TURNS
    if halved is not None:
        texts[halved] = " ".join(texts[halved].split()[: each // 2])
    messages: list[Mapping[str, Any]] = [
        {"role": "assistant" if place % 2 else "user", "content": f"{text}."} for place, text in enumerate(texts)
    ]
    messages[0] = {"role": "user", "content": f"My name is {name}. {texts[0]}."}
    messages[-1] = {"role": "user", "content": f"{texts[-1]}. {question}"}
    return messages


def _fit(prober: Prober) -> Mapping[str, object]:
    """Let a conversation grow until it nearly fills what the server says it takes, or :data:`VERIFIED_TOKENS`.

    Where that is more than it takes and it refuses, that settles what it does with a conversation that does not fit.
    """
    limit = min(VERIFIED_TOKENS, prober.context or VERIFIED_TOKENS) - ANSWER_TOKENS
    words = limit // 4
    seen = 0
    for _ in range(2):
        try:
            answer = _ask(prober, conversation(words))
        except ContextOverflow as error:
            if seen:
                return {"context_length": seen, "overflow": "refused"}
            prober.refusal = f"a conversation of {words} words does not fit: {error}"
            return {"overflow": "refused"}
        if answer.prompt_tokens is None:
            raise Undecided("the server does not say how many tokens a prompt has")
        if answer.prompt_tokens < words:
            left = answer.prompt_tokens
            raise Undecided(f"of a conversation of {words} words the server counts {left} tokens: it was cut before")
        seen = answer.prompt_tokens + (answer.completion_tokens or 0)
        # A little less than would fill it exactly: the text around each message is counted once, not per word.
        words = int(words * 0.95 * limit / answer.prompt_tokens)
    return {"context_length": seen}


def _overflow(prober: Prober) -> Mapping[str, object]:
    """Send more words than the context has tokens.

    Only to servers whose kind is known to do something about it (a server without any check may break), and only into
    a context that is known and not large. A kind that has no limit is sent more than its model was trained for.
    """
    if prober.known.get("overflow") == "refused":
        return {"overflow": "refused"}  # seen while the context was verified
    if prober.declares.overflow is None:
        raise Undecided("nothing is known of what this kind of server does with it, and it may break")
    limit = prober.context
    if limit is None and prober.declares.overflow == "answered uncut":
        limit = prober.adapter.trained_context()
    if limit is None or limit > OVERFLOW_TOKENS:
        size = "not known" if limit is None else f"{limit} tokens, too many to fill for a probe"
        raise Undecided(f"the context is {size}")
    words = int(EXCESS * limit)
    try:
        answer = _send(prober, words)
    except EngineError as error:
        if isinstance(error, ContextOverflow) or prober.refused(error):
            return {"overflow": "refused"}
        raise
    if answer.prompt_tokens is None:
        raise Undecided("it was answered, and the server does not say how many tokens of it were read")
    if answer.prompt_tokens >= words:
        return {"overflow": "answered uncut"}
    return {"overflow": _cut(prober, words, answer)}


def _cut(prober: Prober, words: int, answer: Completion) -> Overflow:
    """Find out what was cut away by changing the first message, then the last: what was cut changes nothing.

    Who drops whole turns counts other tokens where a message that it read is shorter. Who cuts to a fixed size counts
    the same whatever is changed: then the answers are looked at.
    """
    head = _send(prober, words, name=_NAMES[1], halved=0)
    tail = _send(prober, words, question=_QUESTIONS[1], halved=TURNS - 1)
    if None in (head.prompt_tokens, tail.prompt_tokens):
        raise Undecided("it was cut, and the server does not always say how many tokens of it were read")
    read = [changed.prompt_tokens != answer.prompt_tokens for changed in (head, tail)]
    if not any(read):
        again = _send(prober, words)
        if _content(again) != _content(answer):
            raise Undecided("it was cut to a fixed size, and two answers to it differ, so nothing tells what was left")
        limit = max(LEAST, NOISE * _moved(again, answer))
        read = [_content(changed) != _content(answer) or _moved(changed, answer) > limit for changed in (head, tail)]
    if not any(read):
        raise Undecided("it was cut, and neither its beginning nor its end makes a difference to the answer")
    if all(read):
        return "middle cut"
    return "end cut" if read[0] else "oldest turns dropped"


def _send(prober: Prober, words: int, **parts: Any) -> Completion:
    known = prober.known.get("logprobs", prober.declares.logprobs)
    return _ask(prober, conversation(words, **parts), top_logprobs=1 if known else None)


def _ask(prober: Prober, messages: list[Mapping[str, Any]], **more: Any) -> Completion:
    """Return the answer to a conversation that an engine without a GPU may read for minutes."""
    return prober.ask(asking(messages, max_tokens=ANSWER_TOKENS, **more), timeout_s=math.inf)


def _content(answer: Completion) -> tuple[str, str]:
    return answer.text, answer.reasoning


def _moved(before: Completion, after: Completion) -> float:
    """Return how far a logprob of the chosen tokens moved at most: a weak model says the same, less or more surely."""
    pairs = zip(before.logprobs, after.logprobs, strict=False)
    return max((abs((a.logprob or 0.0) - (b.logprob or 0.0)) for a, b in pairs), default=0.0)


FIT: Final = Probe(fields=("context_length",), requests=2, run=_fit)
OVERFLOW: Final = Probe(fields=("overflow",), requests=4, run=_overflow)
