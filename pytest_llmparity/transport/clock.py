"""From the stamps of a finished exchange to latency figures."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from pytest_llmparity.core.sample import Timing
from pytest_llmparity.transport.exchange import Exchange

_NS = 1e9


def timing(
    exchange: Exchange, token_ends: Sequence[int], completion_tokens: int | None, *, hidden_tokens: int = 0
) -> Timing:
    """Return when the parts of an answer arrived.

    ``token_ends`` are the body offsets at which events that carry generated tokens end, ascending (an adapter's
    ``token_ends``); empty for an answer that was not streamed, which has no time to first token.
    ``completion_tokens`` is the server's own count: an event may hold several tokens, so time per output token is
    (last - first) / (tokens - tokens of the first read), the latter taken to be as many as its events. It is
    ``None`` without that count, when one read brought everything, or where events and tokens do not correspond.
    ``hidden_tokens`` were generated and not streamed; servers count them among the others, a few (xAI's) beside them.

    An event has arrived with the read that brought its last byte. Raises ``ValueError`` for an offset past the body.
    """
    reads = exchange.reads
    if token_ends and token_ends[-1] > len(exchange.body):
        raise ValueError(f"a token event ends at {token_ends[-1]}, the body has {len(exchange.body)} bytes")
    ends = [read.end for read in reads]
    carried: dict[int, int] = {}  # index of a read -> how many token events it completed
    for end in token_ends:
        index = bisect_left(ends, end)
        carried[index] = carried.get(index, 0) + 1
    stamps = [reads[index].arrived_ns for index in carried]
    tokens, known = _streamed(completion_tokens, hidden_tokens, len(token_ends))
    ttft_s = tpot_s = None
    first_events = 0
    if stamps:
        ttft_s = (stamps[0] - exchange.sent_ns) / _NS
        first_events = next(iter(carried.values()))
        if known and tokens is not None and len(stamps) > 1 and tokens > first_events:
            tpot_s = (stamps[-1] - stamps[0]) / _NS / (tokens - first_events)
    return Timing(
        ttfb_s=(exchange.headers_ns - exchange.sent_ns) / _NS,
        ttft_s=ttft_s,
        e2e_s=(exchange.done_ns - exchange.sent_ns) / _NS,
        tpot_s=tpot_s,
        gaps_s=tuple((later - earlier) / _NS for earlier, later in pairwise(stamps)),
        merged_first=first_events > 1,
        merged_reads=sum(count > 1 for count in carried.values()),
        token_events=len(token_ends),
        tokens=tokens if token_ends else None,
        clock=exchange.clock,
        lag_s=max((read.seen_ns - read.arrived_ns for read in reads), default=0) / _NS,
    )


def _streamed(tokens: int | None, hidden: int, events: int) -> tuple[int | None, bool]:
    """Return how many tokens were streamed by the server's counts, and whether the events correspond to them."""
    if tokens is None:
        return None, False
    counts = [tokens - hidden, tokens] if 0 < hidden < tokens else [tokens]
    for count in counts:
        if Timing(ttfb_s=0.0, ttft_s=None, e2e_s=0.0, token_events=events, tokens=count).corresponds:
            return count, True
    return counts[0], False
