"""A stored run becomes golden answers: all that is to be written is made and looked at before the first file is."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmparity.core.checks.schema.contract import Contract
from pytest_llmparity.core.errors import DesignError, GoldenError
from pytest_llmparity.core.golden import updating
from pytest_llmparity.core.golden.folding import PHASES, Folded, fold
from pytest_llmparity.core.golden.private import refuse_private
from pytest_llmparity.core.golden.records import FORMAT, Key, Provenance, Told, Way, lock_hash
from pytest_llmparity.core.golden.updating import Renewed, Update
from pytest_llmparity.core.identity.lock import Locked
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.prompts.arms import other
from pytest_llmparity.core.sample import Completion, JsonValue, Sample, to_json
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.masking import Mask
from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.run.golden.requests import Asked, asked_in, engines_in, partly_asked
from pytest_llmparity.run.judge.judging import select
from pytest_llmparity.run.ledger import RunState, read_state
from pytest_llmparity.run.plan import wires_name
from pytest_llmparity.store.golden import files
from pytest_llmparity.store.runs import Store

if TYPE_CHECKING:
    from pytest_llmparity.run.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One engine's answers to one set, as a run has them. ``unanswered`` are cases without an answer."""

    prompt_set: str
    engine: str
    provenance: Provenance
    folded: Sequence[Folded]
    unanswered: Sequence[str] = ()

    @property
    def refused(self) -> list[str]:
        """The unanswered cases whose other arm, without the schema, was answered."""
        answered = {folded.line.id for folded in self.folded}
        return [case for case in self.unanswered if other(case) in answered]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of one golden: its file from the project's root, and what was new in it."""

    file: str
    renewed: Renewed
    unanswered: Sequence[str] = ()
    stale: Sequence[str] = ()
    refused: Sequence[str] = ()
    """Unanswered cases that were answered without their schema."""
    silent: Sequence[str] = ()
    """Cases of which an application returned what it came to without asking its engine."""
    fills: Update = Update.CHANGED
    """What would write what its lines lack."""

    def sentence(self) -> str:
        """Say how many cases were written, left without an answer, or are left over."""
        added, changed = len(self.renewed.added), len(self.renewed.changed)
        counts = [f"{number} {word}" for number, word in ((added, "new"), (changed, "changed")) if number]
        total = "0 cases" if self.renewed.golden is None else self.renewed.golden.size
        news = f"{', '.join(counts)} of {total}" if counts else "nothing new"
        text = f"{self.file}: {news}"
        if self.unanswered:
            text += (
                f"; {explain.count(len(self.unanswered), 'case')} not answered ({explain.first_names(self.unanswered)})"
            )
        if self.refused:
            text += (
                f", {len(self.refused)} of them only with their schema: golden answers hold no refusal, so hold that "
                "engine itself against another where it has to be seen"
            )
        if self.silent:
            text += (
                f"; {explain.count(len(self.silent), 'value')} for which the application asked its engine nothing "
                f"({explain.first_names(self.silent)}): does it use engine.openai() or engine.base_url?"
            )
        if lacking := self.renewed.lacking:
            text += (
                f"; {explain.count(len(lacking), 'case')} without the noise floor or the logprobs that this run has "
                f"({explain.first_names(lacking)}): --parity-update-golden {self.fills}"
            )
        if self.stale:
            text += (
                f"; {explain.count(len(self.stale), 'case')} nobody asks any more ({explain.first_names(self.stale)}): "
                "llmparity golden prune"
            )
        return text


def recordings(store: Store, run: str, *, only: Collection[str] = (), plugin: str = "") -> Iterator[Recording]:
    """Yield what a run recorded of its live engines, or of those of these names; ``GoldenError`` says why it cannot.

    ``plugin`` is the version of this package that writes.
    """
    asked, state = asked_in(store, run), read_state(store, run)
    locked, _ = engines_in(store, run)
    if state is None:
        raise GoldenError(f"run {run} was interrupted while gathering; only a run that ended can become golden")
    if asked is None:
        raise GoldenError(f"run {run} was stored by an older version, which kept too little of it; run once more")
    if state.no_whole:
        raise GoldenError(f"run {run} is no whole run: {state.no_whole}")
    names = [name for name, record in state.engines.items() if record.golden is None and not record.recording]
    unknown = sorted(set(only) - set(names))
    if unknown:
        close = nearest(unknown[0], names)
        raise GoldenError(
            f"run {run} asked no engine {', '.join(unknown)}{close}; it asked {', '.join(names) or 'none'}"
        )
    for name in names:
        if not only or name in only:
            yield from _of_engine(store, run, state, state.engines[name], asked, locked.get(name), plugin)


