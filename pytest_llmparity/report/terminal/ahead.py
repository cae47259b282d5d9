"""What is known before the first test: the engines, and the plan of what will be asked of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from pytest_llmparity.core.identity.quantization import normalise
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.printable import WIDTH, cells, elide, hanging, pad, printable, wrapped_after
from pytest_llmparity.settings.specification import LOCAL, EngineSpec, Settings, bundle_of


def engine_lines(
    engines: Sequence[EngineRecord], *, why: str = "", unasked: Mapping[str, str] | None = None, width: int = WIDTH
) -> list[str]:
    """Return one line per engine: name, kind, version, model, quantisation, digest, context, slots, how it is reached.

    What is not known is left out. ``why`` says why the baseline is the baseline. ``unasked`` has the addresses of
    engines, by name, whose kind is asked for when the run starts.
    """
    unasked = unasked or {}
    name_width = max((cells(printable(engine.name)) for engine in engines), default=0)
    lines = []
    for engine in engines:
        head = f"{pad(printable(engine.name), min(name_width, 24))}  "
        model = None if engine.model is None else printable(_file_name(engine.model))
        parts = [
            printable(
                f"{unasked[engine.name]}, kind asked at start"
                if engine.name in unasked
                else f"{engine.kind} {engine.version or ''}".rstrip()
            ),
            model,
            engine.quantization and printable(engine.quantization),
            _digest(engine),
            None if engine.context_length is None else f"context {engine.context_length}",
            _kv_cache(engine),
            _slots(engine),
            _launch(engine),
            "baseline" if engine.baseline else None,
        ]
        if parts[3] is not None and cells(head + ", ".join(part for part in parts if part)) > width:
            parts[3] = None  # of what has a fixed length only the digest can go; the quantisation must be seen
        # Only the model's name may be as long as it likes, so it alone makes room.
        beside = cells(", ".join(part for part in parts if part)) - cells(model or "")
        if model is not None:
            parts[1] = elide(model, max(10, width - cells(head) - beside))
        lines += hanging(head + ", ".join(part for part in parts if part), width)
    if why:
        lines += [
            line for e in engines if e.baseline for line in wrapped_after("baseline: ", f"{e.name}, {why}", width=width)
        ]
    return lines


def header_lines(spec: EngineSpec, *, width: int = WIDTH) -> list[str]:
    """Return what a reader should know of an engine before it is there: whose it is, what runs, what is pinned."""
    clauses = []
    if spec.daemon and spec.base_url:
        clauses.append(
            f"uses the {spec.kind} that is running at {spec.base_url}, which has {spec.model}"
            + ('; launch = "process" starts our own' if spec.kind == "ollama" else "")
        )
    if spec.image:
        clauses.append(f"runs in a container of {spec.image}")
    if spec.command:
        clauses.append(f"runs the command {shlex.join(spec.command)}")
    if spec.requires and spec.launch == "process":
        clauses.append(f"installs and runs, in an environment of its own: {', '.join(spec.requires)}")
    if spec.pin:
        clauses.append(f"pinned: {', '.join(f'{name} {value}' for name, value in spec.pin.items())}")
    return [line for clause in clauses for line in wrapped_after(f"{spec.name}: ", printable(clause), width=width)]


def plan_line(
    *,
    requests: tuple[int, int],
    tokens: int,
    engines: Sequence[str],
    residency: str,
    asked: str = "",
    wave: int | None = None,
) -> str:
    """Return what will be asked of each engine and in all, the most tokens, and how the engines share the machine.

    ``requests`` are those to an engine that repeats itself, and the most; ``tokens`` are of each engine.
    ``engines`` are their names in the order they are asked; it is shown where one has to go before the next comes. Of
    engines that are in memory together ``asked`` says which are asked at the same time. With a ``wave`` they are asked
    so many cases at a time, and less than all as soon as nothing is open. Without ``tokens`` nobody knows how many:
    applications ask for what they like.
    """
    least, most = requests
    span = f"{least} to {most}" if wave is None and least != most else f"{most}"
    requested = _of_each(
        span if wave is None else f"at most {span}", "request" if most == 1 else "requests", len(engines)
    )
    line = f"plan: {requested}{f', in waves of {wave}' if wave else ''}"
    if tokens:
        line += f"; at most {explain.count(tokens, 'token')}{' of each' if len(engines) > 1 else ''}"
    if len(engines) == 1:
        return line
    order = f": {', then '.join(engines)}" if residency == "one-at-a-time" else f", {asked}"
    return f"{line}; {explain.count(len(engines), 'engine')} {residency.replace('-', ' ')}{order}"


def portion_lines(sets: Iterable[str], asked: str) -> list[str]:
    """Return of which prompt sets a part is asked, where one is; ``asked`` are the options that say so.

    >>> portion_lines(["prompts.jsonl: 20 of 300 prompts, sample"], "--parity-sample 20")
    ['prompts.jsonl: 20 of 300 prompts, sample (--parity-sample 20)']
    """
    return [line for each in sets for line in wrapped_after("", printable(f"{each} ({asked})"), width=WIDTH)]


def placed_lines(specs: Sequence[EngineSpec], executor: str) -> list[str]:
    """Return which engines are started several times, and what runs where; nothing of engines that are there once here.

    >>> specs = (EngineSpec(name="a", num_gpus=1.0, num_cpus=0.0, replicas=8), EngineSpec(name="b"))
    >>> placed_lines(specs, "ray=head:6379")
    ['where: on the cluster of Ray at head:6379: a 8 times (1 GPU each), b (1 CPU)']
    >>> placed_lines(specs, "local")
    ['where: on this machine: a 8 times, b']
    """
    ray, _, address = executor.partition("=")
    if ray == LOCAL and all(spec.replicas == 1 for spec in specs):
        return []
    each = []
    for spec in specs:
        often = f" {spec.replicas} times" if spec.replicas > 1 else ""
        kept = " and ".join(f"{amount:g} {resource}" for resource, amount in bundle_of(spec).items())
        kept += " each" if often else ""
        each.append(f"{spec.name}{often}" + ("" if ray == LOCAL else f" ({kept})"))
    there = "on this machine" if ray == LOCAL else "on the cluster of Ray" + (f" at {address}" if address else "")
    return wrapped_after("where: ", printable(f"{there}: {', '.join(each)}"), width=WIDTH)


def replicas_line(requests: int, specs: Sequence[EngineSpec]) -> str:
    """Return what replicas are asked more: each measures what it differs from itself, on the same prompts.

    >>> replicas_line(64, [EngineSpec(name="a", replicas=3)])
    'replicas: at most 64 more requests to each replica of a but the first, which measure its noise floor'
    """
    names = " and of ".join(spec.name for spec in specs)
    requested = f"at most {explain.count(requests, 'more request')}"
    return f"replicas: {requested} to each replica of {names} but the first, which measure its noise floor"


def alone_lines(engine: str, skipped: int, checks: int) -> list[str]:
    """Return that one engine is compared with nothing, and how many of all checks are skipped for it.

    >>> print(*alone_lines("prod", 2, 2), sep=chr(10))
    nothing to compare: only prod is selected, so all 2 checks are skipped; name a
    second with --engines. The prompts are asked all the same, for tests that read
    answers and for reports
    """
    noun = "check is" if skipped == checks == 1 else "checks are" if skipped > 1 else "checks is"
    share = "the" if checks == 1 else f"all {checks}" if skipped == checks else f"{skipped} of {checks}"
    words = f"nothing to compare: only {engine} is selected, so {share} {noun} skipped; name a second with --engines"
    if skipped == checks:
        words += ". The prompts are asked all the same, for tests that read answers and for reports"
    return wrapped_after("", printable(words), width=WIDTH)


def runs_line(runs: int, engines: int) -> str:
    """Return how many of the planned requests are runs of applications, which ask engines as often as they like."""
    each = "each engine" if engines > 1 else "it"
    noun = "is a run of an application" if runs == 1 else "are runs of applications"
    return f"applications: {runs} of these requests to {each} {noun}, which send what they like"


def probe_line(requests: int, engines: int) -> str:
    """Return what the run asks at most before the first prompt, to find out what its engines can do."""
    noun = "short request" if requests == 1 else "short requests"
    return f"probes: {_of_each(f'at most {requests}', noun, engines)}"


def experiments_line(settings: Settings, *, planned: int, several: bool) -> str:
    """Return what experiments may ask beyond the plan, of a pair that fails or, with ``--parity-explain``, of any.

    ``planned`` are the requests that the plan takes of all engines at least. ``several``: they may be made more than
    once, for several tests or pairs of engines.

    >>> experiments_line(Settings(), planned=60, several=False)
    'experiments: where a check fails, up to 400 requests more to explain it (--parity-explain-requests)'
    >>> experiments_line(Settings(max_requests=90), planned=60, several=False)
    'experiments: where a check fails, up to 30 requests more to explain it (--parity-max-requests)'
    >>> experiments_line(Settings(max_requests=90), planned=96, several=False)
    'experiments: none, no request is left for them once the plan is asked (--parity-max-requests)'
    """
    most, option = settings.explain_requests, "--parity-explain-requests"
    if settings.max_requests is not None and settings.max_requests - planned < most:
        most, option = settings.max_requests - planned, "--parity-max-requests"
    if most <= 0:
        return f"experiments: none, no request is left for them once the plan is asked ({option})"
    requested = f"up to {explain.count(most, 'request')} more"
    why = (
        f"{requested} to explain what differs"
        if settings.explain
        else f"where a check fails, {requested} to explain it"
    )
    each = ", for each test and pair of engines" if several else ""
    return f"experiments: {why}{each} ({option})"


def route_line(requests: int, engines: Sequence[str]) -> str:
    """Return what is asked more of engines that are measured over another route than applications use."""
    in_all = f", {requests * len(engines)} in all" if len(engines) > 1 else ""
    each = "each of " if len(engines) > 1 else ""
    requested = f"at most {explain.count(requests, 'request')} more with whole prompts"
    return f"routes: {requested} to {each}{', '.join(engines)}{in_all}; half over each route"


def _of_each(span: str, noun: str, engines: int) -> str:
    """Return how much is asked of each engine and of all of them together, in the same words everywhere.

    >>> _of_each("at most 5", "requests", 2), _of_each("8", "requests", 1)
    ('at most 5 requests to each of 2 engines, 10 in all', '8 requests')
    >>> _of_each("96 to 192", "requests", 2)
    '96 to 192 requests to each of 2 engines, 192 to 384 in all'
    """
    if engines == 1:
        return f"{span} {noun}"
    in_all = re.sub(r"\d+", lambda number: str(engines * int(number[0])), span.removeprefix("at most "))
    return f"{span} {noun} to each of {engines} engines, {in_all} in all"


def _file_name(model: str) -> str:
    """Return a model file without folder and suffix; a name such as ``Qwen/Qwen3-8B`` stays."""
    return model.rpartition("/")[2].removesuffix(".gguf") if model.endswith(".gguf") else model


def _kv_cache(engine: EngineRecord) -> str | None:
    """Return the cache's type where it is narrower than usual."""
    kind = engine.identity.get("kv_cache")
    usual = kind is None or normalise(str(kind)) in ("AUTO", "BF16", "F16", "F32")
    return None if usual else f"KV {printable(str(kind))}"


def _slots(engine: EngineRecord) -> str | None:
    """Return how many requests are answered at once where that had to be found out."""
    slots = engine.identity.facts.get("slots")
    return None if slots is None or slots.source != "probed" else f"slots {slots.value} (probed)"


def _launch(engine: EngineRecord) -> str:
    """Return how an engine is reached; of a container the beginning of its image's digest, where it is known."""
    digest = engine.identity.get("image_digest")
    return engine.launch if digest is None else f"{engine.launch} {printable(str(digest).removeprefix('sha256:')[:8])}"


def _digest(engine: EngineRecord) -> str | None:
    digest = engine.identity.get("digest")
    return None if digest is None else printable(str(digest).removeprefix("sha256:")[:8])
