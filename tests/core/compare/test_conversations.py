from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pytest_llmparity.core.compare.answers import compare_answers, parted, turn_of
from pytest_llmparity.core.sample import Completion, Stopped, ToolCall


def call(name: str, arguments: str = "{}", tokens: int | None = 5, **fields: Any) -> Completion:
    calls = (ToolCall(name=name, arguments=arguments),)
    return Completion(text="", tool_calls=calls, finish_reason="tool_calls", completion_tokens=tokens, **fields)


def words(text: str, tokens: int | None = 4, finish: str = "stop") -> Completion:
    return Completion(text=text, finish_reason=finish, completion_tokens=tokens)


def talk(*turns: Completion) -> Completion:
    return msgspec.structs.replace(turns[-1], turns=turns[:-1])


SAME = talk(call("f", '{"a": 1}'), call("g"), words("Four words are here."))


@pytest.mark.parametrize(
    ("other", "place", "forked"),
    [
        (SAME, 0, False),
        (talk(call("f", '{"a":1.0}'), call("g"), words("Four words are here.")), 0, False),
        (talk(call("f", '{"a": 2}'), call("g"), words("Four words are here.")), 1, True),
        (talk(call("f", '{"a": 1}'), call("h"), words("Else.")), 2, True),
        (talk(call("f", '{"a": 1}'), words("At once.")), 2, True),
        (talk(call("f", '{"a": 1}'), call("g"), words("Four words are there.")), 3, True),
        (talk(call("f", '{"a": 1}'), call("g"), call("g"), words("Four words are here.")), 3, True),
        (words("At once."), 1, True),
    ],
)
def test_conversations_part_in_the_first_turn_that_differs(other: Completion, place: int, forked: bool) -> None:
    compared = compare_answers(SAME, other, horizon=64)

    assert compared is not None
    assert (parted(SAME, other), parted(other, SAME)) == (place, place)
    assert (compared.turn, compared.fork.forked) == (place, forked)
    assert compared.calls
    if place:
        assert compared.baseline[: compared.turn_at] == compared.candidate[: compared.turn_at]
        assert turn_of(SAME, other) == (SAME.conversation[place - 1], other.conversation[place - 1])


def test_tokens_of_turns_before_the_fork_were_at_risk() -> None:
    other = talk(call("f", '{"a": 1}'), call("g"), words("Other words."))

    late, early = (compare_answers(SAME, other, horizon=horizon) for horizon in (64, 8))

    assert late is not None
    assert early is not None
    assert 8 < late.fork.at_risk <= 14
    assert late.fork.forked
    assert (early.fork.forked, early.fork.at_risk) == (False, 8.0)  # it lies beyond the horizon


def test_a_turn_that_says_nothing_ends_the_comparison_and_a_first_one_leaves_nothing_to_compare() -> None:
    cut = talk(call("f", '{"a": 1}'), words("", finish="length"))

    compared = compare_answers(SAME, cut, horizon=64)

    assert compared is not None
    assert (compared.turn, compared.fork.forked) == (0, False)
    assert compared.fork.at_risk <= 5
    assert compare_answers(SAME, words("", finish="length"), horizon=64) is None


def test_what_a_conversation_stopped_at_is_its_last_turn() -> None:
    stopped = Stopped(kind="no result", words="w")
    shorter, longer = (talk(call("f"), call("g", stopped=stopped)), talk(call("f"), call("g"), words("x")))

    assert parted(shorter, talk(call("f"), call("g", stopped=stopped))) == 0
    assert parted(shorter, longer) == 3
    assert turn_of(shorter, longer) == (shorter, longer)