def _of_engine(
    store: Store,
    run: str,
    state: RunState,
    record: EngineRecord,
    asked: Mapping[str, Asked],
    locked: Locked | None,
    plugin: str,
) -> Iterator[Recording]:
    if record.unusable is not None or locked is None:
        why = record.unusable or "nothing is known of it"
        raise GoldenError(f"{record.name} cannot become golden: {explain.plain(why)}")
    samples = store.get(run, record.name, phases=PHASES)
    by_set: dict[str, list[tuple[str, Asked]]] = {}
    for key, unit in asked.items():
        by_set.setdefault(unit.set, []).append((key, unit))
    for prompt_set, units in by_set.items():
        folded: dict[Key, Folded] = {}
        whose: dict[Key, str] = {}
        unanswered: list[str] = []
        ways: list[Way] = []
        for key, unit in units:
            wires = store.document(run, wires_name(record.name, key), dict[str, str]) or {}
            fresh = _folded(unit, samples, wires)
            unanswered += [case for case in unit.cases if case not in fresh]
            if fresh:
                ways.append(Way(n=len(fresh), concurrency=unit.concurrency, sampling=unit.sampling))
            for case in fresh.values():
                before = folded.setdefault(case.line.key, case)
                if before.line.prompt != case.line.prompt:
                    raise GoldenError(
                        f"two prompt files, {whose[case.line.key]} and {unit.file}, would be golden/{prompt_set} and "
                        f"have a case {explain.plain(case.line.id, 40)} each; give one of the files another name"
                    )
                whose.setdefault(case.line.key, unit.file)
        if ways:
            yield Recording(
                prompt_set=prompt_set,
                engine=record.name,
                provenance=_provenance(record, locked, _day(store, run), ways, plugin),
                folded=[folded[key] for key in sorted(folded)],
                unanswered=list(dict.fromkeys(unanswered)),
            )


def _folded(unit: Asked, samples: Sequence[Sample], wires: Mapping[str, str]) -> dict[str, Folded]:
    """Return the lines of the cases of a unit that were answered."""
    by_case: dict[str, list[Sample]] = {}
    for of_phase in select(samples, wires, concurrency=unit.concurrency).values():
        for case, given in of_phase.items():
            by_case.setdefault(case, []).extend(given)
    lines = {
        case: fold(case, wanted, by_case.get(case, ()), lock="0" * 12, valid=_validity(unit.schemas.get(case)))
        for case, wanted in unit.cases.items()
    }
    return {case: folded for case, folded in lines.items() if folded is not None}


def _validity(schema: Mapping[str, JsonValue] | None) -> Callable[[Completion], bool] | None:
    if schema is None:
        return None
    try:
        contract = Contract(schema, "the case's schema")
    except DesignError:
        return None

    def valid(completion: Completion) -> bool:
        return contract.hold(completion).problem is None

    return valid


def _provenance(record: EngineRecord, locked: Locked, recorded: str, ways: Sequence[Way], plugin: str) -> Provenance:
    can = {
        name: value for name, value in to_json(record.capabilities).items() if name != "probed" and value is not None
    }
    return Provenance(
        format=FORMAT,
        engine=record.name,
        kind=record.kind,
        version=record.version,
        lock=lock_hash(locked),
        recorded=recorded,
        asked=tuple(ways),
        plugin=plugin,
        identity={name: Told(value=fact.value, source=fact.source) for name, fact in sorted(locked.identity.items())},
        launch=dict(locked.launch),
        capabilities=can,
    )


