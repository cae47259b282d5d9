"""The engines of a run: each is started or attached to once, identified, held against its pins and warmed up."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, wait
from pathlib import Path

from pytest_llmparity.core.errors import EngineSelectionError, LaunchError, LLMParityError, reason_of
from pytest_llmparity.core.identity.pins import changes, hold, unlike, verdict
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.ports import Layers
from pytest_llmparity.core.sample import Identity, from_json
from pytest_llmparity.engines import registry
from pytest_llmparity.engines.played import Played
from pytest_llmparity.engines.start import environments, memory
from pytest_llmparity.engines.start.memory import Gpus
from pytest_llmparity.engines.start.readiness import THEIRS, wait_ready
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.control import secrets_of
from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.run.ledger import Allowance
from pytest_llmparity.run.locking import Held
from pytest_llmparity.run.loop import in_thread, result_of
from pytest_llmparity.run.probe.slots import probe_slots
from pytest_llmparity.run.records import Engaged, record_of, together
from pytest_llmparity.run.sending.lines import Elsewhere, Line
from pytest_llmparity.run.started.residency import Residency, is_here
from pytest_llmparity.run.started.starter import Starter
from pytest_llmparity.settings.specification import DEFAULT_CONCURRENCY, EngineSpec

STARTED_AGAIN = 2
"""How often an engine whose machines are gone is started again in a run: it may be its own doing."""
INTERRUPTED_S = 2.0
"""What engines that are starting get to notice an interruption; whoever is still waiting is left behind."""


class Fleet:
    """Starts engines on first request through the keeper and keeps one answer per name.

    Safe to call from several processes at once: the keeper makes one of them the starter, the others wait. With
    ``one_at_a_time`` every other engine is stopped or unloaded, its memory given back, before one is started. ``slots``
    is how many requests an engine must be able to answer at once where its own configuration does not say. ``say`` is
    told what takes its time before an engine starts, ``fetch`` how much of its image has come. ``locked`` holds a
    live engine against the lock file. ``key_variables`` are variables of engines that may not be selected: a process
    gets those of its own engine only. ``elsewhere`` starts engines on other machines in place of this one.
    """

    def __init__(
        self,
        specs: Mapping[str, EngineSpec],
        *,
        keeper: Callable[[], Keeper],
        workdir: Path,
        environ: Mapping[str, str] | None = None,
        one_at_a_time: bool = False,
        slots: int = DEFAULT_CONCURRENCY,
        say: Callable[[str], None] = lambda text: None,
        fetch: Callable[[str, Layers | None], None] = lambda engine, layers: None,
        locked: Callable[[EngineSpec, Identity, str], Held] = lambda spec, identity, kind: Held(),
        gpus: Callable[[], tuple[Gpus | None, str | None]] = memory.nvidia,
        key_variables: Collection[str] = (),
        elsewhere: Callable[[], Elsewhere] | None = None,
    ) -> None:
        self.slots = slots
        self.allowance = Allowance()
        """What the run may still send and how long it may take: no start and no control call goes on beyond that."""
        self.may_probe = False
        """Whether requests may be sent to find out how many an attached server answers at once."""
        self._probing = threading.Lock()
        self._specs = dict(specs)
        self._elsewhere = elsewhere
        self._replicas = {each.name: spec for spec in specs.values() for each in spec.each}
        self._keeper = keeper
        self._environ = dict(os.environ if environ is None else environ)
        self._locked = locked
        self._attached: dict[str, Adapter] = {}
        self._one_at_a_time = one_at_a_time
        self._gpus = gpus
        self._unmeasured: str | None = None
        self._engaged: dict[str, Engaged] = {}
        self._lost: Counter[str] = Counter()
        self._not_again: dict[str, str] = {}
        self._interrupted = threading.Event()
        self._starter = Starter(
            keeper=keeper,
            workdir=workdir,
            environ=self._environ,
            secrets=secrets_of(self._specs.values(), self._environ),
            key_variables={*key_variables, *(name for spec in specs.values() for name in spec.secret_variables)},
            make=self._make,
            slots=lambda: self.slots,
            stop=self._stop_waiting,
            interrupted=self._interrupted,
            starts=lambda name: None if self._residency is None else self._residency.starts(name),
            say=say,
            fetch=fetch,
        )
        # One server's engines are found one after the other: those that drop each other's model would load it again and
        # again, and what is known of a model only while it is in memory would not be.
        each = [replica for spec in specs.values() for replica in spec.each]
        self._servers = {spec.base_url or spec.name: threading.Lock() for spec in each}

    def engage(self, name: str) -> Engaged:
        """Return the engine, started and identified. Never raises for an engine's failure: ``error`` holds it.

        Golden answers are no engine: ``EngineSelectionError``.
        """
        if name not in self._specs:
            raise EngineSelectionError(f"{name} has golden answers and is no live engine; this needs one that is")
        known = self._engaged.get(name)
        if known is not None and (known.record.error is not None or self._residency is None):
            return known
        if self._residency is not None:
            try:
                self._residency.make_room(name, left=self._forget)
            except Exception as error:  # noqa: BLE001 - also what an adapter from elsewhere stumbles over
                self._engaged[name] = _failed(record_of(self._specs[name]), error)
        if name not in self._engaged:
            self._engaged[name] = self._engage(self._specs[name])
        return self._engaged[name]

    @contextlib.contextmanager
    def beside(self, spec: EngineSpec) -> Iterator[Engaged]:
        """Yield one more engine, started as those of the run are and stopped behind the block.

        The run's records are without it. ``LaunchError`` where engines are placed on a cluster: nothing is reserved
        there for one more.
        """
        if self._there(spec) is not None:
            raise LaunchError("engines run on a cluster, and resources are reserved for those of the run alone")
        spec = dataclasses.replace(spec, replicas=1)
        self._specs[spec.name], self._servers[spec.name] = spec, threading.Lock()
        try:
            yield self._engage(spec)
        finally:
            self._keeper().stop(spec.name)
            del self._specs[spec.name], self._servers[spec.name]

    def known(self, name: str) -> Engaged | None:
        """Return the engine if it was engaged, or found unusable, by now."""
        return self._engaged.get(name)

    def records(self) -> list[EngineRecord]:
        """Return the records of the engines that were engaged by now."""
        return [engaged.record for engaged in self._engaged.values()]

    def glance(self, name: str) -> None:
        """Take note of an engine that certainly cannot be used, as far as that is known without loading its model.

        A server that runs elsewhere must become ready, and what it says by then must not contradict its pins or the
        lock; of one that we start, program and files must be there.
        """
        spec = self._specs[name]
        if name in self._engaged:
            return
        try:
            if not spec.launched:
                adapter = self._adapter(spec)
                wait_ready(adapter, alive=self._stop_waiting, deadline_s=adapter.start_deadline_s(), longer=THEIRS)
                self._glance_at(spec, adapter)
            elif not spec.requires:
                self._starter.check(spec)
        except Exception as error:  # noqa: BLE001 - one engine's trouble is not the run's, whatever it is
            self._engaged[name] = self._failed(spec, error)

    def _glance_at(self, spec: EngineSpec, adapter: Adapter) -> None:
        """Hold a server against pins and lock before its turn; what it tells only of a loaded model is held then."""
        try:
            identity = adapter.identity()
        except LLMParityError:  # it may not know before it has loaded the model
            return
        lenient = dataclasses.replace(spec, strict_pins=False)
        contradicted, notes = _held(lenient, identity, {}, self._locked(spec, identity, adapter.kind))
        if contradicted is not None:
            record = dataclasses.replace(_begun(spec, adapter, identity), incomparable=contradicted, notes=tuple(notes))
            self._engaged[spec.name] = Engaged(record=record, adapter=adapter)

    def engage_all(self) -> None:
        """Start every engine at the same time (they load while the others do) and wait for all of them.

        Ctrl-C ends the waiting at once; what was being started is not used again and goes with the keeper.
        """
        wanted = [spec for name, spec in self._specs.items() if name not in self._engaged]
        started: list[tuple[EngineSpec, Future[Engaged]]] = []
        try:
            for spec in wanted:
                start = functools.partial(self._engage, spec)
                started.append((spec, in_thread(start, name=f"llmparity-start-{spec.name}")))
            for spec, engaged in started:
                self._engaged[spec.name] = result_of(engaged)
        except BaseException:
            self._interrupted.set()
            wait([engaged for _, engaged in started], timeout=INTERRUPTED_S)
            raise

    def apart(self) -> dict[str, str]:
        """Return of every engine that cannot stay in memory beside another one of the run why that is.

        Known when all have been loaded: asked of servers that are attached to and answer for several engines.
        """
        reasons: dict[str, str] = {}
        attached = [e.adapter for e in self._engaged.values() if e.adapter is not None and e.record.launch == "attach"]
        for adapter in attached:
            for other in attached:
                why = adapter.crowds_out(other.spec) if other is not adapter else None
                if why is not None:
                    reasons.setdefault(adapter.name, f"{adapter.name} and {other.name}: {why}")
                    reasons.setdefault(other.name, f"{adapter.name} and {other.name}: {why}")
        return reasons

    def gone(self, name: str) -> str | None:
        """Say why a launched engine or replica is no more, ``None`` while it runs or when we only attached to it."""
        spec = self._replicas.get(name) or self._specs[name]
        if not spec.launched:
            return None
        there = self._there(spec)
        return self._starter.gone(spec) if there is None else there.gone(name)

    def line(self, adapter: Adapter) -> Line | None:
        """Return the line to a replica that is asked from another machine, ``None`` where it is asked from here."""
        there = self._there(adapter.spec)
        return None if there is None else there.line(adapter)

    def lost(self, adapter: Adapter) -> bool:
        """Tell whether the machine that a replica ran on is gone."""
        there = self._there(adapter.spec)
        return there is not None and there.lost(adapter.name)

    def anew(self, name: str) -> Adapter:
        """Start an engine again, all of whose machines are gone, on another one; return its adapter.

        ``LaunchError`` says why that cannot be, and says so again without another try. Where it is another engine
        there :meth:`known` has it as incomparable.
        """
        if self._lost[name] >= STARTED_AGAIN:
            self._not_again.setdefault(name, f"{name} was lost {STARTED_AGAIN + 1} times")
        self._lost[name] += 1
        if name not in self._not_again and (why := self._not_anew(name)):
            self._not_again[name] = why
        if name in self._not_again:
            raise LaunchError(self._not_again[name], engine=name)
        adapter = self._engaged[name].adapter
        assert adapter is not None
        return adapter

    def _not_anew(self, name: str) -> str | None:
        """Start an engine again and say why it is of no use, ``None`` when it is what it was."""
        before, spec = self._engaged[name], self._specs[name]
        now = self._engage_one(dataclasses.replace(spec, replicas=1))
        adapter, old = now.adapter, before.adapter
        if adapter is None or old is None:
            return now.record.error or f"{name} cannot be asked"
        adapter.learnt(old.can)
        other, remarks = unlike(before.record.identity, now.record.identity)
        if why := now.record.incomparable or "; ".join(other):
            why = f"{name} was started again on another machine and is another engine there: {why}"
            record = dataclasses.replace(before.record, incomparable=why)
            self._engaged[name] = dataclasses.replace(before, record=record)
            return why
        notes_now = (
            *now.record.notes,
            *(f"{name} before and after it was started again: {each}" for each in remarks),
        )
        notes = (*before.record.notes, *(note for note in notes_now if note not in before.record.notes))
        record = dataclasses.replace(before.record, notes=notes)
        self._engaged[name] = dataclasses.replace(before, record=record, adapter=adapter)
        return None

    def _there(self, spec: EngineSpec) -> Elsewhere | None:
        """Return the cluster that starts this engine on another machine, ``None`` where it is started on this one."""
        placed = spec.launched and spec.recording is None
        return None if self._elsewhere is None or not placed else self._elsewhere()

    def hold_again(self, name: str, within_s: float, stop: Callable[[], str | None]) -> str | None:
        """Wait for an attached server that went away and see whether it is what it was.

        Returns why it cannot be asked any more, ``None`` when it can. What contradicts its pins or the lock, or what it
        said before, makes it another engine: :meth:`known` has it as incomparable then.
        """
        before, spec = self._engaged[name], self._specs[name]
        adapter = before.adapter
        assert adapter is not None
        away = f"{name} went away while it was asked"
        try:
            longer = "Raise reconnect_s if it needs longer."
            wait_ready(adapter, alive=lambda: self._stop_waiting() or stop(), deadline_s=within_s, longer=longer)
            adapter.load()
            adapter.warm_up()
            identity = adapter.identity()
            contradicted, _ = _held(spec, identity, {}, self._locked(spec, identity, adapter.kind))
        except Exception as error:  # noqa: BLE001 - one engine's trouble is not the run's, whatever it is
            return f"{away} and could not be used again within {within_s:g} s: {reason_of(error, name)}"
        changed = changes(before.record.identity, identity)
        if changed and contradicted is None:
            contradicted = f"{name}: its answers before and after belong to two engines: {'; '.join(changed)}"
        if contradicted is None:
            return None
        why = f"{away} and came back as another engine; {contradicted}"
        self._engaged[name] = dataclasses.replace(before, record=dataclasses.replace(before.record, incomparable=why))
        return why

    def close(self) -> list[str]:
        """Where engines took turns, let attached ones load again what they were told to unload.

        What was started here is stopped first: it may hold the memory they need. Returns a sentence for each server
        that was not left as it was found. May be called again.
        """
        attached, self._attached = self._attached, {}
        if not attached or self._residency is None:
            return []
        words = []
        try:
            for name in [name for name in self._engaged if self._specs[name].launched]:
                self._residency.let_go(name, left=self._forget)
        except Exception as error:  # noqa: BLE001 - the end of a run is no place to fail
            words.append(reason_of(error, "residency"))
        for adapter in attached.values():
            try:
                adapter.restore()
            except Exception as error:  # noqa: BLE001 - the others are still to be restored
                words.append(f"{adapter.name} was not left as it was found: {reason_of(error, adapter.name)}")
        return words

    @functools.cached_property
    def _residency(self) -> Residency | None:
        """Who sees to it that one engine is in memory at a time, ``None`` where all may be."""
        if not self._one_at_a_time:
            return None
        gpus, self._unmeasured = self._gpus()
        return Residency(self._specs, keeper=self._keeper, attached=self._adapter, gpus=gpus, stop=self._stop_waiting)

    def _forget(self, name: str) -> None:
        if name in self._engaged and self._engaged[name].record.error is None:
            del self._engaged[name]  # it will be started or loaded again when it is asked for

    def _engage(self, spec: EngineSpec) -> Engaged:
        """Return an engine with all of its replicas, which load while the others do."""
        if spec.replicas == 1:
            return self._engage_one(spec)
        starting = [
            in_thread(functools.partial(self._engage_one, each), name=f"llmparity-start-{each.name}")
            for each in spec.each
        ]
        engaged = together([result_of(each) for each in starting])
        if self._there(spec) is None and (spec.gpus is not None or any(self._gpus())):
            shared = (
                f"{spec.name}: its {spec.replicas} replicas see the same GPUs of this machine, nobody deals them out"
            )
            record = dataclasses.replace(engaged.record, notes=(*engaged.record.notes, shared))
            engaged = dataclasses.replace(engaged, record=record)
        return engaged

    def _engage_one(self, spec: EngineSpec) -> Engaged:
        try:
            with self._servers[spec.base_url or spec.name]:
                adapter = self._attach(spec) if not spec.launched else self._start(spec)
                identity, installed = self._identify(spec, adapter)
            contradicted, notes = _held(spec, identity, installed, self._locked(spec, identity, adapter.kind))
        except Exception as error:  # noqa: BLE001 - one engine's trouble is not the run's, whatever it is
            return self._failed(spec, error)
        notes += [made] if (made := self._starter.made.pop(spec.name, None)) is not None else []
        notes += [adapter.about] if isinstance(adapter, Played) else []
        there = self._there(spec)
        notes += [] if there is None else [f"{spec.name} runs on {there.where(spec.name)}"]
        if self._unmeasured is not None and is_here(spec):
            notes, self._unmeasured = [*notes, self._unmeasured], None
        if self._residency is not None and not is_here(spec):
            notes.append(f"{spec.name} runs elsewhere: nobody looked whether its memory came back after its turn")
        record = dataclasses.replace(_begun(spec, adapter, identity), incomparable=contradicted, notes=tuple(notes))
        return Engaged(record=record, adapter=adapter)

    def _start(self, spec: EngineSpec) -> Adapter:
        if (there := self._there(spec)) is None:
            return self._starter.start(spec)
        return there.start(
            spec,
            self._replicas[spec.name],
            make=self._make,
            slots=self.slots,
            left_s=self.allowance.left_s,
            stop=self._stop_waiting,
        )

    def _identify(self, spec: EngineSpec, adapter: Adapter) -> tuple[Identity, Mapping[str, str]]:
        """Return the identity the starter published and what it had installed for the engine, else ask the server."""
        if spec.launched:
            there = self._there(spec)
            info = self._keeper().state(spec.name).info if there is None else there.info(spec.name)
            if "identity" in info:
                return from_json(Identity, info["identity"]), info["installed"]
        identity = adapter.identity()
        slots = None if "slots" in identity.facts else probe_slots(adapter, self._take)
        return (identity if slots is None else Identity(facts={**identity.facts, "slots": slots})), {}

    def _take(self, count: int) -> bool:
        with self._probing:
            return self.may_probe and self.allowance.take(count)

    def _adapter(self, spec: EngineSpec) -> Adapter:
        """Return the adapter of a server that runs elsewhere, the same each time: it knows how that was found."""
        if spec.name not in self._attached:
            made = self._make(spec, spec.base_url or "")
            return self._attached.setdefault(spec.name, made)  # engines start in threads
        return self._attached[spec.name]

    def _make(self, spec: EngineSpec, base_url: str) -> Adapter:
        return registry.make(spec, base_url, environ=self._environ, time_left=self._left_s)

    def _left_s(self) -> float | None:
        """Return what is left by the clock of whoever gathers now; an adapter may be older than that."""
        return self.allowance.left_s

    def _attach(self, spec: EngineSpec) -> Adapter:
        adapter = self._adapter(spec)
        if self._residency is not None:
            self._residency.loads(spec.name)
        wait_ready(adapter, alive=self._stop_waiting, deadline_s=adapter.start_deadline_s(), longer=THEIRS)
        for other in self._specs.values():
            shared = other.launch == "attach" and self._residency is None and other.name != spec.name
            if shared and (why := adapter.shares_with(other)):
                raise LaunchError(why, engine=spec.name)
        adapter.load()
        adapter.warm_up()
        return adapter

    def _stop_waiting(self) -> str | None:
        if self._interrupted.is_set():
            return "it was interrupted"
        return "the run's time was up (--parity-budget)" if self.allowance.left_s == 0 else None

    def _failed(self, spec: EngineSpec, error: Exception) -> Engaged:
        """Return an engine that is of no use; one whose process was never started has no log to look into."""
        record = _begun(spec)
        return _failed(record if spec.name in self._starter.logged else dataclasses.replace(record, log=None), error)


def _held(
    spec: EngineSpec, identity: Identity, installed: Mapping[str, str], locked: Held
) -> tuple[str | None, list[str]]:
    """Hold the pins against what the server says: the sentence of the contradictions, and what could not be checked.

    What was installed because of ``requires`` is a pin too, and what the lock file says may be.
    """
    wrong, unseen = verdict(hold(spec.pin, identity), strict=spec.strict_pins)
    other = environments.contradiction(spec, installed, identity)
    wrong += [other] if other is not None else []
    wrong += locked.wrong
    notes = [f"{spec.name}: {sentence}" for sentence in (*unseen, *locked.notes)]
    return (f"{spec.name}: {'; '.join(wrong)}" if wrong else None), notes


def _begun(spec: EngineSpec, adapter: Adapter | None = None, identity: Identity | None = None) -> EngineRecord:
    """Return an engine's record with the place of its log."""
    record = record_of(spec, adapter=adapter, identity=identity)
    if spec.launched:
        return dataclasses.replace(record, log=f"{spec.name}.log")
    return dataclasses.replace(record, log_hint=_log_hint(spec))


def _failed(record: EngineRecord, error: Exception) -> Engaged:
    return Engaged(record=dataclasses.replace(record, error=reason_of(error, record.name)))


def _log_hint(spec: EngineSpec) -> str:
    """Say where a person finds the log of a server that somebody else started."""
    try:
        return registry.adapter_for(spec.kind or "openai").log_hint
    except EngineSelectionError:  # a kind nobody knows is told as the engine's own error
        return ""
