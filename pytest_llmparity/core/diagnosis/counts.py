"""How two engines' prompt token counts relate: equal, shifted, in proportion, and which engine cut what.

A cut is a plateau: the engine's counts stop growing although the other's go on. So the line between the counts is
never fitted to what was cut. Several lines are tried, those through the shortest prompts among them, and the one is
taken that explains every count with the fewest assumptions, each at a price in bits (Rissanen's description length):
an offset, another tokeniser, an engine that cuts, a prompt that fits no rule. What is known beside the counts makes
explanations cheaper or impossible: the contexts in force, an equal vocabulary, an equal template, how long the texts
are.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

Side = Literal["baseline", "candidate"]
SIDES: Final[tuple[Side, Side]] = ("baseline", "candidate")

SLOPE_STEP: Final = 0.005
"""Relative difference in tokens per token below which a slope is rounding, not another tokeniser."""
CUT_SHARE: Final = 0.10
"""A count this far below what the other prompts predict is a cut prompt …"""
CUT_TOKENS: Final = 8
"""… and at least this many tokens, so that short prompts' noise is not one."""
NOISE: Final = 0.30
"""The same between two tokenisers, whose counts of single prompts vary."""
KEPT: Final = 0.4
"""Share of its context that an engine keeps of a prompt it cuts, at the least: Ollama keeps half of it."""
SPARSE: Final = 10
"""Characters per token that no tokeniser reaches over a whole prompt: a count below that is not of all its text."""

_SLOPES: Final = (1 / 3, 3.0)
"""Tokens per token of the other engine that tokenisers reach; what is flatter is a plateau."""
_TWO_POINTS: Final = (0.6, 1.6)
"""The same where only two lengths say it."""
_APART: Final = 1.3
"""How many times as long as the shortest prompt the longest must be for a slope to be seen in them."""
_FIT_POINTS: Final = 100
"""Prompts a slope is fitted to; the median of their pairwise slopes needs no more."""
_TRIED: Final = 150
"""Prompts every line is tried on; the best one is then held against all of them."""
_LEVELS: Final = 12
"""Offsets that are tried: so many of the most common ones, and those of so many of the shortest prompts."""
_FEW_ON: Final = 2
"""On so few different pairs of counts a line may lie by chance: a cut must be shown by more than being away from it."""
_SURE: Final = 1.5
"""How far beyond an engine's largest count a text must be, by its length, to say that it was cut there too …"""
_FLAT_PAIRS: Final = 4
"""… on so many prompts …"""
_FLAT: Final = 0.2
"""… whose counts grow by less than this part of what their texts do."""
_OFFSET_BITS, _TEMPLATE_BITS, _SLOPE_BITS, _RARE_BITS, _CUT_BITS = 6, 6, 20, 12, 6
_ODD_BITS, _DOUBT_BITS, _CHANCE_BITS = 12, 8, 2
"""Prices: an offset, one beside an equal template, another tokeniser, one that counts far more or less, an engine that
cuts; a prompt that fits no rule, one whose count says it was not read whole, one beyond a context that did not matter.
"""


