"""What checks with several limits share: how many prompts each takes, and which tags have enough of them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from pytest_llmparity.core.checks.base import BaseCheck
from pytest_llmparity.core.checks.designs import least_kept
from pytest_llmparity.core.checks.tags import By, Tags, beside, left_to_all, no_tag, plan_line, tags_of
from pytest_llmparity.core.evidence import EngineEvidence, Evidence, Tokens
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.stats.paired import min_cases
from pytest_llmparity.core.stats.shares import most_effective
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain

M = TypeVar("M")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitedCheck(BaseCheck):
    """A check of which each limit that is set gives verdicts of its own: shares of answers, or gaps between shares."""

    gaps: ClassVar[frozenset[str]] = frozenset({"gap"})
    """Limits that are the most a difference of shares may be; the others are the least or the most of a share."""
    by: By | None = None

    def limits(self) -> Mapping[str, float]:
        """Return the limits that are set, by name."""
        raise NotImplementedError

    @property
    def pairwise(self) -> bool:
        """True when only limits between engines are set."""
        return "rate" not in self.limits()

    def problem(
        self, *, cases: int, groups: int, engines: int, sequential: bool = False, tokens: Tokens = ()
    ) -> str | None:
        """Return which limits not even perfect answers could be shown to keep, ``None`` where there are none."""
        problems = []
        grouped = sequential and groups < cases
        counted, noun = (groups, "groups of prompts") if grouped else (cases, "prompts")
        for limit, needed in self.least(sequential=sequential).items():
            value = self.limits()[limit]
            if needed is None:
                problems.append(f"no number of prompts can show {limit}={value:g}; ask for less, such as {limit}=0.98")
            elif counted < needed:
                problems.append(
                    f"{limit}={value:g} takes at least {needed} {noun} even if every answer is right, "
                    f"and there {'is' if counted == 1 else 'are'} {counted}"
                )
        return "; ".join(problems) or None

    def power(self, *, cases: int, groups: int, sequential: bool = False, tokens: Tokens = ()) -> str:
        """Return one line for the plan: how many prompts each limit takes at the least."""
        least = self.least(sequential=sequential)
        needed = ", ".join(f"{limit} {n or 'never'}" for limit, n in least.items())
        if groups == cases:
            return f"{self}: {explain.count(cases, 'prompt')}; at least needed: {needed}"
        line = f"{self}: {explain.count(cases, 'prompt')} in {explain.count(groups, 'group')}, one of each counts"
        if not sequential and (few := [limit for limit, n in least.items() if n is None or groups < n]):
            line += f", but for {' and '.join(few)} all count as fewer: too few groups"
        return f"{line}; at least needed: {needed}"

    def weakness(self, *, sizes: Sequence[int], sequential: bool = False, tokens: Tokens = ()) -> str:
        """Say which limits groups of such different sizes cannot show, whatever is answered."""
        groups = len(sizes)
        if sequential or not 1 < groups < sum(sizes):
            return ""
        most, least = math.floor(most_effective(sizes, 0.05)), self.least(sequential=False)
        never = [limit for limit, n in least.items() if n is not None and groups < n and most < n]
        if not never:
            return ""
        return (
            f"{self}: in groups of these sizes {explain.count(sum(sizes), 'prompt')} count as {most} at most, too few "
            f"to show {' and '.join(never)}: more groups help, or as many prompts in each"
        )

    def tag_problem(self, prompts: PromptSet, *, sequential: bool = False, tokens: Tokens = ()) -> str | None:
        """Return why ``by="tag"`` judges nothing: no tag has the prompts that a limit takes; ``None`` where one has."""
        if self.by is None:
            return None
        limits = self.least(sequential=sequential)
        by_need = sorted(limits, key=lambda limit: limits[limit] or math.inf)
        refused = [
            no_tag(
                self.prompts_of(limit, prompts), self.tags(prompts, limit, sequential), self.wanted(limit, sequential)
            )
            for limit in by_need
        ]
        return refused[0] if all(refused) else None

    def tag_line(self, prompts: PromptSet, *, sequential: bool = False, tokens: Tokens = ()) -> str:
        """Return for the plan which tags are judged by themselves."""
        if self.by is None:
            return ""
        limits = self.limits()
        return "\n".join(
            plan_line(
                f"{self}{f', {limit}' if len(limits) > 1 else ''}",
                self.tags(prompts, limit, sequential),
                self.wanted(limit, sequential),
            )
            for limit in limits
        )

    def about(self, limit: str, cases: Sequence[Case]) -> Sequence[Case]:
        """Return the cases that a limit is about: all of them."""
        return cases

    def prompts_of(self, limit: str, prompts: PromptSet) -> PromptSet:
        """Return the prompts that a limit is about."""
        cases = self.about(limit, prompts.cases)
        if len(cases) == len(prompts.cases):
            return prompts
        return PromptSet(name=prompts.name, cases=tuple(cases), digest=f"{prompts.digest}/{limit}")

    def tags(self, prompts: PromptSet, limit: str, sequential: bool) -> Tags:
        """Return the tags by whether they have the groups of prompts that a limit takes, of those it is about."""
        least = self.least(sequential=sequential)[limit]

        def enough(sizes: Sequence[int]) -> bool:
            return least is not None and len(sizes) >= least

        return tags_of(self.prompts_of(limit, prompts), enough)

    def wanted(self, limit: str, sequential: bool) -> str:
        """Say how many groups of prompts a limit takes."""
        least = self.least(sequential=sequential)[limit] or 0
        return f"{explain.count(least, 'group')} of prompts for {limit}={self.limits()[limit]:g}"

    def least(self, *, sequential: bool) -> dict[str, int | None]:
        """Return how many prompts each limit takes even if every answer is right, ``None`` where none suffice."""
        return {
            limit: min_cases(value, 0.05)
            if limit in self.gaps and not sequential
            else least_kept(1.0 - value if limit in self.gaps else value, sequential_run=sequential)
            for limit, value in self.limits().items()
        }

    def by_limit(self, evidence: Evidence, judge: Callable[[str, Evidence], Iterable[Verdict]]) -> Iterable[Verdict]:
        """Return the verdicts of each limit that is set, and behind them those on the prompts of each judged tag."""
        of_tags: list[Verdict] = []
        for limit in self.limits():
            of_limit = functools.partial(judge, limit)
            whole = list(of_limit(evidence))
            left: tuple[str, ...] = ()
            if self.by and not evidence.single:
                tags = self.tags(evidence.prompts, limit, evidence.sequential)
                left = left_to_all(tags, self.wanted(limit, evidence.sequential))
                of_tags += beside(whole, evidence, tags.judged, of_limit)
            yield from [dataclasses.replace(verdict, remarks=(*verdict.remarks, *left)) for verdict in whole]
        yield from of_tags


def nothing_yet(verdict: Verdict, evidence: Evidence, reason: str, *engines: EngineEvidence) -> Verdict:
    """Return the verdict that nothing was found to judge, open while a sequential run has prompts to ask an engine."""
    left = any(
        case.id not in engine.left_out and case.id not in engine.samples.get(Phase.MAIN, {})
        for engine in engines
        for case in evidence.prompts.cases
    )
    words = "; ".join(filter(None, [reason, evidence.incomplete or ""]))
    return dataclasses.replace(
        verdict, outcome=Outcome.INCONCLUSIVE, reason=words, open=evidence.sequential and left, needed=None, advice=""
    )


def within(evidence: Evidence, by_engine: Mapping[str, Mapping[str, M]]) -> dict[str, dict[str, M]]:
    """Return what was read by engine and case, of the cases of this evidence alone: a tag has some of them."""
    ids = evidence.prompts.by_id
    return {name: {case: read for case, read in of.items() if case in ids} for name, of in by_engine.items()}
