"""Calls an application with its inputs on one engine; what it returns or raises is the sample of that case."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from pytest_llmparity.core.errors import (
    ApplicationError,
    BadRequest,
    EngineError,
    NotAsked,
    NotAuthorised,
    Overloaded,
    ServerFailure,
    Timeout,
    Unreachable,
)
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import ApplicationCall, Completion, Sample
from pytest_llmparity.core.values import NotJson, raised, returned
from pytest_llmparity.core.values.calls import unanswered
from pytest_llmparity.core.words import explain
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.application import Application
from pytest_llmparity.run.application.clients import Connections, called_engine
from pytest_llmparity.run.application.recorder import LEFT, Recorder
from pytest_llmparity.run.ledger import Allowance
from pytest_llmparity.run.loop import LoopThread, all_of, outside
from pytest_llmparity.run.parity import EngineHandle, handle_of
from pytest_llmparity.run.plan import Job
from pytest_llmparity.run.sending.lines import Deliver, NodeLost
from pytest_llmparity.run.sending.sender import GONE_AFTER, failed

_UNREACHED: Final = frozenset({"APIConnectionError", "ConnectError", "ConnectTimeout", "NewConnectionError"})
"""Names of exceptions by which clients say that nobody is there, beside ``ConnectionError`` and its subclasses."""
_REFUSALS: Final[Mapping[int, type[EngineError]]] = {
    LEFT: Timeout,
    401: NotAuthorised,
    403: NotAuthorised,
    429: Overloaded,
    503: Overloaded,
}
"""What a status says of the engine; other ones from 500 on are its failures, the rest are refusals of a request."""


async def call_all(
    application: Application,
    adapter: Adapter,
    jobs: Sequence[Job],
    cases: Mapping[str, Case],
    *,
    concurrency: int,
    allowance: Allowance,
    gone: Callable[[], str | None],
    deliver: Callable[[Sample], None],
    lost: Callable[[], bool] = lambda: False,
) -> None:
    """Call the application once for each job, at most ``concurrency`` at a time; one sample of each is delivered.

    An exception is what the application came to, unless it says that nobody is there: then, and where a value is no
    JSON, the sample is a failure, and after some the rest is not called. So is it a failure where the engine answered
    none of the run's calls, whatever the application made of that. Jobs beyond the allowance are not delivered, nor
    those that are left when ``lost`` tells that the engine's machine is gone.
    """
    calls = _Calls(application, adapter, gone)
    try:

        async def worker(queue: Iterator[Job]) -> None:
            for job in queue:
                if lost():
                    return
                if calls.stopped:
                    unsent = NotAsked(f"not asked: {calls.stopped}", engine=adapter.name, case=job.case)
                    deliver(failed(adapter.name, job, unsent, attempts=0))
                    continue
                if not allowance.take():
                    return
                budget = asyncio.timeout(allowance.left_s)
                try:
                    async with budget:
                        sample = await calls.sample(job, cases[job.case])
                except TimeoutError:
                    if not budget.expired():
                        raise
                    allowance.out_of_time()
                    return
                deliver(sample)

        queue = iter(jobs)
        await all_of(worker(queue) for _ in range(min(concurrency, len(jobs))))
    finally:
        await outside(calls.close)


class CalledLine:
    """Has an application called with one replica. Satisfies ``Line``.

    ``lost`` tells whether the replica's machine is gone: what a run came to that met this is no answer of the engine.
    """

    def __init__(
        self,
        application: Application,
        adapter: Adapter,
        cases: Mapping[str, Case],
        *,
        gone: Callable[[], str | None],
        lost: Callable[[], bool],
    ) -> None:
        self._application = application
        self._adapter = adapter
        self._cases = cases
        self._gone = gone
        self._lost = lost

    async def send(self, jobs: Sequence[Job], *, concurrency: int, allowance: Allowance, deliver: Deliver) -> int:
        """Call the application for each job; raises :class:`NodeLost` when the machine is gone."""
        cut = 0

        def keep(sample: Sample) -> None:
            nonlocal cut
            if self._lost():
                cut += 1
            else:
                deliver([sample])

        await call_all(
            self._application,
            self._adapter,
            jobs,
            self._cases,
            concurrency=concurrency,
            allowance=allowance,
            gone=self._gone,
            deliver=keep,
            lost=self._lost,
        )
        if self._lost():
            why = await outside(self._gone)  # it may wait for an answer from another machine
            raise NodeLost(why or f"{self._adapter.name} is gone", under_way=cut)
        return 0

    async def aclose(self) -> None:
        """Nothing is open between two calls."""


class _Calls:
    """The calls of an application on one engine; ``stopped`` says why no further one is made, empty while they are."""

    def __init__(self, application: Application, adapter: Adapter, gone: Callable[[], str | None]) -> None:
        self.stopped = ""
        self._application = application
        self._adapter = adapter
        self._gone = gone
        self._missed = 0
        self._numbers = itertools.count()
        self._loop = LoopThread()  # one for all coroutines of an application: its clients belong to a loop
        self._shared = Connections(self._loop)
        spec = adapter.spec
        self._recorder = Recorder(adapter.openai_base_url, ca_bundle=spec.ca_bundle, proxy=spec.proxy)
        self._recorder.start()

    def close(self) -> None:
        """Close what the runs shared."""
        self._shared.close()
        self._recorder.close()
        self._loop.close()

    async def sample(self, job: Job, case: Case) -> Sample:
        """Return the sample of one call: its value or its failure."""
        came = await outside(lambda: self._came_to(case, f"{job.phase}-{job.repeat}-{next(self._numbers)}"))
        if isinstance(came, EngineError):
            return failed(self._adapter.name, job, came, attempts=1)
        return Sample(
            engine=self._adapter.name,
            case=job.case,
            phase=job.phase,
            repeat=job.repeat,
            concurrency=job.concurrency,
            request_sha256=job.wire.sha256,
            completion=came,
        )

    def _came_to(self, case: Case, run: str) -> Completion | EngineError:
        """Call the application, in this thread; return what it came to with its calls, or why that is nothing."""
        engine = handle_of(self._adapter, base_url=self._recorder.address(run))
        came, gone = self._called(called_engine(engine, self._shared), case)
        calls = self._recorder.taken(run)
        if isinstance(came, EngineError):
            return came
        if gone and not (calls and all(call.status for call in calls)):  # else it is a service of the application's own
            return self._unreached(gone, case)
        if (missing := unanswered(calls)) is not None:
            return self._unreached(missing.answer, case) if not missing.status else self._refused(missing, calls, case)
        self._missed = 0
        return msgspec.structs.replace(came, calls=calls)

    def _called(self, engine: EngineHandle, case: Case) -> tuple[Completion | EngineError, str]:
        """Return what a run came to, and the words of its exception where that says that nobody is there."""
        try:
            value = self._application.call(engine, case)
            if inspect.iscoroutine(value):
                value = self._loop.run(value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it raises is what it came to: pytest.fail, sys.exit too
            return raised(error), f"{type(error).__name__}: {error}" if _unreached(error) else ""
        try:
            return returned(value), ""
        except Exception as error:  # noqa: BLE001 - a model of pydantic may refuse to be written
            words = str(error) if isinstance(error, NotJson) else f"{type(error).__name__}: {error}"
            self.stopped = f"{self._application.test} returned a value that is no JSON: {explain.plain(words)}"
            return ApplicationError(self.stopped, engine=self._adapter.name, case=case.id), ""

    def _refused(self, call: ApplicationCall, calls: Sequence[ApplicationCall], case: Case) -> EngineError:
        """Return the failure of a run whose engine was there and answered this call with an error, or too late."""
        self._missed = 0
        kind = _REFUSALS.get(call.status, ServerFailure if call.status >= 500 else BadRequest)
        none = not any(200 <= other.status < 300 for other in calls)
        words = "the application gave it up" if call.status == LEFT else f"HTTP {call.status}: {call.answer}"
        which = f"none of the {explain.count(len(calls), 'call')} was answered; the last" if none else "a call failed"
        which = "the only call was not answered" if none and len(calls) == 1 else which
        return kind(explain.plain(f"{which}: {words}"), engine=self._adapter.name, case=case.id, status=call.status)

    def _unreached(self, words: str, case: Case) -> EngineError:
        """Return the failure of a run whose engine was not there; after some of them no further run is made."""
        why = self._gone()
        self._missed += 1
        if why is not None or self._missed >= GONE_AFTER:
            self.stopped = why or f"{self._missed} runs in a row reached nothing; the last: {words}"
        return Unreachable(explain.plain(why or words), engine=self._adapter.name, case=case.id)


def _unreached(error: BaseException) -> bool:
    """Whether an exception, or one that it came from, says that nobody is there."""
    seen: list[BaseException] = []
    now: BaseException | None = error
    while now is not None and now not in seen:
        seen.append(now)
        names = {kind.__name__ for kind in type(now).__mro__}
        timed_out = any(name.endswith("TimeoutError") or name.endswith("TimeoutException") for name in names)
        if isinstance(now, ConnectionError) or (names & _UNREACHED and not timed_out):
            return True
        now = now.__cause__ or (None if now.__suppress_context__ else now.__context__)
    return False
