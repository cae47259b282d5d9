"""Where the requests of one engine are sent from: a line for each of its replicas, here or beside it on a cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pytest_llmparity.core.errors import LLMParityError, NotAsked
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.sample import Sample
from pytest_llmparity.core.shards import dealt
from pytest_llmparity.core.words import explain
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.ledger import Allowance
from pytest_llmparity.run.loop import all_of, outside
from pytest_llmparity.run.plan import Job
from pytest_llmparity.run.sending.reconnect import Watch
from pytest_llmparity.run.sending.sender import client_of, failed, send
from pytest_llmparity.settings.specification import EngineSpec

Deliver = Callable[[Sequence[Sample]], None]


class NodeLost(LLMParityError):
    """The machine of a cluster that a replica ran on is gone, or what ran there for us; not the engine's doing.

    ``sent`` is how many requests of the last order were sent there as far as that was told, ``under_way`` those of them
    whose answers never came.
    """

    def __init__(self, message: str, *, sent: int = 0, under_way: int = 0) -> None:
        super().__init__(message)
        self.sent = sent
        self.under_way = under_way


class Line(Protocol):
    """Sends one replica its requests."""

    async def send(self, jobs: Sequence[Job], *, concurrency: int, allowance: Allowance, deliver: Deliver) -> int:
        """Send the jobs as ``run.sending.sender.send`` does; samples bear the replica's name.

        Raises :class:`NodeLost` when nobody is there any more: what was not delivered by then may be sent elsewhere.
        """

    async def aclose(self) -> None:
        """Hang up."""


class Elsewhere(Protocol):
    """Starts engines on other machines, and has them asked there."""

    def launch(
        self,
        spec: EngineSpec,
        engine: EngineSpec,
        *,
        make: Callable[[EngineSpec, str], Adapter],
        slots: int,
        left_s: float | None,
        stop: Callable[[], str | None],
    ) -> Adapter:
        """Start a replica of an engine, once; return what asks it from here. ``LaunchError`` as locally.

        ``make`` makes that of an address, the rest is as in ``run.started.launching.Launcher``.
        """

    def info(self, name: str) -> Mapping[str, Any]:
        """Return what its starter found out: ``identity`` and what was ``installed``."""

    def where(self, name: str) -> str:
        """Return the machine a replica runs on, in words."""

    def gone(self, name: str) -> str | None:
        """Say why a replica is no more, ``None`` while it runs."""

    def line(self, adapter: Adapter) -> Line:
        """Return what sends a replica its requests, beside it."""

    def lost(self, name: str) -> bool:
        """Tell whether the machine of a replica is gone."""

    def close(self) -> list[str]:
        """End what was started, once; return what went wrong."""


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


def homes_of(prompts: PromptSet, replicas: int) -> dict[str, int]:
    """Return which replica, counted from 0, answers each case: cases of one group the same one.

    Of groups the same number of cases goes to each as far as that can be, the same in every run.
    """
    if replicas == 1:
        return dict.fromkeys(prompts.by_id, 0)
    places = dealt(Counter(case.group for case in prompts.cases), replicas)
    return {case.id: places[case.group] - 1 for case in prompts.cases}


class Replicas:
    """Asks the replicas of one engine; ``lines`` lead to those that are there.

    A replica whose machine is gone is asked nothing more: what it had not answered is asked of the others, dealt anew.
    Where none is left ``again`` starts one on another machine and returns its line; ``LaunchError`` says why not.
    ``note`` is told what became of them. ``deliver`` gets samples with the name of the replica that gave them.
    ``over`` says why nobody is left and none is started again, empty until then.
    """

    def __init__(
        self,
        names: Sequence[str],
        lines: Mapping[str, Line],
        *,
        deliver: Callable[[str, Sequence[Sample]], None],
        note: Callable[[str], None],
        again: Callable[[str], Line],
    ) -> None:
        self.names = tuple(names)
        self.over = ""
        self._lines: dict[str, Line] = dict(lines)
        self._deliver = deliver
        self._note = note
        self._again = again

    @property
    def there(self) -> list[str]:
        """The replicas that can be asked."""
        return [name for name in self.names if name in self._lines]

    async def aclose(self) -> None:
        """Hang up."""
        for line in self._lines.values():
            await line.aclose()

    async def ask_each(self, jobs: Mapping[str, Sequence[Job]], *, concurrency: int, allowance: Allowance) -> int:
        """Send every replica that is there its jobs, at the same time; what one leaves behind nobody is asked.

        Returns how many answers were asked for again because they may have been other requests'.
        """
        theirs = {name: jobs[name] for name in self._lines if jobs.get(name)}
        return (await self._send(theirs, self._lines, concurrency, allowance)).mixed

    async def share(
        self,
        jobs: Sequence[Job],
        homes: Mapping[str, int],
        *,
        concurrency: int,
        allowance: Allowance,
        through: Callable[[str], Line] | None = None,
    ) -> int:
        """Have each job answered once, by the replica that its case is at home at as long as that one is there.

        ``through`` makes the line to a replica that is there where it is not the one for prompts. What was under way
        on one that is lost counts as sent again.
        """
        mixed, left = 0, list(jobs)
        while left:
            if not self._lines:
                await self._revive()
            if self.over:
                words = f"not asked: every machine that the engine ran on is gone; {self.over}"
                for job in left:
                    unsent = NotAsked(words, case=job.case)
                    self._deliver(self.names[0], [failed(self.names[0], job, unsent, attempts=0)])
                break
            there = self.there
            dealt_to: dict[str, list[Job]] = {name: [] for name in there}
            for job in left:
                home = self.names[homes[job.case]]
                dealt_to[home if home in dealt_to else there[homes[job.case] % len(there)]].append(job)
            lines = self._lines if through is None else {name: through(name) for name in there}
            sent = await self._send(dealt_to, lines, concurrency, allowance)
            left, mixed = sent.left, mixed + sent.mixed
            allowance.retries += sent.under_way
        return mixed

    async def _revive(self) -> None:
        """Start the first replica anew, whose machine may be another, unless that could not be done before."""
        if self.over:
            return
        try:
            self._lines[self.names[0]] = await outside(lambda: self._again(self.names[0]))
        except LLMParityError as error:
            self.over = str(error)
            self._note(f"{self.names[0]} is not started again: {error}")

    async def _send(
        self, jobs: Mapping[str, Sequence[Job]], lines: Mapping[str, Line], concurrency: int, allowance: Allowance
    ) -> _Sent:
        sent = _Sent()

        async def send_one(name: str) -> None:
            answered: set[tuple[str, int]] = set()

            def deliver(samples: Sequence[Sample]) -> None:
                answered.update((sample.case, sample.repeat) for sample in samples)
                self._deliver(name, samples)

            line = lines[name]
            try:
                sent.mixed += await line.send(jobs[name], concurrency=concurrency, allowance=allowance, deliver=deliver)
            except NodeLost as error:
                del self._lines[name]
                left = [job for job in jobs[name] if (job.case, job.repeat) not in answered]
                sent.left += left
                sent.under_way += error.under_way
                which = f", at least {error.under_way} of them under way" if error.under_way else ""
                self._note(f"{error}; {explain.count(len(left), 'request')} had no answer by then{which}")

        await all_of(send_one(name) for name in jobs if jobs[name])
        return sent


@dataclass
class _Sent:
    """What became of jobs that were sent to several replicas.

    ``left`` were not answered by those that are lost, ``under_way`` is how many requests had been sent there for them,
    ``mixed`` how many answers were asked for again because they may have been other requests'.
    """

    left: list[Job] = field(default_factory=list)
    under_way: int = 0
    mixed: int = 0
