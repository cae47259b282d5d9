"""What will be asked of every engine, in which order and in which words: pure, the same in every process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_llmparity.core import sizes
from pytest_llmparity.core.checks.drift.floor import MOST, fewest, reached
from pytest_llmparity.core.errors import ParameterNotHonoured, UnsupportedParameter, reason_of
from pytest_llmparity.core.evidence import FLOOR_PHASES, Check, Needs, floor_stages, union
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.ports import AdapterProtocol
from pytest_llmparity.core.prompts import Case, PromptSet, unseen
from pytest_llmparity.core.prompts.portion import ALL, Portion
from pytest_llmparity.core.recorded.playing import Purpose
from pytest_llmparity.core.sample import Phase, Request, Sampling, WireRequest, to_json
from pytest_llmparity.core.shards import Shard
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.application import Application

PHASE_ORDER = (Phase.COLD, Phase.MAIN, Phase.WARM, Phase.PARALLEL)
"""Cold before a prompt was asked at all, so that no cache holds it; warm and parallel after."""


Wires = Mapping[str, Mapping[str, WireRequest]]
"""Requests in an engine's words, by the key of their unit and their case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What one test declares in its marker: one prompt set, its checks and how it is asked.

    With an ``application`` the prompts are its inputs, and what is asked of engines is its own affair.
    """

    test: str
    prompts: PromptSet
    checks: tuple[Check, ...]
    sampling: Sampling
    concurrency: int
    repeats: int = 1
    application: Application | None = None

    def needs(self) -> Needs:
        """Return the union of what the checks need."""
        return union([check.needs() for check in self.checks])


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a shard asks of a unit beside the answers of its own cases.

    ``floor`` are those of them that measure the noise floor, in their order. ``timed``: the timed phase is this
    shard's, for times of several machines are no times of one engine.
    """

    floor: tuple[str, ...]
    timed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One prompt set asked in one way: tests that ask the same thing share its samples.

    ``checks`` are those of all of them, none where one test only reads the answers. ``part`` is there where a shard
    asks its own of the cases. With an ``application`` the cases are its inputs.
    """

    prompts: PromptSet
    sampling: Sampling
    concurrency: int
    repeats: int
    needs: Needs
    checks: tuple[Check, ...] = ()
    part: Part | None = None
    application: Application | None = None

    @property
    def key(self) -> str:
        """Stable text that names the unit, the same in every process."""
        return f"{self.prompts.digest}/{self._way}"

    @property
    def series(self) -> str:
        """Text that stays the same when prompts are added to the file."""
        return f"{self.prompts.name}/{self._way}"

    @property
    def floor_grows(self) -> bool:
        """Whether the noise floor is asked of more cases where fewer do not show it to be small.

        Sampled answers always part, and of one group of prompts nothing can be shown.
        """
        one_group = self.prompts.groups == 1 < len(self.prompts.cases)
        default = self.sampling.temperature
        greedy = all(case.sampling.get("temperature", default) == 0 for case in self.prompts.cases)
        return bool(self.needs.floor_held) and greedy and not one_group

    @property
    def longest(self) -> int:
        """The most tokens that an answer may have."""
        default = self.sampling.max_tokens
        return max((int(case.sampling.get("max_tokens", default)) for case in self.prompts.cases), default=default)

    @property
    def repeated(self) -> tuple[Case, ...]:
        """The cases in the order in which they measure the noise floor: all of them, of a shard those it asks so."""
        if self.part is None:
            return floor_order(self.prompts)
        return tuple(self.prompts.by_id[case] for case in self.part.floor if case in self.prompts.by_id)

    @property
    def _way(self) -> str:
        cached = "/cached" if self.needs.timed_cached else ""  # timed in another way, so another unit
        called = "" if self.application is None else f"/{self.application.test}"
        return f"{json.dumps(to_json(self.sampling), sort_keys=True)}/{self.concurrency}{cached}{called}"


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
    """Units in seeded order. Every engine gets the same prompts, first those that measure its noise floor.

    How many these are depends on its answers, and so may which prompts are neighbours in a batch. Prompt files that
    hold the same request under the same case id at one concurrency share that case's answer: the unit asked last writes
    it. Which prompts were its neighbours in a batch then depends on which gates are selected.
    """

    units: tuple[Unit, ...]
    shard: Shard | None = None
    whole: tuple[Unit, ...] = ()
    portion: Portion = ALL

    @property
    def requests(self) -> tuple[int, int]:
        """Requests per engine, the timed phase included: of one that repeats itself, and the most."""
        spans = [requests_of_unit(unit) for unit in self.units]
        return sum(least for least, _ in spans), sum(most for _, most in spans)

    @property
    def tokens(self) -> int:
        """Upper limit of generated tokens per engine: the most requests times ``max_tokens``."""
        asked = [unit for unit in self.units if unit.application is None]  # what applications ask is their own affair
        return sum(
            requests_of_unit(unit)[1] * unit.sampling.max_tokens * max(1, *(case.n for case in unit.prompts.cases))
            for unit in asked
        )

    @property
    def timed(self) -> tuple[Unit, ...]:
        """Units with a latency check."""
        return tuple(unit for unit in self.units if unit.needs.timed and (unit.part is None or unit.part.timed))

    def digest(self, engines: Sequence[str], *, sequential: bool = False) -> str:
        """Return a hash of all that makes two runs the same gathering; ``engines`` are spec hashes in order.

        Which cases there are is no part of it when the run is ``sequential``: it may be extended, but not beyond the
        ``portion`` of the prompts that it asks.
        """
        parts = [
            [
                unit.key,
                unit.repeats,
                *([] if unit.application is None else [unit.application.code]),
                sorted(unit.needs.phases),
                unit.needs.top_logprobs,
                unit.needs.timed,
                [unit.needs.floor_cases, sorted(unit.needs.floor_held), unit.needs.floor_tokens],
                sorted(case.id for case in unit.prompts.cases),  # ``keep`` leaves the digest that of the whole set
            ]
            for unit in self.units
        ]
        if self.shard is not None:
            parts.append([str(self.shard)])
        if sequential:
            parts = [[unit.series, "sequential", *part[1:-1]] for unit, part in zip(self.units, parts, strict=True)]
            parts.sort(key=json.dumps)
        if self.portion:
            parts.append([str(self.portion)])
        return hashlib.sha256(json.dumps([list(engines), parts]).encode()).hexdigest()


def make_plan(declarations: Sequence[Declaration], *, only: Sequence[str] = (), engines: int = 2) -> Plan:
    """Return what the tests declare, merged. With ``only`` these case ids and the main phase alone (rows, no verdict).

    With one of ``engines`` selected nothing is asked for the sake of comparisons but answers, which a test may read.

    The order of units follows their own digest, so selecting tests with ``-k`` changes neither the order of the units
    that are left nor that of their prompts.
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
    """Return the unit that one test asks; with ``only`` perhaps no case at all, where they are another test's."""
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
        application=declaration.application,
    )


