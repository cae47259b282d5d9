"""The calls of two engines, compared case by case, and what a verdict says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_llmparity.core.checks.base import Pairing
from pytest_llmparity.core.checks.missing import Silence
from pytest_llmparity.core.checks.tools.calls import (
    NEITHER,
    UNREAD,
    Arguments,
    Calls,
    LastAnswer,
    Order,
    compare_calls,
    should_call,
)
from pytest_llmparity.core.checks.tools.conversations import Parting, parting, without_words
from pytest_llmparity.core.compare.answers import digest, turn_of
from pytest_llmparity.core.compare.calls import written_out
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.core.words import explain


@dataclass(frozen=True, slots=True)
class Compared:
    """Cases whose calls were compared: ``kept`` where they are alike, ``other`` why not, ``hashes`` of what was shown.

    ``silence`` counts the pairs that say nothing, ``unread`` has those of which both left their calls unread, and
    ``neither`` those of which neither calls and need not. ``partings`` says of each of the ``conversations`` where it
    parts; ``talks`` are those that are alike to their ends.
    """

    kept: dict[str, bool] = field(default_factory=dict)
    other: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, tuple[str, str]] = field(default_factory=dict)
    silence: Silence = field(default_factory=Silence)
    unread: list[str] = field(default_factory=list)
    neither: list[str] = field(default_factory=list)
    talks: list[tuple[Completion, Completion]] = field(default_factory=list)
    conversations: list[tuple[Completion, Completion]] = field(default_factory=list)
    partings: list[Parting] = field(default_factory=list)

    @property
    def reasons(self) -> list[str]:
        """Say what was left out that should have been compared, with numbers."""
        unread = explain.count(len(self.unread), "prompt")
        return [*self.silence.reasons(), *([f"no call was read in both answers to {unread}"] if self.unread else [])]

    @property
    def wordless(self) -> int:
        """How many conversations came to words on neither engine."""
        return without_words(self.talks)

    @property
    def remarks(self) -> list[str]:
        """Say what a PASS does not rest on, though nothing is missing."""
        words = []
        if self.neither:
            words.append(
                f"neither engine calls a tool in {explain.count(len(self.neither), 'prompt')}, which say nothing of "
                'calls: write expect = {"tool": "none"} where that is right'
            )
        if self.wordless:
            of = explain.count(len(self.talks), "conversation")
            words.append(f"{self.wordless} of {of} that are alike came to an answer on neither engine")
        return words


def compared(
    pairing: Pairing,
    baseline: str,
    ours: Mapping[str, Calls],
    theirs: Mapping[str, Calls],
    *,
    arguments: Arguments,
    order: Order,
    last: LastAnswer,
) -> Compared:
    """Return the calls of each pair of answers to a case that offers tools, compared."""
    pairs = Compared()
    for pair in pairing.pairs:
        case = pair.case.id
        if case not in ours or case not in theirs:
            continue  # it offers no tools
        engines, answers = (baseline, pairing.candidate), (pair.baseline, pair.candidate)
        if pair.case.tool_results:
            there = parting(
                answers,
                (ours[case], theirs[case]),
                should=should_call(pair.case),
                arguments=arguments,
                order=order,
                last=last,
                engines=engines,
            )
            pairs.conversations.append(answers)
            pairs.partings.append(there)
            unknown, why = there.unknown, f"turn {there.turn}: {there.why}" if there.why else ""
            silent = there.silent or answers
            if not (unknown or why):
                pairs.talks.append(answers)
        else:
            shown = compare_calls(
                answers,
                (ours[case], theirs[case]),
                should=should_call(pair.case),
                arguments=arguments,
                order=order,
                engines=engines,
            )
            unknown, why, silent = shown.unknown, shown.why, answers
        if unknown == NEITHER:
            pairs.neither.append(case)
        elif unknown == UNREAD:
            pairs.unread.append(case)
        elif unknown:
            pairs.silence.add(dict(zip(engines, silent, strict=True)), speaking=True)
        if unknown:
            continue
        pairs.kept[case] = not why
        if why:
            pairs.other[case] = why
            texts = written_out(*turn_of(*answers))
            pairs.hashes[case] = (digest(texts[0]), digest(texts[1]))
    for failed in pairing.failed:
        if failed.tools:
            pairs.kept[failed.id] = False
            pairs.other[failed.id] = f"no answer of {pairing.candidate}"
    return pairs


def both(
    baseline: str, candidate: str, ours: Mapping[str, Calls], theirs: Mapping[str, Calls], kept: Mapping[str, bool]
) -> list[str]:
    """Say how often each of both engines calls, where both were compared."""
    called = {
        name: sum(bool(read[case].calls) for case in kept if case in read)
        for name, read in ((baseline, ours), (candidate, theirs))
    }
    words = " and ".join(f"{name} in {count}" for name, count in called.items())
    return [f"calls a tool: {words} of {explain.count(len(kept), 'answer')}"] if kept else []


def parted(other: Mapping[str, str]) -> list[str]:
    """Count the cases that call otherwise and say in what the first does."""
    for case, why in other.items():
        words = f"{len(other)} call{'s' if len(other) == 1 else ''} otherwise"
        return [f"{words}; first: {explain.plain(case, 40)}: {explain.plain(why, 120)}"]
    return []
