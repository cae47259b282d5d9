from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.errors import ProtocolError
from pytest_llmparity.transport import Limits, Read
from pytest_llmparity.transport.exchange import ResponseParser

BODY = b"data: one\n\ndata: two\r\n\r\n"
WHOLE = (
    b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\nx-a: 2\r\n\r\n"
    b"b\r\ndata: one\n\n\r\nd;x=y\r\ndata: two\r\n\r\n\r\n0\r\nX-Trailer: t\r\n\r\n"
)


def feed(parts: list[bytes], limits: Limits | None = None) -> ResponseParser:
    parser = ResponseParser("h:1", limits or Limits())
    for number, part in enumerate(parts, 1):
        parser.feed(memoryview(part), number * 10, number * 10 + 1)
    return parser


@given(st.lists(st.integers(1, len(WHOLE) - 1), max_size=12))
def test_cut_anywhere_the_answer_is_the_same(cuts: list[int]) -> None:
    edges = [0, *sorted(set(cuts)), len(WHOLE)]
    parser = feed([WHOLE[start:end] for start, end in pairwise(edges)])

    assert parser.complete
    assert parser.keep_alive
    assert (parser.status, bytes(parser.body)) == (200, BODY)
    assert parser.headers == {"transfer-encoding": "chunked", "x-a": "1, 2"}
    ends = [read.end for read in parser.reads]
    assert ends == sorted(set(ends))
    assert ends[-1] == len(BODY)
    assert parser.head.arrived_ns <= parser.reads[0].arrived_ns
    assert parser.last.arrived_ns == 10 * (len(edges) - 1)


def test_at_every_byte_each_read_ends_where_its_body_byte_does() -> None:
    parser = feed([WHOLE[n : n + 1] for n in range(len(WHOLE))])

    assert [read.end for read in parser.reads] == list(range(1, len(BODY) + 1))


@given(st.binary(max_size=200), st.integers(1, 5))
def test_any_bytes_are_an_answer_or_a_protocol_error(received: bytes, size: int) -> None:
    assert answered_or_refused([received[start : start + size] for start in range(0, len(received), size)])


@given(st.binary(max_size=50), st.integers(0, len(WHOLE)), st.integers(0, len(WHOLE)))
def test_a_damaged_answer_is_an_answer_or_a_protocol_error(noise: bytes, start: int, length: int) -> None:
    assert answered_or_refused([WHOLE[:start] + noise + WHOLE[start + length :]])


def answered_or_refused(parts: list[bytes]) -> bool:
    try:
        parser = feed(parts, Limits(header_bytes=256, body_bytes=64))
        if not parser.complete:
            parser.feed_eof(reset=False)
    except ProtocolError:
        return True
    return parser.complete


def test_the_stamp_of_the_head_is_not_the_body_s() -> None:
    parser = feed([b"HTTP/1.1 200 OK\r\n", b"Content-Length: 2\r\n\r\n", b"a", b"b"])

    assert parser.head == Read(20, 21, 0)
    assert parser.reads == [Read(30, 31, 1), Read(40, 41, 2)]
    assert parser.last == Read(40, 41, 2)


def test_without_a_status_the_error_has_none() -> None:
    with pytest.raises(ProtocolError) as caught:
        feed([b"what?"])

    assert caught.value.status is None


@pytest.mark.parametrize(("reset", "word"), [(False, "closed"), (True, "reset")])
def test_the_end_in_the_middle(reset: bool, word: str) -> None:
    parser = feed([b"HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\nabc"])
    with pytest.raises(
        ProtocolError, match=rf"it {word} the connection .*: 3 body bytes came, 9 were announced"
    ) as caught:
        parser.feed_eof(reset=reset)

    assert caught.value.status == 500


@pytest.mark.parametrize(
    "head", [b"Content-Length: 101\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 101]
)
def test_an_answer_that_is_longer_than_its_tokens_can_need_is_refused_early(head: bytes) -> None:
    """One that is announced is not read at all."""
    parser = ResponseParser("h:1", Limits(), most_bytes=100)

    with pytest.raises(ProtocolError, match="limit of 100 bytes, more than is read of an answer to this request"):
        parser.feed(memoryview(b"HTTP/1.1 200 OK\r\n" + head), 1, 1)


def test_an_answer_as_long_as_it_may_be_is_one() -> None:
    parser = ResponseParser("h:1", Limits(), most_bytes=100)
    parser.feed(memoryview(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 100), 1, 1)

    assert parser.complete
