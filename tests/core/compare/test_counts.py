from __future__ import annotations

import random
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.diagnosis.counts import Counts, Known, compare_counts
from pytest_llmparity.core.diagnosis.layers import counts_in_words

SLOW = pytest.mark.slow
LENGTHS = [20, 35, 50, 80, 120, 200, 310, 500]


def rows(candidate: list[int]) -> list[tuple[str, int, int]]:
    return [(f"c{index}", ours, theirs) for index, (ours, theirs) in enumerate(zip(LENGTHS, candidate, strict=True))]


def words(candidate: list[int]) -> list[str]:
    return counts_in_words(compare_counts(rows(candidate)), "vllm", "ollama")


def test_equal_counts_say_nothing() -> None:
    counts = compare_counts(rows(LENGTHS))

    assert (counts.kind, counts.n, counts.differing) == ("equal", 8, 0)
    assert words(LENGTHS) == []
    assert compare_counts([]).kind == "unknown"
    assert counts_in_words(compare_counts([]), "a", "b") == []


@pytest.mark.parametrize(("offset", "difference"), [(5, "5 tokens more"), (-1, "1 token fewer")])
def test_the_same_number_on_every_prompt_is_template_bos_or_system_prompt(offset: int, difference: str) -> None:
    assert words([length + offset for length in LENGTHS]) == [
        f"ollama counts {difference} than vllm on every prompt: another chat template, BOS token or system prompt"
    ]


@pytest.mark.parametrize(("slope", "difference"), [(1.08, "8 % more"), (0.9, "10 % fewer")])
def test_counts_in_proportion_are_another_tokeniser(slope: float, difference: str) -> None:
    (line,) = words([round(length * slope) + 3 for length in LENGTHS])

    assert line.endswith("tokens than vllm for the same text: another tokeniser")
    number = float(line.split("counts ")[1].split(" %")[0])
    assert number == pytest.approx(float(difference.split(" %")[0]), abs=0.6)
    assert difference.split()[-1] in line


def test_a_few_odd_prompts_are_a_tokeniser_that_treats_some_text_differently() -> None:
    counts = list(LENGTHS)
    counts[1] += 2
    counts[4] -= 3
    assert words(counts) == [
        "counts differ on 2 of 8 prompts by no rule: a tokeniser that treats some text differently"
    ]


@pytest.mark.parametrize(("offset", "difference"), [(31, "31 tokens more"), (-31, "31 tokens fewer")])
def test_the_same_number_on_chats_without_a_system_message_alone_is_a_system_prompt(
    offset: int, difference: str
) -> None:
    known = Known(bare=frozenset({"c1", "c2", "c5"}), instructed=frozenset({"c0", "c3"}))
    moved = [length + offset * (at in (1, 2, 5)) for at, length in enumerate(LENGTHS)]
    (line,) = counts_in_words(compare_counts(rows(moved), known), "vllm", "ollama", known)

    who = "ollama" if offset > 0 else "vllm"
    assert line == (
        f"ollama counts {difference} than vllm on 3 of 8 prompts, the chats without a system message: "
        f"a system prompt of {who}'s own, by its template or its settings"
    )


@pytest.mark.parametrize("odd", [1, 3])
def test_chats_that_differ_otherwise_are_no_system_prompt(odd: int) -> None:
    known = Known(bare=frozenset({"c1", "c2", "c5"}), instructed=frozenset({"c0", "c3"}))
    moved = [length + 31 * (at in (1, 2, 5)) for at, length in enumerate(LENGTHS)]
    moved[odd] += 1

    assert compare_counts(rows(moved), known).of == "every"


@pytest.mark.parametrize("instructed", [frozenset[str](), frozenset({"c6"})])
def test_the_same_number_on_chats_alone_may_be_their_template(instructed: frozenset[str]) -> None:
    """Beside raw prompts that are equal: a template, its BOS token and a system prompt look alike there."""
    bare = frozenset({"c1", "c2", "c5"})
    moved = [length + 5 * (f"c{at}" in bare | instructed) for at, length in enumerate(LENGTHS)]

    (line,) = counts_in_words(compare_counts(rows(moved), Known(bare=bare, instructed=instructed)), "vllm", "ollama")

    assert line == (
        f"ollama counts 5 tokens more than vllm on {3 + len(instructed)} of 8 prompts, the chats: another chat "
        "template, BOS token or system prompt"
    )


