from __future__ import annotations

import pytest

from pytest_llmparity.core.sample import Completion, TokenLogprob, from_json, to_json

TOKEN = TokenLogprob(token=b"a", logprob=-0.1)


@pytest.mark.parametrize(
    ("finish", "tokens", "limit", "cut"),
    [
        ("length", 3, 16, True),
        ("length", None, None, True),
        ("stop", 16, 16, True),
        ("tool_calls", 17, 16, True),
        ("", 16, 16, True),
        ("stop", 15, 16, False),
        ("stop", 16, None, False),
        ("stop", None, 16, False),
    ],
)
def test_an_answer_with_as_many_tokens_as_were_allowed_is_cut_whatever_it_says(
    finish: str, tokens: int | None, limit: int | None, cut: bool
) -> None:
    assert Completion(text="a", finish_reason=finish, completion_tokens=tokens, max_tokens=limit).cut is cut


def test_tokens_nobody_counted_are_counted_by_their_records() -> None:
    assert Completion(text="aa", finish_reason="stop", logprobs=(TOKEN,) * 2, max_tokens=2).cut
    assert not Completion(text="aa", finish_reason="stop", logprobs=(TOKEN,) * 2, max_tokens=3).cut


def test_a_stored_answer_keeps_the_limit_and_an_older_one_has_none() -> None:
    answer = Completion(text="a", finish_reason="stop", completion_tokens=4, max_tokens=4)
    older = {name: value for name, value in to_json(answer).items() if name != "max_tokens"}

    assert from_json(Completion, to_json(answer)).cut
    assert from_json(Completion, older) == Completion(text="a", finish_reason="stop", completion_tokens=4)
