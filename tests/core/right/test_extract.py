from __future__ import annotations

import json
import re
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.right.extract import Extract, extracted, refused, same, shown, wanted


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is 42.", "42"),
        ("3 boxes of 4 make 12", "12"),
        ("It costs $1,250.50.", "1250.50"),
        ("**-7**", "-7"),
        ("about 30 % of them", "30"),
        ("There are twelve of them.", "12"),
        ("1.2e3 metres", "1200"),
        ("#### 18", "18"),
    ],
)
def test_the_last_number_is_the_answer(text: str, value: str) -> None:
    assert extracted(text, "number").value == Decimal(value)


@pytest.mark.parametrize("text", ["", "many", "one of them", "nineteen eighty"])
def test_where_there_is_no_number_nothing_is_read(text: str) -> None:
    assert extracted(text, "number").problem == "no number in it"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("B", "B"),
        ("b.", "B"),
        ("(C)", "C"),
        ("**D**", "D"),
        ("B) Paris is the capital.", "B"),
        ("The answer is (C), not B.", "C"),
        ("A is wrong, so the correct option is B.", "B"),
        ("Answer: D", "D"),
        ("First I thought the answer is A. But the answer must be C.", "C"),
        ("Paris (B) is it.", "B"),
    ],
)
def test_a_choice_is_one_letter(text: str, value: str) -> None:
    assert extracted(text, "choice").value == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("I'm not sure.", "no choice in it"),
        ("A cat sat there.", "no choice in it"),
        ("the answer is a matter of taste", "no choice in it"),
        ("either (A) or (B)", "2 letters in brackets"),
    ],
)
def test_a_choice_that_is_not_made_is_none(text: str, problem: str) -> None:
    assert extracted(text, "choice").problem == problem


@pytest.mark.parametrize(
    ("text", "value"),
    [("Yes.", True), ("**No**, it is not true.", False), ("TRUE", True), ("That is false.", False), ('"no"', False)],
)
def test_yes_and_no(text: str, value: bool) -> None:
    assert extracted(text, "bool").value is value


@pytest.mark.parametrize(
    ("text", "problem"),
    [("Perhaps.", "neither yes nor no in it"), ("Both yes and no.", "both yes and no in it")],
)
def test_neither_yes_nor_no(text: str, problem: str) -> None:
    assert extracted(text, "bool").problem == problem


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ('{"total": 12.5}', "$.total", 12.5),
        ('{"items": [{"price": 1}, {"price": 2}]}', "$.items[1].price", 2),
        ('["a"]', "$[0]", "a"),
        ("7", "$", 7),
        ('{"odd key": null}', "$.odd key", None),
        ('{"odd.key": [[5]]}', '$["odd.key"][0][0]', 5),
    ],
)
def test_a_field_is_read_by_its_path(text: str, path: str, value: object) -> None:
    reading = extracted(text, f"json:{path}")
    assert (reading.value, reading.problem) == (value, "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"sum": 1}', "no $.total in it"),
        ('{"total": [}', "not JSON: "),
        ('```json\n{"total": 1}\n```', "not JSON: "),
        ("[1]", "no $.total in it"),
        ('{"total": [1]', "not JSON: "),
    ],
)
def test_a_field_that_is_not_there_is_none(text: str, problem: str) -> None:
    assert extracted(text, "json:$.total").problem.startswith(problem)


def test_a_pattern_gives_what_its_group_finds_first() -> None:
    text = "total: 12 EUR, total: 13 EUR"
    assert extracted(text, r"total: (\d+)").value == "12"
    assert extracted(text, r"\d+ EUR").value == "12 EUR"
    assert extracted(text, r"sum: (\d+)").problem == "'sum: (\\\\d+)' finds nothing in it"
    assert extracted("12", r"\d+(x)?").problem.endswith("took no part")


def test_a_function_gives_what_it_returns_and_what_it_raises_is_a_problem() -> None:
    def code(text: str) -> int:
        return int(text.split("=")[1])

    assert extracted("x=3", code).value == 3
    assert extracted("nothing", code).problem == "extract raised IndexError: list index out of range"
    assert extracted("x", lambda text: None).problem == "extract returned None"


@pytest.mark.parametrize(
    ("extract", "words"),
    [
        (3, "3 is none of"),
        ("", "'' is none of"),
        ("json:total", "names no field"),
        ("json:$.items[]", "names every place of an array, and one is wanted"),
        (f"json:$[{'9' * 5000}]", "names a place that no array has"),
        ("(unclosed", "is no regular expression"),
        (r"(a)(b)", "has 2 groups"),
    ],
)
def test_what_cannot_extract_is_refused(extract: object, words: str) -> None:
    assert words in str(refused(extract))


