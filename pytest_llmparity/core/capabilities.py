"""What a server can do: declared for its kind, corrected by probes of the live server."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Overflow = Literal["refused", "oldest turns dropped", "middle cut", "end cut", "answered uncut"]
"""What happens to a conversation that does not fit the context."""
UnknownField = Literal["dropped", "refused"]
"""What happens to a field of a request that the server does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Yes, no, or ``None``: nobody knows before the server was asked.

    ``logprobs``: the chosen token's, in a chat answer. ``token_ids``: ids of generated tokens. ``json_schema``: a
    ``response_format`` with a schema is enforced. ``schema_order``: its properties are forced in declared order.
    ``seed``: the same seed gives the same sampled text. ``tools``: functions may be offered. ``raw_prompt``: text is
    taken as it is, without a template. ``stream_equal``: streamed and unstreamed answers are the same.
    ``context_length`` is the largest prompt plus answer seen to fit, in tokens. ``probed`` names the fields that a
    probe of the live server found out (all others are declared).
    """

    logprobs: bool | None = None
    token_ids: bool | None = None
    json_schema: bool | None = None
    schema_order: bool | None = None
    seed: bool | None = None
    tools: bool | None = None
    raw_prompt: bool | None = None
    stream_equal: bool | None = None
    unknown_fields: UnknownField | None = None
    overflow: Overflow | None = None
    context_length: int | None = None
    probed: tuple[str, ...] = field(default=())

    def corrected(self, found: Mapping[str, object]) -> Capabilities:
        """Return these with what probes found in place of what was declared; ``None`` in ``found`` changes nothing."""
        known = {name: value for name, value in found.items() if value is not None}
        probed = tuple(dict.fromkeys((*self.probed, *known)))
        return dataclasses.replace(self, **known, probed=probed)  # type: ignore[arg-type]  # checked by the caller

    def contradictions(self, declared: Capabilities) -> dict[str, tuple[object, object]]:
        """Return what probes found otherwise than ``declared`` says: field to (declared, found)."""
        pairs = {name: (getattr(declared, name), getattr(self, name)) for name in self.probed}
        return {name: pair for name, pair in pairs.items() if pair[0] is not None and pair[0] != pair[1]}
