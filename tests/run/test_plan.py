"""The plan is the same in every process, merges what tests share, and never asks more than was declared."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.evidence import EngineEvidence, Evidence, Needs, Tokens, union
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Phase, Sampling
from pytest_llmparity.core.verdict import Verdict
from pytest_llmparity.engines.registry import adapter_for
from pytest_llmparity.run.application import Application
from pytest_llmparity.run.plan import (
    Declaration,
    Unit,
    floor_order,
    make_plan,
    requests_of,
    rounds,
    shuffled,
    step_of,
)
from pytest_llmparity.settings.specification import EngineSpec

HELD = frozenset({(0.05, 32)})
FLOOR = frozenset({Phase.MAIN, Phase.COLD, Phase.WARM, Phase.PARALLEL})


@dataclass(frozen=True)
class Wants:
    """A check that only has needs."""

    wanted: Needs
    kind: str = "wants"
    pairwise: bool = True
    sequential: bool = False
    where: str = "here:1"

    def needs(self) -> Needs:
        return self.wanted

    def problem(
        self, *, cases: int, groups: int, engines: int, sequential: bool = False, tokens: Tokens = ()
    ) -> str | None:
        return None

    def power(self, *, cases: int, groups: int, sequential: bool = False, tokens: Tokens = ()) -> str:
        return ""

    def weakness(self, *, sizes: Sequence[int], sequential: bool = False, tokens: Tokens = ()) -> str:
        return ""

    def beforehand(self, evidence: Evidence, candidate: EngineEvidence) -> str:
        return ""

    def prompt_problem(self, prompts: PromptSet) -> str | None:
        return None

    def tag_problem(self, prompts: PromptSet, *, sequential: bool = False, tokens: Tokens = ()) -> str | None:
        return None

    def tag_line(self, prompts: PromptSet, *, sequential: bool = False, tokens: Tokens = ()) -> str:
        return ""

    def judge(self, evidence: Evidence) -> list[Verdict]:
        return []


def prompt_set(count: int, groups: int = 4, name: str = "set") -> PromptSet:
    cases = tuple(Case(id=f"{name}-{i}", prompt=f"{name} {i}", group=f"g{i % groups}") for i in range(count))
    return PromptSet(name=name, cases=cases)


def declaration(prompts: PromptSet, *needs: Needs, test: str = "test_a", concurrency: int = 4) -> Declaration:
    return Declaration(
        test=test,
        prompts=prompts,
        checks=tuple(Wants(need) for need in needs),
        sampling=Sampling(),
        concurrency=concurrency,
    )


def test_tests_that_ask_the_same_thing_share_one_unit() -> None:
    prompts = prompt_set(10)

    plan = make_plan(
        [
            declaration(prompts, Needs(phases=FLOOR, top_logprobs=5)),
            declaration(prompts, Needs(timed=128, timed_relative=True), test="test_b"),
        ]
    )

    (unit,) = plan.units
    assert unit.needs == Needs(phases=FLOOR, top_logprobs=5, timed=128, timed_relative=True)
    assert plan.requests == (4 * 10 + 128, 4 * 10 + 128)
    assert plan.tokens == plan.requests[1] * 64
    assert plan.timed == (unit,)


def test_another_concurrency_is_another_unit() -> None:
    prompts = prompt_set(10)

    plan = make_plan([declaration(prompts), declaration(prompts, concurrency=8)])

    assert len(plan.units) == 2


def test_other_code_of_an_application_is_another_gathering_of_the_same_answers() -> None:
    """A run does not go on with other code; replays and golden answers outlive it."""
    called = [Application(test="test_bot", function=print, code=code) for code in ("before", "after")]
    before, after = (
        make_plan([dataclasses.replace(declaration(prompt_set(4)), application=application)]) for application in called
    )

    assert before.digest(["a"]) != after.digest(["a"])
    assert [unit.key for unit in before.units] == [unit.key for unit in after.units]
    (case, *_) = prompt_set(4).cases
    assert called[0].request(case) == called[1].request(case)


def test_the_floor_comes_in_rounds_of_cases_that_were_not_asked_before_cold_first() -> None:
    plan = make_plan([declaration(prompt_set(100), Needs(phases=FLOOR, floor_held=HELD))])
    (unit,) = plan.units

    steps = rounds(unit, floor_order(unit.prompts))

    assert [[(s.phase, s.concurrency, len(s.cases)) for s in of_round] for of_round in steps] == [
        [(phase, 4, cases) for phase in (Phase.COLD, Phase.MAIN, Phase.WARM, Phase.PARALLEL)] for cases in (16, 16, 32)
    ]
    asked = [{case.id for case in of_round[0].cases} for of_round in steps]
    assert len(set.union(*asked)) == 64
    assert all(
        {case.id for case in step.cases} == ids for of_round, ids in zip(steps, asked, strict=True) for step in of_round
    )
    assert plan.requests == (100 + 3 * 16, 100 + 3 * 64)


def test_a_floor_is_of_as_many_cases_as_are_asked_at_once() -> None:
    (unit,) = make_plan([declaration(prompt_set(100), Needs(phases=FLOOR, floor_held=HELD), concurrency=24)]).units

    ends = [len(steps[0].cases) for steps in rounds(unit, floor_order(unit.prompts))]

    assert ends == [24, 8, 32]
    assert {step.concurrency for steps in rounds(unit, floor_order(unit.prompts)) for step in steps} == {24}


@pytest.mark.parametrize(
    ("needs", "groups", "temperature", "spans"),
    [
        (Needs(phases=FLOOR, floor_cases=32), 100, 0.0, (32, 32)),
        (Needs(phases=FLOOR, floor_cases=32, floor_held=HELD), 100, 0.0, (32, 64)),
        (Needs(phases=FLOOR, floor_held=HELD | {(0.01, 32)}), 100, 0.0, (32, 64)),
        (Needs(phases=FLOOR, floor_held=HELD | {(0.002, 32)}), 100, 0.0, (64, 64)),
        (Needs(phases=FLOOR, floor_held=HELD), 1, 0.0, (16, 16)),
        (Needs(phases=FLOOR, floor_held=HELD), 100, 0.7, (16, 16)),
        (Needs(), 100, 0.0, (0, 0)),
    ],
)
def test_the_floor_grows_where_more_of_it_could_show_something(
    needs: Needs, groups: int, temperature: float, spans: tuple[int, int]
) -> None:
    declared = declaration(prompt_set(100, groups), needs)
    declared = dataclasses.replace(declared, sampling=Sampling(temperature=temperature))

    assert make_plan([declared]).requests == tuple(100 + 3 * cases for cases in spans)


def test_the_order_of_tests_changes_nothing() -> None:
    declared = [declaration(prompt_set(5, name=f"s{i}"), test=f"t{i}") for i in range(6)]

    there, back = make_plan(declared), make_plan(declared[::-1])

    assert there == back
    assert there.digest(["a", "b"]) == back.digest(["a", "b"])
    assert there.digest(["a", "b"]) != there.digest(["b", "a"])


def test_a_case_filter_gathers_rows_and_no_floor() -> None:
    plan = make_plan([declaration(prompt_set(10), Needs(phases=FLOOR, timed=128))], only=["set-3"])

    assert [case.id for case in plan.units[0].prompts.cases] == ["set-3"]
    assert plan.requests == (1, 1)


def test_a_case_filter_is_another_gathering() -> None:
    declared = declaration(prompt_set(50), Needs())
    digests = {
        make_plan([declared], only=only).digest(["e"]) for only in ([], ["set-1"], ["set-2"], ["set-1", "set-2"])
    }

    assert len(digests) == 4
    assert make_plan([declared], only=["set-2", "set-1"]).digest(["e"]) in digests


def test_a_case_filter_that_names_nothing_plans_nothing() -> None:
    assert make_plan([declaration(prompt_set(10))], only=["nobody"]).units == ()


def test_no_checks_still_gather_the_main_phase() -> None:
    assert union([]).phases == {Phase.MAIN}


@given(count=st.integers(1, 120), groups=st.integers(1, 40))
def test_the_first_cases_of_the_floor_are_distinct_and_spread_over_groups(count: int, groups: int) -> None:
    prompts = prompt_set(count, groups)

    order = floor_order(prompts)

    assert {case.id for case in order} == {case.id for case in prompts.cases}
    assert len({case.group for case in order[:32]}) == min(32, prompts.groups)
    assert order == floor_order(prompts)


@given(st.text(max_size=5))
def test_shuffling_depends_on_the_seed_alone(seed: str) -> None:
    cases = prompt_set(20).cases

    assert sorted(shuffled(cases, seed=seed), key=lambda c: c.id) == sorted(cases, key=lambda c: c.id)
    assert shuffled(cases, seed=seed) == shuffled(cases, seed=seed)


def test_phases_are_shuffled_differently_so_that_batch_neighbours_change() -> None:
    (unit,) = make_plan([declaration(prompt_set(32), Needs(phases=FLOOR))]).units

    orders = {tuple(case.id for case in step_of(unit, phase, unit.prompts.cases).cases) for phase in FLOOR}

    assert len(orders) == 4


@pytest.mark.parametrize("repeats", [1, 3])
def test_repeats_multiply_the_main_phase_only(repeats: int) -> None:
    base = declaration(prompt_set(40), Needs(phases=FLOOR))
    declared = Declaration(
        test=base.test,
        prompts=base.prompts,
        checks=base.checks,
        sampling=base.sampling,
        concurrency=base.concurrency,
        repeats=repeats,
    )

    assert make_plan([declared]).requests == (40 * repeats + 3 * 16, 40 * repeats + 3 * 16)


@pytest.mark.parametrize(
    ("kind", "timed", "streamed"),
    [("vllm", 0, True), ("llamacpp-python", 0, False), ("llamacpp-python", 128, True)],
)
def test_streams_without_token_counts_are_asked_for_only_where_they_are_timed(
    kind: str, timed: int, streamed: bool
) -> None:
    adapter = adapter_for(kind)(EngineSpec(name="cand", kind=kind, model="m"), "http://127.0.0.1:1", {})
    cases = (Case(id="a", messages=({"role": "user", "content": "Hi"},)),)
    unit = Unit(
        prompts=PromptSet(name="set", cases=cases),
        sampling=Sampling(),
        concurrency=1,
        repeats=1,
        needs=Needs(timed=timed),
    )

    (wire,) = requests_of(adapter, unit).values()

    assert json.loads(wire.body).get("stream", False) is streamed
    assert wire.max_tokens == json.loads(wire.body)["max_tokens"] == Sampling().max_tokens


def test_tokens_are_counted_for_every_choice_that_is_asked_for() -> None:
    def tokens(n: int) -> int:
        prompts = PromptSet(name="p", cases=(Case(id="a", prompt="?", n=n), Case(id="b", prompt="?")))
        sampling = Sampling(max_tokens=10, temperature=1.0)
        declared = Declaration(test="t", prompts=prompts, checks=(), sampling=sampling, concurrency=1)
        return make_plan([declared]).tokens

    assert (tokens(0), tokens(4)) == (20, 80)
