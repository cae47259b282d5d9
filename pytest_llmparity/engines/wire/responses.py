"""OpenAI's Responses route (``/v1/responses``), built and read.

Its shapes are those of OpenAI's reference (API reference, *Responses* and *Streaming events*); where a server departs
from them, the place says which one was seen to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_llmparity.core.errors import ParameterNotHonoured
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.sample import Completion, JsonObject
from pytest_llmparity.engines.facts.values import mapping, mappings, sequence, string
from pytest_llmparity.engines.wire import read
from pytest_llmparity.engines.wire.refusals import shown

PATH: Final = "/v1/responses"

FIELDS: Final = {"temperature": "temperature", "top_p": "top_p", "max_tokens": "max_output_tokens"}
"""Sampling fields of OpenAI's own Responses API, our name to the wire's: it has no seed, no stop and no penalties."""

LEAST_TOKENS: Final = 16
"""The smallest limit of an answer: OpenAI refuses less, and LiteLLM (1.106) makes this of less without a word."""

LOGPROBS: Final = "message.output_text.logprobs"
"""What ``include`` calls logprobs."""

_UNFINISHED: Final = {"max_output_tokens": "length", "max_tokens": "length"}
"""``incomplete_details.reason`` in the words of finish reasons."""
_ENDED: Final = ("completed", "incomplete", "failed", "cancelled")
"""The statuses of a response that nothing follows; ``in_progress`` and ``queued`` are said of one that is under way."""
_ENDS: Final = {f"response.{status}": status for status in _ENDED}
"""The events that end a stream, each with the status it stands for."""
_THOUGHT: Final = ("response.reasoning_text.delta", "response.reasoning_summary_text.delta")


# ---- requests ------------------------------------------------------------------------------------------------------


def body_of(fields: Mapping[str, Any], *, engine: str, case: str) -> JsonObject:
    """Return fields of a chat request (messages, tools, format, what is said of reasoning) in this route's words.

    ``store`` is false: servers that keep answers would keep these. Raises ``ParameterNotHonoured`` for a turn that
    has no place here.
    """
    body: JsonObject = {"input": items_of(fields.get("messages", ()), engine=engine, case=case), "store": False}
    for name, value in fields.items():
        if name == "tools":
            body["tools"] = [_flat(tool, "function") for tool in value]
        elif name == "tool_choice":
            body["tool_choice"] = _flat(value, "function") if isinstance(value, Mapping) else value
        elif name == "response_format":
            body["text"] = {"format": _flat(value, "json_schema")}
        elif name == "reasoning_effort":
            body["reasoning"] = {"effort": value}
        elif name != "messages":
            body[name] = value
    return body


def items_of(turns: Sequence[Mapping[str, Any]], *, engine: str, case: str) -> list[JsonObject]:
    """Return the turns of a chat as input items: a turn that calls tools becomes an item for each call.

    What an assistant said goes out as the item that the route itself would have answered with, because llama.cpp
    (b10488) refuses every other spelling of it.
    """
    items: list[JsonObject] = []
    for place, turn in enumerate(turns):
        role, content = turn.get("role"), turn.get("content")
        if role == "tool":
            text = "".join(string(part.get("text")) for part in mappings(content)) or string(content)
            items.append({"type": "function_call_output", "call_id": turn.get("tool_call_id"), "output": text})
            continue
        if role == "assistant":
            texts = [content] if isinstance(content, str) else [string(part.get("text")) for part in mappings(content)]
            parts: list[JsonObject] = [
                {"type": "output_text", "text": text, "annotations": []} for text in texts if text
            ]
            if parts:
                message: JsonObject = {"type": "message", "id": f"msg_{place}", "role": role, "status": "completed"}
                items.append({**message, "content": parts})
            items += [_call(call) for call in mappings(turn.get("tool_calls"))]
            continue
        whole = content if isinstance(content, str) else _parts(mappings(content), engine=engine, case=case)
        items.append({"role": role, "content": whole})
    return items


def _call(call: Mapping[str, Any]) -> JsonObject:
    function = mapping(call.get("function"))
    named = {"call_id": call.get("id"), "name": function.get("name"), "arguments": function.get("arguments")}
    return {"type": "function_call", **named}


def _parts(parts: Sequence[Mapping[str, Any]], *, engine: str, case: str) -> list[JsonObject]:
    """Return the parts of a user's turn: an image's address stands in its part itself here."""
    shaped: list[JsonObject] = []
    for part in parts:
        kind = part.get("type")
        if kind == "text":
            shaped.append({"type": "input_text", "text": part.get("text")})
        elif kind == "image_url":
            image = mapping(part.get("image_url"))
            detail = {"detail": image["detail"]} if "detail" in image else {}
            shaped.append({"type": "input_image", "image_url": image.get("url"), **detail})
        elif kind == "input_audio":
            shaped.append({"type": "input_audio", "input_audio": part.get("input_audio")})
        else:
            raise ParameterNotHonoured(
                f"{engine}: a part of type {kind!r} of case {case!r} has no place on route 'responses'",
                engine=engine,
                case=case,
            )
    return shaped


def _flat(value: Mapping[str, Any], name: str) -> JsonObject:
    """Return an object of the chat route with what it holds under a name beside its type, as this route has it.

    >>> _flat({"type": "function", "function": {"name": "f"}}, "function")
    {'type': 'function', 'name': 'f'}
    """
    inner = mapping(value.get(name))
    return {**{key: item for key, item in value.items() if key != name}, **inner}


# ---- answers -------------------------------------------------------------------------------------------------------


def parse(answer: Answer, *, engine: str, case: str | None) -> Completion:
    """Read a finished answer, streamed or not; raises an ``AnswerError`` naming engine and case.

    A stream is whole when an event said how the response ended, an unstreamed one when its ``status`` did: what is in
    progress or queued is half an answer, and what does not say so may be. ``completed`` is ``stop``, or ``tool_calls``
    where there are calls: llama.cpp and Ollama say ``completed`` of an answer that the token limit cut, too, which its
    count of tokens shows (``Completion.cut``).
    """
    reader, draft = read.Reader(engine, case, answer), read.Draft()
    reader.no_refusal(draft)
    if draft.cut_call:
        return read.finished(draft, reader)
    if read.is_stream(answer):
        stream, ended = _Stream(), False
        for event in reader.chunks(draft, belongs=_is_event):
            if event is None:
                continue
            chunk = stream.chunk(event)
            ended |= event.get("type") in _ENDS
            if chunk:
                read.take(draft, chunk, streamed=True, end=reader.end)
        if not (ended or draft.cut_call):
            raise reader.unfinished(f"the stream ended after {len(answer.body)} bytes without response.completed")
    else:
        response = reader.document(holding="output")
        status = string(response.get("status"))
        if status not in _ENDED:
            words = f"says {shown(status, 40)}" if status else "is not there"
            raise reader.broken(f"its status {words}, so whether the answer is whole is not known")
        read.take(draft, _whole(response, status=status))
    return read.finished(draft, reader)


def _is_event(value: Mapping[str, Any]) -> bool:
    return string(value.get("type")).startswith(("response.", "keepalive", "ping"))


class _Stream:
    """The events of one stream as chunks of a chat."""

    def __init__(self) -> None:
        self._items: dict[str, int] = {}
        self._thinks_by = ""
        self._logprobs: list[Any] = []

    def chunk(self, event: Mapping[str, Any]) -> JsonObject:
        """Return an event as the chunk the chat route would have sent, empty where it says nothing new."""
        kind, item = string(event.get("type")), mapping(event.get("item"))
        piece = string(event.get("delta"))
        if kind in _ENDS:
            # Those of the whole response say more than those that were streamed: vLLM (0.32) leaves bytes out there.
            response = mapping(event.get("response"))
            status = string(response.get("status"))
            whole = _whole(response, status=status if status in _ENDED else _ENDS[kind], logprobs=self._logprobs)
            return whole | {name: event[name] for name in ("timings", "metrics") if name in event}
        if kind in ("response.output_text.delta", "response.refusal.delta"):
            self._logprobs += sequence(event.get("logprobs"))
            return _delta({"content": piece})
        if kind in _THOUGHT:
            # A server that sends both its reasoning and a summary of it sends the reasoning first.
            self._thinks_by = self._thinks_by or kind
            return _delta({"reasoning": piece}) if kind == self._thinks_by else {}
        if kind == "response.output_item.added" and item.get("type") == "function_call":
            named = {"name": item.get("name"), "arguments": string(item.get("arguments"))}
            return _delta({"tool_calls": [{"index": self._place(item, event), "id": _id(item), "function": named}]})
        if kind == "response.function_call_arguments.delta":
            place = self._place({"id": event.get("item_id")}, event)
            return _delta({"tool_calls": [{"index": place, "function": {"arguments": piece}}]})
        return {}

    def _place(self, item: Mapping[str, Any], event: Mapping[str, Any]) -> int:
        """Return the number of a call: by its item's id, because llama.cpp's events have no ``output_index``."""
        known = string(item.get("id")) or str(event.get("output_index"))
        return self._items.setdefault(known, len(self._items))


def _delta(delta: JsonObject) -> JsonObject:
    return {"choices": [{"delta": delta}]}


def _id(item: Mapping[str, Any]) -> str:
    return string(item.get("call_id")) or string(item.get("id"))


def _whole(response: Mapping[str, Any], *, status: str, logprobs: Sequence[Any] = ()) -> JsonObject:
    """Return a response that ended with a ``status`` as a chat's answer.

    ``logprobs`` are those of its events, good where it has none itself.
    """
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[JsonObject] = []
    scored: list[Any] = []
    for item in mappings(response.get("output")):
        kind, content = item.get("type"), mappings(item.get("content"))
        if kind == "message":
            texts += [string(part.get("text")) or string(part.get("refusal")) for part in content]
            scored += [entry for part in content for entry in sequence(part.get("logprobs"))]
        elif kind == "reasoning":
            parts = content or mappings(item.get("summary"))
            thoughts.append("".join(string(part.get("text")) for part in parts))
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            calls.append({"index": len(calls), "id": _id(item), "function": function})
    message: JsonObject = {"content": "".join(texts), "reasoning": "\n".join(filter(None, thoughts))}
    if calls:
        message["tool_calls"] = calls
    choice: JsonObject = {"message": message, "finish_reason": _finish(response, status, called=bool(calls))}
    if scored or logprobs:
        choice["logprobs"] = {"content": scored or list(logprobs)}
    told_too = {name: response[name] for name in ("model", "usage", "timings", "metrics", "stats") if name in response}
    return {**told_too, "choices": [choice]}


def _finish(response: Mapping[str, Any], status: str, *, called: bool) -> str:
    """Return why a response ended, in the words of finish reasons."""
    if status == "incomplete":
        reason = string(mapping(response.get("incomplete_details")).get("reason"))
        return _UNFINISHED.get(reason, reason or "length")
    if status == "completed":
        return "tool_calls" if called else "stop"
    return "error" if status == "failed" else status
