"""The answers of a pair, compared: where they part, which of that counts, and the lines below a verdict on it."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from pytest_llmparity.core.checks.base import Pair, Pairing
from pytest_llmparity.core.checks.designs import Design, Forks, design_of
from pytest_llmparity.core.checks.missing import Silence
from pytest_llmparity.core.checks.tags import hidden_tags, of_tags, several_groups
from pytest_llmparity.core.compare.answers import (
    AT_FORKS,
    Compared,
    Fork,
    by_shift,
    compare_answers,
    digest,
    without_tie,
)
from pytest_llmparity.core.compare.shift import find_shift
from pytest_llmparity.core.evidence import Evidence
from pytest_llmparity.core.stats.hazard import hazard
from pytest_llmparity.core.verdict import Difference, Judgement, Outcome, Verdict
from pytest_llmparity.core.words import explain

UNGRADED: Final = "ungraded"

ComparedPairs = Sequence[tuple[Pair, Compared]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ties:
    """Which forks are near-ties: where the lead moved no further than a ``shift`` explains, in nats.

    ``source`` says where that comes from, ``word`` what it is. Where they are ``ignored`` an answer ends there, as one
    that was cut. ``unfit`` says why an engine's logprobs cannot tell, empty where they can: then no fork is one.
    """

    shift: float
    source: str = ""
    word: str = "accepted"
    ignored: bool = False
    unfit: str = ""

    def of(self, compared: Compared) -> Compared:
        """Return what was compared with its fork graded, and ended where it is ignored."""
        known = msgspec.structs.replace(compared.fork, moved=None) if self.unfit else compared.fork
        fork = by_shift(known, self.shift)
        fork = without_tie(fork) if self.aside else fork
        return compared if fork is compared.fork else msgspec.structs.replace(compared, fork=fork)

    @property
    def aside(self) -> bool:
        """Whether some forks may be left aside."""
        return self.ignored and not self.unfit

    @property
    def words(self) -> str:
        """What a near-tie is, in words."""
        most, nats = explain.nats(AT_FORKS * self.shift), explain.nats(self.shift)
        source = f", {self.source}" if self.source else ""
        shift = f"the shift {self.word}" if " " in self.word else f"the {self.word} shift"
        return f"the lead moved by at most {most} there, {AT_FORKS:g} times {shift} ({nats}{source})"


class Comparison:
    """The answers of a pair, compared over the horizon: the pairs that can be, those of them that count, the rest."""

    def __init__(self, evidence: Evidence, pairing: Pairing, horizon: int, *, ties: Ties | None = None) -> None:
        self.pairing, self._horizon, self.ties = pairing, horizon, ties
        self._design: Design = design_of(evidence, asked=pairing.asked, groups_asked=pairing.groups_asked)
        self.pairs: list[tuple[Pair, Compared]] = []
        silence = Silence()
        for pair in pairing.pairs:
            compared = compare_answers(pair.baseline, pair.candidate, horizon=horizon)
            if compared is None:
                silence.add({evidence.baseline: pair.baseline, pairing.candidate: pair.candidate})
            else:
                self.pairs.append((pair, compared if ties is None else ties.of(compared)))
        self.missing = pairing.missing(evidence, used=len(self.pairs), also=silence.reasons())
        self.counted = self._design.counted(self.pairs, lambda compared: compared[0].case.group)
        self.forks: Forks = [(pair.case, compared.fork) for pair, compared in self.pairs]

    def judge(self, forks: Forks, margin: float) -> Judgement:
        """Return the judgement on forks, given in the order of the prompts, against a margin."""
        return self._design.hazard(forks, margin=margin, horizon=self._horizon)

    def beyond(self) -> str:
        """Say that the pair shifts by more than near-ties were accepted for, where they are ignored and it is shown."""
        if self.ties is None or not self.ties.aside:
            return ""
        shifts = [
            (pair.case, shift)
            for pair, _ in self.pairs
            if (shift := find_shift(pair.baseline, pair.candidate)) is not None
        ]
        judgement = self._design.shift(shifts, margin=self.ties.shift)
        if judgement.outcome is not Outcome.FAIL or judgement.lower is None:
            return ""
        return (
            f"the pair shifts by at least {explain.nats(judgement.lower)}, and near-ties of "
            f"{explain.nats(self.ties.shift)} were {self.ties.word}: they do not explain its forks"
        )

    @property
    def best(self) -> Forks:
        """The forks, and the best that may be thought of every case without one: it does not part."""
        forks = {case.id: fork for case, fork in self.forks}
        return [(case, forks.get(case.id) or unforked(self._horizon)) for case in self.pairing.cases]


def ends_unparted(fork: Fork, horizon: int) -> bool:
    """Whether two answers were compared to their ends, before the horizon, and do not part."""
    return not fork.forked and fork.at_risk < horizon


def unforked(horizon: int) -> Fork:
    """Return the best that may be thought of a case without two answers: it does not part."""
    return Fork(forked=False, at_risk=float(horizon))


def withheld(verdict: Verdict, beyond: str) -> Verdict:
    """Return a PASS that leaves near-ties aside as INCONCLUSIVE where what was accepted does not hold of the pair.

    One that is INCONCLUSIVE by itself says so too; more prompts settle it only where they would make it fail.
    """
    if not beyond or verdict.outcome not in (Outcome.PASS, Outcome.INCONCLUSIVE):
        return verdict
    reason = "; ".join(filter(None, [verdict.reason, beyond]))
    kept_open = dataclasses.replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason)
    if verdict.estimate is not None and verdict.margin is not None and verdict.estimate > verdict.margin:
        return kept_open
    return dataclasses.replace(kept_open, needed=None, advice="")


def fork_lines(
    verdict: Verdict,
    pairs: ComparedPairs,
    groups: int,
    comparison: Comparison,
    why: str,
) -> list[str]:
    """Return the lines below a verdict on text: counts, where forks are, their grades, the first of them.

    ``pairs`` are those that count: of groups that count once further prompts are not among them.
    """
    further, ties = len(comparison.pairs) - len(pairs), comparison.ties
    forks = sum(compared.fork.forked for _, compared in pairs)
    at_risk = math.fsum(compared.fork.at_risk for _, compared in pairs)
    lines = [
        f"{explain.count(forks, 'fork')} in {at_risk:.0f} baseline tokens at risk, "
        f"{explain.count(len(pairs), 'prompt')} ({explain.percent(forks / len(pairs))} of them part) in "
        f"{explain.count(groups, 'group')}" + (f"; {why}" if why else "")
    ]
    if further:
        lines.append(f"{explain.count(further, 'further prompt')} of these groups not counted")
    if calls := sum(compared.calls for pair, compared in pairs if not _conversed(pair)):
        lines.append(f"{explain.count(calls, 'pair')} compared as tool calls{_beside(pairs)}")
    if conversations := [compared for pair, compared in pairs if _conversed(pair)]:
        lines.append(f"{explain.count(len(conversations), 'pair')} compared as conversations{_parting(conversations)}")
    lines += comparison.missing.reasons
    if spread := _by_part(pairs):
        lines.append(spread)
    grades = Counter(compared.fork.grade or UNGRADED for _, compared in pairs if compared.fork.forked)
    if grades.keys() - {UNGRADED}:
        lines.append("forks by grade: " + ", ".join(f"{name} {n}" for name, n in grades.most_common()))
    if ties is not None and not ties.ignored and grades["near-tie"]:
        lines.append(f"near-ties: {ties.words}")
    return lines + first_fork(verdict, pairs)


def forgiven(pairs: ComparedPairs, ties: Ties, horizon: int) -> str:
    """Say how many forks were near-ties and so were not counted, and how many counted because nobody could tell."""
    if ties.unfit:
        return f"near-ties are not left aside, all forks counted: {ties.unfit}"
    ended = sum(_within(compared.fork, horizon) and not compared.fork.forked for _, compared in pairs)
    forks = sum(compared.fork.forked for _, compared in pairs)
    unknown = sum(compared.fork.forked and compared.fork.moved is None for _, compared in pairs)
    words = f"{ended} of {explain.count(forks + ended, 'fork')} near-ties and not counted: {ties.words}"
    return words + (f"; {explain.count(unknown, 'fork')} without logprobs counted" if unknown else "")


def _within(fork: Fork, horizon: int) -> bool:
    return fork.token is not None and int(fork.token) < horizon


def _beside(pairs: ComparedPairs) -> str:
    """Say how often the text beside two calls differs: it is not compared."""
    n = sum(
        not _conversed(pair) and bool(pair.baseline.tool_calls and pair.candidate.tool_calls) and _texts_differ(pair)
        for pair, _ in pairs
    )
    return f"; the text beside them differs in {n} and is not compared" if n else ""


def _conversed(pair: Pair) -> bool:
    return bool(pair.baseline.turns or pair.candidate.turns)


def _parting(conversations: Sequence[Compared]) -> str:
    """Say in which turn conversations part, and that nothing behind it is compared."""
    turns = Counter(compared.turn for compared in conversations if compared.turn)
    if not turns:
        return ", alike in every turn"
    parts = ", ".join(f"{n} in turn {turn}" for turn, n in sorted(turns.items()))
    return f", parting first: {parts}; later turns answer other words and are not compared"


def _texts_differ(pair: Pair) -> bool:
    return pair.baseline.text.strip() != pair.candidate.text.strip()


def differing(pairs: ComparedPairs, counted: ComparedPairs) -> tuple[Difference, ...]:
    """Return the cases whose answers part, in order; beyond the horizon or in a group that counts once uncounted."""
    counts = {pair.case.id for pair, compared in counted if compared.fork.forked}
    return tuple(
        Difference(
            case=pair.case.id,
            what=f"turn {compared.turn}" if compared.turn else "tool calls" if compared.calls else "text",
            baseline_sha256=digest(compared.baseline),
            candidate_sha256=digest(compared.candidate),
            byte=compared.fork.byte,
            char=compared.fork.char,
            token=compared.fork.token,
            unit=compared.fork.unit,
            grade=compared.fork.grade,
            counted=pair.case.id in counts,
        )
        for pair, compared in pairs
        if compared.fork.byte is not None
    )


def _by_part(pairs: ComparedPairs) -> str:
    """Name the three tags (groups, where no case has a tag) with the most forks per token; empty if all is one part."""
    tagged = any(pair.case.tags for pair, _ in pairs)
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for pair, compared in pairs:
        for part in pair.case.tags if tagged else (pair.case.group,):
            sums[part][0] += compared.fork.forked
            sums[part][1] += compared.fork.at_risk
    rates = {part: d / e for part, (d, e) in sums.items() if e > 0}
    if len(rates) < 2 or (not tagged and len(rates) == len(pairs)) or not any(rates.values()):
        return ""
    return f"most by {'tag' if tagged else 'group'}: {explain.worst(rates, 'share')}"


def tags_above(pairs: ComparedPairs, *, margin: float, alpha: float) -> str:
    """Return in words which tags' own prompts are shown to drift beyond the margin, each at its part of the error rate.

    Prompts of a group are one piece of evidence here as everywhere: a tag of one group shows nothing.
    """
    by_tag = of_tags((pair.case, compared.fork) for pair, compared in pairs)
    above: dict[str, float] = {}
    for tag, forks in by_tag.items():
        result = hazard(
            [fork.forked for _, fork in forks],
            [fork.at_risk for _, fork in forks],
            [case.group for case, _ in forks],
            margin=margin,
            alpha=alpha / len(by_tag),
        )
        if result.lower > margin and several_groups(forks):
            above[tag] = result.estimate
    return hidden_tags("above the margin", above)


def first_fork(verdict: Verdict, pairs: ComparedPairs) -> list[str]:
    """Return lines that show where the first pair of answers parts and how either goes on; none where none does."""
    for pair, compared in pairs:
        fork = compared.fork
        if fork.forked:
            at = compared.turn_at if compared.calls else fork.char or 0
            place = "in its tool calls" if compared.calls else f"after {explain.count(at, 'character')}"
            place = f"in turn {compared.turn}" if compared.turn else place
            grade = f", {fork.grade}" if fork.grade is not None else ""
            where = f"first fork: {explain.plain(pair.case.id, 40)} {place}{grade}"
            width = max(len(verdict.engine), len(str(verdict.baseline)))
            return [
                where,
                f"  {verdict.baseline:<{width}} {_goes_on(compared.baseline, at)}",
                f"  {verdict.engine:<{width}} {_goes_on(compared.candidate, at)}",
            ]
    return []


def _goes_on(text: str, at: int) -> str:
    """Return how a text goes on at a place in it; the dots say that more came before."""
    return f"{'…' if at else ''}{explain.quote(text[at:])}" if text[at:] else "ends"
