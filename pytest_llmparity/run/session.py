"""Composition root: settings in; keeper, store, engines and samples behind it; declarations and verdicts out."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_llmparity.core import late
from pytest_llmparity.core.errors import DesignError, LLMParityError, StoreError
from pytest_llmparity.core.evidence import Check, Evidence
from pytest_llmparity.core.history.entries import Entry, entry_of
from pytest_llmparity.core.identity.agreed import Agreed
from pytest_llmparity.core.identity.record import EngineRecord, RunRecord, SampleOrigin
from pytest_llmparity.core.ports import Embedder, Progress
from pytest_llmparity.core.prompts.arms import as_declared
from pytest_llmparity.core.sample import Identity, Sample, from_json, to_json
from pytest_llmparity.core.values.calls import Asked
from pytest_llmparity.core.verdict import Verdict
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.masking import Mask
from pytest_llmparity.engines import daemons, played, registry
from pytest_llmparity.engines.facts.files import changed_since
from pytest_llmparity.engines.start.program import files_of
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.control import secrets_of
from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.run.declare.gates import Gates, undeclared, with_schemas
from pytest_llmparity.run.explain import any_due
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.gather.campaign import Campaign
from pytest_llmparity.run.golden.entering import Goldens, held_against
from pytest_llmparity.run.judge import history
from pytest_llmparity.run.judge.asked import origins
from pytest_llmparity.run.judge.judging import AGREED, Judging
from pytest_llmparity.run.judge.recorded import keep, record_of_run
from pytest_llmparity.run.judge.replaying import to_replay
from pytest_llmparity.run.ledger import (
    RunState,
    can_be_judged,
    note_kept,
    read_state,
    state_of,
)
from pytest_llmparity.run.locking import Guard
from pytest_llmparity.run.loop import Beside, LoopThread
from pytest_llmparity.run.parity import EngineHandle, ParityRun, handle_of
from pytest_llmparity.run.plan import Declaration
from pytest_llmparity.run.records import Engaged, masked
from pytest_llmparity.run.sending.lines import Elsewhere
from pytest_llmparity.run.shards.dealing import SHARD, document_of, refuse_empty
from pytest_llmparity.settings import resolving
from pytest_llmparity.settings.given import Given
from pytest_llmparity.settings.specification import Settings
from pytest_llmparity.store.folder import once
from pytest_llmparity.store.runs import FILE_NAME, GATHERED, JUDGED, Store

if TYPE_CHECKING:
    from pytest_llmparity.run.application.plain import Recorders

C = TypeVar("C")


class Session:
    """One process's part of a run. Nothing is started or opened before it is asked for.

    ``token`` is the same in every process of one pytest run, ``keeper`` connects to (or spawns) the process that owns
    the engines. ``stored`` is the folder of the run store, ``.llmparity`` in ``root`` where it is ``None``. Where
    engines do not run on this machine ``elsewhere`` starts them, and ``part`` ends them.
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
        stored: Path | None = None,
        part: Callable[[], list[str]] = list,
        elsewhere: Callable[[], Elsewhere] | None = None,
    ) -> None:
        self.settings, self.version = settings, version
        self.run: str | None = None
        self.mask = Mask(secrets_of(settings.engines, os.environ))
        self.root = root
        self._folder = root / ".llmparity" if stored is None else stored
        self._token = token
        self._part = part
        self._keeper_factory = keeper
        self._keeper: Keeper | None = None
        self._guard = threading.Lock()
        self._progress = progress
        self._embedder = functools.cache(embedder)  # its model is loaded once, and it remembers texts
        self._loop = LoopThread()
        self._imports = Beside(late.load, name="llmparity-imports")
        self._store: Store | None = None
        self._state = RunState()
        self._judging: Judging | None = None
        self._recorders: Recorders | None = None
        self._lock = Guard(root, settings)
        self.gates = Gates(settings, root=root, lock=self._lock)
        self._goldens = Goldens(settings, root=root, lock=self._lock, partly=lambda: self.gates.in_part)
        self._fleet = Fleet(
            {s.name: s for s in settings.asked},
            keeper=self.keeper,
            workdir=root / ".llmparity",
            one_at_a_time=settings.residency == "one-at-a-time",
            slots=settings.concurrency,
            say=progress.say,
            fetch=progress.fetch,
            locked=self._lock.hold,
            key_variables=settings.key_variables,
            elsewhere=elsewhere,
        )

    # gathering -------------------------------------------------------------------------------------------------------

    def refuse_unfit(self) -> None:
        """Raise ``UsageError`` for what the command line names and no test, or no run to replay, has.

        It makes no store where none is: tests may only be collected.
        """
        self.gates.refuse_unknown()
        stored = (self._folder / FILE_NAME).is_file()
        if stored and self.settings.mode == "replay" and self.gates.declarations():
            with contextlib.suppress(StoreError, OSError):  # said of the gates, when they are to be judged
                self._to_replay()

    def _to_replay(self) -> str:
        return to_replay(self.store(), self.settings, self.gates.declarations(), folder=self._folder.name)

    def gather(self) -> None:
        """Gather what the declared tests need, once for all processes of this run, or load the run to replay.

        Every worker of xdist comes here before its first test and waits until the first to come has gathered, so no
        test talks to an engine meanwhile. Raises ``UsageError`` for a case that was selected and that no test has.
        """
        self.gates.refuse_unknown()
        if self.settings.mode == "replay":
            self.run = self._to_replay()
            self._load()
            return
        plan = self.gates.plan()
        refuse_empty(plan)
        if not plan.units:
            return
        with once(self._folder, f"gathering-{self._token}"):
            begun = self.store().begin(
                plan_hash=plan.digest(
                    [spec.spec_hash for spec in self.settings.engines], sequential=self.settings.in_waves
                ),
                session=self._token,
                version=self.version,
                resume=self.settings.resume,
                whole=self._whole,
                max_age_s=self.settings.answers_hold_s,
            )
            self.run = begun.id
            self.gates.write_down(self.store(), begun.id)
            if plan.shard is not None:
                self.store().put_document(begun.id, SHARD, document_of(plan))
            self.store().put_document(begun.id, AGREED, to_json(self.agreed))
            if begun.kept:
                note_kept(self.store(), begun.id)
            if not self.store().has_document(begun.id, GATHERED):
                Campaign(
                    self.settings,
                    plan,
                    self.gates.declarations(),
                    begun=begun,
                    store=self.store(),
                    fleet=self._fleet,
                    lock=self._lock,
                    goldens=self._goldens,
                    loop=self._loop,
                    progress=self._progress,
                    version=self.version,
                    meanwhile=self._imports.begin,
                    judging=self._judge if self.settings.in_waves else None,
                ).go()
        self._load()

    def _whole(self, document: Mapping[str, Any], began: float) -> bool:
        """Whether what an earlier gathering wrote down can be judged as it is; see :func:`can_be_judged`.

        What was judged already may be old: models, programs and what these read have to be the files they were.
        """
        guard = held_against(self._lock, self._goldens)
        specs = self.settings.asked if self.settings.resume == "judged" else ()
        files = [path for spec in specs for path in files_of(spec, self.root)]
        return can_be_judged(state_of(document), guard) and not changed_since(began, files)

    def kept(self) -> str:
        """Return the run with which the same command goes on, whichever process of this session gathered it.

        Empty where no engine that can be asked has an answer in it, or the command asks for all of them again.
        """
        if self.settings.mode == "replay" or self.settings.resume == "fresh" or not self._folder.is_dir():
            return ""
        answered = self.store().answered(self._token)
        return next((answered[spec.name] for spec in self.settings.recordable if spec.name in answered), "")

    def conclude(
        self,
        verdicts: Sequence[Verdict],
        reproduce: Mapping[str, str] | None = None,
        tests: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Take note that this session judged and reported its run to the end: the next one of its plan begins anew.

        ``tests``: why each failed where no verdict says so. Older runs are removed; return the sentence that says so.
        """
        if self.run is None or not self.first_judged:
            return []
        if self.settings.shard is not None:  # the next run of this shard asks anew
            self.store().put_document(self.run, JUDGED, {"worst": None})
            self.store().release(self.run)
            return []
        worst = keep(self.store(), self.run, verdicts, reproduce or {}, tests)
        if not self._state.portion:
            history.write_down(self.store(), entry_of(self.record(verdicts, reproduce, tests)))
        self.store().put_document(self.run, JUDGED, {"worst": worst})
        self.store().release(self.run)
        gone = self.store().prune(self.settings.keep_runs, spare=self.run)
        kept = f"the newest {self.settings.keep_runs} (--parity-keep-runs) and those that llmparity runs --keep names"
        return [f"{explain.count(len(gone), 'older run')} removed from the store, which keeps {kept}"] if gone else []

    @property
    def first_judged(self) -> bool:
        """Whether this session is the one that judges its run: it gathered it, or its shards were put together."""
        return history.judges_first(self.store, self.settings, self.run)

    def _load(self) -> None:
        """Read what the run wrote down: state, engines, samples."""
        assert self.run is not None
        self._state = read_state(self.store(), self.run) or RunState()
        self._judging = self._judge(self.run, self._state)

    def _judge(self, run: str, state: RunState) -> Judging:
        return Judging.of(self.store(), run, state, settings=self.settings, root=self.root, embedder=self._embedder)

    @property
    def baseline(self) -> str:
        """Name of the engine the others are held against."""
        return self.settings.baseline or ("" if self._judging is None else self._judging.baseline)

    # judging ---------------------------------------------------------------------------------------------------------

    def parity_run(self, test: str, *, reproduce: str) -> ParityRun:
        """Return what the ``parity_run`` fixture of this test hands out."""
        declaration = self.gates[test]
        return ParityRun(
            rows=lambda: {} if self._judging is None else self._judging.rows(declaration),
            judge=lambda check: self._judge_in_body(declaration, check),
            reproduce=reproduce,
        )

    def settle(self, test: str, gathered: ParityRun) -> list[Verdict]:
        """Judge the marker's checks, settle them with the body's as one family, remember the look; return them all."""
        declaration = self.gates[test]
        if self.settings.cases or self.settings.shard or self._judging is None:
            return []
        settled = self._judging.settle(declaration, gathered.verdicts)
        if self.first_judged:
            self._judging.remember(declaration, settled)
        return self._explained(declaration, settled, gathered.checks)

    def _explained(
        self, declaration: Declaration, settled: list[Verdict], of_body: Mapping[str, Check]
    ) -> list[Verdict]:
        """Return the verdicts with what experiments show of their causes; none is made where nothing drifts.

        ``of_body`` are the checks of the test's body as they were written.
        """
        if not any_due(settled, self.settings):
            return settled
        from pytest_llmparity.run.explain.explaining import Explaining

        assert self._judging is not None
        alone = functools.partial(once, self._folder, f"explaining-{self._token}")
        return Explaining(
            self.settings, self._judging, self._state, self.store(), self._fleet, self._loop, self._progress, alone
        ).explained(declaration, settled, of_body)

    def part_of(self, test: str) -> str:
        """Say which part of a test's prompts this run asked, empty where it asked all."""
        return self._state.portion.in_words(as_declared(self.gates[test].prompts))

    def evidence(self, test: str, check: Check) -> Evidence | None:
        """Return the evidence that a check of this test judges, ``None`` where nothing was gathered."""
        return None if self._judging is None else self._judging.evidence(self.gates[test], check)

    def _judge_in_body(self, declaration: Declaration, check: Check) -> list[Verdict]:
        check = with_schemas(self.gates.held(declaration.test, check), (self.root,), declaration.prompts)
        if why := undeclared(check, declaration, in_turn=self.settings.loads_in_turn):
            raise DesignError(why)
        if self.settings.cases or self._judging is None:
            return []
        return self._judging.judge(declaration, check)

    # engines ---------------------------------------------------------------------------------------------------------

    def available(self, name: str) -> tuple[Adapter, Identity]:
        """Return an engine that can be asked, started if need be; the error of one that cannot repeats no key."""
        engaged = self._fleet.engage(name)
        if engaged.adapter is None or engaged.record.incomparable:
            reason = self.mask.text(engaged.record.unusable or f"{name} is not available")
            del engaged  # a traceback that shows local variables would show its texts as they came
            raise LLMParityError(reason)
        return engaged.adapter, self.mask.identity(engaged.record.identity)

    def engaged(self, name: str) -> Engaged:
        """Return an engine as it was found, started if need be, also one that cannot be asked or compared.

        What it says may repeat a key: :attr:`mask` what is shown. Of a server that does not say how many requests it
        answers at once that is found out.
        """
        self._fleet.may_probe = True
        return self._fleet.engage(name)

    def found_out(self) -> dict[str, EngineRecord]:
        """Return what is known of the engines that this process has started or attached to, by name, keys masked."""
        return masked(self._fleet.records(), self.mask, self.settings.baseline)

    def gone(self, name: str) -> str | None:
        """Say why an engine that was started here is no more, ``None`` while it runs."""
        why = self._fleet.gone(name)
        return None if why is None else self.mask.text(why)

    def handle(self, name: str) -> EngineHandle:
        """Return the engine for application code, started if need be.

        Raises the reason when it cannot be had, or is another engine than its pins say.
        """
        adapter, _ = self.available(name)
        if not adapter.spec.record:
            return handle_of(adapter)
        from pytest_llmparity.run.application.plain import Recorders

        self._recorders = self._recorders or Recorders()
        return self._recorders.handle(adapter)

    def asked(self, test: str) -> list[Asked]:
        """Return what a plain test sent to engines that are recorded, keys masked, and forget it."""
        asked = [] if self._recorders is None else self._recorders.taken(test)
        return [from_json(type(each), self.mask.value(to_json(each))) for each in asked]

    @property
    def canaries(self) -> int:
        """How many of its canaries each engine is asked that the lock has such of, at most."""
        return self._lock.most_canaries

    @property
    def agreed(self) -> Agreed:
        """What the lock file says of drift now."""
        return self._lock.agreed()

    @property
    def embedder(self) -> Embedder | None:
        """What turns texts into vectors, ``None`` when the ``embeddings`` extra is not installed."""
        return self._embedder()

    @property
    def loop(self) -> LoopThread:
        """The event loop all requests of this process run in."""
        return self._loop

    @property
    def unusable(self) -> list[str]:
        """Why engines of the run could not be asked or compared, a sentence for each."""
        return [self.mask.text(record.unusable) for record in self._state.engines.values() if record.unusable]

    # the end ---------------------------------------------------------------------------------------------------------

    def adopt(self, run: str) -> None:
        """Read a run that other processes gathered (the controller of xdist)."""
        if self.run is None:
            self.run = run
            self._load()

    def record(
        self,
        verdicts: Sequence[Verdict],
        reproduce: Mapping[str, str] | None = None,
        tests: Mapping[str, str] | None = None,
    ) -> RunRecord:
        """Return everything about the run for the reports; ``reproduce`` has by test the command that runs it again."""
        return record_of_run(
            self.run or "",
            self.version,
            self._judging,
            self._state,
            verdicts,
            reproduce=reproduce or {},
            tests={test: self.mask.text(why) for test, why in (tests or {}).items()},
            replayed=self.settings.mode == "replay",
        )

    def history(self, record: RunRecord) -> list[Entry]:
        """Return the runs that are stored, or kept in the file that the settings name, up to this one, the last.

        None of a run that asked a portion of the prompts: it stands in no line with those of whole sets.
        """
        return [] if self._state.portion else history.up_to(self.store(), record, kept=self.settings.history)

    def add_to_history(self, record: RunRecord) -> Path | None:
        """Add the run to the file that the settings name and return that, ``None`` where it is not added."""
        return history.add_to_file(self.store, record, self.settings, self.mask)

    def samples(self) -> list[Sample]:
        """Return every sample of the run, or of the cases it is restricted to, engine by engine."""
        gathered = {} if self._judging is None else self._judging.samples
        only = self.settings.cases
        return [s for samples in gathered.values() for s in samples if not only or s.case in only]

    def origin(self, verdicts: Sequence[Verdict]) -> Callable[[Sample], SampleOrigin]:
        """Return a function that says of a sample which tests asked it, and whether their verdicts rest on it."""
        engines = {} if self._judging is None else self._judging.records
        return origins(self.store(), self.run or "", engines, verdicts)

    def close(self) -> list[str]:
        """Stop what this process started and close what it opened; return what went wrong. Safe to call twice."""
        parting: list[str] = []
        with contextlib.ExitStack() as closing:  # from the last one on, whatever is wrong with those before it
            closing.callback(self._disconnect)
            closing.callback(self._imports.end)
            closing.callback(self._loop.close)
            closing.callback(lambda: parting.extend(self._part()))
            closing.callback(lambda: parting.extend(self._fleet.close()))
            if self._recorders is not None:
                closing.callback(self._recorders.close)
        return [self.mask.text(sentence) for sentence in parting]

    def _disconnect(self) -> None:
        opened = (self._store, self._keeper)
        self._keeper = self._store = None
        with contextlib.ExitStack() as closing:
            for connection in opened:
                if connection is not None:
                    closing.callback(connection.close)

    def keeper(self) -> Keeper:
        """Return the connection to the process that owns the engines; it is spawned when first asked for."""
        with self._guard:
            if self._keeper is None:
                self._keeper = self._keeper_factory()
            return self._keeper

    def store(self) -> Store:
        """Return the run store, opened when first asked for, with every configured key masked."""
        if self._store is None:
            self._store = Store.open(self._folder, secrets=secrets_of(self.settings.engines, os.environ))
        return self._store


def settings_of(given: Given, *, otherwise_all: bool = False, decided: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of a run as ``settings.resolving.resolve`` does.

    Kinds of engine of installed distributions are known from here on. A model's name may mean a daemon that is running:
    it is looked for, unless ``decided`` says what another process of this run found.
    """
    registry.discover()
    return resolving.resolve(
        given,
        kinds=registry.known(),
        settle=lambda specs: daemons.settle(played.described(specs, registry.known()), given.environ, decided=decided),
        offer=lambda kinds: daemons.offer(kinds, given.environ),
        otherwise_all=otherwise_all,
    )
