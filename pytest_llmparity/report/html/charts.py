"""The page's pictures as numbers: what the template draws as SVG, in the picture's own units; colours are the style's.

Drawn here instead of by a library: a bar, a curve and a row of dots are a dozen numbers each, and a library that draws
them brings scripts, styles and fonts that the page's policy refuses.
"""

from __future__ import annotations

import bisect
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pytest_llmparity.core.checks.latency import parse_budget, unknown
from pytest_llmparity.core.checks.latency.timed import WORDS
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.identity.ladder import Ladder
from pytest_llmparity.core.identity.record import LatencyQuantiles, RunRecord
from pytest_llmparity.core.sample import Phase, Sample
from pytest_llmparity.core.stats.quantiles import describe
from pytest_llmparity.core.verdict import Verdict
from pytest_llmparity.core.words import explain

GAUGE: Final = 160.0
"""Width of a verdict's bar."""
PLOT: Final = (520.0, 200.0)
"""Width and height of what a curve is drawn in."""
_POINTS: Final = 240
_ROOM: Final = 1.12


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """A verdict as a bar: noise floor, interval, estimate and margin, in a width of :data:`GAUGE`; ``None``: unknown.

    ``open``: the interval goes on to the right beyond what is drawn.
    """

    floor: float | None
    lower: float
    upper: float
    estimate: float
    margin: float | None
    open: bool
    words: str


def gauge(verdict: Verdict) -> Gauge | None:
    """Return a verdict's bar, ``None`` where there is no number to draw."""
    estimate, margin = verdict.estimate, verdict.margin
    if estimate is None or not math.isfinite(estimate):
        return None
    known = [estimate, *(v for v in (verdict.lower, verdict.upper, margin, verdict.floor) if v is not None)]
    finite = [value for value in known if math.isfinite(value)]
    low, high = min(0.0, *finite), max(finite)
    if verdict.side == "at_least":  # near 1, where nothing can be seen on a bar from 0
        low, high = max(0.0, min(finite) - 0.25 * (1.0 - min(finite)) - 0.02), 1.0
    elif verdict.unit == "ratio":
        low = min(0.5, *finite)
    span = (high - low) * (_ROOM if high < 1.0 or verdict.unit not in ("share", "forks/token") else 1.0) or 1.0

    def at(value: float) -> float:
        return round(GAUGE * min(1.0, max(0.0, (value - low) / span)), 1)

    lower = low if verdict.lower is None or math.isnan(verdict.lower) else verdict.lower
    upper = estimate if verdict.upper is None or math.isnan(verdict.upper) else verdict.upper
    return Gauge(
        floor=None if verdict.floor is None or not math.isfinite(verdict.floor) else at(verdict.floor),
        lower=at(lower),
        upper=GAUGE if math.isinf(upper) else at(upper),
        estimate=at(estimate),
        margin=None if margin is None else at(margin),
        open=math.isinf(upper),
        words=_spoken(verdict),
    )


def _spoken(verdict: Verdict) -> str:
    """Return a bar in words, for who does not see it."""
    assert verdict.estimate is not None
    parts = [f"estimate {explain.number(verdict.estimate, verdict.unit)}"]
    for name, value in (("at least", verdict.lower), ("at most", verdict.upper), ("margin", verdict.margin)):
        if value is not None and math.isfinite(value):
            parts.append(f"{name} {explain.number(value, verdict.unit)}")
    if verdict.floor is not None:
        parts.append(f"noise floor {explain.number(verdict.floor, verdict.unit)}")
    return ", ".join(parts)


# latency --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A mark of an axis."""

    at: float
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One engine's requests: the share that took at most so long, as an SVG path."""

    engine: str
    place: int
    path: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A limit on the time axis, and the height of the share that must keep it."""

    at: float
    share: float
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One metric of every engine that was timed."""

    metric: str
    words: str
    curves: list[Curve]
    budgets: list[Budget] = field(default_factory=list)
    ticks: list[Tick] = field(default_factory=list)


def latency(record: RunRecord, samples: Iterable[Sample]) -> list[Latency]:
    """Return a picture for each metric that is known; a failed request never comes, so its engine's curve ends below 1.

    Requests that met a load are no times of answers, as for the verdicts.
    """
    timed: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.phase is Phase.TIMED and not (sample.timing is not None and sample.timing.met_load):
            timed[sample.engine].append(sample)
    names = [engine.name for engine in record.engines]
    pictures = []
    for metric, words in WORDS.items():
        values: dict[str, list[float]] = {}
        for name in names:
            timings = [sample.timing for sample in timed.get(name, ()) if sample.timing is not None]
            if not timings or unknown(name, metric, timings):
                continue
            seen = [t for timing in timings if (t := getattr(timing, f"{metric}_s")) is not None and math.isfinite(t)]
            failed = sum(sample.completion is None for sample in timed[name])
            if seen:
                values[name] = [*sorted(seen), *[math.inf] * failed]
        if values:
            pictures.append(_picture(metric, words, values, names, _budgets(record, metric)))
    return pictures


