"""What one entry of a prompt file may hold. The published JSON Schema of an entry is made from these models."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictStr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.core.words.problems import Strict, given, listed

MAX_ID = 200
"""Characters in a case id: it goes into file names of goldens, node ids and table cells."""
MAX_TURNS = 8
"""Answers that an engine gives at most to a case with ``tool_results`` that does not say."""
MOST_TURNS = 100
"""Most that a case may say."""


def _identifier(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty; expected a name")
    if len(value) > MAX_ID:
        raise ValueError(f"has {len(value)} characters; at most {MAX_ID} are allowed")
    if not value.isprintable() and any(unicodedata.category(char) in {"Cc", "Zl", "Zp"} for char in value):
        raise ValueError("holds a control character or line break; ids are one printable line")
    return value


def _text_or_object(value: object) -> object:
    if isinstance(value, (str, dict)):
        return value
    raise ValueError("is neither text (the path of a JSON Schema) nor a JSON Schema")


def _choice(value: object) -> object:
    if isinstance(value, dict) or value in ("none", "auto", "required"):
        return value
    raise ValueError(f"is {given(value)}; allowed: 'none', 'auto', 'required' or an object that names a function")


def _not_empty(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty; expected the text that is right")
    return value


def _fill(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"is {given(value)}; expected text or a number")


def _scripted(value: dict[str, Any]) -> dict[str, Any]:
    """Accept what tools return: of each a JSON value, or a list of entries that each have a result."""
    for name, scripted in value.items():
        if not isinstance(scripted, list):
            continue
        how = 'a list holds entries, each {"result": …} or {"arguments": {…}, "result": …}'
        if not scripted:
            raise ValueError(f"has an empty list for {given(name)}; {how}")
        for index, entry in enumerate(scripted):
            if not isinstance(entry, dict) or "result" not in entry or entry.keys() - {"arguments", "result"}:
                raise ValueError(
                    f"has {given(entry)} for {given(name)} at {index}; {how}, and a tool that returns a list returns "
                    '[{"result": […]}]'
                )
            arguments = entry.get("arguments", {"": None})
            if not isinstance(arguments, dict) or not arguments:
                raise ValueError(
                    f"has arguments {given(arguments)} for {given(name)} at {index}; expected an object with one of "
                    "them at least: without arguments an entry answers one call, in order"
                )
    return value


# Unions are written as one validated value each: pydantic would report every member of a union as an error of its own.
Identifier = Annotated[
    StrictStr,
    AfterValidator(_identifier),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_ID, "pattern": "^[^\\u0000-\\u001f\\u007f]+$"}),
]
Name = Annotated[StrictStr, Field(min_length=1)]
Texts = Annotated[list[StrictStr], BeforeValidator(listed, json_schema_input_type=StrictStr | list[StrictStr])]
Pieces = Annotated[list[Name], BeforeValidator(listed, json_schema_input_type=Name | list[Name])]
Said = Annotated[StrictStr, AfterValidator(_not_empty), WithJsonSchema({"type": "string", "pattern": "\\S"})]
Schema = Annotated[Any, AfterValidator(_text_or_object), WithJsonSchema({"type": ["object", "string"]})]
Choice = Annotated[
    Any,
    AfterValidator(_choice),
    WithJsonSchema({"anyOf": [{"enum": ["none", "auto", "required"]}, {"type": "object"}]}),
]
Results = Annotated[
    dict[str, Any],
    Field(min_length=1),
    AfterValidator(_scripted),
    WithJsonSchema(
        {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "anyOf": [
                    {"not": {"type": "array"}},
                    {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["result"],
                            "additionalProperties": False,
                            "properties": {"arguments": {"type": "object", "minProperties": 1}, "result": {}},
                        },
                    },
                ]
            },
        }
    ),
]
Filling = Annotated[Any, AfterValidator(_fill), WithJsonSchema({"type": ["string", "number"]})]


class Entry(Strict):
    """Base of what an entry holds: null is an error except where it means something, as in ``seed``: none is sent."""

    _NULLABLE: ClassVar[frozenset[str]] = frozenset({"seed"})

    @model_validator(mode="after")
    def _no_null(self) -> Self:
        values = self.__dict__
        if null := [name for name in self.model_fields_set if values[name] is None and name not in self._NULLABLE]:
            raise ValueError(f"has {min(null).removesuffix('_')} = null; leave the key out")
        return self


class TextPart(Strict):
    """Text as one part of a content that is a list."""

    type: Literal["text"]
    text: str


Detail = Literal["low", "high", "auto"]


class ImageUrl(Strict):
    """Where an image is: an address of the web, which the engine fetches, or a data URI."""

    url: Name
    detail: Detail | None = None


class ImagePart(Strict):
    """An image as OpenAI's requests have it."""

    type: Literal["image_url"]
    image_url: ImageUrl


