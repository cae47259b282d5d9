"""How large an answer can be that keeps to its token limit, and how small one that reached it.

Anything far beyond the limit is no answer to the request; one that ends well short of it was ended by something else.
"""

from __future__ import annotations

import math
from typing import Final

from pytest_llmparity.core.sample import Completion, Request

TEXT_BYTES_PER_TOKEN: Final = 512
"""Most bytes of text, or of tool calls' arguments, for each token of ``max_tokens``.

The longest tokens of common vocabularies have 128 characters (runs of blanks); text has three to five bytes a token.
"""
WIRE_BYTES_PER_TOKEN: Final = 2048
"""Most bytes of a whole answer for each token, as it comes: servers wrap each in an event of 200 to 500 bytes."""
WIRE_BYTES_PER_LOGPROB: Final = 512
"""What each alternative adds to a token for which logprobs were asked."""
WIRE_BYTES_BESIDES: Final = 1024 * 1024
"""What an answer may hold beside its tokens: settings, timings, keep-alive comments, an error page."""
ECHOES: Final = 16
"""An answer may repeat the request: as a prompt, escaped, as tokens with their texts."""
MOST_WIRE_BYTES: Final = 24 * 1024 * 1024
"""No answer may have more, whatever its limit of tokens: sixteen at once must leave a run below half a gigabyte."""


def wire_bytes(request: Request, *, sent: int) -> int:
    """Return the most bytes that the body of an answer may have; ``sent`` is the length of the request's own body."""
    each = WIRE_BYTES_PER_TOKEN
    if request.top_logprobs is not None:
        each += (1 + request.top_logprobs) * WIRE_BYTES_PER_LOGPROB
    tokens = request.sampling.max_tokens * max(1, request.n)
    return min(MOST_WIRE_BYTES, WIRE_BYTES_BESIDES + ECHOES * sent + tokens * each)


def beyond(completion: Completion, max_tokens: int) -> str | None:
    """Say that an answer cannot have been so few tokens, ``None`` where it can; reasoning is left out of account.

    >>> beyond(Completion(text="x" * 2000), 3)
    '2000 bytes of text, and max_tokens = 3 can hold 1536 at most (512 bytes a token)'
    """
    most = TEXT_BYTES_PER_TOKEN * max_tokens
    for choice in (completion, *completion.choices):
        calls = "".join(call.name + call.arguments for call in choice.tool_calls)
        for kind, text in (("text", choice.text), ("tool calls", calls)):
            size = _size(text)
            if size > most:
                return (
                    f"{size} bytes of {kind}, and max_tokens = {max_tokens} can hold {most} at most "
                    f"({TEXT_BYTES_PER_TOKEN} bytes a token)"
                )
    return None


SPARE: Final = 8
"""One part in so many of its limit, and one token, an answer may lack by its server's count and have reached it: what
servers count differs by marks of the beginning and the end, and by characters of several tokens."""


def counted(answer: Completion, beside: Completion | None = None) -> float | None:
    """Return how many tokens of its limit an answer took, reasoning among them; ``None`` where nobody counted.

    The server's count, else the token records. Servers count reasoning with it so it is
    believed, unless it is too small for that: no larger than the reasoning's own count, or nearer to what the text has
    by itself than to what both have, by the tokens per byte of ``beside``, an answer to the same prompt. Then the
    reasoning is added, as the server counts it, else in proportion to the text.

    >>> counted(Completion(text="Paris.", completion_tokens=3)), counted(Completion(text="Paris."))
    (3.0, None)
    >>> answer = Completion(text="Paris.", reasoning="The capital of France.", completion_tokens=2)
    >>> counted(answer), counted(answer, Completion(text="It is Paris.", completion_tokens=4))
    (2.0, 9.333333333333334)
    """
    tokens = _told(answer)
    if tokens is None:
        return None
    size, thought = _size(answer.text), _size(answer.reasoning)
    if tokens > size + 1 or answer.tool_calls:
        return tokens
    rate = None if beside is None else _per_byte(beside)
    if answer.reasoning_tokens:
        of_text = None if rate is None else rate * size
        apart = tokens <= answer.reasoning_tokens if size else False
        apart = apart or (of_text is not None and tokens**2 < of_text * (of_text + answer.reasoning_tokens))
        return tokens + answer.reasoning_tokens if apart else tokens
    size = max(1, size)
    if rate is None or tokens >= rate * math.sqrt(size * (size + thought)):
        return tokens
    return tokens * (size + thought) / size


def short_of_limit(answer: Completion, beside: Completion) -> bool:
    """Whether an answer ended by ``length`` well before its own limit: by a full context, or a cap on the way.

    Of one that reached its limit nobody can know more. One that did not was ended by something else, and an engine that
    ends every answer after a word would agree with any other as far as it goes. Without a limit nothing is known.

    ``beside`` is an answer to the same prompt. By its tokens those of an answer are reckoned whose server did not
    count; half the limit is enough for that to have reached it, since other vocabularies take other numbers of tokens.
    Where it has several choices, and what was counted may be of all of them, the first one has no more than that.

    >>> whole = Completion(text="one two three", finish_reason="length", completion_tokens=13, max_tokens=13)
    >>> short = Completion(text="one", finish_reason="length", completion_tokens=3, max_tokens=13)
    >>> short_of_limit(short, whole), short_of_limit(whole, short)
    (True, False)
    """
    if answer.finish_reason != "length" or answer.max_tokens is None:
        return False
    reached = answer.max_tokens - 1 - answer.max_tokens // SPARE
    own = counted(answer, beside)
    if own is None:
        if answer.counted is not None and answer.counted < reached:
            return True
        return not answer.tool_calls and _reckoned(answer, beside, times=2.0) < answer.max_tokens
    if beside.logprobs and not answer.tool_calls:  # some servers count events, of which one may hold several tokens
        own = max(own, _reckoned(answer, beside, times=1.0))
    return own < reached


def _reckoned(answer: Completion, beside: Completion, *, times: float) -> float:
    """Return how many tokens an answer has, ``times`` what another one's has by the byte; at most one a byte."""
    size, rate = _size(answer.text) + _size(answer.reasoning), _per_byte(beside)
    return float(size) if rate is None else min(float(size), times * size * rate)


def _per_byte(answer: Completion) -> float | None:
    """Return how many tokens an answer has per byte of text and reasoning, ``None`` where that is not known.

    Of several choices what is counted is that of all where one alone could not have as many.
    """
    if answer.tool_calls:
        return None
    size, thought, tokens = _size(answer.text), _size(answer.reasoning), _told(answer)
    if tokens is not None:
        if size and answer.reasoning_tokens and tokens <= answer.reasoning_tokens:
            thought = 0
        elif answer.reasoning_tokens and not thought:
            tokens -= answer.reasoning_tokens  # not sent, or counted apart by a server that is believed
        return tokens / (size + thought) if size + thought and tokens > 0 else None
    if answer.counted is None or answer.max_tokens is None or answer.counted <= answer.max_tokens:
        return None
    if any(choice.tool_calls for choice in answer.choices):
        return None
    of_all = size + thought + sum(_size(choice.text) + _size(choice.reasoning) for choice in answer.choices)
    return answer.counted / of_all if of_all else None


def _told(answer: Completion) -> float | None:
    """Return the server's count of an answer's tokens, else that of its token records, ``None`` without either."""
    if answer.completion_tokens is not None:
        return float(answer.completion_tokens)
    return float(len(answer.logprobs)) if answer.logprobs else None


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
