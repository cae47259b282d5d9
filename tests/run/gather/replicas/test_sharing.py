"""Prompts are dealt to replicas by group, and what a replica that is lost had not answered is asked of the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.errors import LaunchError
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Phase, Sample, WireRequest
from pytest_llmparity.run.gather.replicas.engine import Replicas, homes_of
from pytest_llmparity.run.ledger import Allowance
from pytest_llmparity.run.plan import Job
from pytest_llmparity.run.sending.lines import Deliver, Line, NodeLost


def prompts(groups: Sequence[str]) -> PromptSet:
    cases = [Case(id=f"c{at}", messages=({"role": "user", "content": "hi"},), group=g) for at, g in enumerate(groups)]
    return PromptSet(name="p", cases=tuple(cases), digest="d")


def job(case: str) -> Job:
    wire = WireRequest(path="/", body=case.encode(), sha256=case)
    return Job(case=case, wire=wire, phase=Phase.MAIN, repeat=0, concurrency=2)


class Recorded:
    """A line that answers at once, until it is lost after so many answers."""

    def __init__(self, name: str, lost_after: int | None = None, under_way: int = 0) -> None:
        self.name = name
        self.asked: list[str] = []
        self._lost_after = lost_after
        self._under_way = under_way

    async def send(self, jobs: Sequence[Job], *, concurrency: int, allowance: Allowance, deliver: Deliver) -> int:
        for at, each in enumerate(jobs):
            if at == self._lost_after:
                raise NodeLost(f"{self.name}: its node is gone", under_way=self._under_way)
            self.asked.append(each.case)
            deliver([Sample(engine=self.name, case=each.case, phase=each.phase, request_sha256=each.case)])
        return 0

    async def aclose(self) -> None:
        """Nothing is open."""


def nobody(name: str) -> Line:
    raise LaunchError(f"{name}: no other node has what was reserved")


class Run:
    """What came of asking some replicas."""

    def __init__(self, *lines: Recorded, again: Callable[[str], Line] = nobody) -> None:
        self.answers: list[tuple[str, str]] = []
        self.failed: list[str] = []
        self.reasons: set[str] = set()
        self.retries = 0
        self.told: list[str] = []
        self.replicas = Replicas(
            [line.name for line in lines],
            {line.name: line for line in lines},
            deliver=self._deliver,
            tell=self.told.append,
            again=again,
        )

    def _deliver(self, replica: str, samples: Sequence[Sample]) -> None:
        self.answers += [(replica, sample.case) for sample in samples if sample.failure is None]
        failures = [sample.failure for sample in samples if sample.failure is not None]
        self.failed += [failure.kind for failure in failures]
        self.reasons.update(failure.message for failure in failures)

    def share(self, cases: PromptSet, replicas: int) -> None:
        jobs = [job(case.id) for case in cases.cases]
        allowance = Allowance(requests=None, seconds=None)
        asyncio.run(self.replicas.share(jobs, homes_of(cases, replicas), concurrency=2, allowance=allowance))
        self.retries += allowance.retries


@given(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=60), st.integers(1, 8))
def test_a_group_stays_together_and_replicas_get_about_as_much(groups: list[str], replicas: int) -> None:
    homes = homes_of(prompts(groups), replicas)

    places = {group: {homes[f"c{at}"] for at, other in enumerate(groups) if other == group} for group in groups}
    assert all(len(place) == 1 for place in places.values())
    assert set(homes.values()) <= set(range(replicas))
    load = Counter(dict.fromkeys(range(replicas), 0))
    load.update(homes.values())
    assert max(load.values()) - min(load.values()) <= max(Counter(groups).values())


def test_each_case_is_asked_once_at_its_home() -> None:
    cases = prompts([f"g{at}" for at in range(20)])
    homes = homes_of(cases, 2)
    a, b = Recorded("a"), Recorded("a@2")

    run = Run(a, b)
    run.share(cases, 2)

    assert sorted(case for _, case in run.answers) == sorted(cases.by_id)
    assert all(homes[case] == 0 for case in a.asked)
    assert len(a.asked) == len(b.asked) == 10


def test_what_a_lost_replica_had_not_answered_is_asked_of_the_others() -> None:
    cases = prompts([f"g{at}" for at in range(20)])
    a, b = Recorded("a", lost_after=4), Recorded("a@2")

    run = Run(a, b)
    run.share(cases, 2)

    assert sorted(case for _, case in run.answers) == sorted(cases.by_id), "each once"
    assert (len(a.asked), len(b.asked)) == (4, 16)
    assert run.told == ["a: its node is gone; 6 requests had no answer by then"]


def test_where_none_is_left_one_is_started_again() -> None:
    cases = prompts([f"g{at}" for at in range(6)])
    anew = Recorded("a")

    run = Run(Recorded("a", lost_after=1), Recorded("a@2", lost_after=0), again=lambda name: anew)
    run.share(cases, 2)

    assert sorted(case for _, case in run.answers) == sorted(cases.by_id)
    assert len(anew.asked) == 5


def test_where_nobody_can_be_started_the_rest_is_told_as_not_asked() -> None:
    run = Run(Recorded("a", lost_after=2))
    run.share(prompts([f"g{at}" for at in range(5)]), 1)

    assert len(run.answers) == 2
    assert run.failed == ["NotAsked"] * 3
    assert run.reasons == {
        "not asked: every machine that the engine ran on is gone; a: no other node has what was reserved"
    }
    assert run.told[1:] == ["a is not started again: a: no other node has what was reserved"]


def test_what_was_under_way_on_a_lost_replica_counts_as_sent_again() -> None:
    run = Run(Recorded("a", lost_after=4, under_way=2), Recorded("a@2"))
    run.share(prompts([f"g{at}" for at in range(20)]), 2)

    assert run.told == ["a: its node is gone; 6 requests had no answer by then, at least 2 of them under way"]
    assert run.retries == 2


def test_where_an_application_is_called_each_replica_has_a_line_of_its_own() -> None:
    cases = prompts([f"g{at}" for at in range(6)])
    anew, calling = Recorded("a"), list[Recorded]()
    run = Run(Recorded("a"), again=lambda name: anew)

    def through(name: str) -> Line:
        calling.append(Recorded(name, lost_after=None if calling else 2))
        return calling[-1]

    jobs = [job(case.id) for case in cases.cases]
    allowance = Allowance(requests=None, seconds=None)
    asked = run.replicas.share(jobs, homes_of(cases, 1), concurrency=2, allowance=allowance, through=through)
    asyncio.run(asked)

    assert [len(line.asked) for line in calling] == [2, 4]
    assert anew.asked == []


@pytest.mark.parametrize(("limit", "grants"), [(None, [7, 7]), (10, [7, 3, 0])])
def test_requests_are_granted_as_far_as_there_are(limit: int | None, grants: list[int]) -> None:
    allowance = Allowance(requests=limit, seconds=None)

    assert [allowance.grant(7) for _ in grants] == grants
    assert allowance.sent == sum(grants)
    assert (allowance.reason is None) == (0 not in grants)
