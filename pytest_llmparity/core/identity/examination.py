"""What the doctor found out about one engine, and what can be said from it without asking again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from pytest_llmparity.core.identity.capabilities import CUTS, Capabilities
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.sample import NEUTRAL, Identity

NEUTRAL_DEFAULTS: Final = {**NEUTRAL, "temperature": 1.0}
"""What OpenAI's own API samples with where a request says nothing; other parameters are off at any value."""
AROUND: Final = 24
"""Tokens round a one-word message above which a template writes more than roles: a date, a default system prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One value of the configuration as it is in force, and what set it: file and key, option, variable, default."""

    key: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFit:
    """The longest prompt of a set against an engine's context, in tokens the server counts.

    ``tokens`` is ``None`` where it counts none, or where ``failed`` says why there was no answer. ``answer`` is what
    the case asks for at most. ``words`` of the prompt: fewer tokens mean that it was cut.
    """

    prompts: str
    case: str
    words: int
    answer: int
    tokens: int | None = None
    failed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What the doctor adds to the record of one ``engine``, whose ``error`` says why there is nothing to examine.

    ``rendered`` are chats, by a name for each, as its template renders them, ``None`` where it does not tell.
    ``wrong`` keeps it from being compared or breaks a promise; ``advice`` does not. ``remarks`` says, by probe, why it
    found out nothing or with which words it was refused. ``limits`` are what its route drops or changes, ``requests``
    what was asked of it.
    """

    engine: EngineRecord
    remarks: Mapping[str, str] = field(default_factory=dict)
    settings: tuple[Setting, ...] = ()
    limits: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    requests: int = 0
    rendered: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def well(self) -> bool:
        """Whether nothing is wrong with it; advice may still be given."""
        return self.engine.error is None and not self.wrong


def on_sampling(identity: Identity) -> Iterator[str]:
    """Yield what the server does where a request leaves its sampling out, unless that is nothing special."""
    text = identity.get("sampling_defaults")
    try:
        defaults: dict[str, float | bool] = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return
    special = {
        name: value
        for name, value in defaults.items()
        if name in NEUTRAL_DEFAULTS and not isinstance(value, bool) and value != NEUTRAL_DEFAULTS[name]
    }
    if special:
        values = ", ".join(f"{name} {value:g}" for name, value in special.items())
        yield (
            f"an application that leaves its sampling out gets {values}; parity sends its own values, so send yours too"
        )


def on_context(wanted: int | None, seen: int | None) -> Iterator[str]:
    """Yield that a server gives another context than was asked for (llama.cpp gives multiples of 256 per slot)."""
    if wanted is not None and seen is not None and wanted != seen:
        yield f"context_length is {wanted} in the configuration, and the server gives {seen}"


def on_capabilities(can: Capabilities, context: int | None) -> Iterator[str]:
    """Yield what follows from what a server can do, for whoever writes prompts and checks."""
    if can.overflow in CUTS:
        length = f" ({context} tokens)" if context else ""
        yield f"it {can.sentence('overflow')}{length} without a word: keep prompts below it, or raise context_length"
    if can.schema_order is False:
        yield (
            "it forces a schema's properties in alphabetical order, which may be another than the model would choose: "
            "declare them in that order, or other engines are asked for something else"
        )
    if can.stream_equal is False:
        yield "its streamed answers are not its unstreamed ones: test the way your application asks"
    if can.seed is False:
        yield "its sampled answers do not repeat for a seed: compare greedy ones (temperature 0)"


def on_template(alone: int | None, with_system: int | None) -> Iterator[str]:
    """Yield what the prompt token counts of a one-word message say, alone and behind a one-word system message."""
    if alone is None:
        return
    if with_system is not None and with_system <= alone:
        yield (
            f"its chat template brings a system prompt of its own: a one-word message is {alone} tokens, and "
            f"{with_system} with a one-word system message; give every case a system message"
        )
    elif alone > AROUND:
        yield (
            f"its chat template puts {alone - 1} tokens round a one-word message: look for a date or a system prompt "
            "in it"
        )


def on_prompts(fit: PromptFit, context: int | None) -> Iterator[str]:
    """Yield what the longest prompt of a set says about the context."""
    whose = f"{fit.case}, the longest of {fit.prompts},"
    if fit.failed:
        yield f"{whose} gets no answer: {fit.failed}"
    elif fit.tokens is None:
        yield f"{whose} was answered, but the server does not say how many tokens it has: it may have been cut"
    elif fit.tokens < fit.words:
        yield f"{whose} was cut: {fit.tokens} tokens were read of a prompt of {fit.words} words; raise context_length"
    elif context is not None and fit.tokens + fit.answer > context:
        yield (
            f"{whose} has {fit.tokens} tokens, which leaves {max(0, context - fit.tokens)} of a context of {context} "
            f"for an answer of {fit.answer}: raise context_length"
        )
