"""Verdicts where there is little room: a line that ends with the terminal, a cell of a grid. Numbers come first."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_llmparity.core.verdict import SEVERITY, Outcome, Verdict
from pytest_llmparity.core.words import explain

_NUMBERLESS = (Outcome.INCOMPARABLE, Outcome.ERROR, Outcome.SKIPPED)


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


def cell(verdict: Verdict, word: str) -> list[str]:
    """Return what a grid shows of a verdict, in parts between which a line may end; ``word`` is its outcome's."""
    if verdict.estimate is None or verdict.outcome in _NUMBERLESS:
        return [word]
    parts = [f"{word} {explain.number(verdict.estimate, verdict.unit)}{_counted_noun(verdict)}"]
    if between := explain.bounds(verdict):
        parts.append(f"({between.removeprefix('between ').replace(' and ', ' to ')})")
    if verdict.n:
        first, *rest = prompts(verdict).split(", ")
        parts[-1] += ","
        parts += [f"{first},", *rest] if rest else [first]
    return parts


def _in_one_line(verdict: Verdict) -> str:
    whom = f"{verdict.kind}, {explain.pair(verdict)}"
    if verdict.estimate is None or verdict.outcome in _NUMBERLESS:
        return explain.headline(verdict).partition("\n")[0]
    estimate = explain.number(verdict.estimate, verdict.unit)
    if verdict.p_fail is None and verdict.reason:
        reason = verdict.reason.partition("\n")[0]
        return f"{estimate}{_counted_noun(verdict)}: {whom}: {reason}"
    if verdict.outcome is Outcome.FAIL and verdict.margin is not None:
        sign = "<" if verdict.side == "at_least" else ">"
        estimate += f"{_counted_noun(verdict)} {sign} {explain.number(verdict.margin, verdict.unit)}"
        numbers = ", ".join(part for part in (explain.bounds(verdict), prompts(verdict)) if part)
    else:
        numbers = ", ".join(
            part for part in (explain.bounds(verdict), explain.limit(verdict), prompts(verdict)) if part
        )
    return f"{estimate} ({numbers}) {verdict.outcome}: {whom}" if numbers else f"{estimate} {verdict.outcome}: {whom}"


def prompts(verdict: Verdict) -> str:
    """Return how many cases a verdict rests on, in few letters; what counts is named where it is not each of them."""
    if verdict.per_group:
        return f"n {explain.count(verdict.n, 'group')}"
    if verdict.effective:
        together = "" if verdict.kind.startswith("latency.") else f" in {explain.count(verdict.groups, 'group')}"
        return f"n {verdict.n}{together}, count as {verdict.effective}"
    return f"n {verdict.n}" if verdict.n else ""


def _counted_noun(verdict: Verdict) -> str:
    """Say what a bare number counts where a good one looks bad: prompts that differ, requests over budget.

    And that it is the least where no more is known.
    """
    if verdict.kind == "prompts":
        return " differ"
    if verdict.measures.endswith(explain.OR_MORE):
        return explain.OR_MORE
    budget = verdict.kind.startswith("latency.") and verdict.kind != "latency.success_rate"
    over = budget and verdict.unit == "share"
    return " over" if over else ""