class CountPair(NamedTuple):
    """A case and its prompt tokens as either engine counts them."""

    case: str
    baseline: int
    candidate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known beside the counts; nothing of it is needed.

    ``contexts`` are those in force on the baseline and the candidate, in tokens. ``same_vocabulary`` and
    ``same_template``: both engines report them and they are equal. ``characters`` maps cases to the length of the text
    they send. ``bare`` are chats without a message of the system, ``instructed`` those with one.
    """

    contexts: tuple[int | None, int | None] = (None, None)
    same_vocabulary: bool = False
    same_template: bool = False
    characters: Mapping[str, int] = field(default_factory=dict)
    bare: frozenset[str] = frozenset()
    instructed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Prompts one engine cut, in the order given. ``worst`` is one of them: tokens it kept, tokens the other counts.

    ``together``: no prompt that was not cut stands between them. ``context`` is the context in force that explains it,
    ``None`` where it is not known or does not explain it. ``at_least``: the other engine cut them too, so their number
    is read from the length of their texts, and is the smallest it can be; ``worst`` is then ``None``.
    """

    side: Side
    cases: tuple[str, ...]
    worst: tuple[int, int] | None
    together: bool
    context: int | None = None
    at_least: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How the candidate's prompt token counts relate to the baseline's.

    ``kind``: ``equal``; ``offset`` (the same number more or fewer: template, BOS or system prompt); ``slope`` (in
    proportion to length: tokeniser); ``mixed`` (some prompts differ, by no rule); ``unknown``. It is about prompts that
    were not cut; ``cuts`` says who cut the others. ``offset`` is in tokens, ``slope`` candidate tokens per baseline
    token. ``differing`` counts prompts whose counts differ, of ``n``; ``odd`` are uncut ones that fit no rule.
    ``lengths`` is how many different lengths the uncut prompts have, by the baseline's count. ``of``: the
    offset is that of ``every`` uncut prompt, or of all ``chats`` or those that are ``bare``, without a message of the
    system, alone: raw prompts, or chats with one too, count alike.
    """

    kind: Literal["equal", "offset", "slope", "mixed", "unknown"]
    n: int
    differing: int = 0
    offset: int = 0
    slope: float = 1.0
    cuts: tuple[Cut, ...] = ()
    odd: tuple[str, ...] = ()
    lengths: int = 0
    of: Literal["every", "chats", "bare"] = "every"

    @property
    def uncut(self) -> int:
        """How many prompts nobody cut."""
        return self.n - len({case for cut in self.cuts for case in cut.cases})


NOTHING: Final = Known()


def compare_counts(pairs: Sequence[tuple[str, int, int]], known: Known = NOTHING) -> Counts:
    """Relate counts, given as (case, baseline's, candidate's) in any order.

    Short prompts that were read whole say how tokeniser and template differ; a prompt whose count stays behind that,
    at a level this engine's counts do not pass, was cut by it.
    """
    if not pairs:
        return Counts(kind="unknown", n=0)
    counted = [pair if isinstance(pair, CountPair) else CountPair(*pair) for pair in pairs]
    differing = sum(pair.baseline != pair.candidate for pair in counted)
    if not differing:
        return Counts(kind="equal", n=len(pairs), cuts=_cut_alike(counted, known))
    alone: Sequence[tuple[Literal["bare", "chats"], Callable[[], int | None]]] = (
        ("bare", lambda: offset_of_bare(counted, known.bare, known.instructed)),
        ("chats", lambda: _offset_of_chats(counted, known.bare | known.instructed)),
    )
    for of, found_offset in alone:
        if (offset := found_offset()) is not None:
            lengths = len({pair.baseline for pair in counted})
            return Counts(kind="offset", n=len(pairs), differing=differing, offset=offset, lengths=lengths, of=of)
    by_length = sorted(counted, key=lambda pair: max(pair.baseline, pair.candidate))
    some = by_length[:_LEVELS] + by_length[_LEVELS :: max(1, len(counted) // _TRIED)]
    readings = [_Reading(line, some, known) for line in _lines(by_length, known)]
    best = _Reading(min(readings, key=lambda reading: reading.rank).line, counted, known)
    cuts = best.cuts()
    cuts += _hidden_cut(counted, cuts, known)
    cut = {case for engine_cut in cuts for case in engine_cut.cases}
    whole = [pair for pair in counted if pair.case not in cut]
    moved = tuple(pair.case for pair in whole if pair.baseline != pair.candidate)
    odd = tuple(pair.case for pair in whole if pair.case in best.odd)
    made = functools.partial(
        Counts, n=len(pairs), differing=differing, cuts=cuts, lengths=len({pair.baseline for pair in whole})
    )
    if best.line.slope != 1.0:
        if abs(best.line.slope - 1.0) > SLOPE_STEP:
            return made(kind="slope", offset=round(best.line.level), slope=best.line.slope, odd=odd)
        return made(kind="mixed", odd=moved)
    offset = round(best.line.level)
    if odd and (not offset or 2 * (len(whole) - len(odd)) <= len(whole)):
        return made(kind="mixed", odd=moved)
    return made(kind="offset" if offset and whole else "equal", offset=offset, odd=odd)


def offset_of_bare(pairs: Sequence[CountPair], bare: Collection[str], instructed: Collection[str]) -> int | None:
    """Return the offset of all chats without a message of the system where no other prompt has one; else ``None``.

    Of the others one at least is a chat with such a message: to raw prompts alone no template adds anything either.
    """
    return offset_of_some(pairs, bare) if any(pair.case in instructed for pair in pairs) else None


def _offset_of_chats(pairs: Sequence[CountPair], chats: Collection[str]) -> int | None:
    """Return the offset of all chats beside raw prompts that have none; chats of one length may be cut just as well."""
    several = len({pair.baseline for pair in pairs if pair.case in chats}) >= _FEW_ON
    return offset_of_some(pairs, chats) if several else None


def offset_of_some(pairs: Sequence[CountPair], cases: Collection[str]) -> int | None:
    """Return the offset that all of some cases have, two at least, and no other case, one at least; else ``None``."""
    offsets = {pair.candidate - pair.baseline for pair in pairs if pair.case in cases}
    others = [pair for pair in pairs if pair.case not in cases]
    if not others or len(pairs) - len(others) < _FEW_ON or any(pair.candidate != pair.baseline for pair in others):
        return None
    return (offsets.pop() or None) if len(offsets) == 1 else None


class _Line(NamedTuple):
    """Candidate's count = ``slope`` · baseline's count + ``level``, for prompts that nobody cut."""

    slope: float
    level: float

    def expected(self, pair: CountPair, side: Side) -> float:
        """Return what an engine would count, by what the other one counts."""
        if side == "candidate":
            return self.slope * pair.baseline + self.level
        return (pair.candidate - self.level) / self.slope


def _lines(by_length: Sequence[CountPair], known: Known) -> list[_Line]:
    """Return the lines worth trying, by pairs in order of their length; that of equal counts is always among them."""
    differences = Counter(pair.candidate - pair.baseline for pair in by_length)
    levels = [0, *(level for level, _ in differences.most_common(_LEVELS))]
    levels += [pair.candidate - pair.baseline for pair in by_length[:_LEVELS]]
    lines = [_Line(1.0, float(level)) for level in dict.fromkeys(levels)]
    if known.same_vocabulary:
        return lines
    size = len(by_length)
    while size >= 2:
        if (line := _fitted(by_length[:size])) is not None:
            lines.append(line)
        size = size * 3 // 4
    return lines


def _fitted(pairs: Sequence[CountPair]) -> _Line | None:
    """Return the line through these pairs by Theil and Sen, ``None`` where lengths are too few or no tokeniser fits."""
    slope = _median_slope((pair.baseline, pair.candidate) for pair in pairs)
    lengths = {pair.baseline for pair in pairs}
    low, high = _SLOPES if len(lengths) > 2 else _TWO_POINTS
    if len(lengths) > 2 and max(lengths) < _APART * min(lengths):
        return None  # between prompts of about one length a tokeniser's noise is steeper than its slope
    if slope is None or not low <= slope <= high or slope == 1.0:
        return None
    return _Line(slope, statistics.median(pair.candidate - slope * pair.baseline for pair in pairs))


class _Reading:
    """The pairs as one line explains them: on it, cut by an engine, or odd; ``bits`` is what that takes to say."""

    def __init__(self, line: _Line, pairs: Sequence[CountPair], known: Known) -> None:
        self.line = line
        self._pairs = pairs
        self._known = known
        self._contexts = {side: _in_force(side, pairs, known) for side in SIDES}
        self._ceilings = {side: max(_count_of(pair, side) for pair in pairs) for side in SIDES}
        off = self._off_the_line()
        away = {case for side in SIDES for case in off[side]}
        self._on = [pair for pair in pairs if pair.case not in away]
        self._cut = {side: self._cut_of(side, off[side]) for side in SIDES}
        cut = {case for side in SIDES for case in self._cut[side]}
        self._on = [pair for pair in self._on if pair.case not in cut]
        self.odd = away - cut
        self.bits = self._price()

    @property
    def rank(self) -> tuple[float, float, float]:
        """What the best reading has the least of."""
        return self.bits, abs(self.line.slope - 1.0), abs(self.line.level)

    def cuts(self) -> tuple[Cut, ...]:
        """Return the engines that cut, each with its prompts."""
        cuts = []
        for side in SIDES:
            pairs = [pair for pair in self._pairs if pair.case in self._cut[side]]
            if pairs:
                worst = min(pairs, key=lambda pair: _count_of(pair, side) / max(1, _count_of(pair, _other(side))))
                cuts.append(
                    Cut(
                        side=side,
                        cases=tuple(pair.case for pair in pairs),
                        together=_side_by_side(pairs, self._pairs),
                        worst=(_count_of(worst, side), _count_of(worst, _other(side))),
                        context=self._contexts[side]
                        if any(self._cut_by_context(pair, side) for pair in pairs)
                        else None,
                    )
                )
        return tuple(cuts)

    def _off_the_line(self) -> dict[Side, dict[str, CountPair]]:
        """Return the pairs away from the line, by the engine that counts less than it says."""
        scale = 0.0
        if self.line.slope != 1.0:
            apart = [abs(self._behind(pair, "candidate")) / max(1.0, pair.candidate) for pair in self._pairs]
            scale = min(0.3, 6 * statistics.median(apart))
        off: dict[Side, dict[str, CountPair]] = {side: {} for side in SIDES}
        for pair in self._pairs:
            behind = self._behind(pair, "candidate")
            side: Side = "candidate" if behind > 0 else "baseline"
            share = max(CUT_SHARE, scale)
            slack = 0.0 if self.line.slope == 1.0 else max(CUT_TOKENS, share * self.line.expected(pair, side))
            if abs(self._behind(pair, side)) > slack:
                off[side][pair.case] = pair
        return off

    def _behind(self, pair: CountPair, side: Side) -> float:
        """Return how many tokens an engine counts fewer than the line says."""
        return self.line.expected(pair, side) - _count_of(pair, side)

    def _cut_of(self, side: Side, off: Mapping[str, CountPair]) -> dict[str, CountPair]:
        """Return the pairs this engine cut; ``off`` are those where it counts less than the line says."""
        forced = {case for case, pair in off.items() if self._cut_by_context(pair, side)}
        ceiling = self._ceilings[side]
        above = {pair.case for pair in self._pairs if self.line.expected(pair, side) > ceiling * self._tolerance}
        clear = forced | {case for case, pair in off.items() if case in above and self._beyond_noise(pair, side)}
        if len(_distinct(self._on)) < _FEW_ON and not self._shows_a_cut([off[case] for case in clear], side):
            return {}
        if clear:  # a plateau is there: what should have passed it and lies on it was cut too, however little
            level = (1 + CUT_SHARE) * max(_count_of(off[case], side) for case in clear)
            clear |= {pair.case for pair in self._pairs if pair.case in above and _count_of(pair, side) <= level}
        if 2 * len(self._on) > len(self._pairs):
            long = {case for case, pair in off.items() if self.line.expected(pair, side) >= KEPT * ceiling}
            clear |= {case for case in long if self._beyond_noise(off[case], side)}
        return {pair.case: pair for pair in self._pairs if pair.case in clear and self._behind(pair, side) > 0}

    @property
    def _tolerance(self) -> float:
        """How far above the largest count an expected one must be: lines of other tokenisers are not exact."""
        return 1.0 if self.line.slope == 1.0 else 1.02

    def _beyond_noise(self, pair: CountPair, side: Side) -> bool:
        """Whether an engine counts so little that it is no noise."""
        share = CUT_SHARE if self.line.slope == 1.0 else NOISE
        return self._behind(pair, side) > max(CUT_TOKENS, share * self.line.expected(pair, side))

    def _shows_a_cut(self, pairs: Sequence[CountPair], side: Side) -> bool:
        """Whether pairs show a cut although none lies on the line: by context or text, or because they are flat."""
        if not pairs:
            return False
        if all(self._cut_by_context(pair, side) for pair in pairs):
            return True
        if any(
            _impossible(pair, side, self._known) and not _impossible(pair, _other(side), self._known) for pair in pairs
        ):
            return True
        kept, whole = ([_count_of(pair, each) for pair in pairs] for each in (side, _other(side)))
        # Texts of one length look flat too: another tokeniser counts them apart, by as much as its noise.
        return max(whole) > (1 + NOISE) * min(whole) and 2 * (max(kept) - min(kept)) <= max(whole) - min(whole)

    def _cut_by_context(self, pair: CountPair, side: Side) -> bool:
        """Whether the engine's context leaves it no choice but to cut this prompt, and what it kept looks like that."""
        context = self._contexts[side]
        return (
            context is not None and self.line.expected(pair, side) > context and _count_of(pair, side) >= KEPT * context
        )

    def _price(self) -> float:
        slope, level = self.line
        bits = 0.0
        if slope != 1.0:
            bits += _SLOPE_BITS + math.log2(1 + abs(level))
            if not _TWO_POINTS[0] <= slope <= _TWO_POINTS[1]:
                bits += _RARE_BITS
        elif level:
            bits += _OFFSET_BITS + 2 * math.log2(1 + abs(level)) + _TEMPLATE_BITS * self._known.same_template
        for pair in _distinct(self._on):
            bits += self._price_on(pair)
        for side in SIDES:
            cut = _distinct(self._cut[side].values())
            if cut:
                kept = [_count_of(pair, side) for pair in cut]
                spread = math.log2(1 + max(kept) - min(kept))
                forced = sum(self._cut_by_context(pair, side) for pair in cut)
                bits += _CUT_BITS + forced + (len(cut) - forced) * max(1.0, spread)
        odd = _distinct(pair for pair in self._pairs if pair.case in self.odd)
        return bits + sum(_ODD_BITS + 2 * math.log2(1 + abs(self._behind(pair, "candidate"))) for pair in odd)

    def _price_on(self, pair: CountPair) -> float:
        """Return what a pair on the line costs: how far from it, and the doubt that it was read whole after all."""
        if self.line.slope != 1.0:
            return math.log2(1 + 2 * abs(self._behind(pair, "candidate")))
        if not self.line.level:
            return 0.0
        less: Side = "candidate" if self.line.level < 0 else "baseline"
        context = self._contexts[less]
        bits = 0.0
        if context is not None and _count_of(pair, _other(less)) > context and _count_of(pair, less) >= KEPT * context:
            bits += _CHANCE_BITS  # that all of them lie on both sides of its context by chance
        if _impossible(pair, less, self._known) and not _impossible(pair, _other(less), self._known):
            bits += _DOUBT_BITS
        return bits


