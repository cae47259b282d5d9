"""What a failed test says: the worst verdict first, and the few lines below each that a reader needs to act."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pytest_llmparity.core.verdict import SEVERITY, Outcome, Verdict
from pytest_llmparity.core.words.explain import (
    count,
    counted,
    differing,
    experiments,
    explained,
    floor,
    headline,
    pair,
    remarks,
)

MAX_LINES: Final = 15
"""Lines of one verdict in a failure text, its headline included."""


def failure_text(verdicts: Sequence[Verdict], *, reproduce: str) -> str:
    """Return the text of a failed test: the worst verdict's headline first, then what stands behind each of them.

    Passed and skipped verdicts are counted, not shown. Every verdict takes at most :data:`MAX_LINES` lines; the last
    one of the whole text is ``reproduce``, the command that runs this test again (left out when empty). Why an engine
    cannot be used concerns the whole run: the session's summary tells it in full, here stands its first line, once.
    """
    shown = [v for v in verdicts if v.outcome not in (Outcome.PASS, Outcome.SKIPPED)]
    shown.sort(key=lambda v: SEVERITY.index(v.outcome), reverse=True)
    passed = sum(v.outcome is Outcome.PASS for v in verdicts)
    lines: list[str] = []
    blocked: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in shown:
        if verdict.blocked_by:
            blocked.setdefault((verdict.blocked_by, verdict.reason), []).append(verdict)
    for verdict in shown:
        if not verdict.blocked_by:
            lines += block(verdict, lines_left=MAX_LINES)
        elif (same_trouble := blocked[verdict.blocked_by, verdict.reason])[0] is verdict:
            lines += _unusable(same_trouble)
    if passed:
        lines.append(f"({count(passed, 'other verdict')} of this test: PASS)")
    if reproduce:
        lines.append(f"reproduce: {reproduce}")
    return "\n".join(lines)


def _unusable(verdicts: Sequence[Verdict]) -> list[str]:
    """Return the lines of verdicts that one engine's trouble left without anything to judge."""
    first, *others = verdicts
    reason, more, _ = first.reason.partition("\n")
    lines = [f"{first.outcome} {first.kind}, {pair(first)}: {reason}{' …' if more else ''}"]
    if others:
        same = pair(first)
        names = "; ".join(dict.fromkeys(o.kind if pair(o) == same else f"{o.kind}, {pair(o)}" for o in others))
        lines.append(f"  and so {counted(len(others), 'other verdict')} of this test: {names}")
    if more:
        lines.append(f"  what {first.blocked_by} said stands in the summary of this run")
    lines += [f"  {line}" for line in explained(first)]
    return [*lines, f"  check: {first.check}" + (f" at {first.where}" if first.where else "")]


_BELOW: Final = "  "
"""How a detail begins that belongs to the one above it."""


def whole(details: Sequence[str], most: int) -> int:
    """Return how many of these lines to show where there is room for ``most``: of two answers both, or none.

    >>> whole(["first: mail-1", "  prod yes", "  dev  no"], 2)
    3
    """
    pair = details[most - 1 : most + 1] if most > 0 else []
    return most + 1 if len(pair) == 2 and all(line.startswith(_BELOW) for line in pair) else min(most, len(details))


def block(verdict: Verdict, *, lines_left: int = MAX_LINES) -> list[str]:
    """Return one verdict as lines: headline, details, floor, what differs, the check's place in the test file."""
    tail: list[str] = []
    if verdict.floor is not None:
        tail.append(f"  noise floor: {verdict.baseline or verdict.engine} differs from itself by {floor(verdict)}")
    tail += [f"  {remark}" for remark in remarks(verdict)]
    tail += [f"  {line}" for line in explained(verdict)]
    if verdict.differs:
        tail += differing(verdict.differs)
    tail.append(f"  check: {verdict.check}" + (f" at {verdict.where}" if verdict.where else ""))
    if verdict.explanation is not None and verdict.explanation.experiments:
        tail.insert(-1, f"  {experiments(verdict.explanation)}: see the summary")
    details = [f"  {line}" for line in verdict.details]
    room = lines_left - 1 - len(tail)
    if len(details) > room:
        kept = whole(verdict.details, room - 1)
        if more := len(details) - kept:
            details[kept:] = [f"  … {count(more, 'more line')} in run.json (--parity-report json writes it)"]
    return [verdict.message or headline(verdict), *details, *tail]