def keep(prompts: PromptSet, ids: Sequence[str]) -> PromptSet:
    """Return the set with the named cases only, in its own order."""
    return dataclasses.replace(prompts, cases=tuple(case for case in prompts.cases if case.id in set(ids)))


def step_of(unit: Unit, phase: Phase, cases: Sequence[Case]) -> Step:
    """Return one phase of a unit with these cases, as many at once as the gate asks, in an order of its own."""
    return Step(
        unit=unit,
        phase=phase,
        concurrency=unit.concurrency,
        cases=shuffled(cases, seed=f"{unit.prompts.digest}/{phase}"),
        repeats=unit.repeats if phase is Phase.MAIN else 1,
    )


def rounds(unit: Unit, order: Sequence[Case]) -> list[list[Step]]:
    """Return the rounds in which the noise floor of an engine is measured, the cases of each taken from ``order``.

    A round asks cases that were not asked before: cold, their answers, warm, parallel. Which of them is the last is
    seen from its answers, see ``core.checks.drift.floor.needs_more``. There is none where nobody needs the floor.
    """
    if not unit.needs.floor:
        return []
    if unit.part is not None:  # whether more are needed is seen when the shards are put together
        return [[step_of(unit, phase, order) for phase in PHASE_ORDER if phase in unit.needs.phases]] if order else []
    ends = floor_stages(min(MOST, len(order)), unit.concurrency)
    return [
        [step_of(unit, phase, order[begin:end]) for phase in PHASE_ORDER if phase in unit.needs.phases]
        for begin, end in zip((0, *ends), ends, strict=False)
    ]


