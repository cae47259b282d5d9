"""One answer of a loopback engine in OpenAI's shapes."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec

from pytest_llmparity.testing.script import Reply, prompt_of, split_tokens

OTHER: Final = " otherwise"
"""The token that stands second among the alternatives of every token."""


def dump(value: object) -> bytes:
    """Return a value as JSON."""
    return json.dumps(value).encode()


def dump_finite(value: object) -> bytes:
    """Return a value in which no number is infinite or NaN as JSON, several times faster."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # half characters
        return dump(value)


def error_body(status: int, message: str, kind: str) -> dict[str, object]:
    """Return an error in OpenAI's shape, which most servers share."""
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def as_chat(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request of the Responses route as the one of the chat route that asks the same."""
    others = ("input", "text", "tools", "max_output_tokens", "include", "reasoning")
    chat = {name: value for name, value in request.items() if name not in others}
    asked = request.get("input")
    chat["messages"] = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    tools = [tool for tool in request.get("tools") or () if isinstance(tool, dict)]
    wanted = (request.get("text") or {}).get("format") or {}
    fields: dict[str, Any] = {
        "tools": [{"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}} for tool in tools],
        "max_tokens": request.get("max_output_tokens"),
        "logprobs": "message.output_text.logprobs" in (request.get("include") or ()),
        "reasoning_effort": (request.get("reasoning") or {}).get("effort"),
    }
    if wanted:
        named = {name: value for name, value in wanted.items() if name != "type"}
        fields["response_format"] = {"type": wanted.get("type")} | ({"json_schema": named} if named else {})
    return chat | {name: value for name, value in fields.items() if value}


class Speech:
    """One answer in OpenAI's shapes, whole or as events."""

    reasoning: str = "reasoning_content"
    fingerprint: str = "loopback"
    stream_type: ClassVar[str] = "text/event-stream"
    end: ClassVar[bytes] = b"data: [DONE]\n\n"

    def __init__(
        self, request: Mapping[str, Any], reply: Reply, tokens: Sequence[str], *, model: str, chat: bool
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
        self.index = 0
        self.tokens = kept
        self.model = model
        self.chat = chat
        self.streamed = self._streams(request)
        self._dump = dump_finite if math.isfinite(reply.logprob) else dump
        self.finish = reply.finish_reason or ("length" if cut else "tool_calls" if reply.tool_calls else "stop")

    def _limit(self, request: Mapping[str, Any]) -> object:
        return request.get("max_tokens", request.get("max_completion_tokens"))

    def _stop(self, request: Mapping[str, Any]) -> Any:
        return request.get("stop")

    def _streams(self, request: Mapping[str, Any]) -> bool:
        return bool(request.get("stream"))

    def headers(self) -> dict[str, str]:
        """Return the headers an unstreamed answer has beside its type."""
        return {}

    def document(self) -> dict[str, object]:
        """Return the unstreamed answer."""
        text = "".join(self.tokens)
        choice: dict[str, object] = {
            "index": self.index,
            "finish_reason": self.finish,
            "logprobs": self._logprobs(self.tokens),
        }
        if self.chat:
            message: dict[str, object] = {"role": "assistant", "content": text}
            if self.reply.reasoning:
                message[self.reasoning] = self.reply.reasoning
            if self.reply.tool_calls:
                message["tool_calls"] = self._tool_calls()
            choice["message"] = message
        else:
            choice["text"] = text
        return {**self._frame([{**choice, **self.beside_choice()}]), "usage": self.usage(), **self.beside_choices()}

    def events(self) -> Iterator[bytes]:
        """Yield the stream's events up to the end, one per token."""
        yield from self.of_choice()
        if self.ends_with_usage():
            yield self.counting(self.usage())

    def counting(self, usage: Mapping[str, object]) -> bytes:
        """Return the event that counts tokens."""
        return self._framed({**self._frame([]), "usage": usage})

    def of_choice(self) -> Iterator[bytes]:
        """Yield the events of its choice."""
        if self.chat:
            yield self._event({"role": "assistant", "content": ""})
        if self.reply.reasoning:
            for token in split_tokens(self.reply.reasoning):
                yield self._event({self.reasoning: token})
        for token in self.tokens:
            yield self._event({"content": token}, token)
        for call in self._tool_calls():
            yield self._event({"tool_calls": [call]})
        yield self._event({}, finish=self.finish, more=self.beside_choices())

    def error(self, message: str) -> bytes:
        """Return an error as an event of the stream."""
        return self._framed(self.error_body(500, message, "server_error"))

    # what other servers say otherwise ---------------------------------------------------------------------------------

    def error_body(self, status: int, message: str, kind: str) -> dict[str, object]:
        """Return the body of an error."""
        return error_body(status, message, kind)

    def beside_choices(self) -> Mapping[str, object]:
        """Return fields that stand beside the choices, of the last chunk or of an unstreamed answer."""
        return {}

    def beside_choice(self) -> Mapping[str, object]:
        """Return fields of an unstreamed answer's choice."""
        return {}

    def ends_with_usage(self) -> bool:
        """Tell whether the stream ends with a chunk that counts tokens."""
        options = self.request.get("stream_options")
        return isinstance(options, dict) and bool(options.get("include_usage"))

    def entry(self, place: int, token: str) -> dict[str, object]:
        """Return one token of the logprobs."""
        return {"token": token, "logprob": self.reply.logprob, "bytes": list(token.encode("utf-8", "replace"))}

    def usage(self) -> Mapping[str, object]:
        """Return the counts of tokens."""
        prompt, made = self._counts()
        return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}

    def _event(
        self,
        delta: dict[str, object],
        token: str | None = None,
        finish: str | None = None,
        more: Mapping[str, object] | None = None,
    ) -> bytes:
        choice: dict[str, object] = {"index": self.index, "finish_reason": finish}
        choice |= {"delta": delta} if self.chat else {"text": delta.get("content", "")}
        if token is not None:
            choice["logprobs"] = self._logprobs([token])
        return self._framed({**self._frame([choice]), **(more or {})})

    def _frame(self, choices: list[dict[str, object]]) -> dict[str, object]:
        kind = "chat.completion" if self.chat else "text_completion"
        return {
            "id": "loopback-1",
            "object": f"{kind}.chunk" if self.chat and self.streamed else kind,
            "created": 0,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }

    def _counts(self) -> tuple[int, int]:
        prompt = len(prompt_of(self.request).split())
        return prompt, len(self.tokens) + len(split_tokens(self.reply.reasoning)) + len(self.reply.tool_calls)

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
        entries = [self.entry(place, token) for place, token in enumerate(tokens)]
        others = []
        if self.request.get("top_logprobs") not in (None, 0, 1):
            others = [{**self.entry(0, OTHER), "logprob": self.reply.logprob - self.reply.lead}]
        return [{**entry, "top_logprobs": [entry, *others]} for entry in entries]

    def _framed(self, value: object) -> bytes:
        return b"data: " + self._dump(value) + b"\n\n"


class Several:
    """Several choices of one answer: whole, or as events that come in turn, as vLLM's do."""

    def __init__(self, choices: Sequence[Speech]) -> None:
        self._choices = choices
        self._first = choices[0]
        self.reply, self.streamed = self._first.reply, self._first.streamed
        self.stream_type, self.end = self._first.stream_type, self._first.end
        self.tokens = [token for choice in choices for token in choice.tokens]
        for index, choice in enumerate(choices):
            choice.index = index

    def headers(self) -> dict[str, str]:
        """Return the headers an unstreamed answer has beside its type."""
        return self._first.headers()

    def document(self) -> dict[str, object]:
        """Return the unstreamed answer."""
        whole: list[dict[str, Any]] = [choice.document() for choice in self._choices]
        return {**whole[0], "choices": [entry for each in whole for entry in each["choices"]], "usage": self._usage()}

    def events(self) -> Iterator[bytes]:
        """Yield the stream's events up to the end: one of each choice, the last choice first, and so on."""
        for row in itertools.zip_longest(*(choice.of_choice() for choice in reversed(self._choices))):
            yield from (event for event in row if event is not None)
        if self._first.ends_with_usage():
            yield self._first.counting(self._usage())

    def _usage(self) -> dict[str, object]:
        """Return the prompt's tokens once, and those of all choices."""
        each: list[Mapping[str, Any]] = [choice.usage() for choice in self._choices]
        if not each[0]:
            return {}
        made = sum(usage["completion_tokens"] for usage in each)
        asked = each[0]["prompt_tokens"]
        return {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made}


class ResponsesSpeech(Speech):
    """One answer in the shapes of OpenAI's Responses route, to a request as :func:`as_chat` has it."""

    end: ClassVar[bytes] = b""

    def document(self) -> dict[str, object]:
        """Return the unstreamed answer."""
        return self._response(self._ended(), self._output())

    def events(self) -> Iterator[bytes]:
        """Yield the stream's events, one per token."""
        yield self._told("response.created", response=self._response("in_progress", []))
        for token in split_tokens(self.reply.reasoning):
            yield self._told("response.reasoning_text.delta", item_id="rs_1", delta=token)
        for token in self.tokens:
            scored = {"logprobs": self._entries([token])} if self._asks_logprobs() else {}
            yield self._told("response.output_text.delta", item_id="msg_1", delta=token, **scored)
        for place, item in enumerate(self._called()):
            yield self._told("response.output_item.added", output_index=place, item=item)
        ended = self._ended()
        kind = "response.incomplete" if ended == "incomplete" else "response.completed"
        yield self._told(kind, response=self._response(ended, self._output()), **self.beside_choices())

    def error(self, message: str) -> bytes:
        """Return an error as an event of the stream."""
        return self._told("error", code="server_error", message=message, param=None)

    def usage(self) -> Mapping[str, object]:
        """Return the counts of tokens, by this route's names."""
        names = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}
        return {names.get(name, name): count for name, count in super().usage().items()}

    def _told(self, kind: str, **fields: object) -> bytes:
        return f"event: {kind}\n".encode() + self._framed({"type": kind, **fields})

    def _ended(self) -> str:
        return "completed" if self.finish in ("stop", "tool_calls") else "incomplete"

    def _output(self) -> list[dict[str, object]]:
        items: list[dict[str, object]] = []
        if self.reply.reasoning:
            thought = [{"type": "reasoning_text", "text": self.reply.reasoning}]
            items.append({"type": "reasoning", "id": "rs_1", "summary": [], "content": thought})
        if self.tokens or not self.reply.tool_calls:
            part: dict[str, object] = {"type": "output_text", "text": "".join(self.tokens), "annotations": []}
            if self._asks_logprobs():
                part["logprobs"] = self._entries(self.tokens)
            message = {"type": "message", "id": "msg_1", "role": "assistant", "status": self._ended()}
            items.append({**message, "content": [part]})
        return [*items, *self._called()]

    def _called(self) -> list[dict[str, object]]:
        return [
            {"type": "function_call", "id": f"fc_{place}", "call_id": f"call-{place}", "name": name, "arguments": given}
            for place, (name, given) in enumerate(self.reply.tool_calls)
        ]

    def _response(self, status: str, output: list[dict[str, object]]) -> dict[str, object]:
        reason = "max_output_tokens" if self.finish == "length" else self.finish
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 0,
            "model": self.model,
            "status": status,
            "incomplete_details": {"reason": reason} if status == "incomplete" else None,
            "error": None,
            "output": output,
            "usage": self.usage() if output else None,
        }
