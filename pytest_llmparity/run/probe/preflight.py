"""What is asked of an engine between its identity and its first prompt: probes, and some cases over its other route."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from pytest_llmparity.core.checks.base import left_out
from pytest_llmparity.core.checks.drift.logprobs import refused_by_probe
from pytest_llmparity.core.compare.json import parse_json
from pytest_llmparity.core.diagnosis.layers import response_schema
from pytest_llmparity.core.errors import (
    EngineError,
    KeeperError,
    ParameterNotHonoured,
    StoreError,
    Timeout,
    Unreachable,
    reason_of,
)
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.identity.routes import CASES, RouteCheck
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.prompts.parts import media_of
from pytest_llmparity.core.sample import Completion, Identity, Request, WireRequest, to_json
from pytest_llmparity.engines import registry
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.plan import Unit, Wires, narrowed, requests_by_case, shuffled, worded
from pytest_llmparity.run.probe import media, overflow, probes, thinking
from pytest_llmparity.run.probe.probes import Probe, Probed, Spent
from pytest_llmparity.run.probe.slots import MOST_REQUESTS
from pytest_llmparity.run.records import context_of, proven
from pytest_llmparity.store.runs import Store

PROBES: Final[Mapping[str, Probe]] = {
    "streaming": probes.STREAM,
    "unknown fields": probes.UNKNOWN_FIELDS,
    "logprobs": probes.LOGPROBS,
    "schema": probes.STRUCTURED,
    "tools": probes.OFFERED,
    "images": media.IMAGES,
    "audio": media.AUDIO,
    "seed": probes.SEED,
    "raw prompt": probes.RAW,
    "reasoning effort": thinking.EFFORT,
    "thinking switch": thinking.SWITCH,
    "context": overflow.FIT,
    "overflow": overflow.OVERFLOW,
}
"""Every probe by name, in the order they are asked: what fills the context comes last."""
THINKING: Final = ("reasoning effort", "thinking switch")
"""What is asked where prompts say how much to reason."""
ALWAYS: Final = ("streaming", "unknown fields")
"""What a run asks that judges anything: three to six tiny requests that no server was seen to mind."""
SEEN: Final = ("images", "audio")
"""What is asked where prompts hold more than text."""
GATES: Final = ("logprobs", "json_schema", "tools", *SEEN)
"""Fields whose no keeps checks from being judged. It is asked again in every run: a person may have repaired it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """What is known of one server: what it declares, and that corrected by all its probes, earlier runs' included."""

    declares: Capabilities
    capabilities: Capabilities
    probed: Probed
    requests: int = 0


def wanted(units: Sequence[Unit], *, context: int | None) -> tuple[str, ...]:
    """Return the probes that matter to these units on an engine with such a context (``None``: nobody knows).

    A run asks only what its own tests make matter: a feature nobody uses may be one that a server breaks at.
    """
    judged = [unit for unit in units if unit.needs.judged]
    cases = [(unit, case) for unit in judged if unit.application is None for case in unit.prompts.cases]
    matters = {
        **dict.fromkeys(ALWAYS, bool(judged)),
        "logprobs": any(unit.needs.top_logprobs is not None for unit in judged),
        "schema": any(response_schema(case) is not None for _, case in cases),
        "tools": any(case.tools for _, case in cases),
        **{name: any(name in media_of(case.messages) for _, case in cases) for name in SEEN},
        "seed": any(case.request(unit.sampling).sampling.temperature > 0 for unit, case in cases),
        **{name: any(thinking.uses(case, name) for _, case in cases) for name in THINKING},
        "raw prompt": any(case.prompt is not None for _, case in cases),
        **dict.fromkeys(("context", "overflow"), any(_may_overflow(unit, case, context) for unit, case in cases)),
    }
    return tuple(name for name in PROBES if matters[name])


def most_requests(units: Sequence[Unit], contexts: Sequence[int | None]) -> int:
    """Return the most probe requests one engine gets for these units; ``contexts`` has what is known of each engine.

    Where requests are timed beside each other, it may have to be found out how many a server answers at once.
    """
    names = {name for context in contexts for name in wanted(units, context=context)}
    beside = any(unit.needs.timed and unit.concurrency > 1 for unit in units)
    return sum(PROBES[name].requests for name in names) + (MOST_REQUESTS if beside else 0)


