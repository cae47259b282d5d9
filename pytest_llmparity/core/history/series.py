"""Runs as series: one quantity of one engine, run after run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_llmparity.core.history.entries import Entry, Judged, Question, question, repeated
from pytest_llmparity.core.verdict import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One quantity in one run. Of a latency there is no ``outcome``; ``upper`` is its 95th percentile."""

    entry: Entry
    outcome: Outcome | None
    estimate: float | None
    lower: float | None = None
    upper: float | None = None
    margin: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One quantity of one engine over runs, the oldest first; ``test`` is empty for a latency.

    ``check`` is the text of its check where others of the test are of the same kind, else empty.
    """

    test: str
    check: str
    kind: str
    engine: str
    baseline: str | None
    unit: str
    points: tuple[Point, ...]


def series(entries: Sequence[Entry]) -> list[Series]:
    """Return every quantity that has a number in some run, over all runs that judged it, in the order of the newest.

    What was ``aside`` in all of them is left out.
    """
    points: dict[Question, list[Point]] = {}
    telling: set[Question] = set()
    twice = repeated(entry.verdicts for entry in entries)

    def key_of(v: Judged, entry: Entry) -> Question:
        return question(v, twice, entry.origins)

    for entry in entries:
        for v in entry.verdicts:
            key = key_of(v, entry)
            telling |= set() if v.aside else {key}
            points.setdefault(key, []).append(
                Point(
                    entry=entry,
                    outcome=v.outcome,
                    estimate=v.estimate,
                    lower=v.lower,
                    upper=v.upper,
                    margin=v.margin,
                )
            )
        for row in entry.latency:
            key = Question("", "", f"{row.metric} p50", row.engine, None, "s", "")
            telling.add(key)
            points.setdefault(key, []).append(Point(entry=entry, outcome=None, estimate=row.p50, upper=row.p95))
    newest = [key_of(v, entry) for entry in entries[-1:] for v in entry.verdicts]
    order = [*(key for key in dict.fromkeys(newest) if key in points), *(key for key in points if key not in newest)]
    return [
        Series(
            test=key.test,
            check=key.check,
            kind=key.kind,
            engine=key.engine,
            baseline=key.baseline,
            unit=key.unit,
            points=tuple(points[key]),
        )
        for key in order
        if key in telling and any(point.estimate is not None for point in points[key])
    ]
