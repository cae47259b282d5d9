"""Ollama's own API, built and read: ``/api/chat``, and ``/api/generate`` for raw prompts (its docs/api.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pytest_llmparity.core.errors import ParameterNotHonoured
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.prompts import parts
from pytest_llmparity.core.sample import Completion, JsonObject, JsonValue, Request
from pytest_llmparity.engines.facts.values import decoded, mapping, mappings
from pytest_llmparity.engines.wire import build, read
from pytest_llmparity.transport.exchange import ndjson

CHAT_PATH: Final = "/api/chat"
RAW_PATH: Final = "/api/generate"

OPTIONS: Final = build.OPEN_SERVERS | {"repetition_penalty": "repeat_penalty", "max_tokens": "num_predict"}
"""Sampling in ``options``, our name to Ollama's; what is not in it (``n``, ``logit_bias``) exists nowhere in Ollama."""

MOST_LOGPROBS: Final = 20
"""Ollama answers 400 to a request for more alternatives, on every route."""

_LEVELS: Final = ("low", "medium", "high")
_DURATIONS: Final = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


# ---- requests ------------------------------------------------------------------------------------------------------


def body(request: Request, *, model: str, options: Mapping[str, Any], stream: bool, engine: str) -> JsonObject:
    """Return the body for ``/api/chat``, or for ``/api/generate`` with ``raw`` where the request is a raw prompt.

    ``options`` is sampling and load options together. ``stream`` is always written: Ollama streams unless told not to.
    """
    fields: JsonObject = {"model": model}
    if request.prompt is not None:
        fields |= {"prompt": request.prompt, "raw": True}
    else:
        turns = parts.sent(request.messages or (), request.attached)
        fields["messages"] = messages(turns, engine=engine, case=request.case)
        if request.tools:
            fields["tools"] = list(request.tools)
    wanted = schema_or_json(request, engine=engine)
    if wanted is not None:
        fields["format"] = wanted
    fields |= thinking(request, engine=engine)
    fields |= {"options": dict(options), "stream": stream}
    if request.top_logprobs is not None:
        fields |= {"logprobs": True, "top_logprobs": min(request.top_logprobs, MOST_LOGPROBS)}
    return fields


def effort(request: Request, *, engine: str) -> str:
    """Return how much a request asks to reason, empty where it does not say.

    Raises ``ParameterNotHonoured`` for arguments of a template, which Ollama takes none of but the switch, and for a
    switch and an effort that contradict each other.
    """
    arguments = mapping(request.thinking.get("chat_template_kwargs"))
    level, switch = str(request.thinking.get("reasoning_effort") or ""), arguments.get("enable_thinking")
    for name in arguments:
        if name != "enable_thinking" or not isinstance(switch, bool):
            why = "Ollama has no chat_template_kwargs; enable_thinking, true or false, is sent as its think"
            raise build.refuse(f"chat_template_kwargs.{name}", why, engine=engine, case=request.case)
    if level and isinstance(switch, bool) and switch == (level == "none"):
        why = f"reasoning_effort is {level!r} beside it"
        raise build.refuse(f"enable_thinking={str(switch).lower()}", why, engine=engine, case=request.case)
    return level or {True: "on", False: "none"}.get(switch, "") if isinstance(switch, bool) else level


def thinking(request: Request, *, engine: str) -> JsonObject:
    """Return ``think``, as the native route calls it: on, off or a level (api/types.go, ``ThinkValue``)."""
    level = effort(request, engine=engine)
    if not level:
        return {}
    if level not in ("on", "none", *_LEVELS):
        why = f"its think is on, off, {', '.join(_LEVELS)}"
        raise build.refuse(f"reasoning_effort={level!r}", why, engine=engine, case=request.case)
    return {"think": level if level in _LEVELS else level == "on"}


