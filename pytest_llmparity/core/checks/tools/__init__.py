"""Tool calls: whether an engine calls when it should, the right tool, rightly, and as the other engine does."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from pytest_llmparity.core.checks.base import Pairing
from pytest_llmparity.core.checks.designs import least_kept
from pytest_llmparity.core.checks.limits import LimitedCheck, nothing_yet
from pytest_llmparity.core.checks.missing import Missing, Silence, rare, there
from pytest_llmparity.core.checks.schema.contract import silent
from pytest_llmparity.core.checks.shares import Best, share_judged
from pytest_llmparity.core.checks.tools.calls import (
    FAULTS,
    MARKUP,
    Arguments,
    Calls,
    LastAnswer,
    Order,
    expected_name,
    seen_in,
    should_call,
    with_no_call,
)
from pytest_llmparity.core.checks.tools.conversations import lines
from pytest_llmparity.core.checks.tools.pair import both, compared, parted
from pytest_llmparity.core.checks.tools.reading import Reader
from pytest_llmparity.core.compare.answers import digest
from pytest_llmparity.core.diagnosis import layers
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import EngineEvidence, Evidence, Needs
from pytest_llmparity.core.prompts import NO_TOOL, Case, PromptSet
from pytest_llmparity.core.stats.shares import clopper_pearson
from pytest_llmparity.core.verdict import Difference, Outcome, Verdict
from pytest_llmparity.core.words import explain

TRIGGER: Final = "tools.trigger"
NAMES: Final = "tools.names"
RATE: Final = "tools.rate"
AGREE: Final = "tools.agree"
_KINDS: Final = {"trigger": TRIGGER, "names": NAMES, "rate": RATE, "agree": AGREE}
_MEASURES: Final = {
    "trigger": "of answers call a tool where they should, and only there",
    "names": "of answers that should call a tool call the right one",
    "rate": "of answers that call, or should, have no fault",
}


_SAYS: Final = {
    "trigger": "says whether a tool is to be called",
    "names": "names the tool that is to be called",
    "rate": "offers tools",
    "agree": "offers tools",
}
_WORDS: Final = {
    "trigger": (
        "calls where it should not, or does not where it should",
        "call where they should not, or do not where they should",
    ),
    "names": ("does not call the right tool", "do not call the right tool"),
    "rate": ("has a faulty call, or none where it should", "have faulty calls, or none where they should"),
}
"""What is wrong by each limit, in one answer and in several."""
_SHOWN: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolsCheck(LimitedCheck):
    """Judges the tool calls of every engine, and compares them between engines.

    Made by ``check.tools()``. Each limit that is set gives verdicts of its own kind, on the cases that offer tools:

    - ``tools.trigger``: per engine, the share of cases in which it calls a tool where the case says so
      (``expect.tool``, or a ``tool_choice`` that leaves no choice), and does not where it says ``"none"``. A call that
      was left in the text is one.
    - ``tools.names``: per engine, the share of cases that are to call a named tool in which that one is called.
    - ``tools.rate``: per engine, of the answers that call, and of those that do not where the case says that a tool
      is to be called, the share without a fault
      (:data:`~.calls.FAULTS`): arguments that are no JSON, a name that was not offered, arguments that do not fit their
      schema; an answer that is reasoning only, a call left in the text as markup, one that the engine dropped; no
      call where the case asks for one.
    - ``tools.agree``: per candidate, the share of cases in which both engines call alike: as often, the same tools,
      with ``arguments`` that are equal as JSON, fit, or are equal in some fields; ``order`` says whether calls of one
      answer may come in another order. Conversations call alike where they do so in every turn, have as many of them
      and, unless ``last`` is ``"any"``, answer alike in the end.

    Shares are held by Clopper-Pearson bounds. An answer that its token limit ended in a call, or before it called
    anything, counts in neither way, a failed request as wrong; two such answers part only in what they came to. A pair
    of which neither calls, where its prompt leaves that open, says nothing of calls and is no case of ``agree``. The
    error classes are those of K2-Vendor-Verifier (MoonshotAI) and MiniMax-Provider-Verifier, but for no call.
    """

    kind: ClassVar[str] = "tools"
    trigger: float | None = None
    names: float | None = None
    rate: float | None = None
    agree: float | None = None
    arguments: Arguments = "equal"
    order: Order = "any"
    last: LastAnswer = "equal"

    @property
    def pairwise(self) -> bool:
        """True when only ``agree`` is set."""
        return set(self.limits()) == {"agree"}

    def __str__(self) -> str:
        given = [f"{limit}={value:g}" for limit, value in self.limits().items()]
        if self.arguments != "equal":
            given.append(f"arguments={self.arguments if isinstance(self.arguments, str) else list(self.arguments)!r}")
        given += [f"order={self.order!r}"] if self.order != "any" else []
        given += [f"last={self.last!r}"] if self.last != "equal" else []
        given += [f'by="{self.by}"'] if self.by else []
        return f"tools({', '.join(given)})"

    def limits(self) -> dict[str, float]:
        """Return the limits that are set, by name."""
        given = {"trigger": self.trigger, "names": self.names, "rate": self.rate, "agree": self.agree}
        return {limit: value for limit, value in given.items() if value is not None}

    def needs(self) -> Needs:
        """Return what to gather: the main phase."""
        return Needs()

    def prompt_problem(self, prompts: PromptSet) -> str | None:
        """Return that too few prompts offer tools or say what is to be called, or which tools have no usable schema.

        ``None`` where neither is so.
        """
        for limit, value in self.limits().items():
            cases = _about(limit, prompts.cases)
            needed = least_kept(value, sequential_run=False)
            if needed is not None and len(cases) < needed:
                wanted = {
                    "trigger": 'say whether a tool is to be called (expect = {"tool": NAME}, or "none")',
                    "names": 'name the tool that is to be called (expect = {"tool": NAME})',
                }.get(limit, "offer tools")
                return (
                    f"{limit}={value:g} takes at least {needed} prompts that {wanted}, even if every answer is right, "
                    f"and there {'is' if len(cases) == 1 else 'are'} {len(cases)}"
                )
        try:
            offered = Reader().offered(prompts.cases)
        except DesignError as error:
            return str(error)
        for path in () if isinstance(self.arguments, str) else self.arguments:
            if not any(tools.could_have(path) for tools in offered):
                known = ", ".join(list(dict.fromkeys(name for tools in offered for name in tools.known))[:_SHOWN])
                return f"arguments={list(self.arguments)!r}: no tool has a parameter {path!r}, only {known or 'none'}"
        return None

    def about(self, limit: str, cases: Sequence[Case]) -> Sequence[Case]:
        """Return the cases that a limit is about: those that offer tools and say what it needs."""
        return _about(limit, cases)

    def verdicts(self, evidence: Evidence) -> Iterable[Verdict]:
        """Return the verdicts of each limit that is set: per engine, and of ``agree`` per candidate."""
        reader = Reader()
        read = {name: reader.of(engine, evidence.prompts) for name, engine in evidence.engines.items()}
        return self.by_limit(evidence, lambda limit, part: self._limit_verdicts(limit, read, part))

    def _limit_verdicts(
        self, limit: str, read: Mapping[str, Mapping[str, Calls]], evidence: Evidence
    ) -> Iterable[Verdict]:
        cases = _about(limit, evidence.prompts.cases)
        some = {name: {case.id: of[case.id] for case in cases if case.id in of} for name, of in read.items()}
        if limit == "agree":
            return self.each_pairing(
                evidence,
                AGREE,
                lambda opened, candidate, pairing: [self._agree(opened, evidence, candidate, pairing, some)],
            )
        return self.each_engine(
            evidence,
            _KINDS[limit],
            lambda opened, engine: self._of_engine(opened, evidence, engine, cases, some[engine.name], limit),
        )

    def _of_engine(
        self,
        verdict: Verdict,
        evidence: Evidence,
        engine: EngineEvidence,
        cases: Sequence[Case],
        read: Mapping[str, Calls],
        limit: str,
    ) -> Verdict:
        """Return the verdict of a limit on one engine, of which there may be nothing to judge yet."""
        if not read and (evidence.sequential or not cases):
            return nothing_yet(verdict, evidence, f"no prompt that was asked {_SAYS[limit]}", engine)
        if (refused := silent(verdict, engine, read, evidence)) is not None:
            return refused
        if limit == "rate":
            read = {case.id: with_no_call(case, read[case.id]) for case in cases if case.id in read}
        done = self._share(verdict, evidence, engine, cases, read, limit)
        if not done.requests and evidence.sequential:
            return nothing_yet(done, evidence, "no answer calls a tool", engine)
        return done

    def _share(
        self,
        verdict: Verdict,
        evidence: Evidence,
        engine: EngineEvidence,
        cases: Sequence[Case],
        read: Mapping[str, Calls],
        limit: str,
    ) -> Verdict:
        """Return the verdict of a limit on one engine's answers."""
        at_least = self.limits()[limit]
        asked = [case for case in cases if case.id in read]
        judged = [case for case in asked if not read[case.id].cut or _known(limit, case, read[case.id])]
        if limit == "rate":  # who calls nothing, and need not, says nothing of how it calls
            judged = [case for case in judged if read[case.id].calls or read[case.id].problem]
        say = {case.id for case in judged}
        if limit == "rate":
            asked = [case for case in asked if case.id in say or _cut_short(case, read[case.id])]
        wrong = {case.id: why for case in judged if (why := _wrong(limit, case, read[case.id]))}
        kept = [case.id not in wrong for case in judged]
        silence = Silence()
        for case in asked:
            if case.id not in say:
                silence.add({engine.name: engine.answers()[case.id]}, speaking=True)
        verdict = dataclasses.replace(
            verdict,
            measures=_MEASURES[limit],
            requests=len(asked),
            details=(
                *(_f1(judged, read, evidence.alpha) if limit == "trigger" else ()),
                *_faults(engine.name, judged, read),
                *_first(engine.name, judged, read, wrong, limit),
                *silence.limits(),
            ),
            differing=tuple(
                Difference(
                    case=case.id,
                    what=explain.plain(wrong[case.id], 120),
                    candidate_sha256=digest(read[case.id].text) if read[case.id].answered else None,
                )
                for case in judged
                if case.id in wrong
            ),
        )
        unasked = len(cases) - len(asked) - sum(case.id in engine.left_out for case in cases)
        stopped = evidence.incomplete or "" if unasked > 0 else ""
        missing = Missing(
            of=len(asked),
            used=len(judged),
            reasons=tuple(silence.limits()),
            stopped=stopped,
            sequential=evidence.sequential,
        )
        return share_judged(verdict, evidence, kept, at_least=at_least, cases=judged, about=asked, missing=missing)

    def _agree(
        self,
        verdict: Verdict,
        evidence: Evidence,
        candidate: EngineEvidence,
        pairing: Pairing,
        read: Mapping[str, Mapping[str, Calls]],
    ) -> Verdict:
        assert self.agree is not None
        at_least = self.agree
        ours, theirs = read[evidence.baseline], read[candidate.name]
        pairs = compared(
            pairing,
            evidence.baseline,
            ours,
            theirs,
            arguments=self.arguments,
            order=self.order,
            last=self.last,
        )
        kept, other, reasons = pairs.kept, pairs.other, pairs.reasons
        cases = [case for case in pairing.cases if case.tools and case.id not in pairs.neither]
        values = [kept.get(case.id) for case in cases]
        missing = pairing.missing(evidence, used=len(kept), of=len(cases), also=reasons)
        engines = (evidence.engines[evidence.baseline], candidate)
        silent = len(kept) + len(pairs.neither)
        if not silent and not reasons and (evidence.sequential or not cases):
            return nothing_yet(verdict, evidence, f"no prompt that was asked {_SAYS['agree']}", *engines)
        if silent and not other and not any(ours[case].calls for case in kept):
            reason = f"neither engine called a tool in {explain.count(silent, 'answer')}: no call was compared"
            reason = "; ".join([reason, *reasons])
            return nothing_yet(dataclasses.replace(verdict, n=len(kept)), evidence, reason, *engines)
        fields = () if isinstance(self.arguments, str) else self.arguments
        seen, calls = seen_in(fields, [read[case] for read in (ours, theirs) for case in kept if case in read])
        shown = dataclasses.replace(
            verdict,
            measures="of answers call alike",
            requests=2 * len(kept),
            differs=layers.layers(evidence, candidate),
            details=(
                *both(evidence.baseline, candidate.name, ours, theirs, kept),
                *parted(other),
                *lines((evidence.baseline, candidate.name), pairs.conversations, pairs.partings),
                *there(seen, calls, "call"),
                *missing.reasons,
            ),
            differing=tuple(
                Difference(
                    case=case,
                    what=explain.plain(why, 120),
                    baseline_sha256=pairs.hashes.get(case, (None, None))[0],
                    candidate_sha256=pairs.hashes.get(case, (None, None))[1],
                )
                for case, why in other.items()
            ),
        )
        done = share_judged(
            shown,
            evidence,
            values,
            at_least=at_least,
            cases=cases,
            about=pairing.cases,
            missing=missing,
            best=Best(cases, [value is not False for value in values]),
            remarks=(*pairs.remarks, *rare(seen, calls, "call")),
        )
        unseen = [explain.plain(field, 60) for field, times in seen.items() if not times]
        wordless = self.last == "equal" and pairs.wordless and pairs.wordless == len(pairs.talks)
        if done.outcome is not Outcome.PASS or not (unseen or wordless):
            return done
        reason = f"no call of either engine has {' or '.join(unseen)}"
        if not unseen:
            reason = f"no conversation of {pairs.wordless} came to an answer on either engine: none was compared"
        return dataclasses.replace(done, outcome=Outcome.INCONCLUSIVE, reason=reason, needed=None, advice="")


