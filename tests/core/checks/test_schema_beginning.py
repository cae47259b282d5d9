"""Beginnings of answers: broken already, or not to be told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.checks.schema.beginning import BLANK, blank_end, broken_already
from pytest_llmparity.core.prompts.pushing import Canary, canaries

INTEGER = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
FITTING: Mapping[str, object] = {
    "type": {"n": -12},
    "required": {"a": 1, "b": 22},
    "additionalProperties": {"a": 1},
    "enum": {"colour": "zayin"},
    "const": {"code": "x7-q2"},
    "pattern": {"id": "ABC-1234"},
    "minLength, maxLength": {"word": "y" * 30},
    "format": {"day": "2026-11-29"},
    "bounds of an integer": {"n": 4712},
    "bounds of a number": {"n": 47.6},
    "multipleOf": {"n": 194},
    "minItems, maxItems": {"list": [1, 2, 3, 4, 5]},
    "uniqueItems": {"list": [1, 2, 3, 4, 5]},
    "prefixItems": {"pair": ["x7", True]},
    "contains": {"list": ["a", "zayin"]},
    "anyOf": {"v": "zayin"},
    "oneOf": {"v": {"left": 1}},
    "allOf": {"n": 4712},
    "not": {"n": 7},
    "if, then": {"kind": "zayin", "n": 4712},
    "patternProperties": {"x1": 1},
    "minProperties": {"a": 1, "b": 2, "c": 3, "d": 4},
    "nested $ref": {"inner": {"leaf": "x7-q2"}},
    "recursive $ref": {"tree": {"value": "zayin", "below": [{"value": "zayin", "below": []}]}},
    "unicode": {"größe": "日本語"},
    "order of properties": {"zulu": 1, "mike": 2, "alfa": 3},
    "very large": {"p199": "zayin"},
}


@pytest.mark.parametrize("canary", [c for c in canaries() if c.name in FITTING], ids=lambda canary: canary.name)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_no_beginning_of_an_answer_that_fits_is_broken(canary: Canary, ascii_only: bool) -> None:
    text = json.dumps(FITTING[canary.name], ensure_ascii=ascii_only, indent=1)

    for end in range(len(text) + 1):
        assert broken_already(text[:end], canary.schema) is None, text[:end]


@pytest.mark.parametrize(
    ("schema", "text", "why"),
    [
        (INTEGER, '{"n": "ab', "$.n: begins as a string, and its type is integer"),
        (INTEGER, '{"n": [1', "$.n: begins as an array, and its type is integer"),
        (INTEGER, '{"n": 1.5, ', "$.n: 1.5 is not of type"),
        (INTEGER, '{"m": ', "$: the key 'm' may not stand here"),
        (INTEGER, '{"n": 1, "n": 2', "$: the key 'n' stands there twice"),
        (INTEGER, '{"n" 1', "stands where : is due"),
        (INTEGER, "{n: 1", "is no key"),
        (INTEGER, "Sure! Here is", "begins no JSON"),
        (INTEGER, "[", "$: begins as an array, and its type is object"),
        ({"properties": {"a": {"enum": ["zayin", "qoph"]}}}, '{"a": "re', '$.a: begins none of \'"zayin", "qoph"\''),
        ({"properties": {"a": {"maxLength": 2}}}, '{"a": "long', "$.a: is larger already than its maxLength, 2"),
        ({"items": {"type": "boolean"}, "maxItems": 1}, "[true, false, ", "$: is larger already than its maxItems, 1"),
        ({"prefixItems": [{"const": 1}], "items": False}, "[1, 2", "$[1]: nothing may stand here"),
        ({"properties": {"n": {"not": {"const": 5}}}}, '{"n": 5   ', "$.n: "),
        ({"properties": {"n": {"allOf": [{"type": "integer"}]}}}, '{"n": "a', "$.n: begins as a string"),
        ({"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"const": 1}}}, '{"a": tru', "$.a: begins none"),
    ],
)
def test_what_nothing_mends_is_named(schema: dict[str, Any], text: str, why: str) -> None:
    problem = broken_already(text, schema)

    assert problem is not None
    assert why in problem


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (INTEGER, "```json\n{"),
        (INTEGER, "<think>well"),
        (INTEGER, '{"n": 1' + "0" * 200),
        (INTEGER, '{"n":' + " " * 500),
        ({"properties": {"v": {"anyOf": [{"type": "integer"}]}}}, '{"v": "a'),
        ({"$ref": "https://example.org/x"}, '{"v": "a'),
        ({"properties": {"a": {"$ref": "#"}}, "required": ["b"]}, '{"a": {"a": {}}, '),
        ({}, '{"a": ' * 5000),
        ({"enum": ["\U0001f600"]}, '"\\ud83d'),  # half of a character
        ({"patternProperties": {"(?<x>a)": {"type": "integer"}}}, '{"a": "x'),  # Python has no such group
    ],
)
def test_what_cannot_be_told_is_not_told(schema: dict[str, Any], text: str) -> None:
    assert broken_already(text, schema) is None


@given(st.text(alphabet='{}[]":,tn1.-e \\uaZ', max_size=40))
def test_any_text_is_answered(text: str) -> None:
    assert broken_already(text, INTEGER) is None or text.strip()


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(_JSON, st.data())
def test_no_beginning_of_json_is_broken_where_everything_fits(value: Any, data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))

    assert broken_already(text[: data.draw(st.integers(0, len(text)))], {}) is None


def test_endless_white_space_is_told_and_a_little_is_not() -> None:
    assert str(BLANK) in blank_end('{"n":' + "\n" * BLANK)
    assert blank_end('{"n":' + "\t" * (BLANK - 1)) == ""
