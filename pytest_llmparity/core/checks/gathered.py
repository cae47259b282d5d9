"""Reading evidence: the answers of one phase by case, what is missing and why, and verdicts that need no numbers."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_llmparity.core.checks.missing import Missing
from pytest_llmparity.core.evidence import Check, EngineEvidence, Evidence
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import Completion, Failure
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain

LOST: Final = 0.05
"""Share of pairs without two answers above which a comparison of texts is an ERROR instead of a verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One case both engines answered in the main phase."""

    case: Case
    baseline: Completion
    candidate: Completion


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The main phase of a pair of engines: what can be compared and what cannot.

    ``failed`` are cases the baseline answered and the candidate did not (a typed failure): they count against the
    candidate where a check says so. ``lost`` are all cases without two answers; ``absent`` those never asked, which are
    among the lost unless the run is sequential. ``first_failure`` describes the first of them that failed, ``failing``
    is the engine that did not answer it. ``left_out`` counts, by the reason, cases that one of the engines cannot be
    asked; they are not among the lost. ``cases`` are all it is about, in the order of the prompt set.
    """

    candidate: str
    cases: tuple[Case, ...]
    pairs: tuple[Pair, ...]
    failed: tuple[Case, ...]
    lost: tuple[Case, ...]
    absent: int
    first_failure: str = ""
    failing: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def asked(self) -> int:
        """Cases this is about: in a sequential run those both engines were asked, else all of the prompt set."""
        return len(self.cases)

    @property
    def note(self) -> str:
        """One line about missing answers, empty when there are none."""
        if not self.lost:
            return ""
        text = f"{explain.count(len(self.lost), 'prompt')} of {self.asked} without two answers"
        return f"{text}; first: {self.first_failure}" if self.first_failure else text

    def missing(self, evidence: Evidence, *, used: int, of: int | None = None, also: Sequence[str] = ()) -> Missing:
        """Return what a verdict on ``used`` of these cases does not rest on; ``also`` says why pairs were not used.

        ``of`` is the number of cases it is about where that is not all of them.
        """
        reasons = list(also)
        if len(self.lost) > self.absent or (self.lost and evidence.incomplete is None):
            reasons.append(self.note)
        if evidence.incomplete is not None and self.absent:
            reasons.append(evidence.incomplete)
        return Missing(
            of=self.asked if of is None else of,
            used=used,
            reasons=tuple(reasons),
            left_out=tuple(f"{explain.count(n, 'prompt')} left out: {why}" for why, n in self.left_out.items()),
            sequential=evidence.sequential,
        )


def describe(engine: EngineEvidence, case: str, failure: Failure) -> str:
    """Return a failure as words: whose, which case, the error's class and what it said."""
    said = explain.ending(failure.message) if "\n" in failure.message else explain.plain(failure.message, 120)
    return f"{engine.name} on {explain.plain(case, 40)}: {failure.kind}: {said}"


def gather(evidence: Evidence, candidate: EngineEvidence) -> Gathered:
    """Pair the main-phase answers of the baseline and one candidate, in the order of the prompt set."""
    baseline = evidence.engines[evidence.baseline]
    ours, theirs = baseline.answers(), candidate.answers()
    bad_ours, bad_theirs = baseline.failures(), candidate.failures()
    sides = ((ours, bad_ours), (theirs, bad_theirs))
    pairs: list[Pair] = []
    failed: list[Case] = []
    lost: list[Case] = []
    absent = 0
    first = failing = ""
    left_out: Counter[str] = Counter()
    cases: list[Case] = []
    waiting: list[tuple[Case, str]] = []  # left out; behind the last one asked they belong to the rest of the run

    def pass_waiting() -> None:
        cases.extend(case for case, _ in waiting)
        left_out.update(reason for _, reason in waiting)
        waiting.clear()

    for case in evidence.prompts.cases:
        reason = baseline.left_out.get(case.id) or candidate.left_out.get(case.id)
        if reason is not None:
            waiting.append((case, reason))
            continue
        if case.id in ours and case.id in theirs:
            pairs.append(Pair(case=case, baseline=ours[case.id], candidate=theirs[case.id]))
        elif evidence.sequential and not all(case.id in good or case.id in bad for good, bad in sides):
            absent += 1
            continue
        else:
            lost.append(case)
            if case.id in bad_theirs:
                first = first or describe(candidate, case.id, bad_theirs[case.id])
                failing = failing or candidate.name
                if case.id in ours:
                    failed.append(case)
            elif case.id in bad_ours:
                first = first or describe(baseline, case.id, bad_ours[case.id])
                failing = failing or baseline.name
            else:
                absent += 1
        pass_waiting()
        cases.append(case)
    if not evidence.sequential or not absent:
        pass_waiting()
    return Gathered(
        candidate=candidate.name,
        cases=tuple(cases),
        pairs=tuple(pairs),
        failed=tuple(failed),
        lost=tuple(lost),
        absent=absent,
        first_failure=first,
        failing=failing,
        left_out=left_out,
    )


def start(check: Check, evidence: Evidence, engine: EngineEvidence, *, kind: str, alone: bool = False) -> Verdict:
    """Return the verdict a check begins with for one engine (``alone``) or one pair: named, nothing judged yet."""
    return Verdict(
        test=evidence.test,
        check=str(check),
        kind=kind,
        engine=engine.name,
        baseline=None if alone else evidence.baseline,
        outcome=Outcome.INCONCLUSIVE,
        alpha=evidence.alpha,
        where=check.where,
    )


