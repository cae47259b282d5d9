"""One JSON Schema held against answers: reading them, validating them offline, and where two of them differ."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import jsonschema_rs

from pytest_llmparity.core import explain
from pytest_llmparity.core.checks.base import EngineEvidence
from pytest_llmparity.core.checks.gathered import answers, describe, failures
from pytest_llmparity.core.compare.json import FieldDiff, diff_values, parse_json
from pytest_llmparity.core.errors import DesignError


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One case of one engine, read as JSON and validated. ``problem`` says why it does not fit, ``None`` if it does.

    ``answered`` is false for a failed request, ``parsed`` true where ``value`` holds what was read.
    """

    problem: str | None
    answered: bool = True
    parsed: bool = False
    value: Any = None
    fenced: bool = False
    text: str = ""

    def differences(self, other: Reading) -> list[FieldDiff]:
        """Return the fields that differ, order of keys aside; empty unless both are JSON."""
        return diff_values(self.value, other.value) if self.parsed and other.parsed else []

    def differing(self, other: Reading) -> set[str]:
        """Return the differing paths with array places left out (``$.items[].price``); empty when the values agree.

        Something that is not JSON differs from everything as a whole: ``$``.
        """
        if not (self.parsed and other.parsed):
            return {"$"}
        return {re.sub(r"\[\d+\]", "[]", difference.path) for difference in self.differences(other)}


class Contract:
    """A JSON Schema ready to validate: the draft its ``$schema`` names, else 2020-12; nothing is ever fetched."""

    def __init__(self, schema: Mapping[str, Any], name: str) -> None:
        self.schema = schema
        try:
            self._validator = jsonschema_rs.validator_for(dict(schema), retriever=_refuse)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            said = explain.plain(str(getattr(error, "message", "") or error))
            hint = (
                "; copy what it refers to into it, nothing is fetched" if _REFUSED in said or "base URI" in said else ""
            )
            raise DesignError(f"{name} is not a usable JSON Schema: {said}{hint}") from error

    @classmethod
    def from_text(cls, text: str, name: str) -> Contract:
        """Read a schema from JSON text; ``DesignError`` says what is wrong with it."""
        parsed = parse_json(text)
        if parsed.error is not None or parsed.fenced:
            raise DesignError(f"{name} is not JSON: {parsed.error or 'it stands in a code block'}")
        if not isinstance(parsed.value, dict):
            raise DesignError(f"{name} is not a JSON Schema object but {explain.quote(json.dumps(parsed.value))}")
        return cls(parsed.value, name)

    def read(self, engine: EngineEvidence) -> dict[str, Reading]:
        """Read every case of the main phase that was asked: answers are parsed and validated, failures do not fit."""
        found = {case: self.hold(completion.text) for case, completion in answers(engine).items()}
        for case, failure in failures(engine).items():
            found[case] = Reading(problem=f"no answer: {describe(engine, case, failure)}", answered=False)
        return found

    def hold(self, text: str) -> Reading:
        """Read one answer and hold it against the schema."""
        parsed = parse_json(text)
        if parsed.error is not None:
            return Reading(problem=f"not JSON: {parsed.error}", text=text, fenced=parsed.fenced)
        return Reading(
            problem=self._problem(parsed.value), parsed=True, value=parsed.value, fenced=parsed.fenced, text=text
        )

    def _problem(self, value: Any) -> str | None:
        try:
            json.dumps(value, ensure_ascii=False).encode()  # nobody can send on or store what fails here
        except UnicodeEncodeError:
            return "a string holds half a character (a lone surrogate)"
        except RecursionError:
            return "nested too deeply"
        for error in self._validator.iter_errors(value):
            path = "$" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.instance_path)
            return f"{path}: {error.message}"
        return None


_REFUSED = "no schema is fetched"


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"{_REFUSED}: {uri}")
