"""What is shown of a decision names each test so that no other is meant."""

from __future__ import annotations

from pytest_llmparity.core.identity.record import Ground
from pytest_llmparity.report.release.gate import in_one_line


def test_parametrised_tests_of_two_classes_are_two() -> None:
    tests = ("t.py::TestFrench::test_x[a::b]", "t.py::TestEnglish::test_x[a::b]", "t.py::test_y")
    passed = [
        Ground(test=test, kind=kind, outcome="PASS", level="required", alone="SHIP", says=f"PASS {kind}")
        for test in tests
        for kind in ("text", "schema.rate")
    ]

    assert in_one_line(passed) == (
        "TestFrench::test_x[a::b] (text, schema.rate), TestEnglish::test_x[a::b] (text, schema.rate), "
        "test_y (text, schema.rate)"
    )
