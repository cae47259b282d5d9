"""The tool calls of one answer: whether there are any, which, and what is wrong with them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec

from pytest_llmparity.core.checks.schema.contract import Contract
from pytest_llmparity.core.compare.answers import no_evidence, speechless
from pytest_llmparity.core.compare.calls import begin_alike, lost_call
from pytest_llmparity.core.compare.fields import Fields
from pytest_llmparity.core.compare.json import parse_json
from pytest_llmparity.core.compare.paths import EVERYWHERE, Steps, at, refused, steps
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.prompts import NO_TOOL, Case
from pytest_llmparity.core.sample import Completion, ToolCall
from pytest_llmparity.core.words import explain

Arguments: TypeAlias = Literal["equal", "fits"] | tuple[str, ...]
Order: TypeAlias = Literal["any", "same"]
LastAnswer: TypeAlias = Literal["equal", "any"]

INVALID_JSON, UNKNOWN_NAME, MISMATCH, REASONING_ONLY, MARKUP, SWALLOWED, NO_CALL, NO_RESULT, NO_END, NO_WORDS = (
    FAULTS
) = (
    "invalid JSON",
    "unknown name",
    "schema mismatch",
    "reasoning only",
    "markup left in the text",
    "swallowed",
    "no call",
    "no result",
    "no end",
    "no words",
)
"""What may be wrong with an answer that calls, or should have; the last three with a conversation."""


class Fault(msgspec.Struct, frozen=True):
    """What is wrong: a class of :data:`FAULTS`, and words about this answer."""

    kind: str
    words: str


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer calls, and ``failure``: why there is no answer.

    ``tried``: it calls, writes a call that nobody read out of its text, or ended to call and the call is gone.
    ``limited``: a token limit ended it. ``cut``: that was in a call, or before any, so that it counts neither way;
    ``speaking`` where it was in its words. ``mute``: it ended by itself with neither text nor a call. Of a conversation
    the calls are those of all its turns, ``turns`` has each by itself, and all else but ``tried`` is of the last one.
    """

    calls: tuple[ToolCall, ...] = ()
    faults: tuple[Fault, ...] = ()
    answered: bool = True
    cut: bool = False
    limited: bool = False
    speaking: bool = False
    mute: bool = False
    tried: bool = False
    text: str = ""
    failure: str = ""
    turns: tuple[Calls, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are called, in order."""
        return tuple(call.name for call in self.calls)

    @property
    def problem(self) -> str:
        """What is wrong, empty where nothing is."""
        return self.failure or (f"{self.faults[0].kind}: {self.faults[0].words}" if self.faults else "")


class Offered:
    """The tools a case offers, with the schemas of their parameters; ``DesignError`` for one that is unusable."""

    def __init__(self, case: Case) -> None:
        functions = [tool.get("function") for tool in case.tools or ()]
        self._parameters = {
            str(function["name"]): function.get("parameters")
            for function in functions
            if isinstance(function, Mapping) and "name" in function
        }
        self._contracts = {
            name: Contract(schema, f"the parameters of {name}")
            for name, schema in self._parameters.items()
            if isinstance(schema, Mapping)
        }

    def read(self, answer: Completion, *, asked_for_json: bool = False) -> Calls:
        """Return what an answer calls and what is wrong with it; JSON is no call where the prompt asks for it."""
        calls = answer.tool_calls
        lost = None if calls else lost_call(answer.text, self._parameters, asked_for_json=asked_for_json)
        broken = bool(calls) and parse_json(calls[-1].arguments).error is not None
        cut = answer.cut and (broken if calls else lost is None)
        complete = calls[:-1] if cut else calls
        faults = [fault for call in complete for fault in self._of_call(call)]
        if not calls and not answer.cut:
            faults += _of_silence(answer, lost)
        dropped = not answer.cut and answer.finish_reason == "tool_calls"
        return Calls(
            calls=calls,
            faults=tuple(faults),
            cut=cut,
            limited=answer.cut,
            speaking=cut and not calls and not speechless(answer),
            mute=speechless(answer) and not answer.cut,
            tried=bool(calls) or lost is not None or dropped,
            text=answer.text,
        )

    def read_all(self, answer: Completion, *, asked_for_json: bool = False) -> Calls:
        """Return what all turns of a conversation call, and what is wrong with which of them."""
        turns = [self.read(turn, asked_for_json=asked_for_json) for turn in answer.conversation]
        faults = [
            Fault(fault.kind, f"turn {number}: {fault.words}")
            for number, turn in enumerate(turns, start=1)
            for fault in turn.faults
        ]
        unknown = any(call.name not in self._parameters for call in answer.tool_calls)
        named = unknown or (speechless(answer) and bool(turns[-1].faults))
        if answer.stopped is not None and answer.stopped.kind in FAULTS and not named:
            faults.append(Fault(answer.stopped.kind, f"turn {len(turns)}: {answer.stopped.words}"))
        return Calls(
            calls=tuple(call for turn in turns for call in turn.calls),
            faults=tuple(faults),
            cut=turns[-1].cut,
            limited=turns[-1].limited,
            speaking=turns[-1].speaking,
            mute=turns[-1].mute,
            tried=any(turn.tried for turn in turns),
            text=answer.text,
            turns=tuple(turns),
        )

    def could_have(self, field: str) -> bool:
        """Whether the parameters of a tool may hold a field, by all that their schemas say."""
        walked = steps(field_path(field))
        return any(_may_hold(schema, walked) for schema in self._parameters.values())

    @property
    def known(self) -> list[str]:
        """The names of the parameters of all tools."""
        schemas = [schema for schema in self._parameters.values() if isinstance(schema, Mapping)]
        return list(dict.fromkeys(str(name) for schema in schemas for name in schema.get("properties") or ()))

    def _of_call(self, call: ToolCall) -> Iterator[Fault]:
        if call.name not in self._parameters:
            known = ", ".join(explain.plain(name, 30) for name in list(self._parameters)[:6])
            yield Fault(UNKNOWN_NAME, f"{explain.plain(call.name, 40)} is none of {known or 'no tools'}")
            return
        parsed = parse_json(call.arguments)
        if parsed.error is not None:
            yield Fault(INVALID_JSON, f"arguments of {call.name}: {parsed.error}")
            return
        if not isinstance(parsed.value, dict):
            yield Fault(INVALID_JSON, f"arguments of {call.name} are no object: {explain.quote(call.arguments, 60)}")
            return
        contract = self._contracts.get(call.name)
        problem = None if contract is None else contract.hold(Completion(text=call.arguments)).problem
        if problem is not None:
            yield Fault(MISMATCH, f"arguments of {call.name}: {explain.plain(problem, 120)}")


def _may_hold(schema: object, walked: Steps) -> bool:
    """Whether a value that fits a schema may have something at a path: yes, where the schema leaves it open."""
    for step in walked:
        if not isinstance(schema, Mapping) or any(word in schema for word in _BRANCHING):
            return True
        kind = "array" if step is EVERYWHERE else "object"
        if schema.get("type") not in (None, kind) and not isinstance(schema.get("type"), list):
            return False
        below = schema.get("items") if step is EVERYWHERE else schema.get("properties")
        if not isinstance(below, Mapping):
            return True
        if step is not EVERYWHERE and step not in below:
            return bool(schema.get("additionalProperties"))
        schema = below if step is EVERYWHERE else below[step]
    return True


_BRANCHING: Final = ("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "patternProperties")


def _of_silence(answer: Completion, lost: int | None) -> Iterator[Fault]:
    """Yield what is wrong with an answer without calls; ``lost`` is where in its text a call stands."""
    if lost is not None:
        yield Fault(MARKUP, explain.quote(answer.text[lost:], 60))
    elif answer.finish_reason == "tool_calls":
        yield Fault(SWALLOWED, "it ended to call a tool and has no call")
    elif speechless(answer) and answer.reasoning:
        yield Fault(REASONING_ONLY, "neither text nor a call behind its reasoning")
    elif speechless(answer) and (answer.completion_tokens or 0) > 1:
        count = explain.count(answer.completion_tokens or 0, "token")
        yield Fault(SWALLOWED, f"{count} were generated, and neither text nor a call came")


def with_no_call(case: Case, calls: Calls) -> Calls:
    """Return an answer as one with the fault :data:`NO_CALL`, where its prompt says that a tool is to be called."""
    if not should_call(case) or calls.calls or calls.problem or calls.cut:
        return calls
    words = f"it answers {explain.quote(calls.text, 60)}" if calls.text.strip() else "it answers nothing"
    return msgspec.structs.replace(calls, faults=(Fault(NO_CALL, words),))


def asks_for_json(case: Case) -> bool:
    """Whether a prompt asks for JSON, so that JSON in the answer is what was asked for."""
    form = case.response_format or {}
    return form.get("type", "text") != "text" or (case.expect is not None and case.expect.schema is not None)


def should_call(case: Case) -> bool | None:
    """Return whether a case says that a tool is to be called, ``None`` where it does not say.

    By ``expect.tool``, else by a ``tool_choice`` that leaves no choice; who expects an ``answer`` and names no tool
    expects words, but not in a conversation, whose answer comes after its calls.
    """
    if not case.tools:
        return None
    if case.expect is not None and case.expect.tool is not None:
        return case.expect.tool != NO_TOOL
    if isinstance(case.tool_choice, Mapping):
        return True
    if case.tool_choice in (NO_TOOL, "required"):
        return case.tool_choice == "required"
    words = case.expect is not None and case.expect.answer is not None and not case.tool_results
    return False if words else None


def expected_name(case: Case) -> str | None:
    """Return the name of the tool that a case says is to be called, ``None`` where it names none."""
    if not should_call(case):
        return None
    if case.expect is not None and case.expect.tool is not None:
        return case.expect.tool
    function = case.tool_choice.get("function") if isinstance(case.tool_choice, Mapping) else None
    return str(function["name"]) if isinstance(function, Mapping) and "name" in function else None


def chosen_arguments(arguments: Arguments | Sequence[str]) -> Arguments:
    """Return how arguments of calls are compared; ``DesignError`` for another word, or for fields that are none."""
    if not isinstance(arguments, str):
        fields = tuple(arguments) if isinstance(arguments, (list, tuple)) else ()
        if not fields or not all(isinstance(field, str) and field for field in fields):
            raise DesignError(f'tools(arguments={arguments!r}): fields are names of arguments, such as ["city"]')
        for field in fields:
            if why := refused(field_path(field)):
                raise DesignError(f"tools(arguments={arguments!r}): {why}")
        return fields
    if arguments not in ("equal", "fits"):
        raise DesignError(f'tools(arguments={arguments!r}): arguments is "equal", "fits" or a list of fields')
    return cast("Arguments", arguments)


def field_path(field: str) -> str:
    """Return the path of a field of arguments, which may be written short.

    >>> field_path("city"), field_path("address.zip"), field_path("$.items[].id")
    ('$.city', '$.address.zip', '$.items[].id')
    """
    return field if field.startswith("$") else f"${field}" if field.startswith("[") else f"$.{field}"


def seen_in(fields: Iterable[str], calls: Sequence[Calls]) -> tuple[dict[str, int], int]:
    """Return in how many calls each field leads somewhere, and of how many."""
    counts = dict.fromkeys(fields, 0)
    parsed = [parse_json(call.arguments).value for of in calls for call in of.calls]
    for value in parsed:
        for name in counts:
            counts[name] += bool(at(value, steps(field_path(name))))
    return counts, len(parsed)


CUT, UNREAD, NEITHER = ("cut", "unread", "neither")
"""Why two answers say nothing of how they call: of what a token limit cut or nobody said nothing is known, neither's
call was read, or neither calls where the prompt leaves that open."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What two answers say of their calls: ``why`` they are not alike, ``unknown`` why nothing; both empty if alike."""

    why: str = ""
    unknown: str = ""


ALIKE: Final = Told()


def compare_calls(
    answers: tuple[Completion, Completion],
    calls: tuple[Calls, Calls],
    *,
    should: bool | None,
    arguments: Arguments,
    order: Order,
    engines: tuple[str, str],
) -> Told:
    """Return what two answers say of their calls; ``should`` is what the prompt says of calling at all.

    Of one that its token limit ended only what it came to is held against the other: that is a difference where nothing
    that follows can undo it, and no agreement.
    """
    ours, theirs = calls
    if no_evidence(*answers):
        return Told(unknown=CUT)
    if ours.calls or theirs.calls:
        if not (ours.limited or theirs.limited):
            return Told(why=difference(ours, theirs, arguments=arguments, order=order, engines=engines))
        why = _for_all_that_follows(ours, theirs, arguments, order, engines)
        return Told(why=why, unknown="" if why else CUT)
    if ours.cut or theirs.cut:
        return Told(unknown=CUT)
    if ours.tried and theirs.tried:
        return Told(unknown=UNREAD)
    sides = list(zip(engines, calls, strict=True))
    for (name, read), (other_name, other) in (sides, sides[::-1]):
        if read.tried:
            return Told(why=f"{name} calls in what nobody read ({read.problem or MARKUP}), {other_name} makes none")
        if read.mute and not other.tried:
            return Told(why=f"{name} says nothing ({read.problem or 'empty'}), {other_name} answers in words")
    return ALIKE if should is False else Told(unknown=NEITHER)


def _for_all_that_follows(
    ours: Calls, theirs: Calls, arguments: Arguments, order: Order, engines: tuple[str, str]
) -> str:
    """Say in what two answers call otherwise whatever would follow where a token limit ended one, empty if in nothing.

    Calls that came whole are held against each other in their places where there is one each, or order counts.
    """
    first, second = engines
    n = len(ours.calls), len(theirs.calls)
    if (n[0] > n[1] and not theirs.limited) or (n[1] > n[0] and not ours.limited):
        return f"{first} makes {_counted(ours)}, {second} {_counted(theirs)}"
    pairs = list(zip(ours.calls, theirs.calls, strict=False))
    placed = order == "same" or n == (1, 1)
    extra = (
        (not theirs.limited and Counter(ours.names) - Counter(theirs.names))
        or (not ours.limited and Counter(theirs.names) - Counter(ours.names))
        or (placed and any(a.name != b.name for a, b in pairs))
    )
    if extra:
        return f"{first} calls {_names(ours)}, {second} {_names(theirs)}"
    if arguments == "fits":
        problem = ours.problem or theirs.problem
        return f"{first if ours.problem else second}: {problem}" if problem else ""
    for place, (a, b) in enumerate(pairs if placed else (), start=1):
        if (ours.cut and place == n[0]) or (theirs.cut and place == n[1]):
            if arguments == "equal" and not begin_alike(a.arguments, b.arguments):
                return f"arguments of {explain.plain(a.name, 40)}, as far as they were written"
        elif path := _other([a], [b], _read_of(arguments)):
            return f"{path} of {explain.plain(a.name, 40)}"
    return ""


def difference(
    ours: Calls,
    theirs: Calls,
    *,
    arguments: Arguments,
    order: Order,
    engines: tuple[str, str] = ("baseline", "candidate"),
) -> str:
    """Say in what the whole answers of two engines call otherwise, empty where they do alike.

    ``arguments``: equal as JSON, fitting their schemas on both, or equal in these fields (one that neither has is
    equal). Arguments that are no JSON equal nothing, but none at all are like none at all. With ``order="any"`` calls
    of one name are put together by what is compared of them.
    """
    first, second = engines
    if len(ours.calls) != len(theirs.calls):
        return f"{first} makes {_counted(ours)}, {second} {_counted(theirs)}"
    left, right = (sorted(calls.names) if order == "any" else list(calls.names) for calls in (ours, theirs))
    if left != right:
        return f"{first} calls {_names(ours)}, {second} {_names(theirs)}"
    if arguments == "fits":
        problem = ours.problem or theirs.problem
        return f"{first if ours.problem else second}: {problem}" if problem else ""
    fields = _read_of(arguments)
    parts: Iterable[tuple[str, Sequence[ToolCall], Sequence[ToolCall]]]
    if order == "same":
        parts = ((a.name, [a], [b]) for a, b in zip(ours.calls, theirs.calls, strict=True))
    else:
        parts = ((name, _of_name(ours, name), _of_name(theirs, name)) for name in dict.fromkeys(left))
    for name, mine, other in parts:
        if path := _other(mine, other, fields):
            return f"{path} of {explain.plain(name, 40)}"
    return ""


def _read_of(arguments: Arguments) -> Fields:
    """Return what is compared of lists of arguments."""
    read = () if arguments == "equal" else tuple(f"$[]{field_path(field)[1:]}" for field in arguments)
    return Fields(read=read, unordered=("$",))


def _of_name(calls: Calls, name: str) -> list[ToolCall]:
    return [call for call in calls.calls if call.name == name]


def _other(ours: Sequence[ToolCall], theirs: Sequence[ToolCall], fields: Fields) -> str:
    """Return the path at which as many calls of one tool differ, empty where they are equal."""
    none, values = [], []
    for calls in (ours, theirs):
        written = [call.arguments for call in calls if call.arguments.strip()]
        parsed = [parse_json(text) for text in written]
        if any(read.error is not None for read in parsed):
            return "arguments that are no JSON"
        none.append(len(calls) - len(written))
        values.append([read.value for read in parsed])
    if none[0] != none[1]:
        return "arguments that are no JSON"
    differing = fields.differences(*values)
    return explain.plain(f"${differing[0].path.partition(']')[2]}", 60) if differing else ""


def _counted(calls: Calls) -> str:
    return explain.count(len(calls.calls), "call") if calls.calls else "none"


def _names(calls: Calls) -> str:
    return ", ".join(explain.plain(name, 30) for name in calls.names[:4])


def usable(tools: Sequence[Mapping[str, Any]] | None) -> str:
    """Return tools as text by which equal ones are known."""
    return json.dumps(tools, sort_keys=True)