def messages(turns: Sequence[Mapping[str, Any]], *, engine: str, case: str) -> list[JsonObject]:
    """Return turns in OpenAI's shape in Ollama's: arguments of tool calls are objects, a tool's answer names the tool.

    The name is looked up by the call's id, as ``/v1`` does (openai/openai.go, ``nameFromToolCallID``). Images stand
    beside a text as base64 (docs/api.md). Raises ``ParameterNotHonoured`` for arguments that are no JSON object, and
    for parts that have no place there: several texts, sound.
    """
    called: dict[object, JsonValue] = {}
    shaped = []
    for turn in turns:
        message: JsonObject = {"role": turn.get("role"), "content": turn.get("content") or ""}
        if isinstance(turn.get("content"), list):
            message |= _in_parts(mappings(turn["content"]), engine=engine, case=case)
        if turn.get("tool_calls"):
            message["tool_calls"] = [_called(call, engine=engine, case=case) for call in turn["tool_calls"]]
            called |= {call.get("id"): (call.get("function") or {}).get("name") for call in turn["tool_calls"]}
        if turn.get("role") == "tool":
            answered = turn.get("tool_call_id")
            names = {"tool_call_id": answered, "tool_name": turn.get("name") or called.get(answered)}
            message |= {name: value for name, value in names.items() if value}
        shaped.append(message)
    return shaped


def _in_parts(content: Sequence[Mapping[str, Any]], *, engine: str, case: str) -> JsonObject:
    """Return a content in parts as text and images, where the native route has a place for all of it."""
    texts = [str(part.get("text") or "") for part in content if part.get("type") == "text"]
    urls = [str(mapping(part.get(parts.IMAGE)).get("url")) for part in content if part.get("type") == parts.IMAGE]
    lost = "several texts in one message" if len(texts) > 1 else ""
    if len(texts) + len(urls) < len(content):
        lost = "sound"
    if lost:
        raise ParameterNotHonoured(
            f"{engine}: {lost} of case {case!r} has no place on Ollama's native route. Leave it out, or use route = "
            "'openai'.",
            engine=engine,
            case=case,
        )
    images = {"images": [url.partition(",")[2] for url in urls]} if urls else {}
    return {"content": "".join(texts), **images}


def _called(call: Mapping[str, Any], *, engine: str, case: str) -> JsonObject:
    function = call.get("function") or {}
    arguments = _object(function.get("arguments"), engine=engine, case=case)
    return {"id": call.get("id"), "function": {"name": function.get("name"), "arguments": arguments}}


def _object(arguments: object, *, engine: str, case: str) -> Mapping[str, Any]:
    value = decoded(arguments or "{}") if isinstance(arguments, str) else arguments
    if not isinstance(value, Mapping):
        raise ParameterNotHonoured(
            f"{engine}: the arguments of a tool call in case {case!r} are no JSON object, and Ollama's /api/chat takes "
            "nothing else. Correct the case, or use route = 'openai'.",
            engine=engine,
            case=case,
        )
    return value


def schema_or_json(request: Request, *, engine: str) -> Mapping[str, Any] | str | None:
    """Return the native ``format`` of a request: a JSON Schema, ``"json"``, or ``None`` where none is asked for.

    Raises ``ParameterNotHonoured`` for any other ``response_format``: ``/v1`` drops those without a word.
    """
    wanted = request.response_format
    kind = None if wanted is None else wanted.get("type")
    if wanted is None or kind == "text":
        return None
    if kind == "json_object":
        return "json"
    named = wanted.get("json_schema")
    schema = named.get("schema") if kind == "json_schema" and isinstance(named, Mapping) else None
    if not isinstance(schema, Mapping):
        raise ParameterNotHonoured(
            f"{engine}: Ollama enforces a response_format of type json_object, or json_schema with a schema, and drops "
            f"{kind!r} of case {request.case!r}. Write one of these two.",
            engine=engine,
            case=request.case,
        )
    return schema


def refuse_addresses(request: Request, *, engine: str) -> None:
    """Raise ``ParameterNotHonoured`` for an image's address: no route of Ollama fetches one (seen on 0.33)."""
    for part in parts.parts_of(request.messages):
        url = str(mapping(part.get(parts.IMAGE)).get("url"))
        if part.get("type") == parts.IMAGE and url.startswith(("http://", "https://")):
            raise ParameterNotHonoured(
                f"{engine}: Ollama fetches no image, and case {request.case!r} has the address of one. Write a file or "
                "a data URI.",
                engine=engine,
                case=request.case,
            )


