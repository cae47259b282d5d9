"""What a node may send of a limited number of requests: never more, and every job that they are enough for is done."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.sample import Completion, Phase, Request, Sample, WireRequest
from pytest_llmparity.engines import registry
from pytest_llmparity.run.gather.cluster.process import Answered, Asked
from pytest_llmparity.run.gather.cluster.remote import RemoteLine
from pytest_llmparity.run.ledger import Allowance
from pytest_llmparity.run.plan import Job
from pytest_llmparity.run.sending.lines import NodeLost
from pytest_llmparity.run.sending.sender import ATTEMPTS
from pytest_llmparity.settings.specification import EngineSpec


class Node:
    """A node whose jobs take so many requests each, sent again so often; what it may not send it leaves."""

    name = "a"
    where = "node 1"

    def __init__(self, takes: dict[str, int], retries: dict[str, int]) -> None:
        self.sent: Counter[str] = Counter()
        self.calls = 0
        self._takes = takes
        self._retries = retries
        self._whole = Answered()

    async def call(self, method: str, *args: Any) -> bytes | None:
        if method == "more":
            return msgspec.msgpack.encode(self._whole)
        self.calls += 1
        order = msgspec.msgpack.decode(args[1], type=Asked)
        allowance = Allowance(requests=order.allowed, seconds=order.left_s)
        samples = []
        for job in order.jobs:
            wanted = self._takes[job.case] + self._retries.get(job.case, 0)
            taken = [allowance.take() for _ in range(wanted)]
            self.sent[job.case] += sum(taken)
            if all(taken):
                turns = (Completion(text="calls"),) * (self._takes[job.case] - 1)
                samples.append(
                    Sample(engine="a", case=job.case, phase=job.phase, completion=Completion(text="x", turns=turns))
                )
        self._whole = Answered(samples=samples, done=True, sent=allowance.sent)
        return None

    def leave(self, method: str, *args: object) -> None:
        raise AssertionError("nobody is cancelled here")


def job(case: str, turns: int) -> Job:
    request = Request(case=case, messages=(), max_turns=turns)
    wire = WireRequest(path="/", body=b"", sha256=case, begins=request if turns else None)
    return Job(case=case, wire=wire, phase=Phase.MAIN, repeat=0, concurrency=2)


SPEC = EngineSpec(name="a", kind="openai", model="m")


def asked(node: Node, jobs: Sequence[Job], limit: int | None) -> tuple[list[str], Allowance]:
    adapter = registry.adapter_of(SPEC)(SPEC, "http://127.0.0.1:1", {})
    allowance, answers = Allowance(requests=limit, seconds=None), list[str]()

    async def send() -> None:
        line = RemoteLine(node, adapter)
        deliver = lambda samples: answers.extend(sample.case for sample in samples)  # noqa: E731
        await line.send(jobs, concurrency=2, allowance=allowance, deliver=deliver)

    asyncio.run(send())
    return answers, allowance


@pytest.mark.parametrize(("limit", "answers", "stopped"), [(None, 1, False), (3, 1, False), (2, 0, True)])
def test_one_conversation_is_asked_once(limit: int | None, answers: int, stopped: bool) -> None:
    node = Node({"c": 3}, {})

    told, allowance = asked(node, [job("c", 5)], limit)

    assert len(told) == answers
    assert node.sent["c"] == allowance.sent == (3 if answers else 2)
    assert (allowance.reason is not None) is stopped


def test_what_was_granted_and_not_needed_comes_back() -> None:
    node = Node(dict.fromkeys(map(str, range(12)), 2), {})

    told, allowance = asked(node, [job(str(at), 8) for at in range(12)], 40)

    assert len(told) == 12
    assert (allowance.sent, allowance.reason, allowance.take(16), allowance.take()) == (24, None, True, False)


class LostNode(Node):
    """A node that is gone after it told twice of a sending: with so many answers, and so many requests sent."""

    def __init__(self, *told: tuple[int, int]) -> None:
        super().__init__({}, {})
        self._told = iter(told)
        self._jobs: list[Job] = []

    async def call(self, method: str, *args: Any) -> bytes | None:
        if method == "ask":
            self._jobs = list(msgspec.msgpack.decode(args[1], type=Asked).jobs)
            return None
        if (news := next(self._told, None)) is None:
            raise NodeLost("a: node 1 is gone")
        answers, sent = news
        answered, self._jobs = self._jobs[:answers], self._jobs[answers:]
        samples = [
            Sample(engine="a", case=job.case, phase=job.phase, completion=Completion(text="x")) for job in answered
        ]
        return msgspec.msgpack.encode(Answered(samples=samples, sent=sent))


@pytest.mark.parametrize(
    ("told", "sent", "under_way"), [([], 0, 0), ([(0, 2)], 2, 2), ([(2, 4), (3, 7)], 7, 2), ([(2, 1)], 2, 0)]
)
def test_what_a_lost_node_had_sent_is_spent_and_what_it_had_not_comes_back(
    told: list[tuple[int, int]], sent: int, under_way: int
) -> None:
    allowance = Allowance(requests=20, seconds=None)
    line = RemoteLine(LostNode(*told), registry.adapter_of(SPEC)(SPEC, "http://127.0.0.1:1", {}))
    jobs = [job(str(at), 0) for at in range(12)]

    with pytest.raises(NodeLost) as lost:
        asyncio.run(line.send(jobs, concurrency=2, allowance=allowance, deliver=lambda samples: None))

    assert (lost.value.sent, lost.value.under_way, allowance.sent) == (sent, under_way, sent)
    assert allowance.take(20 - sent)
    assert not allowance.take()


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, ATTEMPTS - 1)), min_size=1, max_size=9),
    st.one_of(st.none(), st.integers(1, 80)),
)
def test_no_more_is_sent_than_is_allowed_and_nothing_again_and_again(
    rows: list[tuple[int, int]], limit: int | None
) -> None:
    takes = {str(at): turns for at, (turns, _) in enumerate(rows)}
    retries = {str(at): again for at, (_, again) in enumerate(rows)}
    node = Node(takes, retries)

    told, allowance = asked(node, [job(case, turns if turns > 1 else 0) for case, turns in takes.items()], limit)

    assert len(told) == len(set(told))
    assert sum(node.sent.values()) == allowance.sent <= (limit if limit is not None else allowance.sent)
    needed = sum(takes.values()) + sum(retries.values())
    if allowance.reason is None:
        assert sorted(told) == sorted(takes)
    else:
        assert limit is not None
        assert limit < 2 * needed, "each is begun twice at most"
    if limit is None:
        assert allowance.sent == needed
