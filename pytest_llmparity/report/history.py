"""Runs one after another: a line for each, with what its drift, its bounds and its latency were."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from pytest_llmparity.core.history.entries import FORMAT, Entry, Judged, question, repeated
from pytest_llmparity.core.sample import to_json
from pytest_llmparity.core.verdict import SEVERITY, Outcome
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.nodeids import names_apart
from pytest_llmparity.core.words.printable import cells, pad, printable, wrapped

WIDTH: Final = 140
_WIDEST: Final = 36


def lines(entries: Sequence[Entry], *, width: int = WIDTH) -> list[str]:
    """Return the runs of every test and candidate: a line for each run, the newest last."""
    lines: list[str] = []
    twice = repeated(entry.verdicts for entry in entries)
    pairs = dict.fromkeys(_pair(v, entry) for entry in entries for v in entry.verdicts)
    candidates = [pair for pair in pairs if pair[2] is not None or not _held(pair, list(pairs))]
    names = names_apart(test for test, _, _ in pairs)
    for test, engine, baseline in candidates:
        ours = [(entry, _verdicts(entry, test, engine, baseline)) for entry in entries]
        rows = [_row(entry, engine, verdicts, twice) for entry, verdicts in ours if verdicts]
        margins = _margins([v for _, verdicts in ours for v in verdicts], twice)
        against = f" against {baseline}" if baseline else ""
        lines += [""] if lines else []
        lines += wrapped(printable(f"{names[test]}: {engine}{against}{margins}"), width, indent="  ")
        wide = [min(_WIDEST, max(cells(row[column]) for row in rows)) for column in range(3)]
        indent = " " * (sum(wide) + 8)
        for *cells_, words in rows:
            head = "  ".join(pad(text, size) for text, size in zip(cells_, wide, strict=True))
            lines += wrapped(f"{head}  {words}", width, head="  ", indent=indent)
    return [line.rstrip() for line in lines]


def record(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return the runs as JSON builtins, as ``--json`` writes them."""
    return {"format": FORMAT, "runs": [to_json(entry) for entry in entries]}


def _held(pair: tuple[str, str, str | None], pairs: Sequence[tuple[str, str, str | None]]) -> bool:
    """Whether an engine that a verdict is on alone is held against another one as well, or is what others are."""
    test, engine, _ = pair
    return any(test == other and engine in (name, baseline) and baseline for other, name, baseline in pairs)


def _pair(verdict: Judged, entry: Entry) -> tuple[str, str, str | None]:
    """Return test, engine and the engine whose answers it was held against."""
    asked = question(verdict, (), entry.origins)
    return asked.test, asked.engine, asked.baseline


def _verdicts(entry: Entry, test: str, engine: str, baseline: str | None) -> list[Judged]:
    """Return the verdicts of a run on a pair, and those on its candidate alone."""
    return [v for v in entry.verdicts if _pair(v, entry) in ((test, engine, baseline), (test, engine, None))]


def _row(
    entry: Entry, engine: str, verdicts: Sequence[Judged], twice: Collection[tuple[str, str]]
) -> tuple[str, str, str, str]:
    """Return the run, whose id begins with its date, the engine, the worst outcome, and the numbers."""
    worst = max((v.outcome for v in verdicts), key=SEVERITY.index)
    numbers = [text for v in verdicts if not v.aside and (text := number(v, _name(v, twice)))]
    numbers += [
        f"{row.metric} p50 {explain.seconds(row.p50)}, p95 {explain.seconds(row.p95)}"
        for row in entry.latency
        if row.engine == engine
    ]
    words = "; ".join(numbers) or "no number"
    return printable(entry.run), printable(_told(entry, engine)), worst.value, printable(words)


def _told(entry: Entry, name: str) -> str:
    """Return what an engine was, in a few words."""
    engine = entry.engine(name)
    if engine is None:
        return ""
    return explain.plain(f"{engine.kind} {engine.which}".rstrip(), 60)


def _name(judged: Judged, twice: Collection[tuple[str, str]]) -> str:
    """Return what a verdict is called: its kind, or its check where another one of the test has the same kind."""
    if (judged.test, judged.kind) not in twice or not judged.check:
        return judged.kind
    check = explain.plain(judged.check, 120)
    return check if check.partition("(")[0] == judged.kind else f"{judged.kind} of {check}"


def number(judged: Judged, name: str = "") -> str:
    """Return a verdict's number with the bound that decided, empty where it has none, under ``name`` or its kind."""
    name = name or judged.kind
    if judged.estimate is None:
        return "" if judged.outcome in (Outcome.PASS, Outcome.SKIPPED) else f"{name} {judged.outcome}"
    between = explain.bounds(judged.verdict)
    return f"{name} {explain.number(judged.estimate, judged.unit)}{f' ({between})' if between else ''}"


def _margins(verdicts: Sequence[Judged], twice: Collection[tuple[str, str]]) -> str:
    """Return what the newest verdicts were held against."""
    held = [v for v in verdicts if v.margin is not None and not v.aside]
    margins = {_name(v, twice): explain.number(v.margin, v.unit) for v in held if v.margin is not None}
    return f" ({', '.join(f'{kind} margin {margin}' for kind, margin in margins.items())})" if margins else ""
