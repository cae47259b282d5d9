"""What a loopback engine does with the parts of a request that real engines treat so differently."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pytest_llmparity.testing.loopback import Refusal
from pytest_llmparity.testing.script import babble, prompt_of

_KNOWN = frozenset(
    {
        *("model", "messages", "prompt", "stream", "stream_options", "temperature", "top_p", "top_k", "min_p", "seed"),
        *("max_tokens", "max_completion_tokens", "stop", "presence_penalty", "frequency_penalty", "repeat_penalty"),
        *("repetition_penalty", "logprobs", "top_logprobs", "tools", "tool_choice", "response_format", "cache_prompt"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """How an engine takes what not every engine takes; the defaults are those of a simple server.

    ``dropped`` means: taken without a word and ignored. ``schema`` ``sorted`` forces a schema with its properties in
    alphabetical order. ``raw_prompt`` ``wrapped`` puts a chat template around it. ``overflow`` says what becomes of a
    prompt of more words than the context, where not what its kind does (``None``): ``oldest`` drops turns from the
    front, ``middle`` and ``end`` cut there, ``ignored`` reads it all. Without ``usage`` the engine counts no
    tokens. ``media`` are images and sound in a prompt.
    """

    logprobs: Literal["reported", "dropped", "refused"] = "reported"
    schema: Literal["dropped", "forced", "sorted", "refused"] = "dropped"
    tools: Literal["dropped", "taken", "refused"] = "dropped"
    raw_prompt: Literal["taken", "wrapped", "refused"] = "taken"
    unknown_fields: Literal["dropped", "refused"] = "dropped"
    overflow: Literal["oldest", "middle", "end", "ignored"] | None = None
    usage: bool = True
    media: Literal["read", "dropped", "refused"] = "read"

    def refusal(self, request: Mapping[str, Any]) -> Refusal | None:
        """Return the 400 for something in this request that is refused, ``None`` when it is answered."""
        refused = {
            "logprobs": self.logprobs == "refused" and request.get("logprobs"),
            "response_format": self.schema == "refused" and request.get("response_format"),
            "tools": self.tools == "refused" and request.get("tools"),
            "prompt": self.raw_prompt == "refused" and "prompt" in request,
            "image input": self.media == "refused" and _in_parts(request),
            "an unknown field": self.unknown_fields == "refused" and not request.keys() <= _KNOWN,
        }
        reason = next((f"{name} is not supported" for name, no in refused.items() if no), None)
        return None if reason is None else (400, reason, "invalid_request_error")

    def seen(self, request: Mapping[str, Any], context_length: int) -> Mapping[str, Any]:
        """Return the request as the model sees it: what is dropped gone, what is cut cut, templates filled in."""
        changed = dict(request)
        if self.logprobs == "dropped":
            changed.pop("logprobs", None)
        if self.raw_prompt == "wrapped" and "prompt" in changed:
            changed["prompt"] = f"system: be helpful\nuser: {changed['prompt']}\nassistant:"
        if self.media == "dropped" and _in_parts(request):
            changed["messages"] = [_told(turn) for turn in changed["messages"]]
        if self.tools == "taken" and changed.get("tools"):
            offered = {"role": "system", "content": f"tools: {json.dumps(changed['tools'])}"}
            changed["messages"] = [offered, *changed.get("messages", [])]
        if len(prompt_of(changed).split()) > context_length and self.overflow not in (None, "ignored"):
            changed["messages"] = self._cut(changed, context_length)
        return changed if changed != request else request

    def _cut(self, request: Mapping[str, Any], room: int) -> list[Mapping[str, Any]]:
        if self.overflow == "oldest":
            messages = list(request.get("messages", ()))
            while len(messages) > 1 and len(prompt_of({"messages": messages}).split()) > room:
                messages.pop(next((at for at, message in enumerate(messages) if message.get("role") != "system"), 0))
            return messages
        words = prompt_of(request).split()
        half = room // 2
        kept = words[:room] if self.overflow == "end" else [*words[:half], *words[-half:]]
        return [{"role": "user", "content": " ".join(kept[:-1])}]

    def forced(self, request: Mapping[str, Any]) -> str | None:
        """Return the answer a forced schema leaves no choice about, ``None`` where nothing is forced."""
        wanted = request.get("response_format")
        if self.schema not in ("forced", "sorted") or not isinstance(wanted, dict) or "json_schema" not in wanted:
            return None
        return json.dumps(
            _instance(wanted["json_schema"]["schema"], prompt_of(request), by_name=self.schema == "sorted")
        )


def _in_parts(request: Mapping[str, Any]) -> bool:
    """Tell whether a request holds more than text."""
    turns = request.get("messages") or ()
    parts = [part for turn in turns if isinstance(turn.get("content"), list) for part in turn["content"]]
    return any(part.get("type") not in ("text", "input_text") for part in parts) or any("images" in t for t in turns)


def _told(turn: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a turn with the texts of its parts alone."""
    content = turn.get("content")
    if not isinstance(content, list):
        return {name: value for name, value in turn.items() if name != "images"}
    return {**turn, "content": [part for part in content if part.get("type") in ("text", "input_text")]}


def _instance(schema: Mapping[str, Any], prompt: str, *, by_name: bool) -> Any:
    """Return a value that fits a simple schema; a text in it depends on the prompt."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        names = list(schema.get("properties", {}))
        return {
            name: _instance(schema["properties"][name], prompt, by_name=by_name)
            for name in (sorted(names) if by_name else names)
        }
    if schema.get("type") == "array":
        return [_instance(schema.get("items", {}), prompt, by_name=by_name)]
    plain: dict[str, Any] = {"integer": 1, "number": 0.5, "boolean": False, "null": None}
    kind = str(schema.get("type"))
    return plain[kind] if kind in plain else babble(prompt, length=1)[0]
