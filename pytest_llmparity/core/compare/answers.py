"""Two answers of any sort: text, tool calls, or nothing that could be compared."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from pytest_llmparity.core.compare.json import diff_values, parse_json
from pytest_llmparity.core.compare.text import Fork, find_fork
from pytest_llmparity.core.sample import Completion, ToolCall
from pytest_llmparity.core.sizes import short_of_limit

_BETWEEN: Final = re.compile(r'("(?:[^"\\]|\\.)*(?:"|\Z))|\s+', re.DOTALL)
"""A JSON string, kept as it is, or white space between two tokens; a string may be cut."""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Two answers that were compared: where they part, and what was compared of either.

    ``baseline`` and ``candidate`` are the texts, or where an answer calls tools its calls written out; the fork's
    ``byte`` and ``char`` are places in ``baseline``. ``calls``: at least one of the two calls tools. Of conversations
    they are all turns up to the one in which they part, ``turn`` counted from 1, which begins at ``turn_at`` in both
    texts; 0 where no turn parts, and of other answers.
    """

    fork: Fork
    baseline: str
    candidate: str
    calls: bool = False
    turn: int = 0
    turn_at: int = 0


def speechless(answer: Completion) -> bool:
    """Whether an answer has neither text (white space is none) nor tool calls, whatever it reasoned."""
    return not answer.tool_calls and not answer.text.strip()


def no_evidence(ours: Completion, theirs: Completion) -> bool:
    """Whether two answers say nothing about each other.

    Both are speechless, or one is because its token limit was reached before it said anything: what it would have said
    is not known. An answer that ended by itself without a word is evidence beside one that speaks.
    """
    silent, other = speechless(ours), speechless(theirs)
    if silent and other:
        return True
    return (silent and ours.cut) or (other and theirs.cut)


def cut_in_call(ours: Completion, theirs: Completion) -> bool:
    """Whether two answers call alike as far as a token limit let one of them write: what it would call is not known.

    >>> whole, cut = (
    ...     Completion(text="", tool_calls=(ToolCall(name="f", arguments=a),)) for a in ('{"a": 12}', '{"a": 1')
    ... )
    >>> cut_in_call(whole, msgspec.structs.replace(cut, finish_reason="length")), cut_in_call(whole, cut)
    (True, False)
    """
    if not (ours.tool_calls and theirs.tool_calls and (ours.cut or theirs.cut)):
        return False
    if same_calls(ours.tool_calls, theirs.tool_calls):
        return False
    written = written_out(ours, theirs)
    fork = find_fork(_saying(ours, written[0]), _saying(theirs, written[1]), horizon=max(1, *map(len, written)))
    return fork.byte is None


def broken_off(ours: Completion, theirs: Completion) -> Completion | None:
    """Return which of two answers ends short of its own limit where the other goes on, ``None`` where neither does.

    >>> whole = Completion(text="one two three", finish_reason="length", completion_tokens=13, max_tokens=13)
    >>> broken_off(whole, msgspec.structs.replace(whole, text="one", completion_tokens=3)).text
    'one'
    """
    a, b = written_out(ours, theirs) if ours.tool_calls or theirs.tool_calls else (ours.text, theirs.text)
    if a == b or not (a.startswith(b) or b.startswith(a)):
        return None
    shorter, longer = (ours, theirs) if len(a) < len(b) else (theirs, ours)
    return shorter if short_of_limit(shorter, longer) else None


def begin_alike(ours: str, theirs: str) -> bool:
    """Whether of two texts of arguments one goes on where the other ends, white space between their tokens aside.

    >>> begin_alike('{"a": 1', '{"a":12}'), begin_alike('{"a": 1', '{"a": 2}')
    (True, False)
    """
    a, b = (_BETWEEN.sub(lambda match: match[1] or "", text) for text in (ours, theirs))
    return a.startswith(b) or b.startswith(a)


def compare_answers(baseline: Completion, candidate: Completion, *, horizon: int) -> Compared | None:
    """Return where two answers part, ``None`` when that cannot be told.

    That is so of :func:`no_evidence`, of an answer that was cut before a token, and of one that ends short of its own
    limit where the other goes on (``Fork.broken_off``).

    Where both call tools their calls are compared: names in order, arguments as JSON values, so that spelling does not
    count. Calls that differ part at the place, in baseline tokens, of the first difference in the calls as written out.
    Where one calls and the other speaks, they part where the text of the first would go on, at its very start if it has
    none. Conversations are compared turn by turn as if they were one answer, up to the first turn that differs: what
    follows answers other words. Raises ``ValueError`` for a horizon below 1.
    """
    if baseline.turns or candidate.turns:
        return _compare_conversations(baseline, candidate, horizon)
    if no_evidence(baseline, candidate):
        return None
    if not baseline.tool_calls and not candidate.tool_calls:
        fork = find_fork(baseline, candidate, horizon=horizon)
        compared = Compared(fork=fork, baseline=baseline.text, candidate=candidate.text)
    else:
        ours, theirs = written_out(baseline, candidate)
        fork = find_fork(_saying(baseline, ours), _saying(candidate, theirs), horizon=horizon)
        compared = Compared(fork=fork, baseline=ours, candidate=theirs, calls=True)
    return compared if compared.fork.at_risk > 0 and not compared.fork.broken_off else None


