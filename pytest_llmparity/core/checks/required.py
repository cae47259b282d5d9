"""What a check needs of its engines before it can be judged, and what is said where that is missing."""

from __future__ import annotations

from pytest_llmparity.core.diagnosis.layers import response_schema
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.prompts import Case, PromptSet


def required(check: Check, case: Case) -> tuple[str, ...]:
    """Return the capabilities, by field name, without which the answer to a case says nothing about an engine.

    What the check itself needs; ``json_schema`` only where the case asks for a schema, because an answer that nobody
    was asked to force may be judged on any engine. A case with ``tools`` needs one that takes them, whatever the check.
    """
    forced = response_schema(case) is not None
    names = sorted(name for name in check.needs().capabilities if forced or name != "json_schema")
    return (*names, *(["tools"] if case.tools else []))


def left_out(
    engine: str, check: Check, prompts: PromptSet, *, can: Capabilities, declares: Capabilities
) -> dict[str, str]:
    """Return why this check cannot be judged on an engine by case id; empty when nothing is missing.

    What its kind promises and the server does not keep is not missing: the check is judged, fails, and says why.
    """
    found: dict[str, str] = {}
    for case in prompts.cases:
        name = next((name for name in required(check, case) if can.lacks(name, declares)), None)
        if name is not None:
            found[case.id] = f"{engine} {can.sentence(name)} ({can.basis(name, declares)})"
    return found
