"""Holding what was pinned against what a server is: held, contradicted, or nobody can say."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pytest_llmparity.core.identity.quantization import normalise, same, says_less
from pytest_llmparity.core.sample import SEVERAL, Fact, Identity

State = Literal["held", "contradicted", "unverified"]
Value = str | int | float | bool

SHORTEST_DIGEST: Final = 12
"""A pinned digest or commit may be cut to this many hexadecimal digits, as git and Ollama show them."""
BITS_TOLERANCE: Final = 0.01
"""Bits per weight are written with two digits behind the point."""

_WHO: Final = {
    "reported": "the server has",
    "file": "the model's files say",
    "declared": "the engine is started with",
    "probed": "a probe found",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PinFinding:
    """One pin against one fact. ``seen`` and ``source`` are ``None`` when nothing is known about the field.

    A fact that is only ``declared`` can contradict a pin, never confirm it: the configuration agreeing with itself
    says nothing about the server. Nor does one that says less than the pin (``GPTQ`` of ``GPTQ_INT4``).
    """

    field: str
    pinned: str | int | float
    seen: Value | None
    source: str | None
    state: State

    def describe(self) -> str:
        """Say in one line what was pinned, what was seen and where it was seen."""
        if self.state == "held":
            return f"{self.field} is {self.seen} ({self.source}) as pinned"
        if self.seen is None:
            return f"{self.field} is pinned but the server does not report it"
        if self.state == "unverified" and self.source == "declared":
            return f"{self.field} is pinned to {self.pinned} and only our own configuration says so"
        if self.state == "unverified":
            return f"{self.field} is pinned to {self.pinned} and {_WHO[self.source or 'reported']} {self.seen}, no more"
        return f"{self.field} is pinned to {self.pinned} but {_WHO[self.source or 'reported']} {self.seen}"


def hold(pin: Mapping[str, str | int | float], identity: Identity) -> list[PinFinding]:
    """Return one finding per pin, in the order they were written; :func:`agree` says what is equal."""
    findings = []
    for field, pinned in pin.items():
        fact = identity.facts.get(field)
        state: State
        if fact is None:
            state = "unverified"
        elif not agree(field, pinned, seen := _as_seen(field, fact)):
            state = "contradicted"
        else:
            vague = _RULES.get(field) is same and says_less(str(seen), str(pinned))
            vague |= fact.source == "probed" and str(seen) != str(pinned)
            state = "unverified" if fact.source == "declared" or vague else "held"
        value, source = (None, None) if fact is None else (fact.value, fact.source)
        findings.append(PinFinding(field=field, pinned=pinned, seen=value, source=source, state=state))
    return findings


def verdict(findings: Sequence[PinFinding], *, strict: bool) -> tuple[list[str], list[str]]:
    """Return what makes an engine another one than was pinned, and what could not be confirmed: a sentence each.

    With ``strict`` a pin that nothing but the configuration confirms is among the former.
    """
    wrong = [finding.describe() for finding in findings if finding.state == "contradicted"]
    unseen = [finding for finding in findings if finding.state == "unverified"]
    if strict:
        wrong += [f"{finding.describe()} (strict_pins)" for finding in unseen]
    return wrong, [f"pin {finding.field} unverified, the server does not report it" for finding in unseen]


def agree(field: str, pinned: Value, seen: Value) -> bool:
    """Tell whether what was seen is what was pinned.

    Quantisations and cache types are compared by their normalised names, where one side says more than the other as far
    as both do. Versions without a local part (``+cpu``) that is not pinned. Digests and commits without their
    ``sha256:`` and case, and a pinned one may be cut to 12 digits. Bits per weight may differ by 0.01. Tensor types in
    any order. Of sampling defaults those that are pinned. Slots as far as a probe saw them. A device is what holds the
    pinned words, in any case. Format, attention and speculative decoding in
    any case, adapters in any order, all other fields as text.
    """
    wanted, reported = str(pinned).strip(), str(seen).strip()
    return wanted == reported or (field in _RULES and _RULES[field](wanted, reported))


def changes(before: Identity, now: Identity) -> list[str]:
    """Return which facts a server itself reported before and now, and that are not the same: a clause each."""
    both = sorted(before.facts.keys() & now.facts.keys())
    pairs = [(field, before.facts[field], now.facts[field]) for field in both]
    return [
        f"{field} was {old.value} and is {new.value}"
        for field, old, new in pairs
        if old.source == new.source == "reported" and not agree(field, old.value, new.value)
    ]


def unlike(first: Identity, other: Identity) -> tuple[list[str], list[str]]:
    """Return in what two starts of one engine are two engines, and what else is to be known of them: a clause each.

    Whoever said a fact, it counts: the files of another machine are other files, whatever their names are. The device
    is of the machine, and how many requests are answered at once changes no answer by itself: they are told, or not.
    What is known of one of the two only is told as well.
    """
    apart = {
        field: f"{field} is {first.facts[field].value} and {other.facts[field].value}"
        for field in sorted(first.facts.keys() & other.facts.keys() - {"slots"})
        if not _both_ways(field, first.facts[field].value, other.facts[field].value)
    }
    remarks = [clause for field, clause in apart.items() if field == "device"]
    if alone := sorted((first.facts.keys() ^ other.facts.keys()) - {"slots", "device"}):
        remarks.append(f"{', '.join(alone)} can be told of one of them only and is not compared")
    return [clause for field, clause in apart.items() if field != "device"], remarks


def _both_ways(field: str, first: Value, other: Value) -> bool:
    return agree(field, first, other) and agree(field, other, first)


def _any_case(pinned: str, seen: str) -> bool:
    return pinned.casefold() == seen.casefold()


def _as_seen(field: str, fact: Fact) -> Value:
    """Return a fact's value as it was reported where normalising it has lost something (FP8's E5M2)."""
    return fact.raw if field == "quantization" and normalise(fact.raw) == fact.value else fact.value


def _version(pinned: str, seen: str) -> bool:
    return "+" not in pinned and pinned == seen.partition("+")[0]


def _hexadecimal(pinned: str, seen: str) -> bool:
    short, long = (text.lower().removeprefix("sha256:") for text in (pinned, seen))
    cut = len(short) >= SHORTEST_DIGEST and re.fullmatch(r"[0-9a-f]+", long) is not None and long.startswith(short)
    return short == long or cut


def _bits(pinned: str, seen: str) -> bool:
    try:
        return abs(float(pinned) - float(seen)) <= BITS_TOLERANCE + 1e-9
    except ValueError:
        return pinned == seen


def _counts(pinned: str, seen: str) -> bool:
    return sorted(pinned.split()) == sorted(seen.split())


def _sampling(pinned: str, seen: str) -> bool:
    try:
        wanted, there = json.loads(pinned), json.loads(seen)
    except ValueError:
        return pinned == seen
    if not isinstance(wanted, dict) or not isinstance(there, dict):
        return bool(wanted == there)
    return all(name in there and _number(value, there[name]) for name, value in wanted.items())


def _number(pinned: object, seen: object) -> bool:
    if isinstance(pinned, (int, float)) and isinstance(seen, (int, float)):
        return math.isclose(pinned, seen, rel_tol=1e-5, abs_tol=1e-9)
    return pinned == seen


def _in_any_order(pinned: str, seen: str) -> bool:
    return sorted(part.strip() for part in pinned.split(",")) == sorted(part.strip() for part in seen.split(","))


def _within(pinned: str, seen: str) -> bool:
    words = rf"(?<!\w){re.escape(pinned.casefold())}(?!\w)"  # an L40S is no L4
    return pinned != "" and re.search(words, seen.casefold()) is not None


def _at_once(pinned: str, seen: str) -> bool:
    return seen == SEVERAL and pinned.isdecimal() and int(pinned) > 1


_RULES: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "version": _version,
    "quantization": same,
    "kv_cache": same,
    "digest": _hexadecimal,
    "image_digest": _hexadecimal,
    "template_sha256": _hexadecimal,
    "tokenizer_sha256": _hexadecimal,
    "revision": _hexadecimal,
    "bits_per_weight": _bits,
    "tensor_types": _counts,
    "sampling_defaults": _sampling,
    "device": _within,
    "slots": _at_once,
    "format": _any_case,
    "attention": _any_case,
    "adapters": _in_any_order,
    "speculative": _any_case,
}
