"""Probes of the context: how much is seen to fit, and what happens to a conversation that does not.

Counted without a tokenizer: a word of the filler is at least one token everywhere, so a server that counts fewer prompt
tokens than there were words has cut the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pytest_llmparity.core.capabilities import Overflow
from pytest_llmparity.core.errors import ContextOverflow, EngineError
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.run.probes import Probe, Prober, Undecided, asking

VERIFIED_TOKENS: Final = 1024
"""How far the context is verified: enough to catch a server that gives less than it says, seconds even on a CPU."""
OVERFLOW_TOKENS: Final = 8192
"""Largest context that is overfilled on purpose: a server that answers instead of refusing reads all of it."""
EXCESS: Final = 1.25
"""How many words are sent for every token of the context."""
TURNS: Final = 9
"""Messages of the conversation, the last one the user's. Each is small, so that none fills the context by itself."""
ANSWER_TOKENS: Final = 8

_FILLER: Final = [
    *("the", "river", "by", "the", "old", "stone", "house", "was", "quiet", "and", "cold"),
    *("in", "the", "early", "light", "of", "day"),
]
_NAMES: Final = ("Vera", "Otto")
_QUESTIONS: Final = ("What is my name?", "How are you today?")


def conversation(words: int, *, name: str = _NAMES[0], question: str = _QUESTIONS[0]) -> list[Mapping[str, Any]]:
    """Return a conversation of at least so many words: ``name`` in its first message, ``question`` in its last."""
    each = -(-words // TURNS)
    text = " ".join(_FILLER[place % len(_FILLER)] for place in range(each))
    messages: list[Mapping[str, Any]] = [
        {"role": "assistant" if place % 2 else "user", "content": f"{text}."} for place in range(TURNS)
    ]
    messages[0] = {"role": "user", "content": f"My name is {name}. {text}."}
    messages[-1] = {"role": "user", "content": f"{text}. {question}"}
    return messages


def _fit(prober: Prober) -> Mapping[str, object]:
    """Let a conversation grow until it nearly fills what the server says it takes, or :data:`VERIFIED_TOKENS`."""
    limit = min(VERIFIED_TOKENS, prober.context or VERIFIED_TOKENS) - ANSWER_TOKENS
    words = limit // 4
    seen = 0
    for _ in range(2):
        try:
            answer = prober.ask(asking(conversation(words), max_tokens=ANSWER_TOKENS))
        except ContextOverflow as error:
            if seen:
                break
            raise Undecided(f"a conversation of {words} words does not fit: {error}") from None
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
    a context that is known and not large.
    """
    if prober.declares.overflow is None:
        raise Undecided("nothing is known of what this kind of server does with it, and it may break")
    if prober.context is None or prober.context > OVERFLOW_TOKENS:
        size = "not known" if prober.context is None else f"{prober.context} tokens, too many to fill for a probe"
        raise Undecided(f"the context is {size}")
    words = int(EXCESS * prober.context)
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
    """Find out what was cut away by changing the first message, then the last: what was cut changes nothing."""
    head = _traces(_send(prober, words, name=_NAMES[1])) != _traces(answer)
    tail = _traces(_send(prober, words, question=_QUESTIONS[1])) != _traces(answer)
    if not (head or tail):
        raise Undecided("it was cut, and neither its beginning nor its end makes a difference to the answer")
    if head and tail:
        if _traces(_send(prober, words)) != _traces(answer):
            raise Undecided("it was cut, and two answers to it differ, so nothing tells what was left")
        return "middle cut"
    return "end cut" if head else "oldest turns dropped"


def _send(prober: Prober, words: int, **parts: str) -> Completion:
    known = prober.found.get("logprobs", prober.declares.logprobs)
    top = 1 if known else None
    return prober.ask(asking(conversation(words, **parts), max_tokens=ANSWER_TOKENS, top_logprobs=top))


def _traces(answer: Completion) -> tuple[object, ...]:
    """Return what an answer shows of its prompt: a weak model may say the same, but not with the same probabilities."""
    return answer.text, answer.reasoning, tuple(token.logprob for token in answer.logprobs)


FIT: Final = Probe(fields=("context_length",), requests=2, run=_fit)
OVERFLOW: Final = Probe(fields=("overflow",), requests=5, run=_overflow)