@pytest.mark.parametrize(
    ("extract", "meant"),
    [
        ("boolean", "bool"),
        ("Bool", "bool"),
        ("bool:", "bool"),
        ("Number", "number"),
        ("numbers", "number"),
        ("choices", "choice"),
        ("json", "json:$.field"),
        ("JSON:$.a", "json:$.a"),
    ],
)
def test_what_is_nearly_a_word_is_no_pattern(extract: str, meant: str) -> None:
    assert f"did you mean {meant!r}?" in str(refused(extract))
    assert refused("(boolean)") is refused("total") is refused("yes|no") is refused("letter:(.)") is None


@pytest.mark.parametrize(
    ("answer", "extract", "text"),
    [
        ("1,000", "number", "It is 1000.0"),
        ("c", "choice", "The answer is C"),
        ("true", "bool", "Yes"),
        ("12", "json:$.n", '{"n": 12.0}'),
        ("12", "json:$.n", '{"n": "12"}'),
        ("billing", "json:$.queue", '{"queue": "billing"}'),
        ('{"a": [1]}', "json:$", '{"a": [1]}'),
        (" yes ", None, "yes\n"),
        ("12", len, "twelve chars"),
        ("true", str.isalpha, "abc"),
        ("ABC", str.upper, "abc"),
    ],
)
def test_an_answer_that_says_what_is_expected_is_right(answer: str, extract: Extract | None, text: str) -> None:
    assert same(extracted(text, extract).value, wanted(answer, extract).value)


@pytest.mark.parametrize(
    ("answer", "extract", "text"),
    [
        ("12", "number", "13"),
        ("12", "json:$.n", '{"n": "12.0"}'),
        ("1,5", "json:$.n", '{"n": 15}'),
        ("true", "json:$.n", '{"n": 1}'),
        ("Yes", None, "yes"),
        ("12", len, "twelve"),
        ("many", len, "twelve"),
        ("1", str.isalpha, "abc"),
    ],
)
def test_an_answer_that_says_something_else_is_wrong(answer: str, extract: Extract | None, text: str) -> None:
    assert not same(extracted(text, extract).value, wanted(answer, extract).value)


def test_what_is_expected_has_to_have_a_value() -> None:
    assert wanted("many", "number").problem == "no number in it"
    assert wanted("1/2", "number").problem == "more than one plain number in it"


@given(st.text(), st.sampled_from(["number", "choice", "bool", "json:$.a[0]", None, r"a(b)?"]))
def test_any_text_has_a_value_or_a_problem(text: str, extract: str | None) -> None:
    reading = extracted(text, extract)
    assert reading.problem or reading.value is not None
    assert shown(reading.value).isprintable()


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_a_number_is_read_as_it_was_written(value: Decimal) -> None:
    assert extracted(f"So it is {value:,}.", "number").value == value


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_JSON)
def test_json_is_the_same_as_itself(value: Any) -> None:
    text = json.dumps(value)
    assert same(extracted(text, "json:$").value, wanted(text, "json:$").value)


@pytest.mark.parametrize(
    ("value", "words"),
    [(True, "yes"), (Decimal("1E+3"), "1000"), (Decimal("1E+30"), "1E+30"), ("a\n", "'a\\n'"), ([1], "'[1]'")],
)
def test_values_are_shown_on_one_line(value: object, words: str) -> None:
    assert shown(value) == words
    assert " at 0x" not in shown(object())


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(r"(?:(a|aa)+)+b\1", marks=pytest.mark.slow),
        r"(a|a)*$",
        pytest.param(r"(a|aa)+$", marks=pytest.mark.slow),
    ],
)
def test_a_pattern_that_would_run_for_years_is_left_and_said(pattern: str) -> None:
    began = time.process_time()

    reading = extracted("a" * 60 + "!", pattern)

    assert time.process_time() - began < 3
    assert reading.problem.endswith("takes more than 0.5 s on it, so nothing was read")


@given(st.text(alphabet="ab(1) .\n", max_size=30))
@pytest.mark.parametrize("pattern", [r"a+(b)", r"(?i)A\s*\((\d)\)", r"^(\w+)$", r"(?m)^(\w+)$", r"a.*?b|\d"])
def test_a_pattern_finds_what_python_finds(pattern: str, text: str) -> None:
    match = re.search(pattern, text)
    read = extracted(text, pattern)

    assert (not read.problem) == (match is not None)
    if match is not None:
        assert read.value == match[match.re.groups].strip()
