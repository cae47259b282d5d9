"""Putting the pieces of a streamed message together: one assembler, one table of rules.

Servers agree on OpenAI's field names and not on what a piece is: some send a tool call whole, some repeat its name or
id with every piece, some count every call as the first one, some repeat in each piece all that came before. Each rule
below names who does what it is for. A rule that guesses leaves a remark, which a completion has in ``normalised``.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from pytest_llmparity.engines.facts.values import count, decoded, string

SURE: Final = 16
"""Characters from which a piece that repeats the one before is a repetition: models loop, by shorter tokens."""
VARIED: Final = 3
"""Different characters a piece needs to be known again; a run of one (a rule of dashes) comes in pieces of any size."""

REPEATED_REMARK: Final = "the last piece repeated the whole message: taken once"
GROWING_REMARK: Final = "every piece repeated all before it: taken once"
UNSURE_REMARK: Final = "the last piece equals all before it, or begins with it: kept, though it may be a repetition"
DIFFERENT_REMARK: Final = "the closing message is not what was streamed: the stream was taken"
EXTENDED_REMARK: Final = "a tool call's arguments came anew, each time with more in them: the last were taken"
LATE_REMARK: Final = "the last tool call equals one before it under another id: kept, though it may be a repetition"
PLACEHOLDER_REMARK: Final = "a tool call's arguments came behind an empty object: that was left out"
NAME_REMARK: Final = "a tool call's name came in pieces: put together"
TWICE_REMARK: Final = "a tool call came twice with nothing to tell the two apart: taken once"
RUN_TOGETHER_REMARK: Final = "the arguments of a tool call hold several values: calls that nothing tells apart"


# ---- text ----------------------------------------------------------------------------------------------------------


class Joined(NamedTuple):
    """What pieces of text amount to. ``remark`` is empty where nothing was guessed; ``used`` of the pieces count."""

    text: str
    remark: str = ""
    used: int = 0


def join_text(pieces: Sequence[str], closing: Sequence[str] = ()) -> Joined:
    """Return the text of streamed pieces; ``closing`` is what came as a whole message rather than as a delta.

    A piece that equals all before it, or begins with it, is a repetition where it is long or many pieces agree; a text
    that is twice the same word in two pieces stays as it is, with a remark.
    """
    parts = [piece for piece in pieces if piece]
    wholes = [piece for piece in closing if piece]
    if not parts:
        return _joined(wholes)
    streamed = _joined(parts)
    if wholes and len(parts) > 1 and wholes[-1].strip() == parts[-1].strip() and parts[-1].startswith(parts[-2]):
        # What few pieces cannot tell the closing message does: the last of them was all of it.
        return Joined(parts[-1], GROWING_REMARK, len(parts))
    if not wholes or wholes[-1].strip() == streamed.text.strip() or "".join(wholes) == streamed.text:
        return streamed
    return Joined(streamed.text, DIFFERENT_REMARK, streamed.used)


def _joined(parts: Sequence[str]) -> Joined:
    plain = Joined("".join(parts), "", len(parts))
    if len(parts) < 2:
        return plain
    before, last = "".join(parts[:-1]), parts[-1]
    growing, repeated = _growing(parts), last.strip() == before.strip()
    begins = bool(before.strip()) and last.startswith(before)
    if len(set(last)) >= VARIED:
        # Servers that decode everything so far anew for each event: SGLang's and Qwen's without incremental output.
        if growing > 1 or (growing and len(parts[-2]) >= SURE):
            return Joined(last, GROWING_REMARK, len(parts))
        # Front ends that send the finished message once more with the finish reason (one-api and its forks).
        if repeated and (len(before) >= SURE or len(parts) > 2):
            return Joined(before, REPEATED_REMARK, len(parts) - 1)
        if begins and len(before) >= SURE:  # the same with the last of the text, which no piece before had
            return Joined(last, REPEATED_REMARK, len(parts))
    unsure = begins or (repeated and bool(before.strip()))
    return Joined(plain.text, UNSURE_REMARK if unsure else "", plain.used)


def _growing(parts: Sequence[str]) -> int:
    """Return how often pieces grew if each begins with the one before, else 0.

    U+FFFD may become a whole character, and the last piece may have lost the white space at its ends.
    """
    grown = 0
    for piece, after in itertools.pairwise(parts):
        if not after.startswith(piece.rstrip("\ufffd")) and after.strip() != piece.strip():
            return 0
        grown += after != piece
    return grown


# ---- tool calls ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One entry of a chunk's ``tool_calls``; ``index`` is ``None``, texts are empty, where the server sent none.

    ``first`` is false where an earlier entry of the same chunk belongs to the call it would continue: entries of one
    list are calls of their own unless they say otherwise.
    """

    index: int | None
    id: str
    name: str
    arguments: str
    first: bool = True

    @property
    def whole(self) -> bool:
        """Whether its arguments alone are a whole value."""
        return _complete(self.arguments)


