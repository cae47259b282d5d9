"""Cases that turned: right before and wrong now, the other way round, or answered otherwise with nobody to judge it.

A case is judged where a check says of each engine by itself which answers are wrong, or which engine alone is right,
and where its prompt says what is expected.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from pytest_llmparity.core.checks import answers, schema
from pytest_llmparity.core.identity.record import FailureRecord, SampleOrigin
from pytest_llmparity.core.right.expected import in_words, is_right
from pytest_llmparity.core.sample import Phase, Sample
from pytest_llmparity.core.verdict import SEVERITY, Difference, Verdict

_GRADES: Final = ("outside top-k", "rank shift", None, "near-tie")
"""What logprobs say of a fork, the gravest first."""
_ONE_SIDED: Final = (schema.GAP, answers.GAP, answers.FLIPS)
"""Kinds whose differing cases are right on one engine alone, which their words say."""
_ABOUT_PROMPTS: Final = "prompts"
_FARTHEST: Final = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """One case of one test that turned: ``what`` says how in a few words, by ``checks`` of these kinds.

    ``outcome`` is the place of their worst in ``SEVERITY``. ``grade``, ``token`` and ``char`` are of the fork of both
    texts, where there is one.
    """

    test: str
    case: str
    what: str
    checks: tuple[str, ...] = ()
    outcome: int = 0
    grade: str | None = None
    token: float | None = None
    char: int | None = None
    counted: bool = True


class Expected(NamedTuple):
    """A case of which the prompts say what a right answer is, ``wanted`` in a few words, and who gave one."""

    test: str
    case: str
    wanted: str
    before: bool
    after: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Flips:
    """What turned, each list with the worst first, and how many cases are wrong on both engines as they were.

    ``regressions`` were right and are wrong, ``improvements`` the other way round, ``changed`` are answered otherwise
    and nothing says which answer is right; ``changed_right`` counts those that are answered otherwise and rightly.
    ``judged`` says whether anything of the run tells right answers from wrong ones.
    """

    regressions: tuple[Flip, ...] = ()
    improvements: tuple[Flip, ...] = ()
    changed: tuple[Flip, ...] = ()
    changed_right: int = 0
    wrong_on_both: int = 0
    judged: bool = False


def flips(
    verdicts: Iterable[Verdict],
    failures: Iterable[FailureRecord] = (),
    expected: Iterable[Expected] = (),
    *,
    baseline: str,
    candidate: str,
) -> Flips:
    """Return the cases that turned from one engine to another.

    They are wrong by what the verdicts of a run say of each engine, and by what prompts say is ``expected``.
    """
    whole = [verdict for verdict in verdicts if not verdict.tag]
    pairs = [verdict for verdict in whole if verdict.engine == candidate and verdict.baseline == baseline]
    before, after, judged = _Cases(), _Cases(), set[tuple[str, str]]()
    alone = _alone(whole, (baseline, candidate))
    tells = bool(alone) or any(verdict.kind in _ONE_SIDED and verdict.n for verdict in pairs)
    for ours, theirs in alone:
        unasked = {case for verdict in (ours, theirs) for part in verdict.left_out for case in part.cases}
        for verdict, wrong in ((ours, before), (theirs, after)):
            for difference in verdict.differing:
                if difference.case not in unasked:
                    wrong.count(verdict, difference)
        judged |= {(pair.test, case) for pair in pairs if pair.test == ours.test for case in _cases(pair) - unasked}
    for verdict in pairs:
        for difference in verdict.differing if verdict.kind in _ONE_SIDED else ():
            (after if difference.what.startswith(_right_on(baseline)) else before).count(verdict, difference)
    for case in expected:
        tells = True
        judged.add((case.test, case.case))
        for right, wrong in ((case.before, before), (case.after, after)):
            if not right:
                wrong.expect(case)
    judged |= {*before, *after}
    silent = _silent(failures, baseline=baseline, candidate=candidate)
    changed, right_on_both = _Cases(), set[tuple[str, str]]()
    for verdict in pairs:
        for difference in verdict.differing if verdict.kind not in (*_ONE_SIDED, _ABOUT_PROMPTS) else ():
            key = (verdict.test, difference.case)
            for wrong in (before, after):
                wrong.place(key, difference)
            if key in judged:
                right_on_both |= {key} - {*before, *after}
            elif difference.case not in {flip.case for flip in silent}:
                changed.count(verdict, difference)
    return Flips(
        regressions=(*silent, *after.in_order(without=before)),
        improvements=tuple(before.in_order(without=after)),
        changed=tuple(changed.in_order()),
        changed_right=len(right_on_both),
        wrong_on_both=len({*before} & {*after}),
        judged=tells or bool(silent),
    )


def _right_on(engine: str) -> tuple[str, ...]:
    """Return how the words of cases begin that this engine alone answered rightly."""
    return schema.only_on(engine), answers.right_only_on(engine)


class _Cases(dict[tuple[str, str], Flip]):
    """Cases that are wrong, or changed, by test and case; what several checks say of one is told once."""

    def count(self, verdict: Verdict, difference: Difference) -> None:
        key, outcome = (verdict.test, difference.case), SEVERITY.index(verdict.outcome)
        flip = self.get(key) or Flip(
            test=verdict.test, case=difference.case, what=difference.what, counted=difference.counted
        )
        checks = tuple(dict.fromkeys((*flip.checks, verdict.kind)))
        counted = flip.counted or difference.counted
        self[key] = replace(flip, checks=checks, outcome=max(flip.outcome, outcome), counted=counted)
        self.place(key, difference)

    def expect(self, expected: Expected) -> None:
        """Take note of an answer that is not the one that was expected."""
        key = (expected.test, expected.case)
        self.setdefault(key, Flip(test=expected.test, case=expected.case, what=f"expected {expected.wanted}"))

    def place(self, key: tuple[str, str], difference: Difference) -> None:
        """Take note of where the texts of a case part, if it is one of these."""
        if key in self and difference.token is not None and self[key].token is None:
            where = difference
            self[key] = replace(self[key], token=where.token, char=where.char, grade=where.grade)

    def in_order(self, *, without: Collection[tuple[str, str]] = ()) -> list[Flip]:
        return sorted((flip for key, flip in self.items() if key not in without), key=_gravity)


def _gravity(flip: Flip) -> tuple[float, ...]:
    """Return what flips are sorted by, the worst being the smallest; equal ones stay in the order of the prompts."""
    grade = _GRADES.index(flip.grade) if flip.grade in _GRADES else _GRADES.index(None)
    early = _FARTHEST if flip.token is None else flip.token
    return (not flip.counted, -flip.outcome, -len(flip.checks), grade, early)


def _alone(verdicts: Sequence[Verdict], engines: tuple[str, str]) -> list[tuple[Verdict, Verdict]]:
    """Return the pairs of verdicts that say of each of both engines which of its answers are wrong."""
    by_question: dict[tuple[str, str, str], dict[str, Verdict]] = defaultdict(dict)
    for verdict in verdicts:
        if verdict.baseline is None and verdict.n and not verdict.kind.startswith("latency."):
            by_question[verdict.test, verdict.check, verdict.kind][verdict.engine] = verdict
    both = [of_engine for of_engine in by_question.values() if set(engines) <= of_engine.keys()]
    return [(of_engine[engines[0]], of_engine[engines[1]]) for of_engine in both]


def _cases(verdict: Verdict) -> set[str]:
    return {difference.case for difference in verdict.differing}


def _silent(failures: Iterable[FailureRecord], *, baseline: str, candidate: str) -> list[Flip]:
    """Return the cases that the candidate gave no answer to, where the baseline did."""
    by_engine: dict[str, dict[str, FailureRecord]] = defaultdict(dict)
    for failure in failures:
        if failure.phase == Phase.MAIN:
            by_engine[failure.engine].setdefault(failure.case, failure)
    return [
        Flip(test="", case=case, what=f"no answer ({failure.kind})", outcome=len(SEVERITY))
        for case, failure in by_engine[candidate].items()
        if case not in by_engine[baseline]
    ]


def expected(
    verdicts: Iterable[Verdict],
    samples: Iterable[Sample],
    origin: Callable[[Sample], SampleOrigin | None],
    *,
    baseline: str,
    candidate: str,
) -> list[Expected]:
    """Return the cases whose prompts say what a right answer is and which both engines answered.

    Those of a test with a check of answers are left out: it said what is right, and of what part of a text.
    """
    judged = {verdict.test for verdict in verdicts if verdict.kind.startswith("answers.")}
    first: dict[tuple[str, str], dict[str, tuple[Sample, SampleOrigin]]] = {}
    for sample in samples:
        asked = origin(sample) if sample.phase is Phase.MAIN and sample.completion is not None else None
        if asked is not None and asked.expect:
            for test in (test for test in asked.tests if test not in judged):
                first.setdefault((test, sample.case), {}).setdefault(sample.engine, (sample, asked))
    cases = []
    for (test, case), by_engine in first.items():
        if not {baseline, candidate} <= by_engine.keys():
            continue
        right = [
            sample.completion is not None and is_right(asked.expect, sample.completion)
            for sample, asked in (by_engine[baseline], by_engine[candidate])
        ]
        wanted = in_words(by_engine[candidate][1].expect)
        cases.append(Expected(test=test, case=case, wanted=wanted, before=right[0], after=right[1]))
    return cases
