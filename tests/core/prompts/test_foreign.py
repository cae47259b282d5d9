"""Whatever stands in a row of another tool is read, told, or in the list of what says nothing of a prompt."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.prompts.foreign import Imported, told
from pytest_llmparity.core.prompts.foreign.jsonl import bfcl, data_set, ifeval, mtbench, openai_batch
from pytest_llmparity.core.prompts.foreign.promptfoo import promptfoo

Row = dict[str, Any]
TURN: Row = {"role": "user", "content": "Hi"}
FUNCTION: Row = {"name": "f", "parameters": {"type": "dict", "properties": {}}}


def of_promptfoo(more: Row) -> tuple[Imported, ...]:
    case: Row = {"vars": {"x": "a"}, "description": "one"}
    whole: Row = {"prompts": ["Say {{x}}."], "tests": [case]}
    chat = json.dumps([{**TURN, **more}])
    return tuple(
        promptfoo(json.dumps(config), "c.yaml", lambda _: chat)
        for config in (
            {**whole, **more},
            {**whole, "tests": [{**case, **more}]},
            {**whole, "defaultTest": more},
            {**whole, "prompts": [{"raw": "Say {{x}}.", **more}]},
            {**whole, "prompts": ["file://chat.json"]},
        )
    )


def of_batch(more: Row) -> tuple[Imported, ...]:
    body = {"messages": [TURN]}
    return tuple(
        openai_batch(json.dumps(row), "b.jsonl")
        for row in (
            {"custom_id": "a", "body": body, **more},
            {"custom_id": "a", "body": {"messages": [{**TURN, **more}]}},
        )
    )


def of_bfcl(more: Row) -> tuple[Imported, ...]:
    row: Row = {"id": "simple_0", "question": [[TURN]], "function": [FUNCTION]}
    return tuple(
        bfcl(json.dumps(given), "b.jsonl")
        for given in (
            {**row, **more},
            {**row, "function": [{**FUNCTION, **more}]},
            {**row, "question": [[{**TURN, **more}]]},
        )
    )


def of_others(more: Row) -> tuple[Imported, ...]:
    return (
        ifeval(json.dumps({"key": 1, "prompt": "p", **more}), "i.jsonl"),
        mtbench(json.dumps({"question_id": 1, "turns": ["t"], **more}), "m.jsonl"),
        data_set(json.dumps({"question": "q", **more}), "d.jsonl", {}),
        data_set(json.dumps({"messages": [{**TURN, **more}]}), "d.jsonl", {}),
    )


@pytest.mark.parametrize("of_kind", [of_promptfoo, of_batch, of_bfcl, of_others])
@given(key=st.from_regex(r"x_[a-z]{1,8}", fullmatch=True))
def test_a_key_that_is_not_read_is_told_wherever_it_stands(
    of_kind: Callable[[Row], tuple[Imported, ...]], key: str
) -> None:
    for imported in of_kind({key: "something"}):
        assert len(imported.rows) == 1
        assert key not in json.dumps(imported.rows)
        assert [line for line in told(imported) if key in line], imported


@given(key=st.from_regex(r"x_[a-z]{1,8}", fullmatch=True))
def test_a_further_field_of_a_body_is_passed_through(key: str) -> None:
    imported = openai_batch(json.dumps({"custom_id": "a", "body": {"messages": [TURN], key: 1}}), "b.jsonl")

    assert imported.rows[0]["extra_body"] == {key: 1}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(True, "true or false"), (False, "true or false"), (["a"], "a list"), ({"text": []}, "a table")],
)
def test_an_answer_that_no_text_is_held_against_is_told(answer: object, kind: str) -> None:
    imported = data_set(json.dumps({"question": "q", "answer": answer}), "d.jsonl", {})

    assert "expect" not in imported.rows[0]
    assert told(imported) == [f"not expressed: answer in column answer that is {kind} (1 times)"]


@pytest.mark.parametrize(
    ("name", "truth", "expect", "lost"),
    [
        ("parallel_1", [{"f": {}}, {"f": {}}], {"tool": "f"}, "calls behind the first, and that there are several"),
        ("live_relevance_1", None, None, "which function is right: there is no answer for it"),
        ("live_irrelevance_1", None, {"tool": "none"}, ""),
    ],
)
def test_what_a_row_of_the_leaderboard_expects_is_said_or_told(
    name: str, truth: object, expect: Mapping[str, str] | None, lost: str
) -> None:
    row = {"id": name, "question": "q", "function": [FUNCTION]}
    imported = bfcl(json.dumps(row), "b.jsonl", json.dumps({"id": name, "ground_truth": truth}))

    assert imported.rows[0].get("expect") == expect
    assert (lost in imported.lost) == bool(lost)


@pytest.mark.parametrize(
    ("limits", "limit", "lines"),
    [
        ({"max_completion_tokens": 9}, 9, 0),
        ({"max_completion_tokens": 9, "max_tokens": 9}, 9, 0),
        ({"max_completion_tokens": 9, "max_tokens": 5}, 5, 1),
    ],
)
def test_both_names_of_the_limit_are_one(limits: Row, limit: int, lines: int) -> None:
    imported = openai_batch(json.dumps({"custom_id": "a", "body": {"messages": [TURN], **limits}}), "b.jsonl")

    assert imported.rows[0]["sampling"] == {"max_tokens": limit}
    assert len(told(imported)) == lines
