"""JSON answers: what is accepted, what differs, and the order of keys."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from pytest_llmparity.core.compare.json import (
    ABSENT,
    FieldDiff,
    Parsed,
    _slow_json,
    diff_values,
    parse_json,
    strict_json,
)
from pytest_llmparity.core.compare.order import KeyOrder

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_what_json_writes_is_read(value: Any) -> None:
    text = json.dumps(value)

    assert parse_json(f" {text}\n") == Parsed(value=value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("```\n```", "Expecting value"),
        ('```json\n{"a": 1}\n```', "Expecting value"),
        ('\ufeff{"a": 1}', "BOM"),
        ('{"a": 1} thanks', "Extra data"),
        ('Sure: {"a": 1}', "Expecting value at line 1 column 1"),
        ('{"a": 1', "Expecting"),
        ('{"a": 1, "a": 2}', 'key "a" is given twice'),
        ('{"x": {"a": 1, "a": 1}}', "is given twice"),
        ("NaN", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("1e999", "out of range"),
        ("1" * 5000, "out of range"),
        ("[" * 200_000, "nested too deeply"),
        ("{'a': 1}", "Expecting property name"),
    ],
)
def test_what_is_not_json_says_why(text: str, words: str) -> None:
    parsed = parse_json(text)

    assert parsed.value is None
    assert parsed.error is not None
    assert words in parsed.error


numbers = st.from_regex(
    r"-?(0|[1-9][0-9]{0,30}|[1-9][0-9]{380,420})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True
)
pieces = st.sampled_from(
    [*'{}[]:, "\\/abkx-0.\n\t\x00\ufeff\xe9\u2028', '"a":', '"a"', "NaN", "null", "true", r"\u0022", r"\""]
)
written = st.recursive(
    numbers
    | st.text(st.characters(codec="utf-8")).map(json.dumps)
    | st.sampled_from(["null", '"\\""', r'"\u0022"', "1e999"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)} ]")
        | st.lists(st.tuples(st.sampled_from(['"a"', '"b"', r'"\"c"']), inner), max_size=4).map(
            lambda items: f"{{{', '.join(f'{key} :{item}' for key, item in items)}}}"
        )
    ),
    max_leaves=8,
)


def outcome(read: Callable[[str], Any], text: str) -> tuple[str, object]:
    """Return what a reader makes of a text: a value to the bit, or the error with its words."""
    try:
        value = read(text)
    except (ValueError, RecursionError) as error:
        return type(error).__name__, str(error)
    assert not isinstance(value, float) or math.isfinite(value)
    return type(value).__name__, repr(value)  # 1 is not 1.0 there, nor 0.0 -0.0


@given(st.lists(pieces).map("".join) | written | numbers.map(lambda number: f'{{"a": [{number}]}}') | st.text())
@example('{"a": 1, "b": "\\u0022", "a": "\\u0022"}')
@example("[" + "1" * 401 + "]")
@example(" " * 200 + "1" * 401)
@example('"\ud800"')
def test_the_fast_reader_says_what_the_slow_one_does(text: str) -> None:
    assert outcome(strict_json, text) == outcome(_slow_json, text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    parsed = parse_json(text)

    assert parsed.error is None or parsed.value is None


def test_fields_that_differ_are_named() -> None:
    ours = {"id": 1, "items": [{"name": "a", "n": 1}, {"name": "b"}], "odd key": True, "gone": None}
    theirs = {"items": [{"n": 1.0, "name": "A"}], "id": 1, "odd key": 1, "new": 0}

    assert diff_values(ours, theirs) == [
        FieldDiff(path="$.items[0].name", baseline="a", candidate="A"),
        FieldDiff(path="$.items[1]", baseline={"name": "b"}, candidate=ABSENT),
        FieldDiff(path='$["odd key"]', baseline=True, candidate=1),
        FieldDiff(path="$.gone", baseline=None, candidate=ABSENT),
        FieldDiff(path="$.new", baseline=ABSENT, candidate=0),
    ]
    assert repr(ABSENT) == "absent"


def test_numbers_compare_by_value_and_truth_is_no_number() -> None:
    assert diff_values([1, 2**60, True], [1.0, 2**60, True]) == []
    assert [diff.path for diff in diff_values([1, 0, "1"], [True, False, 1])] == ["$[0]", "$[1]", "$[2]"]
    assert diff_values([1], {"0": 1}) == [FieldDiff(path="$", baseline=[1], candidate={"0": 1})]


@given(values, values)
def test_difference_is_symmetric_and_empty_for_equals(a: Any, b: Any) -> None:
    forward, backward = diff_values(a, b), diff_values(b, a)

    assert diff_values(a, a) == []
    assert sorted(diff.path for diff in forward) == sorted(diff.path for diff in backward)


def test_deep_values_are_compared() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]

    assert diff_values(deep, deep) == []


class Line(BaseModel):
    name: str
    amount: float


class Card(BaseModel):
    number: str
    expiry: str


class Invoice(BaseModel):
    number: str
    lines: list[Line]
    payment: Card | None
    extra: dict[str, Line] = {}


def test_order_follows_references_lists_unions_and_maps() -> None:
    schema = Invoice.model_json_schema()
    line = {"name": "x", "amount": 1}
    right = {
        "number": "1",
        "lines": [line],
        "payment": {"number": "4", "expiry": "12"},
        "extra": {"b": line, "a": line},
    }
    swapped = {"amount": 1, "name": "x"}
    wrong = {
        "lines": [line, swapped],
        "number": "1",
        "payment": {"expiry": "12", "number": "4"},
        "extra": {"k": swapped},
    }

    assert KeyOrder(schema).moved(right) == []
    assert KeyOrder(schema).moved(wrong) == ["$", "$.lines[1]", "$.payment", "$.extra.k"]
    assert KeyOrder(schema).moved({"number": "1", "payment": None}) == []


AB = {"type": "object", "properties": {"a": {}, "b": {}}}
BA = {"b": 1, "a": 1}


def deep(inner: Any, levels: int, kind: str = "schema") -> Any:
    for _ in range(levels):
        inner = [inner] if kind == "list" else {"items": inner}
    return inner


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"prefixItems": [AB], "items": {}}, [BA, BA], ["$[0]"]),
        ({"anyOf": [AB, {"type": "string"}]}, BA, ["$"]),
        ({"anyOf": [AB, AB]}, BA, []),
        ({"anyOf": [AB, {"type": ["object", "null"], "required": ["c"]}]}, BA, ["$"]),
        ({"oneOf": [AB, {"properties": {"b": {"const": 2}}}]}, BA, ["$"]),
        ({"oneOf": [AB, {"properties": {"b": {"enum": [2, 3]}}}]}, BA, ["$"]),
        ({"oneOf": [AB, {"properties": {"b": True}, "additionalProperties": False}]}, BA, ["$"]),
        ({"allOf": [{"$ref": "#/$defs/x~1y"}], "$defs": {"x/y": AB}}, BA, ["$"]),
        ({"anyOf": [{"$ref": "#/$defs/loop"}, AB, 3], "$defs": {"loop": {"$ref": "#/$defs/loop"}}}, BA, []),
        ({"$ref": "#/$defs/loop", "$defs": {"loop": {"$ref": "#/$defs/loop"}}}, BA, []),
        ({"$ref": "#/nowhere"}, BA, []),
        ({"$ref": "https://elsewhere"}, BA, []),
        ({"properties": {"a": True}, "required": 3}, BA, []),
        ({"properties": 3}, BA, []),
        ({"anyOf": [{"type": "boolean"}, {"type": "integer"}, {"type": "number"}]}, 1.5, []),
        ({"anyOf": [{"type": "array", "items": AB}, {"type": "boolean"}]}, [BA], ["$[0]"]),
        ({"anyOf": [{"type": "boolean"}, {"type": "integer"}]}, True, []),
        ({"oneOf": [AB, {"properties": {"a": True, "b": True}}]}, BA, []),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text", []),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1, []),
        ({}, 1, []),
        ({"properties": {"a": {"items": {"type": "string"}}, "b": AB}}, {"b": BA, "a": ["x", BA]}, ["$", "$.b"]),
        ({"items": {"$ref": "#"}}, [[BA]], []),
        ({"items": {"items": {"$ref": "#"}, "additionalProperties": AB}}, [[[{"x": BA}]]], ["$[0][0][0].x"]),
        ({"$ref": "#/$defs/tree", "$defs": {"tree": {"items": {"anyOf": [{"$ref": "#/$defs/tree"}]}}}}, [[BA]], []),
        (deep({}, 900), deep(BA, 900, "list"), []),
        (deep(AB, 400), deep(BA, 400, "list"), ["$" + "[0]" * 400]),
    ],
)
def test_order_in_every_kind_of_schema(schema: dict[str, Any], value: Any, expected: list[str]) -> None:
    assert KeyOrder(schema).moved(value) == expected
