"""A whole run in one sentence and a few numbers: what stands at the top of every report that people read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from pytest_llmparity.core.gate import NO_FILE
from pytest_llmparity.core.history.entries import question, repeated
from pytest_llmparity.core.identity.record import DecisionRecord, LatencyQuantiles
from pytest_llmparity.core.verdict import SEVERITY, Outcome, Verdict
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.printable import cells, pad, printable, wrapped


def worst(verdicts: Sequence[Verdict], errors: Collection[str] = ()) -> Outcome:
    """Return the worst outcome; of nothing judged it is SKIPPED. Each of ``errors``, names of tests, is an ERROR."""
    outcomes = [*(verdict.outcome for verdict in verdicts), *(Outcome.ERROR for _ in errors)]
    return max(outcomes, key=SEVERITY.index, default=Outcome.SKIPPED)


def tally(verdicts: Sequence[Verdict], errors: Collection[str] = ()) -> Mapping[Outcome, int]:
    """Return how many verdicts, and tests of ``errors``, have each outcome that occurs, the worst first."""
    counts = Counter([*(verdict.outcome for verdict in verdicts), *(Outcome.ERROR for _ in errors)])
    return {outcome: counts[outcome] for outcome in reversed(SEVERITY) if outcome in counts}


STRICT: Final = "which fails the run, as --parity-inconclusive fail asks"


def sentence(verdicts: Sequence[Verdict], errors: Mapping[str, str] | None = None, *, strict: bool = False) -> str:
    """Return what a run came to on one line: how many verdicts, and of the worst one its headline.

    ``errors`` has by test why it failed where no verdict says so; they come first. ``strict``: what stayed open failed
    the run.

    >>> sentence([])
    'Nothing was judged.'
    """
    if errors:
        test, why = next(iter(errors.items()))
        failed = (
            f"{explain.count(len(errors), 'test')} failed outside of {'its' if len(errors) == 1 else 'their'} checks"
        )
        return f"{failed}, {test}: {why.rstrip('.')}. {sentence(verdicts, strict=strict)}"
    if not verdicts:
        return "Nothing was judged."
    outcome, total = worst(verdicts), explain.count(len(verdicts), "verdict")
    alike = [verdict for verdict in verdicts if verdict.outcome is outcome]
    if outcome is Outcome.PASS:
        skipped = len(verdicts) - len(alike)
        were = f", {skipped} {'was' if skipped == 1 else 'were'} skipped" if skipped else ""
        return f"{explain.count(len(alike), 'verdict')} passed{were}."
    if outcome is Outcome.SKIPPED:
        return f"Nothing was judged: every check was skipped. {alike[0].reason or alike[0].message}".rstrip()
    first = explain.headline(alike[0]).partition("\n")[0].removeprefix(f"{outcome} ")
    fails = f", {STRICT}" if strict and outcome is Outcome.INCONCLUSIVE else ""
    return f"{len(alike)} of {total} {'is' if len(alike) == 1 else 'are'} {outcome}{fails}: {first}"


def decided(decision: DecisionRecord) -> str:
    """Return what was decided about a candidate in a sentence or two, and by what."""
    by = "Every check is required" if decision.policy == NO_FILE else f"By {decision.policy}"
    return f"{decision.outcome}: {decision.advice} {by} (sha256 {decision.sha256[:12]})."


def failed(errors: Mapping[str, str], *, width: int) -> list[str]:
    """Return the tests that failed where no verdict says so, and why each did, as lines below a title."""
    lines = [wrapped(printable(f"{test}: {why}"), width, indent="  ") for test, why in errors.items()]
    return ["failed outside of the checks:", *(line for of_test in lines for line in of_test)] if errors else []


class Change(NamedTuple):
    """What became of one question from one run to another."""

    before: Verdict
    after: Verdict


class Changes(NamedTuple):
    """What got ``worse`` or ``better`` from one run to another, what is ``undecided`` in one, and how many stayed."""

    worse: list[Change]
    better: list[Change]
    undecided: list[Change]
    same: int
    gone: list[Verdict]
    new: list[Verdict]


def changes(
    before: Sequence[Verdict],
    after: Sequence[Verdict],
    *,
    origins: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {}),
) -> Changes:
    """Compare what two runs came to, question by question, as their history does (``core.history.entries.question``).

    ``origins`` says of each run by the name of an engine whose answers stood for it.
    """
    twice = repeated([before, after])
    earlier, later = (
        {question(verdict, twice, whose): verdict for verdict in verdicts}
        for verdicts, whose in ((before, origins[0]), (after, origins[1]))
    )
    pairs = [Change(earlier[key], later[key]) for key in earlier if key in later]
    decided = (Outcome.PASS, Outcome.FAIL)
    settled = [pair for pair in pairs if pair.before.outcome in decided and pair.after.outcome in decided]
    turned = [pair for pair in settled if pair.before.outcome is not pair.after.outcome]
    return Changes(
        worse=[pair for pair in turned if pair.after.outcome is Outcome.FAIL],
        better=[pair for pair in turned if pair.after.outcome is Outcome.PASS],
        undecided=[pair for pair in pairs if pair not in settled and Outcome.SKIPPED not in _outcomes(pair)],
        same=len(settled) - len(turned),
        gone=[earlier[key] for key in earlier if key not in later],
        new=[later[key] for key in later if key not in earlier],
    )


def _outcomes(pair: Change) -> set[Outcome]:
    return {pair.before.outcome, pair.after.outcome}


def latency(rows: Sequence[LatencyQuantiles], *, width: int) -> list[str]:
    """Return a table of quantiles, one line per engine and metric."""
    if not rows:
        return []
    name_width = min(max(7, *(cells(printable(row.engine)) for row in rows)), width - 48)
    lines = [f"{pad('latency', name_width)}  {'metric':6}{'p50':>10}{'p95':>10}{'p99':>10}{'n':>8}"]
    for row in rows:
        quantiles = "".join(f"{explain.number(value, row.unit):>10}" for value in (row.p50, row.p95, row.p99))
        lines.append(f"{pad(printable(row.engine), name_width)}  {row.metric:6}{quantiles}{row.n:>8}")
    return lines


def in_order(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return the verdicts with the worst first; those of one outcome stay in their order."""
    return sorted(verdicts, key=lambda verdict: SEVERITY.index(verdict.outcome), reverse=True)
