"""One answer of a loopback engine in the shapes of the wire: OpenAI's, and Ollama's own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pytest_llmparity.testing.dialects import Dialect
from pytest_llmparity.testing.script import Reply, prompt_of, split_tokens


def dump(value: object) -> bytes:
    """Return a value as JSON."""
    return json.dumps(value).encode()


class Speech:
    """One answer in OpenAI's shapes, whole or as events.

    ``took_ms`` is what the engine says it took; it counts tokens unless ``counted`` is false.
    """

    stream_type: ClassVar[str] = "text/event-stream"
    end: ClassVar[bytes] = b"data: [DONE]\n\n"

    def __init__(
        self,
        request: Mapping[str, Any],
        reply: Reply,
        tokens: Sequence[str],
        *,
        model: str,
        dialect: Dialect,
        chat: bool,
        took_ms: float | None = None,
        counted: bool = True,
    ) -> None:
        limit = self._limit(request)
        kept = list(tokens) if not isinstance(limit, int) else list(tokens[:limit])
        cut = len(kept) < len(tokens)
        wanted = self._stop(request) or ()
        stops = [stop for stop in ([wanted] if isinstance(wanted, str) else wanted) if stop in "".join(kept)]
        if stops:
            text = "".join(kept)
            kept, cut = split_tokens(text[: min(text.index(stop) for stop in stops)]), False
        self.request = request
        self.reply = reply
        self.tokens = kept
        self.model = model
        self.dialect = dialect
        self.chat = chat
        self.took_ms = took_ms
        self.counted = counted
        self.streamed = self._streams(request)
        self.finish = reply.finish_reason or ("length" if cut else "tool_calls" if reply.tool_calls else "stop")

    def _limit(self, request: Mapping[str, Any]) -> object:
        return request.get("max_tokens", request.get("max_completion_tokens"))

    def _stop(self, request: Mapping[str, Any]) -> Any:
        return request.get("stop")

    def _streams(self, request: Mapping[str, Any]) -> bool:
        return bool(request.get("stream"))

    def headers(self) -> dict[str, str]:
        """Return the headers an unstreamed answer has beside its type."""
        return {} if self.took_ms is None else self.dialect.header_timings(self.took_ms)

    def document(self) -> dict[str, object]:
        """Return the unstreamed answer."""
        text = "".join(self.tokens)
        choice: dict[str, object] = {"index": 0, "finish_reason": self.finish, "logprobs": self._logprobs(self.tokens)}
        if self.chat:
            message: dict[str, object] = {"role": "assistant", "content": text}
            if self.reply.reasoning:
                message[self.dialect.reasoning] = self.reply.reasoning
            if self.reply.tool_calls:
                message["tool_calls"] = self._tool_calls()
            choice["message"] = message
        else:
            choice["text"] = text
        if self.took_ms is not None and self.request.get("return_meta_info"):
            choice |= self.dialect.choice_timings(self.took_ms)
        return {**self._frame([choice]), "usage": self._usage(), **self._timings()}

    def events(self) -> Iterator[bytes]:
        """Yield the stream's events up to the end, one per token."""
        if self.chat:
            yield self._event({"role": "assistant", "content": ""})
        if self.reply.reasoning:
            for token in split_tokens(self.reply.reasoning):
                yield self._event({self.dialect.reasoning: token})
        for token in self.tokens:
            yield self._event({"content": token}, token)
        for call in self._tool_calls():
            yield self._event({"tool_calls": [call]})
        yield self._event({}, finish=self.finish, more=self._timings())
        options = self.request.get("stream_options")
        if self.dialect.counts or (isinstance(options, dict) and options.get("include_usage")):
            yield _data({**self._frame([]), "usage": self._usage()})

    def error(self, message: str) -> bytes:
        """Return an error as an event of the stream."""
        return _data(self.dialect.shape(500, message, "server_error"))

    def _event(
        self,
        delta: dict[str, object],
        token: str | None = None,
        finish: str | None = None,
        more: Mapping[str, object] | None = None,
    ) -> bytes:
        choice: dict[str, object] = {"index": 0, "finish_reason": finish}
        choice |= {"delta": delta} if self.chat else {"text": delta.get("content", "")}
        if token is not None:
            choice["logprobs"] = self._logprobs([token])
        return _data({**self._frame([choice]), **(more or {})})

    def _timings(self) -> dict[str, object]:
        return {} if self.took_ms is None else self.dialect.timings(self.took_ms)

    def _frame(self, choices: list[dict[str, object]]) -> dict[str, object]:
        kind = "chat.completion" if self.chat else "text_completion"
        return {
            "id": "loopback-1",
            "object": f"{kind}.chunk" if self.chat and self.streamed else kind,
            "created": 0,
            "model": self.model,
            "system_fingerprint": self.dialect.fingerprint,
            "choices": choices,
        }

    def _counts(self) -> tuple[int, int]:
        prompt = len(prompt_of(self.request).split())
        return prompt, len(self.tokens) + len(split_tokens(self.reply.reasoning)) + len(self.reply.tool_calls)

    def _usage(self) -> dict[str, object]:
        if not self.counted:
            return {}
        prompt, made = self._counts()
        return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}

    def _tool_calls(self) -> list[dict[str, object]]:
        return [
            {"index": place, "id": f"call-{place}", "type": "function", "function": {"name": name, "arguments": args}}
            for place, (name, args) in enumerate(self.reply.tool_calls)
        ]

    def _logprobs(self, tokens: Sequence[str]) -> dict[str, object] | None:
        return {"content": self._entries(tokens)} if self._asks_logprobs() else None

    def _asks_logprobs(self) -> bool:
        return self.request.get("logprobs") not in (None, False)

    def _entries(self, tokens: Sequence[str]) -> list[dict[str, object]]:
        entries = []
        for place, token in enumerate(tokens):
            entry: dict[str, object] = {"token": token, "logprob": self.reply.logprob}
            if self.dialect.ids:
                entry["id"] = place
            if self.dialect.spell is None:
                entry["bytes"] = list(token.encode("utf-8", "replace"))
            else:
                entry["token"] = self.dialect.spell(token)
            entries.append({**entry, "top_logprobs": [entry]})
        return entries


