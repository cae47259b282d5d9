"""A loopback engine that poses as any kind, and takes the parts of a request that real engines treat so differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_llmparity.testing import LoopbackEngine, Reply
from pytest_llmparity.testing.loopback import CHAT, RAW, RESPONSES, Refusal, Script, Scripted
from pytest_llmparity.testing.script import prompt_of
from tests.doubles.abilities import Abilities
from tests.doubles.dialects import DIALECTS
from tests.doubles.speech import DialectSpeech, NativeSpeech, RespondingSpeech

NATIVE = ("/api/chat", "/api/generate")
"""Where Ollama generates in its own shapes."""


class PosingEngine(LoopbackEngine):
    """A loopback engine that says of itself what a kind's server says, with its names for things and its errors.

    ``poses_as`` is the kind. A prompt longer than ``context_length`` words is refused as the kind does, if it does;
    ``abilities`` may say otherwise of this and more. ``took_ms`` is what the engine says an answer took, in the kind's
    words. ``abilities`` and ``loaded`` may be changed while it runs.
    """

    def __init__(
        self,
        answer: Scripted | Script | None = None,
        *,
        poses_as: str = "openai",
        slots: int = 4,
        quantization: str = "F16",
        abilities: Abilities | None = None,
        took_ms: float | None = None,
        **keys: Any,
    ) -> None:
        super().__init__(answer, **keys)
        if poses_as not in DIALECTS:
            raise ValueError(f"poses_as is {poses_as!r}; expected one of: {', '.join(sorted(DIALECTS))}")
        self.poses_as = poses_as
        self.dialect = DIALECTS[poses_as]
        self.slots = slots
        self.quantization = quantization
        self.abilities = abilities or Abilities()
        self.took_ms = took_ms
        self.loaded = not self.dialect.lazy
        self.keyless = self.dialect.keyless
        self.generating = (CHAT, RAW, RESPONSES, *(NATIVE if poses_as == "ollama" else ()))

    def routes(self) -> Mapping[str, object]:
        return self.dialect.routes(self)

    def asked(self, path: str, body: Mapping[str, Any]) -> object | None:
        return None if self.dialect.asked is None else self.dialect.asked(self, path, body)

    def headers(self) -> Mapping[str, str]:
        return {"server": self.dialect.server} if self.dialect.server else {}

    def error_body(self, status: int, message: str, kind: str) -> Mapping[str, object]:
        return self.dialect.shape(status, message, kind)

    def missing(self, model: str) -> Refusal:
        return self.dialect.missing(model)

    def refusal(self, request: Mapping[str, Any]) -> Refusal | None:
        words, too_long = len(prompt_of(request).split()), self.dialect.too_long
        if words > self.context_length and too_long is not None and self.abilities.overflow is None:
            return too_long(words, self.context_length)
        return self.abilities.refusal(request)

    def seen(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.abilities.seen(request, self.context_length)

    def forced(self, request: Mapping[str, Any]) -> str | None:
        return self.abilities.forced(request)

    def speech(self, request: Mapping[str, Any], path: str, reply: Reply, tokens: Sequence[str]) -> DialectSpeech:
        kind = NativeSpeech if path in NATIVE else RespondingSpeech if path == RESPONSES else DialectSpeech
        return kind(
            request,
            reply,
            tokens,
            model=self.model,
            chat=path in (CHAT, RESPONSES, NATIVE[0]),
            dialect=self.dialect,
            took_ms=self.took_ms,
            counted=self.abilities.usage,
        )
