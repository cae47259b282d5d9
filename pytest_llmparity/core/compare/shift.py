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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from pytest_llmparity.core.sample import Completion, TokenLogprob
from pytest_llmparity.core.sizes import short_of_limit

LONG: Final = 32
"""Common positions that are enough, whatever ended the answers: as many as a noise floor has."""
FEW: Final = 8
"""Positions below which nothing is said of where a shift sits."""
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

    Nor are there any where the tokens stand behind reasoning that is not among them and is not the same in both, or
    where one answer ends short of its own limit and the other goes on (:func:`stops_short`).
    """
    if _unlisted_reasoning(baseline) != _unlisted_reasoning(candidate) or stops_short(baseline, candidate):
        return None
    most: list[float] = []
    least: list[float] = []
    for ours, theirs in zip(baseline.logprobs, candidate.logprobs, strict=False):
        if (drift := _drift(_by_spelling(ours), _by_spelling(theirs), theirs)) is not None:
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


def stops_short(baseline: Completion, candidate: Completion) -> bool:
    """Whether one of two answers ends short of its own limit where the tokens of the other go on.

    What :data:`LONG` tokens say stands whatever follows.
    """
    ours, theirs = baseline.logprobs, candidate.logprobs
    shorter, longer = (baseline, candidate) if len(ours) < len(theirs) else (candidate, baseline)
    if len(ours) == len(theirs) or len(shorter.logprobs) >= LONG or not short_of_limit(shorter, longer):
        return False
    return bool(ours and theirs) and all(a.token == b.token for a, b in zip(ours, theirs, strict=False))


def alike_to_the_end(baseline: Completion, candidate: Completion) -> bool:
    """Whether two answers of the same tokens, fewer than :data:`LONG`, have logprobs to their ends."""
    ours, theirs = ([record.token for record in answer.logprobs] for answer in (baseline, candidate))
    return 0 < len(ours) < LONG and ours == theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Where the shift of some pairs of answers sits, and how large it is there: nats, medians over positions.

    It names no cause: experiments do. ``None`` stands where fewer than :data:`FEW` positions (prompts, for ``short``
    and ``long``) say anything. ``quarters`` go by the place of a position in the longest answer; weights shift all of
    them alike, what concerns the context mostly the first. ``first`` is that of the first tokens of answers, ``rest``
    of the others. ``seen``: one of the baseline's two best tokens stood in the answer before, ``unseen``: none did; a
    penalty on repetition sets them apart. ``short`` and ``long`` are medians over the shorter and the longer half of
    the prompts by their tokens. ``slope`` is that of the candidate's leads on the baseline's (least absolute
    deviations): 1 unless logprobs are of another temperature. ``missing`` are tokens that were among the baseline's two
    best :data:`FEW` times or more and never among the candidate's alternatives.
    """

    positions: int
    quarters: tuple[float | None, float | None, float | None, float | None]
    first: float | None = None
    rest: float | None = None
    seen: float | None = None
    unseen: float | None = None
    short: float | None = None
    long: float | None = None
    slope: float | None = None
    missing: tuple[str, ...] = ()


