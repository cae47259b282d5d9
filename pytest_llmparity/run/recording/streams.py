"""A run whose answers were noted becomes a recording: who answered is read from its store."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from pytest_llmparity.core.errors import RecordingError
from pytest_llmparity.core.golden.records import Told, lock_hash
from pytest_llmparity.core.recording import FORMAT, Exchanged, Header, Recorded, refuse_private
from pytest_llmparity.core.sample import Phase, Sample, to_json
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.masking import Mask
from pytest_llmparity.run.golden.requests import engines_in
from pytest_llmparity.run.ledger import read_state
from pytest_llmparity.run.recording.writing import folders_of
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.store import recordings
from pytest_llmparity.store.runs import Store

_BUSY: Final = 429
"""Status of a server that wants to be asked later."""


def recorded(
    store: Store, run: str, spec: EngineSpec, exchanges: Sequence[Exchanged], *, plugin: str, today: datetime.date
) -> Recorded:
    """Return the recording of an engine; ``RecordingError`` says why a run came to none."""
    state, (locked, _) = read_state(store, run), engines_in(store, run)
    record = None if state is None else state.engines.get(spec.name)
    if record is None:
        raise RecordingError(f"run {run} was interrupted while gathering, so nothing is recorded; run it once more")
    if record.unusable is not None or spec.name not in locked:
        why = record.unusable or "nothing is known of it"
        raise RecordingError(f"{spec.name} cannot be recorded: {explain.plain(why)}")
    assert state is not None
    if state.no_whole:
        raise RecordingError(f"run {run} is no whole run: {state.no_whole}; nothing is recorded")
    if not exchanges:
        raise RecordingError(
            f"{spec.name} was asked nothing, so there is nothing to record: no selected test has a parity marker with "
            "prompts, or all of them were skipped"
        )
    if missing := unanswered(store.get(run, spec.name), exchanges):
        raise RecordingError(
            f"{explain.count(len(missing), 'case')} of {spec.name} had no answer ({explain.first_names(missing)}), so "
            "nothing is recorded; run it once more"
        )
    engine = locked[spec.name]
    model = next((str(each.request["model"]) for each in exchanges if each.request.get("model")), record.model or "")
    can = {
        name: value for name, value in to_json(record.capabilities).items() if name != "probed" and value is not None
    }
    header = Header(
        format=FORMAT,
        engine=record.name,
        kind=record.kind,
        version=record.version,
        model=model,
        route=spec.route,
        api=spec.api,
        context_length=spec.context_length,
        lock=lock_hash(engine),
        recorded=today.isoformat(),
        exchanges=len(exchanges),
        plugin=plugin,
        identity={name: Told(value=fact.value, source=fact.source) for name, fact in sorted(engine.identity.items())},
        launch=dict(engine.launch),
        capabilities=can,
    )
    return Recorded(header=header, exchanges=exchanges)


def unanswered(samples: Iterable[Sample], exchanges: Iterable[Exchanged]) -> list[str]:
    """Return the cases one of whose requests got no answer; a refusal is one, that of a busy server is not.

    Of what was gathered the last request counts: those before it are earlier attempts, or earlier turns.
    """
    last = {_place(each): each.status for each in exchanges}
    timed = {each.case for each in exchanges if each.phase is Phase.TIMED and _answers(each.status)}
    failed = (sample for sample in samples if sample.failure is not None)
    missing = (
        sample.case
        for sample in failed
        if not (sample.case in timed if sample.phase is Phase.TIMED else _answers(last.get(_place(sample), 0)))
    )
    return list(dict.fromkeys(missing))


def _place(of: Sample | Exchanged) -> tuple[str, Phase, int, int]:
    return of.case, of.phase, of.repeat, of.concurrency


def _answers(status: int) -> bool:
    """Whether a status says that the server answered, be it with a refusal."""
    return 0 < status < 500 and status != _BUSY


def write(path: Path, made: Recorded, *, root: Path, mask: Mask, secrets: Collection[str]) -> str:
    """Write a recording where it holds nothing that has no place in it; return what was written, in words."""
    refuse_private(made, where=recordings.named(path), mask=mask, variables=secrets, folders=folders_of(root))
    recordings.write(path, made)
    timed = sum(each.phase.value == "timed" for each in made.exchanges)
    answers = explain.count(len(made.exchanges), "answer")
    of_them = f", {timed} of them timed" if timed else ""
    return f"{recordings.named(path)}: {answers} of {made.header.whose}{of_them}"
