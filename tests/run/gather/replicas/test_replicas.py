"""An engine that is started several times: here, by processes of this machine."""

from __future__ import annotations

import dataclasses
from collections import Counter
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
from pytest_llmparity.core.sample import IDENTITY, Completion, Fact, Identity, Phase, Sample, Sampling, Source, to_json
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.run import locking
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.gather.replicas.differing import unlike
from pytest_llmparity.run.plan import Unit
from pytest_llmparity.run.records import Engaged, together
from pytest_llmparity.run.sending.lines import Elsewhere
from pytest_llmparity.settings.specification import EngineSpec
from tests.run.conftest import Project


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


class Machines:
    """Machines that an engine is started on, one after the other: on each its files are others."""

    def __init__(self, *digests: str) -> None:
        self._digests = iter(digests)
        self.started = 0
        self._info: dict[str, Any] = {}

    def launch(self, spec: EngineSpec, engine: EngineSpec, **how: Any) -> Adapter:
        self.started += 1
        digest = next(self._digests)
        if " " in digest:
            raise LaunchError(digest)
        facts = {"version": Fact(value="1", source="reported"), "digest": Fact(value=digest, source="file")}
        self._info = {"identity": to_json(Identity(facts=facts)), "installed": {}}
        adapter: Adapter = how["make"](spec, "http://127.0.0.1:1")
        return adapter

    def info(self, name: str) -> dict[str, Any]:
        return self._info

    def where(self, name: str) -> str:
        return "a node"


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


def unwanted() -> Keeper:
    raise AssertionError("nothing is started here")


@pytest.mark.parametrize("gpus", [None, "all"])
def test_replicas_of_this_machine_that_share_its_gpus_are_told(tmp_path: Path, gpus: str | None) -> None:
    spec = EngineSpec(name="a", kind="llamacpp", model="m", launch="container", image="i", gpus=gpus, replicas=2)
    fleet = Fleet({"a": spec}, keeper=unwanted, workdir=tmp_path, environ={"PATH": ""}, gpus=lambda: (None, None))

    notes = fleet.engage("a").record.notes

    assert ("a: its 2 replicas see the same GPUs of this machine, nobody deals them out" in notes) is (gpus is not None)
