"""How large an answer can be that keeps to its token limit: anything far beyond that is no answer to the request."""

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
    return min(MOST_WIRE_BYTES, WIRE_BYTES_BESIDES + ECHOES * sent + request.sampling.max_tokens * each)


def beyond(completion: Completion, max_tokens: int) -> str | None:
    """Say that an answer cannot have been so few tokens, ``None`` where it can; reasoning is left out of account.

    >>> beyond(Completion(text="x" * 2000), 3)
    '2000 bytes of text, and max_tokens = 3 can hold 1536 at most (512 bytes a token)'
    """
    most = TEXT_BYTES_PER_TOKEN * max_tokens
    calls = "".join(call.name + call.arguments for call in completion.tool_calls)
    for what, text in (("text", completion.text), ("tool calls", calls)):
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > most:
            return (
                f"{size} bytes of {what}, and max_tokens = {max_tokens} can hold {most} at most "
                f"({TEXT_BYTES_PER_TOKEN} bytes a token)"
            )
    return None
