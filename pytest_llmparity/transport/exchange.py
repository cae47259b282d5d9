"""One HTTP exchange: what it may take, and what the measuring client recorded: raw bytes, stamps, nothing decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


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
