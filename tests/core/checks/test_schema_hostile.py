"""Schemas and answers that were made to hang, to fill memory or to crash who reads them."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity import check
from pytest_llmparity.core.checks.schema.contract import Contract
from pytest_llmparity.core.compare.fields import EVERYTHING, Fields
from pytest_llmparity.core.compare.order import KeyOrders
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.core.words import explain


def problem(schema: Any, text: str, *, lenient: bool = False) -> str | None:
    contract = Contract.from_text(json.dumps(schema), "the schema", lenient=lenient)
    return contract.hold(Completion(text=text)).problem


@pytest.mark.parametrize("text", ["[" * 10_000 + "]" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000, "[" * 1_000_000])
@pytest.mark.parametrize("lenient", [False, True])
def test_an_answer_nested_ten_thousand_levels_deep_does_not_fit(text: str, lenient: bool) -> None:
    recursive = {"properties": {"a": {"$ref": "#"}}, "items": {"$ref": "#"}}

    assert problem(recursive, text, lenient=lenient) == "not JSON: nested too deeply"


def test_an_answer_as_deep_as_can_be_read_is_held_against_its_schema() -> None:
    deep = '{"a":' * 500 + '"x"' + "}" * 500

    assert problem({"properties": {"a": {"$ref": "#"}}}, deep) is None
    assert "is not of type" in str(problem({"type": ["object", "null"], "properties": {"a": {"$ref": "#"}}}, deep))


@pytest.mark.parametrize("levels", [300, 10_000])
def test_a_schema_nested_too_deeply_is_refused_in_words(levels: int) -> None:
    text = '{"properties":{"a":' * levels + "{}" + "}}" * levels
    nested: dict[str, Any] = {}
    for _ in range(levels):
        nested = {"not": nested}

    with pytest.raises(DesignError, match="nested too deeply"):
        Contract.from_text(text, "the schema")
    with pytest.raises(DesignError, match=r"nested too deeply|references lead on"):
        check.schema(nested, rate=0.9)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"anyOf": [{"$ref": "#"}, {"$ref": "#/$defs/a"}]}}},
        {"$dynamicAnchor": "x", "$dynamicRef": "#x"},
    ],
)
def test_references_that_go_in_circles_come_to_an_end(schema: dict[str, Any]) -> None:
    told = problem(schema, '{"x": [1, {"y": 2}]}')

    assert told is None or "is not valid under any of the schemas" in told


@pytest.mark.parametrize("word", ["allOf", "anyOf", "oneOf"])
def test_references_that_double_again_and_again_are_refused(word: str) -> None:
    doubled: dict[str, Any] = {f"d{n}": {word: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    anchored = {name: {**part, "$anchor": name} for name, part in doubled.items()}
    by_anchor = json.loads(json.dumps(anchored).replace("#/$defs/", "#"))

    for definitions in (doubled, by_anchor):
        bomb = {"$defs": {**definitions, "d40": {"$anchor": "d40"}}, "properties": {"a": {"$ref": "#/$defs/d0"}}}
        with pytest.raises(DesignError, match="one value against more than 100000 schemas"):
            check.schema(bomb, rate=0.9)


TWICE = 2


@pytest.mark.parametrize("word", ["dependentSchemas", "dependencies"])
def test_branches_that_a_key_brings_are_counted(word: str) -> None:
    doubled = {f"d{n}": {word: {"a": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * TWICE}}} for n in range(40)}

    with pytest.raises(DesignError, match="one value against more than 100000 schemas"):
        check.schema({"$defs": {**doubled, "d40": {}}, "$ref": "#/$defs/d0"}, rate=0.9)


@pytest.mark.parametrize(
    ("base", "own", "reference"),
    [
        ("http://x.example/s", False, "http://x.example/s#/$defs/d{}"),
        ("http://x.example/s", False, "s#/$defs/d{}"),
        ("http://x.example/", True, "d{}"),
        ("http://x.example/", True, "http://x.example/a/../d{}"),
        ("foo://x.example/s", True, "foo://x.example/d{}"),
        ("urn:x:s", False, "urn:x:s#/$defs/d{}"),
        ("s", True, "./d{}"),
    ],
)
def test_references_by_an_id_of_the_schema_itself_are_followed(base: str, own: bool, reference: str) -> None:
    names = [f"d{n}" for n in range(41)]
    doubled: dict[str, Any] = {
        name: {"allOf": [{"$ref": reference.format(n + 1)}] * TWICE} for n, name in enumerate(names[:40])
    }
    doubled["d40"] = {}
    if own:
        doubled = {name: {"$id": name, **part} for name, part in doubled.items()}

    with pytest.raises(DesignError, match="one value against more than 100000 schemas"):
        check.schema({"$id": base, "$defs": doubled, "$ref": reference.format(0)}, rate=0.9)


def test_a_few_references_by_an_id_are_used() -> None:
    schema = {"$id": "http://x.example/", "$defs": {"n": {"$id": "n", "type": "integer"}}, "$ref": "n"}

    assert problem(schema, "1") is None
    assert problem(schema, '"1"') is not None


def test_a_chain_of_thousands_of_references_is_refused() -> None:
    chain: dict[str, Any] = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(20_000)}

    with pytest.raises(DesignError, match="references lead on from one another"):
        check.schema({"$defs": {**chain, "d20000": {}}, "$ref": "#/$defs/d0"}, rate=0.9)


def test_a_chain_is_refused_from_deep_inside_other_calls_too() -> None:
    chain = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(200)}

    def declared_at(depth: int) -> None:
        if depth:
            declared_at(depth - 1)
        else:
            check.schema({"$defs": {**chain, "d200": {}}, "$ref": "#/$defs/d0"}, rate=0.9)

    with pytest.raises(DesignError, match="references lead on from one another"):
        declared_at(sys.getrecursionlimit() - 400)


@pytest.mark.parametrize(
    "pattern",
    [r"^(a+)+$", r"^(a|aa)+$", r"^(?=(a|aa)+$)b", r"(.*)*\1x", r"^(([a-z])+.)+[A-Z]([a-z])+$", r"(?<!a{500})b"],
)
def test_patterns_that_try_everything_do_not_match_after_so_many_steps(pattern: str) -> None:
    message = str(problem({"pattern": pattern}, json.dumps("a" * 10_000 + "!")))

    assert "does not match" in message or message == (
        "$: its pattern takes more than 100000 steps on this answer, so it counts as no match"
    )
    assert len(message) <= 1100


def test_a_pattern_that_would_take_gigabytes_is_refused() -> None:
    with pytest.raises(DesignError, match="is not a usable JSON Schema"):
        check.schema({"pattern": "(a{1000}){1000}"}, rate=0.9)


@pytest.mark.slow
def test_a_hundred_thousand_properties_are_read_compared_and_counted() -> None:
    names = [f"p{n}" for n in range(100_000)]
    schema: dict[str, Any] = {
        "properties": {name: {"type": "integer"} for name in names},
        "additionalProperties": False,
    }
    fits, moved = dict.fromkeys(names, 1), dict.fromkeys(reversed(names), 1)
    contract = Contract.from_text(json.dumps(schema), "the schema")

    first = contract.hold(Completion(text=json.dumps(fits)))
    second = contract.hold(Completion(text=json.dumps(dict.fromkeys(names, "x"))))

    assert (first.problem, second.problem) == (None, '$.p0: "x" is not of type "integer"')
    assert len(EVERYTHING.differences(first.value, second.value)) == 100_000
    assert len(Fields(read=("$.p5",)).differences(first.value, second.value)) == 1
    assert KeyOrders().moved(moved, schema)
    assert not KeyOrders().moved(fits, schema)


def test_an_answer_with_a_million_faults_names_the_first() -> None:
    text = "[" + ",".join(['"x"'] * 1_000_000) + "]"

    assert problem({"items": {"type": "integer"}}, text) == '$[0]: "x" is not of type "integer"'


TEN_MEGABYTES = 10_000_000


@pytest.mark.parametrize("begin", ['"', "x", "{", ""])
def test_what_is_said_of_an_answer_of_ten_megabytes_is_short(begin: str) -> None:
    text = begin + {"{": " ", "": "9"}.get(begin, "a") * TEN_MEGABYTES + ('"' if begin == '"' else "")

    message = str(problem({"type": "object"}, text))

    assert len(message) <= 1100
    assert len(explain.plain(message, 120)) <= 120


def test_keys_with_control_characters_stand_in_quotes_and_escaped() -> None:
    message = str(problem({"additionalProperties": {"type": "integer"}}, json.dumps({"a\x1b[2J\n\u202e": "x"})))

    assert message == '$["a\\u001b[2J\\n\\u202e"]: "x" is not of type "integer"'


WORDS = st.sampled_from(
    [*("type", "const", "enum", "anyOf", "allOf", "not", "$ref", "items", "properties", "required", "pattern"), "a"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["#", "#/properties/a", "object", "string", "^(a+)+$", "(", "https://example.com/s"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
CONTROLS = re.compile(r"[\x00-\x1f]")


@given(schema=st.dictionaries(WORDS, VALUES, max_size=5), answer=VALUES | st.text(max_size=12), lenient=st.booleans())
def test_any_schema_is_used_or_refused_in_words_and_any_answer_is_judged(
    schema: dict[str, Any], answer: Any, lenient: bool
) -> None:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    try:
        contract = Contract.from_text(json.dumps(schema), "the schema", lenient=lenient)
    except DesignError as refused:
        words, reading = str(refused), None
    else:
        words, reading = "", contract.hold(Completion(text=text))

    assert not CONTROLS.search(words)
    assert reading is None or reading.parsed or reading.problem
    assert reading is None or len(reading.problem or "") <= 1200


@pytest.mark.parametrize("part", [{"examples": [{"id": "order:[1]"}]}, {"const": {"id": "note: see [1]"}}])
def test_a_text_that_looks_like_an_address_and_is_none_is_no_trouble(part: dict[str, Any]) -> None:
    check.schema({"type": "object", **part}, rate=0.9)
