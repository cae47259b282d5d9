"""One model's ladder: how far its own copies lie from its unquantised weights, by class; where a shift stands on it.

A ladder belongs to the file it was measured on, known by the digest of its weights, and to no other model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pytest_llmparity.core.identity.quantization import PLAIN

NEAR: Final = 1.5
"""Times a rung that a shift may lie below the finest or above the coarsest copy and still be about it."""
FINEST: Final = "Q8_0"
"""The finest copy: what weights that are not quantised are held against."""
LEAST_FORKS: Final = 0.02
"""Forks per token below which nobody is held: 16-bit engines of one model part at 1 to 2 % of tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forks:
    """Forks per token of a copy on the prompts of one tag, with their bounds."""

    forks: float
    least_forks: float
    most_forks: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One copy: its class, its shift in nats with its bounds, its forks per token with theirs.

    ``tags`` has the forks on the prompts of each tag that was measured. A lock of an earlier version has neither these
    nor ``least_forks``.
    """

    quantization: str
    shift: float
    lower: float
    upper: float
    forks: float
    most_forks: float
    least_forks: float | None = None
    tags: Mapping[str, Forks] = field(default_factory=dict)

    def parting(self, tag: str = "") -> Forks | None:
        """Return the forks on all prompts, or those of a tag; ``None`` where they were not measured with bounds."""
        if tag:
            return self.tags.get(tag)
        if self.least_forks is None:
            return None
        return Forks(forks=self.forks, least_forks=self.least_forks, most_forks=self.most_forks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """The copies of one model, the finest first.

    ``digest`` is that of the unquantised file, ``model`` its name. ``server`` says by which server they were compared,
    ``made_by`` what made the copies; ``prompt_sha256`` is the digest of the prompt set, and ``max_tokens`` how long
    answers were at most: empty and 0 in a lock of an earlier version. The rest is as in
    ``core.identity.agreed.Accepted``.
    """

    digest: str
    model: str
    date: str
    server: str
    made_by: str
    prompts: int
    groups: int
    prompt_set: str
    plugin: str
    rungs: tuple[Rung, ...]
    prompt_sha256: str = ""
    max_tokens: int = 0

    @property
    def key(self) -> str:
        """What it is called in the lock: twelve digits of the digest."""
        return self.digest.removeprefix("sha256:")[:12]

    def texts(self) -> list[tuple[str, str]]:
        """Return every text of it with its place in the lock file."""
        names = ("model", "server", "made_by", "prompt_set")
        tags = dict.fromkeys(tag for rung in self.rungs for tag in rung.tags)
        return [
            *((f"ladders.{self.key}.{name}", str(getattr(self, name))) for name in names),
            *((f"ladders.{self.key}.tags", tag) for tag in tags),
        ]

    def rung(self, quantization: str | None) -> Rung | None:
        """Return the copy that weights of this class are held against, ``None`` where there is none.

        Weights that are not quantised are held against the finest copy of 8 bits: they drift less.
        """
        wanted = FINEST if quantization in PLAIN else quantization
        return next((rung for rung in self.rungs if rung.quantization == wanted), None)

    def coarser(self, rung: Rung) -> tuple[Rung, ...]:
        """Return the copies that shift further than this one."""
        return tuple(other for other in self.rungs if other.shift > rung.shift)


def place(shift: float, rungs: Sequence[Rung], nats: Sequence[str]) -> str:
    """Return the class that a shift is about, with its neighbours; ``nats`` has every rung's shift in words.

    Nearest is meant by ratio. Beyond either end of the ladder it says so.
    """
    ordered = sorted(zip(rungs, nats, strict=True), key=lambda pair: pair[0].shift)
    named = [f"{rung.quantization} ({words})" for rung, words in ordered]
    values = [max(rung.shift, 1e-9) for rung, _ in ordered]
    if shift * NEAR < values[0]:
        return f"less than {named[0]}, the finest copy"
    if shift > NEAR * values[-1]:
        return f"more than {named[-1]}, the coarsest copy"
    distances = [abs(math.log(shift / value)) for value in values]
    at = distances.index(min(distances))
    around = [named[beside] for beside in (at - 1, at + 1) if 0 <= beside < len(named)]
    if len(around) == 2:
        return f"about {named[at]}, between {around[0]} and {around[1]}"
    if not around:
        return f"about {named[at]}"
    return f"about {named[at]}, next to {around[0]}"