def learn(
    adapter: Adapter,
    identity: Identity,
    *,
    names: Sequence[str],
    store: Store,
    version: str,
    fresh: bool,
    take: Callable[[], bool] = lambda: True,
) -> Learnt:
    """Find out what a server can do by these probes and tell its adapter; what is remembered is not asked again.

    Remembered under the engine's kind, configuration and identity, what it says it can do and this package's version,
    of servers that say enough to be known again. ``fresh`` forgets. ``take`` says before each request whether it may be
    sent.
    """
    declares = adapter.capabilities()
    key, lasting = _key(adapter, identity, declares, version), _known_again(adapter, identity)
    known = _recalled(store.probes(key)) if lasting and not fresh else Probed()
    again = set(_disappointing(known, declares))
    due = {name: PROBES[name] for name in names if name not in known.settled or name in again}
    context = context_of(adapter.spec, identity)
    asked = probes.probe(adapter, due, declares=declares, context=context, known=known.values, take=take)
    gone = {field for name in due for field in PROBES[name].fields}
    probed = Probed(
        values={name: value for name, value in known.values.items() if name not in gone} | asked.values,
        settled=[*(name for name in known.settled if name not in due), *asked.settled],
        notes={name: text for name, text in known.notes.items() if name not in due} | asked.notes,
    )
    if due and lasting:
        store.put_probes(key, {"found": probed.values, "settled": probed.settled, "notes": probed.notes})
    adapter.learnt(declares.corrected(probed.values))
    return Learnt(declares=declares, capabilities=adapter.can, probed=probed, requests=asked.requests)


def remarks(adapter: Adapter, learnt: Learnt, names: Sequence[str] = ()) -> Iterator[str]:
    """Yield what the reader of a run should know: promises that are not kept, and probes that failed.

    ``names`` are the probes that matter to it: what prompts say of reasoning and the engine ignores is named.
    """
    yield from learnt.capabilities.findings(adapter.name, learnt.declares)
    for name in names:
        for field in PROBES[name].fields if name in THINKING else ():
            if getattr(learnt.capabilities, field) is False:
                yield (
                    f"{adapter.name} {learnt.capabilities.sentence(field)}, though prompts of this run say it: neither "
                    "the prompt nor the first words of its answer change (found by a probe)"
                )
    for name, why in learnt.probed.notes.items():
        if name not in learnt.probed.settled:
            yield f"{adapter.name}: the probe of {name} failed, so only what its kind declares is known: {why}"