class NativeSpeech(Speech):
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
        said = self._said("".join(self.tokens), self.reply.reasoning, self._called())
        return self._line(said, self.tokens) | self._last()

    def events(self) -> Iterator[bytes]:
        """Yield the stream's lines, one per token, and the one that says done."""
        for token in split_tokens(self.reply.reasoning):
            yield self._encoded(self._line(self._said("", token)))
        for token in self.tokens:
            yield self._encoded(self._line(self._said(token), [token]))
        for call in self._called():
            yield self._encoded(self._line(self._said("", calls=[call])))
        yield self._encoded(self._line(self._said("")) | self._last())

    def error(self, message: str) -> bytes:
        """Return an error as a line of the stream."""
        return self._encoded({"error": message})

    def _encoded(self, value: object) -> bytes:
        return dump(value) + b"\n"

    def _said(self, text: str, reasoning: str = "", calls: Sequence[object] = ()) -> dict[str, object]:
        if not self.chat:
            return {"response": text}
        message: dict[str, object] = {"role": "assistant", "content": text}
        if reasoning:
            message["thinking"] = reasoning
        if calls:
            message["tool_calls"] = list(calls)
        return {"message": message}

    def _line(self, said: Mapping[str, object], tokens: Sequence[str] = ()) -> dict[str, object]:
        line = {"model": self.model, "created_at": "2026-01-01T00:00:00Z", **said, "done": False}
        return line | ({"logprobs": self._entries(tokens)} if tokens and self._asks_logprobs() else {})

    def _called(self) -> list[dict[str, object]]:
        return [{"function": {"name": name, "arguments": json.loads(args)}} for name, args in self.reply.tool_calls]

    def _last(self) -> dict[str, object]:
        prompt, made = self._counts()
        took = {} if self.took_ms is None else {"total_duration": int(self.took_ms * 1e6)}
        reason = "stop" if self.finish == "tool_calls" else self.finish
        counts = {"prompt_eval_count": prompt, "eval_count": made} if self.counted else {}
        return {"done": True, "done_reason": reason, **counts, **took}


def _data(value: object) -> bytes:
    return b"data: " + dump(value) + b"\n\n"
