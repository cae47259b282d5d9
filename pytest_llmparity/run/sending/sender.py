"""Fans requests out to one engine and turns every one of them into a sample: an answer or a typed failure."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from pytest_llmparity.core import sizes
from pytest_llmparity.core.errors import (
    AnswerError,
    EmptyAnswer,
    EngineDied,
    EngineError,
    LLMParityError,
    NotAsked,
    ProtocolError,
    Timeout,
    Unreachable,
    reason_of,
)
from pytest_llmparity.core.ports import AdapterProtocol
from pytest_llmparity.core.prompts.script import Script, next_request
from pytest_llmparity.core.sample import Completion, Failure, Sample, WireRequest
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.ledger import Allowance
from pytest_llmparity.run.loop import all_of
from pytest_llmparity.run.plan import Job, Step, Wires, jobs_of, next_wire
from pytest_llmparity.run.sending.lines import Deliver
from pytest_llmparity.run.sending.overhearing import overhear
from pytest_llmparity.run.sending.reconnect import RESTARTS, Watch
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.transport.client import MIXED, Client
from pytest_llmparity.transport.exchange import Exchange, Limits, timing

ATTEMPTS = 4
"""A request that can be retried is sent at most this often."""
BACKOFF_S = (0.25, 1.0, 4.0)
"""Waits before the further attempts, each stretched by up to a half at random so that requests do not come in step."""
RETRY_AFTER_LIMIT_S = 60.0
"""A server that asks for a longer wait is taken as not answering."""
TIMEOUT_ATTEMPTS = 2
"""A request that ran into a deadline is sent at most this often: each try costs the whole deadline."""
GONE_AFTER = 3
"""So many requests in a row that reached nothing or got no answer mean the engine is gone; the rest is not sent.

