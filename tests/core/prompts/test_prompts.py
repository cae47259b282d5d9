from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import string
import time
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import pytest_llmparity
from pytest_llmparity.core.compare.json import strict_json
from pytest_llmparity.core.errors import PromptSetError, UsageError
from pytest_llmparity.core.prompts import Case, Expect, PromptSet, digest
from pytest_llmparity.core.prompts.reading import _surely_fit, _unfit, messages_of, parse_prompts
from pytest_llmparity.core.prompts.yaml import _WORDS as TEXTS
from pytest_llmparity.core.sample import Sampling
from pytest_llmparity.settings import schemas

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
        "expect": st.fixed_dictionaries(
            {}, optional={"answer": WORDS.filter(str.strip), "contains": WORDS | st.lists(WORDS)}
        ),
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


def test_names_of_openai_at_the_top_mean_what_they_mean_in_a_request() -> None:
    row = {
        "id": "a",
        "prompt": "p",
        "temperature": 0.5,
        "max_tokens": 8,
        "stop": "\n",
        "seed": 3,
        "sampling": {"top_k": 4},
        "parallel_tool_calls": False,
        "logit_bias": {"50256": -100},
        "extra_body": {"chat_template_kwargs": {"enable_thinking": False}},
    }
    (case,) = read(row).cases
    request = case.request(Sampling(top_p=0.9))

    assert request.sampling == Sampling(temperature=0.5, max_tokens=8, stop=("\n",), seed=3, top_k=4, top_p=0.9)
    assert request.extra_body == {
        "parallel_tool_calls": False,
        "logit_bias": {"50256": -100},
        "chat_template_kwargs": {"enable_thinking": False},
    }
    text = yaml.safe_dump([row])
    assert parse_prompts(text, source="p.yml", name="p").digest == read(row).digest
    assert read(row | {"extra_body": {"x": 1}}).digest != read(row).digest


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"temperature": 0, "sampling": {"temperature": 1}},
            "has temperature at the top and under sampling; say it once",
        ),
        ({"extra_body": {"top_k": 1}}, "has top_k, which is sent anyway: write it under sampling"),
        ({"extra_body": {"n": 2}}, "has n, which is sent anyway: write it in the case itself"),
        ({"extra_body": {"repeat_penalty": 2}}, "write max_tokens or repetition_penalty instead"),
        ({"extra_body": {}}, "extra_body"),
        ({"top_k": 1}, "belongs under sampling"),
        ({"n": 0}, "n is 0"),
        ({"n": 129}, "n is 129"),
        (
            {"n": 2, "tools": [{"type": "function", "function": {"name": "f"}}], "tool_results": {"f": 1}},
            "has tool_results and n = 2",
        ),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_completion_tokens": 2, "max_tokens": 2}, "which are one limit; say it once"),
        ({"max_completion_tokens": 2, "sampling": {"max_tokens": 2}}, "which are one limit; say it once"),
        ({"model": "m"}, "the engine's configuration names it"),
    ],
)
def test_what_is_said_twice_or_sent_anyway_is_refused(row: dict[str, Any], words: str) -> None:
    with pytest.raises(PromptSetError, match=words):
        read({"id": "a", "prompt": "p", **row})


def test_the_newer_name_of_the_limit_is_the_limit() -> None:
    for row in ({"max_completion_tokens": 7}, {"sampling": {"max_completion_tokens": 7}}):
        assert read({"id": "a", "prompt": "p", **row}).cases[0].sampling == {"max_tokens": 7}


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

    prompts = parse_prompts(text, source="p.yaml", name="p")

    assert [(case.id, case.prompt, case.line) for case in prompts.cases] == [
        ("a", "two\nlines\n", 2),
        ("b", "two\nlines\n", 7),
    ]
    assert prompts.digest == read({"id": "b", "prompt": "two\nlines\n"}, {"id": "a", "prompt": "two\nlines\n"}).digest


def test_groups_and_ids_can_be_looked_up() -> None:
    prompts = read(
        {"id": "a", "prompt": "x", "group": "g"}, {"id": "b", "prompt": "x", "group": "g"}, {"id": "c", "prompt": "x"}
    )

    assert prompts.groups == 2
    assert prompts.by_id["c"].group == "c"


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