def finish(verdict: Verdict, **changes: Any) -> Verdict:
    """Return the verdict with these fields set and its headline written; numbers that are not finite become unknown."""
    for name in ("estimate", "lower", "upper"):
        if (value := changes.get(name)) is not None and not math.isfinite(value):
            changes[name] = None
    done = dataclasses.replace(verdict, **changes)
    return dataclasses.replace(done, message=explain.headline(done))


def blocked(verdict: Verdict, *engines: EngineEvidence) -> Verdict | None:
    """Return the INCOMPARABLE, ERROR or SKIPPED verdict when one of these engines cannot be judged, else ``None``."""
    for engine in engines:
        if engine.incomparable is not None:
            reason = engine.incomparable
            return finish(verdict, outcome=Outcome.INCOMPARABLE, reason=reason, blocked_by=engine.name)
    for engine in engines:
        if engine.error is not None:
            return finish(verdict, outcome=Outcome.ERROR, reason=engine.error, blocked_by=engine.name)
    for engine in engines:
        if engine.lacking is not None:
            return finish(verdict, outcome=Outcome.SKIPPED, reason=engine.lacking)
    return None


def candidates(check: Check, evidence: Evidence, kind: str) -> Iterator[tuple[EngineEvidence, Verdict]]:
    """Yield every candidate with its opening verdict."""
    for candidate in evidence.candidates:
        yield candidate, start(check, evidence, candidate, kind=kind)


def alone(check: Check, evidence: Evidence, kind: str) -> list[Verdict]:
    """Return the SKIPPED verdict of a pairwise check when only one engine is selected, nothing otherwise."""
    if evidence.candidates:
        return []
    only = evidence.engines[evidence.baseline]
    verdict = start(check, evidence, only, kind=kind, alone=True)
    return [finish(verdict, outcome=Outcome.SKIPPED, reason="it compares two engines and only one is selected")]


def unanswered(verdict: Verdict, gathered: Gathered, evidence: Evidence) -> Verdict | None:
    """Return the ERROR (or, after a hard stop, INCONCLUSIVE) verdict when too few pairs have two answers.

    One or two lost of the first few may be bad luck, so in a sequential run it stays open while half of them answer.
    """
    lost = len(gathered.lost)
    if (gathered.pairs or gathered.left_out) and lost <= LOST * gathered.asked:
        return None
    unasked = 0 if evidence.sequential else gathered.absent
    if evidence.incomplete is not None and lost - unasked <= LOST * (gathered.asked - unasked):
        return finish(verdict, outcome=Outcome.INCONCLUSIVE, reason=evidence.incomplete)
    reason = gathered.note or "no prompt has two answers"
    hopeful = evidence.sequential and 0 < 2 * lost <= gathered.asked
    return finish(verdict, outcome=Outcome.ERROR, reason=reason, blocked_by=gathered.failing, open=hopeful)


def settled(verdict: Verdict, evidence: Evidence, *, absent: int) -> Verdict:
    """Take back a statistical PASS or FAIL, and an exact PASS, when a hard stop left out cases it should rest on.

    Sequential evidence may stop anywhere, so its PASS and FAIL stand. What is INCONCLUSIVE then says what stopped the
    run instead of how many prompts would settle it: they were there.
    """
    if evidence.incomplete is None or not absent:
        return verdict
    exact_failure = verdict.outcome is Outcome.FAIL and verdict.p_fail is None
    stands = verdict.open and verdict.outcome is not Outcome.INCONCLUSIVE
    if exact_failure or stands or verdict.outcome not in (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE):
        return verdict
    open_before = verdict.reason if verdict.outcome is Outcome.INCONCLUSIVE else ""
    stopped = "" if evidence.incomplete in open_before else evidence.incomplete
    reason = "; ".join(filter(None, [open_before, stopped]))
    return finish(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason, needed=None)


def rested(verdict: Verdict, missing: Missing, *, proven: Callable[[], float | None] = lambda: None) -> Verdict:
    """Take back what a verdict says that rests on less than 95 % of its prompts, and say what was missing and why.

    A FAIL stands if it is one even when everything missing is taken to speak for PASS: ``proven`` returns the p-value
    it then has, ``None`` where it would not fail.
    """
    if missing.enough or verdict.outcome not in (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE):
        return verdict
    if verdict.outcome is Outcome.FAIL and missing.used and (p_fail := proven()) is not None:
        return finish(verdict, p_fail=p_fail)
    open_before = verdict.reason if verdict.outcome is Outcome.INCONCLUSIVE else ""
    changes: dict[str, Any] = {
        "outcome": Outcome.INCONCLUSIVE,
        "reason": "; ".join(filter(None, [open_before, missing.reason])),
        "needed": None,
        "open": verdict.open and missing.hopeful,
    }
    if not missing.used:
        changes |= {"estimate": None, "lower": None, "upper": None, "reason": missing.reason}
    return finish(verdict, **changes)


def worst(groups: Mapping[str, float], limit: int = 3) -> Sequence[tuple[str, float]]:
    """Return the names with the largest numbers, largest first, equal ones by name."""
    return sorted(groups.items(), key=lambda item: (-item[1], item[0]))[:limit]
