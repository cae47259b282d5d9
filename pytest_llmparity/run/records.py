"""The record of one engine, begun with its configuration, filled with what the server says; with it the adapter."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_llmparity.core.identity.pins import unlike
from pytest_llmparity.core.identity.quantization import normalise
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.sample import Identity
from pytest_llmparity.core.words.masking import Mask
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.settings.specification import EngineSpec

PROVEN: Final = ({"quantization", "digest"}, {"version", "build"})
"""What a server must tell of its weights and of its program before it counts as the one asked earlier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engaged:
    """One engine as this run found it; ``adapter`` is ``None`` when the record's ``error`` says why it is of no use.

    ``further`` ask its replicas but the first, where it was started several times.
    """

    record: EngineRecord
    adapter: Adapter | None = None
    further: tuple[Adapter, ...] = ()

    @property
    def replicas(self) -> tuple[Adapter, ...]:
        """What asks each replica; of an engine that is there once, itself."""
        return () if self.adapter is None else (self.adapter, *self.further)


def record_of(
    spec: EngineSpec, *, adapter: Adapter | None = None, identity: Identity | None = None, baseline: str | None = None
) -> EngineRecord:
    """Return the record of an engine, known by its configuration and, once it is there, by what its server says.

    The quantisation is what server or file said, else the pinned one, normalised. ``baseline`` names the run's.
    """
    identity = identity or Identity()
    quantization = identity.get("quantization") or spec.pin.get("quantization")
    model = spec.model or identity.get("model")
    return EngineRecord(
        name=spec.name,
        kind=_kind(spec) if adapter is None else adapter.kind,
        model=None if model is None else str(model),
        address="" if adapter is None else adapter.base_url,
        launch=spec.launch if spec.recording is None else "replay",
        golden=spec.golden,
        recording="" if spec.recording is None else spec.recording.stem,
        pace=spec.pace,
        route=spec.route,
        baseline=spec.name == baseline,
        spec_hash=spec.spec_hash,
        quantization=None if quantization is None else normalise(str(quantization)),
        context_length=context_of(spec, identity),
        identity=identity,
    )


def _kind(spec: EngineSpec) -> str:
    """Return the kind of an engine by its configuration; of golden answers, whose they are."""
    return spec.kind or ("unknown" if spec.golden is None else f"answers of {spec.golden}")


def context_of(spec: EngineSpec, identity: Identity) -> int | None:
    """Return the tokens one request gets, as the server says, else as configured; ``None`` when nobody knows."""
    context = identity.get("context_length")
    return context if isinstance(context, int) else spec.context_length


def proven(identity: Identity) -> bool:
    """Tell whether a server says enough of its weights and its program to be known again; a name proves neither."""
    return all(names & identity.facts.keys() for names in PROVEN)


def masked(records: Iterable[EngineRecord], mask: Mask, baseline: str | None) -> dict[str, EngineRecord]:
    """Return records of engines as they may be written down, by name, with the mark of the ``baseline``."""
    return {
        record.name: dataclasses.replace(
            record,
            baseline=record.name == baseline,
            identity=mask.identity(record.identity),
            error=record.error and mask.text(record.error),
            incomparable=record.incomparable and mask.text(record.incomparable),
            notes=tuple(map(mask.text, record.notes)),
        )
        for record in records
    }


def together(replicas: Sequence[Engaged]) -> Engaged:
    """Return an engine of several replicas: of no use where one of them is not, or is another engine than the first."""
    first, *others = replicas
    record = first.record
    for each in others:
        name = each.record.name
        told = list(each.record.notes)
        if record.error is None and each.record.error is None:
            other, remarks = unlike(record.identity, each.record.identity)
            two = f"{record.name}: its replicas are two engines: of {record.name} and {name}, {'; '.join(other)}"
            record = dataclasses.replace(record, incomparable=record.incomparable or (two if other else None))
            told += [f"of {record.name} and {name}, {remark}" for remark in remarks]
        record = dataclasses.replace(
            record,
            error=record.error or each.record.error,
            incomparable=record.incomparable or each.record.incomparable,
            notes=(*record.notes, *told),
        )
    further = tuple(each.adapter for each in others if each.adapter is not None)
    return Engaged(record=record, adapter=None if record.error else first.adapter, further=further)
