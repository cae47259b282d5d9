"""A case in its two arms: *constrained*, where the engine has to force a schema, and *free*, where words ask for it.

Or *streamed*, where its answer comes piece by piece, and *unstreamed*, where it comes whole. Two arms of one case are
two cases: each has an id of its own, under which it is asked, stored and approved.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.prompts import STREAMED, UNSTREAMED, Case, PromptSet

Arm: TypeAlias = Literal["constrained", "free", "streamed", "unstreamed"]
CONSTRAINED: Final = "constrained"
FREE: Final = "free"
_SUFFIX: Final = f"@{FREE}"
_WHOLE: Final = f"@{UNSTREAMED}"
_DECLARED: Final = {FREE: CONSTRAINED, UNSTREAMED: STREAMED}
"""The arm under the ids of the prompts as they were declared, by the one that stands beside it."""
_ASKS: Final = (
    "Answer with one JSON value and nothing else: no words before or after it, no code block. "
    "It must be valid under this JSON Schema:"
)


def described(case: Case, schema: Mapping[str, Any]) -> Case:
    """Return the case with its schema in words: described at the end of what the user says, nothing is forced.

    A raw prompt is gone on with where it ends, so there the description comes first. A chat in which no user speaks
    gets it as a message of the system. Whatever the case has under ``response_format`` goes; all else stays, its id
    too.

    >>> asked = described(Case(id="a", prompt="2 cats:"), {"type": "integer"})
    >>> asked.prompt.splitlines()[1:]
    ['{"type": "integer"}', '', '2 cats:']
    """
    words = f"{_ASKS}\n{json.dumps(schema, ensure_ascii=False)}"
    if case.messages is None:
        return msgspec.structs.replace(case, prompt=f"{words}\n\n{case.prompt}", response_format=None)
    return msgspec.structs.replace(case, messages=_asked(case.messages, words), response_format=None)


def constrained(case: Case, schema: Mapping[str, Any]) -> Case:
    """Return the case with its schema to be forced; what it has under ``response_format`` itself stays."""
    forced = case.response_format or response_format(schema)
    return msgspec.structs.replace(case, response_format=forced, arm=CONSTRAINED)


def free(case: Case, schema: Mapping[str, Any]) -> Case:
    """Return the free arm of a case: described, with an id that says so."""
    return msgspec.structs.replace(described(case, schema), id=f"{case.id}{_SUFFIX}", group=case.group, arm=FREE)


def response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema as OpenAI's ``response_format`` asks to force it; adapters have their engines' own words."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": dict(schema)}}


def in_both(prompts: PromptSet, schema_of: Callable[[Case], Mapping[str, Any]]) -> PromptSet:
    """Return the set with both arms of every case, the free one behind the constrained one.

    Raises ``DesignError`` where a case has an id that a free arm would have.
    """
    cases: list[Case] = []
    for case in prompts.cases:
        if f"{case.id}{_SUFFIX}" in prompts.by_id:
            raise DesignError(
                f"the prompt {case.id}{_SUFFIX} has the id that the free arm of {case.id} gets; rename it"
            )
        cases += [constrained(case, schema_of(case)), free(case, schema_of(case))]
    return PromptSet(name=prompts.name, cases=tuple(cases), rest=prompts.rest)


def streamed_and_not(prompts: PromptSet) -> PromptSet:
    """Return the set with every case streamed, and behind it unstreamed.

    Raises ``DesignError`` where a case has an id that an unstreamed one would have.
    """
    cases: list[Case] = []
    for case in prompts.cases:
        if unstreamed(case.id) in prompts.by_id:
            raise DesignError(f"the prompt {unstreamed(case.id)} has the id that {case.id} gets unstreamed; rename it")
        cases.append(msgspec.structs.replace(case, arm=STREAMED))
        cases.append(msgspec.structs.replace(case, id=unstreamed(case.id), group=case.group, arm=UNSTREAMED))
    return PromptSet(name=prompts.name, cases=tuple(cases), rest=prompts.rest)


def unstreamed(case: str) -> str:
    """Return the id under which a case is asked unstreamed.

    >>> unstreamed("refund")
    'refund@unstreamed'
    """
    return f"{case}{_WHOLE}"


def of_arm(prompts: PromptSet, arm: Arm) -> PromptSet:
    """Return the cases of one arm; of a set that was not asked in arms all are as declared, none is of the other."""
    if not any(case.arm for case in prompts.cases):
        return prompts if arm in _DECLARED.values() else PromptSet(name=prompts.name, cases=())
    cases = tuple(case for case in prompts.cases if case.arm == arm)
    return PromptSet(name=prompts.name, cases=cases, digest=f"{prompts.digest}/{arm}", rest=prompts.rest)


def as_declared(prompts: PromptSet) -> PromptSet:
    """Return the prompts as they were declared: of those that are asked in arms the constrained or streamed ones."""
    streamed = any(case.arm == STREAMED for case in prompts.cases)
    return of_arm(prompts, STREAMED if streamed else CONSTRAINED)


def other(case: str) -> str:
    """Return the id of a case's other arm.

    >>> other("refund"), other("refund@free")
    ('refund@free', 'refund')
    """
    return case.removesuffix(_SUFFIX) if case.endswith(_SUFFIX) else f"{case}{_SUFFIX}"


def declared_id(case: str) -> str:
    """Return the id that a case was declared under, whichever arm of it is asked.

    >>> declared_id("refund@free"), declared_id("refund@unstreamed"), declared_id("refund")
    ('refund', 'refund', 'refund')
    """
    return case.removesuffix(_SUFFIX).removesuffix(_WHOLE)


def _asked(messages: Sequence[Mapping[str, Any]], words: str) -> tuple[Mapping[str, Any], ...]:
    """Return the messages with these words behind what the user says last."""
    for place in range(len(messages) - 1, -1, -1):
        content = messages[place].get("content")
        if messages[place].get("role") != "user" or not isinstance(content, (str, list)):
            continue
        text = f"{content}\n\n{words}" if isinstance(content, str) else [*content, {"type": "text", "text": words}]
        return (*messages[:place], {**messages[place], "content": text}, *messages[place + 1 :])
    return ({"role": "system", "content": words}, *messages)
