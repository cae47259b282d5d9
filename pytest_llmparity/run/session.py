"""Composition root: settings in; keeper, store, engines and samples behind it; declarations and verdicts out."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_llmparity.core.checks.base import Check, Evidence
from pytest_llmparity.core.checks.settle import settle
from pytest_llmparity.core.errors import DesignError, LLMParityError, StoreError, UsageError
from pytest_llmparity.core.masking import Mask
from pytest_llmparity.core.ports import Embedder
from pytest_llmparity.core.record import RunRecord
from pytest_llmparity.core.sample import Identity, Phase, Sample, from_json
from pytest_llmparity.core.settings import EngineSpec, Settings
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.engines.base import Adapter
from pytest_llmparity.run import evidence as proof
from pytest_llmparity.run.campaign import GATHERED, Campaign, Progress, newest_whole
from pytest_llmparity.run.declare import declare, resolve
from pytest_llmparity.run.evidence import EngineNote
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.keeper import Keeper
from pytest_llmparity.run.loop import LoopThread
from pytest_llmparity.run.parity import EngineHandle, EngineRows, ParityRun, Row
from pytest_llmparity.run.plan import Declaration, Plan, Unit, make_plan, unit_of
from pytest_llmparity.run.timing import timed_places
from pytest_llmparity.run.turns import turn
from pytest_llmparity.run.wires import wires_note
from pytest_llmparity.store import Store

ALPHA = 0.05
"""Error rate of every one-sided bound before it is divided for repeated looks (DESIGN 6)."""


class Session:
    """One process's part of a run. Nothing is started or opened before it is asked for.

    ``folder`` holds the store and the logs, ``token`` is the same in every process of one pytest run, ``keeper``
    connects to (or spawns) the process that owns the engines.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        root: Path,
        token: str,
        keeper: Callable[[], Keeper],
        version: str,
        progress: Progress,
        embedder: Callable[[], Embedder | None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.version = version
        self.run: str | None = None
        self.notes: dict[str, EngineNote] = {}
        self.mask = Mask(secrets_of(settings.engines))
        self._root = root
        self._folder = root / ".llmparity"
        self._token = token
        self._keeper_factory = keeper
        self._keeper: Keeper | None = None
        self._guard = threading.Lock()
        self._progress = progress
        self._embedder = embedder
        self._loop = LoopThread()
        self._store: Store | None = None
        self._declared: dict[str, Declaration] = {}
        self._state: Mapping[str, Any] = {}
        self._samples: dict[str, list[Sample]] = {}
        self._wires: dict[tuple[str, str], Mapping[str, str]] = {}
        self._fleet = Fleet(
            {s.name: s for s in settings.engines},
            keeper=self.keeper,
            workdir=self._folder,
            one_at_a_time=settings.residency == "one-at-a-time",
            slots=settings.concurrency,
            say=progress.say,
        )

    # what the tests declare ------------------------------------------------------------------------------------------

    def declare(self, test: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, folder: Path) -> Declaration:
        """Take note of one test's marker; raises ``UsageError`` when it cannot be used."""
        declared = declare(
            test,
            args,
            kwargs,
            folders=(folder, self._root),
            concurrency=self.settings.concurrency,
            engines=len(self.settings.engines),
        )
        if declared.needs().timed_relative and self.settings.residency == "one-at-a-time":
            raise UsageError(
                "a relative latency limit compares engines that run side by side, and residency is one-at-a-time; "
                'give an absolute limit such as check.latency(ttft_p50="1s"), or run with residency = "together"'
            )
        self._declared[test] = declared
        return declared

    def declarations(self) -> list[Declaration]:
        """Return what the tests declared, in collection order."""
        return list(self._declared.values())

    def plan(self) -> Plan:
        """Return what is asked of every engine, the same in every process."""
        return make_plan(self.declarations(), only=self.settings.cases)

    def unit(self, declaration: Declaration) -> Unit:
        """Return the unit a declaration's samples were gathered as; its prompts are the selected ones."""
        return unit_of(declaration, only=self.settings.cases)

    # gathering -------------------------------------------------------------------------------------------------------

    def gather(self) -> None:
        """Gather what the declared tests need, once for all processes of this run, or load the run to replay.

        Every worker of xdist comes here before its first test and waits until the first to come has gathered, so no
        test talks to an engine meanwhile.
        """
        if self.settings.mode == "replay":
            self._replay()
            return
        plan = self.plan()
        if not plan.units:
            return
        with turn(self._folder, f"gathering-{self._token}"):
            begun = self.store().begin(
                plan_hash=plan.digest([spec.spec_hash for spec in self.settings.engines]),
                session=self._token,
                version=self.version,
                resume=self.settings.resume,
            )
            self.run = begun.id
            if self.store().note(begun.id, GATHERED) is None:
                Campaign(
                    self.settings,
                    plan,
                    run=begun.id,
                    resumed=begun.resumed,
                    store=self.store(),
                    fleet=self._fleet,
                    version=self.version,
                    loop=self._loop,
                    progress=self._progress,
                ).go()
        self._load()

    def _replay(self) -> None:
        newest = newest_whole(self.store())
        wanted = self.settings.replay_run or (newest.id if newest else None)
        if wanted is None or wanted not in {info.id for info in self.store().runs()}:
            if wanted is None:
                raise StoreError(f"no run is stored in {self._folder.name} yet; run once without --parity-mode replay")
            known = ", ".join(info.id for info in self.store().runs()[-5:]) or "none"
            raise StoreError(f"there is no run {wanted} to replay in {self._folder.name}; stored runs: {known}")
        state = self.store().note(wanted, GATHERED)
        if state is None:
            raise StoreError(f"run {wanted} was interrupted while gathering; only a run that ended can be replayed")
        asked = [spec.name for spec in self.settings.engines] + [self.settings.baseline or ""]
        unknown = sorted(set(asked) - {"", *state["engines"]})
        if unknown:
            raise StoreError(f"run {wanted} has no engine {', '.join(unknown)}; it has {', '.join(state['engines'])}")
        self.run = wanted
        self._load()

    def _load(self) -> None:
        """Read what the run wrote down: state, engines, samples."""
        assert self.run is not None
        self._state = self.store().note(self.run, GATHERED) or {}
        self.notes = {n: from_json(EngineNote, data) for n, data in self._state.get("engines", {}).items()}
        if self.settings.engines:
            chosen = [spec.name for spec in self.settings.engines]
            self.notes = {name: self.notes[name] for name in chosen if name in self.notes}
        self._samples = {name: self.store().get(self.run, name) for name in self.notes}

    @property
    def baseline(self) -> str:
        """Name of the engine the others are held against."""
        if self.settings.baseline is not None:
            return self.settings.baseline
        return str(self._state.get("baseline") or next(iter(self.notes), ""))

    # judging ---------------------------------------------------------------------------------------------------------

    def parity_run(self, test: str, *, reproduce: str) -> ParityRun:
        """Return what the ``parity_run`` fixture of this test hands out."""
        declaration = self._declared[test]
        return ParityRun(
            rows=lambda: self._rows(declaration),
            judge=lambda check: self._judge_in_body(declaration, check),
            reproduce=reproduce,
        )

    def settle(self, test: str, gathered: ParityRun) -> list[Verdict]:
        """Judge the marker's checks, settle them with those of the body as one family, and remember the look."""
        declaration = self._declared[test]
        if self.settings.cases:
            return []
        found = [v for check in declaration.checks for v in self._judge(declaration, check)] + gathered.verdicts
        settled = settle(found, ALPHA)
        if self.settings.mode == "live":
            for (check, pair), outcome in _looked(settled).items():
                self.store().look(test, check, pair, declaration.prompts.digest, outcome)
        return settled

    def _judge(self, declaration: Declaration, check: Check) -> list[Verdict]:
        if check.pairwise and len(self.notes) < 2:
            name = next(iter(self.notes), "")
            return [_skipped(declaration, check, name, f"{check.kind} compares engines and only {name} is selected")]
        found = check.judge(self._evidence(declaration, check))
        return [dataclasses.replace(verdict, where=self._relative(verdict.where)) for verdict in found]

    def _relative(self, where: str) -> str:
        """Return ``file:line`` without this machine's folders."""
        path, _, line = where.rpartition(":")
        return f"{os.path.relpath(path, self._root)}:{line}" if path else where

    def _judge_in_body(self, declaration: Declaration, check: Check) -> list[Verdict]:
        check = resolve(check, (self._root,))
        wanted, declared = check.needs(), declaration.needs()
        missing = sorted(phase.value for phase in wanted.phases - declared.phases)
        if wanted.timed > declared.timed:
            missing.append(f"{wanted.timed} timed requests per engine")
        if missing:
            raise DesignError(
                f"{check} needs samples that nobody declared ({', '.join(missing)}); "
                f"add check.{check} to the parity marker of {declaration.test}"
            )
        if self.settings.cases:
            return []
        return self._judge(declaration, check)

    def _evidence(self, declaration: Declaration, check: Check) -> Evidence:
        unit = self.unit(declaration)
        return proof.collect(
            declaration,
            unit_key=unit.key,
            baseline=self.baseline,
            notes=self.notes,
            wires={name: self._wire(name, unit) for name in self.notes},
            timed={name: timed_places(self.store(), self.run or "", name, unit) for name in self.notes},
            samples=self._samples,
            alpha=ALPHA / 2 ** self._looks(declaration, check),
            incomplete=self._state.get("incomplete"),
            embedder=self.embedder,
        )

    def _looks(self, declaration: Declaration, check: Check) -> int:
        """How often this question was looked at before with fewer prompts and left open (DESIGN 6, looking again)."""
        pairs = [f"{self.baseline}|{name}" for name in self.notes if name != self.baseline]
        digest = declaration.prompts.digest
        return max(
            (self.store().looks(declaration.test, str(check), pair, digest) for pair in [*self.notes, *pairs]),
            default=0,
        )

    def _wire(self, name: str, unit: Unit) -> Mapping[str, str]:
        """Return the sha256 of the requests whose samples belong to this unit, by case."""
        key = (name, unit.key)
        if key not in self._wires and self.run is not None:
            self._wires[key] = self.store().note(self.run, wires_note(name, unit)) or {}
        return self._wires.get(key, {})

    def _rows(self, declaration: Declaration) -> Mapping[str, EngineRows]:
        unit = self.unit(declaration)
        rows: dict[str, EngineRows] = {}
        for name, engine in self.notes.items():
            chosen = proof.select(
                self._samples.get(name, ()), self._wire(name, unit), concurrency=declaration.concurrency
            ).get(Phase.MAIN, {})
            why = engine.error or engine.incomparable or self._state.get("incomplete") or "it was not gathered"
            rows[name] = EngineRows(
                name,
                {case.id: Row(name, case.id, chosen.get(case.id, ()), missing=why) for case in unit.prompts.cases},
                unselected=declaration.prompts.by_id.keys() - unit.prompts.by_id.keys(),
            )
        return rows

    # engines ---------------------------------------------------------------------------------------------------------

    def available(self, name: str) -> tuple[Adapter, Identity]:
        """Return an engine that can be asked, started if need be; the error of one that cannot repeats no key."""
        engaged = self._fleet.engage(name)
        if engaged.adapter is None or engaged.incomparable:
            reason = self.mask.text(engaged.error or engaged.incomparable or f"{name} is not available")
            del engaged  # a traceback that shows local variables would show its texts as they came
            raise LLMParityError(reason)
        return engaged.adapter, self.mask.identity(engaged.identity)

    def handle(self, name: str) -> EngineHandle:
        """Return the engine for application code, started if need be.

        Raises the reason when it cannot be had, or is another engine than its pins say.
        """
        adapter = self.available(name)[0]
        return EngineHandle(
            name=name,
            kind=adapter.kind,
            model=adapter.model,
            base_url=adapter.openai_base_url,
            api_key=adapter.api_key or "EMPTY",
            _adapter=adapter,
        )

    @property
    def embedder(self) -> Embedder | None:
        """What turns texts into vectors, ``None`` when the ``embeddings`` extra is not installed."""
        return self._embedder()

    @property
    def loop(self) -> LoopThread:
        """The event loop all requests of this process run in."""
        return self._loop

    # the end ---------------------------------------------------------------------------------------------------------

    def adopt(self, run: str) -> None:
        """Read a run that other processes gathered (the controller of xdist)."""
        if self.run is None:
            self.run = run
            self._load()

    def record(self, verdicts: Sequence[Verdict]) -> RunRecord:
        """Return everything about the run for the reports."""
        return RunRecord(
            run=self.run or "",
            version=self.version,
            engines=tuple(proof.engine_record(n, baseline=self.baseline) for n in self.notes.values()),
            verdicts=tuple(verdicts),
            latency=tuple(proof.latency_rows(self._samples)),
            failures=tuple(proof.failure_records(self._samples)),
            requests=int(self._state.get("requests", 0)),
            retries=int(self._state.get("retries", 0)),
            notes=tuple(self._state.get("notes", ())),
        )

    def samples(self) -> list[Sample]:
        """Return every sample of the run, engine by engine."""
        return [sample for samples in self._samples.values() for sample in samples]

    def close(self) -> None:
        """Stop what this process started and close what it opened. Safe to call twice."""
        self._loop.close()
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.close()
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def keeper(self) -> Keeper:
        """Return the connection to the process that owns the engines; it is spawned when first asked for."""
        with self._guard:
            if self._keeper is None:
                self._keeper = self._keeper_factory()
            return self._keeper

    def store(self) -> Store:
        """Return the run store, opened when first asked for, with every configured key masked."""
        if self._store is None:
            self._store = Store.open(self._folder, secrets=secrets_of(self.settings.engines))
        return self._store


def secrets_of(specs: Sequence[EngineSpec]) -> dict[str, str]:
    """Return the values that must never be written down, by the name of their variable."""
    names = [name for spec in specs for name in spec.secret_variables]
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def _looked(verdicts: Sequence[Verdict]) -> dict[tuple[str, str], Outcome]:
    """Return one outcome per check and engine or pair: a check with several limits is open while one of them is."""
    found: dict[tuple[str, str], Outcome] = {}
    for verdict in verdicts:
        if verdict.outcome in (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE):
            pair = verdict.engine if verdict.baseline is None else f"{verdict.baseline}|{verdict.engine}"
            if found.get((verdict.check, pair)) is not Outcome.INCONCLUSIVE:
                found[verdict.check, pair] = verdict.outcome
    return found


def _skipped(declaration: Declaration, check: Check, engine: str, reason: str) -> Verdict:
    return Verdict(
        test=declaration.test,
        check=str(check),
        kind=check.kind,
        engine=engine,
        baseline=None,
        outcome=Outcome.SKIPPED,
        message=reason,
        where=check.where,
    )
