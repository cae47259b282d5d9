"""What runs on a node of a cluster, without one: an engine is started, asked and heard by calls that carry bytes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from typing import cast

import httpx
import msgspec
import psutil
import pytest

from pytest_llmparity.core.errors import LaunchError
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.sample import Phase, Request, Sample, Sampling, from_json, to_json
from pytest_llmparity.engines import registry
from pytest_llmparity.run.gather.cluster.process import Answered, Asked, Order, ReplicaProcess, with_gpus
from pytest_llmparity.run.gather.cluster.relay import Call, Relay
from pytest_llmparity.run.loop import LoopThread, outside
from pytest_llmparity.run.plan import Job, wire_of
from pytest_llmparity.run.sending.lines import NodeLost
from pytest_llmparity.settings.specification import EngineSpec
from tests.run.conftest import Project

Started = Callable[..., contextlib.AbstractAsyncContextManager[ReplicaProcess]]


@pytest.fixture
def replica(project: Project) -> Started:
    """Start an engine's replica, which is stopped behind the block."""

    @contextlib.asynccontextmanager
    async def start(mode: str = "") -> AsyncIterator[ReplicaProcess]:
        replica = ReplicaProcess()
        try:
            started = await replica.start(Order(spec=project.process("a", mode), slots=2, secrets={}))
            assert started.error is None
            assert str(started.info["base_url"]).startswith("http://127.0.0.1:")
            yield replica
        finally:
            await replica.stop()

    return start


def jobs(spec: EngineSpec, count: int) -> list[Job]:
    adapter = registry.adapter_of(spec)(spec, "http://127.0.0.1:1", {})
    messages = [({"role": "user", "content": f"question {at}"},) for at in range(count)]
    requests = [Request(case=f"c{at}", messages=m, sampling=Sampling(max_tokens=8)) for at, m in enumerate(messages)]
    return [Job(case=r.case, wire=wire_of(adapter, r), phase=Phase.MAIN, repeat=0, concurrency=2) for r in requests]


async def answers(replica: ReplicaProcess, asked: Asked) -> tuple[list[Sample], Answered]:
    await replica.ask("1", msgspec.msgpack.encode(asked))
    samples: list[Sample] = []
    while True:
        some = msgspec.msgpack.decode(await replica.more("1"), type=Answered)
        samples += some.samples
        if some.done:
            return samples, some


def asked(spec: EngineSpec, count: int, *, allowed: int | None = None) -> Asked:
    can = to_json(Capabilities())
    return Asked(jobs=jobs(spec, count), concurrency=2, allowed=allowed, left_s=None, can=can)


async def test_an_engine_is_asked_beside_where_it_runs_and_its_samples_come_back(
    project: Project, replica: Started
) -> None:
    async with replica() as there:
        samples, whole = await answers(there, asked(project.process("a"), 6))

    assert sorted(sample.case for sample in samples) == [f"c{at}" for at in range(6)]
    assert all(sample.completion is not None and sample.completion.text for sample in samples)
    assert (whole.sent, whole.error, whole.late) == (6, "", False)


@pytest.mark.slow
async def test_no_more_is_sent_than_is_allowed(project: Project, replica: Started) -> None:
    async with replica() as there:
        samples, whole = await answers(there, asked(project.process("a"), 6, allowed=4))

    assert len(samples) == whole.sent == 4


@pytest.mark.slow
async def test_an_engine_that_cannot_be_started_says_why(project: Project) -> None:
    replica = ReplicaProcess()
    try:
        order = Order(spec=project.process("a", "exit"), slots=2, secrets={})
        started, again = await replica.start(order), await replica.start(order)
    finally:
        await replica.stop()

    assert started.error is not None
    assert "a" in started.error
    assert again is started