def test_prompts_far_below_the_others_were_cut() -> None:
    assert words([*LENGTHS[:6], 130, 130]) == [
        "ollama cut 2 of 8 prompts (c6, c7), one of them to 130 tokens where vllm counts 500"
    ]


def test_the_baseline_may_be_the_one_that_cuts() -> None:
    cut = [(case, min(ours, 130), ours) for case, ours, _ in rows(LENGTHS)]
    (line,) = counts_in_words(compare_counts(cut), "vllm", "ollama")

    assert line == "vllm cut 3 of 8 prompts (c5, c6, c7), one of them to 130 tokens where ollama counts 500"


def test_a_cut_beside_another_template_names_both() -> None:
    both = [length + 5 for length in LENGTHS]
    both[7] = 260
    assert words(both) == [
        "ollama counts 5 tokens more than vllm on every uncut prompt: "
        "another chat template, BOS token or system prompt",
        "ollama cut 1 of 8 prompts (c7), one of them to 260 tokens where vllm counts 500",
    ]


def test_a_cut_beside_another_tokeniser_names_both() -> None:
    both = [round(length * 1.3) for length in LENGTHS]
    both[7] = 260
    lines = words(both)

    assert "another tokeniser" in lines[0]
    assert lines[1].startswith("ollama cut 1 of 8 prompts")


def test_prompts_of_one_length_that_differ_by_no_rule_have_no_slope() -> None:
    assert compare_counts([("a", 20, 21), ("b", 20, 22), ("c", 20, 23)]).kind == "mixed"


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=30),
    st.integers(min_value=-1, max_value=40),
)
def test_any_counts_are_described_and_an_offset_is_never_missed(pairs: list[tuple[int, int]], offset: int) -> None:
    counts = compare_counts([(str(index), ours, theirs) for index, (ours, theirs) in enumerate(pairs)])
    assert (counts.differing == 0) == (counts.kind == "equal" and not counts.cuts)
    assert counts.differing == 0 or counts_in_words(counts, "a", "b")

    moved = compare_counts([(str(index), ours, ours + offset) for index, (ours, _) in enumerate(pairs)])
    assert moved.kind == ("offset" if offset else "equal")
    assert (moved.offset, moved.cuts) == (offset, ())


class World(NamedTuple):
    """Prompts of a planted cause: the counts, what is known, and which prompts the baseline and the candidate cut."""

    rows: list[tuple[str, int, int]]
    known: Known
    cut: tuple[set[str], set[str]]


def left(sizes: list[int], limit: int, way: str) -> int:
    """What an engine counts of turns of these sizes behind a head of 10 tokens: how engines cut (docs/engines.md)."""
    total = 10 + sum(sizes)
    if total <= limit:
        return total
    if way == "middle":
        return limit // 2 + 2
    if way == "end":
        return limit
    while 10 + sum(sizes) > limit and len(sizes) > 1:
        sizes = sizes[1:]
    return min(10 + sum(sizes), limit)


def world(
    seed: int,
    way: str,
    *,
    limits: tuple[int, int],
    n: int = 48,
    long: float = 0.85,
    offset: int = 0,
    slope: float = 1.0,
    tell: bool = False,
) -> World:
    """Conversations of 1 to 90 turns, a share of them ``long``; the candidate counts ``slope`` times and ``offset``."""
    source = random.Random(seed)
    rows, characters = [], {}
    cut: tuple[set[str], set[str]] = (set(), set())
    for index in range(n):
        turns = source.randint(25, 90) if source.random() < long else source.randint(1, 6)
        sizes = [source.randint(8, 40) for _ in range(turns)]
        other = [round(slope * size * source.uniform(0.97, 1.03)) if slope != 1.0 else size for size in sizes]
        case = f"c{index}"
        characters[case] = sum(sizes) * 4
        for side, seen in enumerate((sizes, other)):
            if 10 + sum(seen) + side * offset > limits[side]:
                cut[side].add(case)
        rows.append((case, left(sizes, limits[0], way), left(other, limits[1] - offset, way) + offset))
    contexts = (limits[0], limits[1]) if tell else (None, None)
    return World(rows, Known(contexts=contexts, characters=characters), cut)


def cases_cut(counts: Counts) -> tuple[set[str], set[str]]:
    sides = {cut.side: set(cut.cases) for cut in counts.cuts}
    return sides.get("baseline", set()), sides.get("candidate", set())