def _count_of(pair: CountPair, side: Side) -> int:
    return pair.candidate if side == "candidate" else pair.baseline


def _other(side: Side) -> Side:
    return "baseline" if side == "candidate" else "candidate"


def _distinct(pairs: Iterable[CountPair]) -> list[CountPair]:
    """Return one of equal pairs of counts: copies of a prompt are one piece of evidence."""
    return list({(pair.baseline, pair.candidate): pair for pair in pairs}.values())


def _in_force(side: Side, pairs: Sequence[CountPair], known: Known) -> int | None:
    """Return an engine's context, ``None`` where a count is larger: then it is not what limits this engine."""
    context = known.contexts[SIDES.index(side)]
    return None if context is None or any(_count_of(pair, side) > context for pair in pairs) else context


def _impossible(pair: CountPair, side: Side, known: Known) -> bool:
    """Whether an engine counts so little that it cannot have read all of the case's text."""
    return SPARSE * _count_of(pair, side) < known.characters.get(pair.case, 0)


def _too_long(pair: CountPair, side: Side, context: int | None, known: Known) -> bool:
    """Whether a text is too long for an engine's context whatever the tokeniser, and the count looks like a cut."""
    if context is None or _count_of(pair, side) < KEPT * context:
        return False
    return known.characters.get(pair.case, 0) > SPARSE * context