class Sound(Strict):
    """Sound as base64."""

    data: Name
    format: Literal["wav", "mp3", "flac"]


class AudioPart(Strict):
    """Sound as OpenAI's requests have it."""

    type: Literal["input_audio"]
    input_audio: Sound


class ImageFile(Strict):
    """An image of a file beside the prompt file."""

    type: Literal["image"]
    file: Name
    detail: Detail | None = None


class AudioFile(Strict):
    """Sound of a file beside the prompt file."""

    type: Literal["audio"]
    file: Name


_PARTS: Final[Mapping[str, type[Strict]]] = {
    "text": TextPart,
    "image": ImageFile,
    "audio": AudioFile,
    "image_url": ImagePart,
    "input_audio": AudioPart,
}
_SHAPES: Final[Mapping[str, str]] = {
    "text": '{"type": "text", "text": "…"}',
    "image": '{"type": "image", "file": "x.png"}, with detail if need be,',
    "audio": '{"type": "audio", "file": "x.wav"}',
    "image_url": '{"type": "image_url", "image_url": {"url": "https://… or data:image/png;base64,…"}}',
    "input_audio": '{"type": "input_audio", "input_audio": {"data": "…", "format": "wav, mp3 or flac"}}',
}


def _content(value: object) -> object:
    """Accept text, null, and a list of parts: text, images and sound."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError(f"is {given(value)}; expected text in quotes, or a list of parts")
    if not value:
        raise ValueError("is an empty list; expected at least one part")
    for index, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind not in _PARTS:
            raise ValueError(f"has a part of type {given(kind)} at {index}; parts are of type {', '.join(_PARTS)}")
        try:
            _PARTS[kind if isinstance(kind, str) else "text"].model_validate(part)
        except ValidationError:
            raise ValueError(
                f"has {given(part)} at {index}; a part is {_SHAPES[str(kind or 'text')]} and nothing more"
            ) from None
    return value


def _whole_schema(part: type[Strict]) -> Any:
    """Return the JSON Schema of a part with those of its own parts in their places."""
    schema = part.model_json_schema()
    held = schema.pop("$defs", {})

    def placed(value: Any) -> Any:
        if isinstance(value, list):
            return [placed(item) for item in value]
        if not isinstance(value, dict):
            return value
        named = value.get("$ref")
        return placed(held[named.rpartition("/")[2]]) if named else {key: placed(item) for key, item in value.items()}

    return placed(schema)


Content = Annotated[
    Any,
    AfterValidator(_content),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "array",
                    "minItems": 1,
                    "items": {"anyOf": [_whole_schema(part) for part in _PARTS.values()]},
                },
                {"type": "null"},
            ]
        }
    ),
]


class MessageEntry(Entry):
    """One turn of a conversation, as OpenAI's format has it; it is sent as it is given.

    ``content`` is text, a list of parts (of the user's turns images and sound too), or null in an assistant's turn that
    calls tools (there it may be left out too). ``tool_call_id`` and ``tool_calls`` are what goes round tools. What an
    answer holds besides (``refusal``, ``annotations``, ``audio``, ``function_call``) may stand there as the server left
    it empty.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["content"], "properties": {"content": {"type": ["string", "array"]}}},
                {"required": ["tool_calls"], "properties": {"role": {"const": "assistant"}}},
            ]
        }
    )

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    refusal: str | None = None
    annotations: list[Any] | None = Field(default=None, max_length=0)
    audio: None = None
    function_call: None = None

    _NULLABLE: ClassVar[frozenset[str]] = frozenset(
        {"content", "tool_calls", "refusal", "annotations", "audio", "function_call"}
    )

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if self.role != "user" and isinstance(self.content, list):
            kinds = [part["type"] for part in self.content if part["type"] != "text"]
            if kinds:
                raise ValueError(f"has a part of type {given(kinds[0])}, which only a user's turn may have")
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            if "content" in self.model_fields_set:
                raise ValueError("has content = null, which only an assistant's turn with tool_calls may have")
            raise ValueError("has no content")
        return self

    def as_given(self) -> dict[str, Any]:
        """Return the turn as it is sent: the keys that were given, in their order in the entry's format."""
        return self.model_dump(exclude_unset=True)


