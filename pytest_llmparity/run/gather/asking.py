"""Sending what is missing of a plan's steps to the engines that are ready; samples go into the store as they finish.

Engines of different lanes are asked at the same time. What one of them is sent, and in which order, does not depend on
the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pytest_llmparity.core.errors import LLMParityError
from pytest_llmparity.core.evidence import FLOOR_PHASES
from pytest_llmparity.core.sample import Sample
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.gather.company import Company
from pytest_llmparity.run.gather.lanes import Lane, lanes_of
from pytest_llmparity.run.gather.ledger import Ledger
from pytest_llmparity.run.gather.prepare import Wires
from pytest_llmparity.run.gather.reconnect import Watch
from pytest_llmparity.run.gather.requests import client_of, jobs_of, key_of
from pytest_llmparity.run.gather.sender import Job, send
from pytest_llmparity.run.loop import LoopThread, all_of, outside
from pytest_llmparity.run.plan import Step
from pytest_llmparity.run.records import proven
from pytest_llmparity.settings.specification import Settings
from pytest_llmparity.store.runs import Key, Store

T = TypeVar("T")


class Progress(Protocol):
    """Shows how far gathering is; silent where nobody watches."""

    def say(self, text: str) -> None:
        """Something is going to take its time."""

    def begin(self, engine: str, total: int) -> None:
        """An engine starts on so many requests."""

    def advance(self, engine: str) -> None:
        """One request of this engine has ended."""

    def end(self) -> None:
        """Everything is gathered, or gathering was interrupted."""


@dataclass(frozen=True, slots=True)
class Ready:
    """An engine that can be asked, and the requests it can be sent."""

    adapter: Adapter
    wires: Wires


class Asking:
    """Asks the engines of one run.

    ``ready`` has those that can be asked by now, ``apart`` why some cannot stay in memory beside another one.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        run: str,
        store: Store,
        fleet: Fleet,
        ledger: Ledger,
        loop: LoopThread,
        progress: Progress,
        version: str,
    ) -> None:
        self.ready: dict[str, Ready] = {}
        self.apart: Mapping[str, str] = {}
        self.company = Company(settings, ledger.engines)
        self.returns = Returns(fleet, ledger)
        self._settings = settings
        self._run = run
        self._store = store
        self._fleet = fleet
        self._ledger = ledger
        self._loop = loop
        self._progress = progress
        self._version = version

    @property
    def lanes(self) -> list[Lane]:
        """The engines that are asked in turn, and beside each other."""
        return lanes_of(self._settings, apart=self.apart)

    def in_lanes(self, names: Collection[str], do: Callable[[str], Coroutine[Any, Any, T]]) -> dict[str, T]:
        """Do something with these engines: those of a lane in turn, lanes at the same time. Returns what came of each.

        The first error ends the others and is raised as it is; so does an interruption.
        """
        results: dict[str, T] = {}

        async def in_turn(lane: Lane) -> None:
            for name in lane.names:
                if name in names:
                    results[name] = await do(name)

        self._loop.run(all_of(in_turn(lane) for lane in self.lanes))
        return results

    def everything(self, names: Collection[str], steps: Sequence[Step]) -> None:
        """Ask these engines what is missing of all steps."""

        async def ask(name: str) -> None:
            adapter, jobs = self.ready[name].adapter, self.begin(name, steps)
            if jobs and name in self.apart:
                with contextlib.suppress(LLMParityError):  # the requests themselves will say what is wrong
                    await outside(adapter.warm_up)
            if jobs:
                await self._send(adapter, jobs)

        self.in_lanes([name for name in names if name in self.ready], ask)

    def begin(self, name: str, steps: Sequence[Step]) -> list[tuple[Step, list[Job]]]:
        """Reuse what may be reused of an engine's noise floor; return what is missing, nothing where nothing is."""
        wires = self.ready[name].wires
        steps = [step for step in steps if step.unit.key in wires and self._wants(name, step)]
        self._reuse_floor(name, steps)
        have = self._store.have(self._run, name)
        jobs = [(step, self._missing(name, step, have)) for step in steps]
        total = sum(len(missing) for _, missing in jobs)
        if total:
            self._progress.begin(name, total)
        return jobs if total else []

    def _wants(self, name: str, step: Step) -> bool:
        """Whether a phase is worth asking: the noise floor serves comparisons only."""
        needs = self.company.needs(name, step.unit)
        return needs is not None and step.phase in needs.phases

    def missing(self, engine: str, step: Step) -> int:
        """How many requests of a step have no sample yet."""
        return len(self._missing(engine, step, self._store.have(self._run, engine)))

    def ask(self, engines: Sequence[str], steps: Sequence[Step]) -> bool:
        """Send these engines what is missing of some steps; False when a hard stop left something out."""
        jobs: dict[str, list[tuple[Step, list[Job]]]] = {}
        for name in engines:
            have = self._store.have(self._run, name)
            missing = [(step, self._missing(name, step, have)) for step in steps]
            if any(of_step for _, of_step in missing):
                jobs[name] = missing
        self.in_lanes(jobs, lambda name: self._send(self.ready[name].adapter, jobs[name]))
        return self._ledger.allowance.reason is None or not jobs

    def _missing(self, engine: str, step: Step, have: Collection[Key]) -> list[Job]:
        wires = self.ready[engine].wires[step.unit.key]
        return [job for job in jobs_of(step, wires) if key_of(job) not in have]

    def _reuse_floor(self, name: str, steps: Sequence[Step]) -> None:
        """Copy the noise floor an earlier run measured on this very server, where nothing about it has changed.

        Only of a server that somebody else keeps running: one that we start is measured as it is this time. Timings
        stay behind, they are evidence of their own run alone.
        """
        spec, identity = self.ready[name].adapter.spec, self._ledger.engines[name].identity
        if spec.launch != "attach" or self._settings.resume == "fresh" or not proven(identity):
            return
        have, reused = self._store.have(self._run, name), 0
        for step in steps:
            if step.phase not in FLOOR_PHASES:
                continue
            wanted = {key_of(job) for job in jobs_of(step, self.ready[name].wires[step.unit.key])}
            if not wanted or wanted & have:
                continue
            samples = self._store.reusable_floor(
                spec_hash=spec.spec_hash,
                identity=identity,
                concurrency=step.concurrency,
                version=self._version,
                wanted=wanted,
            )
            copies = [dataclasses.replace(sample, engine=name, timing=None) for sample in samples]
            self._store.put(self._run, copies)
            reused += len(copies)
        if reused:
            self._ledger.notes.append(
                f"{name}: {reused} answers of its noise floor come from an earlier run on the same server; "
                "--parity-fresh measures it again"
            )

    async def _send(self, adapter: Adapter, steps: Sequence[tuple[Step, list[Job]]]) -> None:
        client, watch = client_of(adapter), self.returns.watch(adapter)
        try:
            for step, jobs in steps:
                again = await send(
                    adapter,
                    client,
                    jobs,
                    concurrency=step.concurrency,
                    allowance=self._ledger.allowance,
                    gone=lambda: self._fleet.gone(adapter.name),
                    deliver=self._deliver,
                    watch=watch,
                )
                if again:
                    self._ledger.notes.append(
                        f"{adapter.name} sent more answers than it was asked for: {again} that may have been other "
                        "prompts' were asked again, each on a connection of its own"
                    )
        finally:
            await client.aclose()
            if watch is not None:
                self.returns.came_back(adapter.name, watch)

    def _deliver(self, sample: Sample) -> None:
        self._store.put(self._run, [sample])
        self._progress.advance(sample.engine)


