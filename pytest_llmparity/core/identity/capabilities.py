"""What a server can do: declared for its kind, corrected by probes of the live server, and how that is said."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Overflow = Literal["refused", "oldest turns dropped", "middle cut", "end cut", "answered uncut"]
"""What happens to a conversation that does not fit the context."""
UnknownField = Literal["dropped", "refused"]
"""What happens to a field of a request that the server does not know."""

WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "logprobs": ("reports logprobs", "reports no logprobs"),
    "token_ids": ("reports token ids", "reports no token ids"),
    "json_schema": ("enforces response_format", "does not enforce response_format"),
    "schema_order": (
        "forces a schema's properties in declared order",
        "forces a schema's properties in alphabetical order",
    ),
    "seed": ("repeats sampled text for the same seed", "does not repeat sampled text for the same seed"),
    "tools": ("takes tools", "does not take tools"),
    "images": ("reads images", "does not read images"),
    "audio": ("reads audio", "does not read audio"),
    "raw_prompt": ("takes raw prompts as they are", "does not take raw prompts as they are"),
    "reasoning_effort": ("reasons by reasoning_effort", "ignores reasoning_effort"),
    "thinking_switch": ("reasons by enable_thinking", "ignores enable_thinking in chat_template_kwargs"),
    "stream_equal": ("streams what it answers unstreamed", "answers differently when streamed"),
    "reasons": ("reasons before it answers", "answers without reasoning"),
}
"""What a yes and a no of each field mean, as the rest of a sentence that begins with the engine's name."""
OVERFLOWS: Final[Mapping[Overflow, str]] = {
    "refused": "refuses a conversation that does not fit its context",
    "oldest turns dropped": "drops the oldest turns of a conversation that does not fit its context",
    "middle cut": "cuts the middle out of a conversation that does not fit its context",
    "end cut": "cuts the end off a conversation that does not fit its context",
    "answered uncut": "answers a conversation longer than its context without a cut",
}
CUTS: Final[frozenset[Overflow]] = frozenset({"oldest turns dropped", "middle cut", "end cut"})
"""Ways to answer a conversation that was not read whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Yes, no, or ``None``: nobody knows before the server was asked.

    ``logprobs``: the chosen token's, in a chat answer. ``token_ids``: ids of generated tokens. ``json_schema``: a
    ``response_format`` with a schema is enforced. ``schema_order``: its properties are forced in declared order.
    ``seed``: the same seed gives the same sampled text. ``tools``: functions may be offered. ``images``, ``audio``:
    such parts of a prompt are read, neither refused nor dropped. ``raw_prompt``: text is taken as it is, without a
    template. ``stream_equal``: streamed and unstreamed answers are the same.
    ``reasoning_effort`` and ``thinking_switch``: what a request says of reasoning changes something.
    ``reasons``: it does so before it answers, nothing said of it.
    ``odd_logprobs`` says what keeps its logprobs from being compared, as the rest of a sentence about them.
    ``context_length`` is the largest prompt plus answer seen to fit, in tokens. ``probed`` names the fields that a
    probe of the live server found out (all others are declared).
    """

    logprobs: bool | None = None
    token_ids: bool | None = None
    json_schema: bool | None = None
    schema_order: bool | None = None
    seed: bool | None = None
    tools: bool | None = None
    images: bool | None = None
    audio: bool | None = None
    raw_prompt: bool | None = None
    stream_equal: bool | None = None
    reasoning_effort: bool | None = None
    thinking_switch: bool | None = None
    reasons: bool | None = None
    unknown_fields: UnknownField | None = None
    overflow: Overflow | None = None
    odd_logprobs: str | None = None
    context_length: int | None = None
    probed: tuple[str, ...] = field(default=())

    def corrected(self, probed_now: Mapping[str, object]) -> Capabilities:
        """Return these with what probes found in place of what was declared; ``None`` there changes nothing."""
        known = {name: value for name, value in probed_now.items() if value is not None}
        probed = tuple(dict.fromkeys((*self.probed, *known)))
        return dataclasses.replace(self, **known, probed=probed)  # type: ignore[arg-type]  # checked by the caller

    def contradictions(self, declared: Capabilities) -> dict[str, tuple[object, object]]:
        """Return what probes found otherwise than ``declared`` says: field to (declared, found)."""
        pairs = {name: (getattr(declared, name), getattr(self, name)) for name in self.probed}
        return {name: pair for name, pair in pairs.items() if pair[0] is not None and pair[0] != pair[1]}

    def lacks(self, name: str, declared: Capabilities) -> bool:
        """Tell whether a field is a no that nobody promised otherwise.

        A yes of the kind that its server does not keep is no missing capability but a finding: what rests on it is
        judged, and fails.
        """
        return getattr(self, name) is False and name not in self.contradictions(declared)

    def basis(self, name: str, declared: Capabilities) -> str:
        """Return where a field's value comes from: declared, probed, or both and whether they agree."""
        if name not in self.probed:
            return "declared"
        if getattr(declared, name) is None:
            return "probed"
        agree = getattr(declared, name) == getattr(self, name)
        return "declared, confirmed by a probe" if agree else "probed, declared otherwise"

    def sentence(self, name: str) -> str:
        """Return what a field says about an engine, to be put behind its name; empty when nobody knows.

        >>> Capabilities(json_schema=False).sentence("json_schema")
        'does not enforce response_format'
        """
        value = getattr(self, name)
        if value is None:
            return ""
        if name in WORDS:
            return WORDS[name][0 if value else 1]
        if name == "overflow":
            return OVERFLOWS[value]
        if name == "odd_logprobs":
            return f"gives logprobs that {value}"
        if name == "unknown_fields":
            return "drops fields it does not know" if value == "dropped" else "refuses fields it does not know"
        return f"was seen to answer {value} tokens of prompt and answer together"

    def findings(self, engine: str, declared: Capabilities) -> tuple[str, ...]:
        """Return one sentence per contradiction between what the kind promises and what its server does."""
        return tuple(
            f"{engine} {self.sentence(name)} (found by a probe; its kind {declared.sentence(name)})"
            for name in self.contradictions(declared)
        )
