"""Two conversations with scripted tools: in which turn they part, and by what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from pytest_llmparity.core.checks.tools.calls import (
    CUT,
    MARKUP,
    NEITHER,
    UNREAD,
    Arguments,
    Calls,
    LastAnswer,
    Order,
    compare_calls,
)
from pytest_llmparity.core.compare.answers import speechless
from pytest_llmparity.core.compare.json import diff_values, parse_json
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.core.words import explain


class Parting(msgspec.Struct, frozen=True, kw_only=True):
    """In which turn two conversations part, from 1, and by what; 0 and empty where they are alike to the end.

    ``unknown`` says why the answers of that turn, which ``silent`` has, say nothing about each other: then nothing is
    known from it on.
    """

    turn: int = 0
    why: str = ""
    unknown: str = ""
    silent: tuple[Completion, Completion] | None = None


def parting(
    answers: tuple[Completion, Completion],
    calls: tuple[Calls, Calls],
    *,
    should: bool | None,
    arguments: Arguments,
    order: Order,
    last: LastAnswer,
    engines: tuple[str, str],
) -> Parting:
    """Return where the conversations of two engines to one case part.

    In each turn the calls are compared as those of single answers, then how many turns there are and how they end, and
    unless ``last`` is ``"any"`` the answers in words at the end: as texts without white space round them, or as JSON
    values. One that says nothing at the end is not like one that speaks, whatever ``last``; words that a token limit
    cut are no whole answer, and part only where they differ before it.
    """
    turns = tuple(answer.conversation for answer in answers)
    called = tuple(read.turns for read in calls)
    for number, (a, b, ours, theirs) in enumerate(zip(*turns, *called, strict=False), start=1):
        if number > 1 and not (ours.calls or theirs.calls):
            return _ending(number, (a, b), (ours, theirs), last=last, engines=engines)
        shown = compare_calls((a, b), (ours, theirs), should=should, arguments=arguments, order=order, engines=engines)
        if shown.unknown == NEITHER and last == "equal" and not _same_words(a, b):
            return Parting(turn=number, why=_answers(engines, (a, b)))
        if shown.unknown:
            return Parting(turn=number, unknown=shown.unknown, silent=(a, b))
        if shown.why:
            return Parting(turn=number, why=shown.why)
    both = min(map(len, turns))
    stops = [answer.stopped if len(of) == both else None for answer, of in zip(answers, turns, strict=True)]
    for engine, stopped, other in zip(engines, stops, reversed(stops), strict=True):
        if stopped is not None and (other is None or other.kind != stopped.kind):
            return Parting(turn=both, why=f"{engine} ends: {stopped.words}")
    if last == "equal" and not any(stops) and not _same_words(*answers):
        return Parting(turn=both, why=_answers(engines, answers))
    return Parting()


def _ending(
    turn: int,
    answers: tuple[Completion, Completion],
    calls: tuple[Calls, Calls],
    *,
    last: LastAnswer,
    engines: tuple[str, str],
) -> Parting:
    """Return how two conversations end of which neither calls any more."""
    ours, theirs = answers
    mute = [speechless(answer) for answer in answers]
    if any(silent and answer.cut for silent, answer in zip(mute, answers, strict=True)):
        return Parting(turn=turn, unknown=CUT, silent=answers)
    if all(mute):
        return Parting()
    for engine, silent, answer in zip(engines, mute, answers, strict=True):
        if silent:
            why = "it was given the results and said nothing" if answer.stopped is None else answer.stopped.words
            return Parting(turn=turn, why=f"{engine} ends: {why}")
    left = [read.tried for read in calls]
    if all(left):
        return Parting(turn=turn, unknown=UNREAD, silent=answers)
    cut = ours.cut or theirs.cut
    if any(left) and not cut:
        return Parting(turn=turn, why=f"{engines[left.index(True)]} calls in what nobody read ({MARKUP})")
    if last == "equal" and not _same_words(*answers) and not _begin_alike(*answers):
        return Parting(turn=turn, why=_answers(engines, answers))
    return Parting(turn=turn, unknown=CUT, silent=answers) if cut else Parting()


def _begin_alike(ours: Completion, theirs: Completion) -> bool:
    """Whether one answer goes on where the other was cut."""
    a, b = ours.text.strip(), theirs.text.strip()
    return (ours.cut and b.startswith(a)) or (theirs.cut and a.startswith(b))


def _answers(engines: tuple[str, str], answers: tuple[Completion, Completion]) -> str:
    words = [explain.quote(answer.text, 40) for answer in answers]
    return f"{engines[0]} answers {words[0]}, {engines[1]} {words[1]}"


def without_words(conversations: Iterable[tuple[Completion, Completion]]) -> int:
    """Return how many conversations came to words on neither engine: they are alike in their calls alone."""
    return sum(all(map(_wordless, pair)) for pair in conversations)


def _wordless(answer: Completion) -> bool:
    return answer.stopped is not None or speechless(answer)


def lines(
    engines: tuple[str, str], conversations: Sequence[tuple[Completion, Completion]], partings: Iterable[Parting]
) -> list[str]:
    """Return what a verdict says of conversations: how long they are, how they end, and in which turns they part."""
    if not conversations:
        return []
    sides = tuple(zip(*conversations, strict=True))
    means = [sum(len(answer.conversation) for answer in side) / len(side) for side in sides]
    lengths = " and ".join(f"{name} {mean:.1f}" for name, mean in zip(engines, means, strict=True))
    shown = [f"turns on average: {lengths} in {explain.count(len(conversations), 'conversation')}"]
    if places := Counter(each.turn for each in partings if each.why):
        parts = ", ".join(f"{n} in turn {turn}" for turn, n in sorted(places.items()))
        shown.append(f"parting first: {parts}")
    for name, side in zip(engines, sides, strict=True):
        kinds = Counter(answer.stopped.kind for answer in side if answer.stopped is not None)
        if kinds:
            shown.append(
                f"{name} ended without an answer: {', '.join(f'{kind} {n}' for kind, n in sorted(kinds.items()))}"
            )
    return shown


def _same_words(ours: Completion, theirs: Completion) -> bool:
    if ours.text.strip() == theirs.text.strip():
        return True
    values = [parse_json(answer.text) for answer in (ours, theirs)]
    if any(value.error is not None or not isinstance(value.value, (Mapping, list)) for value in values):
        return False
    return not diff_values(values[0].value, values[1].value)
