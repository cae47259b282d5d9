"""What an application returns is written as JSON, or refused with its path: no value hangs or crashes who writes it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.values import NotJson, outcome_of, returned


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (nested(10_000), "nested deeper than 100 levels"),
        (-(10**308), r"\$ is a whole number of more than 308 digits: return its str\(\)"),
        ({"total": [10**5000]}, r"\$\.total\[0\] is a whole number of more than 308 digits: return its str\(\)"),
        ({"score": math.nan}, r"\$\.score is nan; JSON has finite numbers only"),
        ("\ud800", r"\$ holds half a character"),
        ({1, 2}, r"\$ is a set; JSON has none: return sorted"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_path(value: object, words: str) -> None:
    with pytest.raises(NotJson, match=words):
        returned(value)


def test_keys_with_control_characters_and_many_of_them_come_back_as_they_were() -> None:
    value = {"a\x1b[2J\x00b": 1, **{f"key-{n}": n for n in range(20_000)}}

    assert outcome_of(returned(value)).value == value


@given(st.integers(min_value=-(10**308) + 1, max_value=10**308 - 1))
def test_a_whole_number_that_is_taken_is_read_back(number: int) -> None:
    assert outcome_of(returned({"at": number})).value == {"at": number}