def requests_of_unit(unit: Unit) -> tuple[int, int]:
    """Return how many answers are wanted of an engine that repeats itself, and the most.

    A conversation has one answer at least, and at most as many as it may have turns.
    """
    answers = len(unit.prompts.cases) * unit.repeats
    further = sum(max(0, case.max_turns - 1) for case in unit.prompts.cases) * unit.repeats
    if unit.part is None or unit.part.timed:
        answers += unit.needs.timed
    if not unit.needs.floor:
        return answers, answers + further
    longest = max((case.max_turns for case in unit.prompts.cases), default=0) or 1
    if unit.part is not None:
        floor = len(FLOOR_PHASES) * len(unit.part.floor)
        return answers + floor, answers + further + floor * longest
    least, most = floor_cases(unit)
    return answers + len(FLOOR_PHASES) * least, answers + further + len(FLOOR_PHASES) * most * longest


def floor_cases(unit: Unit) -> tuple[int, int]:
    """Return of how many cases the noise floor of a unit is at least and at most."""
    of_unit = {"cases": len(unit.prompts.cases), "concurrency": unit.concurrency}
    least = fewest(unit.needs, tokens=unit.longest, grows=unit.floor_grows, **of_unit)
    return least, reached(**of_unit)[-1] if unit.floor_grows else least


def floor_order(prompts: PromptSet) -> tuple[Case, ...]:
    """Return all cases as they measure the noise floor: the first ones spread over groups, the same in every run."""
    by_group: dict[str, list[Case]] = defaultdict(list)
    for case in shuffled(prompts.cases, seed=prompts.digest):
        by_group[case.group].append(case)
    order: list[Case] = []
    while len(order) < len(prompts.cases):
        order += [cases.pop() for cases in by_group.values() if cases]
    return tuple(order)


def shuffled(cases: Sequence[Case], *, seed: str) -> tuple[Case, ...]:
    """Return the cases in an order that depends on the seed text alone."""
    order = list(cases)
    random.Random(seed).shuffle(order)  # noqa: S311 - an order, not a secret
    return tuple(order)


# the requests, in the words of one engine -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request to send: which case, in which phase, and its bytes; of a timed one whether a cache may hold it.

    ``own`` is the case's own request where a shorter answer to it is asked for: the answer is filed under that.
    ``turn`` is which one of a conversation it asks for, from 1.
    """

    case: str
    wire: WireRequest
    phase: Phase
    repeat: int
    concurrency: int
    cached: bool = False
    own: WireRequest | None = None
    turn: int = 1

    @property
    def request_sha256(self) -> str:
        """Digest of the case's own request."""
        return (self.own or self.wire).sha256

    @property
    def purpose(self) -> Purpose:
        """What the request is sent for."""
        return Purpose(phase=self.phase, concurrency=self.concurrency, repeat=self.repeat, cached=self.cached)


def jobs_of(step: Step, wires: Mapping[str, WireRequest], shorter: Mapping[str, WireRequest]) -> list[Job]:
    """Return the jobs of one step in the order they are sent; a case without a request is not asked.

    ``shorter`` are the requests by which the noise floor is measured, by the hash of the case's own.
    """
    of_floor = shorter if step.phase in FLOOR_PHASES else {}
    return [
        Job(
            case=case.id,
            wire=of_floor.get(own.sha256, own),
            phase=step.phase,
            repeat=repeat,
            concurrency=step.concurrency,
            own=own if own.sha256 in of_floor else None,
        )
        for repeat in range(step.repeats)
        for case in step.cases
        if (own := wires.get(case.id)) is not None
    ]


def wires_name(engine: str, key: str) -> str:
    """Name of the run's document that says which request of this engine belongs to which case of a unit, by its key."""
    return f"wires/{engine}/{key}"


