"""Logprobs: how far, in nats, the candidate's idea of the next token lies from the baseline's."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from pytest_llmparity.core.checks.arguments import HORIZON
from pytest_llmparity.core.checks.base import BaseCheck, Pairing, pair_answers, sampled
from pytest_llmparity.core.checks.designs import NATS, Fixed, Shifts, design_of, groups_counted, of_groups
from pytest_llmparity.core.checks.drift import ladders
from pytest_llmparity.core.checks.drift.floor import own_shift, unrecorded
from pytest_llmparity.core.checks.missing import BothShort, Missing, Silence, rested
from pytest_llmparity.core.compare.answers import Fork
from pytest_llmparity.core.compare.shift import Logprobs, Shift, alike_to_the_end, find_shift, shape_of, stops_short
from pytest_llmparity.core.diagnosis import layers
from pytest_llmparity.core.evidence import FLOOR_PHASES, Check, EngineEvidence, Evidence, Needs, Tokens
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import Completion, Phase
from pytest_llmparity.core.stats.medians import least_groups
from pytest_llmparity.core.verdict import Apart, Judgement, Outcome, Verdict
from pytest_llmparity.core.words import explain

ALTERNATIVES: Final = 5
"""Alternatives per token that are asked for."""
WITHOUT: Final = "check.text() compares the answers without them"
"""What is said of engines whose logprobs cannot be compared."""
ANY_PROGRAM: Final = frozenset({"openai", "litellm"})
"""Kinds of engine behind which any program may stand."""
CONSTRAINTS: Final = frozenset(
    {
        "format",
        "grammar",
        "guided_choice",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "json_schema",
        "regex",
        "ebnf",
        "response_format",
        "structured_outputs",
    }
)
"""Fields of ``extra_body`` that forbid tokens: those of llama.cpp, Ollama, vLLM (also before 0.12) and SGLang."""
FORCED: Final = (
    "logprobs of answers to a schema are told before it forbids tokens by some kinds of engine (llama.cpp) and after "
    "by others (vLLM), and these are not known to be of one kind"
)
NOT_SHIFTED: Final = Shift(most=0.0, least=0.0, positions=0, unlisted=0)
"""The best that may be thought of a prompt without two answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogprobsCheck(BaseCheck):
    """Holds the shift, the median over groups of how far the lead of the best token moved, against ``shift`` nats.

    Made by ``check.logprobs()``. ``shift`` ``None`` takes what was accepted for the pair in the lock: engines that are
    not those it was accepted for, and pairs without a margin, are INCOMPARABLE. PASS and FAIL rest on the exact bounds
    of the sign test; FAIL also needs more than the baseline shifts against itself. Fewer than five groups settle
    nothing. Of a group the median of its prompts counts, in a sequential run its first one.
    """

    kind: ClassVar[str] = "logprobs"
    shift: float | None = None

    def __str__(self) -> str:
        return "logprobs()" if self.shift is None else f"logprobs(shift={self.shift:g})"

    def needs(self) -> Needs:
        """Return what to gather: the main phase and the noise floor, with logprobs."""
        return Needs(
            phases=frozenset({Phase.MAIN, *FLOOR_PHASES}),
            top_logprobs=ALTERNATIVES,
            capabilities=frozenset({"logprobs"}),
            floor_tokens=HORIZON,
            accepted=self.shift is None,
        )

    def problem(
        self, *, cases: int, groups: int, engines: int, sequential: bool = False, tokens: Tokens = ()
    ) -> str | None:
        """Return why so few groups can settle nothing, ``None`` where they can."""
        needed = least_groups(0.05, sequential_run=sequential)
        if groups >= needed:
            return None
        how = " in a sequential run" if sequential else ""
        return f"{explain.count(groups, 'group')} of prompts can never settle a median{how}; it takes {needed}"

    def power(self, *, cases: int, groups: int, sequential: bool = False, tokens: Tokens = ()) -> str:
        """Return one line for the plan: how many groups must agree."""
        needed = least_groups(0.05, sequential_run=sequential)
        return (
            f"{self}: the median of {explain.count(groups, 'group')}; {needed} that agree pass it, a FAIL beside other "
            "verdicts takes more"
        )

    def verdicts(self, evidence: Evidence) -> Iterable[Verdict]:
        """Return one verdict per candidate."""

        def judge(opened: Verdict, candidate: EngineEvidence) -> Iterable[Verdict]:
            limit = self._limit(evidence, candidate)
            if limit.nats is None:
                return [dataclasses.replace(opened, outcome=Outcome.INCOMPARABLE, reason=limit.refused)]
            pairing = _without_forced(pair_answers(evidence, candidate), evidence, candidate)
            refused = (
                self._forced(opened, pairing)
                or sampled(opened, evidence, "a shift is measured between greedy answers")
                or pairing.unanswered(opened, evidence)
                or self._unfit(opened, evidence, candidate)
            )
            return [refused or self._judged(opened, evidence, candidate, pairing, limit)]

        return self.each_pair(evidence, self.kind, judge)

    def beforehand(self, evidence: Evidence, candidate: EngineEvidence) -> str:
        """Say why there is no margin for a pair, empty where there is one."""
        return self._limit(evidence, candidate).refused

    def _limit(self, evidence: Evidence, candidate: EngineEvidence) -> ladders.Limit:
        return ladders.limit(evidence, candidate, given=self.shift, words="check.logprobs(shift=…)")

    def _forced(self, verdict: Verdict, pairing: Pairing) -> Verdict | None:
        """Return the verdict where every prompt asks for a schema of engines that tell logprobs at different places."""
        if pairing.cases or FORCED not in pairing.left_out:
            return None
        return dataclasses.replace(verdict, outcome=Outcome.INCOMPARABLE, reason=f"{FORCED}; {WITHOUT}")

    def _unfit(self, verdict: Verdict, evidence: Evidence, candidate: EngineEvidence) -> Verdict | None:
        """Return the verdict where one engine's logprobs are not what they should be."""
        for engine in (evidence.engines[evidence.baseline], candidate):
            if unfit := unfit_logprobs(engine):
                reason = f"{unfit}; {WITHOUT}"
                return dataclasses.replace(verdict, outcome=Outcome.INCOMPARABLE, reason=reason, blocked_by=engine.name)
        return None

    def _judged(
        self,
        verdict: Verdict,
        evidence: Evidence,
        candidate: EngineEvidence,
        pairing: Pairing,
        limit: ladders.Limit,
    ) -> Verdict:
        margin, baseline = limit.nats, evidence.engines[evidence.baseline]
        assert margin is not None
        shifts = [
            (pair.case, shift)
            for pair in pairing.pairs
            if (shift := find_shift(pair.baseline, pair.candidate)) is not None
        ]
        missing = pairing.missing(evidence, used=len(shifts), also=_without(pairing, evidence.baseline, len(shifts)))
        floor = None if evidence.single else own_shift(evidence.prompts.by_id, baseline)
        design = design_of(evidence, asked=pairing.asked, groups_asked=pairing.groups_asked)
        verdict = dataclasses.replace(
            verdict,
            measures="of shift",
            margin=margin,
            margin_from=limit.source,
            floor=floor,
            requests=2 * len(shifts),
            shape=shape_of((pair.baseline, pair.candidate) for pair in pairing.pairs),
            differs=layers.layers(evidence, candidate),
        )
        if not shifts:
            return rested(verdict, missing)
        if _is_least(design.counted(shifts, lambda shift: shift[0].group)):
            verdict = dataclasses.replace(verdict, measures=f"of shift{explain.OR_MORE}")

        def held(shifts: Shifts) -> Judgement:
            judgement = design.shift(shifts, margin=margin)
            if evidence.single or judgement.outcome is not Outcome.FAIL:
                return judgement
            return _beside_floor(judgement, design.shift(shifts, margin=max(margin, floor or 0.0)), floor, evidence)

        judgement = held(shifts)
        had_turn = groups_counted(judgement, pairing.groups_asked, evidence.prompts.groups)
        lines = _lines(shifts, missing)
        if judgement.estimate is not None and (about := ladders.about(evidence, judgement.estimate)):
            lines.insert(0, about)
        origin = (f"margin {explain.nats(margin)}, {limit.source}",) if limit.source else ()
        no_floor = () if evidence.single else unrecorded(baseline, floor)
        forced = pairing.left_out.get(FORCED, 0)
        apart = (f"{explain.count(forced, 'prompt')} left out: {FORCED}",) if forced else ()
        remarks = (*origin, *limit.notes, *had_turn, *no_floor, *apart)
        done = dataclasses.replace(verdict.judged(judgement), details=tuple(lines), remarks=remarks)
        alike = [(p.baseline, p.candidate) for p in pairing.pairs if alike_to_the_end(p.baseline, p.candidate)]
        done = BothShort.of(alike, evidence.baseline, candidate.name).keeps_open(done, of=len(shifts))
        known = {case.id: shift for case, shift in shifts}
        best = [(case, known.get(case.id, NOT_SHIFTED)) for case in pairing.cases]
        return rested(done, missing, best=lambda: held(best))


