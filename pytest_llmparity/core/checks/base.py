"""What checks have in common: how they open a verdict, go through engines and pairs, and say what they need."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from pytest_llmparity.core.checks.designs import design_of, groups_counted
from pytest_llmparity.core.checks.missing import Missing, rested
from pytest_llmparity.core.checks.tags import gaps_above, shares_below, warned
from pytest_llmparity.core.compare.answers import parted
from pytest_llmparity.core.diagnosis.layers import response_schema
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import Check, EngineEvidence, Evidence, Needs
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.prompts.arms import as_declared
from pytest_llmparity.core.prompts.parts import MEDIA, media_of
from pytest_llmparity.core.stats.paired import Side
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain


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

    def weakness(self, *, sizes: Sequence[int], sequential: bool = False) -> str:
        """Return nothing: how the cases fall into groups is not what limits it."""
        return ""

    def beforehand(self, evidence: Evidence, candidate: EngineEvidence) -> str:
        """Return nothing: who the engines are keeps nobody from judging their answers."""
        return ""

    def prompt_problem(self, prompts: PromptSet) -> str | None:
        """Return ``None``: whatever prompts say, their answers can be judged."""
        return None

    def tag_problem(self, prompts: PromptSet, *, sequential: bool = False) -> str | None:
        """Return ``None``: it is not asked to judge tags by themselves."""
        return None

    def tag_line(self, prompts: PromptSet, *, sequential: bool = False) -> str:
        """Return nothing: it is not asked to judge tags by themselves."""
        return ""

    def judge(self, evidence: Evidence) -> list[Verdict]:
        """Return a verdict per engine (absolute limits) or per candidate (pairwise limits), each with its headline."""
        verdicts = (with_choices(verdict, evidence, all_read=self.reads_choices) for verdict in self.verdicts(evidence))
        return [worded(with_conversations(verdict, evidence) if self.reads_last else verdict) for verdict in verdicts]

    def verdicts(self, evidence: Evidence) -> Iterable[Verdict]:
        """Judge, without a headline."""
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
        """Judge every candidate against the baseline, unless one cannot be used; with one engine all is SKIPPED."""
        baseline = evidence.engines[evidence.baseline]
        if not evidence.candidates:
            opened = self._opened(evidence, baseline, kind, baseline=None)
            reason = "it compares two engines and only one is selected"
            yield dataclasses.replace(opened, outcome=Outcome.SKIPPED, reason=reason)
        for candidate in evidence.candidates:
            opened = self._opened(evidence, candidate, kind, baseline=evidence.baseline)
            refused = unusable(opened, baseline, candidate)
            yield from judge(opened, candidate) if refused is None else [refused]

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

    def problem(self, *, cases: int, groups: int, engines: int, sequential: bool = False) -> str | None:
        """Return what is wrong with it."""
        return self.misuse

    def power(self, *, cases: int, groups: int, sequential: bool = False) -> str:
        """Return what is wrong with it."""
        return self.misuse

    def verdicts(self, evidence: Evidence) -> Iterable[Verdict]:
        """Raise what is wrong with it."""
        raise self.error


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


class Best(NamedTuple):
    """What would be kept of which cases if everything that is missing spoke for PASS."""

    cases: Sequence[Case]
    kept: Sequence[bool]


def share_judged(
    verdict: Verdict,
    evidence: Evidence,
    kept: Sequence[bool | None],
    *,
    at_least: float,
    cases: Sequence[Case],
    about: Sequence[Case],
    missing: Missing,
    best: Best | None = None,
    remarks: Sequence[str] = (),
    otherwise: str = "",
) -> Verdict:
    """Return a verdict on the share of cases that are kept, as the design of the evidence judges it.

    ``kept`` stands beside ``cases``; ``None`` says nothing. ``about`` are all cases it speaks of, those asked.
    A PASS names the tags that it hides, and what rests on too little is taken back: a FAIL stands where it is one by
    ``best`` too. ``remarks`` stand behind what a sequential run says of groups, ``otherwise`` is the reason where the
    judgement has none.
    """
    groups = len({case.group for case in about})
    design = design_of(evidence, asked=len(about), groups_asked=groups)
    judgement = design.share(kept, at_least=at_least, cases=cases)
    done = dataclasses.replace(
        verdict.judged(judgement),
        remarks=(*groups_counted(judgement, groups, evidence.prompts.groups), *remarks),
        reason=judgement.reason or otherwise,
    )
    if not evidence.single:
        done = warned(done, shares_below(zip(cases, kept, strict=True), at_least=at_least, alpha=evidence.alpha))
    if best is None:
        return rested(done, missing)
    return rested(done, missing, best=lambda: design.share(best.kept, at_least=at_least, cases=best.cases))


def gap_judged(
    verdict: Verdict,
    evidence: Evidence,
    differences: Sequence[int],
    *,
    margin: float,
    side: Side,
    cases: Sequence[Case],
    rest: Sequence[Case],
    about: Sequence[Case],
    missing: Missing,
    remarks: Sequence[str] = (),
    by_tag: bool = True,
) -> Verdict:
    """Return a verdict on a difference of shares (``Design.gap``), as :func:`share_judged` does on a share.

    ``rest`` are cases that say nothing, at the best no difference. Without ``by_tag`` a PASS names no tags.
    """
    groups = len({case.group for case in about})
    design = design_of(evidence, asked=len(about), groups_asked=groups)
    judgement = design.gap(differences, margin=margin, side=side, cases=cases)
    of_groups = groups_counted(judgement, groups, evidence.prompts.groups)
    done = dataclasses.replace(verdict.judged(judgement), remarks=(*of_groups, *remarks))
    if by_tag and not evidence.single:
        values = zip(cases, differences, strict=True)
        done = warned(done, gaps_above(values, margin=margin, alpha=evidence.alpha, side=side))
    everything, best = [*cases, *rest], [*differences, *[0] * len(rest)]
    return rested(done, missing, best=lambda: design.gap(best, margin=margin, side=side, cases=everything))


def besides(about: Sequence[Case], cases: Sequence[Case]) -> list[Case]:
    """Return the cases a judgement is about that say nothing: all but these."""
    ids = {case.id for case in cases}
    return [case for case in about if case.id not in ids]


def worded(verdict: Verdict) -> Verdict:
    """Return the verdict with its headline; numbers that are not finite become unknown."""
    estimate, lower, upper = (
        None if value is None or not math.isfinite(value) else value
        for value in (verdict.estimate, verdict.lower, verdict.upper)
    )
    finite = dataclasses.replace(verdict, estimate=estimate, lower=lower, upper=upper)
    return dataclasses.replace(finite, message=explain.headline(finite))


def unusable(verdict: Verdict, *engines: EngineEvidence) -> Verdict | None:
    """Return the INCOMPARABLE, ERROR or SKIPPED verdict when one of these engines cannot be judged, else ``None``."""
    troubles = [(Outcome.INCOMPARABLE, engine.incomparable, engine.name) for engine in engines]
    troubles += [(Outcome.ERROR, engine.error, engine.name) for engine in engines]
    troubles += [(Outcome.SKIPPED, engine.lacking, "") for engine in engines]
    for outcome, reason, blocked_by in troubles:
        if reason is not None:
            return dataclasses.replace(verdict, outcome=outcome, reason=reason, blocked_by=blocked_by)
    return None


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