def _picture(
    metric: str,
    words: str,
    values: dict[str, list[float]],
    names: Sequence[str],
    budgets: Sequence[tuple[float, float, str]],
) -> Latency:
    longest = max(value for row in values.values() for value in row if math.isfinite(value))
    # A generous budget must not press all curves against the axis: beyond four times the longest it is told in words.
    near = [limit for limit, _, _ in budgets if limit <= 4 * longest]
    end = max([longest, *near]) * 1.06
    width, height = PLOT

    def x(value: float) -> float:
        return round(width * value / end, 1)

    def y(share: float) -> float:
        return round(height * (1.0 - share), 1)

    curves = [
        Curve(engine=name, place=names.index(name), path=_steps(row, x, y), words=_quantiles(name, row))
        for name, row in values.items()
    ]
    return Latency(
        metric=metric,
        words=words,
        curves=curves,
        budgets=[Budget(at=x(limit) if limit in near else width, share=y(q), words=text) for limit, q, text in budgets],
        ticks=[Tick(at=x(value), words=explain.seconds(value)) for value in ticks(end)],
    )


def _steps(values: Sequence[float], x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """Return the path of a row of sorted times: it rises at each of them, of very many at some."""
    count = len(values)
    parts = [f"M0 {y(0.0)}"]
    for place in range(0, count, max(1, count // _POINTS)):
        if math.isinf(values[place]):
            break
        parts.append(f"H{x(values[place])}V{y((place + 1) / count)}")
    finite = bisect.bisect_left(values, math.inf)
    parts.append(f"H{x(values[finite - 1])}V{y(finite / count)}H{PLOT[0]}")
    return "".join(parts)


def _quantiles(name: str, values: Sequence[float]) -> str:
    """Return the quantiles of a row in words, the same figures as in verdicts and in the terminal."""
    shown = zip(("p50", "p95", "p99"), describe(values), strict=True)
    return f"{name}: " + ", ".join(f"{rank} {explain.seconds(value)}" for rank, value in shown)


def _budgets(record: RunRecord, metric: str) -> list[tuple[float, float, str]]:
    """Return limit, share and words of each budget on a metric; of a relative one the limit for the baseline's own."""
    budgets: dict[tuple[float, float, str], None] = {}
    for verdict in record.verdicts:
        match = re.fullmatch(rf"latency\.({metric}_(p\d+))", verdict.kind)
        given = match and re.search(rf"\b{match[1]}=([^,)\s]+)", verdict.check)
        if not match or not given:
            continue
        try:
            budget = parse_budget(match[1], given[1])
        except DesignError:
            continue
        limit, words = budget.limit, f"{budget.rank} at most {budget.text}"
        if budget.relative:
            base = _baseline_quantile(record.latency, verdict.baseline, metric, budget.rank)
            if base is None:
                continue
            limit = base * budget.limit
            words += f" of {verdict.baseline}'s: {explain.seconds(limit)}"
        budgets[limit, int(budget.rank[1:]) / 100, words] = None
    return list(budgets)


def _baseline_quantile(rows: Sequence[LatencyQuantiles], name: str | None, metric: str, rank: str) -> float | None:
    return next((getattr(row, rank, None) for row in rows if (row.engine, row.metric) == (name, metric)), None)


def ticks(end: float, most: int = 5) -> list[float]:
    """Return round numbers from 0 to ``end``, at most about so many.

    >>> ticks(0.93), ticks(11)
    ([0.0, 0.2, 0.4, 0.6, 0.8], [0.0, 2.0, 4.0, 6.0, 8.0, 10.0])
    """
    rough = end / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [round(number * step, 12) for number in range(math.floor(end / step) + 1)]


# the ladder -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of the ladder: a copy of the model, or an engine of this run (``ours``), with its bounds in nats."""

    words: str
    number: str
    estimate: float
    lower: float
    upper: float
    ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rungs:
    """The ladder of a model with the engines of this run on it, the finest first, on a logarithmic axis."""

    model: str
    date: str
    steps: list[Step]
    ticks: list[Tick]


def ladder(measured: Ladder | None, verdicts: Sequence[Verdict]) -> Rungs | None:
    """Return where the shifts of this run stand on the ladder of the baseline's model; ``None`` without either."""
    shifts = {
        verdict.engine: verdict
        for verdict in verdicts
        if verdict.kind == "logprobs" and verdict.estimate is not None and math.isfinite(verdict.estimate)
    }
    if measured is None or not shifts:
        return None
    rows = [(rung.quantization, rung.shift, rung.lower, rung.upper, False) for rung in measured.rungs]
    for name, verdict in shifts.items():
        assert verdict.estimate is not None
        bounds = (verdict.lower, verdict.upper)
        low, high = (verdict.estimate if value is None or not math.isfinite(value) else value for value in bounds)
        rows.append((name, verdict.estimate, low, high, True))
    rows.sort(key=lambda row: row[1])
    least = 1e-4
    first = math.floor(math.log10(max(least, min(row[2] for row in rows))))
    last = max(first + 1, math.ceil(math.log10(max(least, *(row[3] for row in rows)))))

    def at(value: float) -> float:
        return round(PLOT[0] * min(1.0, max(0.0, (math.log10(max(least, value)) - first) / (last - first))), 1)

    return Rungs(
        model=measured.model,
        date=measured.date,
        steps=[
            Step(words=name, number=explain.nats(mid), estimate=at(mid), lower=at(low), upper=at(high), ours=ours)
            for name, mid, low, high, ours in rows
        ],
        ticks=[Tick(at=at(10.0**power), words=explain.nats(10.0**power)) for power in range(first, last + 1)],
    )
