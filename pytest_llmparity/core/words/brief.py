"""A verdict on one line, numbers first: it follows a test's name and is cut where the terminal ends."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_llmparity.core.verdict import SEVERITY, Outcome, Verdict
from pytest_llmparity.core.words.explain import (
    NUMBERLESS,
    bounds,
    counted_noun,
    headline,
    limit,
    number,
    pair,
    size,
)


def one_line(verdicts: Sequence[Verdict]) -> str:
    """Return why a test failed on one line: the worst verdict, its numbers first, and how many others there are.

    The line follows a test's name and is cut where the terminal ends, so what matters is at its beginning.
    """
    shown = [v for v in verdicts if v.outcome not in (Outcome.PASS, Outcome.SKIPPED)]
    if not shown:
        return ""
    worst = max(shown, key=lambda verdict: SEVERITY.index(verdict.outcome))
    more = len(shown) - 1
    return _in_one_line(worst) + (f" (and {more} more)" if more else "")


def _in_one_line(verdict: Verdict) -> str:
    whom = f"{verdict.kind}, {pair(verdict)}"
    if verdict.estimate is None or verdict.outcome in NUMBERLESS:
        return headline(verdict).partition("\n")[0]
    estimate = number(verdict.estimate, verdict.unit)
    if verdict.p_fail is None and verdict.reason:
        reason = verdict.reason.partition("\n")[0]
        return f"{estimate}{counted_noun(verdict)}: {whom}: {reason}"
    if verdict.outcome is Outcome.FAIL and verdict.margin is not None:
        sign = "<" if verdict.side == "at_least" else ">"
        estimate += f"{counted_noun(verdict)} {sign} {number(verdict.margin, verdict.unit)}"
        numbers = ", ".join(part for part in (bounds(verdict), size(verdict)) if part)
    else:
        numbers = ", ".join(part for part in (bounds(verdict), limit(verdict), size(verdict)) if part)
    return f"{estimate} ({numbers}) {verdict.outcome}: {whom}" if numbers else f"{estimate} {verdict.outcome}: {whom}"
