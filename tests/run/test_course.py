"""The order of a sequential run: drawn from ids and groups alone, each group in turn, kept when it is extended."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.evidence import Needs
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.prompts.arms import streamed_and_not, unstreamed
from pytest_llmparity.core.sample import Phase, Sampling, from_json, to_json
from pytest_llmparity.run.course import WAVE, Course, cases_of, course_of, in_rounds, waves
from pytest_llmparity.run.plan import Unit


def case(number: int, group: str = "", prompt: str = "") -> Case:
    return Case(id=f"c{number}", prompt=prompt or f"question {number}", group=group)


def unit(*cases: Case, name: str = "set", floor: bool = False) -> Unit:
    phases = {Phase.MAIN, Phase.COLD} if floor else {Phase.MAIN}
    return Unit(
        prompts=PromptSet(name=name, cases=cases),
        sampling=Sampling(),
        concurrency=4,
        repeats=1,
        needs=Needs(phases=frozenset(phases)),
    )


def asked(course: Course, count: int) -> Course:
    return dataclasses.replace(course, asked={"a": count, "b": count // 2})


GROUPS = st.lists(st.sampled_from("uvwxyz"), min_size=1, max_size=30)


@given(GROUPS, st.randoms(use_true_random=False))
def test_the_order_depends_on_nothing_but_ids_and_groups(groups: list[str], random: object) -> None:
    cases = [case(number, group) for number, group in enumerate(groups)]
    mixed = list(cases)
    random.shuffle(mixed)  # type: ignore[attr-defined]

    assert in_rounds(mixed) == in_rounds(cases)
    assert sorted(c.id for c in in_rounds(cases)) == sorted(c.id for c in cases)


@given(GROUPS)
def test_both_arms_of_a_prompt_follow_one_another_also_in_a_group(groups: list[str]) -> None:
    prompts = PromptSet(name="set", cases=tuple(case(number, group) for number, group in enumerate(groups)))
    order = [each.id for each in in_rounds(streamed_and_not(prompts).cases)]

    assert order[0::2] == [each.id for each in in_rounds(prompts.cases)]
    assert order[1::2] == [unstreamed(id) for id in order[0::2]]
    assert WAVE % 2 == 0, "a wave ends behind both"


@given(GROUPS)
def test_every_group_has_its_turn_before_one_has_another(groups: list[str]) -> None:
    turns: dict[str, int] = {}
    rounds = []
    for drawn in in_rounds(case(number, group) for number, group in enumerate(groups)):
        turns[drawn.group] = turns.get(drawn.group, 0) + 1
        rounds.append(turns[drawn.group])

    assert rounds == sorted(rounds)


def test_the_order_is_not_that_of_the_file() -> None:
    numbers = [int(c.id[1:]) for c in in_rounds(case(number) for number in range(50))]

    assert numbers != sorted(numbers)
    assert 15 < sum(numbers[:25]) / 25 < 34, "a drawn half is not all from one end"


def test_a_fresh_course_has_asked_nothing() -> None:
    course = course_of(unit(*map(case, range(5))), {})

    assert (course.asked, course.continued, course.cut) == ({}, False, False)
    assert sorted(course.ids) == [f"c{n}" for n in range(5)]
    assert from_json(Course, to_json(asked(course, 3))) == asked(course, 3)


@given(st.integers(1, 40), st.integers(0, 40))
def test_added_prompts_come_after_what_was_asked(before: int, added: int) -> None:
    old = unit(*map(case, range(before)))
    first = asked(course_of(old, {}), before)
    both = unit(*map(case, range(before + added)))
    second = course_of(both, {old.key: first})

    assert second.order[:before] == first.order
    assert len(second.order) == before + added
    assert second.asked == {}
    assert second.continued is (added > 0)


def test_what_was_not_asked_before_is_drawn_anew_with_what_was_added() -> None:
    old = unit(*map(case, range(30)))
    first = asked(course_of(old, {}), 10)
    second = course_of(unit(*map(case, range(60))), {old.key: first})

    assert second.continued
    assert second.ids[:10] == first.ids[:10]
    assert set(second.ids[10:30]) != set(first.ids[10:])


def test_new_members_of_a_group_wait_until_the_others_had_their_turn() -> None:
    old = unit(case(0, "u"), case(1, "v"))
    first = asked(course_of(old, {}), 2)
    second = course_of(unit(case(0, "u"), case(1, "v"), case(2, "u"), case(3, "w"), case(4, "x")), {old.key: first})

    assert set(second.ids[2:4]) == {"c3", "c4"}
    assert second.ids[4] == "c2"


@pytest.mark.parametrize(
    "extended",
    [
        unit(*map(case, range(1, 20))),
        unit(case(0, prompt="another question"), *map(case, range(1, 20))),
        unit(*map(case, range(20)), name="other"),
    ],
    ids=["one is gone", "one has changed", "another file"],
)
def test_a_set_that_does_not_hold_what_was_asked_is_not_continued(extended: Unit) -> None:
    old = unit(*map(case, range(10)))
    course = course_of(extended, {old.key: asked(course_of(old, {}), 10)})

    assert not course.continued
    assert course.order == course_of(extended, {}).order


def test_the_longest_of_several_beginnings_is_continued() -> None:
    steps = [unit(*map(case, range(count))) for count in (5, 8, 12)]
    first = asked(course_of(steps[0], {}), 5)
    second = asked(course_of(steps[1], {steps[0].key: first}), 8)
    third = course_of(steps[2], {steps[0].key: first, steps[1].key: second})

    assert third.ids[:8] == second.ids
    assert second.ids[:5] == first.ids


def test_the_same_set_goes_on_where_it_was_whatever_it_had_been() -> None:
    whole = unit(*map(case, range(10)))
    before = dataclasses.replace(asked(course_of(whole, {}), 10), continued=True, cut=True)
    course = course_of(whole, {whole.key: before})

    assert (course.order, course.continued, course.cut, course.asked) == (before.order, True, False, {})


@pytest.mark.parametrize(
    ("cases", "floor", "measured", "places"),
    [
        (5, False, 0, [5]),
        (40, False, 0, [16, 32, 40]),
        (40, True, 16, [32, 40]),
        (70, True, 32, [32, 48, 64, 70]),
        (70, True, 64, [64, 70]),
        (20, True, 20, [20]),
    ],
)
def test_waves_begin_with_the_cases_of_the_floor(cases: int, floor: bool, measured: int, places: list[int]) -> None:
    whole = unit(*map(case, range(cases)), floor=floor)
    course = course_of(whole, {})

    assert list(waves(whole, measured)) == places
    assert [c.id for c in cases_of(whole, course, 0, places[0])] == list(course.ids[: places[0]])
    assert len(cases_of(whole, course, 0, None)) == cases
    assert WAVE == 16
