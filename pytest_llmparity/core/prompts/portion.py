"""A portion of the prompts, for a run that is to be short: those with a tag, a sample of them, or both. Pure."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_llmparity.core.prompts import Case, PromptSet

_SEED: Final = "llmparity sample"
"""The same in every run, so that a sample is one set of prompts and not another one each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """Which prompts of each set are asked: those that have one of the ``tags``, and ``most`` so many of these.

    Without either it is all of them, and false.
    """

    tags: tuple[str, ...] = ()
    most: int | None = None

    def __bool__(self) -> bool:
        return bool(self.tags) or self.most is not None

    @property
    def words(self) -> tuple[str, ...]:
        """The words of a command line that ask for it.

        >>> Portion(tags=("refund",), most=20).words
        ('--parity-tag', 'refund', '--parity-sample', '20')
        """
        sample = () if self.most is None else ("--parity-sample", str(self.most))
        return (*(word for tag in self.tags for word in ("--parity-tag", tag)), *sample)

    def __str__(self) -> str:
        return " ".join(self.words)

    def of(self, prompts: PromptSet) -> PromptSet:
        """Return the set with these prompts alone, in its own order; with the digest of a set of its own.

        What is left out is its ``rest``. A set that has nothing to leave out is returned as it is.
        """
        chosen = [case for case in prompts.cases if self.has(case)]
        if self.most is not None and len(chosen) > self.most:
            drawn = {case.id for case in sample(chosen, self.most)}
            chosen = [case for case in chosen if case.id in drawn]
        if len(chosen) == len(prompts.cases):
            return prompts
        ids = {case.id for case in chosen}
        rest = tuple(case for case in prompts.cases if case.id not in ids)
        return PromptSet(name=prompts.name, cases=tuple(chosen), rest=rest)

    def has(self, case: Case) -> bool:
        """Whether a prompt has one of the tags, or none is asked for."""
        return not self.tags or not set(self.tags).isdisjoint(case.tags)

    def in_words(self, prompts: PromptSet) -> str:
        """Return how many of how many prompts a set has left as it was declared, and which; empty where it has all.

        >>> case = Case(id="a", prompt="?", tags=("poem",))
        >>> Portion(tags=("poem",)).in_words(PromptSet(name="p", cases=(case,), rest=(Case(id="b", prompt="?"),)))
        '1 of 2 prompts, tag poem'
        """
        if not prompts.rest:
            return ""
        tags = f"tag{'s' if len(self.tags) > 1 else ''} {' or '.join(self.tags)}" if self.tags else ""
        sampled = any(self.has(case) for case in prompts.rest)
        which = " of ".join(filter(None, ["sample" if sampled else "", tags]))
        return f"{len(prompts.cases)} of {len(prompts.cases) + len(prompts.rest)} prompts, {which}"


ALL: Final = Portion()
"""Every prompt."""


def sample(cases: Sequence[Case], most: int) -> list[Case]:
    """Return so many of the cases, or all: of each tag as many as its share, of as many groups as there can be.

    The first tag of a case counts, none is a tag too. Seats are dealt out by Sainte-Laguë's method (each next one to
    the tag with the largest share per 1, 3, 5, … seats); tags too small for a seat of their own are drawn from
    together. Cases of one group are one piece of evidence, so a second one of a group comes after a first one of every
    other. What is drawn depends on the ids and groups of the cases alone, not on their order.
    """
    by_tag: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_tag[case.tags[0] if case.tags else ""].append(case)
    strata: dict[str | None, list[Case]] = defaultdict(list)
    for tag, tagged in by_tag.items():
        strata[tag if 2 * len(tagged) * most >= len(cases) else None] += tagged
    seats = [
        ((place + 0.5) / len(tagged), _drawn(str(tag)), case)
        for tag, tagged in strata.items()
        for place, case in enumerate(_spread(tagged))
    ]
    return [case for _, _, case in sorted(seats, key=lambda seat: seat[:2])[:most]]


def _spread(cases: Iterable[Case]) -> list[Case]:
    """Return cases in the order they are drawn: one of each group, then a second one of each, and so on."""
    by_group: dict[str, list[Case]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: _drawn(case.id)):
        by_group[case.group].append(case)
    rounds = ((place, _drawn(group), case) for group, own in by_group.items() for place, case in enumerate(own))
    return [case for _, _, case in sorted(rounds, key=lambda drawn: drawn[:2])]


def _drawn(name: str) -> bytes:
    return hashlib.sha256(f"{_SEED}/{name}".encode()).digest()
