"""How many requests a server answers at once, seen from outside."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.sample import SEVERAL
from pytest_llmparity.engines import registry
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.probe.slots import SHORTEST_NS, Span, probe_slots, together
from pytest_llmparity.settings.specification import EngineSpec
from tests.plugin.reported.wire import Answer, Json, chunk, events, serving, usage

MS = 1_000_000


@given(st.integers(SHORTEST_NS, 10**9), st.integers(0, 10**8), st.integers(1, 10**9))
def test_a_queue_is_seen_whatever_the_speed(answer_ns: int, prefill_ns: int, second_ns: int) -> None:
    """Served one after the other: the second begins when the first has ended, and takes about as long."""
    first = Span(0, min(prefill_ns, answer_ns), answer_ns)
    second = Span(0, answer_ns + 1 + prefill_ns, answer_ns + 1 + prefill_ns + max(second_ns, answer_ns // 2))
    assert together(first, second) is False
    assert together(second, first) is False


@given(st.integers(SHORTEST_NS, 10**9), st.integers(SHORTEST_NS, 10**9))
def test_overlapping_answers_are_seen(one_ns: int, other_ns: int) -> None:
    assert together(Span(0, 5 * MS, one_ns), Span(0, 6 * MS, other_ns)) is True


@pytest.mark.parametrize(
    "spans",
    [
        (Span(0, 1 * MS, 2 * MS), Span(0, 3 * MS, 4 * MS)),  # too quick to meet
        (Span(0, 50 * MS, 50 * MS), Span(0, 51 * MS, 51 * MS)),  # each in one read, at the same time
        (Span(0, 48 * MS, 50 * MS), Span(0, 49 * MS, 51 * MS)),  # both read at once, when a stall had ended
        (Span(0, 5 * MS, 50 * MS), Span(60 * MS, 65 * MS, 110 * MS)),  # sent when the first had ended
        (Span(0, 50 * MS, 50 * MS), Span(40 * MS, 90 * MS, 90 * MS)),  # sent when the first was nearly whole
    ],
)
def test_what_shows_nothing_decides_nothing(spans: tuple[Span, Span]) -> None:
    assert together(*spans) is None


def paced(slots: int, asked: list[Json]) -> Any:
    """Return an engine that streams words 5 ms apart and answers so many requests at a time."""
    room = threading.Semaphore(slots)

    def pieces(answer: Answer) -> Iterator[bytes | float]:
        with room:
            for piece in answer.pieces:
                yield piece
                yield 0.005

    def answer(body: Json) -> Answer:
        asked.append(body)
        words = [chunk({"content": "word "}) for _ in range(24)]
        return Answer(tuple_of(pieces(events(*words, chunk({}, "stop"), usage(9, 24)))))

    return answer


def tuple_of(pieces: Iterator[bytes | float]) -> Sequence[bytes | float]:
    """Return pieces that are made while they are sent; the server only goes through them once."""
    return pieces  # type: ignore[return-value]


def adapter_at(port: int) -> Adapter:
    spec = EngineSpec(name="dev", kind="openai", model="m", launch="attach", base_url=f"http://127.0.0.1:{port}")
    return registry.make(spec, spec.base_url or "", environ={})


@pytest.mark.parametrize(("slots", "value", "requests"), [(1, 1, 4), (2, SEVERAL, 2)])
def test_a_server_shows_whether_it_queues(slots: int, value: object, requests: int) -> None:
    asked: list[Json] = []
    taken: list[int] = []

    def take(count: int) -> bool:
        taken.append(count)
        return True

    with serving(paced(slots, asked)) as server:
        fact = probe_slots(adapter_at(server.port), take)

    assert fact is not None
    assert (fact.value, fact.source) == (value, "probed")
    assert len(asked) == sum(taken) == requests
    assert len({str(body["messages"]) for body in asked}) == requests, "no request is in another's prefix cache"


def test_nothing_is_asked_where_nothing_may_be_sent() -> None:
    assert probe_slots(adapter_at(9), lambda count: False) is None


def test_a_server_that_fails_decides_nothing() -> None:
    assert probe_slots(adapter_at(9), lambda count: True) is None
