from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.compare.answers import compare_answers, no_evidence, speechless
from pytest_llmparity.core.compare.calls import same_calls, written_out
from pytest_llmparity.core.sample import Completion, ToolCall


def answer(
    text: str, *calls: tuple[str, str], tokens: int | None = None, cut: bool = False, thought: str = ""
) -> Completion:
    return Completion(
        text=text,
        reasoning=thought,
        tool_calls=tuple(ToolCall(name=name, arguments=arguments) for name, arguments in calls),
        finish_reason="length" if cut else "tool_calls" if calls else "stop",
        completion_tokens=tokens,
    )


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), st.randoms())
def test_arguments_are_compared_as_values_however_they_are_spelled(arguments: dict[str, Any], source: Any) -> None:
    keys = list(arguments)
    source.shuffle(keys)
    other = json.dumps({key: arguments[key] for key in keys}, indent=source.choice([None, 2]), ensure_ascii=False)
    ours, theirs = answer("", ("f", json.dumps(arguments))), answer("", ("f", other))

    assert same_calls(ours.tool_calls, theirs.tool_calls)
    compared = compare_answers(ours, theirs, horizon=32)
    assert compared is not None
    assert (compared.fork.forked, compared.calls) == (False, True)
    changed = answer("", ("f", json.dumps({**arguments, "x": "another value"})))
    change = compare_answers(ours, changed, horizon=10_000)
    assert change is not None
    assert change.fork.forked


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([("f", "{}")], [("g", "{}")]),
        ([("f", "{}"), ("g", "{}")], [("g", "{}"), ("f", "{}")]),
        ([("f", "{}")], [("f", "{}"), ("f", "{}")]),
        ([("f", '{"a": 1}')], [("f", '{"a": true}')]),
        ([("f", '{"a": "1"}')], [("f", '{"a": 1}')]),
        ([("f", '{"a": [1, 2]}')], [("f", '{"a": [2, 1]}')]),
        ([("f", "")], [("f", "{}")]),
        ([("f", '{"a": NaN}')], [("f", '{"a": null}')]),
    ],
)
def test_other_calls_are_a_difference(ours: list[tuple[str, str]], theirs: list[tuple[str, str]]) -> None:
    compared = compare_answers(answer("", *ours, tokens=9), answer("", *theirs, tokens=9), horizon=32)

    assert compared is not None
    assert compared.fork.forked
    assert compared.baseline != compared.candidate


def test_a_call_that_the_token_limit_cut_is_known_up_to_there() -> None:
    whole = answer("", ("refund", '{"order": 1300, "now": true}'), tokens=12)
    cut = answer("", ("refund", '{ "order": 13'), tokens=6, cut=True)
    for ours, theirs in ((whole, cut), (cut, whole)):
        compared = compare_answers(ours, theirs, horizon=32)
        assert compared is not None
        assert not compared.fork.forked
        assert 0 < compared.fork.at_risk < 12
    other = compare_answers(whole, answer("", ("refund", '{"order": 14'), tokens=6, cut=True), horizon=32)
    assert other is not None
    assert other.fork.forked
    stopped = compare_answers(whole, answer("", ("refund", '{"order": 13'), tokens=6), horizon=32)
    assert stopped is not None
    assert stopped.fork.forked, "it ended there by itself"


def test_one_that_calls_and_one_that_speaks_part_where_the_text_would_go_on() -> None:
    call = ("refund", "{}")
    for ours, theirs, token in (
        (answer("", call, tokens=8), answer("Sure.", tokens=2), 0.0),
        (answer("Sure.", tokens=2), answer("", call, tokens=8), 0.0),
        (answer("Sure.", call, tokens=8), answer("Sure.", tokens=2), 1.82),
    ):
        compared = compare_answers(ours, theirs, horizon=32)
        assert compared is not None
        assert compared.fork.forked
        assert compared.fork.token == pytest.approx(token, abs=0.01)
    cut = compare_answers(answer("Sure.", call, tokens=8), answer("Sure", tokens=1, cut=True), horizon=32)
    assert cut is not None
    assert not cut.fork.forked


def test_what_says_nothing_is_no_evidence() -> None:
    empty, blank, thinking = (
        answer("", tokens=1),
        answer(" \n", tokens=1),
        answer("", tokens=64, cut=True, thought="hm"),
    )
    word, call = answer("yes", tokens=2), answer("", ("f", "{}"), tokens=5)

    assert all(map(speechless, (empty, blank, thinking)))
    assert not any(map(speechless, (word, call)))
    for pair in ((empty, blank), (empty, thinking), (thinking, thinking), (thinking, word), (call, thinking)):
        assert no_evidence(*pair)
        assert compare_answers(*pair, horizon=32) is None
    for pair in ((empty, word), (word, blank), (empty, call), (word, word)):
        assert not no_evidence(*pair)
        assert compare_answers(*pair, horizon=32) is not None
    assert compare_answers(answer("refund", tokens=1), answer("ref", tokens=1, cut=True), horizon=32) is None


def test_calls_are_written_out_one_a_line() -> None:
    ours = answer("Let me see.", ("f", '{"b": 1, "a": "é"}'), ("g", "{}"))

    assert written_out(ours, ours) == ('[call] f {"a":"é","b":1}\n[call] g {}',) * 2
    assert written_out(ours, answer("No.")) == ('Let me see.\n[call] f {"a":"é","b":1}\n[call] g {}', "No.")
    broken = answer("", ("f", '{"a": " 1 \\" 2", "b'))
    assert written_out(broken, answer("", ("g", "{}")))[0] == '[call] f {"a":" 1 \\" 2","b'