def _compare_conversations(baseline: Completion, candidate: Completion, horizon: int) -> Compared | None:
    """Return where two conversations part, ``None`` when their first turn cannot tell, or one was broken off."""
    written: list[tuple[str, str]] = []
    sides: tuple[list[Completion], list[Completion]] = ([], [])
    cut, broken, turn, turn_at = False, False, 0, 0
    for number, pair in enumerate(zip(baseline.conversation, candidate.conversation, strict=False), start=1):
        if no_evidence(*pair) or cut_in_call(*pair):
            if number == 1:
                return None
            broken, cut = broken_off(*pair) is not None, True  # what else they would have said is not known
            break
        calls = pair[0].tool_calls or pair[1].tool_calls
        texts = written_out(*pair) if calls else (pair[0].text, pair[1].text)
        begins = sum(len(ours) + 1 for ours, _ in written)
        written.append(texts)
        for side, answer in zip(sides, pair, strict=True):
            side.append(answer)
        if texts[0] != texts[1]:
            broken, turn, turn_at = broken_off(*pair) is not None, number, begins
            break
    ours, theirs = ("\n".join(texts[side] for texts in written) for side in (0, 1))
    fork = find_fork(_as_one(sides[0], ours, cut=cut), _as_one(sides[1], theirs, cut=cut), horizon=horizon)
    if fork.byte is None:
        if broken and fork.at_risk < horizon:
            return None
        turn, turn_at = 0, 0
    compared = Compared(fork=fork, baseline=ours, candidate=theirs, calls=True, turn=turn, turn_at=turn_at)
    return compared if fork.at_risk > 0 else None


def _as_one(turns: Sequence[Completion], text: str, *, cut: bool) -> Completion:
    """Return the turns of a conversation as if they had been one answer with this text."""
    counts = [turn.completion_tokens for turn in turns]
    known = [count for count in counts if count is not None]
    return Completion(
        text=text,
        reasoning="".join(turn.reasoning for turn in turns),
        completion_tokens=sum(known) if len(known) == len(counts) else None,
        finish_reason="length" if cut or turns[-1].cut else turns[-1].finish_reason,
    )


def parted(ours: Completion, theirs: Completion) -> int:
    """Return the first turn, from 1, in which two answers or conversations differ, 0 where they are alike to the end.

    A turn differs where calls do, or where neither calls and the texts do.

    >>> parted(Completion(text="a"), Completion(text="a")), parted(Completion(text="a"), Completion(text="b"))
    (0, 1)
    """
    for number, (a, b) in enumerate(zip(ours.conversation, theirs.conversation, strict=False), start=1):
        calls = bool(a.tool_calls or b.tool_calls)
        if not same_calls(a.tool_calls, b.tool_calls) or (not calls and a.text != b.text):
            return number
    turns = len(ours.conversation), len(theirs.conversation)
    return 0 if turns[0] == turns[1] else min(turns) + 1


def turn_of(ours: Completion, theirs: Completion) -> tuple[Completion, Completion]:
    """Return the answers of the first turn in which two conversations differ, else their last ones.

    >>> turn_of(Completion(text="a"), Completion(text="b"))[1].text
    'b'
    """
    place = parted(ours, theirs)
    if not place or place > min(len(ours.conversation), len(theirs.conversation)):
        return ours, theirs
    return ours.conversation[place - 1], theirs.conversation[place - 1]


def digest(text: str) -> str:
    """Return the hex sha256 of a text as UTF-8, by which it is found again; lone surrogates are kept."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def same_calls(ours: Sequence[ToolCall], theirs: Sequence[ToolCall]) -> bool:
    """Whether two answers call the same functions in the same order with the same arguments, as JSON values.

    >>> same_calls([ToolCall(name="f", arguments='{"a": 1}')], [ToolCall(name="f", arguments='{"a":1.0}')])
    True
    """
    if [call.name for call in ours] != [call.name for call in theirs]:
        return False
    return all(_same_arguments(a.arguments, b.arguments) for a, b in zip(ours, theirs, strict=True))


def in_words(answer: Completion) -> str:
    """Return an answer as one text, its calls written out with their arguments' keys in order."""
    return _written(answer, answer.text, sort=True)


def written_out(baseline: Completion, candidate: Completion) -> tuple[str, str]:
    """Return two answers, of which at least one calls tools, as texts that differ exactly where the answers do.

    A call is a line of its own: ``[call] name {"key":"value"}``. Text beside calls is left out where both call.
    """
    if not (baseline.tool_calls and candidate.tool_calls):
        return _written(baseline, baseline.text, sort=True), _written(candidate, candidate.text, sort=True)
    if same_calls(baseline.tool_calls, candidate.tool_calls):
        return (alike := _written(baseline, "", sort=True)), alike
    calls = (*baseline.tool_calls, *candidate.tool_calls)
    whole = all(parse_json(call.arguments).error is None for call in calls)  # of a cut call the order written is known
    return _written(baseline, "", sort=whole), _written(candidate, "", sort=whole)


def _written(answer: Completion, text: str, *, sort: bool) -> str:
    lines = [text] if text.strip() else []
    lines += [f"[call] {call.name} {_arguments(call.arguments, sort=sort)}" for call in answer.tool_calls]
    return "\n".join(lines)


def _arguments(text: str, *, sort: bool) -> str:
    parsed = parse_json(text)
    if parsed.error is not None or not sort:
        return _BETWEEN.sub(lambda match: match[1] or "", text)
    try:
        return json.dumps(parsed.value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except RecursionError:  # Python's writer gives up before the reader does
        return _BETWEEN.sub(lambda match: match[1] or "", text)


def _same_arguments(ours: str, theirs: str) -> bool:
    a, b = parse_json(ours), parse_json(theirs)
    if a.error is not None or b.error is not None:
        return ours == theirs
    return not diff_values(a.value, b.value)


def _saying(answer: Completion, text: str) -> Completion:
    """Return the answer as if it had been this text; its token records spell another one."""
    finish = "length" if answer.cut else answer.finish_reason
    return msgspec.structs.replace(answer, text=text, logprobs=(), tool_calls=(), finish_reason=finish)
