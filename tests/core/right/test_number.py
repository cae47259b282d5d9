from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.right.number import NONE, number, only_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The area is 20 m2.", "20"),
        ("The area is 20 m^2.", "20"),
        ("In 2020 three people came.", "3"),
        ("Seven minus six equals one.", "1"),
        ("12 - 5 = 7", "7"),
        ("Step 2: 45", "45"),
        ("\\boxed{42}", "42"),
        ("It is -5 degrees", "-5"),
        ("20 km/h", "20"),
        ("1. 42", "42"),
        ("one million", "1000000"),
    ],
)
def test_a_number_that_stands_by_itself_is_read(text: str, value: str) -> None:
    assert number(text).value == Decimal(value)


@pytest.mark.parametrize(
    "text",
    [
        "It is minus five degrees.",
        "It is minus 5 degrees.",
        "Seven minus six",
        "three point five",
        "It opens at 9:30.",
        "on 2024-05-01",
        "between 10-12",
        "2 and 1/2",
        "x = 10^3",
        "10\u00b2",
        "\\frac{3}{4}",
        "1.200,50",
        "= 1 200 EUR",
        "vitamin B12",
        "GPT-4",
        "version 1.2.3",
        "3x2",
        "17 + 25",
        "the 3rd",
        "3 and a half",
        "It is 3 million.",
        "He had 3 sons; born nineteen eighty.",
    ],
)
def test_a_number_that_is_part_of_something_else_is_not_read(text: str) -> None:
    reading = number(text)

    assert reading.value is None
    assert reading.problem not in ("", NONE)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", "42"),
        (" 1,250.50 ", "1250.5"),
        ("$1,000", "1000"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("-7", "-7"),
        ("5 EUR", "5"),
        ("30 %", "30"),
        ("1e3", "1000"),
        ("-0", "0"),
        ("twenty-one", "21"),
        ("one", "1"),
    ],
)
def test_an_expectation_is_exactly_one_number(text: str, value: str) -> None:
    assert only_number(text).value == Decimal(value)


@pytest.mark.parametrize(
    "text", ["1/2", "2024-05-01", "3:45", "-3-5", "1,5", "20 m2", "1 200", "minus five", "3 million", "5 or 6"]
)
def test_more_than_one_number_is_no_expectation(text: str) -> None:
    assert only_number(text).problem == "more than one plain number in it"


@pytest.mark.parametrize("text", ["", "many", "nineteen eighty"])
def test_what_is_no_number_is_no_expectation(text: str) -> None:
    assert only_number(text).problem == NONE


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_a_number_that_is_expected_is_the_one_that_is_read(value: Decimal) -> None:
    assert only_number(f"{value:,}").value == number(f"So it is {value:,}.").value == value


@given(st.text(alphabet="0123456789.,:-/^ +emon$%", max_size=30))
def test_what_is_read_of_digits_and_signs_is_a_number_or_a_problem(text: str) -> None:
    for reading in (number(text), only_number(text)):
        assert isinstance(reading.value, Decimal) != bool(reading.problem)


def test_hostile_text_is_read_too() -> None:
    assert number("1," * 50_000).problem
    assert number(" " * 100_000 + "7").value == 7
    assert number("one and " * 12_000 + "7").value == 7
