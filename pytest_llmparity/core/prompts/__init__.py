"""Prompt sets: one case per entry, read from JSON Lines or YAML text."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import msgspec

from pytest_llmparity.core.sample import Request, Sampling

NO_TOOL: Final = "none"
"""How a case says under ``expect.tool`` that no tool is to be called, as ``tool_choice`` does."""
STREAMED: Final = "streamed"
UNSTREAMED: Final = "unstreamed"
STREAMS: Final = {STREAMED: True, UNSTREAMED: False}
"""Whether an arm of a case is asked for as a stream, by the arm; of others it does not matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """What a right answer looks like: a JSON Schema, a text, the name of the tool to call, pieces it must contain.

    ``schema`` is a JSON Schema or the path of one, ``None`` where the entry says nothing. ``tool`` is ``"none"`` where
    no tool is to be called.
    """

    schema: Mapping[str, Any] | str | None = None
    answer: str | None = None
    tool: str | None = None
    contains: tuple[str, ...] = ()


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt and what belongs to it. Exactly one of ``messages`` and ``prompt`` is set, variables filled in.

    ``group`` is shared by cases made from one template or document (its own id otherwise). ``sampling`` holds only the
    fields the entry overrides, ``thinking`` its ``reasoning_effort`` and ``chat_template_kwargs``, ``extra_body``
    further fields of the request, as they are. ``line`` is where the entry starts in its file, counted from 1. ``arm``
    says which of its two arms it is where a check asks for both (``core.prompts.arms``), empty elsewhere.
    ``tool_results`` says as the entry does what its tools return (``core.prompts.script``), ``max_turns`` how many
    answers an engine then gives at most, 0 where no tool returns anything.
    ``attached`` are the bytes of images and sound by their sha256, which stands in their place in ``messages``
    (``core.prompts.parts``). ``n`` is how many choices it asks for in one answer, 0 and 1: one.
    """

    id: str
    messages: tuple[Mapping[str, Any], ...] | None = None
    prompt: str | None = None
    group: str = ""
    tags: tuple[str, ...] = ()
    sampling: Mapping[str, Any] = msgspec.field(default_factory=dict)
    tools: tuple[Mapping[str, Any], ...] | None = None
    tool_choice: str | Mapping[str, Any] | None = None
    response_format: Mapping[str, Any] | None = None
    expect: Expect | None = None
    line: int = 0
    extra_body: Mapping[str, Any] = msgspec.field(default_factory=dict)
    arm: str = ""
    thinking: Mapping[str, Any] = msgspec.field(default_factory=dict)
    tool_results: Mapping[str, Any] = msgspec.field(default_factory=dict)
    max_turns: int = 0
    attached: Mapping[str, bytes] = msgspec.field(default_factory=dict)
    n: int = 0

    def __post_init__(self) -> None:
        if not self.group:
            msgspec.structs.force_setattr(self, "group", self.id)

    def most_tokens(self, sampling: Sampling) -> float:
        """Return the most tokens that its answer may have, reasoning among them, those of all turns together.

        Infinity where fields of its own may ask for more.
        """
        if self.extra_body:
            return math.inf
        return int(self.sampling.get("max_tokens", sampling.max_tokens)) * max(1, self.max_turns)

    def request(self, sampling: Sampling, *, top_logprobs: int | None = None) -> Request:
        """Return the request this case makes under ``sampling``; what the entry itself sets wins over it."""
        return Request(
            case=self.id,
            messages=self.messages,
            prompt=self.prompt,
            sampling=dataclasses.replace(sampling, **self.sampling),
            tools=self.tools,
            tool_choice=self.tool_choice,
            response_format=self.response_format,
            top_logprobs=top_logprobs,
            extra_body=self.extra_body,
            thinking=self.thinking,
            streamed=STREAMS.get(self.arm),
            tool_results=self.tool_results,
            max_turns=self.max_turns,
            attached=self.attached,
            n=self.n,
        )


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """The cases of one prompt file, in file order.

    ``digest`` is the hex sha256 of their content: the same for JSON Lines and YAML, for any order of the entries and
    for any layout of the file; another as soon as one prompt, parameter or expectation differs. ``rest`` are prompts of
    the file that this run leaves out (``core.prompts.portion``), without arms.
    """

    name: str
    cases: tuple[Case, ...]
    digest: str = ""
    rest: tuple[Case, ...] = ()

    def __post_init__(self) -> None:
        if not self.digest:
            object.__setattr__(self, "digest", digest(self.cases))

    def most_tokens(self, sampling: Sampling) -> tuple[float, ...]:
        """Return the most tokens that the answer to each case may have, in file order."""
        return tuple(case.most_tokens(sampling) for case in self.cases)

    @cached_property
    def groups(self) -> int:
        """How many independent groups the cases fall into."""
        return len(self.group_sizes)

    @cached_property
    def group_sizes(self) -> tuple[int, ...]:
        """How many cases each group has, in the order the groups come."""
        return tuple(Counter(case.group for case in self.cases).values())

    @cached_property
    def tag_sizes(self) -> Mapping[str, tuple[int, ...]]:
        """How many cases with each tag each group has, in the order they come; a case may have several tags."""
        sizes: dict[str, Counter[str]] = {}
        for case in self.cases:
            for tag in dict.fromkeys(case.tags):
                sizes.setdefault(tag, Counter())[case.group] += 1
        return {tag: tuple(groups.values()) for tag, groups in sizes.items()}

    def of_tag(self, tag: str) -> PromptSet:
        """Return the set of the cases with a tag, in the same order."""
        cases = tuple(case for case in self.cases if tag in case.tags)
        return PromptSet(name=self.name, cases=cases, digest=f"{self.digest}/{tag}")

    @cached_property
    def by_id(self) -> Mapping[str, Case]:
        """Cases by their id."""
        return {case.id: case for case in self.cases}


def digest(cases: Sequence[Case]) -> str:
    """Return the hex sha256 of the cases' content, whatever their order.

    Keys inside schemas and tools keep their order: engines that force a schema's properties in the order written
    answer differently when it changes.
    """
    lines = sorted((case.id, _written(case)) for case in cases)
    return hashlib.sha256("\n".join(text for _, text in lines).encode()).hexdigest()


_NAMES: Final = tuple(name for name in Case.__struct_fields__ if name not in ("line", "attached"))
_LABELS: Final = tuple(f'"{name}": ' for name in _NAMES)
_CONTENT: Final = operator.attrgetter(*_NAMES)
_LATER: Final = ("extra_body", "arm", "thinking", "tool_results", "max_turns", "n")
"""Fields that there were not always: cases without them are written as they were."""
_TEXT: Final = json.encoder.encode_basestring_ascii


def _written(case: Case) -> str:
    """Return the content of a case as ``json.dumps`` writes it; text and what is not given take it longest."""
    parts = [
        label + (_TEXT(value) if isinstance(value, str) else "null" if value is None else _value(name, value))
        for name, label, value in zip(_NAMES, _LABELS, _CONTENT(case), strict=True)
        if value or name not in _LATER
    ]
    return f"{{{', '.join(parts)}}}"


def _value(name: str, value: Any) -> str:
    """Return what a field of a case holds, neither text nor nothing, as JSON."""
    if name == "sampling":
        return json.dumps(dict(sorted(value.items()))) if value else "{}"
    if name == "expect":
        return json.dumps(dataclasses.asdict(value))
    return "[]" if value == () else json.dumps(value)
