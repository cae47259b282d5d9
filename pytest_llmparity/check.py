"""The checks a ``parity`` marker takes: ``from pytest_llmparity import check``.

Each function returns a value that says which answers it needs and judges them once they are there. Arguments are
keywords and are looked at right here, so a wrong one is reported where it was written. What a check takes is
imported by the function that makes it: most suites make one or two of them.

    >>> from pytest_llmparity import check
    >>> str(check.text(margin=0.12))
    'text(margin=0.12)'
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pytest_llmparity.core.checks.arguments import (
    HORIZON,
    KEPT,
    REPEATS,
    REQUESTS,
    SAME,
    by_tag,
    caller,
    chosen_side,
    limits_of,
    nats,
    nearest_of,
    share,
    told_later,
    whole,
)
from pytest_llmparity.core.errors import DesignError

if TYPE_CHECKING:
    from pytest_llmparity.core.checks.alone.reasoning import ReasoningCheck
    from pytest_llmparity.core.checks.alone.stream import StreamCheck
    from pytest_llmparity.core.checks.answers import AnswersCheck
    from pytest_llmparity.core.checks.base import BaseCheck
    from pytest_llmparity.core.checks.distribution import DistributionCheck
    from pytest_llmparity.core.checks.drift.logprobs import LogprobsCheck
    from pytest_llmparity.core.checks.drift.text import Ignored, TextCheck
    from pytest_llmparity.core.checks.latency import LatencyCheck
    from pytest_llmparity.core.checks.prompts import PromptsCheck
    from pytest_llmparity.core.checks.schema import SchemaCheck
    from pytest_llmparity.core.checks.schema.contract import Adapter
    from pytest_llmparity.core.checks.schema.target import JsonModel
    from pytest_llmparity.core.checks.similarity import SimilarityCheck
    from pytest_llmparity.core.checks.tags import By
    from pytest_llmparity.core.checks.tools import ToolsCheck
    from pytest_llmparity.core.checks.tools.calls import Arguments, LastAnswer, Order
    from pytest_llmparity.core.checks.value import ValueCheck
    from pytest_llmparity.core.checks.value.pair import Key
    from pytest_llmparity.core.right.extract import Extract
    from pytest_llmparity.core.stats.paired import Side

__all__ = ["answers", "distribution", "latency", "logprobs", "prompts", "schema", "similarity", "text", "tools"]
__all__ += ["reasoning", "stream", "value"]


P = ParamSpec("P")
C = TypeVar("C", bound="BaseCheck")


def _told_later(make: Callable[P, C]) -> Callable[P, C]:
    return told_later(make, collecting=lambda: "PYTEST_VERSION" in os.environ)


if not TYPE_CHECKING:  # else type checkers would take any name for one of ours

    def __getattr__(name: str) -> Any:
        there = sorted(__all__)
        raise AttributeError(f"there is no check.{name}{nearest_of(name, there)}; there are: {', '.join(there)}")


@_told_later
def prompts() -> PromptsCheck:
    """Require that both engines saw the same prompt, uncut: the same number of prompt tokens on every case.

    An exact comparison: one prompt that differs fails it, and the text says whether template, tokeniser or a cut is
    behind it. Engines that report no counts leave it inconclusive.
    """
    from pytest_llmparity.core.checks.prompts import PromptsCheck

    return PromptsCheck(where=caller())


@_told_later
def text(
    *,
    margin: float | None = None,
    horizon: int = HORIZON,
    by: By | None = None,
    ignore: Ignored | None = None,
    shift: float | None = None,
) -> TextCheck:
    """Require that greedy answers part from the baseline's at fewer than ``margin`` of tokens.

    Counted over the first ``horizon`` tokens of each answer. ``margin`` is a share (0.05 is 5 %); no share suits all
    models and prompts. Without one it is that of the candidate's declared class on a ladder that ``llmparity calibrate
    --ladder FILE --prompts PROMPTS`` measured on these prompts; without such a ladder it is an error at set-up. A
    ladder belongs to a horizon of 32, so another horizon takes a margin of its own. ``by="tag"`` also judges the
    prompts of each tag by themselves, where there are enough: at 5 % eight groups of them, at 12 % 24.

    ``ignore="near-ties"`` counts other forks only: not those at which the lead of the baseline's token moved no further
    than an accepted shift explains (3.63 times it). Accepted is ``shift``, in nats, else what ``llmparity calibrate``
    wrote into the lock for the pair, else what the model's ladder allows 8-bit copies, whatever a candidate declares;
    without any it is an error at set-up. Forks without logprobs count, and a pair that is shown to shift by more than
    was accepted does not pass.

    Raises ``DesignError`` for a margin outside 0..1, a horizon that is not a positive whole number, another word for
    ``by`` or ``ignore``, or a ``shift`` without ``ignore``.
    """
    from pytest_llmparity.core.checks.drift.text import NEAR_TIES, TextCheck

    if margin is not None:
        margin = share("text", "margin", margin)
    if not whole(horizon):
        raise DesignError(f"text(horizon={horizon!r}): a horizon is a whole number of tokens from 1 up")
    if margin is None and horizon != HORIZON:
        raise DesignError(
            f"text(horizon={horizon}): a ladder belongs to a horizon of {HORIZON} tokens; give margin= too"
        )
    if ignore not in (None, NEAR_TIES):
        raise DesignError(
            f'text(ignore={ignore!r}): ignore must be "{NEAR_TIES}", forks that an accepted shift explains'
        )
    if shift is not None and ignore is None:
        raise DesignError(
            f'text(shift={shift!r}): a shift says which forks are near-ties, so give ignore="{NEAR_TIES}" too; '
            "check.logprobs(shift=…) holds the shift itself"
        )
    accepted = None if shift is None else nats("text", "shift", shift)
    by = by_tag("text", by)
    return TextCheck(margin=margin, horizon=horizon, by=by, ignore=ignore, shift=accepted, where=caller())


@_told_later
def logprobs(*, shift: float | None = None) -> LogprobsCheck:
    """Require that the candidate's idea of the next token lies within ``shift`` nats of the baseline's.

    Measured is by how much the lead of the baseline's best token over its second is another one on the candidate, while
    both saw the same text: the median over groups of prompts, with the exact bounds of the sign test. Sixteen prompts
    settle what ``text`` may not settle with hundreds, and what they are about hardly matters. The scale belongs to the
    model: without ``shift`` the margin is the one that was accepted for the two engines in ``llmparity.lock``, which
    ``llmparity calibrate`` measures and writes (``docs/calibrate.md``). Engines without logprobs are skipped; those
    whose logprobs name other tokens or come after a filter are incomparable. Raises ``DesignError`` for a shift that is
    no positive number.
    """
    from pytest_llmparity.core.checks.drift.logprobs import LogprobsCheck

    return LogprobsCheck(shift=None if shift is None else nats("logprobs", "shift", shift), where=caller())


@_told_later
def schema(
    target: JsonModel | Adapter | type | Mapping[str, Any] | str | Path | None = None,
    *,
    rate: float | None = None,
    gap: float | None = None,
    agree: float | None = None,
    arms: float | None = None,
    side: Side = "either",
    lenient: bool = False,
    fields: Sequence[str] = (),
    tolerance: Mapping[str, float] | None = None,
    unordered: Sequence[str] = (),
    by: By | None = None,
) -> SchemaCheck:
    """Require answers that fit: a pydantic model, the path of a JSON Schema, a schema itself, or each prompt's own.

    With a model class, a ``TypeAdapter``, a dataclass or a ``TypedDict`` an answer fits when pydantic validates it in
    strict JSON mode, validators included; with a schema when it is valid, ``format`` included. An answer that
    ``json.loads`` refuses does not fit: with ``lenient=True`` JSON in a Markdown code block, behind reasoning or
    between words is read, and the verdict counts by engine how often.

    ``rate``: at least this share of each engine's answers fits. ``gap``: between baseline and candidate that share
    differs by at most this much; ``side="worse"`` lets a better candidate pass whatever the gap. ``agree``: at least
    this share of cases has equal values on both engines, whatever the order of keys. ``arms``: every prompt is asked
    twice, *constrained* (the schema as ``response_format``) and *free* (the schema in words); per engine at most this
    share of answers is right in the free arm only, net, a refused or violated constraint fails, and the other limits
    hold for each arm. Right is what fits and is ``expect.answer`` where the prompt says so. At least one of these is
    needed. Without ``target`` each prompt's ``expect.schema`` counts.
    ``fields`` names what is compared for ``agree`` and ``arms``, such as ``["$.queue", "$.items[].price"]``: what your
    application reads; without it all of a value is. ``tolerance`` is how far numbers may lie apart
    (``{"$.total": 0.01}``), at the paths of ``unordered`` arrays are equal whatever the order of their items.
    The draft is the one ``$schema`` names, else 2020-12; remote references are refused. Of cases of one ``group``
    one counts; with too few groups for that all of them do, as fewer. ``by="tag"`` also judges the prompts of each tag
    by themselves, where there are as many groups as a limit takes prompts.

    Raises ``DesignError`` for anything else, a schema that cannot be used included (a file is read later).
    """
    from pytest_llmparity.core.checks.schema import SchemaCheck
    from pytest_llmparity.core.checks.schema.target import read_target
    from pytest_llmparity.core.compare.fields import EVERYTHING, fields_of

    limits = {"rate": rate, "gap": gap, "agree": agree, "arms": arms}
    example = "rate=0.98, gap=0.05, agree=0.95 or arms=0.05"
    given = limits_of("schema", limits, example=example, gaps=("gap", "arms"), word="a gap")
    side = chosen_side("schema", side)
    where = caller()
    if not isinstance(lenient, bool):
        raise DesignError(f"schema(lenient={lenient!r}): lenient is True or False")
    compared = fields_of("schema", fields, tolerance or {}, unordered)
    if compared != EVERYTHING and agree is None and arms is None:
        raise DesignError("schema(): fields, tolerance and unordered say what agree= compares; give agree= too")
    common: dict[str, Any] = {**given, "side": side, "lenient": lenient, "fields": compared}
    common |= {"by": by_tag("schema", by), "where": where}
    return SchemaCheck(**read_target(target), **common)


@_told_later
def answers(
    *,
    extract: Extract | None = None,
    rate: float | None = None,
    gap: float | None = None,
    flips: float | None = None,
    side: Side = "either",
    by: By | None = None,
) -> AnswersCheck:
    """Require answers that are right, by what each prompt says of it under ``expect``.

    An answer is right when its text is ``expect.answer``, it holds every piece of ``expect.contains``, calls
    ``expect.tool`` and fits ``expect.schema``, as far as the prompt names them; each prompt names at least one.
    ``extract`` says what of the text is the answer: ``"number"`` (the last one), ``"choice"`` (a letter), ``"bool"``
    (yes or no), ``"json:$.path"`` (a field of an answer that is JSON), a regular expression (what its group finds
    first) or a function of the text. Without it the whole text is, but for white space around it. An answer in which it
    finds nothing is not right.

    ``rate``: at least this share of each engine's answers is right. ``gap``: between baseline and candidate that share
    differs by at most this much, on the same prompts; ``side="worse"`` lets a better candidate pass whatever the gap.
    ``flips``: at most this share of prompts is right on one engine and wrong on the other, less those that turn when
    the baseline alone is asked again: two engines with equal rates may be right on different prompts. Each prompt is
    then asked twice. At least one of them is needed. Of cases of one ``group`` one counts; with too few groups for that
    all of them do, as fewer. ``by="tag"`` also judges the prompts of each tag by themselves, where there are as many
    groups as a limit takes prompts.

    Raises ``DesignError`` for anything else.
    """
    from pytest_llmparity.core.checks.answers import AnswersCheck
    from pytest_llmparity.core.right.extract import refused

    limits = {"rate": rate, "gap": gap, "flips": flips}
    given: dict[str, Any]
    given = {**limits_of("answers", limits, example="rate=0.9, gap=0.05 or flips=0.05", gaps=("gap", "flips"))}
    if extract is not None and (why := refused(extract)):
        raise DesignError(f"answers(extract=…): {why}")
    return AnswersCheck(
        **given, extract=extract, side=chosen_side("answers", side), by=by_tag("answers", by), where=caller()
    )


@_told_later
def tools(
    *,
    trigger: float | None = None,
    names: float | None = None,
    rate: float | None = None,
    agree: float | None = None,
    arguments: Arguments | Sequence[str] = "equal",
    order: Order = "any",
    last: LastAnswer = "equal",
    by: By | None = None,
) -> ToolsCheck:
    """Require tool calls where they belong, of the right tool, without faults, and alike on both engines.

    Of each engine: ``trigger`` is the least share of prompts in which it calls a tool where the prompt says that one is
    to be called and calls none where it says ``"none"`` (``expect.tool``, else a ``tool_choice`` that leaves no
    choice); precision, recall and F1 stand beside it. ``names``: the least share of prompts that name a tool in which
    that one is called. ``rate``: of the answers that call, and of those that do not where the prompt says that a
    tool is to be called, the least share without a fault: arguments that are no JSON or do not fit the tool's schema, a
    name that was not offered, a call left in the text as markup, reasoning and nothing else, a call that the engine
    dropped, no call.

    Between engines: ``agree`` is the least share of prompts in which both call alike: as often, the same tools, and
    ``arguments`` that are ``"equal"`` as JSON, that ``"fits"`` their schemas on both, or that are equal in some fields
    (``["city", "stops[].zip"]``, short for ``$.city`` and ``$.stops[].zip``). ``order="same"`` asks for the same order
    of calls too. Prompts with ``tool_results`` are conversations: alike in the calls of every turn, in how many turns
    there are, and in the last answer, unless ``last="any"``. At least one limit is needed; of cases of one ``group``
    one counts, ``by="tag"`` also judges each tag, as :func:`schema` does.

    Raises ``DesignError`` for anything else.
    """
    from pytest_llmparity.core.checks.tools import ToolsCheck
    from pytest_llmparity.core.checks.tools.calls import chosen_arguments

    limits = {"trigger": trigger, "names": names, "rate": rate, "agree": agree}
    example = "trigger=0.95, names=0.95, rate=0.95 or agree=0.95"
    given: dict[str, Any] = {**limits_of("tools", limits, example=example)}
    if order not in ("any", "same"):
        raise DesignError(f'tools(order={order!r}): order is "any" or "same"')
    if last not in ("equal", "any"):
        raise DesignError(f'tools(last={last!r}): last is "equal" or "any", and about the last answer of conversations')
    return ToolsCheck(
        **given, arguments=chosen_arguments(arguments), order=order, last=last, by=by_tag("tools", by), where=caller()
    )


@_told_later
def reasoning(
    *, present: bool | None = None, most_tokens: int | None = None, rate: float = KEPT, by: By | None = None
) -> ReasoningCheck:
    """Require that each engine reasons before it answers, or does not, and for at most so many tokens.

    ``present``: at least ``rate`` of an engine's answers reason, or with ``present=False`` do not. ``most_tokens``: at
    least ``rate`` of them reason for at most so many tokens, which are estimated where a server does not count them.
    At least one of the two is needed. Reasoning is one channel whatever a server calls it, and its words are not
    compared. ``by="tag"`` also judges the prompts of each tag by themselves.

    Raises ``DesignError`` for anything else.
    """
    from pytest_llmparity.core.checks.alone.reasoning import ReasoningCheck, refuse_arguments

    refuse_arguments(present, most_tokens)
    share("reasoning", "rate", rate)
    where, tag = caller(), by_tag("reasoning", by)
    return ReasoningCheck(present=present, most_tokens=most_tokens, rate=rate, by=tag, where=where)


@_told_later
def stream(*, rate: float = SAME, ignore: Sequence[str] = (), by: By | None = None) -> StreamCheck:
    """Require that an engine answers the same whether its answer is streamed or comes whole.

    About one engine at a time: every prompt is asked streamed and unstreamed, twice each, and at least ``rate`` of
    prompts have the same content, tool calls, finish reason and token counts both ways; of those, ``ignore`` names what
    is left out (``["usage"]``). Prompts to which the engine gives two different answers the same way are forgiven,
    counted neither way and named: where they are most of all, it does not pass. An engine that cannot stream, or cannot
    answer unstreamed, is incomparable. ``by="tag"`` also judges the prompts of each tag by themselves.

    Raises ``DesignError`` for a share outside 0..1, other words, or both content and calls left out.
    """
    from pytest_llmparity.core.checks.alone.stream import StreamCheck, ignored

    left, tag = ignored(ignore), by_tag("stream", by)
    return StreamCheck(rate=share("stream", "rate", rate), ignore=left, by=tag, where=caller())


@_told_later
def similarity(*, at_least: float | None = None, by: By | None = None) -> SimilarityCheck:
    """Require that 90 % of answers are alike: no other number, no flipped negation, and close enough.

    ``at_least`` is the least closeness of a pair, 0..1: cosine of embeddings where an embedder is configured, else edit
    similarity; such a number is reported as uncalibrated. Without it the limit is the 5 % quantile of what the baseline
    scores against its own repeats.

    No equivalence gate for open text: in 200 of 200 draws of 64 free-text prompts ``at_least=0.85`` failed an honest
    BF16 against F16 of the same model. Ask it of answers that are short or nearly fixed, and :func:`text` of open text.
    Of cases of one ``group`` one counts; with too few groups for that all of them do, as fewer.

    ``by="tag"`` also judges the prompts of each tag by themselves, where they come from 29 groups or more.

    Raises ``DesignError`` for a number outside 0..1, or another word for ``by``.
    """
    from pytest_llmparity.core.checks.similarity import SimilarityCheck

    if at_least is not None:
        at_least = share("similarity", "at_least", at_least)
    return SimilarityCheck(at_least=at_least, by=by_tag("similarity", by), where=caller())


@_told_later
def distribution(*, repeats: int = REPEATS, gate: bool = False) -> DistributionCheck:
    """Show whether sampled answers could come from either engine: advice, no verdict.

    Each prompt is asked ``repeats`` times at a temperature above 0 and without a seed (``sampling={"temperature": 0.8,
    "seed": None}``), and how much of their beginnings answers share within and across engines is compared by a
    permutation test within prompts. Two engines whose weights differ at all differ here given enough answers, and few
    answers see little: 500 of 50 tokens see a 4-bit copy in one run of five. So it is SKIPPED, with its p-value, and
    with ``gate`` FAIL where a difference is shown, else INCONCLUSIVE; it never passes. Gate on what sampled answers are
    for instead (:func:`schema`). Each choice of a prompt with ``n`` is a draw; where every prompt has it, ``repeats``
    may be 1. Raises ``DesignError`` for fewer.
    """
    from pytest_llmparity.core.checks.distribution import DistributionCheck

    if not whole(repeats) or repeats < 1:
        raise DesignError(
            f"distribution(repeats={repeats!r}): repeats is a whole number of answers from 2 up, or 1 where every "
            "prompt asks for several choices (n)"
        )
    return DistributionCheck(repeats=repeats, gate=gate, where=caller())


@_told_later
def latency(
    *,
    ttft_p50: str | float | None = None,
    ttft_p95: str | float | None = None,
    ttft_p99: str | float | None = None,
    tpot_p50: str | float | None = None,
    tpot_p95: str | float | None = None,
    tpot_p99: str | float | None = None,
    e2e_p50: str | float | None = None,
    e2e_p95: str | float | None = None,
    e2e_p99: str | float | None = None,
    success_rate: float | None = None,
    n: int = REQUESTS,
    cached: bool = False,
) -> LatencyCheck:
    """Require latency within budgets, measured in a phase of its own of ``n`` requests per engine.

    Time to first token, time per output token and end-to-end time at p50, p95 and p99: ``"x1.25"`` is relative to the
    baseline's, ``"250ms"``, ``"2s"`` or a number of seconds is absolute and holds for every engine. ``success_rate`` is
    the least share of requests that are answered. Failed requests count as over every budget.

    Every timed prompt begins with a number of its own, so that no engine answers from a prefix cache that holds what
    was asked before; ``cached=True`` times the prompts as they are, with whatever caches hold of them.

    At least one limit is needed; ``DesignError`` says what is wrong with one.
    """
    from pytest_llmparity.core.checks.latency import LatencyCheck, parse_budget

    asked = {
        "ttft_p50": ttft_p50,
        "ttft_p95": ttft_p95,
        "ttft_p99": ttft_p99,
        "tpot_p50": tpot_p50,
        "tpot_p95": tpot_p95,
        "tpot_p99": tpot_p99,
        "e2e_p50": e2e_p50,
        "e2e_p95": e2e_p95,
        "e2e_p99": e2e_p99,
    }
    budgets = tuple(parse_budget(name, value) for name, value in asked.items() if value is not None)
    if success_rate is not None:
        success_rate = share("latency", "success_rate", success_rate)
    if not budgets and success_rate is None:
        raise DesignError('latency() needs at least one budget, such as ttft_p50="x1.25" or e2e_p95="2s"')
    if not whole(n):
        raise DesignError(f"latency(n={n!r}): n is a whole number of requests from 1 up")
    if not isinstance(cached, bool):
        raise DesignError(f"latency(cached={cached!r}): cached is True or False")
    return LatencyCheck(budgets=budgets, success_rate=success_rate, n=n, cached=cached, where=caller())


@_told_later
def value(
    *,
    agree: float | None = None,
    rate: float | None = None,
    gap: float | None = None,
    drift: float | None = None,
    key: Key | None = None,
    fields: Sequence[str] = (),
    tolerance: float | Mapping[str, float] | None = None,
    unordered: Sequence[str] = (),
    exceptions: bool = False,
    side: Side = "either",
    by: By | None = None,
) -> ValueCheck:
    """Compare what an application returns: the test itself is the application, run once per input and engine.

    ``agree``: with at least this share of inputs both engines give equal values. ``rate``: on each engine the
    application returns with at least this share of inputs, and raises nothing. ``gap``: between baseline and candidate
    that share differs by at most this much; ``side="worse"`` lets a better candidate pass whatever the gap. ``drift``:
    values differ with at most this share of inputs, less those with which they differ when the application is run on
    the baseline again; each input is then run twice. At least one of them is needed.

    All of a value is compared, or what the function ``key`` returns for it, or the paths in ``fields``
    (``["$.queue", "$.items[].price"]``). ``tolerance`` is how far numbers may lie apart, everywhere (``0.01``) or by
    path (``{"$.total": 0.01}``); arrays at the paths of ``unordered`` have no order. Where both engines raise they do
    not agree; with ``exceptions=True`` they do where the exceptions are of one type. Of cases of one ``group`` one
    counts, ``by="tag"`` also judges each tag, as :func:`schema` does.

    Raises ``DesignError`` for anything else.
    """
    from pytest_llmparity.core.checks.value import ValueCheck, refuse_arguments
    from pytest_llmparity.core.compare.fields import EVERYTHING, fields_of

    limits = {"rate": rate, "gap": gap, "agree": agree, "drift": drift}
    example = "agree=0.95, rate=0.98, gap=0.05 or drift=0.05"
    given: dict[str, Any] = {**limits_of("value", limits, example=example, gaps=("gap", "drift"))}
    refuse_arguments(key=key, fields=fields, exceptions=exceptions)
    compared = fields_of("value", fields, {} if tolerance is None else tolerance, unordered)
    if compared != EVERYTHING and agree is None and drift is None:
        raise DesignError("value(): fields, tolerance and unordered say what agree= and drift= compare; give one too")
    return ValueCheck(
        **given,
        key=key,
        fields=compared,
        exceptions=exceptions,
        side=chosen_side("value", side),
        by=by_tag("value", by),
        where=caller(),
    )