def _about(limit: str, cases: Sequence[Case]) -> list[Case]:
    """Return the cases a limit is about."""
    if limit == "trigger":
        return [case for case in cases if should_call(case) is not None]
    if limit == "names":
        return [case for case in cases if expected_name(case) is not None]
    return [case for case in cases if case.tools]


def _known(limit: str, case: Case, calls: Calls) -> bool:
    """Whether a conversation whose last turn was cut says by the turns before it what a limit asks."""
    before = calls.turns[:-1]
    if limit == "trigger":
        return any(turn.tried for turn in before)
    if limit == "names":
        return any(expected_name(case) in turn.names for turn in before)
    return any(turn.faults for turn in before) or (calls.speaking and any(turn.calls for turn in before))


def _cut_short(case: Case, calls: Calls) -> bool:
    """Whether an answer was cut that might have shown how it calls: not where it speaks and need not call."""
    return calls.cut and (not calls.speaking or bool(should_call(case)))


def _wrong(limit: str, case: Case, calls: Calls) -> str:
    """Say what is wrong with an answer by one limit, empty where nothing is."""
    if calls.failure:
        return calls.failure
    if limit == "rate":
        return calls.problem
    called = ", ".join(explain.plain(name, 30) for name in calls.names[:4]) or "no tool"
    if limit == "names":
        name = expected_name(case) or NO_TOOL
        return "" if name in calls.names else f"calls {called}, expected {explain.plain(name, 40)}"
    should = should_call(case)
    if calls.mute and not calls.tried:
        return calls.problem or "says nothing"
    if calls.tried == should:
        return ""
    if calls.tried and not calls.calls:
        return f"calls a tool in its text ({calls.problem or MARKUP})"
    return f"calls {called}" + (f" ({calls.problem})" if calls.problem and should else "")


