"""The calls an application made of its engine: what is kept of them, and which of two runs' differs first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from pytest_llmparity.core.compare.answers import digest
from pytest_llmparity.core.prompts.parts import without_bytes
from pytest_llmparity.core.sample import ApplicationCall

LONGEST: Final = 20_000
"""Characters that are kept of a request and of an answer; of a longer one also the hash of all of it."""
_SERVERS_OWN: Final = frozenset({"id", "created", "model", "usage", "system_fingerprint", "timings"})
"""Fields of an answer of no known shape that differ with every answer; so do those that end in ``_id`` and ``_at``."""
_ENGINES_OWN: Final = ("model",)
"""Fields of a request that name the engine, which differ between engines and say nothing."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What one test that is no gate sent one engine, in the order in which its calls began."""

    test: str
    engine: str
    calls: tuple[ApplicationCall, ...]


class CallFork(msgspec.Struct, frozen=True, kw_only=True):
    """The first call that differs, counted from 1, and in what: its ``request``, its ``answer``, or that it was made.

    ``ours`` and ``theirs`` are the texts that differ, empty where there is no such call.
    """

    number: int
    of: int
    part: str
    ours: str
    theirs: str

    @property
    def words(self) -> str:
        """Which call differs in what."""
        where = f"call {self.number} of {self.of}"
        return f"{where} is made on one engine only" if self.part == "call" else f"the {self.part} of {where} differs"


def first_difference(ours: Sequence[ApplicationCall], theirs: Sequence[ApplicationCall]) -> CallFork | None:
    """Return the first call that differs between two runs, ``None`` where they asked and were answered alike."""
    of = max(len(ours), len(theirs))
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=False), start=1):
        if (mine.path, mine.request) != (other.path, other.request):
            return CallFork(number=number, of=of, part="request", ours=mine.request, theirs=other.request)
        if (mine.status, mine.answer) != (other.status, other.answer):
            return CallFork(number=number, of=of, part="answer", ours=mine.answer, theirs=other.answer)
    if len(ours) == len(theirs):
        return None
    number = min(len(ours), len(theirs)) + 1
    texts = [calls[number - 1].request if len(calls) >= number else "" for calls in (ours, theirs)]
    return CallFork(number=number, of=of, part="call", ours=texts[0], theirs=texts[1])


def request_of(body: bytes) -> str:
    """Return what of a request is kept: its JSON with keys in order and without the model's name, or its text.

    Images and sound in it are kept as their hashes.

    >>> request_of(b'{"model": "a", "messages": [], "max_tokens": 3}')
    '{"max_tokens": 3, "messages": []}'
    """
    text = body.decode("utf-8", "replace")
    value = _json(text)
    if isinstance(value, dict):
        kept = {name: without_bytes(part) for name, part in value.items() if name not in _ENGINES_OWN}
        text = json.dumps(kept, ensure_ascii=False, sort_keys=True)
    return _cut(text)


def unanswered(calls: Sequence[ApplicationCall]) -> ApplicationCall | None:
    """Return the call for want of whose answer a run is the engine's failure, ``None`` where it is none.

    Where no call was answered (2xx) that is the last one, whatever the application made of it; else one that broke off
    or that the server failed at, if none behind it was answered: what is asked again, and then answered, is no failure.
    """
    answered = [place for place, call in enumerate(calls) if 200 <= call.status < 300]
    if not answered:
        return calls[-1] if calls else None
    behind = calls[answered[-1] + 1 :]
    return next((call for call in behind if not call.status or call.status >= 500), None)


def answer_of(body: bytes) -> str:
    """Return what of an answer is kept: what was said and called, streamed or not; else all of it but ids and times.

    Read are chat and text completions, Ollama's own answers, OpenAI's responses and Anthropic's messages. Reasoning is
    kept where there is nothing else.

    >>> answer_of(b'{"id": "1", "choices": [{"message": {"content": "Hi", "role": "assistant"}}]}')
    'Hi'
    >>> answer_of(b'data: {"choices": [{"delta": {"content": "Hi"}}]}')
    'Hi'
    >>> answer_of(b'{"id": "1", "created": 7, "data": [{"embedding": [0.5]}]}')
    '{"data": [{"embedding": [0.5]}]}'
    """
    text = body.decode("utf-8", "replace")
    events = list(_events(text))
    whole = _json(text) if not events else None
    parts = [part for part in (events or [whole]) if isinstance(part, dict)]
    choices: dict[int, list[Mapping[str, Any]]] = {}
    for part in parts:
        for number, choice in _choices(part):
            choices.setdefault(number, []).append(choice)
    if not choices:
        try:
            without = "\n".join(json.dumps(_without_own(part), ensure_ascii=False) for part in parts)
        except RecursionError:  # nested beyond what anybody reads: kept as it came
            without = ""
        return _cut(without or text)
    alone = len(choices) == 1
    return _cut(
        "\n".join(
            ("" if alone else f"[choice {place}] ") + _spoken(choices[number])
            for place, number in enumerate(sorted(choices), start=1)
        )
    )


