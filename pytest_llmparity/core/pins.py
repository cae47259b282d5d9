"""Holding what was pinned against what a server is: held, contradicted, or nobody can say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pytest_llmparity.core.quantization import normalise
from pytest_llmparity.core.sample import Identity

State = Literal["held", "contradicted", "unverified"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PinFinding:
    """One pin against one fact. ``seen`` and ``source`` are ``None`` when nothing is known about the field.

    A fact that is only ``declared`` can contradict a pin, never confirm it: the configuration agreeing with itself
    says nothing about the server.
    """

    field: str
    pinned: str | int | float
    seen: str | int | float | bool | None
    source: str | None
    state: State

    def describe(self) -> str:
        """Say in one line what was pinned, what was seen and where it was seen."""
        if self.state == "held":
            return f"{self.field} {self.seen} ({self.source}) as pinned"
        if self.seen is None:
            return f"{self.field} pinned to {self.pinned}, but the server does not say"
        if self.state == "unverified":
            return f"{self.field} pinned to {self.pinned}, and only our own configuration says so"
        return f"{self.field} pinned to {self.pinned}, but {self.source} as {self.seen}"


def hold(pin: Mapping[str, str | int | float], identity: Identity) -> list[PinFinding]:
    """Return one finding per pin, in the order they were written.

    Quantisations are compared by their normalised names, digests without their ``sha256:`` prefix and case, everything
    else as text.
    """
    findings = []
    for field, pinned in pin.items():
        fact = identity.facts.get(field)
        state: State
        if fact is None:
            state = "unverified"
        elif _plain(field, fact.value) != _plain(field, pinned):
            state = "contradicted"
        else:
            state = "unverified" if fact.source == "declared" else "held"
        findings.append(
            PinFinding(
                field=field,
                pinned=pinned,
                seen=None if fact is None else fact.value,
                source=None if fact is None else fact.source,
                state=state,
            )
        )
    return findings


def _plain(field: str, value: str | int | float | bool) -> str:
    text = str(value).strip()
    if field == "quantization":
        return normalise(text)
    if field.endswith(("digest", "sha256")):
        return text.lower().removeprefix("sha256:")
    return text