FAR = 1_000_000
WAYS = ["oldest turns", "middle", "end"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("limits", [(FAR, 256), (512, FAR)], ids=["candidate cuts", "baseline cuts"])
@pytest.mark.parametrize("offset", [0, pytest.param(5, marks=SLOW), -3, pytest.param(24, marks=SLOW)])
def test_who_cut_what_is_found_however_many_prompts_were_cut(way: str, limits: tuple[int, int], offset: int) -> None:
    for seed in range(12):
        share = (0.1, 0.5, 0.85)[seed % 3]
        planted = world(seed, way, limits=limits, long=share, offset=offset, tell=seed % 2 == 0)
        counts = compare_counts(planted.rows, planted.known)

        assert cases_cut(counts) == planted.cut, seed
        assert (counts.kind, counts.offset, counts.odd) == ("offset" if offset else "equal", offset, ()), seed


@pytest.mark.parametrize("way", WAYS)
def test_a_set_of_which_every_prompt_was_cut_is_still_a_plateau(way: str) -> None:
    for seed in range(10):
        planted = world(seed, way, limits=(FAR, 256), n=3 + seed, long=1.0)

        assert cases_cut(compare_counts(planted.rows)) == planted.cut


@pytest.mark.parametrize("way", WAYS)
def test_where_both_cut_neither_is_blamed_for_what_it_read_whole(way: str) -> None:
    both_named = 0
    for seed in range(20):
        planted = world(seed, way, limits=(600, 256), long=0.7, tell=seed % 2 == 0)
        ours, theirs = cases_cut(counts := compare_counts(planted.rows, planted.known))

        assert (theirs, counts.kind) == (planted.cut[1], "equal"), seed
        assert ours <= planted.cut[0], seed
        both_named += bool(ours)
        lines = counts_in_words(counts, "vllm", "ollama")
        assert not ours or lines[1].startswith(f"vllm cut at least {len(ours)} of 48 prompts"), lines
    assert both_named >= 15


@pytest.mark.parametrize("slope", [pytest.param(0.75, marks=SLOW), 0.9, 1.1, pytest.param(1.3, marks=SLOW)])
def test_another_tokeniser_is_no_cut_and_beside_a_cut_both_are_named(slope: float) -> None:
    for seed in range(6):
        whole = world(seed, "end", limits=(FAR, FAR), long=0.5, slope=slope)
        counts = compare_counts(whole.rows, whole.known)
        assert (counts.kind, counts.cuts) == ("slope", ()), seed
        assert counts.slope == pytest.approx(slope, rel=0.03)

        planted = world(seed, WAYS[seed % 3], limits=(FAR, 512), long=0.6, slope=slope)
        counts = compare_counts(planted.rows, planted.known)
        ours, theirs = cases_cut(counts)
        assert (counts.kind, ours) == ("slope", set()), seed
        assert len(theirs ^ planted.cut[1]) <= 0.1 * len(planted.cut[1]), seed


def test_a_conversation_of_exactly_the_context_was_not_cut() -> None:
    counted = [("a", 100, 100), ("b", 256, 256), ("c", 257, 256), ("d", 300, 256)]
    (cut,) = compare_counts(counted, Known(contexts=(4096, 256))).cuts
    assert (cut.side, cut.cases, cut.context) == ("candidate", ("c", "d"), 256)
    (cut,) = compare_counts(counted).cuts
    assert (cut.cases, cut.context) == (("c", "d"), None)

    alone = compare_counts([*counted[:3], ("e", 80, 80)])
    assert (alone.kind, alone.odd) == ("mixed", ("c",)), "one token is no cut as long as nobody knows the context"


def test_a_context_explains_what_would_else_be_an_offset() -> None:
    """The same history in all prompts: engines that drop its oldest turns count the same number fewer everywhere."""
    counted = [(f"c{index}", 300 + index, 230 + index) for index in range(20)]

    assert compare_counts(counted).kind == "offset"
    counts = compare_counts(counted, Known(contexts=(4096, 256)))
    assert (counts.kind, [len(cut.cases) for cut in counts.cuts]) == ("equal", [20])


def test_a_context_that_a_count_exceeds_is_not_the_one_in_force() -> None:
    counted = [("a", 100, 105), ("b", 300, 305), ("c", 900, 905)]

    assert compare_counts(counted, Known(contexts=(4096, 256))).cuts == ()


def test_a_large_system_prompt_is_an_offset_even_where_it_looks_like_much() -> None:
    counted = [("a", 1520, 20), ("b", 1535, 35), ("c", 1700, 200)]

    for known in (Known(), Known(contexts=(4096, 1024))):
        assert (counts := compare_counts(counted, known)).kind == "offset"
        assert (counts.offset, counts.cuts) == (-1500, ())


def test_of_one_prompt_the_length_of_its_text_decides() -> None:
    counted = [("a", 1745, 233)]
    long, short = Known(characters={"a": 7000}), Known(characters={"a": 700})

    assert cases_cut(compare_counts(counted, long)) == (set(), {"a"})
    assert (compare_counts(counted, short).kind, compare_counts(counted, short).cuts) == ("offset", ())


def test_two_engines_that_cut_alike_count_the_same_and_are_named_where_texts_cannot_fit() -> None:
    counted = [("a", 40, 40), ("b", 1010, 1010)]
    known = Known(contexts=(1024, 1024), characters={"a": 160, "b": 12_000})
    counts = compare_counts(counted, known)

    assert cases_cut(counts) == ({"b"}, {"b"})
    assert counts_in_words(counts, "vllm", "ollama")[0] == (
        "vllm cut at least 1 of 2 prompts (b): more text than a context of 1,024 tokens holds"
    )
    assert compare_counts(counted, Known(characters={"a": 160, "b": 12_000})).cuts == ()


def test_an_equal_vocabulary_rules_another_tokeniser_out() -> None:
    counted = [(f"c{index}", length, round(0.8 * length)) for index, length in enumerate(LENGTHS)]
    known = Known(same_vocabulary=True)

    assert compare_counts(counted).kind == "slope"
    assert compare_counts(counted, known).kind == "mixed"
    odd = compare_counts([("a", 20, 20), ("b", 60, 60), ("c", 90, 94), ("d", 200, 199)], known)
    assert counts_in_words(odd, "vllm", "ollama", known) == [
        "counts differ on 2 of 4 prompts by no rule: the vocabularies are equal, so something was added to them or "
        "left out"
    ]


def test_one_uncut_prompt_does_not_tell_a_template_from_a_tokeniser() -> None:
    counted = [("a", 60, 66), *((f"c{index}", 900 + 40 * index, 512) for index in range(9))]
    known = Known(contexts=(None, 512))

    (line, _) = counts_in_words(compare_counts(counted, known), "vllm", "ollama", known)
    assert line.endswith("on every uncut prompt: another chat template, BOS token, system prompt or tokeniser")


def test_the_cut_is_told_with_its_prompts_and_the_context_that_explains_it() -> None:
    planted = world(3, "oldest turns", limits=(FAR, 256), tell=True)
    side_by_side = sorted(planted.rows, key=lambda row: row[1])
    n = len(planted.cut[1])
    (line,) = counts_in_words(compare_counts(side_by_side, planted.known), "base", "cand")

    assert line.startswith(f"cand cut {n} of 48 prompts ({side_by_side[48 - n][0]} to {side_by_side[-1][0]}), one of ")
    assert line.endswith("; its context is 256 tokens")
    (line,) = counts_in_words(compare_counts(planted.rows, planted.known), "base", "cand")
    assert f" and {n - 3} more), one of them to 2" in line


@pytest.mark.parametrize("apart", [0, 1])
def test_prompts_of_one_length_that_another_tokeniser_counts_apart_were_not_cut(apart: int) -> None:
    """A template with a word in it: every prompt has 57 tokens here, and from 72 to 76 there."""
    rows = [(f"c{i}", 57, 72 + i % 5) for i in range(20)] + [("last", 57, 55)] * apart

    counts = compare_counts(rows)

    assert counts.kind in ("mixed", "offset")
    assert counts.cuts == ()


def test_an_engine_that_read_long_prompts_whole_did_not_cut_short_ones() -> None:
    """Half of the set is cut by the candidate to one level, which looks like a slope between two lengths."""
    rows = [(f"s{i}", 50 + i % 6, round(1.25 * (50 + i % 6)) + i % 4 - 2) for i in range(60)]
    rows += [(f"l{i}", 3000 + i % 6, 1023) for i in range(70)]

    assert [cut.side for cut in compare_counts(rows).cuts] == ["candidate"]
