"""Every job becomes exactly one sample, retries are counted and bounded, limits stop the sending."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import cast

import pytest

from pytest_llmparity.core.errors import (
    BadRequest,
    EngineDied,
    EngineError,
    Overloaded,
    ServerFailure,
    StoreError,
    Timeout,
    Unreachable,
)
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.sample import Completion, Identity, Phase, Request, Sample, WireRequest
from pytest_llmparity.core.words.hiding import NOTHING
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.ledger import Allowance
from pytest_llmparity.run.plan import Job
from pytest_llmparity.run.sending.reconnect import RESTARTS, Watch
from pytest_llmparity.run.sending.sender import ATTEMPTS, GONE_AFTER, GONE_PAUSE_S, send
from pytest_llmparity.transport.client import Client
from pytest_llmparity.transport.exchange import Exchange, Read


class Echo:
    """An engine whose answer is the body it was sent."""

    name = "echo"
    kind = "openai"
    mask = NOTHING

    def build(self, request: Request, *, stream: bool = True) -> WireRequest:
        raise AssertionError("jobs are built already")

    def read(self, answer: Answer, *, case: str) -> Completion:
        if answer.status != 200:
            raise BadRequest(f"status {answer.status}", status=answer.status)
        return Completion(text=answer.body.decode(), completion_tokens=2, token_ends=(len(answer.body),))

    def identity(self) -> Identity:
        return Identity()


class Scripted:
    """A client that answers each request by the next entry of its script: an error, or a status."""

    def __init__(self, script: Callable[[int, bytes], EngineError | int]) -> None:
        self.sent: list[bytes] = []
        self._script = script

    async def send(self, method: str, path: str, body: bytes = b"", *, most_bytes: int | None = None) -> Exchange:
        self.sent.append(body)
        outcome = self._script(len(self.sent), body)
        if isinstance(outcome, EngineError):
            raise outcome
        return Exchange(
            status=outcome,
            headers={},
            body=body,
            sent_ns=0,
            headers_ns=10,
            done_ns=30,
            reads=(Read(20, 20, len(body)),),
        )

    async def part(self) -> bool:
        return True


async def no_wait(seconds: float) -> None:
    await asyncio.sleep(0)


def jobs(count: int) -> list[Job]:
    return [
        Job(
            case=f"c{i}",
            wire=WireRequest(path="/", body=f"text {i}".encode(), sha256=f"sha{i}", max_tokens=16),
            phase=Phase.MAIN,
            repeat=0,
            concurrency=2,
        )
        for i in range(count)
    ]


async def run(
    script: Callable[[int, bytes], EngineError | int],
    count: int = 3,
    *,
    allowance: Allowance | None = None,
    gone: Callable[[], str | None] = lambda: None,
    concurrency: int = 1,
    watch: Watch | None = None,
) -> tuple[list[Sample], Scripted, list[float], Allowance]:
    client, waits, samples = Scripted(script), list[float](), list[Sample]()
    allowed = allowance or Allowance(requests=None, seconds=None)

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    await send(
        Echo(),
        cast("Client", client),
        jobs(count),
        concurrency=concurrency,
        allowance=allowed,
        watch=watch,
        gone=gone,
        deliver=samples.append,
        sleep=sleep,
    )
    return samples, client, waits, allowed


@pytest.mark.parametrize("concurrency", [1, 2, 8])
async def test_every_job_becomes_one_sample(concurrency: int) -> None:
    samples, _, waits, allowed = await run(lambda n, b: 200, 5, concurrency=concurrency)

    assert sorted(s.completion.text for s in samples if s.completion) == [f"text {i}" for i in range(5)]
    assert all(s.timing is not None and s.attempts == 1 for s in samples)
    assert {s.completion.max_tokens for s in samples if s.completion} == {16}  # by which an answer is known to be cut
    assert (waits, allowed.sent, allowed.retries) == ([], 5, 0)


async def test_a_refused_request_is_a_failure_and_the_rest_goes_on() -> None:
    samples, _, waits, _ = await run(lambda n, b: 400 if b == b"text 1" else 200)

    failure = samples[1].failure
    assert failure is not None
    assert (failure.kind, failure.status) == ("BadRequest", 400)
    assert [s.completion is not None for s in samples] == [True, False, True]
    assert waits == []


async def test_a_retried_answer_is_counted_and_is_no_timed_evidence() -> None:
    samples, _, waits, allowed = await run(lambda n, b: Overloaded("busy", status=503) if n == 1 else 200, 1)

    (sample,) = samples
    assert sample.attempts == 2
    assert sample.timing is None
    assert sample.completion is not None
    assert allowed.retries == 1
    assert 0.25 <= waits[0] <= 0.375


async def test_retry_after_is_waited_for() -> None:
    _, _, waits, _ = await run(lambda n, b: Overloaded("busy", retry_after_s=7.0) if n == 1 else 200, 1)

    assert waits == [7.0]


async def test_a_server_that_asks_for_an_hour_is_not_waited_for() -> None:
    samples, client, waits, _ = await run(lambda n, b: Overloaded("busy", retry_after_s=3600.0), 1)

    assert samples[0].failure is not None
    assert (len(client.sent), waits) == (1, [])


async def test_retries_end() -> None:
    samples, client, waits, _ = await run(lambda n, b: ServerFailure("500", status=500), 1)

    assert len(client.sent) == ATTEMPTS == samples[0].attempts
    assert len(waits) == ATTEMPTS - 1
    assert waits == sorted(waits)


async def test_a_dead_process_ends_the_sending_and_every_job_says_so() -> None:
    samples, client, _, _ = await run(
        lambda n, b: 200 if n == 1 else EngineDied("closed"), 4, gone=lambda: "it ended with exit code 3\nlast words"
    )

    assert len(client.sent) == 2
    assert [s.failure.kind if s.failure else None for s in samples] == [None, "EngineDied", "NotAsked", "NotAsked"]
    assert samples[3].failure is not None
    assert "exit code 3" in samples[3].failure.message
    assert samples[3].attempts == 0


async def test_a_process_whose_end_is_seen_late_is_told_by_its_exit_status() -> None:
    ends = iter([None] * GONE_AFTER)

    samples, client, waits, _ = await run(
        lambda n, b: EngineDied("closed"), 8, gone=lambda: next(ends, "it ended with exit code 3")
    )

    assert (len(client.sent), waits) == (GONE_AFTER, [GONE_PAUSE_S])
    assert [s.failure.message for s in samples[GONE_AFTER:] if s.failure] == [
        "not asked: it ended with exit code 3"
    ] * 5


async def test_an_attached_engine_that_nobody_answers_for_is_given_up() -> None:
    samples, client, _, _ = await run(lambda n, b: Unreachable("refused"), 20)

    assert len(client.sent) == GONE_AFTER
    assert len(samples) == 20
    assert all(s.failure is not None for s in samples)


async def test_a_prompt_that_brings_its_server_down_every_time_is_given_up_and_the_others_are_answered() -> None:
    class Away(Watch):
        def _is_away(self, error: EngineError) -> bool:
            return True

    watch = Away(cast("Adapter", None), hold=lambda within_s, stop: None, patience_s=5.0, allowance=Allowance())

    samples, client, _, allowed = await run(lambda n, b: EngineDied("cut") if b == b"text 1" else 200, 3, watch=watch)

    assert [s.failure.kind if s.failure else None for s in samples] == [None, "EngineDied", None]
    assert client.sent.count(b"text 1") == 1 + RESTARTS == 1 + watch.restarts
    assert allowed.sent == len(client.sent)


async def test_a_server_that_was_lost_in_an_earlier_step_is_not_asked_again() -> None:
    watch = Watch(cast("Adapter", None), hold=lambda within_s, stop: None, patience_s=5.0, allowance=Allowance())
    watch.lost = "it did not come back"

    samples, client, _, _ = await run(lambda n, b: 200, 3, watch=watch)

    assert client.sent == []
    assert {s.failure.message for s in samples if s.failure} == {"not asked: it did not come back"}


async def test_a_request_that_ran_into_a_deadline_is_sent_once_more_only() -> None:
    samples, client, _, _ = await run(lambda n, b: Timeout("no answer within 300 s") if b == b"text 0" else 200, 2)

    assert len(client.sent) == 2 + 1
    assert [s.failure.kind if s.failure else None for s in samples] == ["Timeout", None]


async def test_an_engine_that_hangs_is_given_up_after_a_few_deadlines() -> None:
    samples, client, _, _ = await run(lambda n, b: Timeout("no answer within 300 s"), 20)

    assert len(client.sent) == GONE_AFTER
    assert len(samples) == 20
    assert samples[19].failure is not None
    assert samples[19].failure.message == (
        "not asked: 3 requests in a row got no answer in time; the last: no answer within 300 s"
    )


async def test_answers_in_between_keep_a_slow_engine_alive() -> None:
    samples, client, _, _ = await run(lambda n, b: Timeout("slow") if n % 2 else 200, 8)

    assert len(client.sent) == 16
    assert all(s.completion is not None for s in samples)


async def test_what_may_be_another_request_s_answer_is_delivered_as_a_failure_and_asked_again() -> None:
    class Mixing(Scripted):
        """Answers on one connection, until it is known to send more than it is asked for."""

        async def send(self, method: str, path: str, body: bytes = b"", *, most_bytes: int | None = None) -> Exchange:
            exchange = await super().send(method, path, body)
            return dataclasses.replace(exchange, reused=1 < len(self.sent) <= 3)

        async def part(self) -> bool:
            return False

    client, samples = Mixing(lambda n, b: 200), list[Sample]()
    again = await send(
        Echo(),
        cast("Client", client),
        jobs(3),
        concurrency=1,
        allowance=Allowance(requests=4, seconds=None),
        gone=lambda: None,
        deliver=samples.append,
    )

    assert again == 2
    assert [(s.case, s.failure.kind if s.failure else "answer") for s in samples] == [
        *[("c0", "answer"), ("c1", "answer"), ("c2", "answer")],
        *[("c1", "ProtocolError"), ("c2", "ProtocolError"), ("c1", "answer")],
    ], "the fourth request was the last that was allowed, so nothing is known of c2"


async def test_parallel_requests_that_run_out_of_time_together_are_not_so_many_in_a_row() -> None:
    """Eight slow answers at once are one slow spell of a server that is there: everything is asked again, and comes."""
    waiting = asyncio.Barrier(8)

    class Slow(Scripted):
        async def send(self, method: str, path: str, body: bytes = b"", *, most_bytes: int | None = None) -> Exchange:
            first = len(self.sent) < 8
            exchange = await super().send(method, path, body)
            if first:
                await waiting.wait()  # all of them are under way before the first runs out of time
                raise Timeout("no answer within 300 s")
            return exchange

    client, samples = Slow(lambda n, b: 200), list[Sample]()
    await send(
        Echo(),
        cast("Client", client),
        jobs(24),
        concurrency=8,
        allowance=Allowance(requests=None, seconds=None),
        gone=lambda: None,
        deliver=samples.append,
        sleep=no_wait,
    )

    assert len(client.sent) == 8 + 24
    assert all(sample.completion is not None for sample in samples)


async def test_a_hanging_engine_is_given_up_at_any_concurrency() -> None:
    samples, client, _, _ = await run(lambda n, b: Timeout("no answer within 300 s"), 40, concurrency=8)

    assert len(client.sent) <= GONE_AFTER * 8
    assert len(samples) == 40
    assert samples[-1].attempts == 0


async def test_what_delivering_raises_comes_out_as_it_is() -> None:
    def full(sample: Sample) -> None:
        raise StoreError("the disk is full")

    with pytest.raises(StoreError, match="disk is full"):
        await send(
            Echo(),
            cast("Client", Scripted(lambda n, b: 200)),
            jobs(4),
            concurrency=2,
            allowance=Allowance(requests=None, seconds=None),
            gone=lambda: None,
            deliver=full,
        )


def test_a_phase_that_does_not_fit_says_how_much_it_needs() -> None:
    allowance = Allowance(requests=40, seconds=None)

    assert not allowance.take(256, purpose="the timed phase")
    assert allowance.reason == "the timed phase needs 256 requests and 40 are left (--parity-max-requests)"


def test_what_was_not_sent_is_given_back_and_time_left_is_told() -> None:
    allowance = Allowance(requests=4, seconds=10.0, now=iter([0.0, 1.0, 4.0, 12.0, 12.0]).__next__)
    assert allowance.take(4)
    allowance.give_back(3)

    assert allowance.sent == 1
    assert (allowance.left_s, allowance.left_s) == (6.0, 0.0)
    assert not allowance.take()
    assert allowance.reason == "stopped after 10 s (--parity-budget)"
    assert Allowance(requests=None, seconds=None).left_s is None


async def test_the_number_of_requests_is_a_hard_stop_retries_included() -> None:
    allowance = Allowance(requests=3, seconds=None)

    samples, client, _, _ = await run(lambda n, b: Overloaded("busy") if n == 1 else 200, 5, allowance=allowance)

    assert len(client.sent) == 3
    assert len(samples) == 2
    assert allowance.reason == "stopped after 3 requests (--parity-max-requests)"


async def test_a_retry_beyond_the_allowance_is_not_sent() -> None:
    samples, client, waits, _ = await run(
        lambda n, b: Overloaded("busy"), 1, allowance=Allowance(requests=1, seconds=None)
    )

    assert (len(client.sent), waits) == (1, [])
    assert samples == [], "nobody knows what the further attempts would have brought"


async def test_time_is_a_hard_stop() -> None:
    clock = iter([0.0, 1.0, 1.0, 2.0, 2.0, 11.0])
    allowance = Allowance(requests=None, seconds=10.0, now=lambda: next(clock))

    samples, _, _, _ = await run(lambda n, b: 200, 5, allowance=allowance)

    assert len(samples) == 2
    assert allowance.reason == "stopped after 10 s (--parity-budget)"


async def test_an_answer_that_trickles_past_the_time_is_not_waited_for() -> None:
    class Endless(Scripted):
        async def send(self, method: str, path: str, body: bytes = b"", *, most_bytes: int | None = None) -> Exchange:
            await asyncio.Event().wait()
            raise AssertionError("it never ends")

    allowance, samples = Allowance(requests=None, seconds=0.05), list[Sample]()
    await send(
        Echo(),
        cast("Client", Endless(lambda n, b: 200)),
        jobs(8),
        concurrency=4,
        allowance=allowance,
        gone=lambda: None,
        deliver=samples.append,
    )

    assert samples == [], "nobody knows what the rest of them would have been"
    assert allowance.reason == "stopped after 0.05 s (--parity-budget)"


async def test_a_wait_beyond_the_time_is_not_begun() -> None:
    allowance = Allowance(requests=None, seconds=10.0)

    samples, client, waits, _ = await run(lambda n, b: Overloaded("busy", retry_after_s=50.0), 1, allowance=allowance)

    assert (samples, len(client.sent), waits) == ([], 1, [])
    assert allowance.reason == "stopped after 10 s (--parity-budget)"


async def test_errors_of_the_transport_learn_engine_and_case() -> None:
    error = Unreachable("refused")

    await run(lambda n, b: error, 1)

    assert (error.engine, error.case) == ("echo", "c0")


async def test_nothing_to_send_sends_nothing() -> None:
    samples, client, _, _ = await run(lambda n, b: 200, 0)

    assert (samples, client.sent) == ([], [])
