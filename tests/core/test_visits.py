"""Whose turn it is while latencies are held against each other, and how often each engine is loaded for that."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.visits import (
    LEAST_BLOCKS,
    block_sizes,
    blocks_within,
    changes_for,
    order,
    requests_of_loads,
    visits,
)


@pytest.mark.parametrize(
    ("count", "blocks", "expected"),
    [
        (1, 2, "A0 A1"),
        (2, 1, "A0 B0"),
        (2, 2, "A0 B0 B1 A1"),
        (2, 4, "A0 B0 B1 A1 A2 B2 B3 A3"),
        (3, 2, "A0 B0 C0 C1 B1 A1"),
    ],
)
def test_engines_take_turns(count: int, blocks: int, expected: str) -> None:
    assert " ".join(f"{'ABC'[engine]}{block}" for engine, block in order(count, blocks)) == expected


@pytest.mark.parametrize(("total", "blocks", "sizes"), [(8, 2, [4, 4]), (7, 3, [3, 2, 2]), (5, 1, [5])])
def test_blocks_differ_by_one_at_most(total: int, blocks: int, sizes: Sequence[int]) -> None:
    assert block_sizes(total, blocks) == sizes


def test_an_engine_stays_for_blocks_that_follow_one_another() -> None:
    shown = " ".join(f"{'AB'[engine]}{''.join(map(str, blocks))}" for engine, blocks in visits(2, 4))

    assert shown == "A0 B01 A12 B23 A3"
    assert requests_of_loads(2, 4, 128) == [[32, 64, 32], [64, 64]]


@given(engines=st.integers(1, 5), blocks=st.integers(1, 20), more=st.integers(0, 40))
def test_every_block_of_every_engine_has_its_turn(engines: int, blocks: int, more: int) -> None:
    visited = [(engine, block) for engine, of_visit in visits(engines, blocks) for block in of_visit]

    assert visited == order(engines, blocks)
    assert changes_for(engines, blocks) == blocks * (engines - 1)
    assert [sum(loads) for loads in requests_of_loads(engines, blocks, blocks + more)] == [blocks + more] * engines


@given(engines=st.integers(2, 6), changes=st.integers(1, 100))
def test_as_many_blocks_as_the_changes_allow(engines: int, changes: int) -> None:
    blocks = blocks_within(engines, changes)

    assert blocks == 1 or changes_for(engines, blocks) <= changes
    assert changes_for(engines, blocks + 1) > changes


@pytest.mark.parametrize("engines", [2, 3, 4, 6])
def test_each_engine_is_loaded_twice_from_three_blocks_on(engines: int) -> None:
    least = [min(map(len, requests_of_loads(engines, blocks, 60))) for blocks in (LEAST_BLOCKS - 1, LEAST_BLOCKS)]

    assert least == [1, 2]