@settings(max_examples=40, deadline=None)  # of up to five rows each
@given(st.lists(ROWS, min_size=1, max_size=5, unique_by=lambda row: row["id"]), st.randoms())
def test_digest_does_not_see_layout_format_or_order(rows: list[dict[str, Any]], random: Any) -> None:
    first = read(*rows)
    shuffled = [dict(random.sample(list(row.items()), len(row))) for row in random.sample(rows, len(rows))]

    assert [case.id for case in first.cases] == [row["id"] for row in rows]
    assert read(*shuffled).digest == first.digest
    assert read(*rows, source="q.jsonl").digest == first.digest
    text = yaml.safe_dump(rows, allow_unicode=False)
    assert parse_prompts(text, source="p.yml", name="p").digest == first.digest


@settings(max_examples=50, deadline=None)  # of up to three rows each
@given(st.lists(ROWS, min_size=1, max_size=3, unique_by=lambda row: row["id"]), JSON)
def test_digest_is_that_of_what_json_writes_of_every_field(rows: list[dict[str, Any]], anything: Any) -> None:
    first, *others = read(*rows).cases
    cases = (msgspec.structs.replace(first, tool_choice=anything, tools=({"a": anything},)), *others)
    names = [
        "id",
        "messages",
        "prompt",
        "group",
        "tags",
        "sampling",
        "tools",
        "tool_choice",
        "response_format",
        "expect",
    ]
    texts = {}
    for case in cases:
        content = {name: getattr(case, name) for name in names}
        content["sampling"] = dict(sorted(case.sampling.items()))
        content["expect"] = case.expect and dataclasses.asdict(case.expect)
        texts[case.id] = json.dumps(content)

    lines = "\n".join(text for _, text in sorted(texts.items()))
    assert digest(cases) == hashlib.sha256(lines.encode()).hexdigest()


@given(JSON | st.text(), st.booleans())
@example(json.loads("[" * 70 + "]" * 70), True)
@example("\ud800", True)
def test_a_row_whose_text_shows_that_it_can_be_sent_can_be(value: Any, escaped: bool) -> None:
    raw = json.dumps({"x": value}, ensure_ascii=escaped)

    if _surely_fit(raw):
        assert _unfit(strict_json(raw)) is None


# -- what is refused


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"id": "a", "prompt": "x"}\n{"id": "b",', "p.jsonl:2: not JSON at column 12"),
        ('{"id": "a", "id": "b"}', 'p.jsonl:1: key "id" is given twice'),
        ('{"id": "a", "prompt": "x", "sampling": {"top_p": NaN}}', "p.jsonl:1: NaN is not JSON"),
        (
            '{"id": "a", "prompt": "x", "expect": {"schema": {"maximum": 1e999}}}',
            "number 1e999 is out of range",
        ),
        ("[" * 100_000, "p.jsonl:1: nested deeper than"),
        (json.dumps({"id": "a", "prompt": "x", **dict.fromkeys(map(str, range(20_000)), 1)}), "p.jsonl:1: 0 is not a"),
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
        ({"top_k": 1}, "top_k is not a key: what OpenAI has no name for belongs under sampling"),
        ({"tool_choice": "any"}, "tool_choice is \"any\"; allowed: 'none', 'auto', 'required'"),
        ({"expect": {"schema": 3}}, "expect.schema is neither text"),
        ({"expect": {"contains": ""}}, 'expect.contains[0] is ""; expected text that is not empty'),
        ({"expect": {"contains": ["a", ""]}}, 'expect.contains[1] is ""; expected text that is not empty'),
        ({"expect": {"answer": " "}}, "expect.answer is empty; expected the text that is right"),
        ({"expect": {"tool": ""}}, 'expect.tool is ""; expected text that is not empty'),
        (
            {"expects": {}},
            "expects is not a key (did you mean 'expect'?); known here: chat_template_kwargs, expect, extra_body, "
            "frequency_penalty",
        ),
    ],
)
def test_a_wrong_row_says_which_key_what_was_given_and_what_is_allowed(row: dict[str, Any], expected: str) -> None:
    message = wrong(**row)

    assert message.startswith("p.jsonl:1: ")
    assert expected in message


