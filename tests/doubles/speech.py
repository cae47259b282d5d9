"""How posing engines word an answer: each in its dialect, and Ollama's own route in shapes of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pytest_llmparity.testing.script import split_tokens
from pytest_llmparity.testing.speech import ResponsesSpeech, Speech
from tests.doubles.dialects import Dialect


class DialectSpeech(Speech):
    """One answer in OpenAI's shapes as a kind words them.

    ``took_ms`` is what the engine says it took; it counts tokens unless ``counted`` is false.
    """

    def __init__(self, *args: Any, dialect: Dialect, took_ms: float | None, counted: bool, **keys: Any) -> None:
        super().__init__(*args, **keys)
        self.dialect = dialect
        self.took_ms = took_ms
        self.counted = counted
        self.reasoning = dialect.reasoning
        self.fingerprint = dialect.fingerprint

    def headers(self) -> dict[str, str]:
        """Return the headers an unstreamed answer has beside its type."""
        return {} if self.took_ms is None else self.dialect.header_timings(self.took_ms)

    def error_body(self, status: int, message: str, kind: str) -> dict[str, object]:
        """Return the body of an error."""
        return self.dialect.shape(status, message, kind)

    def beside_choices(self) -> Mapping[str, object]:
        """Return what it took."""
        return {} if self.took_ms is None else self.dialect.timings(self.took_ms)

    def beside_choice(self) -> Mapping[str, object]:
        """Return what it took, where that stands in the choice and is asked for."""
        asked = self.took_ms is not None and self.request.get("return_meta_info")
        return self.dialect.choice_timings(self.took_ms or 0.0) if asked else {}

    def ends_with_usage(self) -> bool:
        """Tell whether the stream ends with a chunk that counts tokens."""
        return self.dialect.counts or super().ends_with_usage()

    def entry(self, place: int, token: str) -> dict[str, object]:
        """Return one token of the logprobs."""
        entry = super().entry(place, token)
        if self.dialect.ids:
            entry["id"] = place
        if self.dialect.spell is not None:
            entry["token"] = self.dialect.spell(token)
            del entry["bytes"]
        return entry

    def usage(self) -> Mapping[str, object]:
        """Return the counts of tokens, where it counts."""
        return super().usage() if self.counted else {}


class RespondingSpeech(ResponsesSpeech, DialectSpeech):
    """One answer in the shapes of the Responses route as a kind words them: only streams say what they took."""


class NativeSpeech(DialectSpeech):
    """One answer in the shapes of Ollama's ``/api/chat`` and ``/api/generate`` (docs/api.md): an object per line."""

    stream_type: ClassVar[str] = "application/x-ndjson"
    end: ClassVar[bytes] = b""

    def _limit(self, request: Mapping[str, Any]) -> object:
        return request.get("options", {}).get("num_predict")

    def _stop(self, request: Mapping[str, Any]) -> Any:
        return request.get("options", {}).get("stop")

    def _streams(self, request: Mapping[str, Any]) -> bool:
        return request.get("stream") is not False

    def document(self) -> dict[str, object]:
        """Return the unstreamed answer."""
        fields = self._spoken("".join(self.tokens), self.reply.reasoning, self._called())
        return self._line(fields, self.tokens) | self._last()

    def events(self) -> Iterator[bytes]:
        """Yield the stream's lines, one per token, and the one that says done."""
        for token in split_tokens(self.reply.reasoning):
            yield self._encoded(self._line(self._spoken("", token)))
        for token in self.tokens:
            yield self._encoded(self._line(self._spoken(token), [token]))
        for call in self._called():
            yield self._encoded(self._line(self._spoken("", calls=[call])))
        yield self._encoded(self._line(self._spoken("")) | self._last())

    def error(self, message: str) -> bytes:
        """Return an error as a line of the stream."""
        return self._encoded({"error": message})

    def _encoded(self, value: object) -> bytes:
        return self._dump(value) + b"\n"

    def _spoken(self, text: str, reasoning: str = "", calls: Sequence[object] = ()) -> dict[str, object]:
        if not self.chat:
            return {"response": text}
        message: dict[str, object] = {"role": "assistant", "content": text}
        if reasoning:
            message["thinking"] = reasoning
        if calls:
            message["tool_calls"] = list(calls)
        return {"message": message}

    def _line(self, fields: Mapping[str, object], tokens: Sequence[str] = ()) -> dict[str, object]:
        line = {"model": self.model, "created_at": "2026-01-01T00:00:00Z", **fields, "done": False}
        return line | ({"logprobs": self._entries(tokens)} if tokens and self._asks_logprobs() else {})

    def _called(self) -> list[dict[str, object]]:
        return [{"function": {"name": name, "arguments": json.loads(args)}} for name, args in self.reply.tool_calls]

    def _last(self) -> dict[str, object]:
        prompt, made = self._counts()
        took = {} if self.took_ms is None else {"total_duration": int(self.took_ms * 1e6)}
        reason = "stop" if self.finish == "tool_calls" else self.finish
        counts = {"prompt_eval_count": prompt, "eval_count": made} if self.counted else {}
        return {"done": True, "done_reason": reason, **counts, **took}
