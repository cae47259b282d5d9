"""What a run wrote down of its gathering: judging, replay and reports read it, and ask nobody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.sample import from_json, to_json
from pytest_llmparity.store.runs import GATHERED, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """The state of one run.

    ``cases`` are the ids it was restricted to, ``incomplete`` says which hard stop left something out, ``requests`` and
    ``retries`` count what was sent, ``notes`` are for the reader. ``guard`` is the fingerprint of the lock file engines
    were held against. ``open``: a sequential run that more prompts could settle.
    """

    engines: Mapping[str, EngineRecord] = field(default_factory=dict)
    baseline: str | None = None
    cases: tuple[str, ...] = ()
    incomplete: str | None = None
    requests: int = 0
    retries: int = 0
    notes: tuple[str, ...] = ()
    guard: str = ""
    open: bool = False


def read_state(store: Store, run: str) -> RunState | None:
    """Return the state of a run, ``None`` of one that was interrupted while gathering."""
    document = store.document(run, GATHERED)
    return None if document is None else state_of(document)


def state_of(document: Mapping[str, Any]) -> RunState:
    """Return the state that stands in a document of the store; older versions wrote down less."""
    return from_json(RunState, document)


def write_state(store: Store, run: str, state: RunState) -> None:
    """Write down that a run was gathered, and with it what there is to say of that."""
    store.put_document(run, GATHERED, to_json(state))
