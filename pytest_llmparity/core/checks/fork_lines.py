"""Forks in words: what stands below the headline of a verdict on text."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from pytest_llmparity.core import explain
from pytest_llmparity.core.checks import gathered
from pytest_llmparity.core.checks.gathered import Gathered, Pair
from pytest_llmparity.core.compare.text import Fork
from pytest_llmparity.core.stats.hazard import HazardResult
from pytest_llmparity.core.verdict import Verdict


def fork_lines(
    verdict: Verdict,
    forks: Sequence[tuple[Pair, Fork]],
    result: HazardResult,
    both: Gathered,
    why: str,
    *,
    calls: int,
    further: int,
) -> list[str]:
    """Return the lines below a verdict on text: counts, where forks are, their grades, the first of them.

    ``calls`` are pairs of tool calls, ``further`` prompts of groups that count once; neither is among the forks.
    """
    lines = [
        f"{explain.count(result.forks, 'fork')} in {result.at_risk:.0f} baseline tokens at risk, "
        f"{explain.count(len(forks), 'prompt')} in {explain.count(result.groups, 'group')}; {why}"
    ]
    if further:
        lines.append(f"{explain.count(further, 'further prompt')} of these groups not counted")
    if calls:
        lines.append(f"{explain.count(calls, 'pair')} of tool calls not compared as text")
    if both.note:
        lines.append(both.note)
    if spread := _by_part(forks):
        lines.append(spread)
    grades = Counter(fork.grade for _, fork in forks if fork.forked and fork.grade is not None)
    if grades:
        lines.append("forks by grade: " + ", ".join(f"{name} {n}" for name, n in grades.most_common()))
    return lines + first_fork(verdict, forks)


def _by_part(forks: Sequence[tuple[Pair, Fork]]) -> str:
    """Name the three tags (groups, where no case has a tag) with the most forks per token; empty if all is one part."""
    tagged = any(pair.case.tags for pair, _ in forks)
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for pair, fork in forks:
        for part in pair.case.tags if tagged else (pair.case.group,):
            sums[part][0] += fork.forked
            sums[part][1] += fork.at_risk
    rates = {part: d / e for part, (d, e) in sums.items() if e > 0}
    if len(rates) < 2 or (not tagged and len(rates) == len(forks)) or not any(rates.values()):
        return ""
    shown = ", ".join(f"{explain.plain(part, 30)} {explain.percent(rate)}" for part, rate in gathered.worst(rates))
    return f"most by {'tag' if tagged else 'group'}: {shown}"


def first_fork(verdict: Verdict, forks: Sequence[tuple[Pair, Fork]]) -> list[str]:
    """Show where the first pair of answers parts, and how either goes on; nothing where none does."""
    for pair, fork in forks:
        if fork.forked:
            at = fork.char or 0
            grade = f", {fork.grade}" if fork.grade is not None else ""
            where = f"first fork: {explain.plain(pair.case.id, 40)} after {explain.count(at, 'character')}{grade}"
            width = max(len(verdict.engine), len(str(verdict.baseline)))
            return [
                where,
                f"  {verdict.baseline:<{width}} {explain.quote(pair.baseline.text[at:]) or 'ends'}",
                f"  {verdict.engine:<{width}} {explain.quote(pair.candidate.text[at:])}",
            ]
    return []
