"""What the lengths of answers let a verdict on forks see, before anything is asked."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pytest_llmparity.core.checks.family import WEIGHTS
from pytest_llmparity.core.checks.tags import Tags, least_of_tag, tags_of
from pytest_llmparity.core.evidence import Tokens
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.stats.bounds import MOST
from pytest_llmparity.core.stats.hazard import can_pass
from pytest_llmparity.core.stats.power import Settled, settled
from pytest_llmparity.core.stats.sequential import least_units
from pytest_llmparity.core.words import explain

_SHARE: Final = WEIGHTS["text"] / sum(WEIGHTS.values())
"""Of the error rate FAIL gets, in a test of two engines with this check alone."""
_CAUGHT: Final = 1.6
"""Margins of drift that the plan says how often a gate catches: 8 % where 5 % are allowed."""
_NOTICED: Final = 0.05
"""By how much more of a share of runs a larger design helps."""
_MORE: Final = 4
"""Times the prompts, or the groups, that the plan compares a prompt set with."""
_ALPHA: Final = 0.05


@dataclass(frozen=True, slots=True)
class Lengths:
    """How many tokens of each answer are compared at most: ``horizon``, or its limit of tokens where that is less."""

    tokens: tuple[int, ...]
    horizon: int

    @classmethod
    def of(cls, tokens: Tokens, *, cases: int, horizon: int) -> Lengths:
        """Return the lengths of answers that may have so many ``tokens``; without a limit as long as the horizon."""
        return cls(tuple(int(min(horizon, most)) for most in tokens) or (horizon,) * cases, horizon)

    def __str__(self) -> str:
        least, most = min(self.tokens), max(self.tokens)
        words = explain.count(most, "token") if least == most else f"{least} to {most} tokens"
        return f"{words} (max_tokens)" if least < self.horizon else words

    @property
    def bound(self) -> str:
        """How far these answers bound the drift if none parts, in words."""
        prompts = explain.count(len(self.tokens), "prompt")
        of_each = f" of {self}" if min(self.tokens) < self.horizon else ""
        return f"{prompts}{of_each} bound the drift at {explain.percent(-math.log(_ALPHA) / sum(self.tokens))}"

    def never(self, margin: float, *, held: str) -> str | None:
        """Return a sentence that these prompts cannot pass and how many it takes, ``None`` where they can.

        They can if a run in which no answer parts would pass. ``held`` is the margin in words.
        """
        if can_pass(sum(self.tokens), margin, _ALPHA):
            return None
        needed = math.floor(-math.log(_ALPHA) / (margin * statistics.fmean(self.tokens))) + 1
        return (
            f"{explain.count(len(self.tokens), 'prompt')} of {self} can never pass a margin of {held}, not even "
            f"without a fork; it takes {needed}"
        )

    def never_in_sequence(self, margin: float, *, groups: int, held: str) -> str | None:
        """Return what :meth:`never` does, of a sequential run: it counts one prompt of each of the ``groups``."""
        least = least_units(margin, most=max(self.tokens), alpha=_ALPHA)
        if least is not None and least <= groups:
            return None
        needed = f"more than {MOST:,} groups" if least is None else str(least)
        return (
            f"{explain.count(groups, 'group')} of prompts, one of each with {self}, can never pass a margin of {held} "
            f"in a sequential run, not even without a fork; it takes {needed}"
        )

    def seldom_caught(self, sizes: Sequence[int], margin: float, *, given: bool) -> str:
        """Say how seldom groups of these sizes catch 1.6 margins; empty where in half the runs or more.

        ``given``: whether the margin is, or only counted with.
        """
        larger = _CAUGHT * margin
        if larger >= 1.0:
            return ""
        length = max(1, round(statistics.fmean(self.tokens)))

        def of(*numbers: int) -> Settled:
            return settled(numbers, margin=margin, passing=margin / 2, failing=larger, horizon=length, share=_SHARE)

        now = of(*sizes)
        if now.caught >= 0.5:
            return ""
        longer, wider = of(*(_MORE * size for size in sizes)), of(*(_MORE * tuple(sizes)))
        longer_helps = longer.caught >= (now.caught + wider.caught) / 2 and longer.caught - now.caught >= _NOTICED
        wider_helps = max(wider.caught - now.caught, wider.passes - now.passes) >= _NOTICED
        times = f"{_MORE} times as many"
        prompts = f"({times}: {_hundreds(longer.caught)}, {_hundreds(longer.passes)})"
        more = f"({times}: {_hundreds(wider.caught)}, {_hundreds(wider.passes)})"
        if longer_helps:
            advice = f"more prompts in them help {prompts}, {'and so do ' if wider_helps else 'not '}more groups {more}"
        elif wider_helps:
            advice = f"more prompts in them do not help {prompts}, more groups do {more}"
        else:
            advice = f"neither more prompts in them {prompts} nor more groups {more} help"
        at = "" if given else f" (margin {explain.percent(margin)})"
        return (
            f"with {len(sizes)} groups {explain.percent(larger)} drift is caught in {_hundreds(now.caught)} of 100 "
            f"runs, {explain.percent(margin / 2)} passes in {_hundreds(now.passes)}{at}; {advice}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastOfTag:
    """How many groups of prompts a tag takes for a verdict of its own.

    At a ``margin``, where the ``longest`` answer has so many tokens that are compared.
    """

    margin: float
    longest: int
    sequential: bool

    @property
    def groups(self) -> int | None:
        """How many groups of prompts it takes, ``None`` where that is not known."""
        return least_of_tag(self.margin, self.longest, sequential=self.sequential)

    def tags(self, prompts: PromptSet) -> Tags:
        """Return the tags of a prompt set by whether they have enough."""
        least = self.groups
        return tags_of(prompts, lambda sizes: least is not None and len(sizes) >= least)

    @property
    def wanted(self) -> str:
        """What a tag takes, in words."""
        least = self.groups
        at = f"at a margin of {margin_percent(self.margin)} over {explain.count(self.longest, 'token')}"
        if least is None and self.sequential:
            return f"more than {MOST:,} groups of prompts {at}"
        if least is None:
            return f"a smaller margin, because {at} few prompts fail honest engines too often"
        return f"{explain.count(least, 'group')} of prompts {at}"


def margin_percent(value: float) -> str:
    """Return a margin as :func:`~.explain.percent` does, one that would be 0 % there with two digits that count.

    >>> margin_percent(0.05), margin_percent(0.00002), margin_percent(0.00000123)
    ('5 %', '0.002 %', '0.00012 %')
    """
    points = 100 * value
    if not 0.0 < points < 0.005:
        return explain.percent(value)
    decimals = 1 - math.floor(math.log10(points))
    return f"{points:.{decimals}f}".rstrip("0") + " %"


def _hundreds(share: float) -> int:
    return round(100 * share)
