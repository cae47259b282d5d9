"""Properties of a verdict: texts only, names that are public."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.report import junit
from tests.report.html.made import decision


def verdict(**more: object) -> Verdict:
    known = {"test": "t", "check": "schema()", "kind": "schema.gap", "engine": "q4_0", "baseline": "f16", **more}
    return Verdict(outcome=Outcome.FAIL, **known)  # type: ignore[arg-type]


def test_names_and_values_are_public() -> None:
    full = verdict(estimate=0.0812345678, lower=0.06, upper=0.1, margin=0.05, unit="share", n=64, groups=12, floor=0.0)

    assert junit.properties(full) == [
        ("llmparity.schema.gap.q4_0.outcome", "FAIL"),
        ("llmparity.schema.gap.q4_0.estimate", "0.0812346"),
        ("llmparity.schema.gap.q4_0.lower", "0.06"),
        ("llmparity.schema.gap.q4_0.upper", "0.1"),
        ("llmparity.schema.gap.q4_0.margin", "0.05"),
        ("llmparity.schema.gap.q4_0.unit", "share"),
        ("llmparity.schema.gap.q4_0.n", "64"),
        ("llmparity.schema.gap.q4_0.groups", "12"),
        ("llmparity.schema.gap.q4_0.floor", "0"),
        ("llmparity.schema.gap.q4_0.baseline", "f16"),
    ]


def test_what_is_not_known_has_no_property() -> None:
    assert [name.rpartition(".")[2] for name, _ in junit.properties(verdict(baseline=None))] == ["outcome", "n"]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_that_are_not_finite_are_still_text(value: float) -> None:
    assert ("llmparity.schema.gap.q4_0.upper", f"{value}") in junit.properties(verdict(upper=value))


@given(text=st.text(st.characters(), max_size=20))
def test_nothing_xml_cannot_hold_gets_in(text: str) -> None:
    properties = junit.properties(verdict(unit=text, kind=text))

    assert all(part.isascii() or part.encode() for pair in properties for part in pair)
    assert all(ord(char) >= 32 for pair in properties for part in pair for char in part)
    assert json.loads(json.dumps(properties)) == [list(pair) for pair in properties]


def test_a_decision_is_five_properties_of_the_suite() -> None:
    made = decision(policy="bad\x1b[31m.toml")

    assert junit.of_decision(made) == [
        ("llmparity.decision.dev.outcome", "HOLD"),
        ("llmparity.decision.dev.baseline", "prod"),
        ("llmparity.decision.dev.advice", made.advice),
        ("llmparity.decision.dev.policy", "bad\\x1b[31m.toml"),
        ("llmparity.decision.dev.sha256", "ab" * 32),
    ]
