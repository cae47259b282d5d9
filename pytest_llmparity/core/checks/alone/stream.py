"""Whether an engine answers the same streamed and unstreamed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from pytest_llmparity.core.checks.arguments import PARTS, SAME
from pytest_llmparity.core.checks.limits import LimitedCheck, nothing_yet
from pytest_llmparity.core.checks.missing import Missing, Silence, describe
from pytest_llmparity.core.checks.shares import share_judged
from pytest_llmparity.core.compare.answers import digest, no_evidence
from pytest_llmparity.core.compare.calls import in_words, same_calls
from pytest_llmparity.core.errors import BadRequest, DesignError, UnsupportedParameter
from pytest_llmparity.core.evidence import EngineEvidence, Evidence, Needs
from pytest_llmparity.core.prompts import STREAMED, UNSTREAMED, Case, PromptSet
from pytest_llmparity.core.prompts.arms import of_arm, streamed_and_not, unstreamed
from pytest_llmparity.core.sample import Completion, Phase, Sample
from pytest_llmparity.core.verdict import Difference, Outcome, Verdict
from pytest_llmparity.core.words import explain

RATE: Final = "stream.rate"
REPEATS: Final = 2
"""How often each prompt is asked each way: the second answer says whether the engine repeats itself."""
_WORDS: Final = {"content": "content", "calls": "tool calls", "finish": "finish reason", "usage": "usage"}
_COUNTS: Final = ("prompt_tokens", "completion_tokens", "reasoning_tokens")
_REFUSED: Final = (BadRequest.__name__, UnsupportedParameter.__name__)
_CONTEXT: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCheck(LimitedCheck):
    """Holds what an engine streams against what it answers whole, to the same prompts.

    Made by ``check.stream()``. ``stream.rate``: per engine, the share of prompts whose answer is the same both ways is
    at least ``rate`` (Clopper-Pearson). The same are content, tool calls (names in order, arguments as JSON), finish
    reason and token counts, but for what ``ignore`` names, in every turn of a conversation; reasoning is not compared.

    Each prompt is asked twice each way. Where the two answers of one way differ the engine does not repeat itself, and
    what it differs by the other way is no fault of streaming: such a prompt is forgiven, counts neither way, and is
    named. Of mostly forgiven prompts nothing passes. A prompt that is answered one way and fails the other is not
    the same; answers that both say nothing are no agreement, nor are those of which ``ignore`` leaves neither text nor
    a call.
    """

    kind: ClassVar[str] = "stream"
    rate: float = SAME
    ignore: tuple[str, ...] = ()

    @property
    def pairwise(self) -> bool:
        """It is about each engine by itself."""
        return False

    def __str__(self) -> str:
        given = [f"rate={self.rate:g}"] if self.rate != SAME else []
        given += [f"ignore={list(self.ignore)!r}"] if self.ignore else []
        given += [f'by="{self.by}"'] if self.by else []
        return f"stream({', '.join(given)})"

    def limits(self) -> dict[str, float]:
        """Return the one limit."""
        return {"rate": self.rate}

    def needs(self) -> Needs:
        """Return what to gather: both arms of each case, twice."""
        return Needs(arms=True, repeats=REPEATS)

    def in_both(self, prompts: PromptSet) -> PromptSet:
        """Return the prompts streamed and unstreamed; ``DesignError`` where an id is taken."""
        return streamed_and_not(prompts)

    def verdicts(self, evidence: Evidence) -> Iterable[Verdict]:
        """Return the verdict on every engine, and on the prompts of each judged tag."""
        if not any(case.arm == UNSTREAMED for case in evidence.prompts.cases):
            raise DesignError(f"{self}: it asks every prompt streamed and unstreamed, so it belongs into the marker")
        ways = {name: _Ways(engine, evidence.prompts) for name, engine in evidence.engines.items()}
        streams = evidence.about(of_arm(evidence.prompts, STREAMED))
        for verdict in self.by_limit(streams, lambda _, part: self._of_part(ways, part)):
            yield dataclasses.replace(verdict, arm=STREAMED)

    def _of_part(self, ways: Mapping[str, _Ways], evidence: Evidence) -> Iterable[Verdict]:
        return self.each_engine(
            evidence, RATE, lambda opened, engine: self._of_engine(opened, evidence, engine, ways[engine.name])
        )

    def _of_engine(self, verdict: Verdict, evidence: Evidence, engine: EngineEvidence, ways: _Ways) -> Verdict:
        """Return the verdict on one engine, of which there may be nothing to compare."""
        if why := ways.one_way:
            return dataclasses.replace(verdict, outcome=Outcome.INCOMPARABLE, reason=why)
        cases = [case for case in evidence.prompts.cases if case.id not in engine.left_out]
        asked = [case for case in cases if ways.asked(case.id)]
        if not any(ways.answered(case.id) for case in asked):
            return self._silent(verdict, evidence, engine, ways, asked)
        read = {case.id: self._held(ways, case.id) for case in asked}
        comparable = [case for case in asked if read[case.id].same is not None]
        forgiven = [case for case in asked if read[case.id].unrepeated]
        kept = [bool(read[case.id].same) for case in comparable]
        silence = Silence()
        for case in asked:
            if answers := read[case.id].silent:
                silence.add(answers)
        pardon = _pardon(engine.name, forgiven, asked)
        failed = [case for case in asked if read[case.id].failed]
        unknown = list(silence.reasons())
        if hidden := [case for case in asked if read[case.id].hidden]:
            left = ", ".join(self.ignore)
            unknown.append(
                f"nothing but ignored parts ({left}) in both answers to {explain.count(len(hidden), 'prompt')}"
            )
        if failed:
            lost = explain.count(len(failed), "prompt")
            unknown.append(f"{lost} answered neither streamed nor unstreamed; first: {read[failed[0].id].why}")
        verdict = dataclasses.replace(
            verdict,
            measures="of answers are the same streamed and unstreamed",
            requests=ways.requests(asked),
            details=(*_different(engine.name, comparable, read), *pardon, *unknown),
            differing=tuple(
                Difference(
                    case=case.id,
                    what=explain.plain(read[case.id].why, 120),
                    candidate_sha256=digest(read[case.id].text) if read[case.id].text else None,
                )
                for case in comparable
                if not read[case.id].same
            ),
        )
        stopped = evidence.incomplete or "" if len(asked) < len(cases) else ""
        missing = Missing(
            of=len(asked) - len(forgiven),
            used=len(comparable),
            reasons=(*pardon, *unknown),
            stopped=stopped,
            sequential=evidence.sequential,
        )
        done = share_judged(
            verdict,
            evidence,
            kept,
            at_least=self.rate,
            cases=comparable,
            about=asked,
            missing=missing,
            remarks=pardon,
        )
        if done.outcome is Outcome.PASS and len(forgiven) > len(comparable):
            reason = f"{pardon[0]}: too much to say that streaming changes nothing"
            done = dataclasses.replace(done, outcome=Outcome.INCONCLUSIVE, reason=reason, needed=None, advice="")
        return done

    def _silent(
        self, verdict: Verdict, evidence: Evidence, engine: EngineEvidence, ways: _Ways, asked: Sequence[Case]
    ) -> Verdict:
        """Return the verdict on an engine that answered no prompt either way."""
        for case in asked:
            if failed := ways.failure(case.id):
                reason = f"no answer at all; first: {failed}"
                return dataclasses.replace(verdict, outcome=Outcome.ERROR, reason=reason)
        if evidence.sequential:
            return nothing_yet(verdict, evidence, "no prompt was asked both ways", engine)
        outcome = Outcome.ERROR if evidence.incomplete is None else Outcome.INCONCLUSIVE
        return dataclasses.replace(verdict, outcome=outcome, reason=evidence.incomplete or "no answer was gathered")

    def _held(self, ways: _Ways, case: str) -> _Held:
        """Hold the answers to one prompt against each other, both ways."""
        streams, wholes = ways.answers(case)
        if not streams or not wholes:
            if not (streams or wholes):
                return _Held(failed=True, why=ways.failure(case))
            lost = "unstreamed" if streams else "streamed"
            answered = "streamed" if streams else "unstreamed"
            why = f"answered {answered}, no answer {lost}: {ways.failure(case)}"
            return _Held(same=False, why=why, parts=("no answer",), text=in_words((streams or wholes)[0]))
        ours, theirs = streams[0], wholes[0]
        if no_evidence(ours.conversation[0], theirs.conversation[0]):
            return _Held(silent={"the stream": ours, "the whole answer": theirs})
        if any(self._parts(first, again) for first, again in ((ours, streams[-1]), (theirs, wholes[-1]))):
            return _Held(unrepeated=True)
        parts = self._parts(ours, theirs)
        if not parts and not any(map(self._says, (*ours.conversation, *theirs.conversation))):
            return _Held(hidden=True)
        turn, ours, theirs = self._turn(ours, theirs)
        why = "; ".join(_words(part, ours, theirs) for part in parts)
        why = f"turn {turn}: {why}" if why and turn else why
        return _Held(same=not parts, why=why, parts=parts, text=in_words(ours))

    def _says(self, answer: Completion) -> bool:
        """Whether an answer has text or a call that counts."""
        text = "content" not in self.ignore and bool(answer.text.strip())
        return text or ("calls" not in self.ignore and bool(answer.tool_calls))

    def _turn(self, ours: Completion, theirs: Completion) -> tuple[int, Completion, Completion]:
        """Return the first turn of two conversations that differs in what counts, else the last; 0 of other answers."""
        if not (ours.turns or theirs.turns):
            return 0, ours, theirs
        both = list(zip(ours.conversation, theirs.conversation, strict=False))
        place = next((at for at, pair in enumerate(both) if self._parts_of_turn(*pair)), len(both) - 1)
        return place + 1, *both[place]

    def _parts(self, ours: Completion, theirs: Completion) -> tuple[str, ...]:
        """Return what two answers differ in, of what counts; of conversations in the first turn that differs."""
        return self._parts_of_turn(*self._turn(ours, theirs)[1:])

    def _parts_of_turn(self, ours: Completion, theirs: Completion) -> tuple[str, ...]:
        alike = {
            "content": ours.text == theirs.text,
            "calls": same_calls(ours.tool_calls, theirs.tool_calls),
            "finish": ours.finish_reason == theirs.finish_reason,
            "usage": _usage(ours) == _usage(theirs),
        }
        return tuple(part for part in PARTS if part not in self.ignore and not alike[part])


def ignored(parts: Sequence[str]) -> tuple[str, ...]:
    """Return what of an answer is not compared; ``DesignError`` for another word, and where nothing would be left."""
    left = tuple(parts) if isinstance(parts, (list, tuple)) else (parts,)
    if unknown := [part for part in left if part not in PARTS]:
        raise DesignError(f"stream(ignore={parts!r}): {unknown[0]!r} is none of {', '.join(PARTS)}")
    if "content" in left and "calls" in left:
        raise DesignError(f"stream(ignore={parts!r}): without content and calls nothing of an answer is compared")
    return tuple(str(part) for part in left)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """What became of one prompt: ``same`` is ``None`` where its answers say nothing of each other.

    ``parts`` is what differs and ``why`` says how. ``unrepeated``: the engine differs from itself. ``failed``: there is
    no answer either way. ``hidden``: all that they say is ignored. ``silent`` holds two answers of which one or both
    say nothing.
    """

    same: bool | None = None
    why: str = ""
    parts: tuple[str, ...] = ()
    text: str = ""
    unrepeated: bool = False
    failed: bool = False
    hidden: bool = False
    silent: Mapping[str, Completion] = field(default_factory=dict)


class _Ways:
    """What one engine answered streamed and unstreamed."""

    def __init__(self, engine: EngineEvidence, prompts: PromptSet) -> None:
        self._name = engine.name
        self._samples = engine.samples.get(Phase.MAIN, {})
        self.one_way = self._one_way([case.id for case in of_arm(prompts, STREAMED).cases])
        """Why the engine cannot be asked both ways, empty where it can."""

    def asked(self, case: str) -> bool:
        """Whether a case was asked both ways."""
        return bool(self._samples.get(case)) and bool(self._samples.get(unstreamed(case)))

    def answered(self, case: str) -> bool:
        """Whether there is any answer to a case."""
        return any(self.answers(case))

    def answers(self, case: str) -> tuple[list[Completion], list[Completion]]:
        """Return the answers to a case streamed and unstreamed; none of a way whose first request failed."""
        return _answers(self._samples.get(case, ())), _answers(self._samples.get(unstreamed(case), ()))

    def failure(self, case: str) -> str:
        """Return the first failure of a case in words, empty where there is none."""
        for id in (case, unstreamed(case)):
            for sample in self._samples.get(id, ()):
                if sample.failure is not None:
                    return describe(self._name, id, sample.failure)
        return ""

    def requests(self, cases: Sequence[Case]) -> int:
        """Return how many answers there are to these cases, both ways."""
        return sum(len(self._samples.get(id, ())) for case in cases for id in (case.id, unstreamed(case.id)))

    def _one_way(self, cases: Sequence[str]) -> str:
        ways = {"streamed": cases, "unstreamed": [unstreamed(case) for case in cases]}
        for way, other in (("streamed", "unstreamed"), ("unstreamed", "streamed")):
            failed = [sample for id in ways[way] for sample in self._samples.get(id, ())[:1] if sample.failure]
            answered = any(_answers(self._samples.get(id, ())) for id in ways[way])
            answers_otherwise = any(_answers(self._samples.get(id, ())) for id in ways[other])
            refused = [sample for sample in failed if sample.failure and sample.failure.kind in _REFUSED]
            if failed and not answered and answers_otherwise and len(refused) == len(failed):
                first = refused[0]
                assert first.failure is not None
                return f"it answers no prompt {way}; first: {describe(self._name, first.case, first.failure)}"
        if self._streams(ways["streamed"]) is False:
            return f"{self._name} answers whole where it is asked for a stream, so there are no streams to compare"
        if self._streams(ways["unstreamed"]):
            return f"{self._name} streams where it is asked for a whole answer, so there is none to compare"
        return ""

    def _streams(self, cases: Sequence[str]) -> bool | None:
        """Whether answers to these cases came as streams, ``None`` where nothing tells: a retried one has no times."""
        events = [
            sample.timing.token_events
            for case in cases
            for sample in self._samples.get(case, ())
            if sample.timing is not None and sample.completion is not None and in_words(sample.completion).strip()
        ]
        return any(events) if events else None


def _answers(samples: Sequence[Sample]) -> list[Completion]:
    """Return the answers of one way; a first request that failed makes all of them worth nothing."""
    if not samples or samples[0].completion is None:
        return []
    return [sample.completion for sample in samples if sample.completion is not None]


def _usage(answer: Completion) -> list[int | None]:
    return [getattr(answer, name) for name in _COUNTS]


def _words(part: str, ours: Completion, theirs: Completion) -> str:
    """Say how two answers differ in one part."""
    if part == "content":
        at = next((i for i, (a, b) in enumerate(zip(ours.text, theirs.text, strict=False)) if a != b), None)
        at = min(len(ours.text), len(theirs.text)) if at is None else at
        pieces = [explain.quote(answer.text[at : at + _CONTEXT], _CONTEXT) for answer in (ours, theirs)]
        return f"content parts at character {at}: {pieces[0]} streamed, {pieces[1]} unstreamed"
    if part == "calls":
        called = [
            ", ".join(f"{call.name}({call.arguments})" for call in answer.tool_calls) or "no tool"
            for answer in (ours, theirs)
        ]
        return f"calls {explain.plain(called[0], 60)} streamed, {explain.plain(called[1], 60)} unstreamed"
    if part == "finish":
        reasons = [explain.plain(answer.finish_reason, 40) or "none" for answer in (ours, theirs)]
        return f"finish reason {reasons[0]} streamed, {reasons[1]} unstreamed"
    counts = [
        f"{name.replace('_', ' ')} {'none' if a is None else a} streamed, {'none' if b is None else b} unstreamed"
        for name, a, b in zip(_COUNTS, _usage(ours), _usage(theirs), strict=True)
        if a != b
    ]
    return ", ".join(counts)


def _pardon(engine: str, forgiven: Sequence[Case], asked: Sequence[Case]) -> tuple[str, ...]:
    """Say which prompts are forgiven."""
    if not forgiven:
        return ()
    return (
        f"{len(forgiven)} of {explain.count(len(asked), 'prompt')} forgiven, because {engine} answers differently when "
        f"it is asked again the same way; first: {explain.plain(forgiven[0].id, 40)}",
    )


def _different(engine: str, comparable: Sequence[Case], read: Mapping[str, _Held]) -> list[str]:
    """Count the answers that are not the same by what differs, and show the first."""
    bad = [case.id for case in comparable if not read[case.id].same]
    if not bad:
        return []
    counts = Counter(part for case in bad for part in read[case].parts)
    shown = ", ".join(f"{_WORDS.get(part, part)} {count}" for part, count in counts.most_common())
    return [
        f"of {explain.count(len(comparable), 'answer')} of {engine}, not the same streamed and unstreamed: {shown}",
        f"first: {explain.plain(bad[0], 40)}: {explain.plain(read[bad[0]].why, 160)}",
    ]