def test_a_wrong_message_is_named_by_its_place() -> None:
    message = complaint('{"id": "a", "messages": [{"role": "user", "content": "x"}, {"role": "usr", "cntent": 1}]}')

    allowed = "'system', 'developer', 'user', 'assistant' or 'tool'"
    assert f"messages[1].role is \"usr\"; allowed: {allowed} (did you mean 'user'?)" in message
    assert "messages[1].cntent is not a key (did you mean 'content'?); known here: annotations, audio" in message


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
        ("- id: a\n  prompt: x\n  response_format: &a {a: *a}\n", "p.yaml:3: *a stands inside what it names"),
        ("- id: a\n  prompt: *x\n", "p.yaml:2: *x names no anchor above it"),
        ("- &r {id: a, prompt: x}\n- *r\n", 'p.yaml:2: case "a" was already given in line 1'),
        ("- id: a\n  prompt:\n", 'p.yaml:2: prompt has no value; write ""'),
        ("- id: a\n  prompt: x\n  group: ~\n", "p.yaml:1: has group = null; leave the key out"),
        ("- id: a\n  prompt: x\n  sampling: {max_tokens: 1_000}\n", 'max_tokens is "1_000"; expected a whole number'),
        ("- id: a\n  prompt: x\n  sampling: {max_tokens: 010}\n", 'max_tokens is "010"; expected a whole number'),
        ("- id: a\n  prompt: x\n  sampling: {top_p: .nan}\n", 'top_p is ".nan"; expected a number'),
        ("- id: a\n  prompt: x\n  ? [1]\n  : y\n", "p.yaml:3: a key is a list or a mapping"),
        ("- id: a\n  prompt: x\n  <<: 5\n", "p.yaml:3: << takes over the keys of a mapping"),
        ("- id: a\n  prompt: x\n---\n- id: b\n  prompt: x\n", "p.yaml:3: a second YAML document"),
        ("- id: a\n\tprompt: x\n", "p.yaml:2: not YAML"),
        ("- id: a\n  prompt: 'x\0'\n", "p.yaml:2: not YAML"),
        ("x" * (2**25 + 1), "use JSON Lines"),
        ("- a\n- id: b\n  prompt: x\n", 'p.yaml:1: is "a"; expected an object'),
        ("text", "p.yaml:1: expected a list of cases"),
        ("- id: a\n  prompt: x\n- id: b\n  prompt: 'x\x07'\n", "p.yaml:4: not YAML"),
        ("- id: a\n  prompt: !!python/object:os.system x\n", "p.yaml:2: not YAML"),
        ("- id: a\n  prompt: !!int 5\n", "p.yaml:2: not YAML that is read here: the tag"),
        ("[" * 5000, "nest"),
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
        prompts = parse_prompts(text, source=source, name="a")
    except PromptSetError as error:
        message = str(error)
    else:
        assert prompts.cases
        return
    assert message.startswith(source)


# -- YAML: text as it is written


NUMBERS = ["02142", "3.10", "12:30", "1_000", "0x1F", "1e3", ".5", ".inf", "-0", "1.", "007"]
WORDS_OF_YAML = ["no", "Yes", "on", "null", "~", "true", "2026-03-01", "2026-13-45", "<<", "="]


@pytest.mark.parametrize("word", [*NUMBERS, *WORDS_OF_YAML])
def test_what_stands_in_a_yaml_file_as_text_is_sent_as_it_stands(word: str) -> None:
    text = (
        f"- id: {word}\n  vars: {{it: {word}}}\n  tags: [{word}]\n  sampling: {{stop: [x, 5]}}\n  messages:\n"
        f"    - {{role: user, content: {word}}}\n    - {{role: user, content: [{{type: text, text: 'is {{it}}'}}]}}\n"
        f"  expect: {{answer: {word}, tool: {word}, contains: [{word}]}}\n"
    )

    (case,) = parse_prompts(text, source="p.yaml", name="p").cases

    assert (case.id, case.tags, case.sampling) == (word, (word,), {"stop": ("x", "5")})
    assert case.messages == (
        {"role": "user", "content": word},
        {"role": "user", "content": [{"type": "text", "text": f"is {word}"}]},
    )
    assert case.expect == Expect(answer=word, tool=word, contains=(word,))


