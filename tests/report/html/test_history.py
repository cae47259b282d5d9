"""Pictures of a run's quantities over earlier runs: everything is inside them, and what cannot be compared is none."""

from __future__ import annotations

import dataclasses

from pytest_llmparity.core.history.entries import Entry, entry_of
from pytest_llmparity.report.html import history
from pytest_llmparity.report.html.page import page
from tests.report.html.made import HOSTILE, engine, varied


def runs(count: int) -> list[Entry]:
    record = varied().record
    made = []
    for number in range(count):
        engines = (engine("prod", "F16", baseline=True), engine("dev", "Q4_0", version=f"1.{number // 3}"))
        verdicts = [dataclasses.replace(v, estimate=0.01 * number, lower=None) for v in record.verdicts]
        made.append(
            entry_of(
                dataclasses.replace(
                    record, run=f"202611{number + 1:02}-101500-ab12", engines=engines, verdicts=tuple(verdicts)
                )
            )
        )
    return made


def test_a_picture_has_a_mark_for_each_run_and_holds_all_of_them() -> None:
    pictures = history.pictures(runs(7))

    wide, high = history.SIZE
    assert {"text", "schema.agree"} <= {picture.title for picture in pictures}
    for picture in pictures:
        assert len(picture.marks) == 7
        ats = [mark.at for mark in picture.marks]
        assert ats == sorted(ats)
        assert all(0 <= at <= wide for at in ats)
        assert all(0 <= y <= high for mark in picture.marks for y in (mark.estimate, mark.lower, mark.upper))
    changes = {picture.title: [change.words for change in picture.changes] for picture in pictures}
    assert changes["text"] == ["1.1 Q4_0", "1.2 Q4_0"]


def test_a_picture_names_the_test_with_its_parameters() -> None:
    test = "tests/test_gate.py::TestGate::test_tickets[a::b]"
    entries = [
        dataclasses.replace(entry, verdicts=tuple(dataclasses.replace(judged, test=test) for judged in entry.verdicts))
        for entry in runs(2)
    ]

    assert "dev against prod, test_tickets[a::b]" in {picture.beside for picture in history.pictures(entries)}


def test_pictures_of_tests_of_one_name_are_told_apart() -> None:
    tests = ("t.py::TestA::test_x", "t.py::TestB::test_x")
    entries = [
        dataclasses.replace(
            entry,
            verdicts=tuple(dataclasses.replace(judged, test=test) for test in tests for judged in entry.verdicts),
        )
        for entry in runs(2)
    ]

    beside = {picture.beside for picture in history.pictures(entries)}

    assert {"dev against prod, TestA::test_x", "dev against prod, TestB::test_x"} <= beside


def test_one_run_has_no_history_and_a_quantity_that_is_judged_no_more_neither() -> None:
    before, after = runs(2)
    gone = dataclasses.replace(after, verdicts=(), latency=())

    assert history.pictures([after]) == []
    assert history.pictures([]) == []
    assert history.pictures([before, gone]) == []


def test_the_page_draws_the_history_and_what_a_file_of_somebody_else_says_is_text() -> None:
    made, earlier = varied(), runs(2)
    attacks = [dataclasses.replace(e, version=HOSTILE) for e in earlier[1].engines]
    hostile = dataclasses.replace(earlier[1], engines=tuple(attacks))

    text = page(made.record, made.samples, history=[earlier[0], hostile])

    assert '<section id="history"' in text
    assert '<a href="#history">History</a>' in text
    assert "<script>window.owned" not in text
    assert '<section id="history"' not in page(made.record, made.samples)
