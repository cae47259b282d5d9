"""A portion of the prompts: which are left, what is said of it, and how a sample is drawn."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.prompts import Case, PromptSet, digest
from pytest_llmparity.core.prompts.portion import ALL, Portion, sample


def cases(*tags: str, groups: int = 0) -> list[Case]:
    """Return a case for each tag, the first of each, in so many groups; without a number each is its own."""
    return [
        Case(id=f"{i}", prompt=f"{i}?", tags=(tag,) if tag else (), group=f"g{i % groups}" if groups else "")
        for i, tag in enumerate(tags)
    ]


def of(*tags: str) -> PromptSet:
    return PromptSet(name="p", cases=tuple(cases(*tags)))


def test_nothing_asked_for_is_all_prompts() -> None:
    prompts = of("a", "b")

    assert ALL.of(prompts) is prompts
    assert not ALL
    assert ALL.in_words(prompts) == ""


def test_prompts_with_one_of_the_tags_are_a_set_of_their_own() -> None:
    prompts = of("a", "b", "", "c")
    part = Portion(tags=("a", "c")).of(prompts)

    assert [case.id for case in part.cases] == ["0", "3"]
    assert [case.id for case in part.rest] == ["1", "2"]
    assert part.digest == digest(part.cases) != prompts.digest
    assert Portion(tags=("a", "c")).in_words(part) == "2 of 4 prompts, tags a or c"


def test_what_is_said_names_the_sample_only_where_one_was_drawn() -> None:
    prompts = of("a", "a", "b")

    assert Portion(most=2).in_words(Portion(most=2).of(prompts)) == "2 of 3 prompts, sample"
    assert Portion(tags=("a",), most=9).in_words(Portion(tags=("a",), most=9).of(prompts)) == "2 of 3 prompts, tag a"
    of_tag = Portion(tags=("a",), most=1)
    assert of_tag.in_words(of_tag.of(prompts)) == "1 of 3 prompts, sample of tag a"


def test_a_sample_larger_than_the_set_is_the_set() -> None:
    prompts = of("a", "b")

    assert Portion(most=2).of(prompts) is prompts
    assert Portion(most=99).of(prompts) is prompts


def test_each_tag_gets_its_share() -> None:
    drawn = sample(cases(*["easy"] * 80, *["hard"] * 15, *[""] * 5), 20)

    assert Counter(case.tags for case in drawn) == {("easy",): 16, ("hard",): 3, (): 1}


def test_tags_too_small_for_a_seat_are_drawn_from_together() -> None:
    drawn = sample(cases(*(f"only-{i}" for i in range(100)), *["many"] * 100), 20)

    assert 8 <= sum(case.tags == ("many",) for case in drawn) <= 12


def test_a_sample_has_as_many_groups_as_it_can() -> None:
    assert len({case.group for case in sample(cases(*[""] * 60, groups=12), 12)}) == 12
    counts = Counter(case.group for case in sample(cases(*[""] * 60, groups=12), 30))
    assert set(counts.values()) == {2, 3}


def test_an_addition_to_the_set_leaves_most_of_a_sample_as_it_was() -> None:
    before = {case.id for case in sample(cases(*["a"] * 100), 20)}
    after = {case.id for case in sample(cases(*["a"] * 105), 20)}

    assert len(before & after) >= 15


@given(
    st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(0, 5)), min_size=1, max_size=40),
    st.integers(1, 45),
    st.randoms(use_true_random=False),
)
def test_a_sample_has_its_size_and_does_not_depend_on_the_order(rows: list[tuple[str, int]], most: int, any) -> None:  # type: ignore[no-untyped-def]
    there = [Case(id=f"{i}", prompt="?", tags=(tag,) if tag else (), group=f"g{g}") for i, (tag, g) in enumerate(rows)]
    mixed = list(there)
    any.shuffle(mixed)
    drawn = {case.id for case in sample(there, most)}

    assert len(drawn) == min(most, len(there))
    assert drawn == {case.id for case in sample(mixed, most)}
