"""Both arms of the same prompts on one engine: what became of the constraint, and whether it makes answers wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from pytest_llmparity.core.checks.missing import Missing, Silence, describe, gap_shown, rested
from pytest_llmparity.core.checks.schema.beginning import broken_already
from pytest_llmparity.core.checks.schema.contract import Reading, silent
from pytest_llmparity.core.checks.schema.contracts import Contracts
from pytest_llmparity.core.checks.shares import gap_judged
from pytest_llmparity.core.compare.answers import digest, speechless
from pytest_llmparity.core.compare.fields import Fields
from pytest_llmparity.core.compare.json import diff_values, parse_json
from pytest_llmparity.core.compare.order import KeyOrders
from pytest_llmparity.core.compare.paths import at, steps
from pytest_llmparity.core.diagnosis import layers
from pytest_llmparity.core.errors import BadRequest, UnsupportedParameter
from pytest_llmparity.core.evidence import EngineEvidence, Evidence
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.prompts.arms import CONSTRAINED, FREE, of_arm, other
from pytest_llmparity.core.sample import Completion, Failure
from pytest_llmparity.core.verdict import Difference, Outcome, Verdict
from pytest_llmparity.core.words import explain

CONSTRAINT: Final = "schema.constraint"
ARMS: Final = "schema.arms"
_REFUSED: Final = (BadRequest.__name__, UnsupportedParameter.__name__)
"""Kinds of failure that say that a server refused a request for what stands in it, too long a prompt aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Answers that are judged apart: ``name`` is their arm, empty where prompts were not asked in arms.

    ``refusing`` are the engines that refused the schema of every prompt and answered the prompts without it.
    """

    name: Any = ""
    infix: str = ""
    words: str = ""
    refusing: frozenset[str] = frozenset()

    def kind(self, kind: str) -> str:
        """Return the kind of a verdict on these answers: ``schema.free.rate`` on free ones."""
        check, _, limit = kind.partition(".")
        return f"{check}.{self.infix}{limit}"


ALL: Final = Arm()
FORCED: Final = Arm(name=CONSTRAINED, words="constrained ")
FREE_ARM: Final = Arm(name=FREE, infix="free.", words="free ")


def without_answers(verdict: Verdict, evidence: Evidence, candidate: EngineEvidence, arm: Arm) -> Verdict:
    """Return the verdict on a pair without answers; where one of the two refused every schema, that is no error."""
    refusing = [name for name in (evidence.baseline, candidate.name) if name in arm.refusing]
    if not refusing or verdict.outcome is not Outcome.ERROR:
        return verdict
    reason = f"{refusing[0]} refuses the schema of every prompt, so there is nothing to compare"
    return dataclasses.replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason, blocked_by="")


def unequal(prompts: PromptSet, contracts: Contracts, fields: Fields) -> str | None:
    """Say which case expects an answer that none that fits its schema can equal, ``None`` where there is none."""
    for case in prompts.cases:
        answer = None if case.expect is None else case.expect.answer
        if answer is None or len(fields.read) == 1 or contracts.of(case).schema.get("type") != "object":
            continue
        if not isinstance(parse_json(answer).value, dict):
            return (
                f"{explain.plain(case.id, 40)} expects {explain.quote(answer, 40)}, which no JSON object equals: write "
                'expect.answer as JSON, or name the field that holds it, such as fields=["$.queue"]'
            )
    return None


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of one arm: whether it is right, and what it was."""

    right: bool
    answer: Completion


