from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.right.truth import truth


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("True or False: False", False),
        ("Yes or no? No.", False),
        ("yes/no: yes", True),
        ("Answer: yes", True),
        ("No, it is not true.", False),
        ("No it is late.", False),
        ("It is true that he came.", True),
        ("Is it true? I would say no.", False),
    ],
)
def test_what_is_said_and_not_asked_is_read(text: str, value: bool) -> None:
    assert truth(text).value is value


@pytest.mark.parametrize(
    "text",
    [
        "That is not true.",
        "It cannot be true",
        "It isn't true.",
        "I have no idea.",
        "There is no way to tell.",
        "There is no way it is true.",
        "No doubt: yes",
        "No. 5 is the best",
        "Yes and no.",
        "Perhaps it is true.",
        "It's false that this is false",
        "Is that true?",
        "True or false?",
        "untrue",
    ],
)
def test_what_is_denied_or_doubted_or_asked_is_not_read(text: str) -> None:
    reading = truth(text)

    assert reading.value is None
    assert reading.problem


@given(st.lists(st.sampled_from(["yes", "no", "true", "not", "false", "is", ".", "?", ",", "or", "that"]), max_size=9))
def test_any_words_have_a_sense_or_a_problem(words: list[str]) -> None:
    reading = truth(" ".join(words))

    assert isinstance(reading.value, bool) != bool(reading.problem)


def test_hostile_text_is_read_too() -> None:
    assert truth(" " * 100_000 + "no").value is False
    assert truth("false that " * 10_000).problem
    assert truth("yes" * 30_000).problem