def _f1(cases: Sequence[Case], read: Mapping[str, Calls], alpha: float) -> list[str]:
    """Return precision, recall and F1 of calling at all, the first two with exact lower bounds."""
    counts = Counter((bool(should_call(case)), read[case.id].tried) for case in cases)
    hits, missed, extra = counts[True, True], counts[True, False], counts[False, True]
    parts = []
    for word, n in (("precision", hits + extra), ("recall", hits + missed)):
        if n:
            lower, _ = clopper_pearson(hits, n, alpha)
            parts.append(f"{word} {explain.percent(hits / n)} (at least {explain.percent(lower)}, {hits} of {n})")
    if hits:
        parts.append(f"F1 {2 * hits / (2 * hits + missed + extra):.3f}")
    return [f"calls where it should: {', '.join(parts)}"] if parts else []


def _faults(engine: str, cases: Sequence[Case], read: Mapping[str, Calls]) -> list[str]:
    """Count the answers of an engine by what is wrong with their calls."""
    counts = Counter(kind for case in cases for kind in {fault.kind for fault in read[case.id].faults})
    if not counts:
        return []
    shown = ", ".join(f"{kind} {counts[kind]}" for kind in FAULTS if counts[kind])
    return [f"of {explain.count(len(cases), 'answer')} of {engine}: {shown}"]


def _first(
    engine: str, cases: Sequence[Case], read: Mapping[str, Calls], wrong: Mapping[str, str], limit: str
) -> list[str]:
    for case in cases:
        if case.id in wrong:
            words = _WORDS[limit][len(wrong) > 1]
            lines = [
                f"{len(wrong)} of {explain.count(len(cases), 'answer')} of {engine} {words}; first: "
                f"{explain.plain(case.id, 40)}: {explain.plain(wrong[case.id], 120)}"
            ]
            text = read[case.id].text
            return [*lines, f"  it answered {explain.quote(text)}"] if text.strip() else lines
    return []
