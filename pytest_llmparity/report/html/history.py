"""The history of a run's quantities as pictures: numbers in a picture's own units, which the template draws as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pytest_llmparity.core.history.entries import Entry
from pytest_llmparity.core.history.series import Point, Series, series
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.nodeids import names_apart

SIZE: Final = (520.0, 120.0)
"""Width and height of what a history is drawn in."""
MOST: Final = 12
"""Pictures on a page; ``llmparity history`` has all of them."""
_RUNS: Final = 40
_LABEL: Final = 110.0
"""Width that the words of a change take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One run in a picture: where it stands, its interval, and how it was decided."""

    at: float
    estimate: float
    lower: float
    upper: float
    outcome: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Where an engine tells another version than before, and that version, as far as there is room for words."""

    at: float
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One quantity over runs: ``margin`` is a path, ``top`` and ``bottom`` are the ends of the axis in words."""

    title: str
    beside: str
    marks: tuple[Mark, ...]
    margin: str
    changes: tuple[Change, ...]
    top: str
    bottom: str
    words: str


def pictures(entries: Sequence[Entry]) -> list[Picture]:
    """Return a picture of every quantity of the newest run that earlier ones have too."""
    newest = entries[-1].run if entries else ""
    of_now = [quantity for quantity in series(entries) if quantity.points[-1].entry.run == newest]
    names = names_apart(quantity.test for quantity in of_now)
    return [picture for quantity in of_now if (picture := _picture(quantity, names[quantity.test])) is not None]


def _picture(quantity: Series, test: str) -> Picture | None:
    """Return the picture of a quantity, ``None`` where fewer than two runs have it; ``test`` is its test's name."""
    points = [point for point in quantity.points if point.estimate is not None][-_RUNS:]
    if len(points) < 2:
        return None
    known = [v for p in points for v in (p.estimate, p.lower, p.upper, p.margin) if v is not None]
    low, high = min(known), max(known)
    if low >= 0 and low < 0.5 * high:
        low = 0.0
    span = (high - low) * 1.1 or 1.0
    step = SIZE[0] / len(points)

    def at(value: float) -> float:
        return round(SIZE[1] * (1 - (value - low) / span), 1)

    marks: list[Mark] = []
    changes: list[Change] = []
    path = before = ""
    for place, point in enumerate(points):
        x, value = round((place + 0.5) * step, 1), point.estimate or 0.0
        marks.append(
            Mark(
                at=x,
                estimate=at(value),
                lower=at(value if point.lower is None else point.lower),
                upper=at(value if point.upper is None else point.upper),
                outcome="" if point.outcome is None else point.outcome.value.lower(),
                words=_words(point, quantity),
            )
        )
        if point.margin is not None:
            path += f"M{round(place * step, 1)} {at(point.margin)}h{round(step, 1)}"
        engine = point.entry.engine(quantity.engine)
        which = engine.which if engine is not None else ""
        if which and before and which != before:
            room = not changes or place * step - changes[-1].at >= _LABEL
            changes.append(Change(at=round(place * step, 1), words=explain.plain(which, 24) if room else ""))
        before = which or before
    against = f"{quantity.engine} against {quantity.baseline}" if quantity.baseline else quantity.engine
    first, last = marks[0].words, marks[-1].words
    return Picture(
        title=explain.plain(f"{quantity.kind} of {quantity.check}", 120) if quantity.check else quantity.kind,
        beside=f"{against}{f', {test}' if test else ''}",
        marks=tuple(marks),
        margin=path,
        changes=tuple(changes),
        top=explain.number(low + span, quantity.unit),
        bottom=explain.number(low, quantity.unit),
        words=f"{len(points)} runs, from {first} to {last}",
    )


def _words(point: Point, quantity: Series) -> str:
    """Return one run in words, for who points at it or does not see it."""
    assert point.estimate is not None
    parts = [f"{point.outcome} " if point.outcome else ""]
    parts[0] += explain.number(point.estimate, quantity.unit)
    for name, value in (("at least", point.lower), ("at most", point.upper)):
        if value is not None:
            shown = "p95" if point.outcome is None else name
            parts.append(f"{shown} {explain.number(value, quantity.unit)}")
    engine = point.entry.engine(quantity.engine)
    version = f", {engine.kind} {engine.which}" if engine is not None and engine.which else ""
    return f"{', '.join(parts)} on {point.entry.began[:10]}{version}"