def some_requests(units: Sequence[Unit]) -> list[Request]:
    """Return a few of the requests of these units, some of each, the same in every run."""
    chosen = [
        case.request(unit.sampling)
        for unit in units
        if unit.application is None
        for case in shuffled(unit.prompts.cases, seed=unit.prompts.digest)[:CASES]
    ]
    return chosen[:: max(1, len(chosen) // CASES)][:CASES]


def compare_routes(
    adapter: Adapter,
    requests: Sequence[Request],
    *,
    take: Callable[[], bool] = lambda: True,
    say: Callable[[str], None] = lambda text: None,
) -> RouteCheck | None:
    """Ask these over the route ``engine.openai()`` uses, then over the measured one, and hold the answers together.

    One route after the other, the measured one last: Ollama loads the model again where the options of a request are
    not those it was loaded with (server/sched.go, ``needsReload``). ``None`` where they are the same route or are sent
    the same, as raw prompts mostly are over ``completions``, or ``take`` says that no more requests may be sent, or one
    of them got no answer: ``say`` is told, and the rest is not waited for. Never raises for what the server does.
    """
    if adapter.spec.route == "openai":
        return None
    spec = dataclasses.replace(adapter.spec, route="openai")
    other = registry.adapter_for(adapter.kind)(spec, adapter.base_url, adapter.headers)
    other.api = adapter.api
    other.time_left = adapter.time_left
    other.learnt(adapter.can)
    if all(_sent(adapter, request) == _sent(other, request) for request in requests):
        return None
    try:
        there = [_over(other, request, take) for request in requests]
        here = [_over(adapter, request, take) for request in requests]
    except Spent:
        return None
    except (Timeout, Unreachable) as error:
        say(f"{adapter.name}: its routes were not held against each other: {error}")
        return None
    both = [(ours.completion, theirs) for ours, theirs in zip(here, there, strict=True)]
    pairs = [(ours, theirs.completion) for ours, theirs in both if ours and theirs.completion]
    unasked = [theirs.unasked for ours, theirs in both if ours and theirs.unasked]
    failed = sum((ours is None) != (theirs.completion is None) for ours, theirs in both) - len(unasked)
    dropped = dict.fromkeys(name for theirs in there for name in theirs.omitted)
    offsets = [(b.prompt_tokens or 0) - (a.prompt_tokens or 0) for a, b in pairs if a.prompt_tokens and b.prompt_tokens]
    return RouteCheck(
        measured=adapter.spec.route,
        other=spec.route,
        cases=len(requests),
        texts=sum(_answer(a) != _answer(b) for a, b in pairs),
        prompts=sum(bool(offset) for offset in offsets),
        finishes=sum(a.finish_reason != b.finish_reason for a, b in pairs),
        failed=failed,
        tokens=offsets[0] if len(set(offsets)) == 1 else 0,
        dropped=tuple(dropped),
        unasked=len(unasked),
        why=next(iter(unasked), ""),
    )


class _Over(NamedTuple):
    """An answer over one route, ``None`` where there is none; what was left out; why the route has no words for it."""

    completion: Completion | None = None
    omitted: tuple[str, ...] = ()
    unasked: str = ""


def _over(adapter: Adapter, request: Request, take: Callable[[], bool]) -> _Over:
    try:
        wire = adapter.build(request)
        if not take():
            raise Spent
        reply = adapter.control.post(wire.path, wire.body, timeout_s=adapter.spec.request_timeout_s)
        return _Over(adapter.read(reply, case=request.case), wire.omitted)
    except ParameterNotHonoured as error:
        return _Over(unasked=str(error))
    except (Timeout, Unreachable):
        raise
    except EngineError:
        return _Over()


def _sent(adapter: Adapter, request: Request) -> tuple[str, bytes] | None:
    """Return path and body of a request, ``None`` where the route has no words for it."""
    try:
        wire = adapter.build(request)
    except ParameterNotHonoured:
        return None
    return wire.path, wire.body


def _answer(completion: Completion) -> tuple[object, ...]:
    """Return what an application gets; arguments of calls as values, because routes write the same JSON differently."""
    calls = [(call.name, parse_json(call.arguments).value or call.arguments) for call in completion.tool_calls]
    return completion.text, completion.reasoning, calls


def _recalled(content: Mapping[str, object] | None) -> Probed:
    known = Probed()
    if content:
        known.values.update(content["found"])  # type: ignore[call-overload]  # our own JSON
        known.settled.extend(content["settled"])  # type: ignore[arg-type]
        known.notes.update(content["notes"])  # type: ignore[call-overload]
    return known


def _disappointing(known: Probed, declared: Capabilities) -> Iterator[str]:
    for name in known.settled:
        fields = [field for field in PROBES[name].fields if field in GATES] if name in PROBES else []
        odd = name == "logprobs" and "odd_logprobs" in known.values
        if odd or any(known.values.get(field) is False and getattr(declared, field) is not False for field in fields):
            yield name


def _known_again(adapter: Adapter, identity: Identity) -> bool:
    """Tell whether a server is surely the one that was asked earlier, should the same be known of it once more."""
    ours = adapter.spec.launched and adapter.spec.model_path is not None and "digest" in identity.facts
    return ours or proven(identity)


def _key(adapter: Adapter, identity: Identity, declares: Capabilities, version: str) -> str:
    facts = {name: fact.value for name, fact in identity.facts.items()}
    content = [adapter.kind, adapter.spec.spec_hash, to_json(facts), to_json(declares), version]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _may_overflow(unit: Unit, case: Case, context: int | None) -> bool:
    """Tell whether a prompt could be too long: it has at most about as many tokens as bytes."""
    content = [case.prompt, case.messages, case.tools]
    size = len(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))
    needed = size + case.request(unit.sampling).sampling.max_tokens
    return needed > (overflow.VERIFIED_TOKENS if context is None else context)


# one engine, prepared ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What is known of an engine now, the requests it can be sent, and what the reader should know."""

    record: EngineRecord
    wires: Wires
    notes: tuple[str, ...] = ()
    shorter: Mapping[str, WireRequest] = dataclasses.field(default_factory=dict)


def prepare(
    adapter: Adapter,
    record: EngineRecord,
    units: Sequence[Unit],
    *,
    asked: bool,
    store: Store,
    version: str,
    fresh: bool,
    whole: bool,
    take: Callable[[], bool],
) -> Prepared:
    """Find out what a server does with what it will be sent, and put every request into its words.

    Nothing is sent unless it will be ``asked`` something. ``version`` is this package's, ``fresh`` forgets what earlier
    runs found out, ``whole`` keeps answers of a noise floor as long as others, ``take`` says before each request
    whether it may be sent. What goes wrong is the record's error.
    """
    notes: list[str] = []
    shorter: Mapping[str, WireRequest] = {}
    try:
        names = wanted(units, context=record.context_length) if asked and not record.recording else ()
        learnt = learn(
            adapter,
            record.identity,
            names=names,
            store=store,
            version=version,
            fresh=fresh,
            take=take,
        )
        notes += remarks(adapter, learnt, names)
        record = dataclasses.replace(record, declares=learnt.declares, capabilities=learnt.capabilities)
        if asked and not record.recording:
            record = _with_routes(adapter, record, units, take=take, say=notes.append)
        record, wires = build_requests(adapter, record, units)
        if not (whole or record.recording):
            shorter = floor_requests(adapter, units, wires)
    except (StoreError, KeeperError):
        raise
    except Exception as error:  # noqa: BLE001 - one engine's trouble is not the run's, whatever it is
        record, wires = dataclasses.replace(record, error=reason_of(error, record.name)), {}
    return Prepared(record=record, wires=wires, notes=tuple(notes), shorter=shorter)


def build_requests(adapter: Adapter, record: EngineRecord, units: Sequence[Unit]) -> tuple[EngineRecord, Wires]:
    """Put every request into the engine's words before the first one is sent; the record says what is not asked.

    That is what the route has no words for, and what no check could judge for want of what it needs: a unit where
    that holds for all of its cases, else the cases. A unit whose checks all read logprobs that a probe found unfit is
    refused.
    """
    in_words: dict[str, Mapping[str, WireRequest]] = {}
    refused: dict[str, str] = {}
    judged_nowhere: dict[str, str] = {}
    unasked: dict[str, Mapping[str, str]] = {}
    for unit in units:
        if why := refused_by_probe(record.name, record.capabilities, unit.checks):
            refused[unit.key] = why
            continue
        wires, no_words = requests_by_case(adapter, unit)
        lacks = pointless(record, unit)
        if unit.application is not None and record.recording:
            lacks = dict.fromkeys(unit.prompts.by_id, f"{record.name} is a recording, which no application can ask")
        wires = {case: wire for case, wire in wires.items() if case not in lacks}
        missing = {**no_words, **lacks}
        if wires:
            in_words[unit.key] = wires
            unasked |= {unit.key: missing} if missing else {}
        elif len(lacks) == len(unit.prompts.cases):
            judged_nowhere[unit.key] = next(iter(lacks.values()))
        else:
            refused[unit.key] = next(why for case, why in missing.items() if case not in lacks)
    return dataclasses.replace(record, refused=refused, left_out=judged_nowhere, unasked=unasked), in_words


def pointless(engine: EngineRecord, unit: Unit) -> dict[str, str]:
    """Return why no check of a unit can be judged on an engine, by case; empty where each can, or rows are read."""
    missing = [
        left_out(engine.name, check, unit.prompts, can=engine.capabilities, declares=engine.declares)
        for check in unit.checks
    ]
    first, others = missing[:1], missing[1:]
    return {case: why for reasons in first for case, why in reasons.items() if all(case in other for other in others)}


def floor_requests(adapter: Adapter, units: Sequence[Unit], wires: Wires) -> dict[str, WireRequest]:
    """Return the requests by which the noise floor is measured with shorter answers, by the hash of the case's own.

    They ask for as many tokens as the checks read of a floor, those of all units that ask the same. Answers are whole
    beside tools (some servers fail at a call that is cut), where a case says how much to reason or has fields of its
    own, which may ask for more, and on an engine that reasons before it answers or of which nobody knows.
    """
    if adapter.can.reasons is not False:
        return {}
    asked: dict[str, list[tuple[float, Unit, Case]]] = defaultdict(list)
    for unit in units:
        most = math.inf if unit.needs.floor_tokens is None else unit.needs.floor_tokens
        for case_id, own in wires.get(unit.key, {}).items() if unit.needs.floor and unit.application is None else ():
            case = unit.prompts.by_id[case_id]
            whole = case.tools or case.thinking or case.extra_body
            asked[own.sha256].append((math.inf if whole else most, unit, case))
    shorter: dict[str, WireRequest] = {}
    for sha256, ways in asked.items():
        most, unit, case = max(ways, key=operator.itemgetter(0))
        if most < case.request(unit.sampling).sampling.max_tokens:
            shorter[sha256] = worded(adapter, unit, case, tokens=int(most))
    return shorter


def _with_routes(
    adapter: Adapter,
    record: EngineRecord,
    units: Sequence[Unit],
    *,
    take: Callable[[], bool],
    say: Callable[[str], None],
) -> EngineRecord:
    """Hold the engine's routes against each other with some of the cases that can be judged on it."""
    judged = [(unit, pointless(record, unit)) for unit in units]
    able = [narrowed(unit, (c for c in unit.prompts.cases if c.id not in lacks)) for unit, lacks in judged]
    able = [unit for unit in able if unit.prompts.cases]
    requests = some_requests(able)
    routes = compare_routes(adapter, requests, take=take, say=say) if requests else None
    if routes is not None:
        alike = f"{adapter.name}: its {routes.measured} and {routes.other} routes answer {routes.cases} cases alike"
        say(routes.sentence(adapter.name) or alike)
    return dataclasses.replace(record, route_check=routes)
