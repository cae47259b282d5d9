"""What is kept of a run, and runs as series."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from pytest_llmparity.core.history.entries import Entry, about, entry_of, in_order
from pytest_llmparity.core.history.series import series
from pytest_llmparity.core.identity.record import LatencyQuantiles
from pytest_llmparity.core.sample import from_json, to_json
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.report.history import lines
from pytest_llmparity.report.html.history import pictures
from tests.report.html.made import TEST, varied, verdict


def run(number: int, *, estimate: float = 0.01, test: str = TEST, latency: float | None = None) -> Entry:
    rows = [LatencyQuantiles(engine="dev", metric="e2e", p50=latency, p95=2 * latency, p99=9.0, n=9)] if latency else []
    outcome = Outcome.FAIL if estimate > 0.05 else Outcome.PASS
    return entry_of(
        dataclasses.replace(
            varied().record,
            run=f"202611{number:02}-101500-ab12",
            verdicts=(
                verdict("prompts", "dev", Outcome.PASS, estimate=0.0, unit="", test=test),
                verdict("text", "dev", outcome, estimate=estimate, upper=math.inf, test=test),
            ),
            latency=tuple(rows),
        )
    )


def test_a_run_is_kept_without_answers_folders_and_numbers_without_an_end() -> None:
    made = varied()

    text = json.dumps(to_json(entry_of(made.record)), allow_nan=False)

    assert made.record.verdicts[0].differing
    assert "differing" not in text
    assert "/srv/models" not in text
    assert from_json(Entry, json.loads(text)) == entry_of(made.record)


def test_the_outcome_of_a_run_is_its_worst_and_a_test_that_failed_otherwise_an_error() -> None:
    record = dataclasses.replace(varied().record, verdicts=(verdict("text", "dev", Outcome.PASS),), errors={})

    assert entry_of(record).outcome is Outcome.PASS
    assert entry_of(dataclasses.replace(record, errors={"t": "assert 0"})).outcome is Outcome.ERROR
    assert entry_of(dataclasses.replace(record, verdicts=())).outcome is None


def test_runs_of_several_sources_are_told_once_and_in_the_order_of_time() -> None:
    earlier, later = run(1), run(2)
    again = dataclasses.replace(earlier, version="9")

    assert in_order([later, earlier], [again]) == [again, later]


def test_a_test_is_named_by_a_piece_of_its_node_id() -> None:
    runs = [run(1), run(2, test="other.py::test_x")]

    assert [entry.run for entry in about(runs, "test_tickets")] == [runs[0].run]
    assert about(runs, "nowhere") == []


def test_quantities_are_followed_over_the_runs_that_judged_them() -> None:
    drift, latency = series([run(1), run(2, estimate=0.2, latency=0.5), run(3)])

    assert (drift.kind, drift.engine, drift.baseline, drift.unit) == ("text", "dev", "prod", "forks/token")
    assert [point.outcome for point in drift.points] == [Outcome.PASS, Outcome.FAIL, Outcome.PASS]
    assert [point.upper for point in drift.points] == [None, None, None], "what is infinite is not known"
    assert (latency.test, latency.kind, latency.unit) == ("", "e2e p50", "s")
    assert [(point.estimate, point.upper) for point in latency.points] == [(0.5, 1.0)]


def test_two_checks_of_one_kind_are_two_quantities_and_one_whose_margin_moved_stays_one() -> None:
    loose, tight = (verdict("text", "dev", Outcome.PASS, check=f"text(margin={m})", margin=m) for m in (0.05, 0.01))

    def judging(number: int, *verdicts: Verdict) -> Entry:
        record = dataclasses.replace(varied().record, run=f"202611{number:02}-101500-ab12", latency=())
        return entry_of(dataclasses.replace(record, verdicts=verdicts))

    both = series([judging(1, loose, tight), judging(2, loose, tight)])
    moved = series([judging(1, loose), judging(2, tight)])

    assert [(s.check, len(s.points)) for s in both] == [("text(margin=0.05)", 2), ("text(margin=0.01)", 2)]
    assert [(s.check, len(s.points)) for s in moved] == [("", 2)]
    assert pictures([judging(1, loose, tight)]) == [], "one run is no history"
    assert [picture.title for picture in pictures([judging(1, loose, tight), judging(2, loose, tight)])] == [
        "text of text(margin=0.05)",
        "text of text(margin=0.01)",
    ]
    (head, *_) = lines([judging(1, loose, tight)])
    assert "text(margin=0.05) margin 5 %, text(margin=0.01) margin 1 %" in head


@pytest.mark.parametrize("kind", ["prompts", "text.repeat"])
def test_what_only_passed_and_is_no_drift_is_left_out(kind: str) -> None:
    record = dataclasses.replace(varied().record, verdicts=(verdict(kind, "dev", Outcome.PASS, estimate=0.0),))
    failed = dataclasses.replace(record, verdicts=(verdict(kind, "dev", Outcome.FAIL, estimate=1.0),), latency=())
    passed = entry_of(dataclasses.replace(record, latency=()))

    assert series([passed]) == []
    assert [quantity.kind for quantity in series([passed, entry_of(failed)])] == [kind]


def test_runs_against_recorded_answers_of_an_engine_are_in_its_history_and_told_once() -> None:
    def against(number: int, name: str, **recorded: str) -> Entry:
        record = varied().record
        engines = tuple(
            dataclasses.replace(engine, name=name, **recorded) if engine.name == "prod" else engine  # type: ignore[arg-type]
            for engine in record.engines
        )
        verdicts = (dataclasses.replace(verdict("text", "dev", Outcome.PASS, estimate=0.01), baseline=name),)
        run = f"202611{number:02}-101500-ab12"
        return entry_of(dataclasses.replace(record, run=run, engines=engines, verdicts=verdicts, latency=()))

    entries = [
        against(1, "prod"),
        against(2, "golden-prod", golden="prod"),
        against(3, "replay-prod", recording="prod"),
    ]

    (quantity,) = series(entries)
    head, *rows = lines(entries)

    assert len(quantity.points) == 3
    assert head.startswith("test_tickets: dev against prod")
    assert [row.split()[0] for row in rows] == [entry.run for entry in entries]
