from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import pytest_llmparity
from pytest_llmparity.core import schemas
from pytest_llmparity.core.errors import PromptSetError
from pytest_llmparity.core.prompt_reading import parse_prompts
from pytest_llmparity.core.prompts import Case, Expect, PromptSet
from pytest_llmparity.core.sample import Sampling

WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
IDS = st.text(string.ascii_letters + string.digits + "-/.é ", min_size=1, max_size=30).filter(str.strip)
ROWS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"id": IDS},
    optional={
        "group": IDS,
        "tags": st.lists(WORDS, max_size=3),
        "sampling": st.fixed_dictionaries(
            {}, optional={"temperature": st.floats(0, 2), "seed": st.none() | st.integers(), "stop": WORDS}
        ),
        "response_format": st.fixed_dictionaries({"type": st.just("json_object")}),
        "expect": st.fixed_dictionaries({}, optional={"answer": WORDS, "contains": WORDS | st.lists(WORDS)}),
    },
).flatmap(
    lambda row: st.one_of(
        WORDS.map(lambda text: {**row, "prompt": text}),
        st.lists(
            st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text()}),
            min_size=1,
            max_size=3,
        )
        .filter(lambda turns: all(json.dumps(t).find("\\ud") < 0 for t in turns))
        .map(lambda turns: {**row, "messages": turns}),
    )
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def read(*rows: object, source: str = "p.jsonl") -> PromptSet:
    return parse_prompts("\n".join(json.dumps(row) for row in rows), source=source, name="p")


def complaint(text: str, source: str = "p.jsonl") -> str:
    with pytest.raises(PromptSetError) as caught:
        parse_prompts(text, source=source, name="p")
    return str(caught.value)


def wrong(**row: Any) -> str:
    return complaint(json.dumps({"id": "a", "prompt": "x", **row}))


# -- what is read


def test_a_full_row_becomes_a_case() -> None:
    (case,) = read(
        {
            "id": "refund-1",
            "group": "refunds",
            "messages": [{"role": "system", "content": "Be {how}."}, {"role": "user", "content": "{n} days {{}}"}],
            "vars": {"how": "terse", "n": 30},
            "tags": ["t"],
            "sampling": {"max_tokens": 5, "stop": "\n", "seed": None},
            "tools": [{"type": "function"}],
            "tool_choice": "auto",
            "response_format": {"type": "json_object"},
            "expect": {"schema": "ticket.json", "answer": "30", "tool": "look", "contains": "day"},
        }
    ).cases

    assert case == Case(
        id="refund-1",
        group="refunds",
        messages=({"role": "system", "content": "Be terse."}, {"role": "user", "content": "30 days {}"}),
        tags=("t",),
        sampling={"max_tokens": 5, "stop": ("\n",), "seed": None},
        tools=({"type": "function"},),
        tool_choice="auto",
        response_format={"type": "json_object"},
        expect=Expect(schema="ticket.json", answer="30", tool="look", contains=("day",)),
        line=1,
    )


def test_what_the_row_sets_wins_over_the_tests_sampling() -> None:
    (case,) = read({"id": "a", "prompt": "x", "sampling": {"max_tokens": 5}}).cases

    request = case.request(Sampling(max_tokens=64, temperature=0.5), top_logprobs=3)

    assert (request.sampling.max_tokens, request.sampling.temperature) == (5, 0.5)
    assert (request.case, request.prompt, request.messages, request.top_logprobs) == ("a", "x", None, 3)


def test_without_vars_braces_stay_as_they_are() -> None:
    assert read({"id": "a", "prompt": 'Answer {"a": {{1}}} {name}'}).cases[0].prompt == 'Answer {"a": {{1}}} {name}'


def test_a_value_that_looks_like_a_variable_is_not_filled_again() -> None:
    assert read({"id": "a", "prompt": "{a}", "vars": {"a": "{b}", "b": "x"}}).cases[0].prompt == "{b}"


def test_mark_blank_lines_and_windows_line_ends_do_no_harm_and_lines_count_from_one() -> None:
    text = '\ufeff{"id": "a", "prompt": "x"}\r\n\r\n  \n{"id": "b", "prompt": "y\u2028z"}\n\n'

    assert [(case.id, case.line) for case in parse_prompts(text, source="p.jsonl", name="p").cases] == [
        ("a", 1),
        ("b", 4),
    ]


def test_yaml_reads_the_same_set_and_knows_its_lines() -> None:
    text = "# authored by hand\n- &base\n  id: a\n  prompt: |\n    two\n    lines\n- <<: *base\n  id: b\n"

    found = parse_prompts(text, source="p.yaml", name="p")

    assert [(case.id, case.prompt, case.line) for case in found.cases] == [
        ("a", "two\nlines\n", 2),
        ("b", "two\nlines\n", 7),
    ]
    assert found.digest == read({"id": "b", "prompt": "two\nlines\n"}, {"id": "a", "prompt": "two\nlines\n"}).digest


def test_groups_and_ids_can_be_looked_up() -> None:
    found = read(
        {"id": "a", "prompt": "x", "group": "g"}, {"id": "b", "prompt": "x", "group": "g"}, {"id": "c", "prompt": "x"}
    )

    assert found.groups == 2
    assert found.by_id["c"].group == "c"


