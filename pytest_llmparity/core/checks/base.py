"""What checks have in common: how they open a verdict, go through engines, pair answers, and say what they need."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

import msgspec

from pytest_llmparity.core.checks.missing import Missing, describe
from pytest_llmparity.core.compare.answers import parted
from pytest_llmparity.core.diagnosis.layers import response_schema
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import Check, EngineEvidence, Evidence, Needs, Tokens
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.prompts.arms import as_declared
from pytest_llmparity.core.prompts.parts import MEDIA, media_of
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain

LOST: Final = 0.05
"""Share of pairs without two answers above which a comparison of texts is an ERROR instead of a verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseCheck:
    """What every check is made of; one adds its limits (``__str__``, ``problem``, ``power``) and its ``verdicts``."""

    kind: ClassVar[str]
    sequential: ClassVar[bool] = True
    reads_last: ClassVar[bool] = False
    """Whether it judges the last answer of a conversation, whatever was called before it."""
    reads_choices: ClassVar[bool] = False
    """Whether it reads every choice of an answer; others judge the first one and say so."""
    where: str = field(default="", compare=False)

    @property
    def pairwise(self) -> bool:
        """It says nothing about a single engine."""
        return True

    def needs(self) -> Needs:
        """Return what to gather: the main phase."""
        return Needs()

    def weakness(self, *, sizes: Sequence[int], sequential: bool = False, tokens: Tokens = ()) -> str:
        """Return nothing: how the cases fall into groups is not what limits it."""
        return ""

    def beforehand(self, evidence: Evidence, candidate: EngineEvidence) -> str:
        """Return nothing: who the engines are keeps nobody from judging their answers."""
        return ""

    def prompt_problem(self, prompts: PromptSet) -> str | None:
        """Return ``None``: whatever prompts say, their answers can be judged."""
        return None

    def tag_problem(self, prompts: PromptSet, *, sequential: bool = False, tokens: Tokens = ()) -> str | None:
        """Return ``None``: it is not asked to judge tags by themselves."""
        return None

    def tag_line(self, prompts: PromptSet, *, sequential: bool = False, tokens: Tokens = ()) -> str:
        """Return nothing: it is not asked to judge tags by themselves."""
        return ""

    def judge(self, evidence: Evidence) -> list[Verdict]:
        """Return a verdict per engine (absolute limits) or per candidate (pairwise limits), each with its headline."""
        verdicts = (with_choices(verdict, evidence, all_read=self.reads_choices) for verdict in self.verdicts(evidence))
        return [worded(with_conversations(verdict, evidence) if self.reads_last else verdict) for verdict in verdicts]

    def verdicts(self, evidence: Evidence) -> Iterable[Verdict]:
        """Yield the verdicts on what was gathered, as yet without headlines, which :meth:`judge` adds."""
        raise NotImplementedError

    def each_engine(
        self, evidence: Evidence, kind: str, judge: Callable[[Verdict, EngineEvidence], Verdict]
    ) -> Iterable[Verdict]:
        """Judge every engine by itself, unless it cannot be used: then the verdict says why."""
        for engine in evidence.engines.values():
            opened = self._opened(evidence, engine, kind, baseline=None)
            yield unusable(opened, engine) or judge(opened, engine)

    def each_pair(
        self, evidence: Evidence, kind: str, judge: Callable[[Verdict, EngineEvidence], Iterable[Verdict]]
    ) -> Iterable[Verdict]:
        """Yield what ``judge`` says of every candidate, or why one cannot be used; of one engine alone SKIPPED."""
        baseline = evidence.engines[evidence.baseline]
        if not evidence.candidates:
            opened = self._opened(evidence, baseline, kind, baseline=None)
            reason = "it compares two engines and only one is selected"
            yield dataclasses.replace(opened, outcome=Outcome.SKIPPED, reason=reason)
        for candidate in evidence.candidates:
            opened = self._opened(evidence, candidate, kind, baseline=evidence.baseline)
            refused = unusable(opened, baseline, candidate)
            yield from judge(opened, candidate) if refused is None else [refused]

    def each_pairing(
        self, evidence: Evidence, kind: str, judge: Callable[[Verdict, EngineEvidence, Pairing], Iterable[Verdict]]
    ) -> Iterable[Verdict]:
        """Judge as :meth:`each_pair` does, with the answers paired; where too few have two the verdict says so."""

        def judge_pairing(opened: Verdict, candidate: EngineEvidence) -> Iterable[Verdict]:
            pairing = pair_answers(evidence, candidate)
            refused = pairing.unanswered(opened, evidence)
            return judge(opened, candidate, pairing) if refused is None else [refused]

        return self.each_pair(evidence, kind, judge_pairing)

    def _opened(self, evidence: Evidence, engine: EngineEvidence, kind: str, *, baseline: str | None) -> Verdict:
        """Return the verdict on one engine, or one pair, that names it and says nothing yet."""
        return Verdict(
            test=evidence.test,
            check=str(self),
            kind=kind,
            engine=engine.name,
            baseline=baseline,
            outcome=Outcome.INCONCLUSIVE,
            alpha=evidence.alpha,
            where=self.where,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Misused(BaseCheck):
    """Stands in a test file for a check that cannot be made; ``misuse`` says why.

    An error raised while pytest imports a file takes all of its tests away. So it is kept until the one that uses the
    check is set up.
    """

    kind: ClassVar[str] = "misused"
    misuse: str = ""

    def __str__(self) -> str:
        return self.misuse

    @property
    def error(self) -> DesignError:
        """The error that making the check would have raised."""
        return DesignError(self.misuse)

    def problem(
        self, *, cases: int, groups: int, engines: int, sequential: bool = False, tokens: Tokens = ()
    ) -> str | None:
        """Return what is wrong with it."""
        return self.misuse

    def power(self, *, cases: int, groups: int, sequential: bool = False, tokens: Tokens = ()) -> str:
        """Return what is wrong with it."""
        return self.misuse

    def verdicts(self, evidence: Evidence) -> Iterable[Verdict]:
        """Raise the error of a check that was made wrongly; it judges nothing."""
        raise self.error


# answers in pairs -----------------------------------------------------------------------------------------------------


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
    is the engine that did not answer it. ``unanswered_by`` counts by engine those it failed to answer. ``left_out``
    counts, by the reason, cases that one of the engines cannot be asked; they are not among the lost. ``cases`` are all
    it is about, in the order of the prompt set.
    """

    candidate: str
    cases: tuple[Case, ...]
    pairs: tuple[Pair, ...]
    failed: tuple[Case, ...]
    lost: tuple[Case, ...]
    absent: int
    first_failure: str = ""
    failing: str = ""
    unanswered_by: Mapping[str, int] = field(default_factory=dict)
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
        if len(self.unanswered_by) > 1:
            text += f" ({', '.join(f'{engine} failed {n}' for engine, n in self.unanswered_by.items())})"
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
    """Return the main-phase answers of the baseline and one candidate in pairs, in the order of the prompt set."""
    baseline = evidence.engines[evidence.baseline]
    ours, theirs = baseline.answers(), candidate.answers()
    bad_ours, bad_theirs = baseline.failures(), candidate.failures()
    sides = ((ours, bad_ours), (theirs, bad_theirs))
    pairs: list[Pair] = []
    failed: list[Case] = []
    lost: list[Case] = []
    absent = 0
    first = failing = ""
    unanswered_by: Counter[str] = Counter()
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
            unanswered_by.update(
                engine.name for engine, (_, bad) in zip((baseline, candidate), sides, strict=True) if case.id in bad
            )
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
        unanswered_by=unanswered_by,
        left_out=left_out,
    )


# what verdicts say besides --------------------------------------------------------------------------------------------


def with_conversations(verdict: Verdict, evidence: Evidence) -> Verdict:
    """Return a verdict on last answers with what it has to say of conversations: who never answered, which part before.

    A last answer behind other calls answers other words than the one it is held against.
    """
    scripted = [case.id for case in evidence.prompts.cases if case.tool_results]
    names = [name for name in (verdict.baseline, verdict.engine) if name is not None and name in evidence.engines]
    if not scripted or not names:
        return verdict
    answers = [evidence.engines[name].answers() for name in names]
    remarks = []
    for name, of_engine in zip(names, answers, strict=True):
        held = [of_engine[case] for case in scripted if case in of_engine]
        if why := Counter(answer.stopped.kind for answer in held if answer.stopped is not None):
            kinds = ", ".join(f"{kind} {n}" for kind, n in why.most_common())
            remarks.append(
                f"{sum(why.values())} of {explain.count(len(held), 'conversation')} of {name} ended without an answer "
                f"({kinds}), and what they ended with is judged"
            )
    if len(answers) == 2:
        both = [(case, answers[0][case], answers[1][case]) for case in scripted if all(case in of for of in answers)]
        places = {case: parted(ours, theirs) for case, ours, theirs in both if ours.turns or theirs.turns}
        before = [
            case
            for case, ours, theirs in both
            if 0 < places.get(case, 0) < len(ours.conversation) or 0 < places.get(case, 0) < len(theirs.conversation)
        ]
        if before:
            remarks.append(
                f"{len(before)} of {explain.count(len(both), 'conversation')} part before their last answers, which so "
                f"answer other words; first: {explain.plain(before[0], 40)} in turn {places[before[0]]}"
            )
    return dataclasses.replace(verdict, remarks=(*verdict.remarks, *remarks)) if remarks else verdict


def with_choices(verdict: Verdict, evidence: Evidence, *, all_read: bool) -> Verdict:
    """Return a verdict with what it has to say of prompts that ask for several choices: which of them it rests on.

    Who gave fewer than it was asked for is named. ``all_read``: it rests on all there are.
    """
    asked = {case.id: case.n for case in evidence.prompts.cases if case.n > 1}
    if not asked:
        return verdict
    remarks = []
    if not all_read:
        several = explain.count(len(asked), "prompt")
        remarks.append(f"{several} of {len(evidence.prompts.cases)} with n: of several choices the first is judged")
    for name in (verdict.baseline, verdict.engine):
        answers = evidence.engines[name].answers() if name is not None and name in evidence.engines else {}
        fewer = [case for case, n in asked.items() if case in answers and 1 + len(answers[case].choices) < n]
        if fewer:
            gave = 1 + len(answers[fewer[0]].choices)
            remarks.append(
                f"{name} gave fewer choices than n asks for to {explain.count(len(fewer), 'prompt')}; first: "
                f"{explain.plain(fewer[0], 40)}: {gave} of {asked[fewer[0]]}"
            )
    return dataclasses.replace(verdict, remarks=(*verdict.remarks, *remarks)) if remarks else verdict


def worded(verdict: Verdict) -> Verdict:
    """Return the verdict with its headline; numbers that are not finite become unknown."""
    estimate, lower, upper = (
        None if value is None or not math.isfinite(value) else value
        for value in (verdict.estimate, verdict.lower, verdict.upper)
    )
    finite = dataclasses.replace(verdict, estimate=estimate, lower=lower, upper=upper)
    return dataclasses.replace(finite, message=explain.headline(finite))


def unusable(verdict: Verdict, *engines: EngineEvidence) -> Verdict | None:
    """Return the INCOMPARABLE, ERROR or SKIPPED verdict when one of these engines cannot be judged, else ``None``.

    Its details have the first line of what is wrong with the other one too: who mends the one would meet it next.
    """
    troubles = [(Outcome.INCOMPARABLE, engine.incomparable, engine.name) for engine in engines]
    troubles += [(Outcome.ERROR, engine.error, engine.name) for engine in engines]
    known = [(outcome, reason, name) for outcome, reason, name in troubles if reason is not None]
    if known:
        outcome, reason, blocked_by = known[0]
        same = reason.removeprefix(f"{blocked_by}: ")
        details = [
            f"and {name} likewise" if other.removeprefix(f"{name}: ") == same else f"and {_naming(name, other)}"
            for _, other, name in known[1:]
            if name != blocked_by
        ]
        return dataclasses.replace(
            verdict,
            outcome=outcome,
            reason=reason,
            blocked_by=blocked_by,
            details=(*verdict.details, *details),
        )
    lacking = next((engine.lacking for engine in engines if engine.lacking is not None), None)
    return None if lacking is None else dataclasses.replace(verdict, outcome=Outcome.SKIPPED, reason=lacking)


def _naming(engine: str, reason: str) -> str:
    """Return the first line of what is wrong with an engine, which begins with its name."""
    first = reason.partition("\n")[0]
    return first if first.startswith((f"{engine}: ", f"{engine} ")) else f"{engine}: {first}"


def sampled(verdict: Verdict, evidence: Evidence, why: str) -> Verdict | None:
    """Return the INCONCLUSIVE verdict where answers were not greedy; ``why`` says what that is needed for."""
    default = evidence.sampling.temperature
    warm = [case.id for case in evidence.prompts.cases if case.sampling.get("temperature", default) > 0]
    if not warm:
        return None
    reason = (
        f"{why} and {explain.count(len(warm), 'prompt')} ({explain.plain(warm[0], 40)}, …) ask for a temperature "
        "above 0: set it to 0"
    )
    return dataclasses.replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason)


def asked_for(check: Check, prompts: PromptSet) -> PromptSet:
    """Return the prompts whose answers a check reads: both arms of them where it asks for these."""
    return prompts if check.needs().arms else as_declared(prompts)


def required(check: Check, case: Case) -> tuple[str, ...]:
    """Return the capabilities, by field name, without which the answer to a case says nothing about an engine.

    What the check itself needs; ``json_schema`` only where the case asks for a schema, because an answer that nobody
    was asked to force may be judged on any engine. A case with ``tools``, images or audio needs one that takes them,
    whatever the check.
    """
    return _required(check.needs(), case)


def _required(needs: Needs, case: Case) -> tuple[str, ...]:
    asked = (*(["tools"] if case.tools else []), *sorted(media_of(case.messages)))
    if not needs.capabilities:
        return asked
    names = needs.capabilities if response_schema(case) is not None else needs.capabilities - {"json_schema"}
    return (*sorted(names), *asked)


def left_out(
    engine: str, check: Check, prompts: PromptSet, *, can: Capabilities, declares: Capabilities
) -> dict[str, str]:
    """Return why this check cannot be judged on an engine by case id; empty when nothing is missing.

    What its kind promises and the server does not keep is not missing: the check is judged, fails, and says why.
    """
    reasons: dict[str, str] = {}
    needs = check.needs()
    if not any(can.lacks(name, declares) for name in (*needs.capabilities, "tools", *MEDIA.values())):
        return reasons  # whatever a case asks for
    missing: dict[tuple[str, ...], str | None] = {}
    for case in prompts.cases:
        names = _required(needs, case)
        if names not in missing:
            missing[names] = next((name for name in names if can.lacks(name, declares)), None)
        if (name := missing[names]) is not None:
            reasons[case.id] = f"{engine} {can.sentence(name)} ({can.basis(name, declares)})"
    return reasons
