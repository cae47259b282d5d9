"""Cases that turned: right before and wrong now, the other way round, or answered otherwise with nobody to judge it.

A case is judged where a check says of each engine by itself which answers are wrong, or which engine alone is right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pytest_llmparity.core.checks.schema import GAP, only_on
from pytest_llmparity.core.identity.record import FailureRecord
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.verdict import SEVERITY, Difference, Verdict

_GRADES: Final = ("outside top-k", "rank shift", None, "near-tie")
"""What logprobs say of a fork, the gravest first."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Flips:
    """What turned, each list with the worst first, and how many cases are wrong on both engines as they were.

    ``regressions`` were right and are wrong, ``improvements`` the other way round, ``changed`` are answered otherwise
    and nothing says which answer is right; ``changed_right`` counts those that are answered otherwise and rightly.
    """

    regressions: tuple[Flip, ...] = ()
    improvements: tuple[Flip, ...] = ()
    changed: tuple[Flip, ...] = ()
    changed_right: int = 0
    wrong_on_both: int = 0


def flips(
    verdicts: Iterable[Verdict], failures: Iterable[FailureRecord] = (), *, baseline: str, candidate: str
) -> Flips:
    """Return the cases that turned from one engine to another, by what the verdicts of a run say of each."""
    whole = [verdict for verdict in verdicts if not verdict.tag]
    pairs = [verdict for verdict in whole if verdict.engine == candidate and verdict.baseline == baseline]
    worse, better, both, judged = _Turned(), _Turned(), set[tuple[str, str]](), set[tuple[str, str]]()
    alone = _alone(whole, (baseline, candidate))
    for (test, _), (before, after) in alone.items():
        unasked = {case for verdict in (before, after) for part in verdict.left_out for case in part.cases}
        wrong = [{difference.case: difference for difference in verdict.differing} for verdict in (before, after)]
        judged |= {(test, case) for pair in pairs if pair.test == test for case in _cases(pair) - unasked}
        for case in dict.fromkeys((*wrong[0], *wrong[1])):
            judged.add((test, case))
            if case in unasked:
                continue
            if case in wrong[0] and case in wrong[1]:
                both.add((test, case))
            elif case in wrong[1]:
                worse.note(after, wrong[1][case])
            else:
                better.note(after, wrong[0][case], f"was wrong: {wrong[0][case].what}")
    for verdict in pairs:
        for difference in verdict.differing if verdict.kind == GAP else ():
            turned = worse if difference.what == only_on(baseline) else better
            turned.note(verdict, difference)
            judged.add((verdict.test, difference.case))
    silent = _silent(failures, baseline=baseline, candidate=candidate)
    changed, right = _Turned(), set[tuple[str, str]]()
    for verdict in pairs:
        for difference in verdict.differing if verdict.kind not in (GAP, _ABOUT_PROMPTS) else ():
            key = (verdict.test, difference.case)
            if turned_before := next((turned for turned in (worse, better) if key in turned), None):
                turned_before.place(key, difference)
            elif key in judged:
                right |= {key} - both
            elif difference.case not in {flip.case for flip in silent}:
                changed.note(verdict, difference)
    return Flips(
        regressions=(*silent, *worse.in_order()),
        improvements=tuple(better.in_order()),
        changed=tuple(changed.in_order()),
        changed_right=len(right),
        wrong_on_both=len(both),
    )


class _Turned(dict[tuple[str, str], Flip]):
    """Cases of one kind of turn; what several checks say of a case is told once."""

    def note(self, verdict: Verdict, difference: Difference, what: str = "") -> None:
        key, outcome = (verdict.test, difference.case), SEVERITY.index(verdict.outcome)
        flip = self.get(key) or Flip(
            test=verdict.test, case=difference.case, what=what or difference.what, counted=difference.counted
        )
        checks = tuple(dict.fromkeys((*flip.checks, verdict.kind)))
        counted = flip.counted or difference.counted
        self[key] = replace(flip, checks=checks, outcome=max(flip.outcome, outcome), counted=counted)
        self.place(key, difference)

    def place(self, key: tuple[str, str], difference: Difference) -> None:
        """Take note of where the texts of a case part."""
        if difference.token is not None and self[key].token is None:
            at = {"token": difference.token, "char": difference.char, "grade": difference.grade}
            self[key] = replace(self[key], **at)  # type: ignore[arg-type]

    def in_order(self) -> list[Flip]:
        return sorted(self.values(), key=_gravity)


def _gravity(flip: Flip) -> tuple[float, ...]:
    """Return what flips are sorted by, the worst being the smallest; equal ones stay in the order of the prompts."""
    grade = _GRADES.index(flip.grade) if flip.grade in _GRADES else _GRADES.index(None)
    early = _FARTHEST if flip.token is None else flip.token
    return (not flip.counted, -flip.outcome, -len(flip.checks), grade, early)


def _alone(verdicts: Sequence[Verdict], engines: tuple[str, str]) -> dict[tuple[str, str], tuple[Verdict, Verdict]]:
    """Return by test and quantity the verdicts that say of each of both engines which of its answers are wrong."""
    by_question: dict[tuple[str, str], dict[str, Verdict]] = defaultdict(dict)
    for verdict in verdicts:
        if verdict.baseline is None and verdict.n and not verdict.kind.startswith("latency."):
            by_question[verdict.test, f"{verdict.check} {verdict.kind}"][verdict.engine] = verdict
    return {
        key: (of_engine[engines[0]], of_engine[engines[1]])
        for key, of_engine in by_question.items()
        if set(engines) <= of_engine.keys()
    }


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