# -- digest


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "y"},
        {"group": "g"},
        {"tags": ["t"]},
        {"sampling": {"seed": None}},
        {"tools": [{"a": 1}]},
        {"tool_choice": "none"},
        {"response_format": {"type": "json_object"}},
        {"expect": {"answer": "x"}},
        {"prompt": None, "messages": [{"role": "user", "content": "x"}]},
    ],
    ids="-".join,
)
def test_digest_changes_with_everything_that_can_change_an_answer_or_its_judgement(change: dict[str, Any]) -> None:
    row = {key: value for key, value in {"id": "a", "prompt": "x", **change}.items() if value is not None}

    assert read(row).digest != read({"id": "a", "prompt": "x"}).digest


def test_digest_sees_the_order_in_which_a_schema_declares_its_properties() -> None:
    def schema(*names: str) -> PromptSet:
        return read({"id": "a", "prompt": "x", "response_format": {"properties": {name: {} for name in names}}})

    assert schema("a", "b").digest != schema("b", "a").digest


@given(st.lists(ROWS, min_size=1, max_size=5, unique_by=lambda row: row["id"]), st.randoms())
def test_digest_does_not_see_layout_format_or_order(rows: list[dict[str, Any]], random: Any) -> None:
    first = read(*rows)
    shuffled = [dict(random.sample(list(row.items()), len(row))) for row in random.sample(rows, len(rows))]

    assert [case.id for case in first.cases] == [row["id"] for row in rows]
    assert read(*shuffled).digest == first.digest
    assert read(*rows, source="q.jsonl").digest == first.digest
    text = yaml.safe_dump(rows, allow_unicode=False)
    assert parse_prompts(text, source="p.yml", name="p").digest == first.digest


# -- what is refused


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"id": "a", "prompt": "x"}\n{"id": "b",', "p.jsonl:2: not JSON at column 12"),
        ('{"id": "a", "id": "b"}', 'p.jsonl:1: key "id" is given twice'),
        ('{"id": "a", "prompt": "x", "sampling": {"top_p": NaN}}', "p.jsonl:1: NaN is not JSON"),
        ('{"id": "a", "prompt": "x", "expect": {"schema": {"maximum": 1e999}}}', "expect.schema.maximum is inf"),
        ("[" * 100_000, "p.jsonl:1: nested deeper than"),
        ('{"id": "a", "prompt": "x", "response_format": {"a": ' + "[" * 80 + "]" * 80 + "}}", "nested deeper than 64"),
        ('{"id": "a", "prompt": "x", "tags": [' + "1," * 200_001 + "1]}", "holds more than 200000 values"),
        ("1" * 5000, "p.jsonl:1: "),
        ('"a"', 'p.jsonl:1: is "a"; expected an object'),
        ("", 'p.jsonl: holds no cases; write one per line, such as {"id"'),
        ("\n \n", "p.jsonl: holds no cases"),
    ],
)
def test_broken_text_is_named_by_file_and_line(text: str, expected: str) -> None:
    assert expected in complaint(text)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"id": ""}, "id is empty"),
        ({"id": "  "}, "id is empty"),
        ({"id": "a" * 201}, "id has 201 characters; at most 200"),
        ({"id": "a\nb"}, "id holds a control character"),
        ({"id": 3}, "id is 3; expected text in quotes"),
        ({"group": "a\x00"}, "group holds a control character"),
        ({"group": None}, "has group = null; leave the key out"),
        ({"prompt": ""}, 'prompt is ""; expected text that is not empty'),
        ({"prompt": "\ud800"}, "prompt holds half a character"),
        ({"response_format": {"\udc00": 1}}, "key that holds half a character"),
        ({"messages": [{"role": "user", "content": "x"}]}, "has both messages and prompt"),
        ({"messages": []}, "messages"),
        ({"tags": "t"}, 'tags is "t"; expected a list'),
        ({"vars": {"x": True}}, "vars.x is true; expected text or a number"),
        (
            {"prompt": "{nam}", "vars": {"name": "x"}},
            "prompt uses {nam}, which vars does not hold (did you mean 'name'?)",
        ),
        ({"prompt": "a } b", "vars": {}}, "prompt has a lone '}'; with vars, write }} for a brace"),
        ({"prompt": "{0}", "vars": {"0": "x"}}, "prompt has a lone '{'"),
        ({"sampling": {"temperature": -1}}, "sampling.temperature is -1; expected a number at least 0"),
        ({"sampling": {"top_p": 0}}, "sampling.top_p is 0; expected a number above 0"),
        ({"sampling": {"max_tokens": 1.5}}, "sampling.max_tokens is 1.5; expected a whole number"),
        ({"sampling": {"max_tokens": True}}, "sampling.max_tokens is true; expected a whole number"),
        ({"sampling": {"top_k": None}}, "has top_k = null"),
        ({"sampling": {"temprature": 1}}, "sampling.temprature is not a key (did you mean 'temperature'?)"),
        ({"temperature": 1}, "temperature is not a key: parameters of one case belong under sampling"),
        ({"tool_choice": "any"}, "tool_choice is \"any\"; allowed: 'none', 'auto', 'required'"),
        ({"expect": {"schema": 3}}, "expect.schema is neither text"),
        ({"expects": {}}, "expects is not a key (did you mean 'expect'?); known here: expect, group, id"),
    ],
)
def test_a_wrong_row_says_which_key_what_was_given_and_what_is_allowed(row: dict[str, Any], expected: str) -> None:
    message = wrong(**row)

    assert message.startswith("p.jsonl:1: ")
    assert expected in message


