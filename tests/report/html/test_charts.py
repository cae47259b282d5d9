"""The page's pictures: everything is inside them, and stands where its number is."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

from pytest_llmparity.core.sample import Failure, Phase, Sample
from pytest_llmparity.core.stats.quantiles import describe
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.core.words import explain
from pytest_llmparity.report.html import charts
from tests.report.html.made import varied, verdict


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"floor": 0.5},
        {"lower": None, "upper": math.inf, "margin": None},
        {"unit": "share", "side": "at_least", "estimate": 0.99, "lower": 0.97, "upper": 1.0, "margin": 0.9},
        {"unit": "ratio", "estimate": 1.1, "lower": 0.9, "upper": 1.4, "margin": 1.25},
        {"estimate": 0.0, "lower": 0.0, "upper": 0.0, "margin": 0.0, "floor": 0.0},
        {"upper": math.nan, "lower": math.nan},
    ],
)
def test_a_bar_stays_in_its_width_and_its_order(more: dict[str, float]) -> None:
    made = verdict("text", "dev", Outcome.FAIL, **more)

    bar = charts.gauge(made)

    assert bar is not None
    assert 0.0 <= bar.lower <= bar.estimate <= bar.upper <= charts.GAUGE
    assert bar.margin is None or 0.0 <= bar.margin <= charts.GAUGE
    if bar.margin is not None and made.estimate != made.margin:
        assert (bar.estimate > bar.margin) is ((made.estimate or 0.0) > (made.margin or 0.0))


def test_what_has_no_number_has_no_bar() -> None:
    assert charts.gauge(verdict("text", "dev", Outcome.ERROR, estimate=None)) is None
    assert charts.gauge(verdict("latency.e2e_p50", "dev", Outcome.FAIL, estimate=math.inf)) is None


def test_a_curve_rises_to_the_share_that_was_answered() -> None:
    made = varied()
    failed = [
        Sample(engine="dev", case="plain-1", phase=Phase.TIMED, repeat=64 + n, failure=Failure(kind="T", message="t"))
        for n in range(64)
    ]

    pictures = {each.metric: each for each in charts.latency(made.record, [*made.samples, *failed])}

    assert list(pictures) == ["ttft", "e2e"]  # nothing is known of the time per token
    prod, dev = pictures["e2e"].curves
    for curve, top in ((prod, 0.0), (dev, charts.PLOT[1] / 2)):
        across = [float(x) for x in re.findall(r"H([\d.]+)", curve.path)]
        heights = [float(y) for y in re.findall(r"V([\d.]+)", curve.path)]
        assert across == sorted(across)
        assert heights == sorted(heights, reverse=True)
        assert heights[-1] == top
    (budget,) = pictures["e2e"].budgets
    assert (budget.words, round(budget.share, 6)) == ("p95 at most 2s", round(charts.PLOT[1] * 0.05, 6))
    assert [each.words for each in pictures["ttft"].budgets] == ["p50 at most x1.25 of prod's: 125 ms"]


def test_an_engine_stands_on_the_ladder_by_its_shift() -> None:
    record = varied().record

    rungs = charts.ladder(record.ladder, record.verdicts)

    assert rungs is not None
    assert [(step.words, step.ours) for step in rungs.steps] == [
        ("Q8_0", False), ("Q6_K", False), ("Q4_K_M", False), ("dev", True), ("Q3_K_S", False)
    ]  # fmt: skip
    assert [step.estimate for step in rungs.steps] == sorted(step.estimate for step in rungs.steps)
    assert all(0.0 <= step.lower <= step.estimate <= step.upper <= charts.PLOT[0] for step in rungs.steps)
    assert charts.ladder(None, record.verdicts) is None
    assert charts.ladder(record.ladder, [dataclasses.replace(v, kind="text") for v in record.verdicts]) is None


def test_the_quantiles_below_a_curve_are_those_of_the_terminal() -> None:
    times = [0.1, 0.2, 0.4, 0.9]
    p50, p95, p99 = (explain.seconds(value) for value in describe(times))

    assert charts._quantiles("dev", times) == f"dev: p50 {p50}, p95 {p95}, p99 {p99}"
