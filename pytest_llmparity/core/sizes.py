"""How large an answer can be that keeps to its token limit, and how small one that reached it.

Anything far beyond the limit is no answer to the request; one that ends well short of it was ended by something else.
"""

from __future__ import annotations

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
        for what, text in (("text", choice.text), ("tool calls", calls)):
            size = _size(text)
            if size > most:
                return (
                    f"{size} bytes of {what}, and max_tokens = {max_tokens} can hold {most} at most "
                    f"({TEXT_BYTES_PER_TOKEN} bytes a token)"
                )
    return None


SPARE: Final = 8
"""One part in so many of its limit, and one token, an answer may lack by its server's count and have reached it: what
servers count differs by marks of the beginning and the end, and by characters of several tokens."""


def counted(answer: Completion) -> float | None:
    """Return how many tokens of its limit an answer took, reasoning among them; ``None`` where nobody counted.

    The server's count, else the token records. Most servers count reasoning with it. Where the count is no larger than
    the text may have by itself, since no token has less than a byte, it is taken not to: then the reasoning is added,
    as the server counts it, else in proportion to the text.

    >>> counted(Completion(text="Paris.", completion_tokens=3)), counted(Completion(text="Paris."))
    (3.0, None)
    """
    if answer.completion_tokens is None and not answer.logprobs:
        return None
    tokens = float(len(answer.logprobs) if answer.completion_tokens is None else answer.completion_tokens)
    size = _size(answer.text)
    if tokens > size + 1 or answer.tool_calls:
        return tokens
    if answer.reasoning_tokens:
        return tokens + answer.reasoning_tokens
    thought = _size(answer.reasoning)
    return tokens * (size + thought) / size if size else tokens + thought


def short_of_limit(answer: Completion, beside: Completion) -> bool:
    """Whether an answer ended by ``length`` well before its own limit: by a full context, or a cap on the way.

    Of one that reached its limit nobody can know more. One that did not was ended by something else, and an engine that
    ends every answer after a word would agree with any other as far as it goes. Without a limit nothing is known.

    ``beside`` is an answer to the same prompt. By its tokens those of an answer are reckoned whose server did not
    count; half the limit is enough for that to have reached it, since other vocabularies take other numbers of tokens.

    >>> whole = Completion(text="one two three", finish_reason="length", completion_tokens=13, max_tokens=13)
    >>> short = Completion(text="one", finish_reason="length", completion_tokens=3, max_tokens=13)
    >>> short_of_limit(short, whole), short_of_limit(whole, short)
    (True, False)
    """
    if answer.finish_reason != "length" or answer.max_tokens is None:
        return False
    own = counted(answer)
    if own is None:
        return not answer.tool_calls and _reckoned(answer, beside, times=2.0) < answer.max_tokens
    if beside.logprobs and not answer.tool_calls:  # some servers count events, of which one may hold several tokens
        own = max(own, _reckoned(answer, beside, times=1.0))
    return own + 1 + answer.max_tokens // SPARE < answer.max_tokens


def _reckoned(answer: Completion, beside: Completion, *, times: float) -> float:
    """Return how many tokens an answer has, ``times`` what another one's has by the byte; at most one a byte."""
    size = _size(answer.text) + _size(answer.reasoning)
    tokens, theirs = counted(beside), _size(beside.text) + _size(beside.reasoning)
    if tokens is None or not theirs or beside.tool_calls:
        return float(size)
    return min(float(size), times * size * tokens / theirs)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
