from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.identity.spelling import sampling_defaults, tensor_types


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"repeat_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"temp": 0.800000011920929, "typ_p": 1.0}, {"temperature": 0.8, "typical_p": 1}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"top_k": 40, "top_n_sigma": -3.0}, {"top_k": 40, "top_n_sigma": -1}),
        ({"do_sample": True, "stream": True, "stop": ["x"]}, {"do_sample": True}),
        ({"temperature": float("nan"), "top_p": "0.9", "min_p": None}, {}),
    ],
)
def test_one_name_and_one_spelling_of_numbers(told: dict[str, object], expected: dict[str, object]) -> None:
    text = sampling_defaults(told)

    assert (json.loads(text) if text else {}) == expected
    assert "1.0" not in text


@given(st.dictionaries(st.sampled_from(["temperature", "top_k", "top_p", "repeat_penalty"]), st.floats()))
def test_spelling_twice_changes_nothing(told: dict[str, float]) -> None:
    once = sampling_defaults(told)

    assert not once or sampling_defaults(json.loads(once)) == once


def test_types_are_counted_in_one_order() -> None:
    assert tensor_types(["Q6_K", "F32", "Q4_K", "F32"]) == "F32:2 Q4_K:1 Q6_K:1"
    assert tensor_types([]) == ""
