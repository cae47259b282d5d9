"""An engine that is started several times: here, by processes of this machine."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

import msgspec
import pytest

from pytest_llmparity import check, lockfile
from pytest_llmparity.core.checks.drift.text import TextCheck
from pytest_llmparity.core.errors import LaunchError
from pytest_llmparity.core.evidence import FLOOR_PHASES, EngineEvidence
from pytest_llmparity.core.identity import lock
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import (
    IDENTITY,
    Completion,
    Fact,
    Identity,
    Phase,
    Request,
    Sample,
    Sampling,
    Source,
    to_json,
)
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.report.progress import Silent
from pytest_llmparity.run import locking
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.gather.asking import Asking
from pytest_llmparity.run.gather.replicas.differing import unlike
from pytest_llmparity.run.ledger import Allowance, Ledger
from pytest_llmparity.run.loop import LoopThread
from pytest_llmparity.run.plan import PHASE_ORDER, Job, Unit, step_of, wire_of
from pytest_llmparity.run.records import Engaged, together
from pytest_llmparity.run.sending.lines import Deliver, Elsewhere, Line, NodeLost
from pytest_llmparity.run.sending.sender import Ready
from pytest_llmparity.settings.specification import EngineSpec, Settings
from pytest_llmparity.store.runs import Store
from tests.run.conftest import Project


@pytest.mark.slow
def test_prompts_are_split_and_the_noise_floor_is_measured_on_each(project: Project) -> None:
    engine = project.engine(poses_as="llamacpp", quantization="Q4_0")
    engine.script = lambda request: "well, yes"
    session = project.session(project.attached("base", engine), project.process("many", replicas=2))
    project.declare(session, check.text(margin=0.05))

    session.gather()

    assert session.run is not None
    assert [event for event in project.events if "starts" in event] == ["many starts"] * 2
    counts = {
        name: Counter(sample.phase for sample in session.store().get(session.run, name))
        for name in ("base", "many", "many@1", "many@2")
    }
    whole = dict.fromkeys((Phase.MAIN, *FLOOR_PHASES), 12)
    assert counts["many"] == counts["base"] == whole
    assert counts["many@1"] == counts["many@2"] == whole
    assert not [note for note in session.record([]).notes if "@" in note]


@pytest.mark.slow
@pytest.mark.parametrize("locked", ["as it is", "of another release"])
def test_a_frozen_run_holds_each_replica(project: Project, locked: str) -> None:
    spec = project.process("many", replicas=2)
    before = project.session(spec)
    adapter, seen = before.available("many")
    entry = locking.entry(spec, seen, kind=adapter.kind, plugin="0", root=str(project.path))
    facts = {
        **entry.identity,
        **({} if locked == "as it is" else {"build": Fact(value="of another day", source="reported")}),
    }
    lockfile.write(project.path / lock.NAME, {"many": dataclasses.replace(entry, identity=facts)})

    session = project.session(spec, token="two", frozen=True)
    project.declare(session, check.prompts())
    session.gather()

    words = [engine.incomparable or "" for engine in session.record([]).engines]
    assert [each.partition(" build")[0] for each in words] == [
        "" if locked == "as it is" else "many: it differs from llmparity.lock:"
    ]


@pytest.mark.slow
def test_without_a_noise_floor_each_prompt_is_asked_once(project: Project) -> None:
    session = project.session(project.process("many", replicas=3))
    project.declare(session, check.prompts())

    session.gather()

    assert session.run is not None
    assert len(session.store().get(session.run, "many")) == 12
    assert not session.store().get(session.run, "many@2")
    assert [event for event in project.events if "starts" in event] == ["many starts"] * 3


@pytest.mark.slow
def test_an_engine_is_of_no_use_where_one_of_its_replicas_is_not(project: Project) -> None:
    session = project.session(project.process("many", "once", replicas=2))
    project.declare(session, check.prompts())

    session.gather()

    (problem,) = session.unusable
    assert "many" in problem
    assert "gone" in problem


def engaged(name: str, source: Source = "reported", **facts: str) -> Engaged:
    identity = Identity(facts={key: Fact(value=value, source=source) for key, value in facts.items()})
    return Engaged(record=EngineRecord(name=name, kind="vllm", identity=identity))


@pytest.mark.parametrize("source", get_args(Source))
@pytest.mark.parametrize("field", sorted(IDENTITY.keys() - {"slots", "device"}))
def test_replicas_that_are_two_engines_are_not_compared(field: str, source: Source) -> None:
    """Weights, templates and tokenizers are read from the files of each machine, which the server does not tell of."""
    record = together([engaged("a", source, **{field: "1"}), engaged("a@2", source, **{field: "2"})]).record

    assert record.incomparable is not None
    assert f"of a and a@2, {field} is 1 and 2" in record.incomparable


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"device": "L4"}, {"device": "H200"}, "of a and a@2, device is L4 and H200"),
        ({"digest": "1"}, {}, "of a and a@2, digest can be told of one of them only and is not compared"),
    ],
)
def test_what_makes_no_two_engines_of_replicas_is_told(
    first: dict[str, str], second: dict[str, str], told: str
) -> None:
    record = together([engaged("a", "file", **first), engaged("a@2", "file", **second)]).record

    assert record.unusable is None
    assert told in record.notes


def test_replicas_that_say_the_same_are_one_engine() -> None:
    assert together([engaged("a", digest="1"), engaged("a@2", digest="1")]).record.unusable is None


def evidence(name: str, texts: dict[str, str]) -> EngineEvidence:
    def samples(phase: Phase) -> dict[str, list[Sample]]:
        return {
            case: [Sample(engine=name, case=case, phase=phase, completion=Completion(text=text, completion_tokens=8))]
            for case, text in texts.items()
        }

    return EngineEvidence(
        name=name, kind="vllm", samples={phase: samples(phase) for phase in (Phase.MAIN, *FLOOR_PHASES)}
    )


def unit(cases: list[str]) -> Unit:
    prompts = PromptSet(name="p", digest="d", cases=tuple(Case(id=c, prompt="x", group=c) for c in cases))
    text: TextCheck = check.text(margin=0.05)
    return Unit(prompts=prompts, sampling=Sampling(), concurrency=4, repeats=1, needs=text.needs(), checks=(text,))


@pytest.mark.parametrize(
    ("parted", "expected"),
    [
        (0, ""),
        (1, "a: a@2 parts from a@1 in 1 of 16 prompts"),
        (14, "a: its replicas are not alike: a@2 parts from a@1 in 14 of 16 prompts"),
    ],
)
def test_replicas_that_differ_beyond_their_noise_are_named(parted: int, expected: str) -> None:
    cases = [f"c{at}" for at in range(16)]
    first = dict.fromkeys(cases, "one two three four five six")
    second = first | dict.fromkeys(cases[:parted], "six seven eight nine ten")

    told = unlike("a", unit(cases), [evidence("a@1", first), evidence("a@2", second)])

    assert "".join(told)[: len(expected) or None] == expected


def test_replicas_without_a_prompt_in_common_are_not_called_alike() -> None:
    both = [evidence("a@1", {"c1": "one"}), evidence("a@2", {"c2": "one"})]

    (told,) = unlike("a", unit(["c1", "c2"]), both)

    assert "no prompt has an answer of a@1 and of a@2" in told
    assert told.endswith("whether they are alike is not known")


def test_a_replica_that_ends_its_answers_early_is_not_called_alike() -> None:
    cases = [f"c{at}" for at in range(16)]
    first, second = (evidence(name, dict.fromkeys(cases, "one two three four")) for name in ("a@1", "a@2"))
    short = Completion(text="one", completion_tokens=1, finish_reason="length", max_tokens=32)
    for case in cases[1:]:
        sample = second.samples[Phase.MAIN][case][0]
        second.samples[Phase.MAIN][case] = [msgspec.structs.replace(sample, completion=short)]  # type: ignore[index]

    (told,) = unlike("a", unit(cases), [first, second])

    assert "15 of 16 prompts have no answers of a@1 and of a@2 that can be compared" in told


class Answering:
    """The line to a machine that answers the first phase it is asked, and is gone at the next one."""

    def __init__(self, name: str, lost: set[str]) -> None:
        self._name = name
        self._lost = lost
        self._phase: Phase | None = None

    async def send(self, jobs: Sequence[Job], *, concurrency: int, allowance: Allowance, deliver: Deliver) -> int:
        self._phase = self._phase or jobs[0].phase
        if jobs[0].phase is not self._phase:
            self._lost.add(self._name)
            raise NodeLost(f"{self._name}: its node is gone")
        for job in jobs:
            sample = Sample(
                engine=self._name,
                case=job.case,
                phase=job.phase,
                repeat=job.repeat,
                concurrency=job.concurrency,
                request_sha256=job.request_sha256,
                completion=Completion(text="well, yes"),
            )
            deliver([sample])
        return 0

    async def aclose(self) -> None:
        """Nothing is open."""


class Machines:
    """Machines that an engine is started on, one after the other: on each its files are others."""

    def __init__(self, *digests: str) -> None:
        self._digests = iter(digests)
        self.started = 0
        self._lost: set[str] = set()
        self._info: dict[str, Any] = {}

    def start(self, spec: EngineSpec, engine: EngineSpec, **how: Any) -> Adapter:
        self.started += 1
        digest = next(self._digests)
        if " " in digest:
            raise LaunchError(digest)
        self._lost.discard(spec.name)
        facts = {"version": Fact(value="1", source="reported"), "digest": Fact(value=digest, source="file")}
        self._info = {"identity": to_json(Identity(facts=facts)), "installed": {}}
        adapter: Adapter = how["make"](spec, "http://127.0.0.1:1")
        return adapter

    def info(self, name: str) -> dict[str, Any]:
        return self._info

    def where(self, name: str) -> str:
        return "a node"

    def lost(self, name: str) -> bool:
        return name in self._lost

    def line(self, adapter: Adapter) -> Line:
        return Answering(adapter.name, self._lost)


@pytest.mark.parametrize(("digests", "same"), [(("1", "1"), True), (("1", "2"), False)])
def test_an_engine_that_is_started_again_elsewhere_has_the_weights_it_had(
    tmp_path: Path, digests: tuple[str, str], same: bool
) -> None:
    spec = EngineSpec(name="a", kind="llamacpp", model="m", launch="process")
    machines = Machines(*digests)
    fleet = Fleet({"a": spec}, keeper=unwanted, workdir=tmp_path, elsewhere=lambda: cast(Elsewhere, machines))
    assert fleet.engage("a").record.unusable is None

    if same:
        assert fleet.anew("a").name == "a"
    else:
        with pytest.raises(LaunchError, match="is another engine there: digest is 1 and 2"):
            fleet.anew("a")

    told = fleet.engage("a").record.incomparable or ""
    assert ("a was started again on another machine and is another engine there: digest is 1 and 2" in told) is not same


@pytest.mark.parametrize(
    ("digests", "why", "starts"),
    [(["1"] * 9, "a was lost 3 times", 3), (["1", "the disk is full", "1"], "the disk is full", 2)],
)
def test_an_engine_is_started_again_twice_at_most_and_never_after_that_failed(
    tmp_path: Path, digests: list[str], why: str, starts: int
) -> None:
    spec = EngineSpec(name="a", kind="llamacpp", model="m", launch="process")
    machines = Machines(*digests)
    fleet = Fleet({"a": spec}, keeper=unwanted, workdir=tmp_path, elsewhere=lambda: cast(Elsewhere, machines))
    fleet.engage("a")

    for _ in range(starts - 1 if why != "the disk is full" else 0):
        assert fleet.anew("a").name == "a"
    for _ in range(3):
        with pytest.raises(LaunchError, match=why):
            fleet.anew("a")

    assert machines.started == starts


class Rounds(Silent):
    """Counts how often more requests of a noise floor are announced, and has enough of it after a few times."""

    times = 0

    def more(self, engine: str, requests: int) -> None:
        self.times += 1
        assert self.times < 5, "the same prompts are asked again and again"


def floor_of(tmp_path: Path, machines: Machines, *, steps: int = 1) -> tuple[list[Sample], list[str]]:
    """Return what is stored of an engine's noise floor and its first steps, and the notes of the run."""
    spec = EngineSpec(name="a", kind="llamacpp", model="m", launch="process")
    fleet = Fleet({"a": spec}, keeper=unwanted, workdir=tmp_path, elsewhere=lambda: cast(Elsewhere, machines))
    settings, gate = Settings(engines=(spec,)), unit([f"c{at}" for at in range(4)])
    ledger, loop = Ledger(settings), LoopThread()
    adapter = fleet.engage("a").adapter
    assert adapter is not None
    messages = ({"role": "user", "content": "x"},)
    wires = {
        case.id: wire_of(adapter, Request(case=case.id, messages=messages, sampling=Sampling(max_tokens=8)))
        for case in gate.prompts.cases
    }
    with Store.open(tmp_path / ".llmparity", secrets={}) as store:
        run = store.begin(plan_hash="p", session="s", version="1").id
        asking = Asking(
            settings,
            run=run,
            store=store,
            fleet=fleet,
            ledger=ledger,
            loop=loop,
            progress=Rounds(),
            version="1",
            meanwhile=lambda: None,
        )
        asking.ready["a"] = Ready(adapter, {gate.key: wires})
        try:
            asking.floor(["a"], gate, gate.prompts.cases)
            for repeat in range(steps):
                asking.ask(
                    ["a"], dataclasses.replace(step_of(gate, Phase.MAIN, gate.prompts.cases), concurrency=repeat + 5)
                )
        finally:
            loop.close()
        return store.get(run, "a"), ledger.notes


