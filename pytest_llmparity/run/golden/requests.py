"""What a run notes of its requests and engines, so that its answers can become a golden in any process, any day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from pytest_llmparity.core.diagnosis.layers import response_schema
from pytest_llmparity.core.golden.records import Parameters, Wanted, set_of, short, wanted
from pytest_llmparity.core.identity.lock import Locked
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import JsonObject, JsonValue, to_json
from pytest_llmparity.run.plan import Declaration, unit_of
from pytest_llmparity.store.database import readable
from pytest_llmparity.store.runs import Store

REQUESTS: Final = "requests"
"""Name of the run's note that has what was asked, in no engine's words."""
SPARED: Final = "requests of skipped tests"
"""Name of the run's note that has what tests ask that were skipped, whose golden answers are not left over."""
LOCKED: Final = "locked"
"""Name of the run's note that has its engines as the lock would keep them, and the names of its secrets."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What one unit asked of every case, of which set it is, and how.

    ``schemas`` says by case which schema its answer has to fit.
    """

    set: str
    file: str
    concurrency: int
    sampling: Parameters
    cases: Mapping[str, Wanted]
    schemas: Mapping[str, Mapping[str, JsonValue]]


class _Unit(msgspec.Struct, frozen=True, kw_only=True):
    """One unit as the document has it."""

    set: str
    file: str
    concurrency: int
    sampling: Parameters
    cases: Mapping[str, tuple[str, str, str]]


class _Requests(msgspec.Struct, frozen=True, kw_only=True):
    """The document of what was asked; :func:`requests_document` writes it."""

    units: Mapping[str, _Unit]
    schemas: Mapping[str, Mapping[str, Any]]
    partly: bool = False


class _EnginesDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The document of the engines; :func:`engines_document` writes it."""

    engines: Mapping[str, Locked] = {}
    secrets: Sequence[str] = ()


def requests_document(
    declarations: Iterable[Declaration], *, only: Sequence[str] = (), partly: bool = False
) -> JsonObject:
    """Return what the tests of a run ask, by the keys of its units; a schema of many cases stands there once.

    ``partly`` says that there are other tests, which were not selected.
    """
    units: JsonObject = {}
    schemas: JsonObject = {}
    for declaration in declarations:
        unit = unit_of(declaration, only=only)
        cases: JsonObject = {}
        for case in unit.prompts.cases:
            hashes = wanted(case.request(unit.sampling))
            schema = _schema(case)
            number = "" if schema is None else short(schema)
            if schema is not None:
                schemas[number] = to_json(schema)
            cases[case.id] = [hashes.prompt, hashes.sampling, number]
        units[unit.key] = {
            "set": set_of(unit.prompts.name),
            "file": unit.prompts.name,
            "concurrency": unit.concurrency,
            "sampling": to_json(unit.sampling),
            "cases": cases,
        }
    return {"units": units, "schemas": schemas, "partly": partly}


def partly_asked(store: Store, run: str) -> bool:
    """Whether a run noted that not all of its tests were selected."""
    asked = store.document(run, REQUESTS, _Requests)
    return asked is not None and asked.partly


def asked_in(store: Store, run: str, *, document: str = REQUESTS) -> dict[str, Asked] | None:
    """Return what a run asked by the keys of its units, ``None`` where nobody noted it (an older version stored it).

    ``document`` is :data:`SPARED` for what its skipped tests would have asked.
    """
    asked = store.document(run, document, _Requests)
    if asked is None:
        return None
    with readable(run, document):
        return {
            key: Asked(
                set=unit.set,
                file=unit.file,
                concurrency=unit.concurrency,
                sampling=unit.sampling,
                cases={case: Wanted(prompt=p, sampling=s) for case, (p, s, _) in unit.cases.items()},
                schemas={case: asked.schemas[number] for case, (_, _, number) in unit.cases.items() if number},
            )
            for key, unit in asked.units.items()
        }


def engines_document(engines: Mapping[str, Locked], secrets: Iterable[str]) -> JsonObject:
    """Return the engines of a run as the lock would keep them, and the names of its secrets."""
    return {"engines": {name: to_json(locked) for name, locked in engines.items()}, "secrets": list(secrets)}


def engines_in(store: Store, run: str) -> tuple[dict[str, Locked], list[str]]:
    """Return the engines of a run as the lock would keep them, and the names of the secrets it masked."""
    written = store.document(run, LOCKED, _EnginesDocument) or _EnginesDocument()
    return dict(written.engines), list(written.secrets)


def _schema(case: Case) -> Mapping[str, JsonValue] | None:
    expected = None if case.expect is None else case.expect.schema
    return response_schema(case) or (expected if isinstance(expected, Mapping) else None)