@pytest.mark.slow
async def test_nothing_is_left_of_a_replica_that_is_stopped(project: Project, replica: Started) -> None:
    async with replica() as there:
        assert there._keeper is not None
        started = [psutil.Process(pid) for pid in there._keeper.members("a")]
        assert started

    assert not [process for process in started if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


async def test_an_address_of_this_machine_leads_to_the_engine(replica: Started) -> None:
    async with replica() as there:
        home = asyncio.get_running_loop()

        async def call(method: str, *args: object) -> object:
            """Call the replica in the loop it lives in, as Ray does."""
            future = asyncio.run_coroutine_threadsafe(getattr(there, method)(*args), home)
            return await asyncio.wrap_future(future)

        loop = LoopThread()
        relay = await outside(lambda: Relay(loop, lambda: call))
        try:
            async with httpx.AsyncClient(base_url=relay.url, timeout=20.0) as client:
                replies = [await client.get("/health"), await client.get("/v1/models")]
        finally:
            await outside(relay.close)
            # Its connections end by calls of this loop: who waited for them in it would wait in vain.
            await outside(loop.close)

    assert [reply.status_code for reply in replies] == [200, 200]
    assert json.loads(replies[1].content)["data"]


async def test_a_connection_stays_with_its_replica_and_the_next_one_leads_to_its_successor() -> None:
    class Talking:
        """A replica whose engine says its own name to whoever connects, and then waits for a word."""

        def __init__(self, name: bytes) -> None:
            self.name = name
            self.heard = asyncio.Queue[bytes]()

        async def call(self, method: str, *args: object) -> object:
            if method == "hear":
                greeting, self.name = self.name, b""
                return greeting or await self.heard.get()
            if method == "tell":
                await self.heard.put(cast("bytes", args[1]))
            return 1

    first, second = Talking(b"first"), Talking(b"second")
    replicas = [first]
    loop = LoopThread()
    relay = await outside(lambda: Relay(loop, lambda: replicas[-1].call))
    address = "127.0.0.1", int(relay.url.rpartition(":")[2])
    try:
        heard, told = await asyncio.open_connection(*address)
        assert await heard.readexactly(5) == b"first"
        replicas.append(second)
        other, other_told = await asyncio.open_connection(*address)
        assert await other.readexactly(6) == b"second"
        for writer, reader, word in ((told, heard, b"one"), (other_told, other, b"two")):
            writer.write(word)
            assert await reader.readexactly(3) == word
            writer.close()
    finally:
        await outside(relay.close)
        loop.close()


@pytest.mark.parametrize("known", [True, False])
async def test_a_replica_that_is_gone_ends_the_connection(known: bool) -> None:
    async def call(method: str, *args: object) -> object:
        raise NodeLost("gone")

    def replica() -> Call:
        if not known:
            raise NodeLost("the run has ended")
        return call

    loop = LoopThread()
    relay = await outside(lambda: Relay(loop, replica))
    try:
        async with httpx.AsyncClient(base_url=relay.url, timeout=20.0) as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/health")
    finally:
        await outside(relay.close)
        loop.close()


def test_what_crosses_is_what_was_sent() -> None:
    sample = Sample(engine="a", case="c", phase=Phase.COLD)

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Answered(samples=[sample])), type=Answered).samples == [sample]
    assert from_json(Capabilities, to_json(Capabilities(logprobs=True))) == Capabilities(logprobs=True)


def test_a_container_sees_the_gpus_that_its_process_was_given_and_a_process_needs_no_word() -> None:
    boxed = EngineSpec(name="a", launch="container", image="i:1", num_gpus=0.5, gpus="all")

    assert with_gpus(boxed, {"CUDA_VISIBLE_DEVICES": "3"}).gpus == "3"
    for spec in (dataclasses.replace(boxed, launch="process"), dataclasses.replace(boxed, num_gpus=None)):
        assert with_gpus(spec, {"CUDA_VISIBLE_DEVICES": "3"}) is spec
    with pytest.raises(LaunchError, match=r"a: .*Ray does not say which GPUs those are"):
        with_gpus(boxed, {})


async def test_a_connection_that_was_hung_up_has_ended_for_whoever_still_listens() -> None:
    replica = ReplicaProcess()
    try:
        await replica.hang_up(1)
        await replica.tell(1, b"x")
        assert await replica.hear(1) == b""
    finally:
        await replica.stop()
