"""Golden answers enter a run as if their engine had just given them: into its store, with a record that says whose."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_llmparity.core.errors import GoldenError
from pytest_llmparity.core.golden.folding import unfold
from pytest_llmparity.core.golden.records import Golden, Line, Parameters, Provenance, Wanted, set_of, wanted
from pytest_llmparity.core.golden.updating import Update, apart
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.lock import Locked
from pytest_llmparity.core.identity.quantization import normalise
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.prompts.arms import CONSTRAINED, declared_id, other
from pytest_llmparity.core.sample import Identity, Sample, from_json, to_json
from pytest_llmparity.core.words import explain
from pytest_llmparity.run.locking import Guard
from pytest_llmparity.run.plan import Unit, wires_name
from pytest_llmparity.settings.specification import EngineSpec, Settings
from pytest_llmparity.store.golden import files
from pytest_llmparity.store.runs import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How a golden answers one unit: lines by case, and why of the others there is none that could be compared.

    ``absent`` cases have no answer, ``outdated`` ones answer what was asked before.
    """

    lines: Mapping[str, Line] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    outdated: Mapping[str, str] = field(default_factory=dict)
    stale: Sequence[str] = ()


class Goldens:
    """The engines of a run that are golden answers; ``lock`` is what they are held against."""

    def __init__(
        self, settings: Settings, *, root: Path, lock: Guard, partly: Callable[[], bool] = lambda: False
    ) -> None:
        self._partly = partly
        """Whether there are tests that were not selected, which may ask what these do not."""
        self._specs = settings.goldens
        self._baseline = settings.baseline
        self._root = root
        self._lock = lock
        self.locked: dict[str, Locked] = {}
        """The engines as they were when they were recorded, by the names they have in the run; of those entered."""

    def fingerprint(self) -> str:
        """Return a text that changes with the files, empty where no golden takes part."""
        if not self._specs:
            return ""
        try:
            state = {spec.name: files.fingerprint(self._root, spec.golden or "") for spec in self._specs}
        except (GoldenError, OSError) as error:
            return f"golden {error}"
        return f"golden {hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()}"

    def enter(self, units: Sequence[Unit], *, run: str, store: Store) -> dict[str, EngineRecord]:
        """Put the answers of every golden into a run; return what is known of these engines by name.

        A file that cannot be used is the error of its engine.
        """
        records = {}
        for spec in self._specs:
            try:
                records[spec.name] = self._enter(spec, units, run, store)
            except GoldenError as error:
                begun = EngineRecord(name=spec.name, kind="golden", launch="golden", golden=spec.golden)
                records[spec.name] = dataclasses.replace(
                    begun, baseline=spec.name == self._baseline, error=f"{spec.name}: {error}"
                )
        return records

    def _enter(self, spec: EngineSpec, units: Sequence[Unit], run: str, store: Store) -> EngineRecord:
        name = spec.golden or ""
        read = functools.cache(lambda prompt_set: files.read(self._root, prompt_set, name))
        sets = list(dict.fromkeys(set_of(unit.prompts.name) for unit in units))
        there = {prompt_set: golden for prompt_set in sets if (golden := read(prompt_set)) is not None}
        first = next(iter(there.values()), None)
        record = self._record(spec, first.provenance if first is not None else None)
        if first is not None:
            self.locked[spec.name] = first.provenance.locked
        samples: list[Sample] = []
        wires: dict[str, dict[str, str]] = {}
        notes = list(record.notes)
        refused: dict[str, str] = {}
        left_out: dict[str, str] = {}
        unasked: dict[str, Mapping[str, str]] = {}
        outdated: dict[str, Mapping[str, str]] = {}
        for unit in units:
            prompt_set = set_of(unit.prompts.name)
            where, golden = self._named(prompt_set, name), there.get(prompt_set)
            if golden is None:
                left_out[unit.key] = f"there is no {where}; {_record(name, 'missing')}"
                continue
            if first is not None and (differing := apart(first.provenance.locked, golden.provenance.locked)):
                other = self._named(next(iter(there)), name)
                refused[unit.key] = (
                    f"{where} is of another engine than {other} ({'; '.join(map(str, differing))}); "
                    f"{_record(name, 'all')}"
                )
                continue
            fit = fit_of(golden, unit, where=where, name=name)
            notes += _remarks(golden, unit, fit, where=where)
            missing = {**fit.absent, **fit.outdated}
            if fit.outdated:
                outdated[unit.key] = fit.outdated
            if not fit.lines and fit.outdated:
                refused[unit.key] = next(iter(fit.outdated.values()))
            elif not fit.lines:
                left_out[unit.key] = next(iter(fit.absent.values()))
            elif missing:
                unasked[unit.key] = missing
            wires[unit.key] = {}
            for case in unit.prompts.cases:
                if (line := fit.lines.get(case.id)) is None:
                    continue
                sha256 = _sha256(line)
                wires[unit.key][case.id] = sha256
                samples += unfold(
                    line,
                    golden.logprobs.get(line.key),
                    engine=spec.name,
                    sha256=sha256,
                    concurrency=unit.concurrency,
                    max_tokens=case.request(unit.sampling).sampling.max_tokens,
                )
        if not self._partly():
            left_over = [prompt_set for prompt_set in files.listing(self._root).get(name, ()) if prompt_set not in sets]
            if left_over:
                where = ", ".join(self._named(prompt_set, name) for prompt_set in left_over)
                notes.append(
                    f"no test of this run asks {where}: llmparity golden prune --sets removes what no test asks"
                )
            notes += [
                _otherwise_sampled(golden, units, prompt_set, where=self._named(prompt_set, name))
                for prompt_set, golden in there.items()
            ]
        store.put_engine(run, spec.name, f"{spec.spec_hash}/{self.fingerprint()}", record.identity)
        store.put(run, samples)
        for key, by_case in wires.items():
            store.put_document(run, wires_name(spec.name, key), by_case)
        return dataclasses.replace(
            record,
            notes=tuple(note for note in dict.fromkeys(notes) if note),
            refused=refused,
            left_out=left_out,
            unasked=unasked,
            outdated=outdated,
        )

    def _named(self, prompt_set: str, name: str) -> str:
        return files.named(self._root, files.place(self._root, prompt_set, name))

    def _record(self, spec: EngineSpec, provenance: Provenance | None) -> EngineRecord:
        begun = EngineRecord(
            name=spec.name,
            kind="golden",
            launch="golden",
            golden=spec.golden,
            baseline=spec.name == self._baseline,
            spec_hash=spec.spec_hash,
        )
        if provenance is None:
            return begun
        identity = Identity(facts=provenance.locked.identity)
        quantization, context = identity.get("quantization"), identity.get("context_length")
        can = from_json(Capabilities, dict(provenance.capabilities))
        model = provenance.launch.get("model") or identity.get("model")
        return dataclasses.replace(
            begun,
            kind=provenance.kind,
            golden=provenance.engine,
            model=None if model is None else str(model),
            route=str(provenance.launch.get("route", "openai")),
            quantization=None if quantization is None else normalise(str(quantization)),
            context_length=context if isinstance(context, int) else None,
            identity=identity,
            capabilities=can,
            declares=can,
            incomparable=self._against_lock(spec, provenance),
            notes=(f"{spec.name}: answers of {_whose(provenance)}, nobody is asked",),
        )

    def _against_lock(self, spec: EngineSpec, provenance: Provenance) -> str | None:
        """Say in what the engine is another one by now than the one that was recorded, as far as the lock knows."""
        locked = self._lock.locked(provenance.engine)
        if locked is None or not (differing := apart(provenance.locked, locked)):
            return None
        return (
            f"{spec.name}: it was recorded from another {provenance.engine} than llmparity.lock has now: "
            f"{'; '.join(map(str, differing))}; {_record(spec.golden or '', 'all')}"
        )


