"""The answers of two engines to the same cases, read as JSON: what can be compared of them, and where they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pytest_llmparity.core.checks.base import pair_answers
from pytest_llmparity.core.checks.designs import design_of
from pytest_llmparity.core.checks.missing import Missing, Silence
from pytest_llmparity.core.checks.schema.contract import Reading
from pytest_llmparity.core.compare.answers import cut_in_call, digest, speechless
from pytest_llmparity.core.compare.calls import same_calls, written_out
from pytest_llmparity.core.compare.fields import EVERYTHING, Fields
from pytest_llmparity.core.evidence import EngineEvidence, Evidence
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.verdict import Difference, Verdict
from pytest_llmparity.core.words import explain


class PairReadings:
    """Readings of a pair over the cases the baseline answered and the candidate was asked.

    ``compared`` are those without pairs that say nothing (neither text nor a call); where both answers call tools the
    calls are compared. ``spoken`` are those of them that a schema can be held against on at least one engine.
    """

    def __init__(
        self,
        evidence: Evidence,
        candidate: EngineEvidence,
        readings: Mapping[str, Mapping[str, Reading]],
        fields: Fields = EVERYTHING,
    ) -> None:
        ours, theirs = readings[evidence.baseline], readings[candidate.name]
        self._evidence = evidence
        self._fields = fields
        self._pairing = pair_answers(evidence, candidate)
        self._pairs = {pair.case.id: pair for pair in self._pairing.pairs}
        self._silence = Silence()
        self.cases = self._pairing.cases
        self.design = design_of(evidence, asked=self._pairing.asked, groups_asked=self._pairing.groups_asked)
        self.compared: list[tuple[Case, Reading, Reading]] = []
        for case in self.cases:
            if case.id not in ours or not ours[case.id].answered or case.id not in theirs:
                continue
            pair = self._pairs.get(case.id)
            silent = pair is not None and speechless(pair.baseline) and speechless(pair.candidate)
            if pair is not None and (silent or cut_in_call(pair.baseline, pair.candidate)):
                self._silence.add({evidence.baseline: pair.baseline, candidate.name: pair.candidate})
                continue
            self.compared.append((case, ours[case.id], theirs[case.id]))
        self.spoken = [answers for answers in self.compared if not self._both_call(answers[0])]
        self._answered = any(theirs.answered for _, _, theirs in self.compared) or bool(self._pairs)

    def missing(self, used: Sequence[tuple[Case, Reading, Reading]]) -> Missing:
        """Return what a verdict that uses these does not rest on."""
        also = self._silence.reasons()
        ids = {case.id for case, _, _ in used}
        rest = [case for case, _, _ in self.compared if case.id not in ids]
        calls = sum(self._both_call(case) for case in rest)
        if len(rest) > calls:
            nowhere = explain.count(len(rest) - calls, "prompt")
            also.append(f"no path of fields= leads anywhere in either answer to {nowhere}")
        if calls:
            also.append(f"both answers to {explain.count(calls, 'prompt')} call tools, which no schema is held against")
        return self._pairing.missing(self._evidence, used=len(used), also=also)

    def differing(self, case: Case, ours: Reading, theirs: Reading) -> set[str]:
        """Return the paths that differ, ``tool calls`` where both answers call tools otherwise; empty if none does."""
        if self._both_call(case):
            pair = self._pairs[case.id]
            return set() if same_calls(pair.baseline.tool_calls, pair.candidate.tool_calls) else {"tool calls"}
        return ours.differing(theirs, self._fields)

    @property
    def told(self) -> list[tuple[Case, Reading, Reading]]:
        """Those of ``compared`` that are not both JSON with nothing at any path that is read."""
        return [each for each in self.compared if not self._unread(*each)]

    def _unread(self, case: Case, ours: Reading, theirs: Reading) -> bool:
        if not self._fields.read or self._both_call(case) or not (ours.parsed and theirs.parsed):
            return False
        return not any(self._fields.seen(reading.value) for reading in (ours, theirs))

    @property
    def seen(self) -> tuple[dict[str, int], int]:
        """In how many answers of both engines each path that is to be compared leads somewhere, and of how many."""
        values = [reading.value for _, ours, theirs in self.compared for reading in (ours, theirs) if reading.parsed]
        counts = dict.fromkeys(self._fields.read, 0)
        for value in values:
            for path in self._fields.seen(value):
                counts[path] += 1
        return counts, len(values)

    def difference(self, case: Case, words: str) -> Difference:
        """Return a case as reports list it."""
        pair = self._pairs.get(case.id)
        if pair is None:
            return Difference(case=case.id, what=words)
        texts = (pair.baseline.text, pair.candidate.text)
        if pair.baseline.tool_calls or pair.candidate.tool_calls:
            texts = written_out(pair.baseline, pair.candidate)
        return Difference(case=case.id, what=words, baseline_sha256=digest(texts[0]), candidate_sha256=digest(texts[1]))

    def _both_call(self, case: Case) -> bool:
        pair = self._pairs.get(case.id)
        return pair is not None and bool(pair.baseline.tool_calls and pair.candidate.tool_calls)

    def unanswered(self, verdict: Verdict) -> Verdict | None:
        """Return a verdict when there is no pair of answers at all."""
        return None if self._answered else self._pairing.unanswered(verdict, self._evidence)

    def example(self) -> list[str]:
        """Return lines with the first case whose values differ: path and both values; none where none differ."""
        for case, ours, theirs in self.compared:
            for difference in () if self._both_call(case) else ours.differences(theirs, self._fields)[:1]:
                return [
                    f"first: {explain.plain(case.id, 40)} at {explain.plain(difference.path, 60)}: "
                    f"{explain.quote(_value(difference.baseline))} and {explain.quote(_value(difference.candidate))}"
                ]
        return []


def _value(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:  # a field that is not there
        return repr(value)
    except RecursionError:
        return "nested too deeply to show"