@dataclass(slots=True)
class Call:
    """A tool call under way."""

    index: int | None
    id: str
    name: str
    parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The arguments so far."""
        return _arguments(self.parts).text

    @property
    def state(self) -> Literal["empty", "open", "complete"]:
        """How far its arguments are: none yet, some, or a whole value."""
        if not any(part.strip() for part in self.parts):
            return "empty"
        return "complete" if _complete(self.text) else "open"


Act = Literal["new", "same", "again", "anew"]
"""What a piece is: the beginning of another call, more of this one, this one once more, or all of it in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a piece is to the call it may continue: ``act`` where ``applies``. ``who`` is known to send such pieces."""

    when: str
    who: str
    applies: Callable[[Call, Piece], bool]
    act: Act
    remark: str = ""


def _other_id(call: Call, piece: Piece) -> bool:
    return bool(call.id and piece.id and call.id != piece.id)


def _same_id(call: Call, piece: Piece) -> bool:
    return bool(piece.id) and call.id == piece.id


def _other_name(call: Call, piece: Piece) -> bool:
    return bool(piece.name) and piece.name != call.name


RULES: Final = (
    Rule(
        when="neither a name nor an id: more arguments",
        who="OpenAI, vLLM, SGLang, llama.cpp: every piece of a call but its first",
        applies=lambda call, piece: not piece.name and not piece.id,
        act="same",
    ),
    Rule(
        when="another id, a name and whole arguments that do not go on from those before",
        who="Ollama (issues 15457, 16212), LiteLLM (33678): parallel calls, each whole, all with index 0",
        applies=lambda call, piece: (
            _other_id(call, piece)
            and bool(piece.name)
            and piece.whole
            and piece.arguments.lstrip().startswith("{")
            and not call.text.rstrip().endswith((":", "[", ","))
            and not piece.arguments.startswith(call.text or "?")
        ),
        act="new",
    ),
    Rule(
        when="arguments are under way and the name is no other",
        who="servers that repeat name or id with every piece; vLLM 0.8 (issue 17523), which made a new id for each",
        applies=lambda call, piece: call.state == "open" and not _other_name(call, piece),
        act="same",
    ),
    Rule(
        when="another id with the same name, and a fragment of arguments where there are none yet",
        who="vLLM 0.8 with a named tool_choice: name and a new id with each piece, the first of which may be empty",
        applies=lambda call, piece: (
            call.state == "empty"
            and piece.name == call.name
            and bool(piece.arguments.strip())
            and not piece.whole
            and piece.first
        ),
        act="same",
    ),
    Rule(
        when="another id and a name",
        who="Ollama (issue 15457): calls that share an index, their arguments in pieces or empty",
        applies=lambda call, piece: _other_id(call, piece) and bool(piece.name),
        act="new",
    ),
    Rule(
        when="another id without a name",
        who="vLLM 0.8 (issue 17523): a new id for each piece",
        applies=_other_id,
        act="same",
    ),
    Rule(
        when="another name after whole arguments, or in the same chunk",
        who="Ollama before v0.5.2 (issue 7881), opik (8362): no index; servers that give every call one id",
        applies=lambda call, piece: _other_name(call, piece) and (call.state == "complete" or not piece.first),
        act="new",
    ),
    Rule(
        when="another name without an index, before any arguments or in the middle of some",
        who="servers without an index whose functions take no arguments",
        applies=lambda call, piece: _other_name(call, piece) and (piece.index is None or call.state == "open"),
        act="new",
    ),
    Rule(
        when="more of the name",
        who="nobody seen; OpenAI's reference allows it, and its own client adds names up",
        applies=_other_name,
        act="same",
        remark=NAME_REMARK,
    ),
    Rule(
        when="the same id with the same whole arguments",
        who="front ends whose last chunk repeats the message",
        applies=lambda call, piece: _same_id(call, piece) and call.state == "complete" and _equal(call, piece),
        act="again",
    ),
    Rule(
        when="the same id, and arguments behind an empty object",
        who="gateways before Anthropic's API, whose calls begin with an empty input",
        applies=lambda call, piece: _same_id(call, piece) and _hollow(call.text) and not _hollow(piece.arguments),
        act="same",
    ),
    Rule(
        when="the same id with whole arguments that hold all of those before, and more",
        who="wrappers that parse what came so far anew for every token and send the value",
        applies=lambda call, piece: (
            _same_id(call, piece) and call.state == "complete" and piece.whole and piece.first and _extends(call, piece)
        ),
        act="anew",
        remark=EXTENDED_REMARK,
    ),
    Rule(
        when="whole arguments after whole arguments, others or in the same chunk or without an index",
        who="servers without ids; ids that are the function's name: two calls of one function",
        applies=lambda call, piece: (
            call.state == "complete"
            and piece.whole
            and (not piece.first or not _equal(call, piece) or (piece.index is None and not _same_id(call, piece)))
        ),
        act="new",
    ),
    Rule(
        when="the same name, index and whole arguments without an id",
        who="front ends whose last chunk repeats the message",
        applies=lambda call, piece: call.state == "complete" and piece.whole,
        act="again",
        remark=TWICE_REMARK,
    ),
    Rule(
        when="the same name once more, and arguments begin after whole ones",
        who="servers without ids that stream two calls of one function under one index, or none",
        applies=lambda call, piece: (
            call.state == "complete" and not _same_id(call, piece) and piece.arguments.lstrip().startswith("{")
        ),
        act="new",
    ),
    Rule(
        when="anything else with the same name",
        who="servers that repeat the name with every piece, the closing one included",
        applies=lambda call, piece: True,
        act="same",
    ),
)
"""Tried in order on the call a piece may continue; the first that applies decides."""


class Calls:
    """The tool calls of one answer while their pieces come in; ``remarks`` says what was guessed."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.remarks: dict[str, None] = {}
        self._closed = False

    def take(self, entries: Sequence[Any], *, whole: bool = False, last: bool = False) -> None:
        """Add one chunk's ``tool_calls``; ``whole`` where every entry is a call of its own (an unstreamed message).

        Of a ``last`` chunk, which has the finish reason, entries that are all the calls there are repeat them.
        """
        if last and not whole and self._repeated(entries):
            return
        touched: list[Call] = []
        for entry in entries:
            piece = _piece(entry)
            if piece is None:
                continue
            call = None if whole else self._continued(piece)
            if call is None:
                index = None if whole else piece.index
                self.calls.append(call := Call(index=index, id=piece.id, name=piece.name, parts=[piece.arguments]))
            else:
                first = not any(call is other for other in touched)
                call = self._add(call, piece if first else dataclasses.replace(piece, first=False))
            touched.append(call)

    def close(self, entries: Sequence[Any]) -> None:
        """Take the calls of a closing message: they are all there is where none was streamed, the newest message's."""
        if entries and (self._closed or not self.calls):
            self.calls, self._closed = [], True
            self.take(entries, whole=True)
        elif entries and not self._alike([piece for entry in entries if (piece := _piece(entry)) is not None]):
            self.remarks[DIFFERENT_REMARK] = None

    def _repeated(self, entries: Sequence[Any]) -> bool:
        pieces = [piece for entry in entries if (piece := _piece(entry)) is not None]
        placed = all(piece.index in (None, call.index) for call, piece in zip(self.calls, pieces, strict=False))
        if not (pieces and placed and self._alike(pieces)):
            return False
        if [call.id for call in self.calls] != [piece.id for piece in pieces]:
            if len(pieces) == 1:  # two calls under one index look the same
                self.remarks[LATE_REMARK] = None
                return False
            self.remarks[TWICE_REMARK] = None
        elif not all(call.id for call in self.calls):
            self.remarks[TWICE_REMARK] = None
        return True

    def _alike(self, pieces: Sequence[Piece]) -> bool:
        """Whether pieces are all the calls there are, one by one, whatever their ids."""
        return len(pieces) == len(self.calls) and all(
            call.name == piece.name and piece.whole and _equal(call, piece)
            for call, piece in zip(self.calls, pieces, strict=True)
        )

    def finished(self) -> list[tuple[str, str, str]]:
        """Return name, arguments and id of every call, by index where each has one, else as they came."""
        calls = self.calls
        if all(call.index is not None for call in calls):
            calls = sorted(calls, key=lambda call: call.index or 0)
        done = []
        for call in calls:
            arguments = _arguments(call.parts)
            remark = arguments.remark or (RUN_TOGETHER_REMARK if _several(arguments.text) else "")
            if remark:
                self.remarks[remark] = None
            done.append((call.name, arguments.text, call.id))
        return done

    def _continued(self, piece: Piece) -> Call | None:
        """Return the call that a piece may continue: its index's last one, else its id's, else the last of all."""
        if not self.calls:
            return None
        if piece.index is not None:
            same = [call for call in self.calls if call.index == piece.index]
            if same:
                return next((call for call in reversed(same) if _same_id(call, piece)), same[-1])
        known = next((call for call in reversed(self.calls) if _same_id(call, piece)), None)
        if piece.index is None:
            return known or self.calls[-1]
        # An index nobody announced: a chunk's number (the id tells), or nothing but arguments.
        if known is not None and known.state == "open":
            return known
        return None if piece.name or piece.id else self.calls[-1]

    def _add(self, call: Call, piece: Piece) -> Call:
        rule = next(rule for rule in RULES if rule.applies(call, piece))
        if rule.remark:
            self.remarks[rule.remark] = None
        if rule.act == "new":
            self.calls.append(Call(index=piece.index, id=piece.id, name=piece.name, parts=[piece.arguments]))
            return self.calls[-1]
        call.id = call.id or piece.id
        if rule.act == "anew":
            call.parts = [piece.arguments]
        if rule.act == "same":
            if _other_name(call, piece):
                call.name = piece.name if piece.name.startswith(call.name) else call.name + piece.name
            call.parts.append(piece.arguments)
        return call