def refuse_choice(request: Request, *, engine: str) -> None:
    """Raise ``ParameterNotHonoured`` for a ``tool_choice`` other than ``auto``: no route of Ollama has that field."""
    if request.tools and request.tool_choice not in (None, "auto"):
        raise ParameterNotHonoured(
            f"{engine}: Ollama has no tool_choice; the model always decides for itself, so {request.tool_choice!r} of "
            f"case {request.case!r} would be dropped. Leave it out, or say in the prompt which tool to call.",
            engine=engine,
            case=request.case,
        )


# ---- answers -------------------------------------------------------------------------------------------------------


def is_native(answer: Answer, *, otherwise: bool) -> bool:
    """Tell whether an answer is in Ollama's own shape, by what it is; ``otherwise`` where it shows neither shape."""
    if "ndjson" in answer.headers.get("content-type", "").lower():
        return True
    if read.is_stream(answer):
        return False
    line = next(ndjson(answer.body), None)
    value = None if line is None else decoded(line.data)
    if not isinstance(value, dict) or not value.keys() & {"choices", "done"}:
        return otherwise
    return "choices" not in value


def parse(answer: Answer, *, engine: str, case: str | None) -> Completion:
    """Read a finished answer of ``/api/chat`` or ``/api/generate``, streamed or not.

    Whole is what ends in an object with ``done``: Ollama ends a stream without one when a model repeats itself for too
    long (llm/llama_server.go, ``Completion``). Durations arrive in nanoseconds and leave in milliseconds.
    """
    reader, draft, whole = read.Reader(engine, case, answer), read.Draft(), False
    reader.no_refusal(draft)
    if draft.cut_call:
        return read.finished(draft, reader)
    for value in _objects(reader, draft):
        read.take(draft, _chunk(value), end=reader.end)
        whole |= value.get("done") is True
        draft.server |= {name: value[name] / 1e6 for name in _DURATIONS if isinstance(value.get(name), int)}
        if isinstance(cached := value.get("prompt_eval_cached_count"), int):  # since v0.34
            draft.cached = cached
    if not (whole or draft.finish):
        raise reader.unfinished(f"it ended after {len(answer.body)} bytes without an object that says done")
    if draft.calls.calls and draft.finish == "stop":
        draft.finish = "tool_calls"  # as /v1 calls it
    return read.finished(draft, reader)


def _objects(reader: read.Reader, draft: read.Draft) -> Iterator[Mapping[str, Any]]:
    if not reader.text().strip():
        raise reader.broken("the body is empty")
    streamed = "ndjson" in reader.answer.headers.get("content-type", "").lower()
    events = list(ndjson(reader.answer.body))
    lines = [event.data.decode("utf-8") for event in events]
    if len(lines) > 1 and lines[0] in ("{", "["):  # one value, written over several lines
        lines = ["\n".join(lines)]
    for place, line in enumerate(lines):
        begins = line in ("{", "[") or line.startswith("event:")
        value = reader.json(line, error="\n".join(lines[place:]) if begins else "")
        reader.no_error(value, draft)
        if draft.cut_call:
            return
        if not isinstance(value, dict):
            raise reader.broken(f"a line is a JSON {type(value).__name__}, not an object")
        reader.end = events[place].end if streamed else None
        yield value


def _chunk(value: Mapping[str, Any]) -> JsonObject:
    """Return one object as the whole message ``/v1`` would have made of it."""
    message = value.get("message")
    part = mapping(message) if isinstance(message, dict) else value
    delta: JsonObject = {
        "content": part.get("content", part.get("response")),
        "reasoning": part.get("thinking"),
        "tool_calls": [_call(call) for call in mappings(part.get("tool_calls"))],
    }
    return {
        "model": value.get("model"),
        "choices": [
            {"delta": delta, "finish_reason": value.get("done_reason"), "logprobs": {"content": value.get("logprobs")}}
        ],
        "usage": {name: value[name] for name in ("prompt_eval_count", "eval_count") if name in value},
    }


def _call(call: Mapping[str, Any]) -> JsonObject:
    """Return a tool call, which Ollama always sends whole. Its own index is not used: some parsers leave it at 0."""
    function = mapping(call.get("function"))
    arguments = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
    return {"id": call.get("id"), "function": {"name": function.get("name"), "arguments": arguments}}
