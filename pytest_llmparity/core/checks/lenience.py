"""What was forgiven in answers, counted by engine: a strict reader would trip over it, so a verdict says how often."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping

from pytest_llmparity.core.checks.contract import MOVED, Reading
from pytest_llmparity.core.evidence import Evidence
from pytest_llmparity.core.verdict import READER, Lenience, Verdict


def wrapped(engine: str, readings: Mapping[str, Reading]) -> tuple[Lenience, ...]:
    """Count what stood round the JSON of an engine's answers, and whether they were read all the same."""
    answered = [reading for reading in readings.values() if reading.answered]
    found = Counter((what, reading.parsed) for reading in answered for what in reading.wrapping)
    return tuple(
        Lenience(engine=engine, what=what, count=count, of=len(answered), accepted=accepted)
        for (what, accepted), count in found.items()
    )


def with_notes(verdict: Verdict, evidence: Evidence) -> Verdict:
    """Return the verdict with what the reader put right in the answers it rests on, by engine.

    What a schema check counts itself is not counted again.
    """
    names = [name for name in (verdict.baseline, verdict.engine) if name is not None and name in evidence.engines]
    found = [part for name in names for part in _put_right(name, evidence, of_schema=verdict.kind.startswith("schema"))]
    return dataclasses.replace(verdict, lenience=(*verdict.lenience, *found)) if found else verdict


def _put_right(name: str, evidence: Evidence, *, of_schema: bool) -> Iterable[Lenience]:
    said = evidence.engines[name].answers()
    notes = Counter(note for completion in said.values() for note in dict.fromkeys(completion.normalised))
    for note, count in notes.items():
        if not (of_schema and note.endswith(MOVED)):
            yield Lenience(engine=name, what=f"{READER}: {note}", count=count, of=len(said), accepted=True)
