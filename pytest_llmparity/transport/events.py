"""Splits a finished body into the events it streamed, with the offset at which each one ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n|\Z)")
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event: its data without framing, and the offset in the body just after it.

    ``kind`` is what its ``event`` line says. ``framed`` is false for a line that is no field of the format.
    """

    data: bytes
    end: int
    kind: bytes = b""
    framed: bool = True


_FIELDS = (b"id", b"retry")


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
    data: list[bytes] = []
    kind = b""
    for match in _LINE.finditer(body, start, stop):
        line = match[1]
        if not line:
            if data or kind:
                yield Event(b"\n".join(data), match.end(), kind)
                data = []
            kind = b""
            continue
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif name == b"event":
            kind = value.strip()
        elif name and name not in _FIELDS:
            yield Event(line, match.end(), framed=False)
    if data or kind:
        yield Event(b"\n".join(data), stop, kind)


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