def told_apart(case: Case, evidence: Evidence, candidate: EngineEvidence) -> bool:
    """Whether logprobs of two answers to a case may not be of one kind: tokens are forbidden, on two kinds of engine.

    Seen on llama.cpp, which tells what the model thinks of tokens that the schema then forbids, and vLLM, which does
    not list those: leads that are the same lay 8 nats apart. Of other kinds it is not known, nor what stands behind an
    address of :data:`ANY_PROGRAM`, unless its own golden answers are held against it.
    """
    baseline = evidence.engines[evidence.baseline]
    if baseline.kind == candidate.kind and (candidate.kind not in ANY_PROGRAM or baseline.golden == candidate.name):
        return False
    form, choice = case.response_format, case.tool_choice
    formed = form is not None and form.get("type") != "text"
    called = bool(case.tools) and (choice == "required" or isinstance(choice, Mapping))
    return formed or called or not CONSTRAINTS.isdisjoint(case.extra_body)


def _without_forced(pairing: Pairing, evidence: Evidence, candidate: EngineEvidence) -> Pairing:
    """Return what is compared without the cases of which logprobs are told apart, which are counted as left out."""
    apart = {case.id for case in pairing.cases if told_apart(case, evidence, candidate)}
    if not apart:
        return pairing
    lost = tuple(case for case in pairing.lost if case.id not in apart)
    return dataclasses.replace(
        pairing,
        cases=tuple(case for case in pairing.cases if case.id not in apart),
        pairs=tuple(pair for pair in pairing.pairs if pair.case.id not in apart),
        failed=tuple(case for case in pairing.failed if case.id not in apart),
        lost=lost,
        absent=min(pairing.absent, len(lost)),
        left_out={**pairing.left_out, FORCED: len(apart)},
    )


