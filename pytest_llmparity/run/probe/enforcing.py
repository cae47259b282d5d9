"""Asks an engine every prompt that pushes against a schema, and says what became of the constraint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import msgspec

from pytest_llmparity.core.checks.schema.beginning import blank_end, broken_already
from pytest_llmparity.core.checks.schema.contract import Contract
from pytest_llmparity.core.compare.order import KeyOrders
from pytest_llmparity.core.errors import BadRequest, EngineError, ParameterNotHonoured, ServerFailure
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.prompts.pushing import Canary, canaries
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.core.words import explain
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.probe.probes import Prober

ENFORCED: Final = "enforced"
VIOLATED: Final = "violated"
REFUSED: Final = "refused"
NOT_SHOWN: Final = "not shown"
NONE: Final = "no constraint"
FAILED: Final = "failed"
OUTCOMES: Final = (ENFORCED, VIOLATED, REFUSED, NOT_SHOWN, NONE, FAILED)
_ORDER: Final = "order of properties"


class Enforced(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one canary on one engine: ``outcome``, ``why`` in words, and what was ``answered``."""

    canary: str
    outcome: str
    why: str = ""
    answered: str = ""


def enforced(adapter: Adapter, asked: Sequence[Canary] = ()) -> list[Enforced]:
    """Return what an engine did with each canary of a schema; a failure is said of its canary, never raised."""
    prober = Prober(adapter=adapter, declares=adapter.can)
    return [_outcome_of(prober, canary) for canary in asked or canaries()]


def _outcome_of(prober: Prober, canary: Canary) -> Enforced:
    try:
        forced = _ask(prober, canary.case, canary)
    except ParameterNotHonoured as error:
        return Enforced(canary=canary.name, outcome=NONE, why=explain.plain(str(error), 200))
    except (BadRequest, ServerFailure) as error:
        return _refused(prober, canary, error)
    except EngineError as error:
        return Enforced(canary=canary.name, outcome=FAILED, why=explain.plain(f"{type(error).__name__}: {error}", 200))
    shown = explain.plain(forced.text, 200)
    problem = _problem(canary, forced)
    if problem is not None and forced.cut:
        cut = f"cut after {forced.completion_tokens or len(forced.text)} tokens"
        if (broken := broken_already(forced.text, canary.schema)) is not None:
            why = explain.plain(f"{broken} ({cut}; nothing that follows mends it)", 200)
            return Enforced(canary=canary.name, outcome=VIOLATED, why=why, answered=shown)
        why = cut + blank_end(forced.text)
        return Enforced(canary=canary.name, outcome=NOT_SHOWN, why=why, answered=shown)
    if problem is not None:
        return Enforced(canary=canary.name, outcome=VIOLATED, why=explain.plain(problem, 200), answered=shown)
    try:
        free = _ask(prober, _free(canary), canary)
    except EngineError as error:
        why = f"not asked without it: {type(error).__name__}"
        return Enforced(canary=canary.name, outcome=NOT_SHOWN, why=why, answered=shown)
    if _problem(canary, free, lenient=True) is None:
        why = "kept without it too"
        if _problem(canary, free) is not None:
            why = "kept without it too, but for what stands round the JSON: that JSON is enforced is shown, no more"
        return Enforced(canary=canary.name, outcome=NOT_SHOWN, why=why, answered=shown)
    return Enforced(canary=canary.name, outcome=ENFORCED, answered=shown)


def _refused(prober: Prober, canary: Canary, error: EngineError) -> Enforced:
    """Say that a schema was refused, where the same prompt is answered without it."""
    why = explain.plain(str(error), 200)
    try:
        _ask(prober, _free(canary), canary)
    except EngineError:
        return Enforced(canary=canary.name, outcome=FAILED, why=why)
    return Enforced(canary=canary.name, outcome=REFUSED, why=why)


def _ask(prober: Prober, case: Case, canary: Canary) -> Completion:
    return prober.ask(case.request(canary.sampling))


def _free(canary: Canary) -> Case:
    return msgspec.structs.replace(canary.case, response_format=None)


def _problem(canary: Canary, answer: Completion, *, lenient: bool = False) -> str | None:
    """Say why an answer does not keep its schema, and its order where that is the question; ``None`` where it does."""
    reading = Contract.from_text(json.dumps(canary.schema), canary.name, lenient=lenient).hold(answer)
    if reading.problem is None and canary.name == _ORDER and KeyOrders().moved(reading.value, canary.schema):
        return "the properties come in another order than declared"
    return reading.problem
