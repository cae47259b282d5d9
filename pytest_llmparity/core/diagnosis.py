"""What differs underneath two engines' answers, layer by layer, from what they say they are down to their weights.

Everything here is evidence that was gathered anyway. It says what *differs*; nothing in it is called the cause, because
that takes an experiment that removes the difference (DESIGN 7).
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pytest_llmparity.core import explain
from pytest_llmparity.core.capabilities import CUTS
from pytest_llmparity.core.checks.base import EngineEvidence, Evidence
from pytest_llmparity.core.checks.gathered import answers
from pytest_llmparity.core.compare.json import key_order, parse_json
from pytest_llmparity.core.pins import agree
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import Completion

PROPERTY_ORDER: Final = "property order"
"""How the line begins that says an engine answers in another key order than declared."""
SLOPE_STEP: Final = 0.005
"""Relative difference in tokens per token below which a slope is rounding, not another tokeniser."""
CUT_SHARE: Final = 0.10
"""A count this far below what the other prompts predict is a cut prompt …"""
CUT_TOKENS: Final = 8
"""… and at least this many tokens, so that short prompts' noise is not one."""
_FIT_CASES: Final = 400
"""Prompts the line is fitted to; the median of their pairwise slopes needs no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How the candidate's prompt token counts relate to the baseline's.

    ``kind``: ``equal``; ``offset`` (the same number more or fewer on every prompt: template, BOS or system prompt);
    ``slope`` (in proportion to length: tokeniser); ``mixed`` (some prompts differ, by no rule); ``unknown``.
    ``offset`` is in tokens, ``slope`` candidate tokens per baseline token. ``cut`` lists cases whose count falls short
    of what the others predict, on the engine ``cut_side``. ``differing`` counts prompts whose counts differ, of ``n``.
    """

    kind: Literal["equal", "offset", "slope", "mixed", "unknown"]
    n: int
    differing: int = 0
    offset: int = 0
    slope: float = 1.0
    cut: tuple[str, ...] = ()
    cut_side: Literal["baseline", "candidate"] = "candidate"
    worst_cut: tuple[int, int] = (0, 0)


def compare_counts(rows: Sequence[tuple[str, int, int]]) -> Counts:
    """Relate counts, given as (case, baseline's, candidate's), by a line through the medians (METHODS 9).

    The line is Theil and Sen's (median of pairwise slopes), so up to a quarter of the prompts may be cut without moving
    it. A prompt far below the line was cut.
    """
    if not rows:
        return Counts(kind="unknown", n=0)
    differing = sum(ours != theirs for _, ours, theirs in rows)
    if not differing:
        return Counts(kind="equal", n=len(rows))
    offset, offset_rows = Counter(theirs - ours for _, ours, theirs in rows).most_common(1)[0]
    slope = 1.0
    if 2 * offset_rows <= len(rows):
        slope = _slope([(ours, theirs) for _, ours, theirs in rows])
    level = statistics.median(theirs - slope * ours for _, ours, theirs in rows)
    if slope == 1.0:
        level = offset
    side, cut = _cuts(rows, slope, level)
    names = {case for case, _, _ in cut}
    whole = [(ours, theirs) for case, ours, theirs in rows if case not in names]
    kind: Literal["equal", "offset", "slope", "mixed"]
    if all(theirs - ours == offset for ours, theirs in whole):
        kind, slope = ("offset" if offset else "equal"), 1.0
    elif abs(slope - 1) > SLOPE_STEP:
        kind, offset = "slope", round(level)
    else:
        kind, offset, slope = "mixed", 0, 1.0
    worst = min(cut, key=lambda row: min(row[1:]) / max(row[1:]), default=None)
    return Counts(
        kind=kind,
        n=len(rows),
        differing=differing,
        offset=offset,
        slope=slope,
        cut=tuple(case for case, _, _ in cut),
        cut_side=side,
        worst_cut=(0, 0) if worst is None else (worst[1], worst[2]),
    )