def wire_of(adapter: Adapter, request: Request, *, stream: bool = True) -> WireRequest:
    """Return a request in the engine's words with the token limit it sets, by which an answer is known to be cut.

    What follows from that limit comes with it: how large an answer can be. A request that says itself whether it is
    streamed is; ``UnsupportedParameter`` where that changes nothing of what is sent.
    """
    if request.streamed is not None:
        stream = request.streamed
        other = adapter.build(request, stream=not stream)
    wire = _limited(adapter.build(request, stream=stream), request)
    if request.streamed is not None and (wire.path, wire.body) == (other.path, other.body):
        raise UnsupportedParameter(
            f"{adapter.name} is sent the same request for case {request.case!r} whether its answer is to be streamed "
            "or not, so there are no two answers to compare",
            engine=adapter.name,
            case=request.case,
        )
    if not request.tool_results:
        return wire
    scripted = json.dumps([wire.sha256, request.tool_results, request.max_turns])
    begins = dataclasses.replace(request, streamed=stream)
    return dataclasses.replace(wire, sha256=hashlib.sha256(scripted.encode()).hexdigest(), begins=begins)


def next_wire(adapter: AdapterProtocol, request: Request) -> WireRequest:
    """Return a later request of a conversation in the engine's words, streamed as its first one was."""
    return _limited(adapter.build(request, stream=request.streamed is not False), request)


def _limited(wire: WireRequest, request: Request) -> WireRequest:
    """Return a request with the token limit that it sets, and how large its answer can be."""
    most = sizes.wire_bytes(request, sent=len(wire.body))
    return dataclasses.replace(wire, max_tokens=request.sampling.max_tokens, answer_bytes=most)


def requests_of(adapter: Adapter, unit: Unit) -> dict[str, WireRequest]:
    """Return the unit's requests in the engine's words, by case.

    Logprobs only grade forks, so an engine that is not known to give them is not asked for any, nor any engine beside
    tools: llama.cpp does not stream the two together. Streams that say nothing of tokens are asked for only where
    their timing counts, because checks hold the prompts' token counts against each other.
    """
    if unit.application is not None:
        return {case.id: unit.application.request(case) for case in unit.prompts.cases}
    return {case.id: worded(adapter, unit, case) for case in unit.prompts.cases}


def request_of(adapter: Adapter, unit: Unit, case: Case, *, prefix: str) -> WireRequest | None:
    """Return one of the unit's requests, streamed, with a prefix before its first text; ``None`` if it has none.

    Of a conversation it is the first one, and of several choices it asks for one: what is timed is one answer.
    """
    first = dataclasses.replace(_request(adapter, unit, case), tool_results={}, max_turns=0, n=0)
    request = unseen.behind(prefix, first)
    return None if request is None else wire_of(adapter, request)


def worded(adapter: Adapter, unit: Unit, case: Case, *, tokens: int | None = None) -> WireRequest:
    """Return one of the unit's requests in the engine's words; ``tokens`` is another limit than its own."""
    request = _request(adapter, unit, case)
    if tokens is not None:
        sampling = dataclasses.replace(request.sampling, max_tokens=tokens)
        request = dataclasses.replace(request, sampling=sampling)
    return wire_of(adapter, request, stream=adapter.counts_in_streams or unit.needs.timed > 0)


def _request(adapter: Adapter, unit: Unit, case: Case) -> Request:
    wanted = unit.needs.top_logprobs if adapter.can.logprobs else None
    return case.request(unit.sampling, top_logprobs=None if case.tools else wanted)


def requests_by_case(adapter: Adapter, unit: Unit) -> tuple[dict[str, WireRequest], dict[str, str]]:
    """Return the requests of a unit that the engine's route has words for, and of the other cases why it has none."""
    wires: dict[str, WireRequest] = {}
    refused: dict[str, str] = {}
    for case in unit.prompts.cases:
        try:
            wires |= requests_of(adapter, narrowed(unit, [case]))
        except (ParameterNotHonoured, UnsupportedParameter) as error:
            refused[case.id] = str(error)
    return wires, refused


def narrowed(unit: Unit, cases: Iterable[Case]) -> Unit:
    """Return the unit, under the same key, with these of its cases alone."""
    return dataclasses.replace(unit, prompts=dataclasses.replace(unit.prompts, cases=tuple(cases)))


def first_words(adapter: Adapter, record: EngineRecord, units: Sequence[Unit]) -> EngineRecord:
    """Return the record with its model and the units its route has no words for, known before anything is sent."""
    try:
        record = dataclasses.replace(record, model=record.model or adapter.model)
        if record.incomparable:
            return record
        missing = {unit.key: _wordless(adapter, unit) for unit in units}
    except Exception as error:  # noqa: BLE001 - one engine's trouble is not the run's, whatever it is
        return dataclasses.replace(record, error=reason_of(error, record.name))
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