def _cut_alike(pairs: Sequence[CountPair], known: Known) -> tuple[Cut, ...]:
    """Return cuts that equal counts hide: texts that fit neither context, and counts that do."""
    cuts = []
    for side in SIDES:
        context = _in_force(side, pairs, known)
        cut = [pair for pair in pairs if _too_long(pair, side, context, known)]
        if cut:
            cuts.append(_by_text(side, cut, pairs, context))
    return tuple(cuts) if len(cuts) == len(SIDES) else ()


def _hidden_cut(pairs: Sequence[CountPair], cuts: Sequence[Cut], known: Known) -> tuple[Cut, ...]:
    """Return the cut of the engine whose prompts all seem whole, where the texts of what the other one cut say so.

    Its counts must stand still while these texts grow, far beyond what they would have by the uncut prompts: nothing
    less is enough to accuse an engine.
    """
    if len(cuts) != 1:
        return ()
    (cut,) = cuts
    side = _other(cut.side)
    context, cut_cases = _in_force(side, pairs, known), set(cut.cases)
    shared = [pair for pair in pairs if pair.case in cut_cases and pair.case in known.characters]
    certain = {pair.case for pair in shared if _too_long(pair, side, context, known)}
    ceiling = max(_count_of(pair, side) for pair in pairs)
    estimate = _by_length([pair for pair in pairs if pair.case not in cut_cases], side, known)
    if estimate is not None:
        far = [pair for pair in shared if estimate(pair) > _SURE * ceiling]
        flat = _median_slope([(estimate(pair), _count_of(pair, side)) for pair in far])
        if len(far) >= _FLAT_PAIRS and flat is not None and flat < _FLAT:
            certain |= {pair.case for pair in far}
    if not certain:
        return ()
    return (_by_text(side, [pair for pair in pairs if pair.case in certain], pairs, context),)