def shape_of(pairs: Iterable[tuple[Completion, Completion]]) -> Shape | None:
    """Return where the shift of pairs of greedy answers sits, baseline first; ``None`` without any logprobs.

    Where a token is not listed on the candidate the position counts as far as its last alternative.
    """
    places: list[_Place] = []
    by_length: list[tuple[int, float]] = []
    absent: dict[bytes, list[bool]] = {}
    for baseline, candidate in pairs:
        of_pair, best = _places(baseline, candidate)
        places += of_pair
        for token, listed in best:
            absent.setdefault(token, []).append(listed)
        if of_pair and baseline.prompt_tokens is not None:
            by_length.append((baseline.prompt_tokens, statistics.median(place.moved for place in of_pair)))
    if not places:
        return None
    longest = 1 + max(place.at for place in places)
    by_quarter: list[list[float]] = [[], [], [], []]
    for place in places:
        by_quarter[4 * place.at // longest].append(place.moved)
    quarters = [_median(moved) for moved in by_quarter]
    middle = statistics.median_low(length for length, _ in by_length) if by_length else 0
    missing = sorted(token for token, listed in absent.items() if len(listed) >= FEW and not any(listed))
    return Shape(
        positions=len(places),
        quarters=(quarters[0], quarters[1], quarters[2], quarters[3]),
        first=_median(place.moved for place in places if place.at == 0),
        rest=_median(place.moved for place in places if place.at > 0),
        seen=_median(place.moved for place in places if place.seen),
        unseen=_median(place.moved for place in places if not place.seen),
        short=_median(shift for length, shift in by_length if length <= middle),
        long=_median(shift for length, shift in by_length if length > middle),
        slope=_slope([(place.lead, place.there) for place in places if place.there is not None]),
        missing=tuple(token.decode("utf-8", "backslashreplace") for token in missing),
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """One common position: where it is, how far the lead moved, the leads, and whether a token of them was seen."""

    at: int
    moved: float
    lead: float
    there: float | None
    seen: bool


def _places(baseline: Completion, candidate: Completion) -> tuple[list[_Place], list[tuple[bytes, bool]]]:
    """Return the common positions of two answers, and the baseline's best tokens there: did the candidate list them?"""
    places: list[_Place] = []
    best_ones: list[tuple[bytes, bool]] = []
    if _unlisted_reasoning(baseline) != _unlisted_reasoning(candidate):
        return places, best_ones
    before: set[bytes] = set()
    for at, (ours, theirs) in enumerate(zip(baseline.logprobs, candidate.logprobs, strict=False)):
        alternatives, listed = _by_spelling(ours), _by_spelling(theirs)
        if (drift := _drift(alternatives, listed, theirs)) is not None:
            (first, best), (second, next_best) = itertools.islice(alternatives.items(), 2)
            best_ones += [(token, token in listed or token == theirs.token) for token in (first, second)]
            _, least, there = drift
            places.append(_Place(at, least, best - next_best, there, first in before or second in before))
        if ours.token != theirs.token:
            break
        before.add(ours.token)
    return places, best_ones


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.median(known) if len(known) >= FEW else None


def _slope(leads: Sequence[tuple[float, float]]) -> float | None:
    """Return the slope through nothing with the least absolute deviations: a median of ratios, weighted by the lead."""
    ratios = sorted((there / lead, lead) for lead, there in leads if lead > 0.0)
    if len(ratios) < FEW:
        return None
    half = math.fsum(weight for _, weight in ratios) / 2
    passed = 0.0
    for ratio, weight in ratios:
        passed += weight
        if passed >= half:
            return ratio
    return ratios[-1][0]


def _unlisted_reasoning(answer: Completion) -> bytes:
    """Return what an engine thought before the tokens that it lists: what they follow beside the prompt."""
    reasoning = answer.reasoning.strip().encode("utf-8", "surrogatepass")
    if not reasoning or reasoning in b"".join(entry.token for entry in answer.logprobs):
        return b""
    return reasoning


def _drift(
    alternatives: Mapping[bytes, float], listed: dict[bytes, float], theirs: TokenLogprob
) -> tuple[float, float, float | None] | None:
    """Return the most and the least that the lead moved at one position, ``None`` where there is no lead to compare.

    With them goes the lead on the candidate, ``None`` where it is not known. What both list goes in by spelling; the
    candidate's own token comes to what it lists.
    """
    if len(alternatives) < 2 or not theirs.top:
        return None
    (first, best), (second, next_best) = itertools.islice(alternatives.items(), 2)
    lead = best - next_best
    if not math.isfinite(lead):
        return None  # only one token was allowed there
    last = min(listed.values())
    if theirs.logprob is not None:
        listed.setdefault(theirs.token, theirs.logprob)
    here, there = listed.get(first), listed.get(second)
    if here is not None and there is not None:
        moved = abs(here - there - lead)
        return (moved, moved, here - there) if math.isfinite(moved) else (math.inf, 0.0, None)
    if here is not None:
        return math.inf, max(0.0, here - last - lead), None
    if there is not None:
        return math.inf, max(0.0, there - last + lead), None
    return math.inf, 0.0, None


def _by_spelling(entry: TokenLogprob) -> dict[bytes, float]:
    """Return the alternatives, best first: of tokens spelled alike, such as pieces of characters, the best one."""
    by_spelling = dict(entry.top)
    if len(by_spelling) == len(entry.top):
        return by_spelling
    by_spelling.clear()
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
        """Return what the logprobs of these answers are, counted over those that have any."""
        seen = cls()
        for answer in answers:
            of_answer = _logprobs(answer)
            seen.tokens += of_answer.tokens
            seen.answers += of_answer.answers
            seen.other += of_answer.other
            seen.alone += of_answer.alone
            seen.misspelled += of_answer.misspelled
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


def _logprobs(answer: Completion) -> Logprobs:
    """Return what one answer's logprobs are; nothing is counted of an answer without."""
    seen = Logprobs()
    if not answer.logprobs:
        return seen
    seen.answers = 1
    spelled = bytearray()
    for entry in answer.logprobs:
        if not entry.token:  # a mark of the beginning or the end, which nothing stands beside
            continue
        seen.tokens += 1
        seen.alone += len(entry.top) < 2
        best = max(map(itemgetter(1), entry.top), default=-math.inf)
        seen.other += bool(entry.top) and (entry.logprob is None or entry.logprob < best - SAME)
        spelled += entry.token
    text = answer.text.strip().encode("utf-8", "surrogatepass")
    seen.misspelled = int(not answer.reasoning and text not in bytes(spelled))
    return seen
