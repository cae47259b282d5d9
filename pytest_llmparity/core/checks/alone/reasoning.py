"""Whether an engine reasons before it answers, and how long."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import msgspec

from pytest_llmparity.core.checks.arguments import KEPT, whole
from pytest_llmparity.core.checks.limits import LimitedCheck, nothing_yet, within
from pytest_llmparity.core.checks.missing import Missing, Silence, describe
from pytest_llmparity.core.checks.schema.contract import silent
from pytest_llmparity.core.checks.shares import share_judged
from pytest_llmparity.core.compare.answers import digest, speechless
from pytest_llmparity.core.compare.calls import in_words
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import EngineEvidence, Evidence
from pytest_llmparity.core.sample import MOVED, Completion
from pytest_llmparity.core.verdict import Difference, Outcome, Verdict
from pytest_llmparity.core.words import explain

PRESENT: Final = "reasoning.present"
TOKENS: Final = "reasoning.tokens"


class Thought(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer reasoned. ``tokens`` is ``None`` where nobody can say; ``counted``: the server said it.

    ``moved``: it stood in the text, between tags. ``failure`` says why there is no answer.
    """

    reasons: bool = False
    tokens: int | None = None
    counted: bool = False
    moved: bool = False
    cut: bool = False
    speechless: bool = False
    answer: Completion | None = None
    failure: str = ""

    @property
    def answered(self) -> bool:
        """Whether there is an answer."""
        return self.answer is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningCheck(LimitedCheck):
    """Holds what an engine reasons against what is wanted of it: whether it does, and at most so many tokens.

    Made by ``check.reasoning()``. Reasoning is one channel, however a server spells it (``reasoning``,
    ``reasoning_content``, ``thinking``, tags in the text, a count of hidden tokens), and its words are never compared.
    Each of these that is set gives verdicts of its own kind, on each engine by itself (Clopper-Pearson):

    - ``reasoning.present``: the share of answers that reason, or with ``present=False`` of those that do not, is at
      least ``rate``.
    - ``reasoning.tokens``: the share of answers with at most ``most_tokens`` tokens of reasoning is at least ``rate``.

    Where a server does not count the tokens of its reasoning they are estimated: of the tokens of its answer as large
    a share as reasoning is of its characters. A failed request counts as wrong, and so does an answer that says nothing
    at all; one that its token limit cut in the reasoning may have gone on, and says nothing of its length.
    """

    kind: ClassVar[str] = "reasoning"
    present: bool | None = None
    most_tokens: int | None = None
    rate: float = KEPT

    @property
    def pairwise(self) -> bool:
        """It is about each engine by itself."""
        return False

    def __str__(self) -> str:
        given = [f"present={self.present}"] if self.present is not None else []
        given += [f"most_tokens={self.most_tokens}"] if self.most_tokens is not None else []
        given += [f"rate={self.rate:g}"] if self.rate != KEPT else []
        given += [f'by="{self.by}"'] if self.by else []
        return f"reasoning({', '.join(given)})"

    def limits(self) -> dict[str, float]:
        """Return the one share that is asked for."""
        return {"rate": self.rate}

    def verdicts(self, evidence: Evidence) -> Iterable[Verdict]:
        """Return the verdicts of what is set, on every engine."""
        thoughts = {name: _thoughts(engine) for name, engine in evidence.engines.items()}
        for kind, wanted in ((PRESENT, self.present), (TOKENS, self.most_tokens)):
            if wanted is not None:
                yield from self.by_limit(evidence, functools.partial(self._of_kind, kind, thoughts))

    def _of_kind(
        self, kind: str, thoughts: Mapping[str, Mapping[str, Thought]], _: str, evidence: Evidence
    ) -> Iterable[Verdict]:
        some = within(evidence, thoughts)
        return self.each_engine(
            evidence, kind, lambda opened, engine: self._of_engine(opened, evidence, engine, some[engine.name])
        )

    def _of_engine(
        self, verdict: Verdict, evidence: Evidence, engine: EngineEvidence, thoughts: Mapping[str, Thought]
    ) -> Verdict:
        if not thoughts and evidence.sequential:
            return nothing_yet(verdict, evidence, "no prompt was asked", engine)
        if (refused := silent(verdict, engine, thoughts, evidence)) is not None:
            return refused
        lasting = verdict.kind == TOKENS
        cases = evidence.prompts.cases
        asked = [case for case in cases if case.id in thoughts]
        hold = self._too_long if lasting else self._present
        held = {case.id: hold(thoughts[case.id]) for case in asked}
        known = [case for case in asked if held[case.id] is not None]
        wrong = {case.id: why for case in known if (why := held[case.id])}
        kept = [case.id not in wrong for case in known]
        silence = Silence()
        uncounted = 0
        for case in asked:
            if held[case.id] is None and (answer := thoughts[case.id].answer) is not None:
                if thoughts[case.id].cut:
                    silence.add({engine.name: answer})
                else:
                    uncounted += 1
        unknown = list(silence.limits())
        if uncounted:
            unknown.append(f"{engine.name} says of {explain.count(uncounted, 'answer')} not how many tokens it has")
        verdict = dataclasses.replace(
            verdict,
            measures=self._measures(lasting),
            requests=len(asked),
            details=(*_first(engine.name, known, wrong), *_seen(engine.name, asked, thoughts), *unknown),
            differing=tuple(
                Difference(
                    case=case,
                    what=explain.plain(why, 120),
                    candidate_sha256=digest(in_words(answer)) if (answer := thoughts[case].answer) else None,
                )
                for case, why in wrong.items()
            ),
        )
        unasked = len(cases) - len(engine.left_out) - len(asked)
        missing = Missing(
            of=len(asked),
            used=len(known),
            reasons=tuple(unknown),
            stopped=evidence.incomplete or "" if unasked > 0 else "",
            sequential=evidence.sequential,
        )
        estimated = sum(each.reasons and not each.counted for each in thoughts.values()) if lasting else 0
        remarks = []
        if estimated:
            remarks.append(
                f"the tokens of the reasoning in {explain.count(estimated, 'answer')} of {engine.name} are estimated "
                "by its share of the characters, because the server does not count them"
            )
        done = share_judged(
            verdict,
            evidence,
            kept,
            at_least=self.rate,
            cases=known,
            about=asked,
            missing=missing,
            remarks=remarks,
        )
        if lasting and done.outcome is Outcome.PASS and not any(each.reasons for each in thoughts.values()):
            reason = f"no answer of {engine.name} reasons, so how long it reasons is not shown"
            done = dataclasses.replace(done, outcome=Outcome.INCONCLUSIVE, reason=reason, needed=None, advice="")
        return done

    def _measures(self, lasting: bool) -> str:
        if lasting:
            return f"of answers reason for at most {explain.count(self.most_tokens or 0, 'token')}"
        return "of answers reason" if self.present else "of answers do not reason"

    def _present(self, thought: Thought) -> str | None:
        """Say what is wrong with whether an answer reasons, empty where nothing is."""
        if thought.failure:
            return thought.failure
        if thought.speechless and not thought.reasons:
            return None if thought.cut else "says nothing at all"
        if thought.reasons == self.present:
            return ""
        return "does not reason" if self.present else f"reasons{_long(thought)}"

    def _too_long(self, thought: Thought) -> str | None:
        """Say what is wrong with how long an answer reasons, empty where nothing is; ``None``: nobody knows."""
        assert self.most_tokens is not None
        if thought.failure:
            return thought.failure
        if thought.speechless and not thought.reasons:
            return None if thought.cut else "says nothing at all"
        if thought.tokens is None:
            return None
        if thought.tokens > self.most_tokens:
            return f"reasons{_long(thought)}"
        return None if thought.cut and thought.speechless else ""