def _slope(points: Sequence[tuple[int, int]]) -> float:
    step = max(1, len(points) // _FIT_CASES)
    used = sorted(points)[::step]
    slopes = [
        (used[j][1] - used[i][1]) / (used[j][0] - used[i][0])
        for i in range(len(used))
        for j in range(i + 1, len(used))
        if used[j][0] != used[i][0]
    ]
    found = statistics.median(slopes) if slopes else 1.0
    return found if found > 0 else 1.0


def _cuts(
    rows: Sequence[tuple[str, int, int]], slope: float, level: float
) -> tuple[Literal["baseline", "candidate"], list[tuple[str, int, int]]]:
    """Return the engine that cut and the rows it cut: counts far below what the line through the others predicts."""
    by_candidate = [row for row in rows if _short(row[2], slope * row[1] + level)]
    by_baseline = [row for row in rows if _short(row[1], (row[2] - level) / slope)]
    if len(by_baseline) > len(by_candidate):
        return "baseline", by_baseline
    return "candidate", by_candidate


def _short(seen: int, expected: float) -> bool:
    return expected - seen > max(CUT_TOKENS, CUT_SHARE * expected)


def counts_in_words(counts: Counts, baseline: str, candidate: str) -> list[str]:
    """Return what the counts say, one sentence per finding; empty when they are equal or unknown."""
    lines: list[str] = []
    if counts.kind == "offset":
        more = "more" if counts.offset > 0 else "fewer"
        scope = "every uncut prompt" if counts.cut else "every prompt"
        lines.append(
            f"{candidate} counts {explain.count(abs(counts.offset), 'token')} {more} than {baseline} on {scope}: "
            "another chat template, BOS token or system prompt"
        )
    if counts.kind == "slope":
        more = "more" if counts.slope > 1 else "fewer"
        lines.append(
            f"{candidate} counts {explain.percent(abs(counts.slope - 1))} {more} tokens than {baseline} for the same "
            "text: another tokeniser"
        )
    if counts.kind == "mixed":
        lines.append(
            f"counts differ on {counts.differing} of {explain.count(counts.n, 'prompt')} by no rule: "
            "a tokeniser that treats some text differently"
        )
    if counts.cut:
        name = candidate if counts.cut_side == "candidate" else baseline
        ours, theirs = counts.worst_cut
        seen, other = (theirs, ours) if counts.cut_side == "candidate" else (ours, theirs)
        lines.append(
            f"{name} cut {len(counts.cut)} of {explain.count(counts.n, 'prompt')}, one of them to {seen} tokens where "
            f"the other engine counts {other}"
        )
    return lines


def prompt_counts(evidence: Evidence, candidate: EngineEvidence) -> list[tuple[str, int, int]]:
    """Return (case, baseline's, candidate's) prompt tokens of the main phase where both engines reported them."""
    ours, theirs = answers(evidence.engines[evidence.baseline]), answers(candidate)
    rows: list[tuple[str, int, int]] = []
    for case in evidence.prompts.cases:
        if case.id in ours and case.id in theirs:
            a, b = ours[case.id].prompt_tokens, theirs[case.id].prompt_tokens
            if a is not None and b is not None:
                rows.append((case.id, a, b))
    return rows


def layers(
    evidence: Evidence,
    candidate: EngineEvidence,
    *,
    floor: float | None = None,
    schema: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Return everything that differs between the baseline and a candidate, in the order of DESIGN 7.

    Identity, context limit, rendered prompt and truncation (by token counts), route, streaming, finish reason,
    reasoning channel, structured output and the order of properties, tools, cache and concurrency (``floor``, the
    baseline's own forks per token), weights. ``schema`` is what the answers should look like; without it each case's
    own ``response_format`` is used.
    """
    baseline = evidence.engines[evidence.baseline]
    ours, theirs = answers(baseline), answers(candidate)
    shared = [case for case in evidence.prompts.cases if case.id in ours and case.id in theirs]
    counts = compare_counts(prompt_counts(evidence, candidate))
    found = _identity(baseline, candidate)
    found += counts_in_words(counts, baseline.name, candidate.name)
    found += _truncation(baseline if counts.cut_side == "baseline" else candidate, counts)
    found += [f"route: {engine.route}" for engine in (baseline, candidate) if engine.route]
    found += [line for engine in (baseline, candidate) for line in _streaming(engine)]
    found += _finish(baseline.name, candidate.name, [(ours[c.id], theirs[c.id]) for c in shared])
    found += _reasoning(baseline.name, candidate.name, [(ours[c.id], theirs[c.id]) for c in shared])
    for engine, texts in ((baseline, ours), (candidate, theirs)):
        found += enforcement(engine, evidence.prompts.cases)
        if line := _ordered(engine.name, shared, texts, schema):
            found.append(line)
    if floor:
        found.append(f"cache or concurrency: {baseline.name} differs from itself by {explain.percent(floor)} per token")
    found += _weights(baseline, candidate)
    return tuple(found)


_AUTO: Final = "auto"
"""A cache of the type the weights have: which one that is the server does not say."""
_TELLING: Final = {
    "device": "device",
    "attention": "attention backend",
    "context_length": "context limit",
    "kv_cache": "KV cache",
    "template_sha256": "chat template",
    "tokenizer_sha256": "vocabulary",
}
"""Facts of the identity that can explain a difference. Sampling defaults cannot: every parameter is sent."""


def _identity(baseline: EngineEvidence, candidate: EngineEvidence) -> list[str]:
    found: list[str] = []
    names = [_engine(engine) for engine in (baseline, candidate)]
    if names[0] != names[1]:
        found.append(f"engine: {names[0]} and {names[1]}")
    for field, words in _TELLING.items():
        ours, theirs = baseline.identity.get(field), candidate.identity.get(field)
        if ours is None or theirs is None or agree(field, ours, theirs):
            continue
        if field.endswith("sha256"):
            found.append(f"{words}: the two engines have different ones")
        elif _AUTO not in (str(ours).lower(), str(theirs).lower()):
            found.append(f"{words}: {explain.plain(str(ours), 40)} and {explain.plain(str(theirs), 40)}")
    return found


def _engine(engine: EngineEvidence) -> str:
    version = engine.identity.get("version")
    return engine.kind if version is None else f"{engine.kind} {explain.plain(str(version), 40)}"


def _truncation(engine: EngineEvidence, counts: Counts) -> list[str]:
    """Say how the engine that cut prompts does it, where that is known."""
    can = engine.capabilities
    if not counts.cut or can.overflow not in CUTS:
        return []
    return [f"truncation: {engine.name} {can.sentence('overflow')} ({can.basis('overflow', engine.declares)})"]


def _streaming(engine: EngineEvidence) -> list[str]:
    can = engine.capabilities
    if can.stream_equal is not False:
        return []
    return [f"streaming: {engine.name} {can.sentence('stream_equal')}, and was asked for a stream"]


def enforcement(engine: EngineEvidence, cases: Sequence[Case]) -> list[str]:
    """Return what an engine does not do with the schemas and tools of these cases, and how that is known."""
    can, names = engine.capabilities, list[tuple[str, str]]()
    if any(response_schema(case) is not None for case in cases):
        names += [("structured output", "json_schema"), ("structured output", "schema_order")]
    if any(case.tools for case in cases):
        names.append(("tools", "tools"))
    return [
        f"{layer}: {engine.name} {can.sentence(name)} ({can.basis(name, engine.declares)})"
        for layer, name in names
        if getattr(can, name) is False
    ]


def _finish(baseline: str, candidate: str, pairs: Sequence[tuple[Completion, Completion]]) -> list[str]:
    differing = [(a.finish_reason, b.finish_reason) for a, b in pairs if a.finish_reason != b.finish_reason]
    if not differing:
        return []
    (ours, theirs), n = Counter(differing).most_common(1)[0]
    mostly = f"{explain.plain(ours, 20) or 'none'} on {baseline}, {explain.plain(theirs, 20) or 'none'} on {candidate}"
    return [
        f"finish reason: differs on {len(differing)} of {explain.count(len(pairs), 'prompt')}, mostly {mostly} ({n})"
    ]


def _reasoning(baseline: str, candidate: str, pairs: Sequence[tuple[Completion, Completion]]) -> list[str]:
    ours, theirs = sum(bool(a.reasoning) for a, _ in pairs), sum(bool(b.reasoning) for _, b in pairs)
    tags = [
        sum("<think>" in text for text in texts) for texts in ([a.text for a, _ in pairs], [b.text for _, b in pairs])
    ]
    found: list[str] = []
    if ours != theirs:
        found.append(
            f"reasoning channel: used in {explain.count(ours, 'answer')} of {baseline} and {theirs} of {candidate}"
        )
    for name, n in ((baseline, tags[0]), (candidate, tags[1])):
        if n and tags[0] != tags[1]:
            found.append(f"reasoning channel: {explain.count(n, 'answer')} of {name} with <think> in the text")
    return found


def order_line(name: str, rows: Sequence[tuple[Any, Mapping[str, Any]]]) -> str:
    """Say how many JSON answers of an engine, given with their schemas, order keys differently; empty if none does."""
    moved = sum(bool(key_order(value, schema)) for value, schema in rows)
    if not moved:
        return ""
    judged = explain.count(len(rows), "JSON answer")
    return f"{PROPERTY_ORDER}: {moved} of {judged} of {name} in another order than declared"


def _ordered(
    name: str, cases: Sequence[Case], texts: Mapping[str, Completion], schema: Mapping[str, Any] | None
) -> str:
    rows: list[tuple[Any, Mapping[str, Any]]] = []
    for case in cases:
        wanted = schema if schema is not None else response_schema(case)
        if wanted is not None:
            parsed = parse_json(texts[case.id].text)
            if parsed.error is None:
                rows.append((parsed.value, wanted))
    return order_line(name, rows)


def response_schema(case: Case) -> Mapping[str, Any] | None:
    """Return the JSON Schema a case's ``response_format`` asks for, ``None`` when it asks for none."""
    wanted = (case.response_format or {}).get("json_schema")
    schema = wanted.get("schema") if isinstance(wanted, Mapping) else None
    return schema if isinstance(schema, Mapping) else None


def _weights(baseline: EngineEvidence, candidate: EngineEvidence) -> list[str]:
    found: list[str] = []
    if baseline.quantization != candidate.quantization and None not in (baseline.quantization, candidate.quantization):
        found.append(f"weights: {baseline.quantization} and {candidate.quantization}")
    return found
