from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.compare.paths import EVERYWHERE, anywhere, at, refused, steps, written

STEP = st.text(max_size=5) | st.just(EVERYWHERE)


@given(st.lists(STEP, max_size=5))
def test_what_is_written_is_read_as_it_was(walked: list[Any]) -> None:
    assert steps(written(tuple(walked))) == tuple(walked)


@pytest.mark.parametrize(
    ("path", "alike"),
    [
        ('$["total"]', "$.total"),
        ('$["größe"]', "$.größe"),
        ('$["gr\\u00f6\\u00dfe"]', "$.größe"),
        ('$["a-b"]["c"]', "$.a-b.c"),
        ('$.items[]["p"]', "$.items[].p"),
    ],
)
def test_two_spellings_are_one_path(path: str, alike: str) -> None:
    assert steps(path) == steps(alike)


def test_a_key_that_looks_like_a_place_is_a_key() -> None:
    assert steps('$["a[0]"]') == ("a[0]",)
    assert anywhere('$["a[0]"][3]') == '$["a[0]"][]'
    assert at({"a[0]": [1, 2]}, steps('$["a[0]"][]')) == [1, 2]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("total", "begins with $"),
        (3, "it is text"),
        ("$total", "a name stands behind a dot"),
        ("$.", "a name stands behind a dot"),
        ("$.a ", "white space beside a name"),
        ("$['a']", "in brackets and double quotes"),
        ('$["a\\x"]', "is no JSON string"),
        ('$["a\tb"]', "is no JSON string"),
        ("$.a[0]", "[] is every place"),
        ("$.a[-1]", "a name stands behind a dot"),
        ("$.a[\u0660]", "a name stands behind a dot"),
        ("$.a[" + "9" * 5000 + "]", "names one place"),
    ],
)
def test_what_is_no_path_is_told(path: object, words: str) -> None:
    assert words in str(refused(path))


def test_one_place_is_named_where_one_value_is_wanted() -> None:
    assert at({"a": [{"b": 1}, {"b": 2}]}, steps("$.a[1].b", places=True)) == [2]
    assert at({"a": [1]}, steps("$.a[1]", places=True)) == []
    assert refused("$.a[0]", places=True) is None
    assert "one is wanted" in str(refused("$.a[]", places=True))
    assert "that no array has" in str(refused("$.a[" + "9" * 5000 + "]", places=True))
    assert "$.items[0].price" in str(refused("a", places=True))