def refuse_arguments(present: object, most_tokens: object) -> None:
    """Raise ``DesignError`` for what asks nothing of reasoning, or what it cannot be asked."""
    if present is None and most_tokens is None:
        raise DesignError("reasoning() needs at least one of present=True, present=False and most_tokens=200")
    if present is not None and not isinstance(present, bool):
        raise DesignError(f"reasoning(present={present!r}): present is True or False")
    if most_tokens is not None and not whole(most_tokens):
        raise DesignError(f"reasoning(most_tokens={most_tokens!r}): most_tokens is a whole number from 1 up")
    if present is False and most_tokens is not None:
        raise DesignError("reasoning(present=False, most_tokens=…): what must not reason has no tokens to count")


def _thoughts(engine: EngineEvidence) -> dict[str, Thought]:
    """Return what each answer of an engine reasoned, and why there is none where it failed."""
    thoughts = {case: _thought(answer) for case, answer in engine.answers().items()}
    for case, failure in engine.failures().items():
        thoughts[case] = Thought(failure=f"no answer: {describe(engine.name, case, failure)}")
    return thoughts


def _thought(answer: Completion) -> Thought:
    """Return what an answer reasoned, in all turns of a conversation together."""
    if not answer.turns:
        return _thought_of_turn(answer)
    turns = [_thought_of_turn(turn) for turn in answer.conversation]
    counts = [turn.tokens for turn in turns if turn.tokens is not None]
    return Thought(
        reasons=any(turn.reasons for turn in turns),
        tokens=sum(counts) if len(counts) == len(turns) else None,
        counted=all(turn.counted for turn in turns if turn.reasons),
        moved=any(turn.moved for turn in turns),
        cut=answer.cut,
        speechless=False,
        answer=answer,
    )


def _thought_of_turn(answer: Completion) -> Thought:
    hidden = answer.reasoning_tokens or 0
    spoken = bool(answer.reasoning.strip())
    tokens: int | None = hidden
    if spoken and not hidden:
        spoken_length, length = len(answer.reasoning), len(answer.reasoning) + len(in_words(answer))
        tokens = None if answer.completion_tokens is None else round(answer.completion_tokens * spoken_length / length)
    return Thought(
        reasons=spoken or hidden > 0,
        tokens=tokens,
        counted=hidden > 0,
        moved=any(remark.endswith(MOVED) for remark in answer.normalised),
        cut=answer.cut,
        speechless=speechless(answer),
        answer=answer,
    )


def _long(thought: Thought) -> str:
    if thought.tokens is None:
        return ""
    return f" for {'' if thought.counted else 'about '}{explain.count(thought.tokens, 'token')}"


def _first(engine: str, known: Sequence[object], wrong: Mapping[str, str]) -> list[str]:
    """Count the answers that are not as wanted, and show the first."""
    for case, why in wrong.items():
        return [
            f"{len(wrong)} of {explain.count(len(known), 'answer')} of {engine} not as wanted; first: "
            f"{explain.plain(case, 40)}: {explain.plain(why, 120)}"
        ]
    return []


def _seen(engine: str, asked: Sequence[object], thoughts: Mapping[str, Thought]) -> list[str]:
    """Say in how many answers an engine reasons, how long, and how many left it in their text."""
    reasoning = [each for each in thoughts.values() if each.reasons]
    if not reasoning:
        return []
    line = f"{engine} reasons in {len(reasoning)} of {explain.count(len(asked), 'answer')}"
    known = sorted(each.tokens for each in reasoning if each.tokens is not None)
    if known:
        line += f", for {known[len(known) // 2]} tokens in the middle one and {known[-1]} in the longest"
    moved = sum(each.moved for each in reasoning)
    return [line, *([f"it stood in the text, between tags, in {moved} of them"] if moved else [])]
