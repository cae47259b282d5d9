"""What a verdict does not rest on, why, and the rule that too little leaves nothing settled."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pytest_llmparity.core.compare.answers import broken_off, speechless
from pytest_llmparity.core.errors import EmptyAnswer
from pytest_llmparity.core.sample import Completion, Failure
from pytest_llmparity.core.sizes import counted, short_of_limit
from pytest_llmparity.core.verdict import Judgement, Outcome, Verdict
from pytest_llmparity.core.words import explain

ONE_OF: Final = 20
"""At most one prompt of so many may be missing from a verdict; beyond that nothing is settled, a proven FAIL aside."""


_OF_PAIRS: Final = (
    "schema.gap",
    "schema.agree",
    "schema.free.gap",
    "schema.free.agree",
    "answers.gap",
    "answers.flips",
    "tools.agree",
    *("value.gap", "value.agree", "value.drift"),
)
COUNTING: Final = frozenset({"text", "logprobs", "similarity", *_OF_PAIRS, "prompts"})
"""Kinds of verdict that count prompts which cannot be asked among what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """The prompts a verdict is about (``of``), how many of them it rests on (``used``), and what became of the rest.

    ``reasons`` are clauses, each with its number: *the token limit was reached in the reasoning of 40 answers of a:
    raise max_tokens*; ``left_out`` those about prompts that cannot be asked, which every verdict names anyway.
    ``stopped`` is the sentence of a hard stop that left out prompts it should rest on. ``hopeful``: further prompts of
    a sequential run may still make it enough.
    """

    of: int
    used: int
    reasons: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    stopped: str = ""
    sequential: bool = False
    noun: str = "prompt"

    @property
    def enough(self) -> bool:
        """Whether what is there may be judged."""
        return self.used > 0 and ONE_OF * (self.of - self.used) <= self.of

    @property
    def hopeful(self) -> bool:
        """Whether a sequential run should go on for want of evidence: while half of its prompts give some."""
        return self.sequential and 2 * self.used >= self.of > 0

    @property
    def reason(self) -> str:
        """Why nothing is settled."""
        words = (
            f"it rests on {self.used} of {explain.count(self.of, self.noun)}" if self.used else "nothing was compared"
        )
        return ": ".join(filter(None, [words, "; ".join((*self.reasons, *self.left_out))]))


_FOREIGN, _OURS = 120, 400
"""Characters that are shown of what failed: of a server's words, and of ours alone."""
JUDGED: Final = (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)


def rested(verdict: Verdict, *missing: Missing, best: Callable[[], Judgement] | None = None) -> Verdict:
    """Take back what a verdict says that rests on too little, and say what was missing and why.

    Below 95 % of its prompts nothing is settled. A FAIL stands if ``best``, the judgement in which everything missing
    speaks for PASS, is one too, and has its p-value.

    After a hard stop a statistical PASS or FAIL and an exact PASS are taken back. Sequential evidence may stop
    anywhere, so its PASS and FAIL stand. What is INCONCLUSIVE says what stopped the run instead of how many prompts
    would settle it: they were there.
    """
    for part in missing:
        if not part.enough:
            verdict = _unsettled(verdict, part, best)
    stopped = next((part.stopped for part in missing if part.stopped), "")
    exact_failure = verdict.outcome is Outcome.FAIL and verdict.p_fail is None
    stands = verdict.open and verdict.outcome is not Outcome.INCONCLUSIVE
    if not stopped or exact_failure or stands or verdict.outcome not in JUDGED:
        return verdict
    before = verdict.reason if verdict.outcome is Outcome.INCONCLUSIVE else ""
    reason = "; ".join(filter(None, [before, "" if stopped in before else stopped]))
    return dataclasses.replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason, needed=None, advice="")


def _unsettled(verdict: Verdict, missing: Missing, best: Callable[[], Judgement] | None) -> Verdict:
    if verdict.outcome not in JUDGED:
        return verdict
    if not missing.used:
        verdict = dataclasses.replace(verdict, estimate=None, lower=None, upper=None, reason="")
    elif verdict.outcome is Outcome.FAIL and best is not None and (proven := best()).outcome is Outcome.FAIL:
        return dataclasses.replace(verdict, p_fail=proven.p_fail)
    before = verdict.reason if verdict.outcome is Outcome.INCONCLUSIVE else ""
    return dataclasses.replace(
        verdict,
        outcome=Outcome.INCONCLUSIVE,
        reason="; ".join(filter(None, [before, missing.reason])),
        needed=None,
        advice="",
        open=verdict.open and missing.hopeful,
    )


def gap_shown(verdict: Verdict, able: int, of: int, *, margin: float, predicate: str, nothing: str) -> Verdict:
    """Take back a PASS of a gap that could not have failed: fewer cases than the margin are right on either side.

    ``able`` of the ``of`` cases are; ``predicate`` says that of them in words (*fit on either engine*), and ``nothing``
    is the reason where none is.
    """
    if verdict.outcome is not Outcome.PASS or (able and able >= margin * of):
        return verdict
    least = explain.percent(margin)
    few = f"only {able} of {of} {predicate}, fewer than the margin of {least}: no gap of more could show"
    reason = few if able else nothing
    return dataclasses.replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason, needed=None, advice="")


_SHOWN_PATHS: Final = 6


def there(seen: Mapping[str, int], of: int, noun: str) -> list[str]:
    """Say in how many of these (calls, answers, values) each path that is compared leads somewhere, rarest first."""
    rarest = sorted(seen.items(), key=lambda item: item[1])[:_SHOWN_PATHS]
    parts = ", ".join(f"{explain.plain(path, 60)} in {times}" for path, times in rarest)
    return [f"there to be compared: {parts} of {explain.count(of, noun)}"] if parts else []