def test_yaml_numbers_stay_numbers_where_numbers_are_meant() -> None:
    text = """
- id: a
  prompt: x
  sampling: {temperature: 0.70, max_tokens: 12, top_p: .5, seed: ~, presence_penalty: -1}
  tools:
    - type: function
      function:
        name: no
        description: 3.10
        parameters:
          type: object
          properties:
            zip: {type: string, enum: [02142, 3.10, no, null], default: 12:30}
            maybe: {type: [string, null], enum: [yes, null]}
            count: {type: integer, minimum: 0.10, default: 5}
            type: {type: boolean, default: true}
          required: [on, 1]
          additionalProperties: false
"""

    (case,) = parse_prompts(text, source="p.yaml", name="p").cases

    assert case.sampling == {
        "temperature": 0.7,
        "max_tokens": 12,
        "top_p": 0.5,
        "seed": None,
        "presence_penalty": -1,
    }
    assert case.tools is not None
    function = case.tools[0]["function"]
    assert (function["name"], function["description"]) == ("no", "3.10")
    assert function["parameters"] == {
        "type": "object",
        "properties": {
            "zip": {"type": "string", "enum": ["02142", "3.10", "no", "null"], "default": "12:30"},
            "maybe": {"type": ["string", "null"], "enum": ["yes", None]},
            "count": {"type": "integer", "minimum": 0.1, "default": 5},
            "type": {"type": "boolean", "default": True},
        },
        "required": ["on", "1"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    "word", ["no", "02142", "3.10", "12:30", "1_000", "0x1F", ".5", "~", ".nan", "True", "1" * 401]
)
def test_a_word_in_a_schema_that_may_be_text_or_number_is_refused_with_its_line(word: str) -> None:
    text = f"- id: a\n  prompt: x\n  response_format:\n    json_schema: {{schema: {{enum: [a, {word}]}}}}\n"

    message = complaint(text, "p.yaml")

    assert message.startswith("p.yaml:4: response_format.json_schema.schema.enum[1] is")
    assert "put it in quotes" in message


class Quoting(yaml.SafeDumper):
    """Writes text in quotes."""


Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def means_text(value: object) -> bool:
    """Whether a keyword stands in it whose value a row of YAML takes for text, such as ``pattern: 123``."""
    if isinstance(value, list):
        return any(map(means_text, value))
    return isinstance(value, dict) and any(key in TEXTS or means_text(below) for key, below in value.items())


@given(st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=5), JSON, max_size=4))
def test_any_json_written_as_yaml_is_the_same_in_a_schema(schema: dict[str, Any]) -> None:
    assume(not means_text(schema))
    row = {"id": "a", "prompt": "x", "response_format": schema}

    text = yaml.dump([row], Dumper=Quoting, allow_unicode=False, sort_keys=False)

    assert parse_prompts(text, source="p.yaml", name="p").digest == read(row).digest


def test_numbers_in_vars_of_a_json_row_are_filled_in_as_they_are_written() -> None:
    text = '{"id": "a", "prompt": "{a} {b} {c}", "vars": {"a": 3.10, "b": 1e3, "c": 1000}, "sampling": {"top_p": 0.10}}'

    (case,) = parse_prompts(text, source="p.jsonl", name="p").cases

    assert (case.prompt, case.sampling) == ("3.10 1e3 1000", {"top_p": 0.1})


# -- bombs


LAUGHS = "- a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"  {name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in itertools.pairwise("abcdefghi")
)
MERGES = "- a: &a {" + ", ".join(f"k{n}: 1" for n in range(600)) + "}\n  b: [" + "{<<: *a}, " * 2000 + "]\n"
ROWS_OF_ALIASES = "- &a {id: a, prompt: x, tags: [" + "t, " * 5000 + "]}\n"
ROWS_OF_ALIASES += "".join(f"- {{<<: *a, id: a{n}}}\n" for n in range(400))
LONG = "- &a " + "x" * 3000 + "\n- [" + "*a, " * 30_000 + "]\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LAUGHS, "p.yaml:6: holds more than 200000 values"),
        (MERGES, "p.yaml:2: the aliases of this file stand for more than 1000000 values"),
        (ROWS_OF_ALIASES, ": the aliases of this file stand for more than 1000000 values"),
        (LONG, "or 67108864 characters"),
        ("- " + "{a: " * 50_000, "p.yaml:1: nested deeper than 64 levels"),
        ("- " * 50_000, "p.yaml:1: nested deeper than 64 levels"),
    ],
    ids=["laughs", "merges", "rows", "long", "flow", "block"],
)
def test_a_small_file_that_stands_for_a_huge_one_is_refused_at_once(text: str, expected: str) -> None:
    begun = time.process_time()

    message = complaint(text, "p.yaml")

    assert expected in message
    assert time.process_time() - begun < 60, "what it stands for would take hours"


