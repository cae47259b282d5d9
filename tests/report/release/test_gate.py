"""What is shown of a decision names each test so that no other is meant."""

from __future__ import annotations

import dataclasses

from pytest_llmparity.core.identity.record import Broken, Ground
from pytest_llmparity.core.words.nodeids import names_apart
from pytest_llmparity.report.release.gate import in_one_line, message, sections
from pytest_llmparity.run.judge.recorded import WholeRun
from tests.report.html.made import decided, decision


def test_parametrised_tests_of_two_classes_are_two() -> None:
    tests = ("t.py::TestFrench::test_x[a::b]", "t.py::TestEnglish::test_x[a::b]", "t.py::test_y")
    passed = [
        Ground(test=test, kind=kind, outcome="PASS", level="required", alone="SHIP", says=f"PASS {kind}")
        for test in tests
        for kind in ("text", "schema.rate")
    ]

    assert in_one_line(passed, names_apart(tests)) == (
        "TestFrench::test_x[a::b] (text, schema.rate), TestEnglish::test_x[a::b] (text, schema.rate), "
        "test_y (text, schema.rate)"
    )


def ground(test: str, outcome: str, *, level: str = "required", alone: str = "HOLD") -> Ground:
    return Ground(test=test, kind="text", outcome=outcome, level=level, alone=alone, says=f"{outcome} text: 10 %")


def test_tests_of_one_name_are_two_grounds_below_every_title() -> None:
    first, second = "t.py::TestA::test_x", "t.py::TestB::test_x"
    made = decision(
        verdicts=(
            *(ground(test, "FAIL") for test in (first, second)),
            *(ground(test, "INCONCLUSIVE", alone="INCONCLUSIVE") for test in (first, second)),
            *(ground(test, "FAIL", alone="SHIP") for test in (first, second)),
            *(ground(test, "FAIL", level="advisory") for test in (first, second)),
        ),
        broken=tuple(
            Broken(test=test, why="it broke", level=level, alone="HOLD")
            for level in ("required", "advisory")
            for test in (first, second)
        ),
    )

    told = {section.title: [entry.words for entry in section.entries] for section in sections(made)}

    assert told == {
        "Against it:": ["FAIL  TestA::test_x, text: 10 %", "FAIL  TestB::test_x, text: 10 %"],
        "Open:": ["INCONCLUSIVE  TestA::test_x, text: 10 %", "INCONCLUSIVE  TestB::test_x, text: 10 %"],
        "Failed for another reason than a verdict:": ["TestA::test_x: it broke", "TestB::test_x: it broke"],
        "Shipped by the policy all the same:": ["FAIL  TestA::test_x, text: 10 %", "FAIL  TestB::test_x, text: 10 %"],
        "Advisory, so it decides nothing:": [
            "FAIL  TestA::test_x, text: 10 %",
            "FAIL  TestB::test_x, text: 10 %",
            "TestA::test_x: it broke",
            "TestB::test_x: it broke",
        ],
    }


def test_a_test_has_one_name_in_a_whole_message() -> None:
    """One that failed beside one of its name that passed: each was alone below its title."""
    made = decided()
    (record,) = made.record.decisions
    both = (ground("t.py::TestA::test_x", "FAIL"), ground("t.py::TestB::test_x", "PASS", alone="SHIP"))

    whole = WholeRun(record=made.record, samples=made.samples, origin=made.origin)

    lines = message(dataclasses.replace(record, verdicts=both, broken=()), whole)

    assert "  FAIL  TestA::test_x, text: 10 %" in lines
    assert "Passed: TestB::test_x (text)" in lines
