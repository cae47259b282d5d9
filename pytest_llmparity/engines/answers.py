"""Reading an OpenAI-shaped answer, streamed or not: tolerant of every shape seen, strict about being whole."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_llmparity.core import errors
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.sample import Completion, TokenLogprob, ToolCall
from pytest_llmparity.engines.refusals import implied_status, read_refusal, refusal_of, refused, shown
from pytest_llmparity.transport.events import sse

UNKNOWN_LOGPROB: Final = -9999.0
"""vLLM's stand-in for a missing value; llama.cpp's is -3.4e38. No token a model generates is this unlikely."""

_SECONDS: Final = {"meta_info": ("e2e_latency",), "stats": ("time_to_first_token", "generation_time")}
"""Timings in seconds, by the object that holds them: SGLang's (``return_meta_info``) and LM Studio's."""

_THINK_OPEN, _THINK_CLOSE = "<think>", "</think>"


@dataclass(slots=True)
class _Tool:
    name: str = ""
    arguments: str = ""
    id: str = ""


@dataclass(slots=True)
class Draft:
    """The parts of one answer while its chunks are put together by :func:`take`."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tools: dict[int, _Tool] = field(default_factory=dict)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: str = ""
    model: str = ""
    fingerprint: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    server: dict[str, float] = field(default_factory=dict)
    cached: int | None = None


def parse_answer(answer: Answer, *, engine: str, case: str | None) -> Completion:
    """Read a finished answer; raises an :class:`~pytest_llmparity.core.errors.AnswerError` naming engine and case.

    A stream is whole when a chunk carried a finish reason or ``[DONE]`` came; anything else is ``ProtocolError``.
    """
    if answer.status != 200:
        raise refused(read_refusal(answer.body), status=answer.status, headers=answer.headers, engine=engine, case=case)
    reader = Reader(engine, case, answer)
    draft = Draft()
    if is_stream(answer):
        whole = False
        for chunk in reader.chunks():
            whole |= chunk is None
            if chunk is not None:
                take(draft, chunk)
        if not (whole or draft.finish):
            raise reader.broken(f"the stream ended after {len(answer.body)} bytes without a finish reason or [DONE]")
    else:
        take(draft, reader.document())
    return finished(draft, reader)


def token_ends(answer: Answer) -> tuple[int, ...]:
    """Return the body offsets at which events with generated tokens (of any channel) end; empty if not streamed."""
    if answer.status != 200 or not is_stream(answer):
        return ()
    ends = []
    for event in sse(answer.body):
        try:
            chunk = json.loads(event.data)
        except (ValueError, RecursionError):
            continue
        choice = _choice(chunk) if isinstance(chunk, dict) else {}
        part = _mapping(choice.get("delta")) or _mapping(choice.get("message"))
        if _content(part) or _content(choice) or _reasoning(part) or _sequence(part.get("tool_calls")):
            ends.append(event.end)
    return tuple(ends)


def is_stream(answer: Answer) -> bool:
    """Tell whether the body is server-sent events, by its type or (proxies drop types) by how it begins."""
    if "text/event-stream" in answer.headers.get("content-type", "").lower():
        return True
    return answer.body.startswith((b"data:", b"event:", b":"))