def _piece(entry: object) -> Piece | None:
    if not isinstance(entry, Mapping):
        return None
    function = entry.get("function")
    function = function if isinstance(function, Mapping) else entry  # a few leave that level out
    arguments = next((function[name] for name in ("arguments", "parameters", "input") if name in function), None)
    index = entry.get("index")
    if (isinstance(index, str) and index.isdecimal()) or (isinstance(index, float) and index.is_integer()):
        index = int(index)
    # OpenAI sends the arguments as JSON text; some servers send the value itself.
    text = arguments if isinstance(arguments, str) else "" if arguments is None else json.dumps(arguments)
    return Piece(index=count(index), id=string(entry.get("id")), name=string(function.get("name")), arguments=text)


def _arguments(parts: Sequence[str]) -> Joined:
    """Return a call's arguments: its pieces in a row, unless they make sense only as repetitions of one another."""
    parts = [part for part in parts if part]
    joined = "".join(parts)
    if len(parts) < 2 or _complete(joined):
        return Joined(joined, "", len(parts))
    if joined.lstrip().startswith(("{", "[", "null")):
        # Qwen's servers, and wrappers that parse what came so far anew for every token.
        if _growing(parts):
            return Joined(parts[-1], "", len(parts))
        if _hollow(parts[0]) and (_complete(behind := "".join(parts[1:])) or not _several(behind)):
            return Joined(behind, PLACEHOLDER_REMARK, len(parts))
        before = "".join(parts[:-1])
        if parts[-1] == before or (
            _complete(before) and _complete(parts[-1]) and json.loads(before) == json.loads(parts[-1])
        ):
            return Joined(before, "", len(parts) - 1)
    return Joined(joined, "", len(parts))