class Returns:
    """Waits for servers of a run that go away while they are asked, and writes down what became of them."""

    def __init__(self, fleet: Fleet, ledger: Ledger) -> None:
        self._fleet = fleet
        self._ledger = ledger

    def watch(self, adapter: Adapter) -> Watch | None:
        """Return what waits for a server that somebody else runs; a process of ours that ends has ended for good."""
        if adapter.spec.launch != "attach":
            return None
        return Watch(
            adapter,
            hold=lambda within_s, stop: self._fleet.hold_again(adapter.name, within_s, stop),
            patience_s=adapter.spec.reconnect_s,
            left_s=lambda: self._ledger.allowance.left_s,
        )

    def came_back(self, name: str, watch: Watch) -> None:
        """Write down that a server restarted, and what became of it."""
        if (sentence := watch.sentence()) is not None:
            self._ledger.notes.append(sentence)
        self._is_another(name)

    def hold_again(self, adapter: Adapter) -> str | None:
        """Wait for a server that went away in the timed phase; return why it cannot be asked again."""
        left_s = self._ledger.allowance.left_s
        patience_s = adapter.spec.reconnect_s if left_s is None else min(left_s, adapter.spec.reconnect_s)
        why = self._fleet.hold_again(adapter.name, patience_s, lambda: None)
        self._is_another(adapter.name)
        return why

    def _is_another(self, name: str) -> None:
        """Write down that a server came back as another engine: answers of two engines are none of either."""
        engaged = self._fleet.known(name)
        if engaged is not None and engaged.record.incomparable:
            self._ledger.amend(name, incomparable=engaged.record.incomparable)