class Arms:
    """The two arms of a prompt set. ``held`` says what fits, ``sent`` what engines were told.

    ``free`` and ``loose`` are the same, read leniently. A free answer may have words or a code block round its JSON:
    what is asked here is what the constraint does to the values, and not to their wrapping.
    """

    def __init__(
        self, evidence: Evidence, *, held: Contracts, sent: Contracts, loose: Contracts, free: Contracts, fields: Fields
    ) -> None:
        self.constrained = evidence.about(of_arm(evidence.prompts, CONSTRAINED))
        self._free = evidence.about(of_arm(evidence.prompts, FREE))
        self._held, self._sent, self._loose, self._lenient = held, sent, loose, free
        self._fields = fields

    @property
    def refusing(self) -> frozenset[str]:
        """The engines that refused the schema of every prompt they were asked, and answered without it."""
        return frozenset(
            name
            for name, engine in self.constrained.engines.items()
            if not engine.answers() and engine.failures() and len(self._refused(engine)) == len(engine.failures())
        )

    def constraint(self, verdict: Verdict, engine: EngineEvidence, *, margin: float) -> Verdict:
        """Say what became of the constraint on one engine: a finding about it, exact, whatever the ``margin``.

        One answer that came to its end and does not fit what was sent fails it: the engine took the constraint, and
        the application that trusts it gets something else. So does one that its token limit cut, where nothing that
        could follow would make it fit.
        """
        cases = [case for case in self.constrained.prompts.cases if case.id not in engine.left_out]
        answers, refused = engine.answers(), self._refused(engine)
        ended = [c for c in cases if c.id in answers and not answers[c.id].cut and not answers[c.id].tool_calls]
        spoken = {case.id for case in ended if not speechless(answers[case.id])}
        empty = len(ended) - len(spoken)
        begun = self._broken_already(cases, answers)
        whole = [case for case in cases if case.id in spoken or case.id in begun]
        readings = {
            case.id: begun[case.id] if case.id in begun else self._sent.of(case).hold(answers[case.id])
            for case in whole
        }
        violating = [case for case in whole if readings[case.id].problem is not None]
        settled = len(whole) + len(refused)
        verdict = dataclasses.replace(verdict, requests=len(answers) + len(engine.failures()), n=settled)
        if not settled:
            return self._unknown(verdict, engine, answers, empty)
        verdict = dataclasses.replace(
            verdict,
            unit="share",
            estimate=(len(whole) - len(violating)) / len(whole) if whole else None,
            differs=tuple(layers.enforcement(engine, cases)),
            details=(*_first(violating, readings, answers), *self._unforced(engine)),
            differing=tuple(
                Difference(
                    case=case.id,
                    what=explain.plain(readings[case.id].problem or "", 120),
                    candidate_sha256=digest(answers[case.id].text),
                )
                for case in violating
            ),
        )
        if violating:
            reason = f"takes the schema and violates it in {len(violating)} of {explain.count(len(whole), 'answer')}"
            reason += f", and refuses it for {explain.count(len(refused), 'prompt')}" if refused else ""
            reason = f"{reason}: it fails open, and nothing but the answer tells"
            return dataclasses.replace(verdict, outcome=Outcome.FAIL, constraint="violated", reason=reason)
        if refused:
            case, failure = next(iter(refused.items()))
            reason = (
                f"refuses the schema of {len(refused)} of {explain.count(settled, 'prompt')} and answers them without "
                f"it; first: {describe(engine.name, case, failure)}"
            )
            return dataclasses.replace(verdict, outcome=Outcome.FAIL, constraint="refused", reason=reason)
        reason = f"takes the schema, and all {explain.count(len(whole), 'answer')} keep it"
        reason += f"; {explain.count(empty, 'other')} ended without a word" if empty else ""
        shown = self._breaks_free(engine, cases, self._loose)
        why = "no free answer breaks it, so that it is enforced is not shown"
        if not shown and self._breaks_free(engine, cases, self._sent):
            why = "free answers break it by what stands round their JSON alone: that JSON is enforced is shown, no more"
        kept = dataclasses.replace(
            verdict,
            outcome=Outcome.PASS,
            constraint="enforced" if shown else "not shown",
            reason=reason if shown else f"{reason}; {why}",
        )
        unknown = f"{len(cases) - len(whole)} of {explain.count(len(cases), 'prompt')} have no whole answer"
        unknown += f", {empty} of them an empty one" if empty else ""
        stopped = self.constrained.incomplete or "" if len(whole) < len(cases) else ""
        done = rested(kept, Missing(of=len(cases), used=len(whole), reasons=(unknown,), stopped=stopped))
        return done if done.outcome is Outcome.PASS else dataclasses.replace(done, constraint="not shown")

    def _broken_already(self, cases: Sequence[Case], answers: Mapping[str, Completion]) -> dict[str, Reading]:
        """Return, by case, how answers that their token limit cut violate what was sent, whatever may follow."""
        broken: dict[str, Reading] = {}
        for case in cases:
            answer = answers.get(case.id)
            if answer is None or not answer.cut or answer.tool_calls:
                continue
            if (why := broken_already(answer.text, self._sent.of(case).schema)) is not None:
                broken[case.id] = Reading(problem=f"{why} (cut, and nothing that follows mends it)", text=answer.text)
        return broken

    def difference(self, verdict: Verdict, engine: EngineEvidence, *, margin: float) -> Verdict:
        """Judge whether the constraint makes answers wrong: right in the free arm, wrong in the constrained one."""
        evidence, free = self.constrained, self._free.engines[engine.name]
        asked = [case for case in evidence.prompts.cases if case.id not in engine.left_out]
        ours, theirs = engine.answers(), free.answers()
        silence, failed, cut, mute, used = Silence(), 0, 0, 0, list[Case]()
        for case in asked:
            forced, unforced = ours.get(case.id), theirs.get(other(case.id))
            if forced is None or unforced is None:
                failed += 1
            elif any(answer.cut and speechless(answer) for answer in (forced, unforced)):
                silence.add({"the constrained arm": forced, "the free arm": unforced})
            elif speechless(unforced):
                mute += 1  # no answer is neither right nor wrong: what the constraint does to it is not shown
            elif unforced.cut and not self._lenient.of(case).hold(unforced).parsed:
                cut += 1  # words before its JSON took its tokens; as a wrong answer it would make up for harm
            else:
                used.append(case)
        constrained = {case.id: self._mark(case, ours[case.id], self._held) for case in used}
        unconstrained = {case.id: self._mark(case, theirs[other(case.id)], self._lenient) for case in used}
        differences = [unconstrained[case.id].right - constrained[case.id].right for case in used]
        reasons = [f"{explain.count(failed, 'prompt')} without answers in both arms"] if failed else []
        if mute:
            reasons.append(f"{explain.count(mute, 'free answer')} ended without a word")
        if cut:
            reasons.append(
                f"the token limit was reached before the JSON of {explain.count(cut, 'free answer')}: raise max_tokens"
            )
        stopped = evidence.incomplete or "" if failed else ""
        missing = Missing(
            of=len(asked),
            used=len(used),
            reasons=(*reasons, *silence.reasons()),
            stopped=stopped,
            sequential=evidence.sequential,
        )
        parsed = [(case, self._held.of(case).hold(ours[case.id])) for case in used]
        order = layers.order_line(
            engine.name,
            [(reading.value, self._sent.of(case).schema) for case, reading in parsed if reading.parsed],
            KeyOrders(),
        )
        verdict = dataclasses.replace(
            verdict,
            measures="of answers are right in the free arm only, net" if used else "",
            requests=2 * len(used),
            differs=(*layers.enforcement(engine, asked), *([order] if order else [])),
            details=(*_sides(used, constrained, unconstrained), *missing.reasons),
            differing=tuple(
                Difference(
                    case=case.id,
                    what=f"right in the {'free' if unconstrained[case.id].right else 'constrained'} arm only",
                    candidate_sha256=digest(ours[case.id].text),
                )
                for case, difference in zip(used, differences, strict=True)
                if difference
            ),
        )
        done = gap_judged(
            verdict,
            evidence,
            differences,
            margin=margin,
            side="worse",
            cases=used,
            rest=[case for case in asked if case.id not in constrained],
            about=used,
            missing=missing,
            by_tag=False,
        )
        able = sum(constrained[case.id].right or unconstrained[case.id].right for case in used)
        nothing = "no answer of either arm is right, so what the constraint does to right ones is not shown"
        return gap_shown(
            done, able, len(used), margin=margin, predicate="answers are right in either arm", nothing=nothing
        )

    def _breaks_free(self, engine: EngineEvidence, cases: Sequence[Case], contracts: Contracts) -> bool:
        """Whether a whole answer of the free arm breaks the schema: else keeping it says nothing of the constraint."""
        free = self._free.engines[engine.name].answers()
        answers = [(case, free[other(case.id)]) for case in cases if other(case.id) in free]
        return any(
            contracts.of(case).hold(answer).problem is not None
            for case, answer in answers
            if not answer.cut and not answer.tool_calls and not speechless(answer)
        )

    def _refused(self, engine: EngineEvidence) -> dict[str, Failure]:
        """Return the prompts whose schema an engine refused: without it they were answered."""
        answered = self._free.engines[engine.name].answers()
        return {
            case: failure
            for case, failure in engine.failures().items()
            if failure.kind in _REFUSED and other(case) in answered
        }

    def _unknown(
        self, verdict: Verdict, engine: EngineEvidence, answers: Mapping[str, Completion], empty: int
    ) -> Verdict:
        """Return the verdict where no answer came to its end and nothing was refused."""
        readings = {case: Reading(problem=None, answered=True) for case in answers}
        if (nothing := silent(verdict, engine, readings, self.constrained)) is not None:
            return nothing
        reason = "no answer came to its end, so whether it keeps the schema is not shown: raise max_tokens"
        if empty:
            many = "every answer" if empty == len(answers) else f"{empty} of {explain.count(len(answers), 'answer')}"
            reason = f"{many} ended without a word, so whether it keeps the schema is not shown"
        return dataclasses.replace(verdict, outcome=Outcome.INCONCLUSIVE, constraint="not shown", reason=reason)

    def _unforced(self, engine: EngineEvidence) -> list[str]:
        """Say how often the model keeps the schema without being told to: what of the keeping is the constraint's."""
        free = self._free.engines[engine.name].answers()
        cases = [case for case in self._free.prompts.cases if case.id in free]
        if not cases:
            return []
        unfit = sum(self._lenient.of(case).hold(free[case.id]).problem is not None for case in cases)
        return [f"in the free arm {unfit} of {explain.count(len(cases), 'answer')} do not fit"]

    def _mark(self, case: Case, answer: Completion, contracts: Contracts) -> Mark:
        reading = contracts.of(case).hold(answer)
        return Mark(right=reading.problem is None and self._expected(case, reading.value), answer=answer)

    def _expected(self, case: Case, value: object) -> bool:
        """Whether a value that fits is what its case expects: any, where it expects none."""
        answer = None if case.expect is None else case.expect.answer
        if answer is None:
            return True
        expected = parse_json(answer)
        if len(self._fields.read) == 1 and not isinstance(expected.value, dict):
            standing = at(value, steps(self._fields.read[0]))
            return any(_same(answer, each) for each in standing)
        if expected.error is None:
            return not self._fields.differences(expected.value, value)
        return _same(answer, value)


