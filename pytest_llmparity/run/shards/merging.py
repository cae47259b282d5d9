"""The stores of all shards become one run: what each found out, joined as if one machine had found it out."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from pytest_llmparity.core.checks.drift.floor import needs_more
from pytest_llmparity.core.errors import ShardError, StoreError
from pytest_llmparity.core.evidence import FLOOR_PHASES, EngineEvidence, floor_stages
from pytest_llmparity.core.identity.lock import Difference, Locked, differences
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import Identity, Phase, Sample, to_json
from pytest_llmparity.core.shards import MOST
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.run.golden.requests import LOCKED, REQUESTS, asked_in, engines_in
from pytest_llmparity.run.judge.asked import ASKED, AskedUnit, units_of
from pytest_llmparity.run.judge.judging import AGREED, select
from pytest_llmparity.run.ledger import MERGED, RunState, read_state, write_state
from pytest_llmparity.run.plan import wires_name
from pytest_llmparity.run.shards.apart import Side, apart
from pytest_llmparity.run.shards.dealing import SHARD, Floor, ShardDocument
from pytest_llmparity.run.timed.phase import span_of, timed_name
from pytest_llmparity.store.database import DAMAGED
from pytest_llmparity.store.runs import FILE_NAME, RunInfo, Store

T = TypeVar("T")

_SAME: Final = (ASKED, REQUESTS, AGREED)
"""Documents that all shards of a run wrote alike."""
HOURS_APART: Final = 6
"""How long after another a shard may begin that nobody named: an engine behind an address may change meanwhile."""


@dataclass(frozen=True, kw_only=True)
class ShardRun:
    """One shard: where it lies, and what it says of itself; ``named`` by its run, not found as the newest."""

    store: Store
    run: str
    place: str
    version: str
    claim: ShardDocument
    state: RunState
    locked: Mapping[str, Locked] = field(default_factory=dict)
    secrets: Sequence[str] = ()
    began: float = 0.0
    named: bool = False

    def __str__(self) -> str:
        return f"{self.claim.shard} (run {self.run}{f' in {self.place}' if self.place else ''})"


def is_shard(store: Store, run: str) -> bool:
    """Whether a run is one of several shards."""
    return store.has_document(run, SHARD)


def merge(store: Store, places: Sequence[str], *, cwd: Path) -> str:
    """Put shards together into one new run of ``store`` and return it.

    ``places`` name runs of this store, or folders with a store, of which the newest run of every shard counts; without
    any it is this store's own. Raises ``ShardError`` where they are not the shards of one run, all of them and each
    once, gathered from the same engines, and where those nobody named began more than :data:`HOURS_APART` hours apart.
    """
    opened: list[Store] = []
    try:
        parts = [part for place in places or [""] for part in _parts_at(store, place, cwd, opened)]
        _refuse_others(parts)
        _refuse_apart([part for part in parts if not part.named])
        parts.sort(key=lambda part: part.claim.index)
        return _join(store, parts)
    finally:
        for other in opened:
            other.close()


def _parts_at(store: Store, place: str, cwd: Path, opened: list[Store]) -> list[ShardRun]:
    """Return the shards that a word on the command line names."""
    known = {info.id: info for info in store.runs()}
    if place in known:
        return [dataclasses.replace(_read(store, known[place], ""), named=True)]
    if not place:
        return _newest(store, "")
    folder = next((f for f in (cwd / place, cwd / place / ".llmparity") if (f / FILE_NAME).is_file()), None)
    if folder is None:
        close = nearest(place, known)
        raise ShardError(
            f"{place!r} is neither a run of {store.path.parent}{close} nor a folder with {FILE_NAME} in it"
        )
    other = Store.open(folder)
    opened.append(other)
    return _newest(other, place)


def _refuse_apart(parts: Sequence[ShardRun]) -> None:
    """Refuse shards that were picked as the newest and belong to different days of an engine that may have changed."""
    if not parts:
        return
    first, last = min(parts, key=lambda part: part.began), max(parts, key=lambda part: part.began)
    if (hours := (last.began - first.began) / 3600) > HOURS_APART:
        when = [time.strftime("%Y-%m-%d %H:%M", time.localtime(part.began)) for part in (first, last)]
        raise ShardError(
            f"{first} began {when[0]} and {last} {when[1]}, {hours:.0f} hours later: an engine may have changed "
            "between them. Gather all shards again, or name the runs that belong together: llmparity merge RUN RUN …"
        )


def _newest(store: Store, place: str) -> list[ShardRun]:
    """Return of every shard of the newest sharded run in a store the newest one."""
    newest: dict[int, ShardRun] = {}
    plan = None
    for info in reversed(store.runs()):
        if (claim := _if_shard(store, info.id, place)) is None:
            continue
        plan = plan or (claim.plan, claim.of)
        if plan == (claim.plan, claim.of) and claim.index not in newest:
            newest[claim.index] = _read(store, info, place)
    if not newest:
        raise ShardError(
            f"{place or store.path.parent} holds no shard; gather them first: pytest --engines A,B --parity-shard 1/2"
        )
    return list(newest.values())


def _document(store: Store, run: str, place: str) -> ShardDocument:
    """Read which share of what a run is; ``ShardError`` where it is none."""
    claim = _if_shard(store, run, place)
    if claim is None:
        raise ShardError(f"run {run} is no shard; a whole run is judged already, or by --parity-mode replay={run}")
    return claim


def _if_shard(store: Store, run: str, place: str) -> ShardDocument | None:
    """Read which share of what a run is; it may come from anywhere, so nothing of it is taken on trust."""
    claim = _from_store(place, lambda: store.document(run, SHARD, ShardDocument))
    if claim is None:
        return None
    if not 1 <= claim.index <= claim.of <= MOST:
        raise ShardError(f"run {run} calls itself {claim.shard}")
    return claim


def _from_store(place: str, read: Callable[[], T]) -> T:
    """Return what is read of a store; ``ShardError`` says in which it could not be."""
    try:
        return read()
    except StoreError as error:
        raise ShardError(f"{error}{f'; it is in {place}' if place else ''}") from error


def _read(store: Store, info: RunInfo, place: str) -> ShardRun:
    """Read what a shard says of itself."""
    run = info.id
    claim = _document(store, run, place)
    state = _from_store(place, lambda: read_state(store, run))
    locked, secrets = _from_store(place, lambda: engines_in(store, run))
    if state is None:
        raise ShardError(
            f"{claim.shard} (run {run}{f' in {place}' if place else ''}) was interrupted while gathering; run it again "
            "on its machine, where it goes on"
        )
    return ShardRun(
        store=store,
        run=run,
        place=place,
        version=info.version,
        began=info.started,
        claim=claim,
        state=state,
        locked=locked,
        secrets=secrets,
    )


# are they the shards of one run? -------------------------------------------------------------------------------------


def _refuse_others(parts: Sequence[ShardRun]) -> None:
    """Raise ``ShardError`` unless these are all shards of one run, each once, of the same engines."""
    first, by_index = parts[0], dict[int, ShardRun]()
    for part in parts:
        if part.claim.of != first.claim.of:
            raise ShardError(f"these are shards of two divisions: {first} and {part}")
        if part.claim.index in by_index:
            raise ShardError(
                f"a shard is there twice: {by_index[part.claim.index]} and {part}; name the one that counts"
            )
        by_index[part.claim.index] = part
    for part in parts[1:]:
        _refuse_other(first, part)
    if missing := [str(index) for index in range(1, first.claim.of + 1) if index not in by_index]:
        raise ShardError(
            f"of {first.claim.of} shards {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; there "
            f"{'is' if len(by_index) == 1 else 'are'} {', '.join(map(str, sorted(by_index)))}"
        )


def _refuse_other(first: ShardRun, part: ShardRun) -> None:
    """Raise ``ShardError`` where a shard asked another thing than the first one, or others."""
    both = f"{first} and {part}"
    if part.claim.plan != first.claim.plan:
        raise ShardError(
            f"{both} asked other prompts, or in another way{_apart(first, part)}; gather all of one commit"
        )
    if part.version != first.version:
        raise ShardError(f"{both} were gathered by pytest-llmparity {first.version} and {part.version}")
    names = [list(each.state.engines) for each in (first, part)]
    if names[0] != names[1]:
        raise ShardError(f"{both} asked other engines: {', '.join(names[0])} and {', '.join(names[1])}")
    if part.state.baseline != first.state.baseline:
        raise ShardError(f"{both} have other baselines: {first.state.baseline} and {part.state.baseline}")
    if part.state.guard != first.state.guard:
        raise ShardError(f"{both} were held against other locks (llmparity.lock) or golden answers")
    for name in names[0]:
        _refuse_other_engine(name, first, part)


def _apart(first: ShardRun, part: ShardRun) -> str:
    """Say in what two shards asked otherwise, where that can be read."""
    try:
        sides = [Side(str(each.claim.shard), asked_in(each.store, each.run) or {}) for each in (first, part)]
        return apart(*sides)
    except StoreError:
        return ""


def _refuse_other_engine(name: str, first: ShardRun, part: ShardRun) -> None:
    """Raise ``ShardError`` where a name is another engine in one shard than in the other, or not there in one."""
    ours, theirs = first.state.engines[name], part.state.engines[name]
    for each, record, other in ((first, ours, theirs), (part, theirs, ours)):
        if record.unusable and not other.unusable:
            raise ShardError(f"{name} could not be asked in {each}: {record.unusable}; gather that shard again")
    before, now = first.locked.get(name), part.locked.get(name)
    if before is None or now is None:
        return
    if apart := _other(before, now):
        raise ShardError(
            f"{name} is another engine in {first.claim.shard} than in {part.claim.shard} "
            f"({'; '.join(map(str, apart))}), so their answers are none of one engine: {first} and {part}"
        )


def _other(before: Locked, now: Locked) -> list[Difference]:
    """Return in what two engines differ, whichever is looked at first: what only one of them tells is no difference."""
    back = {difference.field for difference in differences(now, before) if difference.fails}
    return [difference for difference in differences(before, now) if difference.fails and difference.field in back]


# one run of all ------------------------------------------------------------------------------------------------------


def _join(store: Store, parts: Sequence[ShardRun]) -> str:
    """Write what the shards gathered as one run."""
    first = parts[0]
    try:
        samples, timed = _timed_apart({name: _samples(name, parts) for name in first.state.engines}, parts)
        wires = {(name, key): _wires(name, key, parts) for name in first.state.engines for key in _keys(parts)}
        samples = {name: _within_floor(name, samples[name], wires, parts) for name in samples}
        documents: dict[str, Mapping[str, Any]] = {
            name: content for name in _SAME if (content := first.store.raw_document(first.run, name)) is not None
        }
        documents |= {wires_name(name, key): by_case for (name, key), by_case in wires.items() if by_case}
        documents |= timed
        locked = {name: to_json(entry) for part in reversed(parts) for name, entry in part.locked.items()}
        secrets = list(dict.fromkeys(name for part in parts for name in part.secrets))
        documents[LOCKED] = {"engines": locked, "secrets": secrets}
        state = _state(parts)
    except ShardError:
        raise
    except (StoreError, *DAMAGED) as error:
        raise ShardError(f"the answers of a shard cannot be read ({error}); gather it again") from error
    begun = store.begin(
        plan_hash=f"merged {first.claim.plan}", session=uuid.uuid4().hex, version=first.version, resume="fresh"
    )
    for name, record in state.engines.items():
        store.put_engine(begun.id, name, record.spec_hash, record.identity)
        store.put(begun.id, samples[name])
    for document, fields in documents.items():
        store.put_document(begun.id, document, fields)
    store.put_document(begun.id, MERGED, {"shards": [str(part) for part in parts]})
    write_state(store, begun.id, state)
    if state.incomplete is None:
        store.finish(begun.id)
    store.release(begun.id)
    return begun.id


def _keys(parts: Sequence[ShardRun]) -> list[str]:
    """Return the keys of all units."""
    return list(_units(parts[0]))


def _units(part: ShardRun) -> Mapping[str, AskedUnit]:
    """Return by their keys the units that a shard asked its share of."""
    return units_of(part.store, part.run)


def _samples(name: str, parts: Sequence[ShardRun]) -> list[list[Sample]]:
    """Return the samples of an engine, shard by shard; golden answers are the same in each."""
    golden = parts[0].state.engines[name].golden is not None
    return [part.store.get(part.run, name) for part in (parts[:1] if golden else parts)]


def _timed_apart(
    samples: Mapping[str, Sequence[Sequence[Sample]]], parts: Sequence[ShardRun]
) -> tuple[dict[str, list[Sample]], dict[str, dict[str, Any]]]:
    """Return all samples by engine, and the documents that say which of them were timed for a unit.

    Each shard counts its timed answers from 0, so those of the later ones move up.
    """
    units = _units(parts[0])
    joined: dict[str, list[Sample]] = {name: [] for name in samples}
    documents: dict[str, dict[str, Any]] = {}
    for name, by_part in samples.items():
        after = Counter[int]()
        for part, gathered in zip(parts, by_part, strict=False):
            timed, free = [sample for sample in gathered if sample.phase is Phase.TIMED], Counter(after)
            joined[name] += [sample for sample in gathered if sample.phase is not Phase.TIMED]
            joined[name] += [msgspec.structs.replace(s, repeat=s.repeat + free[s.concurrency]) for s in timed]
            for key, unit in units.items():
                span = span_of(part.store, part.run, name, key)
                if span is not None:
                    moved = msgspec.structs.replace(span, first=span.first + free[unit.concurrency])
                    documents[timed_name(name, key)] = msgspec.to_builtins(moved)
            for sample in timed:
                end = free[sample.concurrency] + sample.repeat + 1
                after[sample.concurrency] = max(after[sample.concurrency], end)
    return joined, documents


def _wires(name: str, key: str, parts: Sequence[ShardRun]) -> dict[str, str]:
    """Return the requests of an engine by case; each shard tells those of its own cases, the first golden ones too."""
    wires: dict[str, str] = {}
    golden = parts[0].state.engines[name].golden is not None
    for part in parts:
        sent = part.store.document(part.run, wires_name(name, key), dict[str, str]) or {}
        if not golden and (strange := sorted(sent.keys() - set(part.claim.own.get(key, ())))):
            names = explain.first_names(strange)
            raise ShardError(f"{part} says that it asked {name} cases of other shards ({names}); gather it again")
        wires |= sent
    return wires


def _within_floor(
    name: str, samples: Sequence[Sample], wires: Mapping[tuple[str, str], Mapping[str, str]], parts: Sequence[ShardRun]
) -> list[Sample]:
    """Return the samples without answers that repeat more of the noise floor than a run unsharded would have asked."""
    if parts[0].state.engines[name].golden is not None:
        return list(samples)
    floors = {key: floor for part in parts for key, floor in part.claim.floors.items()}
    needed: set[tuple[str, str, int]] = set()
    for key, floor in floors.items():
        sent = wires.get((name, key), {})
        answers = select(samples, sent, concurrency=floor.concurrency)
        needed |= {(case, sent[case], floor.concurrency) for case in floor_cases(floor, name, answers, sent)}
    return [
        sample
        for sample in samples
        if sample.phase not in FLOOR_PHASES or (sample.case, sample.request_sha256, sample.concurrency) in needed
    ]


def floor_cases(
    floor: Floor, name: str, answers: Mapping[Phase, Mapping[str, Sequence[Sample]]], sent: Mapping[str, str]
) -> list[str]:
    """Return the cases by which a run unsharded would have measured the noise floor of an engine.

    ``sent`` has the cases that it can be asked. Looked at round by round, as it is when one machine asks them all.
    """
    order = [Case(id=case, prompt="", group=group) for case, group in floor.order if case in sent]
    engine = EngineEvidence(name=name, kind="", samples=answers)
    stages = floor_stages(floor.cases, floor.concurrency)
    begun: list[Sequence[Case]] = []
    asked = 0
    for end in floor_stages(len(order), floor.concurrency) if order else ():
        enough = asked >= max(1, floor.least)
        if enough and not (floor.grows and needs_more(begun, engine, held=floor.held, stages=stages)):
            break
        begun.append(order[asked:end])
        asked = end
    return [case.id for case in order[:asked]]


def _state(parts: Sequence[ShardRun]) -> RunState:
    """Return the state of the gathering as a whole."""
    first = parts[0].state
    stopped = [f"{part.claim.shard}: {part.state.incomplete}" for part in parts if part.state.incomplete]
    merged = f"put together of {explain.count(len(parts), 'shard')}: {', '.join(part.run for part in parts)}"
    return RunState(
        engines={name: _record(name, parts) for name in first.engines},
        baseline=first.baseline,
        incomplete="; ".join(stopped) or None,
        requests=sum(part.state.requests for part in parts),
        seconds=sum(part.state.seconds for part in parts),
        retries=sum(part.state.retries for part in parts),
        notes=(merged, *_machines(parts), *_notes(parts)),
        guard=first.guard,
        portion=first.portion,
    )


def _notes(parts: Sequence[ShardRun]) -> list[str]:
    """Return what the shards have to say: once what all of them say, of the rest who says it."""
    of_all = set.intersection(*(set(part.state.notes) for part in parts))
    return [
        *dict.fromkeys(note for note in parts[0].state.notes if note in of_all),
        *(f"{part.claim.shard}: {note}" for part in parts for note in part.state.notes if note not in of_all),
    ]


def _machines(parts: Sequence[ShardRun]) -> list[str]:
    """Say where an engine ran on machines of several kinds, which adds floating point otherwise."""
    sentences = []
    for name in parts[0].state.engines:
        devices = dict.fromkeys(str(d) for p in parts if (d := _identity(p, name).get("device")) is not None)
        if len(devices) > 1:
            sentences.append(
                f"{name} ran on other machines in other shards ({', '.join(devices)}); they count as the same engine"
            )
    return sentences


def _identity(part: ShardRun, name: str) -> Identity:
    return part.state.engines[name].identity


def _record(name: str, parts: Sequence[ShardRun]) -> EngineRecord:
    """Return what is known of one engine; what only some shards could not ask is left out case by case."""
    records = [part.state.engines[name] for part in parts]
    first = records[0]
    if first.golden is not None:
        return first
    left_out: dict[str, str] = {}
    refused: dict[str, str] = {}
    unasked: dict[str, dict[str, str]] = {}
    for key in dict.fromkeys(key for record in records for key in (*record.left_out, *record.refused)):
        holders = [(part, record) for part, record in zip(parts, records, strict=True) if key in part.claim.own]
        whys = [record.left_out.get(key) or record.refused.get(key) for _, record in holders]
        if all(whys):
            refusals = [record.refused[key] for _, record in holders if key in record.refused]
            target = refused if refusals else left_out
            target[key] = str(refusals[0] if refusals else whys[0])
            continue
        for (part, _), why in zip(holders, whys, strict=True):
            if why:
                unasked.setdefault(key, {}).update(dict.fromkeys(part.claim.own[key], why))
    for record in records:
        for key, by_case in record.unasked.items():
            unasked.setdefault(key, {}).update(by_case)
    return dataclasses.replace(
        first,
        notes=tuple(dict.fromkeys(note for record in records for note in record.notes)),
        left_out=left_out,
        refused=refused,
        unasked=unasked,
        lonely={key: why for record in reversed(records) for key, why in record.lonely.items()},
    )


def shards_of(store: Store, runs: Iterable[str]) -> bool:
    """Whether all of these runs, at least two, are shards."""
    named = list(runs)
    return len(named) > 1 and all(is_shard(store, run) for run in named)
