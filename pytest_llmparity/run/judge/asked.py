"""Whose question an answer of a run is: test, prompt set, messages. Kept with the run, so that any process can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from pytest_llmparity.core.identity.record import SampleOrigin
from pytest_llmparity.core.right.expected import kept
from pytest_llmparity.core.sample import Phase, Sample, to_json
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.run.plan import Declaration, unit_of, wires_name
from pytest_llmparity.run.timed.phase import span_of
from pytest_llmparity.store.runs import Store

ASKED: Final = "asked"
"""Name of the run's note that holds what its tests ask."""


class _Expected(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a case says of a right answer, as ``core.right.expected.kept`` writes it."""

    answer: str | None = None
    tool: str | None = None
    contains: tuple[str, ...] = ()


class AskedCase(msgspec.Struct, frozen=True, kw_only=True):
    """One case of a unit; older versions did not note all of it."""

    messages: Sequence[Mapping[str, Any]] | None = None
    prompt: str | None = None
    tags: tuple[str, ...] = ()
    group: str = ""
    expect: _Expected = _Expected()


class AskedUnit(msgspec.Struct, frozen=True, kw_only=True):
    """What the tests of one unit ask."""

    tests: tuple[str, ...]
    prompt_set: str
    concurrency: int
    cases: Mapping[str, AskedCase]


_JUDGED: Final = (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)


def asked_by(declarations: Iterable[Declaration], *, only: Sequence[str] = ()) -> dict[str, Any]:
    """Return, by the key of each unit, the tests that ask it, its prompt set and every case's prompt; JSON builtins."""
    units: dict[str, Any] = {}
    for declaration in declarations:
        unit = unit_of(declaration, only=only)
        cases = {
            case.id: {
                "messages": to_json(case.messages),
                "prompt": case.prompt,
                "tags": list(case.tags),
                "group": case.group,
                "expect": kept(case.expect),
            }
            for case in unit.prompts.cases
        }
        asked = {"tests": [], "prompt_set": unit.prompts.name, "concurrency": unit.concurrency, "cases": cases}
        units.setdefault(unit.key, asked)["tests"].append(declaration.test)
    return units


def tests_of(store: Store, run: str) -> list[str]:
    """Return the tests that a run asked for, each once, in their order."""
    return list(dict.fromkeys(test for unit in units_of(store, run).values() for test in unit.tests))


def units_of(store: Store, run: str) -> Mapping[str, AskedUnit]:
    """Return what a run asked by the keys of its units; nothing where nobody noted it (an older version stored it)."""
    return store.document(run, ASKED, dict[str, AskedUnit]) or {}


def origins(
    store: Store, run: str, engines: Iterable[str], verdicts: Iterable[Verdict]
) -> Callable[[Sample], SampleOrigin]:
    """Return a function that says of a sample of this run whose it is; ``verdicts`` are those the run came to."""
    units = units_of(store, run)
    sent: dict[tuple[str, str, str], list[str]] = {}
    timed: dict[str, list[tuple[range, str]]] = {}
    for engine in engines:
        for key in units:
            for case, sha in (store.document(run, wires_name(engine, key), dict[str, str]) or {}).items():
                sent.setdefault((engine, case, sha), []).append(key)
            span = span_of(store, run, engine, key)
            if span is not None:
                timed.setdefault(engine, []).append((range(span.first, span.first + span.count), key))
    judged = {(v.test, v.kind.startswith("latency.")) for v in verdicts if v.outcome in _JUDGED}

    def keys(sample: Sample) -> list[str]:
        if sample.phase is Phase.TIMED:
            return [key for places, key in timed.get(sample.engine, ()) if sample.repeat in places]
        alone = sample.phase in (Phase.COLD, Phase.WARM)
        asked = sent.get((sample.engine, sample.case, sample.request_sha256), ())
        return [key for key in asked if alone or units[key].concurrency == sample.concurrency]

    def origin(sample: Sample) -> SampleOrigin:
        asked = [units[key] for key in keys(sample) if sample.case in units[key].cases]
        if not asked:
            return SampleOrigin()
        tests = tuple(dict.fromkeys(test for unit in asked for test in unit.tests))
        counts = sample.phase in (Phase.MAIN, Phase.TIMED)
        case = asked[0].cases[sample.case]
        return SampleOrigin(
            tests=tests,
            prompt_sets=tuple(dict.fromkeys(unit.prompt_set for unit in asked)),
            messages=case.messages,
            prompt=case.prompt,
            tags=case.tags,
            group=case.group,
            expect=msgspec.to_builtins(case.expect),
            judged=counts and any((test, sample.phase is Phase.TIMED) in judged for test in tests),
        )

    return origin
