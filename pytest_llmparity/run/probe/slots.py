"""How many requests a server answers at once, where it does not say: two are sent together and watched.

No API of Ollama, nor of most servers behind a URL, tells this number. A server with one slot lets the second request
wait until the first is answered, and the time to its first token is then mostly queueing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from pytest_llmparity.core.errors import LLMParityError
from pytest_llmparity.core.prompts import unseen
from pytest_llmparity.core.sample import SEVERAL, Fact, WireRequest
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.probe.probes import QUESTION, asking
from pytest_llmparity.run.sending.sender import client_of
from pytest_llmparity.transport.client import Client
from pytest_llmparity.transport.exchange import Exchange, timing

TOKENS: Final = 32
"""Tokens of each answer: enough that two of them overlap where they can."""
SHORTEST_NS: Final = 10_000_000
"""An answer that took less proves nothing: the second request may have come too late to meet it. Chosen."""
TRIES: Final = 4
"""Pairs that may be sent where earlier ones did not tell."""
MOST_REQUESTS: Final = 2 * TRIES
SEEN: Final = 2
"""One at a time must be seen this often: a machine that stalls can make one pair look so."""


class Span(NamedTuple):
    """One answer on ``perf_counter_ns``'s clock: request sent, first and last token arrived."""

    sent_ns: int
    first_ns: int
    last_ns: int


def probe_slots(adapter: Adapter, take: Callable[[int], bool]) -> Fact | None:
    """Return how many requests a server answers at once, 1 or ``SEVERAL``; ``None`` where two do not tell.

    ``take`` is asked before each pair whether so many requests may be sent. Never raises for what the server does.
    """
    queued = 0
    for attempt in range(TRIES):
        if not take(2):
            return None
        try:
            at_once = together(*asyncio.run(_two(adapter, attempt)))
        except (LLMParityError, ExceptionGroup):
            return None
        if at_once:
            return Fact(value=SEVERAL, source="probed")
        queued += at_once is False
        if queued == SEEN:
            return Fact(value=1, source="probed")
    return None


def together(first: Span, second: Span) -> bool | None:
    """Tell whether two answers were given at the same time; ``None`` where their times do not show it.

    They were where the later one's first token arrived well before the earlier one's last, by a quarter of its time:
    what a machine that stalled reads at once comes in any order. They were not where the earlier one's tokens came one
    by one and none of the later one's among them; nor, where tokens came at once, when the later one ended by at least
    half an answer's time after the earlier one. A later one that was sent when half of the earlier one's time had
    passed, as a busy machine may, tells neither: it had little to meet.
    """
    earlier, later = sorted((first, second), key=lambda span: span.last_ns)
    took_ns = earlier.last_ns - min(first.sent_ns, second.sent_ns)
    if took_ns < SHORTEST_NS:
        return None
    if later.first_ns < earlier.last_ns:
        return True if earlier.last_ns - later.first_ns >= took_ns / 4 else None
    if later.sent_ns - earlier.sent_ns > took_ns / 2:
        return None
    queued = earlier.last_ns - earlier.first_ns >= SHORTEST_NS or later.last_ns - earlier.last_ns >= took_ns / 2
    return False if queued else None


async def _two(adapter: Adapter, attempt: int) -> tuple[Span, Span]:
    async with client_of(adapter) as client:
        await client.open(2)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_ask(adapter, client, f"{attempt}/{place}")) for place in range(2)]
    return tasks[0].result(), tasks[1].result()


async def _ask(adapter: Adapter, client: Client, about: str) -> Span:
    wire = _wire(adapter, about)
    exchange = await client.send(wire.method, wire.path, wire.body)
    return _span(exchange, adapter.read(exchange, case="slots").token_ends)  # a refusal is no answer


def _wire(adapter: Adapter, about: str) -> WireRequest:
    """Return a request of a text of its own: one that is in the other's prefix cache would be too quick."""
    request = asking(QUESTION, max_tokens=TOKENS)
    return adapter.build(adapter.own(unseen.behind(unseen.number("slots", about), request) or request))


def _span(exchange: Exchange, ends: tuple[int, ...]) -> Span:
    """Return when the first and the last token arrived; of an answer that was not streamed both are its end."""
    times = timing(exchange, ends, None)
    first_ns = exchange.done_ns if times.ttft_s is None else exchange.sent_ns + round(times.ttft_s * 1e9)
    return Span(sent_ns=exchange.sent_ns, first_ns=first_ns, last_ns=first_ns + round(sum(times.gaps_s) * 1e9))
