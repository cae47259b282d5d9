"""What the answers of a prompt set are held against: one schema for all of them, or each prompt's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pytest_llmparity.core.checks.missing import describe
from pytest_llmparity.core.checks.schema.contract import Contract, Reading
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import EngineEvidence
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.words import explain

OWN: Final = "a schema under expect"
"""How a schema is called that stands in a prompt's entry itself."""


class Contracts:
    """The contract of each case: ``whole`` for all of them, else the one that its ``expect.schema`` makes.

    ``files`` are the texts of schemas that cases name by a path. A schema is read once however many cases have it.
    """

    def __init__(
        self, whole: Contract | None = None, *, files: Mapping[str, str] | None = None, lenient: bool = False
    ) -> None:
        self.whole = whole
        self._files = files or {}
        self._lenient = lenient
        self._own: dict[str, Contract] = {}

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """The schema of all cases, ``None`` where each has its own."""
        return None if self.whole is None else self.whole.schema

    def of(self, case: Case) -> Contract:
        """Return the contract that a case's answers are held against; ``DesignError`` where it cannot be used."""
        if self.whole is not None:
            return self.whole
        expected = None if case.expect is None else case.expect.schema
        if expected is None:
            raise DesignError(f"{explain.plain(case.id, 40)} does not say under expect.schema what its answer fits")
        text, name = (self._text(expected), repr(expected)) if isinstance(expected, str) else _written(expected)
        if text not in self._own:
            self._own[text] = Contract.from_text(text, name, lenient=self._lenient)
        return self._own[text]

    def unknown_formats(self, cases: Sequence[Case]) -> tuple[str, ...]:
        """Return the formats that were asked for and that nobody here knows, once each."""
        contracts = [self.whole] if self.whole is not None else [self.of(case) for case in cases]
        return tuple(dict.fromkeys(word for contract in contracts for word in contract.unknown_formats))

    def dialects(self, cases: Sequence[Case]) -> tuple[str, ...]:
        """Return the drafts by which these cases are judged, once each."""
        contracts = [self.whole] if self.whole is not None else [self.of(case) for case in cases]
        return tuple(dict.fromkeys(contract.dialect for contract in contracts))

    def read(self, engine: EngineEvidence, prompts: PromptSet) -> dict[str, Reading]:
        """Return what was read of every case of the main phase that was asked, by its id; a failure fits no schema."""
        by_id = prompts.by_id
        readings = {case: self.of(by_id[case]).hold(answer) for case, answer in engine.answers().items()}
        for case, failure in engine.failures().items():
            readings[case] = Reading(problem=f"no answer: {describe(engine.name, case, failure)}", answered=False)
        return readings

    def _text(self, path: str) -> str:
        if path not in self._files:
            raise DesignError(f"the schema {path!r} under expect was never read")
        return self._files[path]


def files_of(prompts: PromptSet, read: Callable[[str], str]) -> dict[str, str]:
    """Return the texts of the schema files that cases name under ``expect``, by their paths, and try all schemas.

    Raises ``DesignError`` for one that cannot be used.
    """
    expected = [case.expect.schema for case in prompts.cases if case.expect is not None]
    files = {path: read(path) for path in dict.fromkeys(schema for schema in expected if isinstance(schema, str))}
    inline = dict(_written(schema) for schema in expected if isinstance(schema, Mapping))
    for text, name in [*((text, repr(path)) for path, text in files.items()), *inline.items()]:
        Contract.from_text(text, name)
    return files


def schemaless(prompts: PromptSet) -> str | None:
    """Say which cases have no schema of their own, ``None`` where all have one."""
    without = [case for case in prompts.cases if case.expect is None or case.expect.schema is None]
    if not without:
        return None
    verb = "does" if len(prompts.cases) == 1 else "do"
    return (
        f"{len(without)} of {explain.count(len(prompts.cases), 'prompt')} {verb} not say what the answer fits; the "
        f'first is {explain.plain(without[0].id, 40)}: give it expect = {{"schema": …}}, or give the check a schema'
    )


def _written(schema: Mapping[str, Any]) -> tuple[str, str]:
    return json.dumps(schema), OWN
