from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.sample import Timing
from pytest_llmparity.transport import Exchange, Read
from pytest_llmparity.transport.exchange import timing

S = 1_000_000_000


def exchange(reads: Sequence[tuple[float, int]], *, lag_s: float = 0.0, clock: str = "kernel") -> Exchange:
    """An exchange sent at 100 s whose reads arrived so many seconds later, with body offsets."""
    stamps = tuple(Read(100 * S + int(at * S), 100 * S + int((at + lag_s) * S), end) for at, end in reads)
    return Exchange(
        status=200,
        headers={},
        body=b"x" * (reads[-1][1] if reads else 0),
        sent_ns=100 * S,
        headers_ns=100 * S + S // 4,
        done_ns=stamps[-1].arrived_ns if stamps else 100 * S + S // 4,
        reads=stamps,
        clock=clock,
    )


def test_one_token_per_read() -> None:
    timed = timing(exchange([(0.5, 10), (1.0, 20), (2.0, 30), (2.5, 40)], lag_s=0.125), [20, 30], 2)

    assert timed == Timing(
        ttfb_s=0.25,
        ttft_s=1.0,
        e2e_s=2.5,
        tpot_s=1.0,
        gaps_s=(1.0,),
        token_events=2,
        tokens=2,
        clock="kernel",
        lag_s=0.125,
    )


def test_the_server_s_count_divides_not_the_events() -> None:
    timed = timing(exchange([(1.0, 10), (2.0, 20), (3.0, 30)]), [10, 20, 30], 4)  # the end token was counted too

    assert timed.tpot_s == 2.0 / 3
    assert timed.gaps_s == (1.0, 1.0)


@pytest.mark.parametrize(
    ("events", "tokens", "hidden", "counted"),
    [
        (10, 10, 0, 10),
        (10, 13, 0, 13),
        (10, 14, 0, None),  # held back, or several in one event
        (10, 110, 0, None),  # reasoning that was not sent, and not told of
        (10, 110, 100, 10),
        (10, 10, 100, 10),  # counted beside the others
        (10, 18, 8, 10),
        (10, 110, 60, None),
        (1, 30, 0, None),  # a tool call in one event
        (40, 10, 0, None),  # each token in pieces
    ],
)
def test_time_per_token_is_known_only_where_events_and_tokens_correspond(
    events: int, tokens: int, hidden: int, counted: int | None
) -> None:
    ends = [10 * (place + 1) for place in range(events)]
    reads = exchange([(0.1 * (place + 1), end) for place, end in enumerate(ends)])

    timed = timing(reads, ends, tokens, hidden_tokens=hidden)

    assert timed.corresponds is (counted is not None)
    assert timed.tpot_s == (None if counted is None else pytest.approx(0.1 * (events - 1) / (counted - 1)))


def test_merged_reads_are_flagged() -> None:
    timed = timing(exchange([(1.0, 25), (2.0, 30), (4.0, 60)]), [10, 20, 30, 40, 60], 5)

    assert timed.merged_first
    assert timed.merged_reads == 2
    assert (timed.ttft_s, timed.gaps_s) == (1.0, (1.0, 2.0))
    assert timed.tpot_s == 1.0  # 3 s for the 3 tokens after the first read's two


def test_an_event_split_over_reads_arrives_with_its_last_byte() -> None:
    timed = timing(exchange([(1.0, 9), (2.0, 10), (3.0, 20)]), [10, 20], 2)

    assert (timed.ttft_s, timed.merged_first) == (2.0, False)


@pytest.mark.parametrize(("ends", "tokens"), [([10], 1), ([10], 5), ([5, 10], 2), ([10, 20], None), ([10, 20], 1)])
def test_no_time_per_token_where_there_is_none(ends: list[int], tokens: int | None) -> None:
    assert timing(exchange([(1.0, 10), (2.0, 20)]), ends, tokens).tpot_s is None


def test_an_answer_that_was_not_streamed() -> None:
    assert timing(exchange([(1.0, 10)]), [], 4) == Timing(ttfb_s=0.25, ttft_s=None, e2e_s=1.0, clock="kernel")
    assert timing(exchange([], clock="user"), [], None) == Timing(ttfb_s=0.25, ttft_s=None, e2e_s=0.25)


def test_an_offset_past_the_body_is_a_bug() -> None:
    with pytest.raises(ValueError, match="ends at 11, the body has 10 bytes"):
        timing(exchange([(1.0, 10)]), [11], 1)


@given(st.data())
def test_parts_add_up(data: st.DataObject) -> None:
    ends = sorted(data.draw(st.sets(st.integers(1, 200), min_size=1, max_size=30)))
    steps = data.draw(st.lists(st.integers(0, 1000), min_size=len(ends), max_size=len(ends)))
    at = [sum(steps[: n + 1]) / 1000 for n in range(len(steps))]
    tokens = sorted(data.draw(st.sets(st.integers(1, ends[-1]), min_size=1, max_size=40)))
    timed = timing(exchange(list(zip(at, ends, strict=True))), tokens, len(tokens))

    assert timed.ttft_s is not None
    assert timed.ttft_s + sum(timed.gaps_s) <= timed.e2e_s + 1e-9
    assert all(gap >= 0 for gap in timed.gaps_s)
    assert timed.merged_reads + len(timed.gaps_s) + 1 <= len(tokens) + timed.merged_reads
    if timed.tpot_s is not None:
        assert timed.tpot_s == pytest.approx(sum(timed.gaps_s) / (len(tokens) - _in_first_read(tokens, ends)))


def _in_first_read(tokens: Sequence[int], ends: Sequence[int]) -> int:
    first = next(end for end in ends if end >= tokens[0])
    return sum(token <= first for token in tokens)
