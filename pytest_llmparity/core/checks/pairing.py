"""Two engines' answers to the same prompts, paired; what cannot be paired, and whether too much of it is missing."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from pytest_llmparity.core.checks.missing import Missing, describe
from pytest_llmparity.core.evidence import EngineEvidence, Evidence
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain

LOST: Final = 0.05
"""Share of pairs without two answers above which a comparison of texts is an ERROR instead of a verdict."""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One case both engines answered in the main phase."""

    case: Case
    baseline: Completion
    candidate: Completion


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """The main phase of two engines: what can be compared and what cannot.

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
    def groups_asked(self) -> int:
        """How many groups these cases come from."""
        return len({case.group for case in self.cases})

    @property
    def shortage(self) -> str:
        """One line about the answers that are missing, empty when there are none."""
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
            reasons.append(self.shortage)
        if evidence.incomplete is not None and self.absent:
            reasons.append(evidence.incomplete)
        return Missing(
            of=self.asked if of is None else of,
            used=used,
            reasons=tuple(reasons),
            left_out=tuple(f"{explain.count(n, 'prompt')} left out: {why}" for why, n in self.left_out.items()),
            stopped=evidence.incomplete or "" if self.absent else "",
            sequential=evidence.sequential,
        )

    def unanswered(self, verdict: Verdict, evidence: Evidence) -> Verdict | None:
        """Return the ERROR (or, after a hard stop, INCONCLUSIVE) verdict when too few pairs have two answers.

        One or two lost of the first few may be bad luck, so in a sequential run it stays open while half of them
        answer.
        """
        lost = len(self.lost)
        if (self.pairs or self.left_out) and lost <= LOST * self.asked:
            return None
        unasked = 0 if evidence.sequential else self.absent
        if evidence.incomplete is not None and lost - unasked <= LOST * (self.asked - unasked):
            return dataclasses.replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=evidence.incomplete)
        reason = self.shortage or "no prompt has two answers"
        hopeful = evidence.sequential and 0 < 2 * lost <= self.asked
        return dataclasses.replace(verdict, outcome=Outcome.ERROR, reason=reason, blocked_by=self.failing, open=hopeful)


def pair_answers(evidence: Evidence, candidate: EngineEvidence) -> Pairing:
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
                first = first or describe(candidate.name, case.id, bad_theirs[case.id])
                failing = failing or candidate.name
                if case.id in ours:
                    failed.append(case)
            elif case.id in bad_ours:
                first = first or describe(baseline.name, case.id, bad_ours[case.id])
                failing = failing or baseline.name
            else:
                absent += 1
        if waiting:
            pass_waiting()
        cases.append(case)
    if not evidence.sequential or not absent:
        pass_waiting()
    return Pairing(
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
