"""The shift: by how many nats the lead of the best token over the second moved while both engines saw the same text.

At every position of what two greedy answers have in common, the one at which they part included (what came before it
is still the same): ``a`` and ``b`` are the baseline's two best tokens there, m = lp(a) - lp(b) on the baseline, m' the
same difference on the candidate, and the position's drift is ``|m' - m|``. The difference of two logprobs does not
depend on how an engine normalises them. Docs: ``docs/verdicts.md``, *The shift*.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pytest_llmparity.core.sample import Completion, TokenLogprob

SAME: Final = 1e-4
"""Nats. Logprobs that were rounded on their way through JSON may differ by this and still be one number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How far two answers to one prompt are apart, in nats: the median over their common ``positions``.

    Where one of the baseline's two best tokens is not among the candidate's alternatives, ``most`` takes it as
    infinitely far and ``least`` as far as the last of them; ``unlisted`` counts these positions.
    """

    most: float
    least: float
    positions: int
    unlisted: int


def find_shift(baseline: Completion, candidate: Completion) -> Shift | None:
    """Compare the logprobs of two greedy answers up to their first differing token; ``None`` where there are none.

    Nor are there any where the tokens stand behind reasoning that is not among them and is not the same in both.
    """
    if _unlisted_reasoning(baseline) != _unlisted_reasoning(candidate):
        return None
    most: list[float] = []
    least: list[float] = []
    for ours, theirs in zip(baseline.logprobs, candidate.logprobs, strict=False):
        if (drift := _drift(ours, theirs)) is not None:
            most.append(drift[0])
            least.append(drift[1])
        if ours.token != theirs.token:
            break
    if not most:
        return None
    return Shift(
        most=statistics.median(most),
        least=statistics.median(least),
        positions=len(most),
        unlisted=sum(map(math.isinf, most)),
    )


def _unlisted_reasoning(answer: Completion) -> bytes:
    """Return what an engine thought before the tokens that it lists: what they follow beside the prompt."""
    reasoning = answer.reasoning.strip().encode("utf-8", "surrogatepass")
    if not reasoning or reasoning in b"".join(entry.token for entry in answer.logprobs):
        return b""
    return reasoning


def _drift(ours: TokenLogprob, theirs: TokenLogprob) -> tuple[float, float] | None:
    """Return the most and the least that the lead moved at one position, ``None`` where there is no lead to compare."""
    alternatives = _by_spelling(ours)
    if len(alternatives) < 2 or not theirs.top:
        return None
    (first, best), (second, next_best) = itertools.islice(alternatives.items(), 2)
    lead = best - next_best
    if not math.isfinite(lead):
        return None  # only one token was allowed there
    listed = _by_spelling(theirs)
    last = min(listed.values())
    if theirs.logprob is not None:
        listed.setdefault(theirs.token, theirs.logprob)
    here, there = listed.get(first), listed.get(second)
    if here is not None and there is not None:
        moved = abs(here - there - lead)
        return (moved, moved) if math.isfinite(moved) else (math.inf, 0.0)
    if here is not None:
        return math.inf, max(0.0, here - last - lead)
    if there is not None:
        return math.inf, max(0.0, there - last + lead)
    return math.inf, 0.0


def _by_spelling(entry: TokenLogprob) -> dict[bytes, float]:
    """Return the alternatives, best first: of tokens spelled alike, such as pieces of characters, the best one."""
    by_spelling: dict[bytes, float] = {}
    for token, logprob in entry.top:
        by_spelling.setdefault(token, logprob)
    return by_spelling


@dataclass(slots=True)
class Logprobs:
    """What the logprobs of one engine's greedy answers are: counted over their tokens.

    ``other`` counts tokens that are not the best of their alternatives, ``alone`` those with fewer than two of them,
    ``misspelled`` answers whose tokens do not spell their text.
    """

    tokens: int = 0
    answers: int = 0
    other: int = 0
    alone: int = 0
    misspelled: int = 0

    @classmethod
    def of(cls, answers: Iterable[Completion]) -> Logprobs:
        """Return what the answers with logprobs say."""
        seen = cls()
        for answer in answers:
            if not answer.logprobs:
                continue
            seen.answers += 1
            spelled = bytearray()
            for entry in answer.logprobs:
                if not entry.token:  # a mark of the beginning or the end, which nothing stands beside
                    continue
                seen.tokens += 1
                seen.alone += len(entry.top) < 2
                best = max((logprob for _, logprob in entry.top), default=-math.inf)
                seen.other += bool(entry.top) and (entry.logprob is None or entry.logprob < best - SAME)
                spelled += entry.token
            text = answer.text.strip().encode("utf-8", "surrogatepass")
            seen.misspelled += not answer.reasoning and text not in bytes(spelled)
        return seen

    @property
    def trouble(self) -> str:
        """Why nothing can be measured by them, empty where it can: more than one of twenty is not what it should be."""
        if 20 * self.misspelled > self.answers:
            return f"name other tokens than the text is made of in {self.misspelled} of {self.answers} answers"
        if 20 * self.other > self.tokens:
            return (
                f"do not have the chosen token as the best one in {self.other} of {self.tokens} places: they come "
                "after a penalty or filter, or belong to another token"
            )
        if 20 * self.alone > self.tokens:
            return f"name fewer than two alternatives in {self.alone} of {self.tokens} places: they come after a filter"
        return ""
