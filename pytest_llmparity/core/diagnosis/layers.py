"""What differs underneath two engines' answers, layer by layer, from what they say they are down to their weights.

Everything here is evidence that was gathered anyway. It says what *differs*; nothing in it is called the cause, because
that takes an experiment that removes the difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_llmparity.core.compare.json import Parsed, parse_json
from pytest_llmparity.core.compare.order import KeyOrders
from pytest_llmparity.core.diagnosis.counts import NOTHING, CountPair, Counts, Cut, Known, compare_counts
from pytest_llmparity.core.evidence import EngineEvidence, Evidence
from pytest_llmparity.core.identity.capabilities import CUTS
from pytest_llmparity.core.identity.pins import agree
from pytest_llmparity.core.identity.spelling import acting
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import Completion, Request
from pytest_llmparity.core.sizes import short_of_limit
from pytest_llmparity.core.words import explain

PROPERTY_ORDER: Final = "property order"
"""How the line begins that says an engine answers in another key order than declared."""


def counts_in_words(counts: Counts, baseline: str, candidate: str, known: Known = NOTHING) -> list[str]:
    """Return what the counts say, one sentence per finding; empty when they are equal or unknown."""
    lines: list[str] = []
    if counts.kind == "offset":
        more = "more" if counts.offset > 0 else "fewer"
        causes = "another chat template, BOS token or system prompt"
        if counts.cuts and counts.lengths < 2 and not known.same_vocabulary:
            causes = "another chat template, BOS token, system prompt or tokeniser"
        if counts.of == "bare":
            who = candidate if counts.offset > 0 else baseline
            causes = f"a system prompt of {who}'s own, by its template or its settings"
        lines.append(
            f"{candidate} counts {explain.count(abs(counts.offset), 'token')} {more} than {baseline} on "
            f"{_scope(counts)}: {causes}"
        )
    if counts.kind == "slope":
        more = "more" if counts.slope > 1 else "fewer"
        lines.append(
            f"{candidate} counts {explain.percent(abs(counts.slope - 1))} {more} tokens than {baseline} for the same "
            "text: another tokeniser"
        )
    if counts.odd:
        causes = "a tokeniser that treats some text differently"
        if known.same_vocabulary:
            causes = "the vocabularies are equal, so something was added to them or left out"
        lines.append(f"counts differ on {len(counts.odd)} of {explain.count(counts.n, 'prompt')} by no rule: {causes}")
    names = {"baseline": baseline, "candidate": candidate}
    lines += [_cut_in_words(cut, counts.n, names) for cut in counts.cuts]
    return lines


def _scope(counts: Counts) -> str:
    if counts.of != "every":
        which = "the chats" if counts.of == "chats" else "the chats without a system message"
        return f"{counts.differing} of {explain.count(counts.n, 'prompt')}, {which}"
    if counts.odd:
        return f"{counts.uncut - len(counts.odd)} of {explain.count(counts.n, 'prompt')}"
    return "every uncut prompt" if counts.cuts else "every prompt"


def _cut_in_words(cut: Cut, n: int, names: Mapping[str, str]) -> str:
    """Say which engine cut how many prompts, which ones, how much of one was left, and the context that explains it."""
    name = names[cut.side]
    context = "" if cut.context is None else f"; its context is {cut.context:,} tokens"
    of = f"{len(cut.cases)} of {explain.count(n, 'prompt')} ({_cases(cut.cases, together=cut.together)})"
    if cut.worst is None:
        if cut.context is not None:
            return f"{name} cut at least {of}: more text than a context of {cut.context:,} tokens holds"
        return f"{name} cut at least {of}: its counts stand still while their texts grow"
    kept, whole = cut.worst
    other = names["candidate" if cut.side == "baseline" else "baseline"]
    return f"{name} cut {of}, one of them to {kept:,} tokens where {other} counts {whole:,}{context}"


def _cases(cases: Sequence[str], *, together: bool) -> str:
    """Name cases: all of a few, else the first and the last, or the first ones where others stand between them."""
    shown = [explain.plain(case, 40) for case in cases]
    if len(shown) <= 3:
        return ", ".join(shown)
    return f"{shown[0]} to {shown[-1]}" if together else f"{', '.join(shown[:3])} and {len(shown) - 3} more"


def known_of(evidence: Evidence, candidate: EngineEvidence) -> Known:
    """Return what is known of a pair of engines that helps to explain their prompt token counts."""
    engines = (evidence.engines[evidence.baseline], candidate)
    contexts = [engine.identity.get("context_length") for engine in engines]
    return Known(
        contexts=(_positive(contexts[0]), _positive(contexts[1])),
        same_vocabulary=_same_fact("tokenizer_sha256", engines),
        same_template=_same_fact("template_sha256", engines),
        characters={case.id: _characters(case) for case in evidence.prompts.cases},
        bare=frozenset(case.id for case in evidence.prompts.cases if without_system(case)),
        instructed=frozenset(case.id for case in evidence.prompts.cases if with_system(case)),
    )


def count_lines(evidence: Evidence, candidate: EngineEvidence) -> list[str]:
    """Return what the token counts of a pair's prompts let one think, and how an engine cuts where one seems to."""
    baseline, known = evidence.engines[evidence.baseline], known_of(evidence, candidate)
    counts = compare_counts(prompt_counts(evidence, candidate), known)
    lines = counts_in_words(counts, baseline.name, candidate.name, known)
    return lines + [
        line for cut in counts.cuts for line in _truncation(baseline if cut.side == "baseline" else candidate)
    ]


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _same_fact(field: str, engines: Sequence[EngineEvidence]) -> bool:
    ours, theirs = (engine.identity.get(field) for engine in engines)
    return ours is not None and theirs is not None and agree(field, ours, theirs)


