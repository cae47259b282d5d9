"""Asks two engines without the constraint of a schema, and says whose constraint changes its answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import msgspec

from pytest_llmparity.core.checks.schema.contract import Contract
from pytest_llmparity.core.compare.json import diff_values, parse_json
from pytest_llmparity.core.compare.wrapped import unwrap
from pytest_llmparity.core.diagnosis import removals
from pytest_llmparity.core.diagnosis.effects import Answers
from pytest_llmparity.core.diagnosis.layers import response_schema
from pytest_llmparity.core.diagnosis.removals import ASKED_FOR
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.sample import Sample
from pytest_llmparity.core.verdict import Cause
from pytest_llmparity.core.words import explain
from pytest_llmparity.run.explain.asking import Pair, completion

ENOUGH: Final = 0.5
"""Share of the prompts that the baseline has to answer as the schema wants without being forced to."""
CLEARLY: Final = 2
"""Times as many answers of one engine as of the other that its constraint has to change to be what parts them."""
FEW: Final = "without the schema's constraint {name} answers {fit} of {of} as the schema wants, too few to compare"


class Unconstrained:
    """The arm of a pair's answers that no schema forces; ``others`` are taken away in it too.

    Prompts that do not say what they want are asked with the schema in words. Answers are read as JSON where something
    stands round it. Only prompts count that the baseline answers as the schema wants: of what it cannot do unforced a
    difference says nothing. The candidate's answers to them count whatever they are.
    """

    def __init__(self, pair: Pair, others: Collection[str]) -> None:
        self._pair = pair
        self.others = frozenset(others) - {removals.ORDER, removals.SCHEMA, *removals.UNCONSTRAINED}
        self.way = removals.FREE
        self.why = ""
        """Why there is nothing to compare, empty where there is."""
        self._fitting: Collection[str] = ()

    def find(self) -> Answers:
        """Find the way of asking in which enough of the baseline's answers fit, and return what both answer so.

        Where there is none, ``why`` says so and there are no answers.
        """
        for self.way in removals.UNCONSTRAINED:
            free = self._pair.answers({*self.others, self.way})[self._pair.baseline.name]
            self._fitting = {case for case, sample in free.items() if self._fits(case, _bare(sample))}
            if len(self._fitting) >= ENOUGH * len(self._pair.cases):
                return self.answers(self.others)
        of = explain.count(len(self._pair.cases), "prompt")
        self.why = FEW.format(name=self._pair.baseline.name, fit=len(self._fitting), of=of)
        return {adapter.name: {} for adapter in self._pair.adapters}

    def answers(self, others: Collection[str]) -> Answers:
        """Return what both engines answer unforced with these others taken away, on the prompts that count."""
        free = self._pair.answers({*others, self.way})
        return {
            name: {case: _bare(sample) for case, sample in of.items() if case in self._fitting}
            for name, of in free.items()
        }

    def cause(self, *, gone: bool) -> Cause:
        """Return whose constraint it is: the engine whose values are others with it than without, and the other's not.

        ``gone``: without it nothing is left of the drift; else less of it.

        Where both answer otherwise, what differs shows with the constraint alone, and is something else.
        """
        forced, free = self._pair.answers(self.others), self.answers(self.others)
        names = [adapter.name for adapter in self._pair.adapters]
        changed = {name: sum(1 for _ in _changed(forced[name], free[name])) for name in names}
        baseline, candidate = names
        who, other = (candidate, baseline) if changed[candidate] >= changed[baseline] else (baseline, candidate)
        n = explain.count(len(free[baseline]), "prompt")
        if changed[who] < CLEARLY * max(1, changed[other]):
            return Cause(
                layer="weights or arithmetic",
                text=f"weights or arithmetic, which show {'with' if gone else 'most with'} the schema's constraint"
                f"{' alone' if gone else ''}: without it the drift is {'gone' if gone else 'less'}, and with it "
                f"{candidate} answers other values than without in {changed[candidate]} of {n}, "
                f"{baseline} in {changed[baseline]}",
                by_exclusion=True,
            )
        part = "" if gone else " is part of it"
        text = (
            f"the schema's constraint on {who}{part}: with it {who} answers other values than without in "
            f"{changed[who]} of {n}, {other} in {changed[other]}"
        )
        if order := _order(forced[who], free[who]):
            text += f"; it forces the order {', '.join(order)}"
        return Cause(layer="constraint", text=text, remedy=self._remedy(who))

    def _remedy(self, who: str) -> str:
        if self.way == removals.FREE:
            return f"in your requests to {who}: no response_format; hold the answers against the schema yourself"
        return f"in your requests to {who}: no response_format, and in the prompt: {ASKED_FOR}…"

    def _fits(self, case: str, sample: Sample) -> bool:
        """Whether an answer is what the schema of its case wants; anything is where a case has none."""
        schema = response_schema(self._pair.requests[case])
        answer = completion(sample)
        if schema is None or answer is None:
            return schema is None and answer is not None
        try:
            return Contract(schema, case).hold(answer).problem is None
        except DesignError:  # the check says so of its own
            return False


def _bare(sample: Sample) -> Sample:
    """Return an answer as the JSON in it, as it is where it holds none."""
    answer = completion(sample)
    if answer is None or parse_json(answer.text).error is None:
        return sample
    inner = unwrap(answer.text)
    if inner is None or inner.parsed.error is not None:
        return sample
    return msgspec.structs.replace(sample, completion=msgspec.structs.replace(answer, text=inner.body))


def _changed(forced: Mapping[str, Sample], free: Mapping[str, Sample]) -> Iterator[str]:
    """Yield the cases whose values are not the same in both."""
    for case, sample in free.items():
        if diff_values(_value(forced.get(case)), _value(sample)):
            yield case


def _order(forced: Mapping[str, Sample], free: Mapping[str, Sample]) -> list[str]:
    """Return the keys of the first forced answer that has those of the free one in another order; else nothing."""
    for case, sample in free.items():
        mine, other = (_value(of) for of in (forced.get(case), sample))
        both = isinstance(mine, dict) and isinstance(other, dict) and mine.keys() == other.keys()
        if both and list(mine) != list(other):
            return list(mine)
    return []


def _value(sample: Sample | None) -> Any:
    """Return an answer as JSON, its text where it is none, ``None`` where there is no answer."""
    answer = completion(sample)
    if answer is None:
        return None
    parsed = parse_json(answer.text)
    return answer.text if parsed.error is not None else parsed.value
