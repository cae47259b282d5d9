"""What ``llmparity.lock`` says of drift: which shift was accepted for a pair, for whom that holds, which is proposed.

A margin belongs to weights, quantisation and kind of both engines. It does not belong to their versions: whether an
upgrade drifts is what a gate is asked, so a version that is another one now is told and refuses nothing.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pytest_llmparity.core.identity.ladder import LEAST_FORKS, Ladder, Rung
from pytest_llmparity.core.identity.quantization import same
from pytest_llmparity.core.sample import Identity

FACTOR: Final = 1.5
"""Times the upper bound of the measured shift: room for prompts unlike the measured ones."""
LEAST: Final = 0.005
"""Nats below which nobody is held: what rounding and batches do (``docs/calibrate.md``)."""
LOCK_FILE: Final = "llmparity.lock"
WEIGHTS: Final = ("digest", "revision")
"""Facts that say which weights an engine serves; a name does not."""
_COMMIT: Final = re.compile(r"[0-9a-f]{12,64}")
"""A revision that says which weights it is of; branches such as ``main`` are those of every model."""
_SHOWN: Final = 19
"""Characters of a digest that are shown: ``sha256:`` and twelve digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """An engine as far as a margin depends on it: its kind, and of its identity the facts below that are known.

    ``digest``, ``revision``, ``quantization``, ``model`` (without folders) and ``version``.
    """

    kind: str
    facts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, kind: str, identity: Identity, quantization: str | None) -> Party:
        """Return what is known of an engine; ``quantization`` is the normalised one, pinned or told."""
        facts = {name: identity.get(name) for name in (*WEIGHTS, "model", "version")}
        facts["model"] = without_folders(str(facts["model"] or ""))
        facts["quantization"] = quantization or identity.get("quantization")
        return cls(kind=kind, facts={name: str(value) for name, value in sorted(facts.items()) if value})

    def differs(self, live: Party) -> list[str]:
        """Return in what matters the engine that is there now is another one, a few words each."""
        differing = [] if self.kind == live.kind else [f"kind {self.kind} -> {live.kind}"]
        for name in (*WEIGHTS, "quantization"):
            before, now = self.facts.get(name), live.facts.get(name)
            if before and now and before != now and not (name == "quantization" and same(before, now)):
                differing.append(f"{name} {before[:_SHOWN]} -> {now[:_SHOWN]}")
        proven = "digest" in self.facts and "digest" in live.facts
        proven |= "revision" in live.facts and _COMMIT.fullmatch(self.facts.get("revision", "")) is not None
        before, now = self.facts.get("model"), live.facts.get("model")
        if not proven and before != now:  # only the name says which weights these are
            differing.append(f"model {before or 'not told'} -> {now or 'not told'}")
        return differing

    def upgraded(self, live: Party) -> str:
        """Say that the version is another one now, empty where it is the same or not known."""
        before, now = self.facts.get("version"), live.facts.get("version")
        return f"{before} -> {now}" if before and now and before != now else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The shift that was accepted for a pair of engines, by their names, and the measurement it comes from.

    ``shift``, ``estimate``, ``lower``, ``upper`` and ``floor`` (what the baseline shifts against itself) are nats.
    ``date`` is that of the measurement (``2026-11-28``), ``prompt_set`` the name of its prompts.
    """

    baseline: str
    candidate: str
    shift: float
    date: str
    estimate: float
    lower: float
    upper: float
    floor: float
    prompts: int
    groups: int
    prompt_set: str
    plugin: str
    of_baseline: Party
    of_candidate: Party

    def texts(self) -> list[tuple[str, str]]:
        """Return every text of it with its place in the lock file."""
        where = f"margins.{self.baseline}.{self.candidate}"
        sides = {"baseline": self.of_baseline, "candidate": self.of_candidate}
        facts = [
            (f"{where}.{side}.{name}", text) for side, party in sides.items() for name, text in party.facts.items()
        ]
        return [(f"{where}.prompt_set", self.prompt_set), *facts]

    def differs(self, baseline: Party, candidate: Party) -> list[str]:
        """Return in what these engines are not those it was accepted for, each with the engine's name."""
        parties = ((self.baseline, self.of_baseline, baseline), (self.candidate, self.of_candidate, candidate))
        return [f"{name}: {words}" for name, before, now in parties for words in before.differs(now)]

    def upgraded(self, baseline: Party, candidate: Party) -> list[str]:
        """Return whose version is another one now."""
        parties = ((self.baseline, self.of_baseline, baseline), (self.candidate, self.of_candidate, candidate))
        return [f"{name} {words}" for name, before, now in parties if (words := before.upgraded(now))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """Everything the lock says of drift."""

    margins: tuple[Accepted, ...] = ()
    ladders: tuple[Ladder, ...] = ()

    def margin(self, baseline: str, candidate: str) -> Accepted | None:
        """Return what was accepted for a pair, ``None`` where nothing was."""
        pairs = {(accepted.baseline, accepted.candidate): accepted for accepted in self.margins}
        return pairs.get((baseline, candidate))

    def without(self, engines: Collection[str]) -> Agreed:
        """Return the same without the margins of engines that are no more."""
        kept = tuple(m for m in self.margins if not {m.baseline, m.candidate} & set(engines))
        return dataclasses.replace(self, margins=kept)

    def accepting(self, accepted: Accepted) -> Agreed:
        """Return the same with this margin in place of what stood there for its pair."""
        pair = (accepted.baseline, accepted.candidate)
        others = [other for other in self.margins if (other.baseline, other.candidate) != pair]
        margins = sorted([*others, accepted], key=lambda each: (each.baseline, each.candidate))
        return dataclasses.replace(self, margins=tuple(margins))

    def ladder(self, identity: Identity) -> Ladder | None:
        """Return the ladder of the weights that an engine serves, ``None`` where nobody measured theirs."""
        served = weights_of(identity)
        return next((ladder for ladder in self.ladders if ladder.digest in served), None)

    def measuring(self, ladder: Ladder) -> Agreed:
        """Return the same with this ladder in place of what stood there for its model."""
        others = [other for other in self.ladders if other.digest != ladder.digest]
        return dataclasses.replace(self, ladders=tuple(sorted([*others, ladder], key=lambda each: each.key)))


def weights_of(identity: Identity) -> frozenset[str]:
    """Return the digests by which the weights are known that an engine serves as they are; empty where none are.

    That of the file, and where the server tells another one (Ollama's is of the manifest, which has the template in it
    too), the file's beside it. LoRA adapters make other weights of a file.
    """
    fact = identity.facts.get("digest")
    if fact is None or identity.get("adapters") not in (None, "", "none"):
        return frozenset()
    return frozenset({str(fact.value)} | ({fact.raw} if fact.raw.startswith("sha256:") else set()))


def without_folders(model: str) -> str:
    """Return a model's name without the folders of the server's machine.

    >>> without_folders("/srv/models/qwen3"), without_folders("Qwen/Qwen3-8B")
    ('qwen3', 'Qwen/Qwen3-8B')
    """
    if not (model.startswith("/") or (model[:1].isalpha() and model[1:3] == ":\\")):
        return model
    return model.replace("\\", "/").rstrip("/").rpartition("/")[2] or model


def proposed(upper: float) -> float:
    """Return the margin for a shift of at most ``upper`` nats, two digits that count, rounded up.

    >>> proposed(0.036), proposed(0.0402), proposed(0.0001), proposed(1.21)
    (0.054, 0.061, 0.005, 1.9)
    """
    margin = max(LEAST, FACTOR * upper)
    digits = 1 - math.floor(math.log10(margin))
    scale = 10.0**digits
    return round(math.ceil(round(margin * scale, 6)) / scale, digits)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMargin:
    """What a class of a ladder is held against, so that no coarser copy of it passes.

    ``margin`` is in nats or in forks per token. ``below`` names the coarser class at whose lower bound it ends, empty
    where there is room enough. ``alike`` are coarser classes that lie no higher than this one may, the nearest first:
    then there is no margin that the one keeps and the others do not, and ``margin`` is ``None``. ``most`` is what this
    one may do, ``least`` what the nearest of ``alike`` does at least.
    """

    margin: float | None
    below: str = ""
    alike: tuple[str, ...] = ()
    most: float = 0.0
    least: float = 0.0


def in_nats(ladder: Ladder, rung: Rung) -> ClassMargin:
    """Return the margin of a class for the shift."""
    others = [(other.quantization, other.lower) for other in ladder.coarser(rung)]
    return _held_below(proposed(rung.upper), rung.upper, others)


def in_forks(ladder: Ladder, rung: Rung, *, tag: str = "") -> ClassMargin | None:
    """Return the margin of a class for text, on all prompts or those of a tag; ``None`` where nobody measured it.

    Engines that part by less than :data:`~.ladder.LEAST_FORKS` are held to that, unless a coarser copy does too.
    """
    own = rung.parting(tag)
    if own is None:
        return None
    others = []
    for other in ladder.coarser(rung):
        if (parting := other.parting(tag)) is None:
            return None
        others.append((other.quantization, parting.least_forks))
    return _held_below(max(LEAST_FORKS, FACTOR * own.most_forks), own.most_forks, others)


def _held_below(wanted: float, most: float, others: Iterable[tuple[str, float]]) -> ClassMargin:
    by_bound = sorted(others, key=lambda other: other[1])
    alike = [(name, least) for name, least in by_bound if least <= most]
    if alike:
        return ClassMargin(margin=None, alike=tuple(name for name, _ in alike), most=most, least=alike[0][1])
    name, least = by_bound[0] if by_bound else ("", math.inf)
    return ClassMargin(margin=least, below=name, most=most) if least < wanted else ClassMargin(margin=wanted, most=most)
