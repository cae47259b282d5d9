from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.compare.fields import EVERYTHING, Fields
from pytest_llmparity.core.compare.json import diff_values
from pytest_llmparity.core.compare.paths import anywhere, at, refused, steps

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, JSON)
def test_who_reads_everything_sees_every_difference(a: Any, b: Any) -> None:
    assert EVERYTHING.differences(a, b) == diff_values(a, b)
    assert Fields(read=("$",)).differences(a, b) == diff_values(a, b)


@given(JSON, JSON)
def test_what_differs_lies_where_it_is_said(a: Any, b: Any) -> None:
    for difference in diff_values(a, b):
        path = anywhere(difference.path)
        assert refused(path) is None
        assert at(a, steps(path)) or at(b, steps(path))
        assert Fields(read=(path,)).differences(a, b)


@given(st.lists(JSON, max_size=5), st.randoms())
def test_the_order_of_items_counts_where_it_is_not_said_otherwise(items: list[Any], random: Any) -> None:
    shuffled = random.sample(items, len(items))

    assert not Fields(unordered=("$.a",)).differences({"a": items}, {"a": shuffled})
    assert bool(EVERYTHING.differences({"a": items}, {"a": shuffled})) == bool(diff_values(items, shuffled))


@pytest.mark.parametrize(
    ("read", "differs"),
    [
        ("$.order", True),
        ("$.order.total", True),
        ("$.order.total.net", True),
        ("$.ord", False),
        ("$.order.tot", False),
        ("$.other", False),
    ],
)
def test_a_path_is_what_lies_below_it_and_what_holds_it(read: str, differs: bool) -> None:
    a, b = ({"order": {"total": {"net": n}}, "other": 1} for n in (1, 2))

    assert bool(Fields(read=(read,)).differences(a, b)) is differs
    assert bool(Fields(read=(read,)).differences(a, {"order": 3, "other": 1})) is (read.startswith("$.order"))


@pytest.mark.parametrize(("ours", "theirs"), [(1, 1.01), (0.3, 0.1 + 0.2), (-1, -0.99)])
def test_numbers_may_lie_apart_by_their_tolerance(ours: float, theirs: float) -> None:
    assert not Fields(tolerance=(("$", 0.01),)).differences(ours, theirs)


@pytest.mark.parametrize(("ours", "theirs"), [(1, 1.02), (1, "1"), (True, 1), (None, 0), ("a", "b")])
def test_nothing_else_may(ours: Any, theirs: Any) -> None:
    assert Fields(tolerance=(("$", 0.01),)).differences(ours, theirs)


@pytest.mark.parametrize(("ours", "theirs"), [(10**350, 1.5), (1e308, 10**320)])
def test_what_no_double_holds_is_a_difference(ours: float, theirs: float) -> None:
    assert Fields(tolerance=(("$", 0.01),)).differences(ours, theirs)


def test_every_spelling_of_a_key_is_compared() -> None:
    for path, key in (('$["total"]', "total"), ('$["größe"]', "größe"), ("$.größe", "größe"), ('$["a[0]"]', "a[0]")):
        assert Fields(read=(path,)).differences({key: 1}, {key: 2})
        assert not Fields(tolerance=((path, 0.1),)).differences({key: 1.0}, {key: 1.01})
        assert not Fields(unordered=(path,)).differences({key: [1, 2]}, {key: [2, 1]})


@pytest.mark.parametrize(
    ("ours", "theirs", "fields"),
    [
        ([{"n": "p", "id": 1}, {"n": "q", "id": 2}], [{"n": "q", "id": 2}, {"n": "z", "id": 1}], {"read": ("$[].id",)}),
        ([9.999, 5], [5, 10.001], {"tolerance": (("$[]", 0.01),)}),
        ([1.0, 1.01], [1.01, 1.02], {"tolerance": (("$[]", 0.01),)}),
        ([-0.0, -1], [-1, 0], {}),
        ([1e16, 15], [15, 10**16], {}),
        ([2**53 + 1, 2**53], [2**53, 2**53 + 1], {}),
        ([[1, "a"], [1.0, "b"]], [[1, "b"], [1.0, "a"]], {}),
        ([[1, 2], [3]], [[3], [2, 1]], {"unordered": ("$", "$[]")}),
        (
            [{"a": 1, "b": 5}, {"a": 5, "b": 1}],
            [{"a": 5.1, "b": 1}, {"a": 1.1, "b": 5}],
            {"tolerance": (("$[].a", 1),)},
        ),
    ],
)
def test_items_without_order_are_equal_as_values_are(ours: Any, theirs: Any, fields: dict[str, Any]) -> None:
    assert Fields(**{"unordered": ("$",), **fields}).differences(ours, theirs) == []


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [([1, True], [1, 1]), ([2**53], [2**53 + 1]), ([1, 1, 2], [1, 2, 2]), ([[1, 2]], [[2, 1]]), ([1], [1, 1])],
)
def test_items_without_order_differ_as_values_do(ours: Any, theirs: Any) -> None:
    assert Fields(unordered=("$",)).differences(ours, theirs)


def test_only_items_without_an_equal_are_told() -> None:
    fields = Fields(unordered=("$",))
    a, b = [{"k": 1}, {"k": 2}, {"k": 3}], [{"k": 3}, {"k": 9}, {"k": 1}]

    assert [(diff.path, diff.baseline, diff.candidate) for diff in fields.differences(a, b)] == [("$[1].k", 2, 9)]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=6), st.data())
def test_no_way_of_putting_items_together_is_missed(items: list[tuple[int, int]], data: Any) -> None:
    apart = st.integers(-1, 1)
    moved = [[a + data.draw(apart), b + data.draw(apart)] for a, b in data.draw(st.permutations(items))]

    fields = Fields(unordered=("$",), tolerance=(("$[][]", 1),))

    assert fields.differences([list(item) for item in items], moved) == []


def test_items_nested_deeply_are_compared() -> None:
    ours, theirs = ([json.loads("[" * 900 + text + "]" * 900)] for text in ("1", "2"))

    assert Fields(unordered=("$.x", "$")).differences(ours, theirs)
    assert not Fields(unordered=("$.x", "$")).differences(ours, list(ours))


def test_of_many_items_with_a_tolerance_those_of_one_rank_are_compared() -> None:
    ours = [float(n) for n in range(2000)]
    theirs = [n + 0.001 for n in reversed(ours)]

    assert not Fields(unordered=("$",), tolerance=(("$[]", 0.01),)).differences(ours, theirs)
    assert len(Fields(unordered=("$",), tolerance=(("$[]", 0.01),)).differences(ours, [*theirs[1:], -5])) >= 1