def _characters(case: Case) -> int:
    """Return how long the text of a case's prompt is, in characters; what is not text counts nothing."""
    if case.prompt is not None:
        return len(case.prompt)
    return sum(_text_length(message.get("content")) for message in case.messages or ())


def without_system(case: Case) -> bool:
    """Whether a case is a chat without a message of the system."""
    return case.messages is not None and not with_system(case)


def with_system(case: Case) -> bool:
    """Whether a case is a chat with a message of the system (newer models have it from the developer)."""
    return any(message.get("role") in ("system", "developer") for message in case.messages or ())


def _text_length(content: object) -> int:
    if isinstance(content, str):
        return len(content)
    if isinstance(content, Sequence):
        return sum(_text_length(part.get("text")) for part in content if isinstance(part, Mapping))
    return 0


def prompt_counts(evidence: Evidence, candidate: EngineEvidence) -> list[CountPair]:
    """Return the prompt tokens of the main phase where both engines counted them.

    A prompt has tokens, so a server that says 0 did not count.
    """
    ours, theirs = evidence.engines[evidence.baseline].answers(), candidate.answers()
    pairs: list[CountPair] = []
    for case in evidence.prompts.cases:
        if case.id in ours and case.id in theirs:
            a, b = (side[case.id].conversation[0].prompt_tokens for side in (ours, theirs))
            if a and b and a > 0 and b > 0:
                pairs.append(CountPair(case.id, a, b))
    return pairs


def layers(
    evidence: Evidence,
    candidate: EngineEvidence,
    *,
    floor: float | None = None,
    schema: Mapping[str, Any] | None = None,
    parsed: Mapping[str, Mapping[str, Parsed]] | None = None,
    orders: KeyOrders | None = None,
) -> tuple[str, ...]:
    """Return everything that differs between the baseline and a candidate, in the order of their layers.

    Identity, context limit, rendered prompt and truncation (by token counts), route, streaming, answers that end early,
    finish reason, reasoning channel, structured output and the order of properties, tools, cache and concurrency
    (``floor``, the baseline's own forks per token), weights. ``schema`` is what the answers should look like; without
    it each case's own ``response_format`` is used. ``parsed`` are answers by engine and case that were read as JSON
    already, ``orders`` may know the order of their keys. Of conversations it is the first turn, which both were asked
    alike.
    """
    baseline = evidence.engines[evidence.baseline]
    ours, theirs = (
        {case: answer.conversation[0] for case, answer in engine.answers().items()} for engine in (baseline, candidate)
    )
    shared = [case for case in evidence.prompts.cases if case.id in ours and case.id in theirs]
    lines = _identity(baseline, candidate)
    lines += count_lines(evidence, candidate)
    lines += [f"route: {engine.route}" for engine in (baseline, candidate) if engine.route]
    lines += [line for engine in (baseline, candidate) for line in _streaming(engine)]
    pairs = [(ours[case.id], theirs[case.id]) for case in shared]
    lines += _early(baseline.name, candidate.name, pairs)
    lines += _finish(baseline.name, candidate.name, pairs)
    lines += _reasoning(baseline.name, candidate.name, pairs)
    for engine, texts in ((baseline, ours), (candidate, theirs)):
        lines += enforcement(engine, evidence.prompts.cases)
        read = (parsed or {}).get(engine.name, {})
        if line := _ordered(engine.name, shared, texts, schema, read, orders or KeyOrders()):
            lines.append(line)
    if floor:
        lines.append(f"cache or concurrency: {baseline.name} differs from itself by {explain.percent(floor)} per token")
    lines += _weights(baseline, candidate)
    return tuple(lines)


_AUTO: Final = "auto"
"""A cache of the type the weights have: which one that is the server does not say."""
_TELLING: Final = {
    "device": "device",
    "attention": "attention backend",
    "context_length": "context limit",
    "kv_cache": "KV cache",
    "adapters": "LoRA adapters",
    "speculative": "speculative decoding",
    "tensor_parallel": "tensor parallel size",
    "pipeline_parallel": "pipeline parallel size",
    "prefix_cache": "prefix cache",
    "chunked_prefill": "chunked prefill",
    "template_sha256": "chat template",
    "tokenizer_sha256": "vocabulary",
}
"""Facts of the identity that can explain a difference. Of sampling defaults only those can that no request names."""


