"""JSON with something round it: every spelling of a code block, reasoning, words; and what is never guessed."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.compare.json import parse_json
from pytest_llmparity.core.compare.wrapped import CODE_BLOCK, MARK, REASONING, TEXT, unwrap

VALUE = {"order": 1, "note": "a ``` fence, a </p> and {braces}"}
TEXT_OF = json.dumps(VALUE)

objects = st.dictionaries(
    st.text(), st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))
)
prose = st.text(st.characters(exclude_characters="{}[]`~<>\ufeff", exclude_categories=["Cs", "Cc"]), max_size=20)


@pytest.mark.parametrize(
    "around",
    [
        "```json\n%s\n```",
        "```\n%s\n```",
        "```json %s ```",
        "```%s```",
        "```json\r\n%s\r\n```\r\n",
        "```Json\n%s\n```",
        "```JSON\n%s\n```",
        "```json5\n%s\n```",
        "```jsonc\n%s\n```",
        "~~~json\n%s\n~~~",
        "````json\n%s\n````",
        "  ```json\n  %s\n  ```",
        "\n\n```json\n\n%s\n\n```\n\n",
        "```json\n%s",
        "```json %s",
        "%s\n```",
    ],
)
def test_every_spelling_of_a_code_block_is_one(around: str) -> None:
    unwrapped = unwrap(around.replace("%s", TEXT_OF))

    assert unwrapped is not None
    assert (unwrapped.parsed.value, unwrapped.wrapping) == (VALUE, (CODE_BLOCK,))
    assert json.loads(unwrapped.body) == VALUE


@pytest.mark.parametrize(
    ("text", "wrapping"),
    [
        (f"<think>one {{x}}</think>\n{TEXT_OF}", (REASONING,)),
        (f"so it is one</think>\n\n{TEXT_OF}", (REASONING,)),
        (f"<THINKING>x</THINKING>{TEXT_OF}", (REASONING,)),
        (f"[THINK]x[/THINK]{TEXT_OF}", (REASONING,)),
        (f"Sure! Here it is: {TEXT_OF}", (TEXT,)),
        (f"{TEXT_OF}\n\nAnything else?", (TEXT,)),
        (f"As [sic] {{name}} says: {TEXT_OF}", (TEXT,)),
        (f"Here:\n```json\n{TEXT_OF}\n```\nDone.", (CODE_BLOCK, TEXT)),
        (f"```python\nprint(1)\n```\n```json\n{TEXT_OF}\n```", (CODE_BLOCK, TEXT)),
        (f'[1] says:\n```json\n{TEXT_OF}\n```\nnot {{"a": 1}}', (CODE_BLOCK, TEXT)),
        (f"<think>x</think>```json\n{TEXT_OF}\n``` bye", (REASONING, CODE_BLOCK, TEXT)),
        (f"\ufeff{TEXT_OF}", (MARK,)),
        (f"JSON: `{TEXT_OF}`", (CODE_BLOCK, TEXT)),
    ],
)
def test_what_stands_round_the_json_is_named(text: str, wrapping: tuple[str, ...]) -> None:
    unwrapped = unwrap(text)

    assert unwrapped is not None
    assert (unwrapped.parsed.value, unwrapped.wrapping) == (VALUE, wrapping)


@pytest.mark.parametrize(
    ("text", "value"),
    [("```json\n5\n```", 5), ('```\n"x"\n```', "x"), ("`true`", True), ("<think>a</think>null", None)],
)
def test_a_value_that_is_no_object_is_found_in_a_block(text: str, value: object) -> None:
    unwrapped = unwrap(text)

    assert unwrapped is not None
    assert (unwrapped.parsed.error, unwrapped.parsed.value) == (None, value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON at all",
        '{"a": 1} {"b": 2}',
        'see [1]: {"a": 1}',
        '{"a": {"b": 1}, "c": ',
        '[{"a": 1}, {"a": 2',
        "{'items': [1, 2]}",
        '{items: [1, 2], note: "x"}',
        '"hi" there',
        "{" * 100_000,
        "[" * 100_000,
        "{x}" * 1000 + "[1]",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_part_of_what_was_meant_is_never_taken_for_the_whole(text: str) -> None:
    begun = time.process_time()

    assert unwrap(text) is None
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    "text", ['```json\n{"a": 1\n```', '```json\n{"a": 1, "a": 2}\n```', "```json\n[NaN]\n```", "```\n```"]
)
def test_a_block_that_holds_no_json_says_why(text: str) -> None:
    unwrapped = unwrap(text)

    assert unwrapped is not None
    assert unwrapped.parsed.error
    assert unwrapped.wrapping == (CODE_BLOCK,)


@given(objects, prose, prose, st.sampled_from(["%s", "```json\n%s\n```", "~~~ %s ~~~", "<think>x</think>%s"]))
def test_one_object_between_words_is_found_as_it_is(value: Any, before: str, behind: str, around: str) -> None:
    text = f"{before} {around.replace('%s', json.dumps(value))} {behind}"

    unwrapped = unwrap(text)

    if parse_json(text).error is None:
        assert unwrapped is None or unwrapped.parsed.value == value
    elif unwrapped is not None:
        assert unwrapped.parsed.value == value
    else:
        assert "think" in around
        assert before.strip()


@given(st.text())
def test_any_text_is_read_or_not(text: str) -> None:
    unwrapped = unwrap(text)

    assert unwrapped is None or parse_json(unwrapped.body) == unwrapped.parsed