def test_what_an_engine_answered_before_it_was_lost_for_good_stays(tmp_path: Path) -> None:
    samples, notes = floor_of(tmp_path, Machines("1", "the disk is full"), steps=3)

    answered = {(sample.case, sample.phase) for sample in samples if sample.completion is not None}
    assert answered == {(f"c{at}", PHASE_ORDER[0]) for at in range(4)}
    assert {sample.failure.kind for sample in samples if sample.failure is not None} == {"NotAsked"}
    assert len([note for note in notes if "is not started again" in note]) == 1


def test_what_two_machines_answered_of_a_floor_is_left_out_where_none_is_left(tmp_path: Path) -> None:
    samples, notes = floor_of(tmp_path, Machines("1", "1", "the disk is full"), steps=0)

    assert [sample.failure.kind for sample in samples if sample.failure is not None] == ["NotAsked"] * len(samples)
    assert any("what two machines answered to 4 prompts of it is left out" in note for note in notes)
    assert not any("asked anew there" in note for note in notes)


def unwanted() -> Keeper:
    raise AssertionError("nothing is started here")


@pytest.mark.parametrize("gpus", [None, "all"])
def test_replicas_of_this_machine_that_share_its_gpus_are_told(tmp_path: Path, gpus: str | None) -> None:
    spec = EngineSpec(name="a", kind="llamacpp", model="m", launch="container", image="i", gpus=gpus, replicas=2)
    fleet = Fleet({"a": spec}, keeper=unwanted, workdir=tmp_path, environ={"PATH": ""}, gpus=lambda: (None, None))

    notes = fleet.engage("a").record.notes

    assert ("a: its 2 replicas see the same GPUs of this machine, nobody deals them out" in notes) is (gpus is not None)
