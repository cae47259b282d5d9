"""Two conversations with scripted tools: in which turn they part, and by what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from pytest_llmparity.core.checks.tools.calls import Arguments, Calls, LastAnswer, Order, difference
from pytest_llmparity.core.compare.answers import cut_in_call, no_evidence
from pytest_llmparity.core.compare.json import diff_values, parse_json
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.core.words import explain


class Parting(msgspec.Struct, frozen=True, kw_only=True):
    """In which turn two conversations part, from 1, and by what; 0 and empty where they are alike to the end.

    ``silent`` has the answers of that turn where they say nothing about each other: then nothing is known from it on.
    """

    turn: int = 0
    why: str = ""
    silent: tuple[Completion, Completion] | None = None


def parting(
    answers: tuple[Completion, Completion],
    calls: tuple[Calls, Calls],
    *,
    arguments: Arguments,
    order: Order,
    last: LastAnswer,
    engines: tuple[str, str],
) -> Parting:
    """Return where the conversations of two engines to one case part.

    In each turn the calls are compared as those of single answers, then how many turns there are and how they end, and
    unless ``last`` is ``"any"`` the answers in words at the end: as texts without white space round them, or as JSON
    values.
    """
    turns = tuple(answer.conversation for answer in answers)
    called = tuple(read.turns for read in calls)
    for number, (a, b, ours, theirs) in enumerate(zip(*turns, *called, strict=False), start=1):
        wordless = number > 1 and a.stopped is not None and b.stopped is not None and not a.tool_calls
        if (no_evidence(a, b) and not wordless) or cut_in_call(a, b):
            return Parting(turn=number, silent=(a, b))
        if why := difference(ours, theirs, arguments=arguments, order=order, engines=engines):
            return Parting(turn=number, why=why)
    both = min(map(len, turns))
    stops = [answer.stopped if len(of) == both else None for answer, of in zip(answers, turns, strict=True)]
    for engine, stopped, other in zip(engines, stops, reversed(stops), strict=True):
        if stopped is not None and (other is None or other.kind != stopped.kind):
            return Parting(turn=both, why=f"{engine} ends: {stopped.words}")
    if last == "equal" and not any(stops) and not _same_words(*answers):
        words = [explain.quote(answer.text, 40) for answer in answers]
        return Parting(turn=both, why=f"{engines[0]} answers {words[0]}, {engines[1]} {words[1]}")
    return Parting()


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
