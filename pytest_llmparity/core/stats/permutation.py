"""Whether two engines draw their answers alike: a permutation test within prompts over the beginnings they share."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_llmparity.core.late import distance, np

if TYPE_CHECKING:
    from pytest_llmparity.core.late import Floats

DRAWS: Final = 1_999
"""Permutations; with what was observed 2,000, so a p-value is a multiple of 0.0005."""

Answers = Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How alike answers to one prompt are, as the share of the longer text that two have in common at their beginning.

    ``within`` is the mean over pairs of one engine, ``across`` over pairs of two. ``p_value`` is that of "both engines
    draw from the same distribution". ``copies`` says whether no engine ever gave two answers that differ: they are
    then repetitions, and no draws.
    """

    within: float
    across: float
    p_value: float
    copies: bool


def difference(prompts: Sequence[tuple[Answers, Answers]], *, seed: int = 0) -> Difference:
    """Test whether two engines' answers, given by prompt, could as well be each other's.

    The statistic is the squared maximum mean discrepancy of the shared-prefix kernel, added up over prompts; answers
    are permuted within their prompt only, because between prompts they differ whoever gives them (Gao, Liang, Guestrin,
    *Model Equality Testing*, arXiv 2410.20247, permutes across them and compares texts position by position, which
    sees less). p is (1 + draws at least as far apart) / (1 + draws) (Phipson, Smyth, arXiv 1603.05766), never 0.
    Raises ``ValueError`` without prompts, or for a prompt with fewer than two answers of an engine.
    """
    if not prompts or any(min(len(ours), len(theirs)) < 2 for ours, theirs in prompts):
        raise ValueError("a test of sampled answers needs prompts with two answers or more of each engine")
    rng = np.random.default_rng(seed)
    apart = np.zeros(DRAWS + 1)
    within: list[float] = []
    across: list[float] = []
    for ours, theirs in prompts:
        alike = _kernel([*ours, *theirs])
        weights = np.repeat([1.0 / len(ours), -1.0 / len(theirs)], [len(ours), len(theirs)])
        drawn = np.vstack([weights, rng.permuted(np.tile(weights, (DRAWS, 1)), axis=1)])
        apart += np.einsum("di,ij,dj->d", drawn, alike, drawn, optimize=True)
        mine = weights > 0
        of_one = [*_pairs(alike[np.ix_(mine, mine)]), *_pairs(alike[np.ix_(~mine, ~mine)])]
        within.append(float(np.mean(of_one)))
        across.append(float(alike[np.ix_(mine, ~mine)].mean()))
    # What is as far apart but for the rounding of sums counts as far.
    further = int(np.count_nonzero(apart[1:] >= apart[0] - 1e-9 * max(1.0, abs(float(apart[0])))))
    return Difference(
        within=float(np.mean(within)),
        across=float(np.mean(across)),
        p_value=(1 + further) / (1 + DRAWS),
        copies=all(len(set(answers)) == 1 for both in prompts for answers in both),
    )


def _kernel(texts: Sequence[str]) -> Floats:
    """Return for every two texts the share of the longer one that they have in common at the beginning; 1 if equal."""
    alike = np.eye(len(texts))
    for left, right in itertools.combinations(range(len(texts)), 2):
        shared = distance.Prefix.normalized_similarity(texts[left], texts[right])
        alike[left, right] = alike[right, left] = shared
    return alike


def _pairs(alike: Floats) -> Floats:
    pairs: Floats = alike[np.triu_indices(len(alike), k=1)]
    return pairs