def _same(expected: str, value: object) -> bool:
    """Whether a value is the one that a prompt file writes as text, as JSON or as it is."""
    if isinstance(value, str):
        return value.strip() == expected.strip()
    parsed = parse_json(expected)
    return parsed.error is None and not diff_values(parsed.value, value)


def _sides(cases: Sequence[Case], constrained: Mapping[str, Mark], free: Mapping[str, Mark]) -> list[str]:
    """Say how many answers are right in which arm, and show the first that the constraint made wrong."""
    if not cases:
        return []
    both = [(constrained[case.id].right, free[case.id].right) for case in cases]
    n = explain.count(len(cases), "prompt")
    lines = [
        f"right in the free arm only: {both.count((False, True))}; in the constrained one only: "
        f"{both.count((True, False))}; in both: {both.count((True, True))}; of {n}"
    ]
    for case, sides in zip(cases, both, strict=True):
        if sides == (False, True):
            lines += [
                f"first: {explain.plain(case.id, 40)}",
                f"  free: {explain.quote(free[case.id].answer.text)}",
                f"  constrained: {explain.quote(constrained[case.id].answer.text)}",
            ]
            break
    return lines


def _first(
    violating: Sequence[Case], readings: Mapping[str, Reading], answers: Mapping[str, Completion]
) -> tuple[str, ...]:
    """Show the first answer that violates what was sent."""
    if not violating:
        return ()
    case = violating[0].id
    return (
        f"first: {explain.plain(case, 40)}: {explain.plain(readings[case].problem or '', 120)}",
        f"  it answered {explain.quote(answers[case].text)}",
    )