Requests that waited beside each other and ran out of time together are one of them: they tell of one slow spell.
"""
GONE_PAUSE_S = 0.2
"""A process that dies closes its connections a little before its exit status can be read; the status says more."""


async def send(
    adapter: AdapterProtocol,
    client: Client,
    jobs: Sequence[Job],
    *,
    concurrency: int,
    allowance: Allowance,
    gone: Callable[[], str | None],
    deliver: Callable[[Sample], None],
    watch: Watch | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> int:
    """Send the jobs, at most ``concurrency`` at a time, and deliver one sample for each as it finishes.

    ``gone`` says why the engine's process is no more, or ``None``. Once the engine is gone every further job is
    delivered as a ``NotAsked`` failure. With a ``watch`` a server that goes away is waited for first. Jobs beyond the
    allowance, and those whose next attempt would be, are not delivered at all. An error of ``gone`` or ``deliver`` ends
    the sending and is raised as it is.

    A server that sent more answers than it was asked for may have given one request's answer to another. Whatever came
    on a connection that had carried an answer before is then delivered once more: as a failure, and as what a fresh
    connection brings. Returns how many answers that were.
    """
    sending = _Sending(adapter, client, allowance=allowance, gone=gone, watch=watch, sleep=sleep)

    async def worker(queue: Iterator[Job]) -> None:
        for job in queue:
            if watch is not None:
                await watch.calm()
            if sending.dead is not None:
                unsent = NotAsked(f"not asked: {sending.dead}", engine=adapter.name, case=job.case)
                deliver(failed(adapter.name, job, unsent, attempts=0))
                continue
            if not allowance.take():
                return
            sample = await sending.sample_of(job)
            if sample is not None:
                deliver(sample)

    async def work(jobs: Sequence[Job]) -> None:
        queue = iter(jobs)
        await all_of(worker(queue) for _ in range(min(concurrency, len(jobs))))

    await work(jobs)
    if await client.part() or not sending.doubtful:
        return 0
    again = list(sending.doubtful)
    for job in again:
        deliver(failed(adapter.name, job, named(ProtocolError(MIXED), adapter.name, job.case), attempts=1))
    await work(again)
    return len(again)


@dataclass(frozen=True, slots=True)
class Ready:
    """An engine that can be asked, and the requests it can be sent.

    ``shorter`` are those by which its noise floor is measured, by the hash of the case's own, where they are others.
    ``further`` ask its replicas but the first.
    """

    adapter: Adapter
    wires: Wires
    shorter: Mapping[str, WireRequest] = field(default_factory=dict)
    further: tuple[Adapter, ...] = ()

    @property
    def replicas(self) -> tuple[Adapter, ...]:
        """What asks each replica."""
        return (self.adapter, *self.further)

    def jobs(self, step: Step) -> list[Job]:
        """Return the jobs of one step in the order they are sent."""
        return jobs_of(step, self.wires[step.unit.key], self.shorter)


class _Sending:
    """Sends requests, and knows whether anybody is at the other end: those without an answer are counted.

    ``dead`` says why nobody is, ``None`` while somebody may be. ``doubtful`` are the jobs whose answers came on a
    connection that had carried one before.
    """

    def __init__(
        self,
        adapter: AdapterProtocol,
        client: Client,
        *,
        allowance: Allowance,
        gone: Callable[[], str | None],
        watch: Watch | None,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.dead = watch.lost if watch is not None else None  # an earlier step may have found out
        self.doubtful: list[Job] = []
        self._adapter = adapter
        self._client = client
        self._allowance = allowance
        self._gone = gone
        self._watch = watch
        self._sleep = sleep
        self._missed = 0
        self._spells = 0
        """Stretches of time whose requests got no answer; one ends where the first of them ran out of time."""

    async def sample_of(self, job: Job) -> Sample | None:
        """Return the sample of one job: its answer, or the last one of the conversation that it begins.

        A conversation is one sample, and there is none before it has ended. It failed where one of its requests did,
        which the failure names by its turn. ``None`` when the allowance ended before the job did, an answer under way
        or not: what more of it would have brought is not known.
        """
        request, turns, wire = job.wire.begins, list[Completion](), job.wire
        script = None if request is None else Script(request)
        first: Sample | None = None
        while True:
            sample = await self._answer(dataclasses.replace(job, wire=wire, turn=len(turns) + 1), job)
            if sample is None or script is None or request is None:
                return sample
            first = first or sample
            attempts = max(first.attempts, sample.attempts)
            sample = msgspec.structs.replace(
                sample, request_sha256=job.request_sha256, attempts=attempts, timing=first.timing
            )
            if sample.completion is None:
                return _in_turn(sample, len(turns) + 1)
            results = script.results(sample.completion, len(turns) + 1)
            if not isinstance(results, tuple):
                ended = msgspec.structs.replace(sample.completion, turns=tuple(turns), stopped=results)
                return msgspec.structs.replace(sample, completion=ended)
            turns.append(msgspec.structs.replace(sample.completion, results=results, logprobs=()))
            request = next_request(request, sample.completion, results)
            try:
                wire = next_wire(self._adapter, request)
            except EngineError as error:  # what the model called has no place on this route
                return _in_turn(failed(self._adapter.name, job, error, attempts=attempts), len(turns) + 1)
            if not self._allowance.take():
                return None

    async def _answer(self, asked: Job, job: Job) -> Sample | None:
        """Return what came of one request of a job, retrying what can help; a retried answer is no evidence of time."""
        adapter, watch, allowance, wire = self._adapter, self._watch, self._allowance, asked.wire
        attempt, outlived = 1, 0
        path = adapter.addressed(wire.path, asked.purpose) if isinstance(adapter, Adapter) else wire.path
        while True:
            since, before = self._spells, watch.restarts if watch is not None else 0
            budget = asyncio.timeout(allowance.left_s)
            try:
                async with budget:
                    exchange = await self._client.send(wire.method, path, wire.body, most_bytes=wire.answer_bytes)
                sample = answered(adapter, asked, exchange, attempts=attempt + outlived)
            except TimeoutError:
                if not budget.expired():
                    raise
                allowance.out_of_time()
                return None
            except EngineError as error:
                named(error, adapter.name, asked.case)
                pause = 0.0
                if watch is not None and outlived < RESTARTS and await watch.restarted(error, before):
                    outlived += 1
                else:
                    self.dead = self.dead or (watch.lost if watch is not None else None)
                    await self._miss(error, since)
                    wait = _wait(error, attempt)
                    if wait is None or self.dead is not None:
                        return failed(adapter.name, asked, error, attempts=attempt + outlived)
                    attempt, pause = attempt + 1, wait
                left_s = allowance.left_s
                if left_s is not None and left_s <= pause:
                    allowance.out_of_time()
                    return None
                if not allowance.take():
                    return None
                allowance.retries += 1
                await self._sleep(pause)
            else:
                self._missed = 0
                if exchange.reused and job not in self.doubtful:
                    self.doubtful.append(job)
                return sample

    async def _miss(self, error: EngineError, since: int) -> None:
        """Count a request that failed; ``since`` is how many spells had come before when it was sent."""
        self.dead = self._gone() or self.dead
        if isinstance(error, Timeout):
            if since < self._spells:
                return  # it was on its way when another one ran out of time: both waited through the same spell
            self._spells += 1
        if self.dead is None and isinstance(error, (Unreachable, EngineDied, Timeout)):
            self._missed += 1
            if self._missed >= GONE_AFTER:
                count = self._missed
                await self._sleep(GONE_PAUSE_S)
                how = "got no answer in time" if isinstance(error, Timeout) else "reached nothing"
                self.dead = self._gone() or f"{count} requests in a row {how}; the last: {error}"


def _in_turn(sample: Sample, turn: int) -> Sample:
    """Return a sample that failed with the turn of its conversation named."""
    assert sample.failure is not None
    failure = dataclasses.replace(sample.failure, message=f"turn {turn}: {sample.failure.message}")
    return msgspec.structs.replace(sample, failure=failure, timing=None)


def answered(adapter: AdapterProtocol, job: Job, exchange: Exchange, *, attempts: int, block: int = -1) -> Sample:
    """Turn a finished exchange into a sample; raises the adapter's typed error when it is no answer.

    ``AnswerError`` also where the adapter stumbles over an answer it does not expect. What the server repeats of its
    key is in no error.
    """
    overhear(adapter, job, exchange)
    try:
        completion = _read_calls(adapter, job, exchange)
        ends = completion.token_ends if attempts == 1 else ()
        limit = job.wire.max_tokens
        choices = tuple(msgspec.structs.replace(choice, max_tokens=limit) for choice in completion.choices)
        completion = msgspec.structs.replace(completion, max_tokens=limit, token_ends=(), choices=choices)
        if job.wire.max_tokens is not None and (size := sizes.beyond(completion, job.wire.max_tokens)):
            raise ProtocolError(
                f"{adapter.name} sent {size}: it does not keep to the limit, or repeats what it sent.",
                engine=adapter.name,
                case=job.case,
            )
    except LLMParityError:
        raise
    except Exception as error:
        raise AnswerError(
            adapter.mask.torn(reason_of(error, adapter.name)), engine=adapter.name, case=job.case
        ) from error
    when = None
    if attempts == 1:
        hidden = 0 if completion.reasoning else completion.reasoning_tokens or 0
        when = dataclasses.replace(
            timing(exchange, ends, completion.completion_tokens, hidden_tokens=hidden), block=block
        )
    return Sample(
        engine=adapter.name,
        case=job.case,
        phase=job.phase,
        repeat=job.repeat,
        concurrency=job.concurrency,
        request_sha256=job.request_sha256,
        completion=completion,
        timing=when,
        attempts=attempts,
        omitted=job.wire.omitted,
    )


def _read_calls(adapter: AdapterProtocol, job: Job, exchange: Exchange) -> Completion:
    """Return the answer, an empty one where the engine generated what it then dropped: beside tools that is a call.

    It ended to call a tool, or says that it generated more than the token that ends an answer. In a later turn of a
    conversation every empty answer is one: what was called before is known, and models end some conversations so.
    """
    try:
        return _read(adapter, exchange, job.case)
    except EmptyAnswer as error:
        dropped = error.finish == "tool_calls" or (error.finish != "length" and (error.tokens or 0) > 1)
        if job.turn == 1 and not (dropped and b'"tools":' in job.wire.body):
            raise
        return Completion(
            text="",
            finish_reason=error.finish,
            prompt_tokens=error.prompt_tokens,
            completion_tokens=error.tokens,
            model=error.model,
        )


def _read(adapter: AdapterProtocol, exchange: Exchange, case: str) -> Completion:
    """Return the answer; an error quotes its beginning, so it is worded anew from one in which the key is hidden."""
    try:
        return adapter.read(exchange, case=case)
    except LLMParityError as error:
        wrong = error
    hidden = adapter.mask.binary(exchange.body, torn=True)
    if hidden == exchange.body:
        raise wrong
    adapter.read(dataclasses.replace(exchange, body=hidden), case=case)
    wrong.args = (adapter.mask.torn(str(wrong)),)
    raise wrong


def named(error: EngineError, engine: str, case: str | None) -> EngineError:
    """Return an error with engine and case filled in where the transport, which knows neither, raised it."""
    error.engine = error.engine or engine
    error.case = error.case if error.case is not None else case
    return error


def failed(engine: str, job: Job, error: EngineError, *, attempts: int) -> Sample:
    """Return the sample that stands for an answer that never came."""
    return Sample(
        engine=engine,
        case=job.case,
        phase=job.phase,
        repeat=job.repeat,
        concurrency=job.concurrency,
        request_sha256=job.request_sha256,
        failure=Failure(kind=type(error).__name__, message=str(error), status=error.status),
        attempts=attempts,
        omitted=job.wire.omitted,
    )


def _wait(error: EngineError, attempt: int) -> float | None:
    """Return how long to wait before asking again, ``None`` when asking again makes no sense."""
    if not error.retryable or attempt >= (TIMEOUT_ATTEMPTS if isinstance(error, Timeout) else ATTEMPTS):
        return None
    if error.retry_after_s is not None:
        return error.retry_after_s if error.retry_after_s <= RETRY_AFTER_LIMIT_S else None
    pause = BACKOFF_S[attempt - 1]
    return pause * random.Random(f"{error.case}/{attempt}").uniform(1.0, 1.5)  # noqa: S311 - spreads retries


class OwnLine:
    """Sends from this process."""

    def __init__(self, adapter: Adapter, gone: Callable[[], str | None], watch: Watch | None = None) -> None:
        self._adapter = adapter
        self._client = client_of(adapter)
        self._gone = gone
        self._watch = watch

    async def send(self, jobs: Sequence[Job], *, concurrency: int, allowance: Allowance, deliver: Deliver) -> int:
        """Send the jobs."""
        return await send(
            self._adapter,
            self._client,
            jobs,
            concurrency=concurrency,
            allowance=allowance,
            gone=self._gone,
            deliver=lambda sample: deliver([sample]),
            watch=self._watch,
        )

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()


def client_of(adapter: Adapter) -> Client:
    """Return a measuring client for one engine, with its headers, limits and route to the server."""
    return Client(
        adapter.base_url,
        headers=adapter.headers,
        limits=limits_of(adapter.spec),
        ca_bundle=adapter.spec.ca_bundle,
        proxy=adapter.spec.proxy,
    )


def limits_of(spec: EngineSpec) -> Limits:
    """Return the transport's limits under the deadlines of the configuration."""
    return Limits(
        connect_s=spec.connect_timeout_s,
        first_byte_s=spec.request_timeout_s,
        idle_s=spec.idle_timeout_s,
        total_s=spec.request_timeout_s,
    )