class Reader:
    """Decodes one body and words what is wrong with it; readers of other shapes than OpenAI's share it."""

    def __init__(self, engine: str, case: str | None, answer: Answer) -> None:
        self.engine = engine
        self.case = case
        self.answer = answer

    def broken(self, what: str) -> errors.ProtocolError:
        """Return the error of an answer that is not whole; ``what`` ends "answered 200, but …"."""
        about = f" for case {self.case!r}" if self.case else ""
        return errors.ProtocolError(
            f"{self.engine} answered 200{about}, but {what}. Whole JSON or a finished event stream was expected; "
            "its log, or a proxy between, says why.",
            engine=self.engine,
            case=self.case,
            status=200,
        )

    def empty(self, finish: str) -> errors.EmptyAnswer:
        """Return the error of an answer that says nothing."""
        about = f" to case {self.case!r}" if self.case else ""
        cause = (
            "The token limit came first: raise max_tokens, or context_length where the prompt fills it or is cut to it."
            if finish == "length"
            else "A chat template that ends the turn at once, or a stop string, does that."
        )
        return errors.EmptyAnswer(
            f"{self.engine} answered 200{about} with no text, no reasoning and no tool call (finish reason "
            f"{shown(finish, 40) or 'none'}). {cause}",
            engine=self.engine,
            case=self.case,
            status=200,
        )

    def aborted(self) -> errors.ServerFailure:
        """Return the error of an answer that the server broke off."""
        about = f" to case {self.case!r}" if self.case else ""
        return errors.ServerFailure(
            f"{self.engine} broke its answer{about} off (finish reason abort): somebody aborted the request, or the "
            "server is going down; its log says which. Half an answer is not judged.",
            engine=self.engine,
            case=self.case,
            status=200,
        )

    def document(self) -> Mapping[str, Any]:
        """Return an unstreamed answer."""
        text = self.text()
        if not text.strip():
            raise self.broken("the body is empty")
        value = self.json(text)
        if not isinstance(value, dict):
            raise self.broken(f"the body is a JSON {type(value).__name__}, not an object")
        self.no_error(value)
        if not _sequence(value.get("choices")):
            raise self.broken(f"the JSON has no choices: {shown(text, 120)}")
        return value

    def chunks(self) -> Iterator[Mapping[str, Any] | None]:
        """Yield each chunk, and ``None`` for ``[DONE]``."""
        self.text()
        for event in sse(self.answer.body):
            data = event.data.decode("utf-8").strip()
            if data == "[DONE]":
                yield None
                return
            if not data:
                continue
            value = self.json(data)
            if not isinstance(value, dict):
                raise self.broken(f"an event is a JSON {type(value).__name__}, not an object")
            self.no_error(value)
            yield value

    def text(self) -> str:
        """Return the body as text; ``ProtocolError`` says where it is not UTF-8."""
        try:
            return self.answer.body.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise self.broken(f"byte {exc.start} of the body is not UTF-8 (0x{exc.object[exc.start]:02x})") from exc

    def json(self, text: str) -> object:
        """Return the value of a JSON text; ``ProtocolError`` says where it stops being JSON."""
        try:
            return json.loads(text)
        except RecursionError as exc:
            raise self.broken("its JSON is nested too deeply to be an answer") from exc
        except ValueError as exc:
            if text.lstrip().startswith("<"):
                raise self.broken(read_refusal(text.encode()).message + " came back") from exc
            at = getattr(exc, "pos", None)
            where = f"stops being JSON at character {at} of {len(text)}" if at is not None else "is not JSON"
            raise self.broken(f"the body {where}: {shown(text[-120:])!r} is its end") from exc

    def no_error(self, value: Mapping[str, Any]) -> None:
        """Raise the typed error that a 200 answer, or an event of it, holds instead of an answer."""
        refusal = refusal_of(value)
        if refusal is not None:
            headers = self.answer.headers
            status = implied_status(refusal)
            raise refused(refusal, status=status, headers=headers, engine=self.engine, case=self.case)


def take(draft: Draft, chunk: Mapping[str, Any]) -> None:
    """Add what one chunk (or a whole answer) in OpenAI's shape holds."""
    draft.model = _string(chunk.get("model")) or draft.model
    draft.fingerprint = _string(chunk.get("system_fingerprint")) or draft.fingerprint
    draft.usage = _mapping(chunk.get("usage")) or draft.usage
    timings = _mapping(chunk.get("timings"))
    for source in (timings, _mapping(chunk.get("metrics"))):
        draft.server.update({k: float(v) for k, v in source.items() if k.endswith("_ms") and _finite(v)})
    choice = _choice(chunk)
    meta = _mapping(choice.get("meta_info"))
    for holder, names in _SECONDS.items():
        source = meta if holder == "meta_info" else _mapping(chunk.get(holder))
        draft.server.update({name: 1000 * float(source[name]) for name in names if _finite(source.get(name))})
    cached = _count(timings.get("cache_n", meta.get("cached_tokens")))
    draft.cached = cached if cached is not None else draft.cached
    draft.finish = _string(choice.get("finish_reason")) or draft.finish
    part = _mapping(choice.get("delta")) or _mapping(choice.get("message"))
    draft.text.append(_content(part) or _content(choice))
    draft.reasoning.append(_reasoning(part))
    _take_tools(draft.tools, _sequence(part.get("tool_calls")))
    draft.logprobs.extend(_logprobs(_mapping(choice.get("logprobs"))))


def _take_tools(tools: dict[int, _Tool], parts: Sequence[Any]) -> None:
    for place, part in enumerate(parts):
        part = _mapping(part)
        index = _count(part.get("index"))
        call = tools.setdefault(place if index is None else index, _Tool())
        function = _mapping(part.get("function"))
        call.id = _string(part.get("id")) or call.id
        call.name += _string(function.get("name"))
        arguments = function.get("arguments")
        # OpenAI sends the arguments as JSON text; some servers send the value itself.
        call.arguments += arguments if isinstance(arguments, str) else json.dumps(arguments) if arguments else ""


