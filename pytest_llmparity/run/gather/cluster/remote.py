"""Has one replica asked on its node, and brings what it answers; whatever calls the node there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from pytest_llmparity.core.errors import KeeperError
from pytest_llmparity.core.sample import Sample, to_json
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.gather.cluster.process import Answered, Asked
from pytest_llmparity.run.ledger import Allowance
from pytest_llmparity.run.plan import Job
from pytest_llmparity.run.sending.lines import Deliver, NodeLost
from pytest_llmparity.run.sending.sender import ATTEMPTS


class Called(Protocol):
    """A replica, on its node, whose methods are called by name from here."""

    name: str

    @property
    def where(self) -> str:
        """Where it is, in words."""

    async def call(self, method: str, *args: object) -> Any:
        """Return what a method of the replica returns; raises :class:`NodeLost`."""

    def leave(self, method: str, *args: object) -> None:
        """Call a method and wait for nothing."""


class RemoteLine:
    """Has a replica asked on its node, and brings what it answers. Satisfies ``Line``."""

    def __init__(self, replica: Called, adapter: Adapter) -> None:
        self._replica = replica
        self._adapter = adapter
        self._sent = 0

    async def send(self, jobs: Sequence[Job], *, concurrency: int, allowance: Allowance, deliver: Deliver) -> int:
        """Send the jobs; raises :class:`NodeLost` when the node is gone.

        Where requests are limited, the node is granted what its jobs can need, and what it did not need comes back:
        while it is away, others have less. So conversations go a few at a time.
        """
        few = allowance.limited and any(_turns(job) > 1 for job in jobs)
        size = 2 * concurrency if few else max(1, len(jobs))
        mixed = 0
        for begin in range(0, len(jobs), size):
            mixed += await self._send_all(jobs[begin : begin + size], concurrency, allowance, deliver)
        return mixed

    async def _send_all(self, jobs: Sequence[Job], concurrency: int, allowance: Allowance, deliver: Deliver) -> int:
        mixed, left, tries = 0, list(jobs), 1
        while left and (granted := allowance.grant(sum(map(_turns, left)) * tries)):
            answered: set[tuple[str, int]] = set()

            def delivered(samples: Sequence[Sample], answered: set[tuple[str, int]] = answered) -> None:
                answered.update((sample.case, sample.repeat) for sample in samples)
                deliver(samples)

            allowed = granted if allowance.limited else None
            try:
                whole = await self._send(left, concurrency, allowance, delivered, allowed)
            except NodeLost as error:
                allowance.give_back(granted - error.sent)
                raise
            allowance.give_back(granted - whole.sent)
            allowance.retries += whole.retries
            mixed += whole.mixed
            if whole.late:
                allowance.out_of_time()
            if not answered and not whole.sent:
                break
            # Retries are counted too, and took what others were granted. These now get enough for any number of them:
            # with less a job would be begun again and again, and its first requests lost each time.
            left = [job for job in left if (job.case, job.repeat) not in answered]
            tries = ATTEMPTS
        return mixed

    async def _send(
        self, jobs: Sequence[Job], concurrency: int, allowance: Allowance, deliver: Deliver, allowed: int | None
    ) -> Answered:
        self._sent += 1
        number = f"{os.getpid()}-{id(self)}-{self._sent}"
        asked = Asked(
            jobs=jobs,
            concurrency=concurrency,
            allowed=allowed,
            left_s=allowance.left_s,
            can=to_json(self._adapter.can),
        )
        whole: Answered | None = None
        sent = answered = 0
        try:
            await self._replica.call("ask", number, msgspec.msgpack.encode(asked))
            while whole is None:
                news = msgspec.msgpack.decode(await self._replica.call("more", number), type=Answered)
                sent, answered = news.sent, answered + sum(map(_requests, news.samples))
                if news.samples:
                    deliver(news.samples)
                whole = news if news.done else None
        except NodeLost as error:
            raise NodeLost(str(error), sent=max(sent, answered), under_way=max(0, sent - answered)) from error
        except asyncio.CancelledError:
            self._replica.leave("halt", number)
            raise
        if whole.error:
            raise KeeperError(f"{self._replica.name}, asked on {self._replica.where}: {whole.error}")
        return whole

    async def aclose(self) -> None:
        """Nothing is open between two calls."""


def _turns(job: Job) -> int:
    """Return how many requests a job takes at most when none of them is sent again."""
    return 1 if job.wire.begins is None else max(1, job.wire.begins.max_turns)


def _requests(sample: Sample) -> int:
    """Return how many requests a sample took, as far as it tells."""
    turns = 0 if sample.completion is None else len(sample.completion.turns)
    return turns + sample.attempts
