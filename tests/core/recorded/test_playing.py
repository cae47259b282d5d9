"""Which answer of a recording belongs to a request: one that was recorded for the same purpose, and no other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.recorded.playing import Answers, Purpose, purpose
from pytest_llmparity.core.recording import question
from pytest_llmparity.core.sample import Phase
from tests.core.test_recording import exchanged

ASKED = question("POST", "/v1/chat/completions", exchanged().request)


@given(
    st.sampled_from(Phase),
    st.integers(1, 10**6),
    st.integers(0, 10**6),
    st.sampled_from([{}, {"cached": True}, {"dropped": True}]),
)
def test_a_purpose_is_read_as_it_was_told(phase: Phase, concurrency: int, repeat: int, how: dict[str, Any]) -> None:
    told = Purpose(phase=phase, concurrency=concurrency, repeat=repeat, **how)

    assert purpose(told.path("/v1/x")) == (told, "/v1/x")


@pytest.mark.parametrize("path", ["/@v1_chat/v1/x", "/@main.4.0.", "/@mine.4.0./x", "/@main.4./x", ""])
def test_any_other_path_tells_no_purpose(path: str) -> None:
    assert purpose(path) == (None, path)


def test_what_was_gathered_is_for_its_phase_and_its_repeat() -> None:
    first, second = exchanged(repeat=0), exchanged(repeat=1)
    answers = Answers([first, second])

    assert answers.asked_as(Purpose(phase=Phase.MAIN, concurrency=4, repeat=1), ASKED) == [second]
    assert answers.asked_as(Purpose(phase=Phase.MAIN, concurrency=4, repeat=2), ASKED) == []
    assert answers.asked_as(Purpose(phase=Phase.COLD, concurrency=4), ASKED) == []
    assert answers.timed(ASKED, concurrency=4, cached=False) == []


def test_what_was_asked_at_two_concurrencies_is_that_of_the_one_that_is_asked() -> None:
    at_four, at_one = exchanged(), exchanged(concurrency=1)
    answers = Answers([at_four, at_one])

    assert answers.asked_as(Purpose(phase=Phase.MAIN, concurrency=1), ASKED) == [at_one]
    assert answers.asked_as(Purpose(phase=Phase.MAIN, concurrency=2), ASKED) == [at_four, at_one]


def test_what_was_timed_is_for_its_concurrency_and_its_cache() -> None:
    timed, cached = exchanged(phase=Phase.TIMED), exchanged(phase=Phase.TIMED, cached=True)
    answers = Answers([timed, cached])

    assert answers.timed(ASKED, concurrency=4, cached=False) == [timed]
    assert answers.timed(ASKED, concurrency=4, cached=True) == [cached]
    assert answers.timed(ASKED, concurrency=1, cached=False) == []
    assert answers.asked_as(Purpose(phase=Phase.MAIN, concurrency=4), ASKED) == []
