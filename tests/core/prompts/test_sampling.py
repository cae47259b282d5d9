"""Sampling parameters as somebody wrote them: one set of rules for markers, rows and questions on the spot."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.core.prompts.sampling import sampling_of
from pytest_llmparity.core.sample import Sampling


@pytest.mark.parametrize("stop", ["END", ["END"], ("END",)])
def test_a_stop_is_a_text_and_not_its_letters(stop: object) -> None:
    assert sampling_of({"stop": stop}, place="here") == Sampling(stop=("END",))


def test_nothing_given_is_greedy_and_neutral() -> None:
    assert sampling_of({}, place="here") == Sampling()
    assert sampling_of({"seed": None, "temperature": 1}, place="here") == Sampling(seed=None, temperature=1.0)


@given(
    st.dictionaries(
        st.sampled_from([field.name for field in dataclasses.fields(Sampling)]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers() | st.text()),
    )
)
def test_every_value_is_taken_as_it_is_or_refused_with_the_place(values: dict[str, Any]) -> None:
    try:
        sampling = sampling_of(values, place="the place")
    except UsageError as error:
        refused = str(error)
    else:
        for name, value in values.items():
            wanted = (value,) if name == "stop" and isinstance(value, str) else value
            assert getattr(sampling, name) == (tuple(wanted) if name == "stop" else wanted)
        return
    assert refused.startswith("the place: ")