def _by_text(side: Side, cut: Sequence[CountPair], pairs: Sequence[CountPair], context: int | None) -> Cut:
    """Return a cut that only the length of the texts shows."""
    cases, together = tuple(pair.case for pair in cut), _side_by_side(cut, pairs)
    return Cut(side=side, cases=cases, worst=None, together=together, context=context, at_least=True)


def _side_by_side(some: Sequence[CountPair], pairs: Sequence[CountPair]) -> bool:
    """Whether some pairs stand side by side among all of them."""
    first = pairs.index(some[0])
    return list(pairs[first : first + len(some)]) == list(some)


def _by_length(pairs: Sequence[CountPair], side: Side, known: Known) -> Callable[[CountPair], float] | None:
    """Return how many tokens an engine would count of a pair's text, learnt from these pairs; ``None`` from too few."""
    points = [
        (float(known.characters[pair.case]), _count_of(pair, side)) for pair in pairs if pair.case in known.characters
    ]
    slope = _median_slope(points)
    if len(points) < _FLAT_PAIRS or slope is None or slope <= 0:
        return None
    level = statistics.median(seen - slope * length for length, seen in points)
    return lambda pair: slope * known.characters[pair.case] + level


def _median_slope(points: Iterable[tuple[float, float]]) -> float | None:
    """Return the median of the pairwise slopes (Theil and Sen), ``None`` where all points have one place."""
    ordered = sorted(set(points))
    used = ordered[:: max(1, len(ordered) // _FIT_POINTS)]
    slopes = [
        (y - used[i][1]) / (x - used[i][0]) for i in range(len(used)) for x, y in used[i + 1 :] if x != used[i][0]
    ]
    return statistics.median(slopes) if slopes else None