def held_against(lock: Guard, goldens: Goldens) -> str:
    """Return a text that changes with the files that the engines of a run are held against, or are."""
    return f"{lock.fingerprint()}{goldens.fingerprint()}"


def fit_of(golden: Golden, unit: Unit, *, where: str, name: str) -> Fit:
    """Return how a golden, which lies at ``where`` and is called ``name``, answers a unit."""
    lines: dict[str, Line] = {}
    absent: dict[str, str] = {}
    outdated: dict[str, str] = {}
    by_id = {line.id: line for line in golden.lines.values()}
    for case in unit.prompts.cases:
        want = wanted(case.request(unit.sampling))
        line = golden.lines.get((case.id, want.sampling)) or by_id.get(case.id)
        if line is None and case.arm == CONSTRAINED and other(case.id) in by_id:
            whose = golden.provenance.engine
            absent[case.id] = (
                f"{where} has an answer to it without the schema alone: {whose} refused the schema, or did not answer, "
                f"when it was recorded, and golden answers hold no refusal; select {whose} itself for that"
            )
        elif line is None:
            absent[case.id] = f"{where} has no answer to it; {_record(name, 'missing')}"
        elif why := _other(line, want, golden.provenance, unit, case):
            outdated[case.id] = f"{where} {why}; {_record(name, 'changed')}"
        else:
            lines[case.id] = line
    rest = {case.id for case in unit.prompts.rest}
    stale = sorted(id for id in by_id.keys() - unit.prompts.by_id.keys() if declared_id(id) not in rest)
    return Fit(lines=lines, absent=absent, outdated=outdated, stale=stale)