def _day(store: Store, run: str) -> str:
    """Return the day on which a run began, in UTC."""
    started = next((info.started for info in store.runs() if info.id == run), 0.0)
    return datetime.datetime.fromtimestamp(started, tz=datetime.UTC).date().isoformat()


def renewals(
    root: Path, made: Sequence[Recording], update: Update, *, partly: bool
) -> list[tuple[Recording, Renewed, list[str]]]:
    """Return what each recording makes of what is there by now, and the cases of it that nobody asks any more.

    ``partly`` says that there are other tests, which were not selected.
    """
    renewed = []
    for recording in made:
        before = files.read(root, recording.prompt_set, recording.engine)
        new = updating.renew(before, recording.provenance, recording.folded, update=update, partly=partly)
        if new.refused:
            file = files.named(root, files.place(root, recording.prompt_set, recording.engine))
            raise GoldenError(
                f"{recording.engine} is another engine than the one that {file} is of: {new.refused}. If that is "
                "meant, record all of it anew: --parity-update-golden all (llmparity golden from RUN --update all)"
            )
        ids = {folded.line.id for folded in recording.folded} | set(recording.unanswered)
        stale = sorted({line.id for line in before.lines.values()} - ids) if before is not None else []
        renewed.append((recording, new, stale))
    return renewed


def record(
    store: Store,
    run: str,
    *,
    root: Path,
    update: Update,
    mask: Mask,
    secrets: Collection[str],
    folders: Sequence[str] = (),
    only: Collection[str] = (),
    plugin: str = "",
) -> list[Written]:
    """Write the golden answers of a run, as far as ``update`` lets them be written; return what became of each file.

    Nothing is written where one of them would hold what has no place in it.
    """
    _, masked = engines_in(store, run)
    made = renewals(
        root, list(recordings(store, run, only=only, plugin=plugin)), update, partly=partly_asked(store, run)
    )
    places = [files.named(root, files.place(root, new.prompt_set, new.engine)) for new, _, _ in made]
    for place, (_, renewed, _) in zip(places, made, strict=True):
        if renewed.wrote and renewed.golden is not None:
            variables = {*secrets, *masked}
            refuse_private(renewed.golden, where=place, mask=mask, variables=variables, folders=folders)
    for recording, renewed, _ in made:
        if renewed.wrote:
            files.write(root, recording.prompt_set, recording.engine, renewed.golden)
    return [
        Written(
            file=place,
            renewed=renewed,
            unanswered=recording.unanswered,
            stale=stale,
            refused=recording.refused,
            silent=[folded.line.id for folded in recording.folded if folded.silent],
            fills=Update.CHANGED if update is Update.MISSING else Update.ALL,
        )
        for place, (recording, renewed, stale) in zip(places, made, strict=True)
    ]


def of_session(session: Session) -> tuple[list[str], bool]:
    """Write what a run of pytest recorded; return what there is to say of it, and whether anything was written."""
    if session.run is None or session.settings.update_golden is None:
        return [], False
    wrote = record(
        session.store(),
        session.run,
        root=session.root,
        update=Update(session.settings.update_golden),
        mask=session.mask,
        secrets=session.settings.key_variables,
        folders=folders_of(session.root),
        plugin=session.version,
    )
    return accepted_by(wrote), any(written.renewed.wrote for written in wrote)


def folders_of(root: Path) -> list[str]:
    """Return the folders of this machine that nobody else should read of, as texts have them."""
    with contextlib.suppress(RuntimeError):  # an account without a home
        return [str(folder) for folder in (root, Path.home()) if len(folder.parts) > 1]
    return [str(root)]


def accepted_by(wrote: Sequence[Written]) -> list[str]:
    """Return what a run says of the golden answers it wrote, and how to accept them; nothing where nothing is new."""
    lines = [f"golden: {'wrote ' if written.renewed.wrote else ''}{written.sentence()}" for written in wrote]
    if any(written.renewed.wrote for written in wrote):
        lines.append(
            "golden: this run fails because it wrote answers that nobody has seen. Look at them (llmparity golden show "
            "ENGINE; in git: git add -N golden && git diff golden), commit them, and "
            "run again: what then answers as recorded is not written"
        )
    return lines