def rare(seen: Mapping[str, int], of: int, noun: str) -> list[str]:
    """Say which paths that are compared are in less than half: on few of these a PASS rests."""
    return there({path: times for path, times in seen.items() if 0 < 2 * times < of}, of, noun)


def describe(engine: str, case: str, failure: Failure) -> str:
    """Return a failure as words: whose, which case, the error's class and what it said.

    Whole where that is all our own words: what to do stands at their end, and nowhere else.
    """
    most = _OURS if failure.kind == EmptyAnswer.__name__ else _FOREIGN
    words = explain.ending(failure.message) if "\n" in failure.message else explain.plain(failure.message, most)
    return f"{engine} on {explain.plain(case, 40)}: {failure.kind}: {words}"


_IN_REASONING, _BEFORE_TEXT, _IN_TEXT, _IN_CALL = _WHERE = (
    "in the reasoning",
    "before any text",
    "in the text",
    "in a tool call",
)


@dataclass(slots=True)
class Silence:
    """Counts pairs of answers that say nothing about each other, by why."""

    limited: Mapping[str, Counter[str]] = field(default_factory=lambda: {where: Counter() for where in _WHERE})
    short: dict[str, list[Completion]] = field(default_factory=dict)
    wordless: int = 0

    def add(self, answers: Mapping[str, Completion], *, speaking: bool = False) -> None:
        """Count one pair, given as the two answers by their engines' names.

        ``speaking``: that one was cut in its words may be why they say nothing.
        """
        limits: list[str] = []
        if (broken := _broken_off(answers)) is not None:
            name, answer = broken
            self.short.setdefault(name, []).append(answer)
            return
        for name, answer in answers.items():
            if answer.cut and answer.tool_calls:
                limits.append(_IN_CALL)
            elif answer.cut and (speechless(answer) or not any(map(speechless, answers.values()))):
                in_text = speaking and not speechless(answer)
                limits.append(_IN_TEXT if in_text else _IN_REASONING if answer.reasoning else _BEFORE_TEXT)
            else:
                continue
            self.limited[limits[-1]][name] += 1
        self.wordless += not limits

    def reasons(self) -> list[str]:
        """Return one clause per kind, with numbers."""
        reasons = [*ended_early(self.short), *self.limits()]
        if self.wordless:
            reasons.append(f"neither text nor a tool call in both answers to {explain.count(self.wordless, 'prompt')}")
        return reasons

    def limits(self) -> list[str]:
        """Return the clauses about token limits alone."""
        return [
            f"the token limit was reached {where} of {_by_engine(numbers)}: raise max_tokens"
            for where, numbers in self.limited.items()
            if numbers
        ]


EARLY: Final = "a full context or a cap on the way, not max_tokens"
"""What is known of answers that end early."""


def ended_early(short: Mapping[str, Sequence[Completion]]) -> list[str]:
    """Say of each engine how many answers end short of their own limit, and where."""
    lines = []
    for name, answers in short.items():
        lengths = sorted(tokens for answer in answers if (tokens := counted(answer)) is not None)
        after = f" after {lengths[0]:.0f}" if lengths else ""
        after += f" to {lengths[-1]:.0f}" if lengths and round(lengths[0]) != round(lengths[-1]) else ""
        limits = sorted({answer.max_tokens for answer in answers if answer.max_tokens is not None})
        most = f"{limits[0]}" if len(limits) == 1 else f"{limits[0]} to {limits[-1]}"
        where = f"{after} of {most} tokens" if after else f" short of {most} tokens"
        lines.append(
            f"{explain.count(len(answers), 'answer')} of {name} end{'s' * (len(answers) == 1)}{where}: {EARLY}"
        )
    return lines


@dataclass(frozen=True, slots=True)
class BothShort:
    """How many pairs of answers are alike as far as they go and both end short of their own limits, in words too."""

    number: int
    words: tuple[str, ...]

    @classmethod
    def of(cls, pairs: Iterable[tuple[Completion, Completion]], *names: str) -> BothShort:
        """Return how many pairs that do not part both end short; ``names`` are the engines' to say it of, in order."""
        both = [pair for pair in pairs if short_of_limit(*pair) and short_of_limit(*reversed(pair))]
        short = {name: [pair[place] for pair in both] for place, name in enumerate(names) if both}
        return cls(number=len(both), words=tuple(ended_early(short)))

    def keeps_open(self, verdict: Verdict, *, of: int) -> Verdict:
        """Say so beside a verdict on ``of`` pairs; a PASS that rests on too many of them is none.

        What engines say before something ends them both is compared; that they agree in what would follow, nobody
        has seen. Where they part in what is there they part.
        """
        if not self.number:
            return verdict
        if verdict.outcome not in (Outcome.PASS, Outcome.INCONCLUSIVE) or ONE_OF * self.number <= of:
            return dataclasses.replace(verdict, remarks=(*verdict.remarks, *self.words))
        why = f"what would follow was not compared: {'; '.join(self.words)}"
        reason = "; ".join(filter(None, [verdict.reason, why]))
        return dataclasses.replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason, needed=None, advice="")


def _broken_off(answers: Mapping[str, Completion]) -> tuple[str, Completion] | None:
    """Return which of two answers ends short of its own limit where the other goes on, and whose it is."""
    if len(answers) != 2:
        return None
    for pair in zip(*(answer.conversation for answer in answers.values()), strict=False):
        if (short := broken_off(*pair)) is not None:
            return next((name, answer) for name, answer in zip(answers, pair, strict=True) if answer is short)
    return None


def _by_engine(numbers: Mapping[str, int]) -> str:
    (first, n), *others = numbers.items()
    return " and ".join([f"{explain.count(n, 'answer')} of {first}", *(f"{n} of {name}" for name, n in others)])
