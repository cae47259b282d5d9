"""Leases: who gets what, and in which order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.keeper.leases import Lease, Leases


def lease(pid: int, *, exclusive: bool, deadline: float | None = None, resource: str = "gpu") -> Lease:
    return Lease(resource=resource, exclusive=exclusive, pid=pid, deadline=deadline)


def test_shared_leases_are_held_together_and_an_exclusive_one_waits_for_all_of_them() -> None:
    leases = Leases()
    first, second, alone = lease(1, exclusive=False), lease(2, exclusive=False), lease(3, exclusive=True)
    for each in (first, second, alone):
        leases.ask(each)

    assert leases.grant() == [first, second]
    leases.drop(first)
    assert leases.grant() == []
    leases.drop(second)
    assert leases.grant() == [alone]


def test_a_shared_lease_does_not_overtake_an_exclusive_one_that_waits() -> None:
    leases = Leases()
    reader, writer, late = lease(1, exclusive=False), lease(2, exclusive=True), lease(3, exclusive=False)
    for each in (reader, writer, late):
        leases.ask(each)

    assert leases.grant() == [reader]
    leases.drop(reader)
    assert leases.grant() == [writer]
    leases.drop(writer)
    assert leases.grant() == [late]


def test_resources_do_not_wait_for_each_other() -> None:
    leases = Leases()
    gpu, disk = lease(1, exclusive=True), lease(2, exclusive=True, resource="disk")
    leases.ask(gpu)
    leases.ask(disk)

    assert leases.grant() == [gpu, disk]


def test_who_waits_too_long_leaves_the_queue_and_is_told_who_holds_and_who_waits() -> None:
    leases = Leases()
    holder, late, patient = lease(1, exclusive=False), lease(2, exclusive=True, deadline=5.0), lease(3, exclusive=True)
    for each in (holder, late, patient):
        leases.ask(each)
    leases.grant()

    assert leases.deadlines() == [5.0]
    assert leases.overdue(4.9) == []
    assert leases.overdue(5.0) == [late]
    assert leases.refusal(late) == (
        "no exclusive lease of 'gpu' in time: held by process 1 (shared); waiting as well: process 3 (exclusive)"
    )
    assert leases.deadlines() == []


def test_giving_back_twice_does_nothing() -> None:
    leases = Leases()
    once = lease(1, exclusive=True)
    leases.ask(once)
    leases.grant()
    leases.drop(once)
    leases.drop(once)

    assert leases.held("gpu") == []
    assert leases.refusal(once) == "no exclusive lease of 'gpu' in time: held by nobody"


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["ask", "drop"]), st.integers(0, 20)), max_size=60))
def test_never_two_with_an_exclusive_one_and_everyone_is_served_in_order(steps: list[tuple[bool, str, int]]) -> None:
    leases = Leases()
    held: list[Lease] = []
    asked: list[Lease] = []
    granted: list[Lease] = []
    for number, (exclusive, step, place) in enumerate(steps):
        if step == "ask":
            asked.append(lease(number, exclusive=exclusive))
            leases.ask(asked[-1])
        elif held:
            leases.drop(held.pop(place % len(held)))
        new = leases.grant()
        held += new
        granted += new

        assert leases.held("gpu") == held
        assert len(held) == 1 or not any(each.exclusive for each in held)
        assert granted == asked[: len(granted)]
    while held:
        leases.drop(held.pop())
        new = leases.grant()
        held += new
        granted += new
    assert granted == asked