def refused_by_probe(engine: str, can: Capabilities, checks: Sequence[Check]) -> str | None:
    """Say why no shift can be measured on an engine by what a probe found, where all of the checks need it."""
    if can.odd_logprobs is None or not checks:
        return None
    if not all("logprobs" in check.needs().capabilities for check in checks):
        return None  # another one needs the answers, by which this one is refused too
    return f"in answers to a probe the logprobs of {engine} {can.odd_logprobs}; {WITHOUT}"


def unfit_logprobs(*engines: EngineEvidence) -> str:
    """Say of the first engine whose logprobs are not what they should be what they are; empty where there is none."""
    troubles = ((engine.name, Logprobs.of(engine.answers().values()).trouble) for engine in engines)
    return next((f"logprobs of {name} {trouble}" for name, trouble in troubles if trouble), "")


@dataclass(frozen=True, slots=True)
class Shown:
    """The shift of some pairs of answers in nats, whether it is the least it can be, and a line with its bounds."""

    nats: float
    or_more: bool
    line: str


def shown_shift(pairs: Iterable[tuple[Case, Completion, Completion]], evidence: Evidence) -> Shown | None:
    """Return the shift of some pairs of answers, ``None`` where they have no logprobs that can be compared.

    With a ladder of the baseline's model the class is named.
    """
    compared = list(pairs)
    shifts = [(case, shift) for case, ours, theirs in compared if (shift := find_shift(ours, theirs)) is not None]
    sides = ([ours for _, ours, _ in compared], [theirs for _, _, theirs in compared])
    if not shifts or any(Logprobs.of(answers).trouble for answers in sides):
        return None
    # Any margin: the bounds do not depend on it.
    judgement = Fixed(alpha=evidence.alpha).shift(shifts, margin=1.0)
    assert judgement.estimate is not None
    assert judgement.lower is not None
    assert judgement.upper is not None
    between = f", between {explain.nats(judgement.lower)} and {explain.nats(judgement.upper)}"
    settled = judgement.upper < float("inf")
    or_more = explain.OR_MORE if _is_least(shifts) else ""
    line = (
        f"shift {explain.nats(judgement.estimate)}{between if settled else or_more}, "
        f"{explain.count(len(shifts), 'prompt')} in {explain.count(judgement.groups, 'group')}"
        + (f"; {about}" if (about := ladders.about(evidence, judgement.estimate)) else "")
    )
    return Shown(nats=judgement.estimate, or_more=bool(or_more), line=line)