def test_variables_cannot_blow_a_prompt_up() -> None:
    row = {"id": "a", "prompt": "{x}" * 5000, "vars": {"x": "y" * 5000}}

    assert "prompt would have 25015000 characters" in complaint(json.dumps(row))


def test_a_line_of_a_gigabyte_is_refused_before_it_is_read() -> None:
    assert "p.jsonl:2: has 16777217 characters" in complaint('{"id": "a", "prompt": "x"}\n' + "x" * (2**24 + 1))


# -- messages as OpenAI has them


CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "developer", "content": "Be brief."},
        {"role": "tool", "content": "18", "tool_call_id": "call_1"},
        {"role": "tool", "content": [{"type": "text", "text": "18"}], "tool_call_id": "call_1"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "x", "refusal": None, "tool_calls": None, "annotations": [], "audio": None},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "function_call": None, "refusal": None},
    ],
)
def test_turns_as_openai_has_them_are_sent_as_they_are_given(turn: dict[str, Any]) -> None:
    row = {"id": "a", "messages": [{"role": "user", "content": "x"}, turn]}

    assert read(row).cases[0].messages == tuple(row["messages"])
    assert parse_prompts(yaml.safe_dump([row]), source="p.yaml", name="p").cases[0].messages == tuple(row["messages"])
    assert messages_of(row["messages"], place="parity.ask") == tuple(row["messages"])
    assert jsonschema_rs.is_valid(json.loads(shipped("prompts.schema.json")), row)


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ({"role": "user", "content": None}, "has content = null, which only an assistant's turn with tool_calls"),
        ({"role": "assistant", "content": None}, "has content = null, which only an assistant's turn with tool_calls"),
        ({"role": "assistant", "content": None, "tool_calls": []}, "has content = null"),
        ({"role": "user"}, "has no content"),
        ({"role": "user", "content": 5}, "content is 5; expected text in quotes, or a list of parts"),
        ({"role": "user", "content": []}, "content is an empty list"),
        ({"role": "user", "content": ["x"]}, 'content has "x" at 0; a part is {"type": "text"'),
        ({"role": "user", "content": [{"type": "text", "text": "x", "more": 1}]}, "and nothing more"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "content[0] has a url that is neither http(s):// nor data:",
        ),
        ({"role": "user", "content": "x", "name": None}, "has name = null; leave the key out"),
    ],
)
def test_a_turn_that_cannot_be_sent_is_refused_in_a_file_and_on_the_spot(turn: dict[str, Any], expected: str) -> None:
    assert expected in complaint(json.dumps({"id": "a", "messages": [turn]}))
    with pytest.raises(UsageError) as caught:
        messages_of([turn], place="parity.ask")
    assert str(caught.value).startswith("parity.ask: messages[0]")
    assert expected in str(caught.value)


def test_questions_that_are_no_list_of_messages() -> None:
    for turns in (5, [], ["x"], b"x"):
        with pytest.raises(UsageError, match=r"^parity\.ask: "):
            messages_of(turns, place="parity.ask")


# -- the published schema


def shipped(name: str) -> str:
    return (Path(pytest_llmparity.__file__).parent / "schemas" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", schemas.FILES)
def test_published_schemas_are_current(name: str) -> None:
    made = schemas.FILES[name]()  # a whole number is written 0 or 0.0 by one pydantic or another

    assert json.loads(shipped(name)) == json.loads(made), f"write schemas.FILES[{name!r}]() to schemas/{name}"


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
