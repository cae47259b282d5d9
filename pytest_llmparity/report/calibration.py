"""What ``llmparity calibrate`` measured, as lines for a terminal: a picture on one line, and what stands on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from pytest_llmparity.core.identity.agreed import FACTOR, LEAST, Accepted, in_forks, in_nats
from pytest_llmparity.core.identity.ladder import Ladder
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.printable import printable

DECADES: Final = (-4, 1)
"""The picture's ends as powers of ten: 0.0001 to 10 nats."""
WIDTH: Final = 60


def pair_lines(accepted: Accepted) -> Iterator[str]:
    """Yield a measured pair: who they are, how much was asked, the picture and its numbers."""
    for name, party in ((accepted.baseline, accepted.of_baseline), (accepted.candidate, accepted.of_candidate)):
        facts = [party.kind, *(party.facts[key] for key in ("version", "model", "quantization") if key in party.facts)]
        yield printable(f"{name}: {', '.join(facts)}")
    prompts, groups = explain.count(accepted.prompts, "prompt"), explain.count(accepted.groups, "group")
    yield f"{prompts} in {groups} ({printable(accepted.prompt_set)})"
    yield ""
    yield from picture(
        {"F": accepted.floor, "M": accepted.shift}, interval=(accepted.lower, accepted.estimate, accepted.upper)
    )
    yield ""
    yield f"  F floor   {explain.nats(accepted.floor)}: {printable(accepted.baseline)} against itself"
    between = f"between {explain.nats(accepted.lower)} and {explain.nats(accepted.upper)}"
    yield f"  x shift   {explain.nats(accepted.estimate)}, {between}"
    yield f"  M margin  {explain.nats(accepted.shift)} proposed: {_by(accepted.upper)}"
    if accepted.floor >= accepted.shift:
        yield "  the floor is above the margin, so nothing will FAIL: ask fewer requests at once, or without a cache"


def _by(upper: float) -> str:
    """Return how the margin that is proposed follows from the upper bound of the shift."""
    wanted = FACTOR * upper
    if wanted < LEAST:
        return f"the least there is; {FACTOR:g} times the upper bound would be {explain.nats(wanted)}"
    return f"{FACTOR:g} times the upper bound"


def ladder_lines(ladder: Ladder) -> Iterator[str]:
    """Yield a measured ladder: the picture, and every class with its numbers."""
    prompts, groups = explain.count(ladder.prompts, "prompt"), explain.count(ladder.groups, "group")
    yield printable(
        f"{ladder.model} ({ladder.digest[:19]}), copies made by {ladder.made_by}, served by {ladder.server}"
    )
    yield f"{prompts} in {groups} ({printable(ladder.prompt_set)})"
    yield ""
    letters = dict(zip("abcdefghijklmnopqrstuvwxyz", ladder.rungs, strict=False))
    yield from picture({letter: rung.shift for letter, rung in letters.items()})
    yield ""
    for letter, rung in letters.items():
        between = f"between {explain.nats(rung.lower)} and {explain.nats(rung.upper)}"
        bounds = f"at most {explain.percent(rung.most_forks)}"
        if rung.least_forks is not None:
            bounds = f"{explain.percent(rung.least_forks)} to {explain.percent(rung.most_forks)}"
        forks = f"{explain.percent(rung.forks)} of tokens fork ({bounds})"
        yield printable(f"  {letter} {rung.quantization:<8} {explain.nats(rung.shift)}, {between}; {forks}")
    yield from _alike(ladder)


def _alike(ladder: Ladder) -> Iterator[str]:
    """Yield which classes cannot be told from coarser ones, so that they have no margin; of tags which have one."""
    lines = []
    for check, margin_of in (("check.logprobs()", in_nats), ("check.text()", in_forks)):
        held = {rung.quantization: margin for rung in ladder.rungs if (margin := margin_of(ladder, rung)) is not None}
        without = [f"{name} (from {', '.join(margin.alike)})" for name, margin in held.items() if margin.alike]
        if without:
            lines.append(f"  {check} cannot tell and has no margin for: {'; '.join(without)}")
    apart = not lines
    by_tag = {tag: "none" for rung in ladder.rungs for tag in rung.tags}
    for tag in by_tag:
        held = {rung.quantization: margin for rung in ladder.rungs if (margin := in_forks(ladder, rung, tag=tag))}
        by_tag[tag] = ", ".join(name for name, margin in held.items() if not margin.alike) or "none"
    if by_tag:
        having = "; ".join(f"{explain.plain(tag, 30)} ({classes})" for tag, classes in by_tag.items())
        lines.append(f"  by tag check.text() has a margin for: {having}")
    if lines:
        yield ""
        yield from map(printable, lines)
    if not apart:
        yield "  more prompts in more groups tell classes apart that differ; or give a margin"


def picture(marks: Mapping[str, float], *, interval: tuple[float, float, float] | None = None) -> Iterator[str]:
    """Yield a logarithmic axis of nats with a letter at each value, and an interval with its estimate ``x``.

    Letters that would stand at the same place stand above one another.
    """
    line = [" "] * (WIDTH + 1)
    if interval is not None:
        lower, estimate, upper = map(_place, interval)
        line[lower : upper + 1] = "=" * (upper - lower + 1)
        line[lower], line[upper] = "[", "]"
        line[estimate] = "x"
    above: list[list[str]] = []
    for letter, value in marks.items():
        at = _place(value)
        rows = [row for row in (*above, line) if row[at] in " =[]"]
        if not rows:  # it stands on another one
            rows = [[" "] * (WIDTH + 1)]
            above.insert(0, rows[0])
        rows[-1][at] = letter
    first, last = DECADES
    step = WIDTH // (last - first)
    axis, scale = ["-"] * (WIDTH + 1), [" "] * (WIDTH + 8)
    for decade in range(first, last + 1):
        at = (decade - first) * step
        axis[at] = "|"
        text = f"{10.0**decade:g}"
        scale[at : at + len(text)] = text
    scale[0:6] = "0.0001"
    for row in (*above, line):
        yield f"  {''.join(row).rstrip()}"
    yield f"  {''.join(axis)}  nats"
    yield f"  {''.join(scale).rstrip()}"


def _place(value: float) -> int:
    first, last = DECADES
    if value <= 0.0:
        return 0
    share = (math.log10(value) - first) / (last - first)
    return round(WIDTH * min(1.0, max(0.0, share)))