def _without_own(value: Any) -> Any:
    """Return JSON without what a server makes up for every answer: ids and times, its model's name and its counts."""
    if isinstance(value, list):
        return [_without_own(item) for item in value]
    if not isinstance(value, dict):
        return value
    own = {name for name in value if name in _SERVERS_OWN or name.endswith(("_id", "_at"))}
    return {name: _without_own(item) for name, item in value.items() if name not in own}


def _spoken(pieces: Sequence[Mapping[str, Any]]) -> str:
    """Return what one choice says, its tool calls behind it; its reasoning where that is all."""
    text = "".join(str(piece.get("content") or piece.get("text") or "") for piece in pieces)
    calls = _calls(pieces)
    names = ("reasoning_content", "reasoning", "thinking")
    thought = "".join(next((str(piece[name]) for name in names if piece.get(name)), "") for piece in pieces)
    if thought and not text and not calls:
        return f"[reasoning] {thought}"
    return "\n".join([*([text] if text or not calls else []), *calls])


def _choices(part: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield what each choice of an answer, or of an event, says with its number, in the shape of a chat's message."""
    listed = part.get("choices")
    for place, choice in enumerate(listed if isinstance(listed, list) else []):
        if isinstance(choice, dict):
            inner = choice.get("message") or choice.get("delta") or choice
            number = choice.get("index")
            if isinstance(inner, dict):
                yield number if isinstance(number, int) else place, inner
    message = part.get("message")  # Ollama's own; the first event of Anthropic's
    if isinstance(message, dict):
        content = message.get("content")
        yield from ((0, piece) for piece in _blocks(content)) if isinstance(content, list) else [(0, message)]
    response = part.get("response")  # Ollama's /api/generate; the last event of OpenAI's responses
    if isinstance(response, str):
        yield 0, {"content": response, "thinking": part.get("thinking")}
    ended = isinstance(response, dict) and part.get("type") in ("response.completed", "response.incomplete")
    output = response.get("output") if isinstance(response, dict) and ended else part.get("output")
    for item in output if isinstance(output, list) else []:
        content = item.get("content") if isinstance(item, dict) else None
        yield from ((0, piece) for piece in _blocks(content if isinstance(content, list) else [item]))
    content = part.get("content")
    if part.get("type") == "message" and isinstance(content, list):
        yield from ((0, piece) for piece in _blocks(content))
    if part.get("type") == "content_block_start":
        yield from ((0, piece) for piece in _blocks([part.get("content_block")], part.get("index"), begun=True))
    if part.get("type") == "content_block_delta":
        yield from ((0, piece) for piece in _blocks([part.get("delta")], part.get("index")))


def _blocks(blocks: Sequence[Any], index: Any = None, *, begun: bool = False) -> Iterator[Mapping[str, Any]]:
    """Yield blocks of content, of OpenAI's responses and Anthropic's messages, as parts of a chat's message.

    ``index`` is the block's in a stream; where one has ``begun`` the arguments of its call are still to come.
    """
    for place, block in enumerate(blocks):
        if not isinstance(block, dict):
            continue
        number = index if isinstance(index, int) else place
        if "thinking" in block or block.get("type") in ("thinking", "reasoning_text"):
            yield {"thinking": block.get("thinking") or block.get("text")}
        elif isinstance(block.get("text"), str):
            yield {"content": block["text"]}
        elif isinstance(block.get("partial_json"), str):
            yield {"tool_calls": [{"index": number, "function": {"arguments": block["partial_json"]}}]}
        elif block.get("name"):
            given = "" if begun else block.get("arguments", block.get("input"))
            yield {"tool_calls": [{"index": number, "function": {"name": block["name"], "arguments": given}}]}


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
