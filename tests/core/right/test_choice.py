from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.right.choice import choice


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is C. Option A is wrong because it is late.", "C"),
        ("The best choice is D since the choice A fails", "D"),
        ("A) Paris\nB) London\nAnswer: B", "B"),
        ("The answer is:\n\n  C", "C"),
        ("The answer is A because it is early.", "A"),
        ("The answer is C, I think.", "C"),
        ("Option A is wrong, option B is right.", "B"),
        ("I would go with option B.", "B"),
        ("\\boxed{C}", "C"),
        ("C: because", "C"),
        ("I", "I"),
    ],
)
def test_the_letter_that_is_announced_best_is_the_choice(text: str, value: str) -> None:
    assert choice(text).value == value


@pytest.mark.parametrize(
    "text",
    [
        "A) Paris\nB) London\nI would pick B.",
        "A) Paris B) London",
        "A. Paris\nB. London",
        "The answer: I think it is C.",
        "The answer: A good question.",
        "The wrong answer is A",
        "Answer A is incorrect",
        "The answer is A?",
        "The correct answer isn't B, it is C",
        "I do not think that the answer is B.",
        "Not (B)",
        "Both answers A and B",
        "Option A has stripes.",
    ],
)
def test_a_letter_that_is_not_chosen_is_not_read(text: str) -> None:
    assert choice(text).problem == "no choice in it"


@pytest.mark.parametrize(
    "text",
    [
        "The answer is A or B",
        "The answer is A/B",
        "Answer: A, B",
        "The answer is A. Or the answer is B.",
        "Option A. Option B.",
    ],
)
def test_two_choices_are_none(text: str) -> None:
    assert choice(text).problem == "two choices in it"


@given(
    st.lists(
        st.sampled_from(["The answer is ", "Option ", "A", "C", ")", "(", " is wrong", ".", "\n", " I "]), max_size=12
    )
)
def test_what_is_read_is_a_letter_that_stands_there(parts: list[str]) -> None:
    reading = choice("".join(parts))

    assert (reading.value in ("A", "C", "I")) != bool(reading.problem)
    assert reading.value is None or reading.value in "".join(parts)


def test_hostile_text_is_read_too() -> None:
    assert choice("answer" + " " * 100_000).problem == "no choice in it"
    assert choice("The answer is" + " " * 100_000 + "B").value == "B"
    assert choice("answer " * 20_000 + "\nAnswer: C").value == "C"
    assert choice("(" * 100_000).problem == "no choice in it"
