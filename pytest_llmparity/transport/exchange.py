"""One HTTP exchange: what it may take, its answer as it comes in and as it was recorded, and when its parts arrived.

httptools (llhttp) does the syntax of the answer; its body stays raw bytes, which :func:`sse` and :func:`ndjson` split
into the events that were streamed, each with the offset at which it ended. Nothing is decoded.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import httptools

from pytest_llmparity.core.errors import ProtocolError
from pytest_llmparity.core.sample import Timing

_WITHOUT_BODY = (204, 304)
_NS = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes in bytes and times in seconds that one exchange may not pass.

    ``header_bytes`` bounds the answer's headers (and any stretch of bytes without body), ``body_bytes`` its body
    without transfer encoding. ``connect_s`` covers name look-up, TCP, the proxy and TLS together; ``first_byte_s``
    runs from the request's write to the first byte of the answer, ``idle_s`` from one read to the next, ``total_s``
    from the call to the end of the body.
    """

    header_bytes: int = 64 * 1024
    body_bytes: int = 64 * 1024 * 1024
    connect_s: float = 10.0
    first_byte_s: float = 300.0
    idle_s: float = 120.0
    total_s: float = 600.0


class Read(NamedTuple):
    """One read from the socket that carried body bytes: when it arrived and where its body bytes end.

    ``arrived_ns`` is the kernel's stamp of the read's last segment moved onto ``perf_counter_ns``'s clock, or the
    user stamp where there is none. ``seen_ns`` is when our process saw it. ``end`` is the offset into the body
    (transfer encoding removed) after this read.
    """

    arrived_ns: int
    seen_ns: int
    end: int