def _identity(baseline: EngineEvidence, candidate: EngineEvidence) -> list[str]:
    lines: list[str] = []
    names = [_engine(engine) for engine in (baseline, candidate)]
    if names[0] != names[1]:
        lines.append(f"engine: {names[0]} and {names[1]}")
    for field, words in _TELLING.items():
        ours, theirs = baseline.identity.get(field), candidate.identity.get(field)
        if ours is None or theirs is None or agree(field, ours, theirs):
            continue
        if field.endswith("sha256"):
            lines.append(f"{words}: the two engines have different ones")
        elif _AUTO not in (str(ours).lower(), str(theirs).lower()):
            lines.append(f"{words}: {explain.plain(str(ours), 40)} and {explain.plain(str(theirs), 40)}")
    acts = {engine.name: ", ".join(acting(engine.identity)) for engine in (baseline, candidate)}
    if len(set(acts.values())) > 1:
        lines += [f"sampler default: {name} has {explain.plain(told, 80)}" for name, told in acts.items() if told]
    return lines


def _engine(engine: EngineEvidence) -> str:
    version = engine.identity.get("version")
    return engine.kind if version is None else f"{engine.kind} {explain.plain(str(version), 40)}"


def _truncation(engine: EngineEvidence) -> list[str]:
    """Say how an engine that cut prompts does it, where that is known."""
    can = engine.capabilities
    if can.overflow not in CUTS:
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


def _early(baseline: str, candidate: str, pairs: Sequence[tuple[Completion, Completion]]) -> list[str]:
    """Say how many answers of either engine end short of their own limit, where the other's to that prompt does not."""
    numbers: Counter[str] = Counter()
    for pair in pairs:
        if (place := _ends_early(*pair)) is not None:
            numbers[(baseline, candidate)[place]] += 1
    of = explain.count(len(pairs), "prompt")
    return [
        f"answers end early: {name} ends {n} of {of} by length before its limit, by a full context or a cap on the way"
        for name, n in numbers.items()
    ]


def _ends_early(ours: Completion, theirs: Completion) -> int | None:
    """Return the place of the one of two answers that alone ends short of its own limit, ``None`` where none does."""
    short = short_of_limit(ours, theirs), short_of_limit(theirs, ours)
    return None if short[0] == short[1] else short.index(True)


def _finish(baseline: str, candidate: str, pairs: Sequence[tuple[Completion, Completion]]) -> list[str]:
    """Say how many finish reasons differ, but for those of answers that end early: that is said."""
    apart = [(a, b) for a, b in pairs if a.finish_reason != b.finish_reason and _ends_early(a, b) is None]
    differing = [(a.finish_reason, b.finish_reason) for a, b in apart]
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
    lines: list[str] = []
    if ours != theirs:
        lines.append(
            f"reasoning channel: used in {explain.count(ours, 'answer')} of {baseline} and {theirs} of {candidate}"
        )
    for name, n in ((baseline, tags[0]), (candidate, tags[1])):
        if n and tags[0] != tags[1]:
            lines.append(f"reasoning channel: {explain.count(n, 'answer')} of {name} with <think> in the text")
    return lines


def order_line(name: str, values: Sequence[tuple[Any, Mapping[str, Any]]], orders: KeyOrders) -> str:
    """Say how many JSON answers of an engine, given with their schemas, order keys differently; empty if none does."""
    moved = sum(orders.moved(value, schema) for value, schema in values)
    if not moved:
        return ""
    judged = explain.count(len(values), "JSON answer")
    return f"{PROPERTY_ORDER}: {moved} of {judged} of {name} in another order than declared"


def _ordered(
    name: str,
    cases: Sequence[Case],
    texts: Mapping[str, Completion],
    schema: Mapping[str, Any] | None,
    read: Mapping[str, Parsed],
    orders: KeyOrders,
) -> str:
    values: list[tuple[Any, Mapping[str, Any]]] = []
    for case in cases:
        asked = response_schema(case)  # what the engine was given counts before what the check holds it against
        wanted = schema if asked is None else asked
        if wanted is not None:
            parsed = read.get(case.id) or parse_json(texts[case.id].text)
            if parsed.error is None:
                values.append((parsed.value, wanted))
    return order_line(name, values, orders)


def response_schema(asked: Case | Request) -> Mapping[str, Any] | None:
    """Return the JSON Schema that the ``response_format`` of a case or request asks for, ``None`` where it has none."""
    if asked.response_format is None:
        return None
    wanted = asked.response_format.get("json_schema")
    schema = wanted.get("schema") if isinstance(wanted, Mapping) else None
    return schema if isinstance(schema, Mapping) else None


def _weights(baseline: EngineEvidence, candidate: EngineEvidence) -> list[str]:
    lines: list[str] = []
    if baseline.quantization != candidate.quantization and None not in (baseline.quantization, candidate.quantization):
        lines.append(f"weights: {baseline.quantization} and {candidate.quantization}")
    return lines
