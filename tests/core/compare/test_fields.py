from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.compare.fields import EVERYTHING, Fields, anywhere, leads_somewhere, refused
from pytest_llmparity.core.compare.json import diff_values

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
        assert leads_somewhere(a, path) or leads_somewhere(b, path)
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
