"""Splits a finished body into the events it streamed, with the offset at which each one ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n|\Z)")
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event: its data without framing, and the offset in the body just after it."""

    data: bytes
    end: int


def sse(body: bytes) -> Iterator[Event]:
    r"""Yield the events of a ``text/event-stream`` body (WHATWG HTML, section 9.2) that carry data.

    Lines end in ``\n``, ``\r\n`` or ``\r``. Several ``data`` lines are joined by ``\n``; comments (keep-alive pings)
    and other fields are skipped. Unlike a browser this yields data after which the body just ends: engines leave the
    last blank line out. ``end`` lies after the blank line that closes the event.

    >>> list(sse(b": ping\n\ndata: {}\n\ndata: [DONE]\n\n"))
    [Event(data=b'{}', end=18), Event(data=b'[DONE]', end=32)]
    """
    data: list[bytes] = []
    start = len(_BOM) if body.startswith(_BOM) else 0
    for match in _LINE.finditer(body, start):
        line = match[1]
        if not line:
            if data:
                yield Event(b"\n".join(data), match.end())
                data = []
            continue
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
    if data:
        yield Event(b"\n".join(data), len(body))


def ndjson(body: bytes) -> Iterator[Event]:
    r"""Yield the lines of a newline-delimited JSON body that are not blank.

    >>> list(ndjson(b'{"a":1}\n\n{"b":2}'))
    [Event(data=b'{"a":1}', end=8), Event(data=b'{"b":2}', end=16)]
    """
    start = 0
    while start < len(body):
        newline = body.find(b"\n", start)
        end = len(body) if newline < 0 else newline + 1
        line = body[start:end].strip()
        if line:
            yield Event(line, end)
        start = end