NEWER_LIMIT: Final = "max_completion_tokens"


class OpenAISampling(Entry):
    """Sampling parameters as OpenAI's requests have them; ``max_completion_tokens`` is the newer name of the limit."""

    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = None
    stop: Texts | None = None

    def overrides(self) -> dict[str, Any]:
        """Return the parameters the entry sets, ready for ``dataclasses.replace`` on a ``Sampling``."""
        given = self.model_fields_set & _SAMPLING
        values = {name: getattr(self, name) for name in sorted(given)} if given else {}
        if self.max_completion_tokens is not None:
            values["max_tokens"] = self.max_completion_tokens
        if self.stop is not None:
            values["stop"] = tuple(self.stop)
        return values


class SamplingEntry(OpenAISampling):
    """Sampling parameters this entry overrides; the others come from the test."""

    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0)


_SAMPLING: Final = frozenset(SamplingEntry.model_fields) - {NEWER_LIMIT}
_OURS: Final = {
    **dict.fromkeys(_SAMPLING, "write it under sampling"),
    **dict.fromkeys(("max_completion_tokens", "repeat_penalty"), "write max_tokens or repetition_penalty instead"),
    **dict.fromkeys(
        ("messages", "prompt", "tools", "tool_choice", "response_format", "n"), "write it in the case itself"
    ),
    "model": "the engine's configuration names it",
    **dict.fromkeys(("stream", "stream_options", "logprobs", "top_logprobs"), "checks decide on it"),
}
"""Fields of a body that are never passed through, each with what to do instead."""


