"""Greedy text: how often, per token, the candidate's answers part from the baseline's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, TypeAlias

from pytest_llmparity.core.checks.arguments import HORIZON
from pytest_llmparity.core.checks.base import BaseCheck, pair_answers, sampled
from pytest_llmparity.core.checks.designs import ONE_GROUP, SINGLE, Fixed, Forks, groups_counted
from pytest_llmparity.core.checks.drift.compared import (
    Comparison,
    Ties,
    differing,
    ends_unparted,
    first_fork,
    forgiven,
    fork_lines,
    tags_above,
    unforked,
    withheld,
)
from pytest_llmparity.core.checks.drift.floor import (
    UNKNOWN_MARGIN,
    RepeatedPhase,
    above_floor,
    advice,
    beside_floor,
    floor_of,
    of_cases,
    repeated_phases,
    share_of,
    unrecorded,
)
from pytest_llmparity.core.checks.drift.ladders import Limit, TextMargin, limit, text_margin
from pytest_llmparity.core.checks.drift.lengths import LeastOfTag, Lengths, margin_percent
from pytest_llmparity.core.checks.drift.logprobs import apart, shown_shift, told_apart, unfit_logprobs
from pytest_llmparity.core.checks.missing import BothShort, rested
from pytest_llmparity.core.checks.tags import (
    By,
    Tags,
    left_to_all,
    no_tag,
    opened,
    plan_line,
    warned,
    within,
)
from pytest_llmparity.core.compare.shift import shape_of
from pytest_llmparity.core.diagnosis import layers
from pytest_llmparity.core.evidence import FLOOR_PHASES, EngineEvidence, Evidence, Needs, Tokens, floor_stages
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.sample import Phase, in_memory
from pytest_llmparity.core.verdict import Judgement, Outcome, Verdict
from pytest_llmparity.core.words import explain

NEAR_TIES: Final = "near-ties"
Ignored: TypeAlias = Literal["near-ties"]
TOP_LOGPROBS: Final = 5
"""Alternatives per token that are asked for to grade forks."""
SHIFTED: Final = 64
"""Prompts, about so many, of which the shift is shown beside the forks: it needs few, and reads every logprob."""
NO_MARGIN: Final = "a tag without a margin of its own on the ladder is left to the verdict on all prompts"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCheck(BaseCheck):
    """Judges forks per token over the first ``horizon`` tokens against ``margin``.

    Made by ``check.text()``. ``margin`` ``None`` takes that of the candidate's class on the model's ladder
    (:func:`~.ladders.text_margin`), and a pair without is INCOMPARABLE before it is asked. Gives two verdicts per
    candidate: ``text`` (candidate against baseline) and ``text.repeat`` (candidate against itself). Prompts of one
    ``group`` are one piece of evidence: several prompts of a single group are INCONCLUSIVE, and below 12 groups a
    verdict speaks for this mix of prompts only.

    FAIL of ``text`` needs the lower bound above the margin and more drift than the baseline shows against itself: its
    own is shown to be below the margin, or less case by case (paired sign-flip test), the smaller p-value doubled;
    ``p_fail`` is the larger of the two. ``text.repeat`` takes the worst of the floor
    phases, so its p-values and bounds are Bonferroni-corrected for their number, and for the stages in which the floor
    is asked of more cases where fewer do not show it to be below the margin.

    In a sequential run ``text`` counts one prompt of each group, the first in the run's order.

    ``ignore="near-ties"`` counts other forks only, in every verdict and in the noise floors: one at which the lead of
    the baseline's token moved no further than the accepted shift explains (:class:`~.compared.Ties`) ends what can be
    compared, as a cut does. Accepted is ``shift``, else what the lock has for the pair, else what the model's ladder
    allows 8-bit copies, never what is measured now or what a coarser class may do: drift does not excuse itself, and a
    pair that is shown to shift by more does not pass. Forks without logprobs count, and those at which an engine did
    not take its best token; all do where an engine's logprobs are not what they should be
    (:attr:`~.shift.Logprobs.trouble`).

    ``by="tag"`` adds a verdict on the prompts of each tag that has enough of them (:func:`least_of_tag`), beside the
    one on all; without ``margin`` held against the forks of that tag on the ladder, and left to the verdict on all
    with a remark where these give no margin: copies may hardly part on such prompts. A baseline that ever differs from
    itself has to be shown to do so less on prompts of that tag.
    """

    kind: ClassVar[str] = "text"
    margin: float | None = None
    horizon: int = HORIZON
    by: By | None = None
    ignore: Ignored | None = None
    shift: float | None = None

    def __str__(self) -> str:
        given = [f"margin={self.margin:g}"] if self.margin is not None else []
        given += [f"horizon={self.horizon}"] if self.horizon != HORIZON else []
        given += [f'by="{self.by}"'] if self.by else []
        given += [f'ignore="{self.ignore}"'] if self.ignore else []
        given += [f"shift={self.shift:g}"] if self.shift is not None else []
        return f"text({', '.join(given)})"

    def needs(self) -> Needs:
        """Return what to gather: the main phase and the floor of both engines; logprobs, where there are any."""
        return Needs(
            phases=frozenset({Phase.MAIN, *FLOOR_PHASES}),
            top_logprobs=TOP_LOGPROBS,
            floor_held=frozenset({(UNKNOWN_MARGIN if self.margin is None else self.margin, self.horizon)}),
            floor_tokens=self.horizon,
            accepted=self.ignore is not None and self.shift is None,
            ladder=self.margin is None,
        )

    def problem(
        self, *, cases: int, groups: int, engines: int, sequential: bool = False, tokens: Tokens = ()
    ) -> str | None:
        """Return why not even answers without a single fork would pass of so few prompts, ``None`` where they would."""
        held = margin_percent(self._held) + (" (counted with where none is given)" if self.margin is None else "")
        lengths = Lengths.of(tokens, cases=cases, horizon=self.horizon)
        if sequential:
            return lengths.never_in_sequence(self._held, groups=groups, held=held)
        return lengths.never(self._held, held=held)

    def power(self, *, cases: int, groups: int, sequential: bool = False, tokens: Tokens = ()) -> str:
        """Return one line for the plan: what so many prompts can and cannot see, by Poisson's bound without a fork."""
        if sequential:
            return f"{self}: counts one prompt of each group, {explain.count(groups, 'group')} in all"
        text = f"{self}: without a fork {Lengths.of(tokens, cases=cases, horizon=self.horizon).bound}"
        if groups == 1 < cases:
            text += f"; {ONE_GROUP}, so nothing will be settled"
        elif groups < explain.FEW_GROUPS:
            text += f"; with {explain.count(groups, 'group')} it speaks for this mix of prompts only"
        return text

    def weakness(self, *, sizes: Sequence[int], sequential: bool = False, tokens: Tokens = ()) -> str:
        """Say how seldom groups of several prompts catch a drift of 1.6 margins, where that is less than half the runs.

        By simulation; what more prompts of the same groups, and more groups, would change of it is simulated too.
        """
        if sequential or not 1 < len(sizes) < sum(sizes):
            return ""
        lengths = Lengths.of(tokens, cases=sum(sizes), horizon=self.horizon)
        seldom = lengths.seldom_caught(sizes, self._held, given=self.margin is not None)
        return f"{self}: {seldom}" if seldom else ""

    @property
    def _held(self) -> float:
        """The margin that is counted with before anything is asked."""
        return UNKNOWN_MARGIN if self.margin is None else self.margin

    def tag_problem(self, prompts: PromptSet, *, sequential: bool = False, tokens: Tokens = ()) -> str | None:
        """Return why ``by="tag"`` can judge no tag without crying wolf, ``None`` where it can."""
        if self.by is None:
            return None
        least = self._of_tag(self._held, sequential, tokens)
        return no_tag(prompts, least.tags(prompts), least.wanted)

    def tag_line(self, prompts: PromptSet, *, sequential: bool = False, tokens: Tokens = ()) -> str:
        """Return for the plan which tags are judged by themselves."""
        if self.by is None:
            return ""
        least = self._of_tag(self._held, sequential, tokens)
        line = plan_line(str(self), least.tags(prompts), least.wanted)
        return line if self.margin else f"{line}; {NO_MARGIN}"

    def _of_tag(self, margin: float, sequential: bool, tokens: Tokens) -> LeastOfTag:
        longest = int(min(self.horizon, max(tokens, default=self.horizon)))
        return LeastOfTag(margin=margin, longest=longest, sequential=sequential)

    def verdicts(self, evidence: Evidence) -> Iterable[Verdict]:
        """Return two verdicts per candidate: against the baseline, and against itself; with ``by`` those on tags."""

        def judge(opened: Verdict, candidate: EngineEvidence) -> Iterable[Verdict]:
            if refused_beforehand := self.beforehand(evidence, candidate):
                return [dataclasses.replace(opened, outcome=Outcome.INCOMPARABLE, reason=refused_beforehand)]
            ties = self._ties(evidence, candidate)
            pairing = pair_answers(evidence, candidate)
            refused = sampled(opened, evidence, "forks are counted in greedy answers") or pairing.unanswered(
                opened, evidence
            )
            if refused is not None:
                return [refused]
            comparison = Comparison(evidence, pairing, self.horizon, ties=ties)
            if evidence.single:
                return [self._single(opened, comparison)]
            own = self._own(evidence, evidence.engines[evidence.baseline], ties)
            whole = self._cross(opened, evidence, candidate, comparison, own, self._margin(evidence, candidate))
            of_tags, left = self._by_tag(opened, evidence, candidate, own, ties)
            beyond = comparison.beyond()
            return [
                withheld(dataclasses.replace(whole, remarks=(*whole.remarks, *left)), beyond),
                self._repeat(dataclasses.replace(opened, kind="text.repeat"), evidence, candidate, ties),
                *(withheld(of_tag, beyond) for of_tag in of_tags),
            ]

        return self.each_pair(evidence, self.kind, judge)

    def beforehand(self, evidence: Evidence, candidate: EngineEvidence) -> str:
        """Say why there is no margin, or why nobody knows which forks are near-ties, where these are to be ignored."""
        unknown = self._limit(evidence, candidate).refused if self.ignore else ""
        return unknown or ("" if evidence.single else self._margin(evidence, candidate).refused)

    def _limit(self, evidence: Evidence, candidate: EngineEvidence) -> Limit:
        words = f'check.text(ignore="{NEAR_TIES}", shift=…)'
        return limit(evidence, candidate, given=self.shift, words=words, ties=True)

    def _ties(self, evidence: Evidence, candidate: EngineEvidence) -> Ties | None:
        """Return which forks are near-ties of this pair, ``None`` where no shift was accepted for it."""
        accepted = self._limit(evidence, candidate)
        if accepted.nats is None or (self.ignore is None and accepted.others):  # graded as those of live engines
            return None
        if self.ignore is None:
            return Ties(shift=accepted.nats, source=accepted.source, word=accepted.word)
        unfit = unfit_logprobs(evidence.engines[evidence.baseline], candidate)
        return Ties(shift=accepted.nats, source=accepted.source, word=accepted.word, ignored=True, unfit=unfit)

    def _own(self, evidence: Evidence, engine: EngineEvidence, ties: Ties | None) -> list[RepeatedPhase]:
        cases = evidence.prompts.cases
        if ties is None:
            return repeated_phases(cases, engine, horizon=self.horizon)
        return repeated_phases(cases, engine, horizon=self.horizon, graded=ties.of)

    def _single(self, verdict: Verdict, comparison: Comparison) -> Verdict:
        pairs = comparison.pairs
        if not pairs:
            reason = f"{comparison.missing.reason} ({SINGLE})"
            return dataclasses.replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason)
        return dataclasses.replace(
            verdict.judged(comparison.judge(comparison.forks, UNKNOWN_MARGIN)),
            requests=2,
            horizon=self.horizon,
            details=tuple(first_fork(verdict, pairs)),
            differing=differing(pairs, pairs),
        )

    def _cross(
        self,
        verdict: Verdict,
        evidence: Evidence,
        candidate: EngineEvidence,
        comparison: Comparison,
        phases: Sequence[RepeatedPhase],
        held: TextMargin,
    ) -> Verdict:
        """Judge a pair on all prompts, or on those of the verdict's tag: then what holds for all stands with these."""
        floor = floor_of(phases, alpha=evidence.alpha, horizon=self.horizon)
        margin = held.share
        pairs, counted, missing = comparison.pairs, comparison.counted, comparison.missing
        own = None if floor is None else floor.judgement.estimate
        verdict = dataclasses.replace(
            verdict,
            floor=own,
            differs=() if verdict.tag else layers.layers(evidence, candidate, floor=own),
            differing=differing(pairs, counted),
            margin=margin,
            horizon=self.horizon,
            requests=2 * len(counted),
        )
        if not pairs:
            return rested(verdict, missing)
        judgement = comparison.judge(comparison.forks, margin)
        why = "" if verdict.tag and self.margin else held.source
        details = fork_lines(verdict, counted, judgement.groups, comparison, why)
        # With their token records in memory: each is looked at three times.
        told = [pair for pair, _ in counted if not told_apart(pair.case, evidence, candidate)]
        some = told[:: max(1, len(told) // SHIFTED)]
        shown = [(pair.case, in_memory(pair.baseline), in_memory(pair.candidate)) for pair in some]
        shifted = shown_shift(shown, evidence)
        verdict = dataclasses.replace(verdict, apart=apart([compared.fork for _, compared in counted], shifted))
        if shifted is not None:
            details.append(shifted.line)
            shape = None if verdict.tag else shape_of((ours, theirs) for _, ours, theirs in shown)
            verdict = dataclasses.replace(verdict, shape=shape)
        remarks = groups_counted(judgement, comparison.pairing.groups_asked, evidence.prompts.groups)
        if not verdict.tag:
            remarks = (*remarks, *unrecorded(evidence.engines[evidence.baseline], own))
        if comparison.ties is not None and comparison.ties.ignored:
            remarks = (*remarks, forgiven(counted, comparison.ties, self.horizon))
        alike = ((p.baseline, p.candidate) for p, compared in counted if ends_unparted(compared.fork, self.horizon))
        short = BothShort.of(alike, evidence.baseline, candidate.name)
        verdict = dataclasses.replace(
            verdict, measures=_measures(comparison.ties), details=tuple(details), remarks=remarks
        )
        above = 1.0
        if floor is not None:
            above = above_floor(
                comparison.forks, floor, phases, margin=margin, alpha=evidence.alpha, stages=_stages(evidence)
            )

        def best() -> Judgement:
            return beside_floor(comparison.judge(comparison.best, margin), evidence, floor, above)

        done = verdict.judged(beside_floor(judgement, evidence, floor, above))
        if done.outcome is Outcome.PASS and not verdict.tag:
            done = warned(done, tags_above(counted, margin=margin, alpha=evidence.alpha))
        return rested(short.keeps_open(done, of=len(counted)), missing, best=best)

    def _by_tag(
        self,
        verdict: Verdict,
        evidence: Evidence,
        candidate: EngineEvidence,
        phases: Sequence[RepeatedPhase],
        ties: Ties | None,
    ) -> tuple[list[Verdict], tuple[str, ...]]:
        """Return a verdict on the prompts of each tag that has enough and a margin, and which have not."""
        if self.by is None:
            return [], ()
        whole, tokens = self._margin(evidence, candidate), evidence.prompts.most_tokens(evidence.sampling)
        verdicts: list[Verdict] = []
        left: dict[LeastOfTag, dict[str, Sequence[int]]] = {}
        unheld: list[str] = []
        for tag in self._of_tag(whole.share, evidence.sequential, tokens).tags(evidence.prompts).all:
            held = whole if self.margin else self._margin(evidence, candidate, tag)
            share = held.share or whole.share  # of a tag that has none: whether it would have a verdict
            least = self._of_tag(share, evidence.sequential, tokens)
            if tag in (of_tags := least.tags(evidence.prompts)).few:
                left.setdefault(least, {})[tag] = of_tags.few[tag]
            elif held.refused:
                why = held.refused.removeprefix("no margin: ")
                unheld.append(f"no margin for {explain.plain(tag, 40)}, which is left to the verdict on all: {why}")
            else:
                verdicts.append(self._on_tag(opened(verdict, tag), evidence, candidate, phases, ties, held))
        few = [left_to_all(Tags(judged={}, few=of), least.wanted) for least, of in left.items()]
        return verdicts, (*(remark for remarks in few for remark in remarks), *unheld)

    def _on_tag(
        self,
        verdict: Verdict,
        evidence: Evidence,
        candidate: EngineEvidence,
        phases: Sequence[RepeatedPhase],
        ties: Ties | None,
        held: TextMargin,
    ) -> Verdict:
        part = within(evidence, verdict.tag)
        pairing = pair_answers(part, candidate)
        if (refused := pairing.unanswered(verdict, part)) is not None:
            return refused
        own = of_cases(phases, part.prompts.by_id)
        return self._cross(verdict, part, candidate, Comparison(part, pairing, self.horizon, ties=ties), own, held)

    def _repeat(self, verdict: Verdict, evidence: Evidence, candidate: EngineEvidence, ties: Ties | None) -> Verdict:
        """Judge the floor phase in which a candidate drifted most from itself, Bonferroni-corrected for them all."""
        phases = self._own(evidence, candidate, ties)
        margin = self._margin(evidence, candidate).share
        floor = floor_of(phases, margin=margin, alpha=evidence.alpha / max(1, len(phases)), horizon=self.horizon)
        short = next((phase.missing for phase in phases if not phase.missing.enough), None)
        if floor is None:
            nothing = f"{candidate.name} has no repeated answers to compare" if short is None else short.reason
            return dataclasses.replace(verdict, reason=evidence.incomplete or nothing)
        again = f"{candidate.name}'s own first answer ({_asked(floor.phase, evidence)})"
        own = f"{_measures(ties)}{',' if ties is not None and ties.aside else ''} from {again}"
        main, repeated = candidate.answers(), candidate.answers(floor.phase)
        cases = [case.id for case, fork in floor.forks if ends_unparted(fork, self.horizon)]
        ended = BothShort.of(((main[case], repeated[case]) for case in cases), candidate.name)
        verdict = dataclasses.replace(
            verdict,
            measures=own,
            horizon=self.horizon,
            requests=2 * len(floor.forks),
            apart=apart([fork for _, fork in floor.forks]),
        )

        def held(forks: Forks) -> Judgement:
            # FAIL is judged once, where no more cases are asked; who may pass at every stage pays for each.
            for tests in (len(phases), len(phases) / share_of(phases, _stages(evidence))):
                judgement = Fixed(alpha=evidence.alpha / tests).hazard(forks, margin=margin, horizon=self.horizon)
                if judgement.outcome is Outcome.FAIL:
                    break
            return _corrected(judgement, tests)

        judgement = held(floor.forks)
        if judgement.outcome is Outcome.INCONCLUSIVE and not judgement.reason:
            judgement = dataclasses.replace(judgement, advice=advice(floor, phases, evidence, margin=margin))
        if judgement.outcome is Outcome.FAIL:
            judgement = dataclasses.replace(judgement, reason="it does not repeat itself")
        there = {phase.phase for phase in phases}
        if unasked := [_asked(phase, evidence) for phase in FLOOR_PHASES if phase not in there]:
            judgement = _incomplete(
                judgement, evidence.incomplete or f"it has no answers to compare when {' or '.join(unasked)}"
            )
        done = ended.keeps_open(verdict.judged(judgement), of=len(floor.forks))
        if short is None:
            return done

        def best() -> Judgement:
            (worst,) = [phase for phase in phases if phase.phase is floor.phase]
            forks = [*worst.forks, *((case, unforked(self.horizon)) for case in worst.silent)]
            return held(forks)

        return rested(done, short, best=best)

    def _margin(self, evidence: Evidence, candidate: EngineEvidence, tag: str = "") -> TextMargin:
        """Return the margin, of a tag too, and where it comes from, or what the user must do to have one."""
        if self.margin is not None:
            return TextMargin(share=self.margin, source=f"margin {explain.percent(self.margin)} as given")
        return text_margin(evidence, candidate, tag=tag)


def _stages(evidence: Evidence) -> tuple[int, ...]:
    return floor_stages(len(evidence.prompts.cases), evidence.concurrency)


def _measures(ties: Ties | None) -> str:
    return "of tokens fork, near-ties aside" if ties is not None and ties.aside else "of tokens fork"


def _corrected(judgement: Judgement, tests: float) -> Judgement:
    """Return a judgement made at a part of alpha with p-values that belong to the whole of it."""
    p_pass, p_fail = (min(1.0, tests * (p or 0.0)) for p in (judgement.p_pass, judgement.p_fail))
    return dataclasses.replace(judgement, p_pass=p_pass, p_fail=p_fail, needed=None)


def _incomplete(judgement: Judgement, reason: str) -> Judgement:
    """Return a judgement that does not pass, because some of what it should rest on was not asked."""
    if judgement.outcome is Outcome.FAIL:
        return judgement
    return dataclasses.replace(judgement, outcome=Outcome.INCONCLUSIVE, reason=reason, advice="")


def _asked(phase: Phase, evidence: Evidence) -> str:
    if phase is Phase.PARALLEL:
        return f"asked {evidence.concurrency} in parallel"
    return "asked with a cold cache" if phase is Phase.COLD else "asked again with a warm cache"