def _equal(call: Call, piece: Piece) -> bool:
    return piece.whole and _complete(call.text) and json.loads(call.text) == json.loads(piece.arguments)


def _extends(call: Call, piece: Piece) -> bool:
    """Tell whether a piece's arguments hold all that a call's have, and more: a value that was parsed as it came."""
    return (
        piece.id != piece.name
        and not _equal(call, piece)
        and _holds(json.loads(piece.arguments), json.loads(call.text))
    )


def _holds(whole: object, part: object) -> bool:
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(name in whole and _holds(whole[name], value) for name, value in part.items())
    if isinstance(whole, list) and isinstance(part, list):
        return len(part) <= len(whole) and all(map(_holds, whole, part))
    if isinstance(whole, str) and isinstance(part, str):
        return whole.startswith(part)
    return whole == part or part is None


def _hollow(text: str) -> bool:
    """Tell whether arguments say nothing, and are whole all the same."""
    return text.strip() in ("{}", "null")


def _complete(text: str) -> bool:
    """Tell whether a text is a whole JSON object, list or null: fragments of arguments may be numbers and texts."""
    text = text.strip()
    if not (text.startswith("{") and text.endswith("}")) and not (text.startswith("[") and text.endswith("]")):
        return text == "null"
    return decoded(text) is not None


def _several(text: str) -> bool:
    """Tell whether a text begins with a whole JSON value and goes on with another one."""
    try:
        _, end = json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return False
    return text.lstrip()[end:].lstrip().startswith(("{", "["))
