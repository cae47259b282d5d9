"""What the stored runs came to, as a history tells it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from pytest_llmparity.core.errors import StoreError
from pytest_llmparity.core.history.entries import Entry, entry_of, in_order
from pytest_llmparity.core.identity.record import RunRecord
from pytest_llmparity.core.sample import from_json, to_json
from pytest_llmparity.core.words.masking import Mask
from pytest_llmparity.run.judge.recorded import REPORTED, Reported
from pytest_llmparity.run.ledger import MERGED, RunState, read_state
from pytest_llmparity.settings.specification import Settings
from pytest_llmparity.store import history as files
from pytest_llmparity.store.runs import JUDGED, RunInfo, Store

HISTORY: Final = "history"
"""Name of a run's document that has what a history keeps of it."""


def write_down(store: Store, entry: Entry) -> None:
    """Write down what a run came to, so that its history is read without its answers."""
    store.put_document(entry.run, HISTORY, to_json(entry))


def of_store(store: Store) -> tuple[list[Entry], list[str]]:
    """Return every run that was judged to its end, the oldest first, and a sentence for each that cannot be read.

    Of runs that an older version judged no latency is known.
    """
    entries, damaged = [], []
    for info in store.runs():
        try:
            entry = _entry(store, info)
        except StoreError as error:
            damaged.append(str(error))
        else:
            entries += [] if entry is None else [entry]
    return entries, damaged


def _entry(store: Store, info: RunInfo) -> Entry | None:
    """Return the entry of one run, ``None`` where it was not judged to its end."""
    if (entry := store.document(info.id, HISTORY, Entry)) is not None:
        return entry
    state, reported = read_state(store, info.id), store.document(info.id, REPORTED, Reported)
    if state is None or reported is None or state.shard or state.portion:
        return None
    record = RunRecord(
        run=info.id,
        version=info.version,
        engines=tuple(state.engines.values()),
        verdicts=reported.verdicts,
        errors={test: why for test, why in reported.tests.items() if why},
    )
    return entry_of(record)


def up_to(store: Store, record: RunRecord, *, kept: Path | None) -> list[Entry]:
    """Return the runs that are stored or ``kept`` in a file up to this one, which is the last, the oldest first.

    A stored one that cannot be read is left out: ``llmparity history`` names it.
    """
    now = entry_of(record)
    runs = in_order([] if kept is None else files.read(kept), of_store(store)[0], [now])
    return runs[: runs.index(now) + 1]


def judges_first(store: Callable[[], Store], settings: Settings, run: str | None) -> bool:
    """Whether a session is the one that judges its run: it gathered it, or its shards were put together."""
    if settings.mode == "live" or run is None:
        return settings.mode == "live"
    return store().has_document(run, MERGED) and not store().has_document(run, JUDGED)


def add_to_file(store: Callable[[], Store], record: RunRecord, settings: Settings, mask: Mask) -> Path | None:
    """Add a run to the file that the settings name; return the file, ``None`` where it is not added.

    A replay, single cases and a shard are no run of their own; shards that were put together are one, which is judged
    by a replay. A portion of the prompts is no run of the whole sets, whose figures would seem to have changed. Raises
    as ``store.history.add`` does.
    """
    path = settings.history
    if path is None or settings.cases or settings.shard is not None or not record.run:
        return None
    if (read_state(store(), record.run) or RunState()).portion:
        return None
    if settings.mode != "live" and not store().has_document(record.run, MERGED):
        return None
    files.add(path, from_json(Entry, mask.value(to_json(entry_of(record)))))
    return path