def passed_through(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return further fields of a request's body; ``ValueError`` for one that we send ourselves."""
    for name in fields:
        if name in _OURS:
            raise ValueError(f"has {name}, which is sent anyway: {_OURS[name]}")
    return fields


class ExpectEntry(Entry):
    """What a right answer looks like. ``schema`` is a JSON Schema or the path of one."""

    schema_: Schema = Field(default=None, alias="schema")
    answer: Said | None = None
    tool: Name | None = None
    contains: Pieces = Field(default_factory=list)


class InputEntry(Strict):
    """One input of an application: what it reads stands there under any further keys."""

    model_config = ConfigDict(extra="allow")

    id: Identifier
    group: Identifier | None = None
    tags: list[Name] = Field(default_factory=list)


class PromptEntry(OpenAISampling):
    """One case: an id, exactly one of ``messages`` and ``prompt``, and sampling parameters where OpenAI has them.

    Only where ``vars`` is present is ``{name}`` in prompts and message contents replaced (``{{`` and ``}}`` are braces
    then); without it every brace stays as it is, so JSON in a prompt needs no escaping.
    """

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["messages"]}, {"required": ["prompt"]}]})

    id: Identifier
    messages: list[MessageEntry] | None = Field(default=None, min_length=1)
    prompt: str | None = Field(default=None, min_length=1)
    group: Identifier | None = None
    vars: dict[str, Filling] | None = None
    tags: list[Name] = Field(default_factory=list)
    sampling: SamplingEntry | None = None
    tools: list[dict[str, Any]] | None = Field(default=None, min_length=1)
    tool_choice: Choice = None
    tool_results: Results | None = None
    max_turns: int | None = Field(default=None, ge=2, le=MOST_TURNS)
    response_format: dict[str, Any] | None = None
    n: int | None = Field(default=None, ge=1, le=128)  # as OpenAI's API takes it
    parallel_tool_calls: bool | None = None
    logit_bias: dict[str, float] | None = Field(default=None, min_length=1)
    extra_body: Annotated[dict[str, Any], AfterValidator(passed_through)] | None = Field(default=None, min_length=1)
    reasoning_effort: Name | None = None
    chat_template_kwargs: dict[str, Any] | None = Field(default=None, min_length=1)
    expect: ExpectEntry | None = None

    @model_validator(mode="after")
    def _offers_what_is_scripted(self) -> Self:
        if self.tool_results is None:
            if self.max_turns is not None:
                raise ValueError("has max_turns without tool_results; without results no conversation goes on")
            return self
        if not self.tools:
            raise ValueError("has tool_results without tools; offer the tools that return them")
        if self.n is not None and self.n > 1:
            raise ValueError(f"has tool_results and n = {self.n}; a conversation goes on from one answer: leave n out")
        if self.prompt is not None:
            raise ValueError("has tool_results beside a raw prompt, in which nothing calls; use messages")
        functions = [tool.get("function") for tool in self.tools]
        offered: dict[str, dict[str, Any]] = {
            function["name"]: function
            for function in functions
            if isinstance(function, dict) and isinstance(function.get("name"), str)
        }
        for name, scripted in self.tool_results.items():
            if name not in offered:
                raise ValueError(
                    f"has tool_results for {given(name)}, which tools does not offer{nearest(name, offered)}"
                )
            parameters = offered[name].get("parameters")
            properties = parameters.get("properties") if isinstance(parameters, dict) else None
            if not isinstance(scripted, list) or not isinstance(properties, dict):
                continue
            for entry in scripted:
                for argument in entry.get("arguments", {}):
                    if argument not in properties:
                        raise ValueError(
                            f"has tool_results for {given(name)} with the argument {given(argument)}, which is none of "
                            f"its parameters{nearest(argument, properties)}"
                        )
        return self

    @model_validator(mode="after")
    def _thinks_in_a_chat(self) -> Self:
        for name in self.thinking():
            if self.prompt is not None:
                raise ValueError(f"has {name} beside a raw prompt, which no chat template reads")
            if name in (self.extra_body or {}):
                raise ValueError(f"has {name} and has it in extra_body too; say it once")
        return self

    @model_validator(mode="after")
    def _one_prompt(self) -> PromptEntry:
        if self.messages is not None and self.prompt is not None:
            raise ValueError("has both messages and prompt; a case is one of them")
        if self.messages is None and self.prompt is None:
            raise ValueError("has neither messages nor prompt")
        return self

    @model_validator(mode="after")
    def _said_once(self) -> Self:
        under = set() if self.sampling is None else self.sampling.model_fields_set
        if twice := sorted(self.model_fields_set & under):
            raise ValueError(f"has {twice[0]} at the top and under sampling; say it once")
        if {"max_tokens", NEWER_LIMIT} <= self.model_fields_set | under:
            raise ValueError(f"has max_tokens and {NEWER_LIMIT}, which are one limit; say it once")
        return self

    def overrides(self) -> dict[str, Any]:
        """Return the parameters that stand at the top or under ``sampling``."""
        top = super().overrides()
        return top if self.sampling is None else top | self.sampling.overrides()

    def thinking(self) -> dict[str, Any]:
        """Return what the entry says of reasoning, by OpenAI's and vLLM's names for it."""
        named = {"reasoning_effort": self.reasoning_effort, "chat_template_kwargs": self.chat_template_kwargs}
        return {name: value for name, value in named.items() if value is not None}

    def further(self) -> dict[str, Any]:
        """Return the fields of the request's body that are passed through as they are."""
        named = {"parallel_tool_calls": self.parallel_tool_calls, "logit_bias": self.logit_bias}
        return {name: value for name, value in named.items() if value is not None} | (self.extra_body or {})
