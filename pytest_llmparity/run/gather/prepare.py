"""One engine before its first prompt: what it can do, whether its routes agree, and every request in its words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_llmparity.core.errors import KeeperError, StoreError, told
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.sample import WireRequest
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.gather.requests import narrowed, requests_by_case
from pytest_llmparity.run.judge.evidence import pointless
from pytest_llmparity.run.plan import Unit
from pytest_llmparity.run.probe.preflight import compare_routes, learn, remarks, some_requests, wanted
from pytest_llmparity.store.runs import Store

UNPROVEN = "repetition_penalty"
"""The one neutral value left out of requests that could change a greedy answer where a server's default is another."""

Wires = Mapping[str, Mapping[str, WireRequest]]
"""Requests in an engine's words, by the key of their unit and their case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What is known of an engine now, the requests it can be sent, and what the reader should know."""

    record: EngineRecord
    wires: Wires
    notes: tuple[str, ...] = ()


def prepare(
    adapter: Adapter,
    record: EngineRecord,
    units: Sequence[Unit],
    *,
    asked: bool,
    store: Store,
    version: str,
    fresh: bool,
    take: Callable[[], bool],
) -> Prepared:
    """Find out what a server does with what it will be sent, and put every request into its words.

    Nothing is sent unless it will be ``asked`` something. ``version`` is this package's, ``fresh`` forgets what earlier
    runs found out, ``take`` says before each request whether it may be sent. What goes wrong is the record's error.
    """
    notes: list[str] = []
    try:
        learnt = learn(
            adapter,
            record.identity,
            names=wanted(units, context=record.context_length) if asked else (),
            store=store,
            version=version,
            fresh=fresh,
            take=take,
        )
        notes += remarks(adapter, learnt)
        record = dataclasses.replace(record, declares=learnt.declares, capabilities=learnt.capabilities)
        if asked:
            record = _with_routes(adapter, record, units, take=take, say=notes.append)
        record, wires = _worded(adapter, record, units)
    except (StoreError, KeeperError):
        raise
    except Exception as error:  # noqa: BLE001 - one engine's trouble is not the run's, whatever it is
        record, wires = dataclasses.replace(record, error=told(error, record.name)), {}
    return Prepared(record=record, wires=wires, notes=tuple(notes))


def first_words(adapter: Adapter, record: EngineRecord, units: Sequence[Unit]) -> EngineRecord:
    """Return the record with its model and the units its route has no words for, known before anything is sent."""
    try:
        record = dataclasses.replace(record, model=record.model or adapter.model)
        if record.incomparable:
            return record
        missing = {unit.key: _wordless(adapter, unit) for unit in units}
    except Exception as error:  # noqa: BLE001 - one engine's trouble is not the run's, whatever it is
        return dataclasses.replace(record, error=told(error, record.name))
    return dataclasses.replace(record, refused={key: why for key, why in missing.items() if why is not None})


def _wordless(adapter: Adapter, unit: Unit) -> str | None:
    """Say why no case of a unit can be put into an engine's words, ``None`` where one can."""
    why: str | None = None
    for case in unit.prompts.cases:
        wires, refused = requests_by_case(adapter, narrowed(unit, [case]))
        if wires:
            return None
        why = why or refused[case.id]
    return why


def _with_routes(
    adapter: Adapter,
    record: EngineRecord,
    units: Sequence[Unit],
    *,
    take: Callable[[], bool],
    say: Callable[[str], None],
) -> EngineRecord:
    """Hold the engine's routes against each other with some of the cases that can be judged on it."""
    judged = [(unit, pointless(record, unit)) for unit in units]
    able = [narrowed(unit, (c for c in unit.prompts.cases if c.id not in lacks)) for unit, lacks in judged]
    able = [unit for unit in able if unit.prompts.cases]
    routes = compare_routes(adapter, some_requests(able), take=take, say=say) if able else None
    if routes is not None:
        alike = f"{adapter.name}: its {routes.measured} and {routes.other} routes answer {routes.cases} cases alike"
        say(routes.sentence(adapter.name) or alike)
    return dataclasses.replace(record, route_check=routes)


def _worded(adapter: Adapter, record: EngineRecord, units: Sequence[Unit]) -> tuple[EngineRecord, Wires]:
    """Put every request into the engine's words before the first one is sent; the record says what is not asked.

    That is what the route has no words for, and what no check could judge for want of what it needs: a unit where
    that holds for all of its cases, else the cases.
    """
    worded: dict[str, Mapping[str, WireRequest]] = {}
    refused: dict[str, str] = {}
    left_out: dict[str, str] = {}
    unasked: dict[str, Mapping[str, str]] = {}
    for unit in units:
        wires, no_words = requests_by_case(adapter, unit)
        lacks = pointless(record, unit)
        wires = {case: wire for case, wire in wires.items() if case not in lacks}
        missing = {**no_words, **lacks}
        if wires:
            worded[unit.key] = wires
            unasked |= {unit.key: missing} if missing else {}
        elif len(lacks) == len(unit.prompts.cases):
            left_out[unit.key] = next(iter(lacks.values()))
        else:
            refused[unit.key] = next(why for case, why in missing.items() if case not in lacks)
    return dataclasses.replace(record, refused=refused, left_out=left_out, unasked=unasked), worded


def unsent_fields(name: str, wires: Wires) -> Iterator[str]:
    """Yield what the reader should know of fields that requests leave out."""
    omitted = {field for by_case in wires.values() for wire in by_case.values() for field in wire.omitted}
    if UNPROVEN in omitted:
        yield (
            f"{name}: {UNPROVEN} was not sent, this kind of engine has no field for it; a server whose default is not "
            "1 answers differently"
        )
