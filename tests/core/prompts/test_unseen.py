from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.prompts.unseen import DIGITS, behind, number
from pytest_llmparity.core.sample import Request


@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.text(), min_size=1, max_size=4))
def test_a_number_has_always_as_many_digits_and_another_request_another_one(
    names: list[str], others: list[str]
) -> None:
    assert len(number(*names)) == DIGITS + 1
    assert number(*names).strip().isdigit()
    assert (number(*names) == number(*others)) == ("/".join(names) == "/".join(others))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "system", "content": "Be kind."}, {"role": "system", "content": "7\nBe kind."}),
        ({"role": "user", "content": ""}, {"role": "user", "content": "7\n"}),
        (
            {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}]},
            {"role": "user", "content": [{"type": "text", "text": "7\nHi"}, {"type": "text", "text": "!"}]},
        ),
    ],
)
def test_the_first_text_is_changed_and_nothing_else(message: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    last = {"role": "user", "content": "How long?"}
    request = behind("7\n", Request(case="c", messages=(message, last)))

    assert request is not None
    assert list(request.messages or ()) == [expected, last]


def test_a_raw_prompt_begins_with_the_number() -> None:
    request = behind("7\n", Request(case="c", prompt="Once"))
    assert request is not None
    assert request.prompt == "7\nOnce"


@pytest.mark.parametrize(
    "first",
    [
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]},
        {"role": "user", "content": []},
    ],
)
def test_what_begins_with_no_text_stays_as_it_is(first: Mapping[str, Any]) -> None:
    assert behind("7\n", Request(case="c", messages=(first,))) is None
