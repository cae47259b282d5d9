"""The noise floor of one case is one replica's, also where a replica is lost in the middle of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Completion, Phase, Request, Sample, Sampling
from pytest_llmparity.engines import registry
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.application import Application
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.gather.replicas.engine import EngineAsking, homes_of, own_name
from pytest_llmparity.run.ledger import Allowance, Ledger
from pytest_llmparity.run.parity import EngineHandle
from pytest_llmparity.run.plan import PHASE_ORDER, Job, Unit, step_of, wire_of
from pytest_llmparity.run.sending.lines import Deliver, NodeLost
from pytest_llmparity.run.sending.sender import Ready
from pytest_llmparity.settings.specification import EngineSpec, Settings
from pytest_llmparity.store.runs import Store

CASES = 8
PROMPTS = PromptSet(
    name="p",
    digest="d",
    cases=tuple(Case(id=f"c{at}", group=f"g{at}", prompt=f"question {at}") for at in range(CASES)),
)


class Machine:
    """A line that answers with its own name, and is lost in a phase after some answers."""

    def __init__(self, name: str, text: str, lost: tuple[Phase, int] | None = None) -> None:
        self.name = name
        self.text = text
        self.asked: list[tuple[Phase, str]] = []
        self._lost = lost

    async def send(self, jobs: Sequence[Job], *, concurrency: int, allowance: Allowance, deliver: Deliver) -> int:
        for at, job in enumerate(jobs):
            if self._lost is not None and job.phase is self._lost[0] and at == self._lost[1]:
                raise NodeLost(f"{self.name}: its node is gone")
            self.asked.append((job.phase, job.case))
            deliver([answer(self.name, self.text, job)])
        return 0

    async def aclose(self) -> None:
        """Nothing is open."""


def answer(name: str, text: str, job: Job) -> Sample:
    return Sample(
        engine=name,
        case=job.case,
        phase=job.phase,
        repeat=job.repeat,
        concurrency=job.concurrency,
        request_sha256=job.request_sha256,
        completion=Completion(text=text),
    )


class Machines:
    """In the place of a fleet: the lines to some machines, and those on which an engine is started again."""

    def __init__(self, lines: Sequence[Machine], again: Sequence[Machine]) -> None:
        self._lines = {line.name: line for line in lines}
        self._again = iter(again)
        self.lost_names: set[str] = set()

    def line(self, adapter: Adapter) -> Machine:
        return self._lines[adapter.name]

    def lost(self, adapter: Adapter) -> bool:
        return adapter.name in self.lost_names

    def gone(self, name: str) -> str | None:
        with pytest.raises(RuntimeError, match="no running event loop"):  # on a cluster it waits for another machine
            asyncio.get_running_loop()
        return f"{name}: its node is gone" if name in self.lost_names else None

    def anew(self, name: str) -> Adapter:
        self._lines[name] = next(self._again)
        self.lost_names.discard(name)
        return adapter_of(name)


def adapter_of(name: str) -> Adapter:
    spec = EngineSpec(name=name, kind="openai", model="m")
    return registry.adapter_of(spec)(spec, "http://127.0.0.1:1", {})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / ".llmparity", secrets={}) as opened:
        yield opened


class Run:
    """What came of the noise floor of one engine."""

    def __init__(self, store: Store, *lines: Machine, again: Sequence[Machine] = ()) -> None:
        self.store, self.run = store, store.begin(plan_hash="p", session="s", version="1").id
        self.ledger = Ledger(Settings())
        adapters = [adapter_of(line.name) for line in lines]
        text = check.text(margin=0.05)
        self.unit = Unit(
            prompts=PROMPTS, sampling=Sampling(), concurrency=2, repeats=1, needs=text.needs(), checks=(text,)
        )
        wires = {case.id: wire_of(adapters[0], request_of(case)) for case in PROMPTS.cases}
        self.ready = Ready(adapters[0], {self.unit.key: wires}, further=tuple(adapters[1:]))
        self.fleet = Machines(lines, again)
        self.again = asyncio.run(self._floor())

    async def _floor(self) -> list[Job]:
        asking = EngineAsking(
            "a",
            self.ready,
            run=self.run,
            store=self.store,
            fleet=cast(Fleet, self.fleet),
            ledger=self.ledger,
            watch=None,
            answered=lambda name: None,
            meanwhile=lambda: None,
            another=lambda name: None,
        )
        steps = [step_of(self.unit, phase, PROMPTS.cases) for phase in PHASE_ORDER]
        for step in steps:
            await asking.send(step, floor=True)
        if again := asking.torn(steps):
            for step in steps:
                await asking.send(step, floor=True)
        assert asking.torn(steps) == []
        await asking.aclose()
        return again

    def by_case(self, engine: str = "a") -> dict[str, dict[Phase, str]]:
        """Return who answered each phase of each case."""
        seen: dict[str, dict[Phase, str]] = {case.id: {} for case in PROMPTS.cases}
        for sample in self.store.get(self.run, engine):
            assert sample.completion is not None
            assert sample.phase not in seen[sample.case], "one answer for each"
            seen[sample.case][sample.phase] = sample.completion.text
        return seen


def request_of(case: Case) -> Request:
    messages = ({"role": "user", "content": case.prompt or ""},)
    return Request(case=case.id, messages=messages, sampling=Sampling(max_tokens=8))


@pytest.mark.parametrize("phase", PHASE_ORDER)
@pytest.mark.parametrize("after", [0, 3])
def test_what_a_lost_replica_left_of_a_floor_is_taken_whole_from_one_that_measured_its_own(
    store: Store, phase: Phase, after: int
) -> None:
    first, second = Machine("a", "one"), Machine("a@2", "two", lost=(phase, after))

    run = Run(store, first, second)

    seen = run.by_case()
    homes = homes_of(PROMPTS, 2)
    assert all(set(by) == set(PHASE_ORDER) for by in seen.values())
    assert all(len(set(by.values())) == 1 for by in seen.values()), "the floor of a case is of one replica"
    assert all(set(by.values()) == {"one"} for case, by in seen.items() if homes[case] == 0 or phase is Phase.COLD)
    assert sorted(first.asked) == sorted((phase, case) for phase in PHASE_ORDER for case in PROMPTS.by_id), "each once"
    assert run.by_case(own_name("a", 0)) == {case: dict.fromkeys(PHASE_ORDER, "one") for case in PROMPTS.by_id}


def test_what_a_replica_had_answered_whole_before_it_was_lost_is_kept(store: Store) -> None:
    run = Run(store, Machine("a", "one"), Machine("a@2", "two", lost=(Phase.PARALLEL, 5)))

    kept = [case for case, by in run.by_case().items() if set(by.values()) == {"two"}]
    homes = homes_of(PROMPTS, 2)
    assert kept == [case for case in list(PROMPTS.by_id)[:5] if homes[case] == 1]


@pytest.mark.parametrize("replicas", [1, 2])
def test_where_none_is_left_cases_in_the_middle_of_their_floor_are_asked_anew(store: Store, replicas: int) -> None:
    lines = [Machine("a", "one", lost=(Phase.WARM, 4)), Machine("a@2", "two", lost=(Phase.WARM, 4))][:replicas]

    run = Run(store, *lines, again=[Machine("a", "anew")])

    seen = run.by_case()
    assert all(set(by) == set(PHASE_ORDER) for by in seen.values())
    assert all(len(set(by.values())) == 1 for by in seen.values())
    assert {job.case for job in run.again} == set(PROMPTS.by_id)


@pytest.mark.parametrize(("replicas", "lost_first"), [(2, 3), (1, 3), (1, 0)])
def test_an_application_is_called_again_where_the_machine_of_its_replica_is_gone(
    store: Store, replicas: int, lost_first: int
) -> None:
    """What a call came to while the machine went is no answer, whatever the application made of it."""
    lines = [Machine("a", ""), Machine("a@2", "")][:replicas]
    machines = Machines(lines, [Machine("a", "")])
    calls: list[tuple[str, str]] = []
    dying = lines[-1].name

    def application(case: dict[str, str], engine: EngineHandle) -> str:
        if engine.name == dying and len([name for name, _ in calls if name == dying]) == lost_first:
            machines.lost_names.add(dying)
        calls.append((engine.name, case["q"]))
        return "broken" if engine.name in machines.lost_names else "well"

    cases = tuple(Case(id=f"c{at}", group=f"g{at}", prompt=json.dumps({"q": f"c{at}"})) for at in range(CASES))
    inputs = PromptSet(name="p", digest="d", cases=cases)
    value = check.value(agree=0.9)
    called = Application(test="t", function=application)
    unit = Unit(
        prompts=inputs,
        sampling=Sampling(),
        concurrency=1,
        repeats=1,
        needs=value.needs(),
        checks=(value,),
        application=called,
    )
    wires = {case.id: called.request(case) for case in cases}
    adapters = [adapter_of(line.name) for line in lines]
    run, ledger = store.begin(plan_hash="p", session="s", version="1").id, Ledger(Settings())
    asking = EngineAsking(
        "a",
        Ready(adapters[0], {unit.key: wires}, further=tuple(adapters[1:])),
        run=run,
        store=store,
        fleet=cast(Fleet, machines),
        ledger=ledger,
        watch=None,
        answered=lambda name: None,
        meanwhile=lambda: None,
        another=lambda name: None,
    )

    asyncio.run(asking.send(step_of(unit, Phase.MAIN, cases)))

    values = {s.case: s.completion.text for s in store.get(run, "a") if s.completion is not None}
    assert values == {case.id: '"well"' for case in cases}
    twice = [case for name, case in calls if name == dying][lost_first]
    assert Counter(case for _, case in calls) == Counter([*(case.id for case in cases), twice])
    assert ledger.allowance.retries == 1
    assert any("its node is gone" in note and "at least 1 of them under way" in note for note in ledger.notes)
