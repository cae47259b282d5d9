"""Shards: what is read, and how groups are dealt out."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.shards import MOST, Shard, dealt, parse_shard


@pytest.mark.parametrize(
    "text", ["", "2", "0/3", "4/3", "-1/3", "1/0", "1/2/3", "a/b", "1.5/2", "²/3", "1/99999", "//"]
)
def test_what_is_no_shard_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="is no shard"):
        parse_shard(text)


@given(of=st.integers(1, MOST), data=st.data())
def test_a_shard_is_read_as_it_is_written(of: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(1, of))

    assert parse_shard(f" {index}/{of} ") == Shard(index, of)


@given(sizes=st.dictionaries(st.text(max_size=4), st.integers(1, 9), min_size=1), of=st.integers(1, 7))
def test_every_group_is_dealt_to_one_shard_whatever_the_order(sizes: dict[str, int], of: int) -> None:
    shards = dealt(sizes, of)

    assert shards.keys() == sizes.keys()
    assert shards == dealt(dict(reversed(sizes.items())), of)
    assert set(shards.values()) == set(range(1, min(of, len(sizes)) + 1))
    load = Counter(dict.fromkeys(range(1, of + 1), 0))
    for group, shard in shards.items():
        load[shard] += sizes[group]
    # No shard has more than another by more than the last group it was dealt.
    assert max(load.values()) - min(load.values()) <= max(sizes.values())
