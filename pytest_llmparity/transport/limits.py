"""How much one exchange may take before it is given up."""

from __future__ import annotations

from dataclasses import dataclass


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
