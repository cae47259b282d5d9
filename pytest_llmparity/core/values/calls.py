"""The calls an application made of its engine: what is kept of them, and which of two runs' differs first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from pytest_llmparity.core.compare.answers import digest
from pytest_llmparity.core.sample import ApplicationCall

LONGEST: Final = 20_000
"""Characters that are kept of a request and of an answer; of a longer one also the hash of all of it."""
_ENGINES_OWN: Final = ("model",)
"""Fields of a request that name the engine, which differ between engines and say nothing."""


class CallFork(msgspec.Struct, frozen=True, kw_only=True):
    """The first call that differs, counted from 1, and in what: its ``request``, its ``answer``, or that it was made.

    ``ours`` and ``theirs`` are the texts that differ, empty where there is no such call.
    """

    number: int
    of: int
    what: str
    ours: str
    theirs: str

    @property
    def words(self) -> str:
        """Which call differs in what."""
        where = f"call {self.number} of {self.of}"
        return f"{where} is made on one engine only" if self.what == "call" else f"the {self.what} of {where} differs"


def first_difference(ours: Sequence[ApplicationCall], theirs: Sequence[ApplicationCall]) -> CallFork | None:
    """Return the first call that differs between two runs, ``None`` where they asked and were answered alike."""
    of = max(len(ours), len(theirs))
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=False), start=1):
        if (mine.path, mine.request) != (other.path, other.request):
            return CallFork(number=number, of=of, what="request", ours=mine.request, theirs=other.request)
        if (mine.status, mine.answer) != (other.status, other.answer):
            return CallFork(number=number, of=of, what="answer", ours=mine.answer, theirs=other.answer)
    if len(ours) == len(theirs):
        return None
    number = min(len(ours), len(theirs)) + 1
    texts = [calls[number - 1].request if len(calls) >= number else "" for calls in (ours, theirs)]
    return CallFork(number=number, of=of, what="call", ours=texts[0], theirs=texts[1])


def request_of(body: bytes) -> str:
    """Return what of a request is kept: its JSON with keys in order and without the model's name, or its text.

    >>> request_of(b'{"model": "a", "messages": [], "max_tokens": 3}')
    '{"max_tokens": 3, "messages": []}'
    """
    text = body.decode("utf-8", "replace")
    value = _json(text)
    if isinstance(value, dict):
        kept = {name: part for name, part in value.items() if name not in _ENGINES_OWN}
        text = json.dumps(kept, ensure_ascii=False, sort_keys=True)
    return _cut(text)


def answer_of(body: bytes) -> str:
    """Return what of an answer is kept: what was said and called, streamed or not; else all of its text.

    >>> answer_of(b'{"id": "1", "choices": [{"message": {"content": "Hi", "role": "assistant"}}]}')
    'Hi'
    >>> answer_of(b'data: {"choices": [{"delta": {"content": "Hi"}}]}')
    'Hi'
    """
    text = body.decode("utf-8", "replace")
    events = list(_events(text))
    whole = _json(text) if not events else None
    parts = [part for part in (events or [whole]) if isinstance(part, dict)]
    choices = [choice for part in parts for choice in _choices(part)]
    if not choices:
        return _cut(text)
    spoken = "".join(str(choice.get("content") or choice.get("text") or "") for choice in choices)
    calls = _calls(choices)
    return _cut("\n".join([*([spoken] if spoken or not calls else []), *calls]))


def _choices(part: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what each choice of an answer, or of an event, says, whatever its shape (OpenAI's, Ollama's own)."""
    listed = part.get("choices")
    for choice in listed if isinstance(listed, list) else []:
        if isinstance(choice, dict):
            inner = choice.get("message") or choice.get("delta") or choice
            if isinstance(inner, dict):
                yield inner
    message = part.get("message")
    if isinstance(message, dict):
        yield message


def _calls(choices: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the tool calls as lines, pieces of a streamed one put together; ids are an engine's own and left out."""
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for choice in choices:
        listed = choice.get("tool_calls")
        for place, call in enumerate(listed if isinstance(listed, list) else []):
            function = call.get("function") if isinstance(call, dict) else None
            if not isinstance(function, dict):
                continue
            index = call.get("index") if isinstance(call.get("index"), int) else place
            names[index] = names.get(index, "") + str(function.get("name") or "")
            piece = function.get("arguments") or ""
            written = piece if isinstance(piece, str) else json.dumps(piece, ensure_ascii=False)
            arguments[index] = arguments.get(index, "") + written
    return [f"[call] {names[index]} {arguments[index]}" for index in sorted(names)]


def _events(text: str) -> Iterator[Any]:
    """Yield the JSON of server-sent events, or of lines of JSON; nothing where the text is one JSON value."""
    lines = [line for line in text.splitlines() if line.strip()]
    streamed = any(line.startswith("data:") for line in lines)
    if not streamed and len(lines) < 2:
        return
    for line in lines:
        value = _json(line.removeprefix("data:").strip()) if line.startswith("data:") or not streamed else None
        if isinstance(value, dict):
            yield value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}… ({len(text)} characters, sha256 {digest(text)[:12]})"
