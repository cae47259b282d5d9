"""Forks in words: what stands below the headline of a verdict on text."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from pytest_llmparity.core.checks import gathered
from pytest_llmparity.core.checks.gathered import Pair
from pytest_llmparity.core.checks.missing import Missing
from pytest_llmparity.core.compare.answers import Compared, digest
from pytest_llmparity.core.stats.hazard import HazardResult
from pytest_llmparity.core.verdict import Difference, Verdict
from pytest_llmparity.core.words import explain

Pairs = Sequence[tuple[Pair, Compared]]
UNGRADED: Final = "ungraded"


def fork_lines(
    verdict: Verdict, pairs: Pairs, result: HazardResult, missing: Missing, why: str, *, further: int
) -> list[str]:
    """Return the lines below a verdict on text: counts, where forks are, their grades, the first of them.

    ``further`` counts prompts of groups that count once; they are not among ``pairs``.
    """
    lines = [
        f"{explain.count(result.forks, 'fork')} in {result.at_risk:.0f} baseline tokens at risk, "
        f"{explain.count(len(pairs), 'prompt')} in {explain.count(result.groups, 'group')}; {why}"
    ]
    if further:
        lines.append(f"{explain.count(further, 'further prompt')} of these groups not counted")
    if calls := sum(compared.calls for _, compared in pairs):
        lines.append(f"{explain.count(calls, 'pair')} compared as tool calls{_beside(pairs)}")
    lines += missing.reasons
    if spread := _by_part(pairs):
        lines.append(spread)
    grades = Counter(compared.fork.grade or UNGRADED for _, compared in pairs if compared.fork.forked)
    if grades.keys() - {UNGRADED}:
        lines.append("forks by grade: " + ", ".join(f"{name} {n}" for name, n in grades.most_common()))
    return lines + first_fork(verdict, pairs)


def _beside(pairs: Pairs) -> str:
    """Say how often the text beside two calls differs: it is not compared."""
    n = sum(bool(pair.baseline.tool_calls and pair.candidate.tool_calls) and _texts_differ(pair) for pair, _ in pairs)
    return f"; the text beside them differs in {n} and is not compared" if n else ""


def _texts_differ(pair: Pair) -> bool:
    return pair.baseline.text.strip() != pair.candidate.text.strip()


def differing(pairs: Pairs, counted: Pairs) -> tuple[Difference, ...]:
    """Return the cases whose answers part, in order; beyond the horizon or in a group that counts once uncounted."""
    counts = {pair.case.id for pair, compared in counted if compared.fork.forked}
    return tuple(
        Difference(
            case=pair.case.id,
            what="tool calls" if compared.calls else "text",
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


def _by_part(pairs: Pairs) -> str:
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
    shown = ", ".join(f"{explain.plain(part, 30)} {explain.percent(rate)}" for part, rate in gathered.worst(rates))
    return f"most by {'tag' if tagged else 'group'}: {shown}"


def first_fork(verdict: Verdict, pairs: Pairs) -> list[str]:
    """Show where the first pair of answers parts, and how either goes on; nothing where none does."""
    for pair, compared in pairs:
        fork = compared.fork
        if fork.forked:
            at = 0 if compared.calls else fork.char or 0
            place = "in its tool calls" if compared.calls else f"after {explain.count(at, 'character')}"
            grade = f", {fork.grade}" if fork.grade is not None else ""
            where = f"first fork: {explain.plain(pair.case.id, 40)} {place}{grade}"
            width = max(len(verdict.engine), len(str(verdict.baseline)))
            return [
                where,
                f"  {verdict.baseline:<{width}} {_goes_on(compared.baseline[at:])}",
                f"  {verdict.engine:<{width}} {_goes_on(compared.candidate[at:])}",
            ]
    return []


def _goes_on(text: str) -> str:
    return explain.quote(text) if text else "ends"