def _other(line: Line, want: Wanted, provenance: Provenance, unit: Unit, case: Case) -> str:
    """Say what else a line answers than is asked now, empty where it is the same."""
    if line.prompt != want.prompt:
        return "answers another prompt (or other tools, or another response format) than the case has now"
    if line.sampling != want.sampling:
        now = to_json(case.request(unit.sampling).sampling)
        before = _nearest(provenance, now)
        differing = [
            f"{name} {before[name]} -> {now[name]}" for name in now if name in before and _apart(before, now, name)
        ]
        return "was sampled otherwise than is asked now" + (f" ({', '.join(differing)})" if differing else "")
    if line.lock != provenance.lock:
        return "has its answer from another engine than its first line names"
    return ""


def _nearest(provenance: Provenance, now: Parameters) -> Parameters:
    """Return the way of asking, of those that were recorded, that differs least from the one of now."""
    ways: Iterable[Parameters] = (way.sampling for way in provenance.asked)
    return min(ways, key=lambda way: sum(_apart(way, now, name) for name in now), default={})


def _apart(before: Parameters, now: Parameters, name: str) -> bool:
    mine, theirs = before.get(name), now.get(name)
    return (list(mine) if isinstance(mine, tuple) else mine) != (list(theirs) if isinstance(theirs, tuple) else theirs)


def _remarks(golden: Golden, unit: Unit, fit: Fit, *, where: str) -> list[str]:
    """Return what the reader should know of a golden that answers a unit."""
    remarks = []
    sampling = to_json(unit.sampling)
    ways = [
        way for way in golden.provenance.asked if not any(_apart(way.sampling, sampling, name) for name in sampling)
    ]
    others = sorted({way.concurrency for way in ways} - {unit.concurrency})
    if others:
        was = f"{where} was recorded with {' and '.join(map(str, others))} prompts at once"
        part = " in part" if len(others) < len({way.concurrency for way in ways}) else ""
        remarks.append(f"{was}{part}, and this run asks {unit.concurrency}: its noise floor is that of its recording")
    if fit.lines and (lacking := " and ".join(_lacking(golden, unit, fit.lines.values()))):
        remarks.append(
            f"{where} has no {lacking} of these cases; {_record(golden.provenance.engine, Update.CHANGED.value)}"
        )
    if fit.stale:
        remarks.append(
            f"{where} has {explain.count(len(fit.stale), 'case')} that {explain.plain(unit.prompts.name, 40)} has not "
            f"any more ({explain.first_names(fit.stale)}): llmparity golden prune removes them"
        )
    return remarks


def _lacking(golden: Golden, unit: Unit, lines: Collection[Line]) -> Iterator[str]:
    """Yield what the checks of a unit read that none of its lines has, though its engine may give it."""
    if unit.needs.floor and not any(line.floor for line in lines):
        yield "noise floor"
    gives = golden.provenance.capabilities.get("logprobs") is not False
    if unit.needs.top_logprobs is not None and gives and not any(line.key in golden.logprobs for line in lines):
        yield "logprobs"


def _otherwise_sampled(golden: Golden, units: Sequence[Unit], prompt_set: str, *, where: str) -> str:
    """Say how many cases have lines with a sampling that no test asks beside one that is asked; empty where none."""
    asked = {
        (case.id, wanted(case.request(unit.sampling)).sampling)
        for unit in units
        if set_of(unit.prompts.name) == prompt_set
        for case in unit.prompts.cases
    }
    known = {case for case, _ in asked}
    answered = {line.id for line in golden.lines.values() if line.key in asked}
    stale = sorted(
        {case for case, sampling in golden.lines if case in known & answered}
        & {line.id for line in golden.lines.values() if line.key not in asked}
    )
    if not stale:
        return ""
    cases = explain.count(len(stale), "case")
    return (
        f"{where} has {cases} with a sampling too that no test asks any more ({explain.first_names(stale)}): "
        "llmparity golden prune removes it"
    )


def _whose(provenance: Provenance) -> str:
    version = f" {provenance.version}" if provenance.version else ""
    return f"{provenance.engine} ({provenance.kind}{version}) as recorded {provenance.recorded}"


def _record(name: str, update: str) -> str:
    return f"record it: pytest --engines {name} --parity-update-golden {update}"


def _sha256(line: Line) -> str:
    return hashlib.sha256(f"golden/{line.prompt}/{line.sampling}".encode()).hexdigest()
