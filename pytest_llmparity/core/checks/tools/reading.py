"""Answers read by the tools that their cases offer."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_llmparity.core.checks.missing import describe
from pytest_llmparity.core.checks.tools.calls import Calls, Offered, asks_for_json, usable
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import EngineEvidence
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.core.words import explain


class Reader:
    """Reads answers by the tools of their case; the schemas of equal tools are read once."""

    def __init__(self) -> None:
        self._known: dict[str, Offered] = {}

    def offered(self, cases: Iterable[Case]) -> list[Offered]:
        """Return what cases offer; raises ``DesignError`` for parameters that are no usable schema."""
        for case in cases:
            if case.tools:
                self._of(case)
        return list(self._known.values())

    def of(self, engine: EngineEvidence, prompts: PromptSet) -> dict[str, Calls]:
        """Return what each answer to a case with tools calls; one that never came is wrong."""
        read = {
            case: self._read(prompts.by_id[case], answer)
            for case, answer in engine.answers().items()
            if prompts.by_id[case].tools
        }
        for case, failure in engine.failures().items():
            if prompts.by_id[case].tools:
                words = f"no answer: {describe(engine.name, case, failure)}"
                read[case] = Calls(answered=False, failure=words)
        return read

    def _read(self, case: Case, answer: Completion) -> Calls:
        offered, asked_for_json = self._of(case), asks_for_json(case)
        read = offered.read_all if case.tool_results else offered.read
        return read(answer, asked_for_json=asked_for_json)

    def _of(self, case: Case) -> Offered:
        key = usable(case.tools)
        if key not in self._known:
            try:
                self._known[key] = Offered(case)
            except DesignError as error:
                raise DesignError(f"{explain.plain(case.id, 40)}: {error}") from error
        return self._known[key]