def finished(draft: Draft, reader: Reader) -> Completion:
    """Return the whole answer, text made valid Unicode; ``EmptyAnswer`` when there is nothing in it."""
    normalised: list[str] = []
    text, reasoning = "".join(draft.text), "".join(draft.reasoning)
    if not reasoning and text.lstrip().startswith(_THINK_OPEN):
        reasoning, _, text = text.lstrip().removeprefix(_THINK_OPEN).partition(_THINK_CLOSE)
        text = text.lstrip("\n")
        normalised.append("inline <think> moved to reasoning")
    text, reasoning, cleaned = _whole(text), _whole(reasoning), False
    calls = []
    for _, tool in sorted(draft.tools.items()):
        call = ToolCall(name=_whole(tool.name), arguments=_whole(tool.arguments), id=_whole(tool.id))
        cleaned |= (call.name, call.arguments) != (tool.name, tool.arguments)
        calls.append(call)
    joined = "".join((*draft.text, *draft.reasoning))
    if cleaned or _whole(joined).count("\ufffd") > joined.count("\ufffd"):
        normalised.append("lone surrogate replaced")
    if draft.finish == "abort":
        raise reader.aborted()
    if not (text or reasoning or calls):
        raise reader.empty(draft.finish)
    details = _mapping(draft.usage.get("prompt_tokens_details"))
    cached = _count(details.get("cached_tokens"))
    return Completion(
        text=text,
        reasoning=reasoning,
        tool_calls=tuple(calls),
        finish_reason=_whole(draft.finish),
        prompt_tokens=_count(draft.usage.get("prompt_tokens")),
        completion_tokens=_count(draft.usage.get("completion_tokens")),
        cached_tokens=draft.cached if cached is None else cached,
        logprobs=tuple(draft.logprobs),
        model=_whole(draft.model),
        fingerprint=_whole(draft.fingerprint),
        server=draft.server,
        normalised=tuple(normalised),
    )


def _whole(text: str) -> str:
    """Join surrogate pairs that two chunks shared and replace lone ones by U+FFFD, so the text is valid Unicode."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _choice(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    for choice in _sequence(chunk.get("choices")):
        if isinstance(choice, dict) and not choice.get("index"):
            return choice
    return {}


def _content(part: Mapping[str, Any]) -> str:
    """Return the visible text of a delta, message or raw completion choice (a string, or a list of text parts)."""
    content = part.get("content", part.get("text"))
    if isinstance(content, str):
        return content
    return "".join(_string(_mapping(piece).get("text")) for piece in _sequence(content))


def _reasoning(part: Mapping[str, Any]) -> str:
    return _string(part.get("reasoning")) or _string(part.get("reasoning_content")) or _string(part.get("thinking"))


def _logprobs(logprobs: Mapping[str, Any]) -> Iterator[TokenLogprob]:
    for entry in _sequence(logprobs.get("content")):
        entry = _mapping(entry)
        known = [(_token(alt), lp) for alt in _maps(entry.get("top_logprobs")) if (lp := _logprob(alt)) is not None]
        yield TokenLogprob(
            token=_token(entry), logprob=_logprob(entry), top=_best_first(known), id=_count(entry.get("id"))
        )
    # The old completions route: parallel lists, alternatives as a mapping of text to logprob, no bytes.
    values, tops = _sequence(logprobs.get("token_logprobs")), _sequence(logprobs.get("top_logprobs"))
    for place, token in enumerate(_sequence(logprobs.get("tokens"))):
        value = values[place] if place < len(values) else None
        top = _mapping(tops[place]) if place < len(tops) else {}
        known = [(_encode(text), lp) for text, raw in top.items() if (lp := _number(raw)) is not None]
        yield TokenLogprob(token=_encode(_string(token)), logprob=_number(value), top=_best_first(known))


def _best_first(pairs: list[tuple[bytes, float]]) -> tuple[tuple[bytes, float], ...]:
    return tuple(sorted(pairs, key=lambda pair: -pair[1]))


def _token(entry: Mapping[str, Any]) -> bytes:
    """Return a token's bytes: the ``bytes`` list where there is one, for the text of half a character is lossy."""
    raw = _sequence(entry.get("bytes"))
    if raw and all(isinstance(value, int) and 0 <= value <= 255 for value in raw):
        return bytes(raw)
    return _encode(_string(entry.get("token")))


def _encode(text: str) -> bytes:
    return _whole(text).encode("utf-8")


def _logprob(entry: Mapping[str, Any]) -> float | None:
    return _number(entry.get("logprob"))


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number > UNKNOWN_LOGPROB else None


def _finite(value: object) -> bool:
    return _number(value) is not None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _maps(value: object) -> list[Mapping[str, Any]]:
    return [item for item in _sequence(value) if isinstance(item, dict)]