def apart(forks: Sequence[Fork], shifted: Shown | None = None) -> Apart:
    """Return what stands beside the forks per token of some answers: how many prompts part, and their shift."""
    share = sum(fork.forked for fork in forks) / len(forks)
    if shifted is None:
        return Apart(prompts=share)
    return Apart(prompts=share, shift=shifted.nats, or_more=shifted.or_more)


def _is_least(shifts: Shifts) -> bool:
    """Whether the median is only known to be so far or further, as of most groups something is not listed."""
    most, _ = of_groups(shifts)
    return math.isinf(statistics.median(most))


def _beside_floor(judgement: Judgement, above: Judgement, floor: float | None, evidence: Evidence) -> Judgement:
    """Fail only what shifts more than the baseline against itself; ``above`` holds it against that."""
    if floor is None:
        judgement = dataclasses.replace(judgement, open=False)  # and will not be
        reason = f"what {evidence.baseline} shifts against itself was not measured"
    elif above.outcome is Outcome.FAIL:
        return dataclasses.replace(judgement, p_fail=above.p_fail)
    else:
        reason = (
            f"baseline too noisy at this concurrency: {evidence.baseline} shifts by {explain.nats(floor)} against "
            f"itself at {evidence.concurrency} in parallel, and this is not shown to be more"
        )
    return dataclasses.replace(judgement, outcome=Outcome.INCONCLUSIVE, p_fail=above.p_fail, reason=reason)


def _without(pairing: Pairing, baseline: str, used: int) -> list[str]:
    """Say why pairs of answers have no shift: one ends early, or there are no logprobs to compare."""
    silence, short = Silence(), 0
    for pair in pairing.pairs:
        if stops_short(pair.baseline, pair.candidate):
            silence.add({baseline: pair.baseline, pairing.candidate: pair.candidate})
            short += 1
    without = len(pairing.pairs) - used - short
    none = [f"no logprobs to compare in the answers to {explain.count(without, 'prompt')}"] if without else []
    return [*silence.reasons(), *none]


def _lines(shifts: Shifts, missing: Missing) -> list[str]:
    """Return the lines below a verdict: positions, what was not listed, the tags that shift most."""
    positions = sum(shift.positions for _, shift in shifts)
    groups = len({case.group for case, _ in shifts})
    lines = [
        f"{explain.count(positions, 'common token')} of {explain.count(len(shifts), 'prompt')} in "
        f"{explain.count(groups, 'group')}"
    ]
    if unlisted := sum(shift.unlisted for _, shift in shifts):
        lines.append(f"in {unlisted} of them one of the baseline's two best is not among the candidate's alternatives")
    lines += missing.reasons
    if spread := _by_tag(shifts):
        lines.append(spread)
    return lines


def _by_tag(shifts: Shifts) -> str:
    """Name the three tags that shift most; empty where fewer than two have a tag."""
    tags: dict[str, list[float]] = defaultdict(list)
    for case, shift in shifts:
        for tag in case.tags:
            tags[tag].append(shift.least)
    if len(tags) < 2:
        return ""
    medians = {tag: statistics.median(values) for tag, values in tags.items()}
    return f"most by tag: {explain.worst(medians, NATS)}"
