"""The permutation test of sampled answers: exact where it can be, its size, and what it sees."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from pytest_llmparity.core.stats.permutation import DRAWS, difference


def apart(ours: list[str], theirs: list[str]) -> float:
    """Return the statistic by its definition: means of the kernel within, less twice the mean across."""

    def alike(left: str, right: str) -> float:
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
        return common / max(len(left), len(right)) if left or right else 1.0

    def mean(first: list[str], second: list[str]) -> float:
        return sum(alike(left, right) for left in first for right in second) / len(first) / len(second)

    return mean(ours, ours) + mean(theirs, theirs) - 2 * mean(ours, theirs)


def test_the_p_value_is_that_of_all_permutations() -> None:
    ours, theirs = ["abcd", "abce", "abx"], ["xyz", "xyw", "abq"]
    every = [ours[i] for i in range(3)] + theirs
    seen = apart(ours, theirs)
    splits = [
        ([every[i] for i in chosen], [every[i] for i in range(6) if i not in chosen])
        for chosen in itertools.combinations(range(6), 3)
    ]
    exact = sum(apart(*split) >= seen - 1e-12 for split in splits) / len(splits)

    assert difference([(ours, theirs)]).p_value == pytest.approx(exact, abs=4 * math.sqrt(exact / DRAWS))


def test_how_alike_answers_are_is_a_share_of_the_longer_text() -> None:
    seen = difference([(["ab", "ab"], ["abcd", "ax"]), (["", ""], ["", "y"])])

    within = [(1.0 + 0.25) / 2, (1.0 + 0.0) / 2]  # of two pairs each: ours, theirs
    across = [(0.5 + 0.5 + 0.5 + 0.5) / 4, (1.0 + 0.0 + 1.0 + 0.0) / 4]
    assert seen.within == pytest.approx(np.mean(within))
    assert seen.across == pytest.approx(np.mean(across))
    assert not seen.copies


def test_engines_that_never_say_the_same_are_told_apart_and_p_is_never_zero() -> None:
    seen = difference([([f"a{i}{n}" for i in range(5)], [f"b{i}{n}" for i in range(5)]) for n in range(8)])

    assert seen.p_value == 1 / (1 + DRAWS)
    assert seen.across == 0.0


def test_repetitions_are_called_copies() -> None:
    assert difference([(["a"] * 3, ["b"] * 3), (["c"] * 3, ["c"] * 3)]).copies
    assert not difference([(["a"] * 3, ["b"] * 3), (["c"] * 3, ["c", "c", "d"])]).copies


def test_numbers_of_answers_may_differ_and_the_same_answers_give_the_same_number() -> None:
    prompts = [(["ab", "ac", "ad"], ["ab", "xy"]), (["q", "r"], ["q", "r", "s", "t"])]

    assert difference(prompts, seed=3) == difference(prompts, seed=3)
    assert difference([(["a", "a"], ["a", "a"])]).p_value == 1.0


@pytest.mark.parametrize("prompts", [[], [(["a"], ["b", "c"])]])
def test_without_two_answers_of_each_there_is_no_test(prompts: list[tuple[list[str], list[str]]]) -> None:
    with pytest.raises(ValueError, match="two answers or more of each engine"):
        difference(prompts)


@pytest.mark.slow
@pytest.mark.parametrize(("tilt", "least", "most"), [(0.0, 0.0, 0.05), (0.8, 0.35, 1.0)])
def test_size_and_power_on_toy_engines(tilt: float, least: float, most: float) -> None:
    """10 prompts, 8 answers each of 12 tokens out of four, which the second engine draws by tilted odds; 100 draws."""
    rng = np.random.default_rng(6)
    runs = 100
    rejected = 0
    for _ in range(runs):
        prompts = []
        for _ in range(10):
            odds = rng.dirichlet(np.ones(4) * 0.5, size=12)
            tilted = odds ** (1 + tilt)
            drawn = []
            for weights in (odds, tilted / tilted.sum(axis=1, keepdims=True)):
                below = weights.cumsum(axis=1)[
                    :, :3
                ]  # by inversion: ``choice`` of each place takes as long as the test
                letters = (rng.random((8, 12, 1)) > below).sum(axis=2)
                drawn.append(["".join("abcd"[letter] for letter in row) for row in letters])
            prompts.append((drawn[0], drawn[1]))
        rejected += difference(prompts).p_value < 0.05

    slack = 3 * math.sqrt(0.05 * 0.95 / runs)
    assert least <= rejected / runs <= most + slack
