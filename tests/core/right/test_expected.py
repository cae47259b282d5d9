from __future__ import annotations

import pytest

from pytest_llmparity.core.prompts import Expect
from pytest_llmparity.core.right.expected import in_words, is_right, kept, why_wrong
from pytest_llmparity.core.sample import Completion, ToolCall

CALL = Completion(text="", finish_reason="tool_calls", tool_calls=(ToolCall(id="1", name="weather", arguments="{}"),))


@pytest.mark.parametrize(
    ("expect", "answer", "right"),
    [
        (Expect(answer="It is 42."), "It is 42.\n", True),
        (Expect(answer="It is 42."), "It is 42. Or so.", False),
        (Expect(contains=("7060", "code")), "The code is 7060.", True),
        (Expect(contains=("7060", "key")), "The code is 7060.", False),
        (Expect(answer="7060", contains=("code",)), "7060", False),
        (Expect(tool="weather"), "It is sunny.", False),
    ],
)
def test_an_answer_is_what_the_prompt_expects(expect: Expect, answer: str, right: bool) -> None:
    assert is_right(kept(expect), Completion(text=answer, finish_reason="stop")) is right


def test_a_call_of_the_tool_is_right() -> None:
    assert is_right(kept(Expect(tool="weather")), CALL)
    assert not is_right(kept(Expect(tool="news")), CALL)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Completion(text="It is sunny.", finish_reason="stop"), ""),
        (CALL, "calls weather, expected none"),
        (Completion(text="", finish_reason="tool_calls"), "ended to call a tool and has no call, expected none"),
        (Completion(text="I call it.", finish_reason="tool_calls"), "ended to call a tool and has no call, expected "),
        (Completion(text=" ", finish_reason="stop"), "says nothing, expected none"),
        (Completion(text="", reasoning="Hm.", finish_reason="stop"), "says nothing, expected none"),
    ],
)
def test_where_no_call_is_right_an_answer_is(answer: Completion, why: str) -> None:
    told = why_wrong(kept(Expect(tool="none")), answer)

    assert told.startswith(why)
    assert bool(told) == bool(why)


def test_schemas_and_nothing_are_left_to_checks() -> None:
    assert kept(Expect(schema={"type": "object"})) == kept(None) == {}
    assert not is_right({}, Completion(text="anything"))


@pytest.mark.parametrize(
    ("expect", "words"),
    [
        (Expect(answer="a\x1b[31m" * 9), "'a\\x1b[31ma\\x1b[31ma\\x1b[31ma\\x1b[31ma\\x…"),
        (Expect(contains=("7060", "key")), "'7060', 'key'"),
        (Expect(tool="weather"), "a call of weather"),
    ],
)
def test_what_is_expected_is_said_in_a_few_words(expect: Expect, words: str) -> None:
    assert in_words(kept(expect)) == words
