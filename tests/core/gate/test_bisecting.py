"""The first bad version: which one is gated next, how many gates that takes, and what is known in the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.gate.bisecting import Search, Stands, stands
from pytest_llmparity.core.gate.deciding import decide
from pytest_llmparity.core.gate.policy import Policy
from pytest_llmparity.core.verdict import Outcome, Verdict

GOOD, BAD, OPEN, UNUSABLE = Stands


def searched(count: int, gate: Callable[[int], Stands], told: Mapping[int, Stands] | None = None) -> tuple[Search, int]:
    """Search to the end; return what is known and how many gates that took."""
    search, gates = Search(count=count, known=told or {}), 0
    while (place := search.next) is not None:
        assert place not in search.known
        search, gates = Search(count=count, known={**search.known, place: gate(place)}), gates + 1
    return search, gates


@pytest.mark.parametrize("first", range(1, 8))
def test_of_eight_versions_the_first_bad_one_takes_two_ends_and_three_gates(first: int) -> None:
    search, gates = searched(8, lambda place: BAD if place >= first else GOOD)

    assert (search.good, search.bad, list(search.among), search.late) == (first - 1, first, [first], None)
    assert gates <= Search(count=8, known={}).most == 5


@pytest.mark.parametrize("first", range(1, 8))
def test_ends_that_are_told_are_not_gated(first: int) -> None:
    told = {0: GOOD, 7: BAD}

    search, gates = searched(8, lambda place: BAD if place >= first else GOOD, told)

    assert list(search.among) == [first]
    assert gates <= Search(count=8, known=told).most == 3


@given(st.integers(2, 200), st.data())
def test_gates_are_never_more_than_was_announced(count: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, count - 1))

    search, gates = searched(count, lambda place: BAD if place >= first else GOOD)

    assert list(search.among) == [first]
    assert gates <= Search(count=count, known={}).most <= 2 + math.ceil(math.log2(count))


@given(st.lists(st.sampled_from(Stands), min_size=2, max_size=12))
def test_whatever_the_gates_say_the_search_ends_and_names_no_version_that_it_does_not_know(how: list[Stands]) -> None:
    search, gates = searched(len(how), how.__getitem__)

    assert gates <= len(how)
    assert all(how[place] is known for place, known in search.known.items())
    if search.bad is None:
        assert BAD not in search.known.values()
        return
    assert how[search.bad] is BAD
    unknown = [place for place in search.among if place != search.bad]
    assert all(search.known[place] in (OPEN, UNUSABLE) for place in unknown), "what could be gated was"


def test_what_the_gate_leaves_open_is_searched_around() -> None:
    how = [GOOD, GOOD, GOOD, OPEN, UNUSABLE, BAD, BAD, BAD]

    search, gates = searched(8, how.__getitem__)

    assert (search.good, search.bad, list(search.among)) == (2, 5, [3, 4, 5])
    assert gates == 6


def test_ends_that_say_nothing_are_replaced_by_their_neighbours() -> None:
    how = [UNUSABLE, GOOD, GOOD, BAD, OPEN]

    search, _ = searched(5, how.__getitem__)

    assert (search.good, search.bad, list(search.among)) == (2, 3, [3])


def test_a_first_version_that_does_not_pass_ends_the_search_and_a_later_one_that_does_is_told() -> None:
    never, gates = searched(8, lambda place: BAD)
    again, _ = searched(8, lambda place: BAD if place < 4 else GOOD)

    assert (never.good, never.bad, list(never.among), never.late, gates) == (None, 0, [0], None, 2)
    assert (again.bad, list(again.among), again.late) == (0, [0], 7)


def test_where_every_end_passes_nothing_else_is_gated() -> None:
    search, gates = searched(8, lambda place: GOOD)

    assert (search.bad, list(search.among), gates) == (None, [], 2)


def verdict(outcome: Outcome, blocked_by: str = "") -> Verdict:
    return Verdict(
        test="t", check="c", kind="text", engine="dev", baseline="old", outcome=outcome, blocked_by=blocked_by
    )


@pytest.mark.parametrize(
    ("verdicts", "how"),
    [
        ([verdict(Outcome.PASS)], GOOD),
        ([verdict(Outcome.PASS), verdict(Outcome.FAIL)], BAD),
        ([verdict(Outcome.PASS), verdict(Outcome.INCOMPARABLE, "dev")], BAD),
        ([verdict(Outcome.PASS), verdict(Outcome.INCONCLUSIVE)], OPEN),
        ([verdict(Outcome.ERROR, "old")], OPEN),
        ([verdict(Outcome.ERROR, "dev")], UNUSABLE),
        ([verdict(Outcome.ERROR, "dev"), verdict(Outcome.FAIL)], BAD),
        ([], OPEN),
    ],
)
def test_how_a_version_stands_is_what_its_gate_decided(verdicts: list[Verdict], how: Stands) -> None:
    assert stands(decide(Policy(), verdicts, baseline="old", candidate="dev")) is how


def test_a_version_that_breaks_a_test_of_the_suite_is_bad() -> None:
    decision = decide(Policy(), [verdict(Outcome.PASS)], baseline="old", candidate="dev", tests={"t2": "assert 1 == 2"})

    assert stands(decision) is BAD