class ResponseParser:
    """One answer as it comes in; ``complete`` turns true when its last byte has come.

    ``reads`` are those that carried body bytes, ``head`` the one that ended the headers, ``last`` the newest of all.

    ``where`` (host:port) goes into the texts of ``ProtocolError``. ``most_bytes`` is the longest body that can be an
    answer to this request, where that is less than the limits allow. Made anew for every exchange. httptools looks its
    callbacks up by name when it is made, so ``on_body`` is the bytearray's own ``extend``: no Python frame per chunk.
    """

    def __init__(self, where: str, limits: Limits, most_bytes: int | None = None) -> None:
        self.where = where
        self._most_bytes = limits.body_bytes if most_bytes is None else min(most_bytes, limits.body_bytes)
        self.limits = limits
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.reads: list[Read] = []
        self.head = Read(0, 0, 0)
        self.last = Read(0, 0, 0)
        self.complete = False
        self.keep_alive = False
        self.seen_bytes = False
        self.on_body = self.body.extend
        self._head_done = False
        self._until_close = False
        self._header_bytes = 0
        self._bare_bytes = 0
        self._end = 0
        self._problem = ""
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    def feed(self, piece: memoryview, arrived_ns: int, seen_ns: int) -> None:
        """Take one read with its stamps; raise ``ProtocolError`` if it is not HTTP or passes a limit."""
        assert self._parser is not None
        if not self.seen_bytes:
            self.seen_bytes = True
            if bytes(piece[:2]) == b"\x15\x03":  # a TLS alert
                raise self._error("it speaks TLS, not plain HTTP. Write https:// in base_url")
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            raise self._error("it switched to another protocol (101), which nobody asked for") from None
        except httptools.HttpParserError as error:
            raise self._error(self._problem or self._syntax(error)) from error
        if self._problem:
            raise self._error(self._problem)
        end = len(self.body)
        self.last = read = Read(arrived_ns, seen_ns, end)
        if self._head_done and not self.head.seen_ns:
            self.head = read
        if end != self._end:
            self._end = end
            self.reads.append(read)
            if end > self._most_bytes:
                raise self._error(f"its body passed {self._too_long()}")
        else:
            self._bare_bytes += len(piece)
            if self._bare_bytes > self.limits.header_bytes:
                raise self._error(f"it sent more than {self.limits.header_bytes} bytes of headers")

    def feed_eof(self, *, reset: bool) -> None:
        """Take the end of the stream, in order or by a ``reset``; raise ``ProtocolError`` for half an answer."""
        verb = "reset" if reset else "closed"
        if not self._head_done:
            raise self._error(f"it {verb} the connection in the middle of its headers")
        if self._until_close and not reset:
            self.complete = True
            return
        length = self.headers.get("content-length")
        expected = f"{length} were announced" if length is not None else "the end is missing"
        raise self._error(
            f"it {verb} the connection in the middle of its answer: {len(self.body)} body bytes came, {expected}. "
            "The engine's log says why it stopped"
        )

    def release(self) -> None:
        """Drop the parser, whose callbacks hold this object in a cycle (the timed phase runs without gc)."""
        self._parser = None

    def on_message_begin(self) -> None:
        """See a status line begin; after a complete answer it is one too many (httptools' callback)."""
        if self.complete:
            self._problem = "it sent more bytes than the answer it announced"

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header or trailer, within the limit (httptools' callback)."""
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > self.limits.header_bytes:
            self._problem = f"it sent more than {self.limits.header_bytes} bytes of headers"
        elif not self._head_done:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
            self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """Judge the head of an answer (httptools' callback)."""
        assert self._parser is not None
        self.status = self._parser.get_status_code()
        if 100 <= self.status < 200:
            return
        self._head_done = True
        self.keep_alive = bool(self._parser.should_keep_alive())
        version = self._parser.get_http_version()
        coding = self.headers.get("transfer-encoding", "").lower()
        content = self.headers.get("content-encoding", "identity").lower()
        length = self.headers.get("content-length") or "0"  # llhttp has seen to it that it is a number, and one
        if version not in ("1.0", "1.1"):
            self._problem = f"it answered with HTTP/{version}, expected HTTP/1.1"
        elif coding not in ("", "chunked"):
            self._problem = "it used a transfer encoding other than chunked, which nobody asked for"
        elif content not in ("", "identity"):
            self._problem = "it compressed its answer although Accept-Encoding said identity. Switch compression off"
        elif int(length) > self._most_bytes and self.status not in _WITHOUT_BODY:
            self._problem = f"its body is announced with {length} bytes, past {self._too_long()}"
        self._until_close = not coding and "content-length" not in self.headers and self.status not in _WITHOUT_BODY

    def on_message_complete(self) -> None:
        """Finish the answer, or forget a 1xx one (httptools' callback)."""
        if self._head_done:
            self.complete = True
        else:
            self.headers.clear()

    def _too_long(self) -> str:
        if self._most_bytes == self.limits.body_bytes:
            return f"the limit of {self._most_bytes} bytes"
        return (
            f"the limit of {self._most_bytes} bytes, more than is read of an answer to this request: the server does "
            "not keep to max_tokens, repeats what it sent, or max_tokens asks for more than that"
        )

    def _syntax(self, error: Exception) -> str:
        if self.complete:
            return "it sent more bytes than the answer it announced"
        part = "in the body's chunks" if self._head_done else "in status line or headers"
        return f"it does not speak HTTP/1.1 ({part}: {error}). Check host and port in base_url"

    def _error(self, problem: str) -> ProtocolError:
        return ProtocolError(f"the answer of {self.where} cannot be used: {problem}.", status=self.status or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A finished answer. Satisfies ``core.ports.Answer``.

    ``sent_ns`` is taken just before the request's first byte is written, ``done_ns`` when the body was complete
    (arrival stamp of the last read). ``clock`` is ``kernel`` or ``user``. ``reused`` tells a kept connection.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_ns: int
    headers_ns: int
    done_ns: int
    reads: tuple[Read, ...] = field(default_factory=tuple)
    clock: str = "user"
    reused: bool = False


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


# the events of a finished body ----------------------------------------------------------------------------------------

_LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n|\Z)")
_BOM = b"\xef\xbb\xbf"
_FIELDS = (b"id", b"retry")


class Event(NamedTuple):
    """One event: its data without framing, and the offset in the body just after it.

    ``kind`` is what its ``event`` line says. ``framed`` is false for a line that is no field of the format.
    """

    data: bytes
    end: int
    kind: bytes = b""
    framed: bool = True


def sse(body: bytes) -> Iterator[Event]:
    r"""Yield the events of a ``text/event-stream`` body (WHATWG HTML, section 9.2) that carry data.

    Lines end in ``\n``, ``\r\n`` or ``\r``. Several ``data`` lines are joined by ``\n``; comments (keep-alive pings)
    and other fields are skipped. Unlike a browser this yields data after which the body just ends: engines leave the
    last blank line out, and events that have a kind and no data: an error need not say more. ``end`` lies after the
    blank line that closes the event.

    Lines that are no field at all, which a browser drops, come as events that are not ``framed``, where they stand:
    a front end that has said 200 already writes the error of the server behind it like that.

    >>> [(event.data, event.end) for event in sse(b": ping\n\ndata: {}\n\ndata: [DONE]\n\n")]
    [(b'{}', 18), (b'[DONE]', 32)]
    >>> list(sse(b'event: error\ndata: no\n\n{"error"'))
    [Event(data=b'no', end=23, kind=b'error', framed=True), Event(data=b'{"error"', end=31, kind=b'', framed=False)]
    """
    start = len(_BOM) if body.startswith(_BOM) else 0
    if b"\r" in body:
        yield from by_line(body, start, len(body))
        return
    # Thousands of events are one line each: those are taken as they are.
    size = len(body)
    for line in body[start:].split(b"\n\n"):
        end = min(start + len(line) + 2, size)
        if line.startswith(b"data:") and b"\n" not in line:
            yield Event(line[6:] if line.startswith(b"data: ") else line[5:], end)
        else:
            yield from by_line(body, start, end)
        start = end


def by_line(body: bytes, start: int, stop: int) -> Iterator[Event]:
    """Yield the events of a part of a body that begins where an event may, line by line; as :func:`sse` does."""
    values: list[bytes] = []
    kind = b""
    for match in _LINE.finditer(body, start, stop):
        line = match[1]
        if not line:
            if values or kind:
                yield Event(b"\n".join(values), match.end(), kind)
                values = []
            kind = b""
            continue
        name, _, value = line.partition(b":")
        if name == b"data":
            values.append(value.removeprefix(b" "))
        elif name == b"event":
            kind = value.strip()
        elif name and name not in _FIELDS:
            yield Event(line, match.end(), framed=False)
    if values or kind:
        yield Event(b"\n".join(values), stop, kind)


def ndjson(body: bytes) -> Iterator[Event]:
    r"""Yield the lines of a newline-delimited JSON body that are not blank.

    >>> [(line.data, line.end) for line in ndjson(b'{"a":1}\n\n{"b":2}')]
    [(b'{"a":1}', 8), (b'{"b":2}', 16)]
    """
    start = 0
    while start < len(body):
        newline = body.find(b"\n", start)
        end = len(body) if newline < 0 else newline + 1
        line = body[start:end].strip()
        if line:
            yield Event(line, end)
        start = end
