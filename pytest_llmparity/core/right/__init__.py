"""Whether an answer is right: what it says, and what its prompt says is expected."""

from __future__ import annotations

from typing import Any

import msgspec


class Extracted(msgspec.Struct, frozen=True, kw_only=True):
    """The value an answer gives, or the ``problem`` that kept it from being read."""

    value: Any = None
    problem: str = ""