def test_a_wrong_message_is_named_by_its_place() -> None:
    message = complaint('{"id": "a", "messages": [{"role": "user", "content": "x"}, {"role": "usr", "cntent": 1}]}')

    assert (
        "messages[1].role is \"usr\"; allowed: 'system', 'user', 'assistant' or 'tool' (did you mean 'user'?)"
        in message
    )
    assert "messages[1].cntent is not a key (did you mean 'content'?); known here: content, name, role" in message
    assert "messages[1].content is missing" in message


def test_neither_messages_nor_prompt() -> None:
    assert complaint('{"id": "a"}') == "p.jsonl:1: has neither messages nor prompt"


def test_an_id_given_twice_names_both_lines() -> None:
    message = complaint('{"id": "a", "prompt": "x"}\n\n{"id": "a", "prompt": "y"}')

    assert message == 'p.jsonl:3: case "a" was already given in line 1; ids are unique'


def test_ten_problems_are_shown_in_line_order_and_the_others_counted() -> None:
    lines = complaint("\n".join(["{"] * 14)).splitlines()

    assert [line.split(":")[1] for line in lines[:10]] == [str(n) for n in range(1, 11)]
    assert lines[10:] == ["… and 4 more"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- id: a\n  prompt: [\n", "p.yaml:3: not YAML"),
        ("- id: a\n  prompt: x\n  prompt: y\n", 'p.yaml:3: key "prompt" is given twice'),
        ("id: a\nprompt: x\n", "p.yaml:1: expected a list of cases"),
        ("- id: a\n  prompt: yes\n", "p.yaml:1: prompt is true; expected text in quotes"),
        ("- id: 2026-11-21\n  prompt: x\n", "p.yaml:1: id is 2026-11-21 (date); put it in quotes"),
        ("- id: a\n  prompt: x\n  vars: {1: y}\n", "vars has the key 1, which is not text"),
        ("- id: a\n  prompt: x\n  expect: {schema: {x: .nan}}\n", "expect.schema.x is nan"),
        ("- id: a\n  prompt: x\n  response_format: &a {a: *a}\n", "nested deeper than 64"),
        ("- id: a\n  prompt: x\n- id: b\n  prompt: 'x\x07'\n", "p.yaml:4: not YAML"),
        ("- id: a\n  prompt: !!python/object:os.system x\n", "p.yaml:2: not YAML"),
        ("- id: 2026-13-45\n  prompt: x\n", "p.yaml:1: not YAML"),
        ("[" * 5000, "p.yaml:1: nested deeper"),
        ("", "p.yaml: holds no cases"),
        ("[]", "p.yaml: holds no cases"),
    ],
)
def test_broken_yaml_is_named_by_file_and_line(text: str, expected: str) -> None:
    assert expected in complaint(text, "p.yaml")


@given(
    st.lists(JSON.map(json.dumps) | st.text(max_size=40), max_size=4).map("\n".join),
    st.sampled_from(["a.jsonl", "a.yml"]),
)
def test_any_text_gives_cases_or_a_prompt_set_error(text: str, source: str) -> None:
    try:
        found = parse_prompts(text, source=source, name="a")
    except PromptSetError as error:
        message = str(error)
    else:
        assert found.cases
        return
    assert message.startswith(source)


# -- the published schema


def shipped(name: str) -> str:
    return (Path(pytest_llmparity.__file__).parent / "schemas" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", schemas.FILES)
def test_published_schemas_are_current(name: str) -> None:
    assert shipped(name) == schemas.FILES[name](), f"write schemas.FILES[{name!r}]() to pytest_llmparity/schemas/{name}"


@given(ROWS)
def test_every_row_that_is_read_fits_the_published_schema(row: dict[str, Any]) -> None:
    assert jsonschema_rs.is_valid(json.loads(shipped("prompts.schema.json")), row)


@pytest.mark.parametrize(
    "row",
    [
        {"id": "a"},
        {"prompt": "x"},
        {"id": "a", "prompt": "x", "messages": [{"role": "user", "content": "x"}]},
        {"id": "a", "prompt": "x", "expects": {}},
        {"id": "a", "prompt": "x", "sampling": {"top_p": 0}},
        {"id": "a", "prompt": "x", "group": None},
        {"id": "a\nb", "prompt": "x"},
    ],
)
def test_rows_that_are_refused_do_not_fit_the_published_schema(row: dict[str, Any]) -> None:
    complaint(json.dumps(row))

    assert not jsonschema_rs.is_valid(json.loads(shipped("prompts.schema.json")), row)
