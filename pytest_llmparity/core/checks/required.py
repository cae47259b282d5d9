"""What a check needs of its engines before it can be judged, and what is said where that is missing."""

from __future__ import annotations

from pytest_llmparity.core.capabilities import Capabilities
from pytest_llmparity.core.checks.base import Check
from pytest_llmparity.core.diagnosis import response_schema
from pytest_llmparity.core.prompts import PromptSet


def required(check: Check, prompts: PromptSet) -> tuple[str, ...]:
    """Return the capabilities, by field name, without which a check of these prompts says nothing about an engine.

    What the check itself needs; ``json_schema`` only where a case asks for a schema, because an answer that nobody was
    asked to force may be judged on any engine. Cases with ``tools`` need one that takes them, whatever the check.
    """
    asked = any(response_schema(case) is not None for case in prompts.cases)
    names = sorted(name for name in check.needs().capabilities if asked or name != "json_schema")
    return (*names, *(["tools"] if any(case.tools for case in prompts.cases) else []))


def lacking(engine: str, check: Check, prompts: PromptSet, *, can: Capabilities, declares: Capabilities) -> str | None:
    """Return why this check is not judged on an engine, ``None`` when nothing is missing.

    What its kind promises and the server does not keep is not missing: the check is judged, fails, and says why.
    """
    for name in required(check, prompts):
        if can.lacks(name, declares):
            return f"{engine} {can.sentence(name)} ({can.basis(name, declares)})"
    return None
