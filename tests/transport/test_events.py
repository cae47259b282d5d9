from __future__ import annotations

import doctest
import json

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.transport import exchange
from pytest_llmparity.transport.exchange import Event, ndjson, sse

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)


def test_the_docstrings() -> None:
    assert doctest.testmod(exchange).failed == 0


def test_every_engine_s_framing() -> None:
    body = (
        b": ping\n\n"
        b'data: {"a":1}\n\n'
        b": keepalive 1/20\n"
        b"event: message\nid: 7\nretry: 5\ndata:{}\r\n\r\n"
        b"data: two\ndata:  lines\n\n"
        b"data\n\n"
        b"\n\n"
        b"data: [DONE]"
    )

    assert [event.data for event in sse(body)] == [b'{"a":1}', b"{}", b"two\n lines", b"", b"[DONE]"]


def test_lines_may_end_in_cr_alone_and_a_bom_is_skipped() -> None:
    assert list(sse(b"\xef\xbb\xbfdata: a\r\rdata: b\r\r")) == [Event(b"a", 12), Event(b"b", 21)]


def test_nothing_comes_of_nothing() -> None:
    for body in (b"", b"\n", b": ping\n\n"):
        assert list(sse(body)) == []
    assert list(ndjson(b"\n \n")) == []


def test_an_event_may_be_nothing_but_its_kind() -> None:
    assert list(sse(b"event: error\n\nevent: x")) == [Event(b"", 14, b"error"), Event(b"", 22, b"x")]


@given(st.lists(st.tuples(st.lists(TEXT, min_size=1, max_size=3), st.sampled_from(["\n", "\r\n", "\r"]), TEXT)))
def test_what_was_framed_comes_back(items: list[tuple[list[str], str, str]]) -> None:
    body, expected = b"", []
    for lines, newline, comment in items:
        framed = [f":{comment}", *(f"data: {line}" for line in lines), "", ""]
        body += newline.join(framed).encode()
        expected.append(Event("\n".join(lines).encode(), len(body)))

    assert list(sse(body)) == expected


@given(st.binary(max_size=300))
def test_any_bytes_give_ascending_ends_within_the_body(body: bytes) -> None:
    for split in (sse, ndjson):
        ends = [event.end for event in split(body)]
        assert ends == sorted(set(ends))
        assert all(0 < end <= len(body) for end in ends)


@given(
    st.lists(
        st.sampled_from(
            [
                b"data:",
                b"data: ",
                b"data",
                b"event: e",
                b": ping",
                b"{}",
                b" ",
                b"\n",
                b"\n\n",
                b"\r\n",
                b"\xef\xbb\xbf",
            ]
        ),
        max_size=12,
    ).map(b"".join)
)
def test_events_that_are_taken_whole_are_those_of_the_lines(body: bytes) -> None:
    start = 3 if body.startswith(b"\xef\xbb\xbf") else 0

    assert list(sse(body)) == list(exchange.by_line(body, start, len(body)))


@given(st.lists(st.dictionaries(TEXT, TEXT, max_size=3)), st.sampled_from([b"\n", b"\r\n", b"\n\n"]), st.booleans())
def test_ndjson_comes_back(values: list[dict[str, str]], newline: bytes, closed: bool) -> None:
    body = newline.join(json.dumps(value).encode() for value in values) + (newline if closed and values else b"")
    events = list(ndjson(body))

    assert [json.loads(event.data) for event in events] == values
    assert all(body[: event.end].rstrip().endswith(event.data) for event in events)
