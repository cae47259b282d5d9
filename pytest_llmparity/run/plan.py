"""What will be asked of every engine, in which order: pure, known at collection, the same in every process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_llmparity.core.evidence import FLOOR_CASES, FLOOR_PHASES, Check, Needs
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Phase, Sampling, to_json

PHASE_ORDER = (Phase.COLD, Phase.MAIN, Phase.WARM, Phase.PARALLEL)
"""Cold before anything else has filled a prompt cache; warm and parallel after (METHODS 7.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What one test declares in its marker: one prompt set, its checks and how it is asked."""

    test: str
    prompts: PromptSet
    checks: tuple[Check, ...]
    sampling: Sampling
    concurrency: int
    repeats: int = 1

    def needs(self) -> Needs:
        """Return the union of what the checks need."""
        return union([check.needs() for check in self.checks])


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One prompt set asked in one way: tests that ask the same thing share its samples.

    ``checks`` are those of all of them, none where one test only reads the answers.
    """

    prompts: PromptSet
    sampling: Sampling
    concurrency: int
    repeats: int
    needs: Needs
    checks: tuple[Check, ...] = ()

    @property
    def key(self) -> str:
        """Stable text that names the unit, the same in every process."""
        return f"{self.prompts.digest}/{self._way}"

    @property
    def series(self) -> str:
        """Text that stays the same when prompts are added to the file."""
        return f"{self.prompts.name}/{self._way}"

    @property
    def _way(self) -> str:
        cached = "/cached" if self.needs.timed_cached else ""  # timed in another way, so another unit
        return f"{json.dumps(to_json(self.sampling), sort_keys=True)}/{self.concurrency}{cached}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One phase of one unit: cases in the order they are sent, at one concurrency."""

    unit: Unit
    phase: Phase
    concurrency: int
    cases: tuple[Case, ...]
    repeats: int

    @property
    def requests(self) -> int:
        """How many answers the step wants from each engine."""
        return len(self.cases) * self.repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Units in seeded order. Every engine gets the same steps in the same order.

    Prompt files that hold the same request under the same case id at one concurrency share that case's answer: the
    unit asked last writes it. Which prompts were its neighbours in a batch then depends on which gates are selected.
    """

    units: tuple[Unit, ...]

    def steps(self) -> Iterator[Step]:
        """Yield the steps one engine goes through while gathering, timed phase apart."""
        for unit in self.units:
            for phase in PHASE_ORDER:
                if phase in unit.needs.phases:
                    yield step_of(unit, phase)

    @property
    def requests(self) -> int:
        """Requests per engine, the timed phase included."""
        return sum(step.requests for step in self.steps()) + sum(unit.needs.timed for unit in self.units)

    @property
    def tokens(self) -> int:
        """Upper limit of generated tokens per engine: requests times ``max_tokens``."""
        gathered = sum(step.requests * step.unit.sampling.max_tokens for step in self.steps())
        return gathered + sum(unit.needs.timed * unit.sampling.max_tokens for unit in self.units)

    @property
    def timed(self) -> tuple[Unit, ...]:
        """Units with a latency check."""
        return tuple(unit for unit in self.units if unit.needs.timed)

    def digest(self, engines: Sequence[str], *, sequential: bool = False) -> str:
        """Hash of everything that makes two runs the same gathering; ``engines`` are spec hashes in order.

        Which cases there are is no part of it when the run is ``sequential``: it may be extended.
        """
        parts = [
            [
                unit.key,
                unit.repeats,
                sorted(unit.needs.phases),
                unit.needs.top_logprobs,
                unit.needs.timed,
                sorted(case.id for case in unit.prompts.cases),  # ``keep`` leaves the digest that of the whole set
            ]
            for unit in self.units
        ]
        if sequential:
            parts = [[unit.series, "sequential", *part[1:-1]] for unit, part in zip(self.units, parts, strict=True)]
            parts.sort(key=json.dumps)
        return hashlib.sha256(json.dumps([list(engines), parts]).encode()).hexdigest()


def union(needs: Sequence[Needs]) -> Needs:
    """Return needs that satisfy all of them; the main phase is always gathered."""
    logprobs = [n.top_logprobs for n in needs if n.top_logprobs is not None]
    return Needs(
        phases=frozenset({Phase.MAIN}).union(*(n.phases for n in needs)),
        top_logprobs=max(logprobs) if logprobs else None,
        timed=max((n.timed for n in needs), default=0),
        timed_relative=any(n.timed_relative for n in needs),
        timed_cached=any(n.timed_cached for n in needs),
        capabilities=frozenset().union(*(n.capabilities for n in needs)),
        judged=any(n.judged for n in needs),
    )


def make_plan(declarations: Sequence[Declaration], *, only: Sequence[str] = (), engines: int = 2) -> Plan:
    """Merge what the tests declare. ``only`` keeps those case ids and gathers the main phase alone (rows, no verdict).

    With one of ``engines`` selected nothing is asked for the sake of comparisons but answers, which a test may read.

    The order of units follows their own digest, so selecting tests with ``-k`` never changes which prompts are
    neighbours in a batch.
    """
    merged: dict[str, Unit] = {}
    for declaration in declarations:
        unit = unit_of(declaration, only=only, engines=engines)
        other = merged.get(unit.key)
        if other is not None:
            unit = dataclasses.replace(
                unit,
                repeats=max(unit.repeats, other.repeats),
                needs=union([unit.needs, other.needs]),
                checks=(*other.checks, *unit.checks) if other.checks and unit.checks else (),
            )
        merged[unit.key] = unit
    ordered = sorted(merged.values(), key=lambda unit: hashlib.sha256(unit.key.encode()).hexdigest())
    return Plan(units=tuple(unit for unit in ordered if unit.prompts.cases))


def unit_of(declaration: Declaration, *, only: Sequence[str] = (), engines: int = 2) -> Unit:
    """Return what one test asks; with ``only`` perhaps no case at all, where they are another test's."""
    needs, prompts = declaration.needs(), declaration.prompts
    if engines == 1 and declaration.checks:
        alone = union([check.needs() for check in declaration.checks if not check.pairwise])
        needs = dataclasses.replace(alone, top_logprobs=needs.top_logprobs)
    if only:
        needs, prompts = Needs(top_logprobs=needs.top_logprobs, judged=False), keep(prompts, only)
    return Unit(
        prompts=prompts,
        sampling=declaration.sampling,
        concurrency=declaration.concurrency,
        repeats=declaration.repeats,
        needs=needs,
        checks=() if only else declaration.checks,
    )


def keep(prompts: PromptSet, ids: Sequence[str]) -> PromptSet:
    """Return the set with the named cases only, in its own order."""
    return dataclasses.replace(prompts, cases=tuple(case for case in prompts.cases if case.id in set(ids)))


def step_of(unit: Unit, phase: Phase, cases: Sequence[Case] | None = None) -> Step:
    """Return one phase of a unit: the floor phases take some cases, one at a time except ``PARALLEL``.

    ``cases`` are asked in place of those that a fixed design would choose.
    """
    if cases is None:
        cases = floor_cases(unit.prompts) if phase in FLOOR_PHASES else unit.prompts.cases
    alone = phase in (Phase.COLD, Phase.WARM)
    return Step(
        unit=unit,
        phase=phase,
        concurrency=1 if alone else unit.concurrency,
        cases=shuffled(cases, seed=f"{unit.prompts.digest}/{phase}"),
        repeats=unit.repeats if phase is Phase.MAIN else 1,
    )


def floor_cases(prompts: PromptSet) -> tuple[Case, ...]:
    """Choose the cases that measure the noise floor: at least 32, spread over groups, the same in every run."""
    by_group: dict[str, list[Case]] = defaultdict(list)
    for case in shuffled(prompts.cases, seed=prompts.digest):
        by_group[case.group].append(case)
    chosen: list[Case] = []
    while len(chosen) < min(FLOOR_CASES, len(prompts.cases)):
        for cases in by_group.values():
            if cases and len(chosen) < FLOOR_CASES:
                chosen.append(cases.pop())
    return tuple(chosen)


def shuffled(cases: Sequence[Case], *, seed: str) -> tuple[Case, ...]:
    """Return the cases in an order that depends on the seed text alone."""
    order = list(cases)
    random.Random(seed).shuffle(order)  # noqa: S311 - an order, not a secret
    return tuple(order)
