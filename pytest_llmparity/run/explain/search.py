"""Looks for what causes one verdict's drift: what takes it away, and what brings it back."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pytest_llmparity.core.compare.calls import with_calls
from pytest_llmparity.core.compare.shift import SAME, Logprobs, find_shift, shape_of
from pytest_llmparity.core.diagnosis import removals
from pytest_llmparity.core.diagnosis.effects import (
    ALPHA,
    NOTHING,
    Answers,
    Drift,
    Effect,
    drift_of,
    effect,
    evidence_of,
)
from pytest_llmparity.core.diagnosis.layers import response_schema
from pytest_llmparity.core.diagnosis.removals import COMPARED, REMOVALS
from pytest_llmparity.core.errors import LLMParityError, reason_of
from pytest_llmparity.core.evidence import Check, Evidence
from pytest_llmparity.core.identity.spelling import acting
from pytest_llmparity.core.sample import Completion, Phase, Request, Sample
from pytest_llmparity.core.verdict import Cause, Experiment, Explanation
from pytest_llmparity.core.words import explain
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.explain import UNSHOWN, UNSURE, VANISHED, WITHIN, next_tokens
from pytest_llmparity.run.explain.asking import Pair, Spent
from pytest_llmparity.run.explain.constraint import Unconstrained
from pytest_llmparity.run.explain.naming import Naming
from pytest_llmparity.run.explain.same_file import SameFile

SUSPECTS: Final = 2
"""Removals that are tried one by one before it is looked which of them all bring the drift back."""
STEEPER: Final = 0.05
"""How far the slope of the candidate's leads lies from 1 where logprobs are of another temperature (up to 0.005 where
they are not)."""
OF_SEEN: Final = 3.0
"""Times as far as other tokens those move that stood in the answer before, where a penalty on repetition is in them."""
REASONED: Final = {removals.TAGS, removals.REASONING}
"""Two ways to take the same away: one of them put back alone shows nothing."""
TRIMS: Final = {removals.LENGTH, removals.STOP}
"""Removals that leave less of prompts or answers: drift of any cause may be less in less, so none of them shows it by
itself. They are causes where the drift comes back with them alone."""
AGAIN: Final = "the same prompts asked again, nothing changed"
FIRST: Final = "each prompt asked for the first time, behind a number, against the same asked again"
SAME_ENGINE: Final = "the candidate's file served by the baseline's engine, against the baseline"
SAME_FILE: Final = "the candidate against its own file served by the baseline's engine"
BESIDE: Final = "everything else, where no schema forces answers"


@dataclass(kw_only=True)
class Search:
    """One verdict's drift on the cases of a pair: the experiments made on it, and what they showed.

    ``within``: the verdict does not fail, so that less drift than its margin is no news. ``accepting`` says how other
    weights are accepted, empty where nothing has to be.
    """

    pair: Pair
    check: Check
    kind: str
    evidence: Evidence
    noise: float = 0.0
    within: bool = False
    accepting: str = ""
    same_file: SameFile | None = None
    _experiments: list[Experiment] = field(default_factory=list, init=False)
    _began: int = field(default=0, init=False)
    _suspected: frozenset[str] = field(default=frozenset(), init=False)

    def explain(self) -> Explanation:
        """Return what experiments show of the cause; they make never more requests than are allowed."""
        self._began = began = self.pair.spent
        causes: tuple[Cause, ...] = ()
        try:
            note, causes = self._search()
        except Spent as spent:
            note = f"experiments ended before a cause was shown: {spent}"
        except Exception as error:  # noqa: BLE001 - a verdict stands whatever an experiment stumbles over
            why = error if isinstance(error, LLMParityError) else reason_of(error, self.pair.candidate.name)
            note = f"experiments ended early: {why}"
        return Explanation(
            experiments=tuple(self._experiments), causes=causes, requests=self.pair.spent - began, note=note
        )

    def _search(self) -> tuple[str, tuple[Cause, ...]]:
        """Return what is to be said beside the causes, and the causes."""
        control = self._drift(())
        if control is None:
            return "the prompts asked again have no answers to compare", ()
        self._write_down(AGAIN, None, control, outcome="stays" if control.above or self.within else "gone")
        if not control.above:
            return WITHIN if self.within else VANISHED, ()
        self._learn()
        naming = Naming(self.pair, self.evidence, self._shown, accepting=self.accepting)
        possible = list(self._possible())
        less: list[str] = []
        for name in [name for name in possible if name in COMPARED]:
            tried = self._tried(control, {name})
            if tried.gone:
                return "", naming.named([name])
            less += [name] * tried.less
        everything = self._drift(possible)
        asked = [name for name in possible if name not in COMPARED]
        if everything is None:
            return "with everything made equal at once there are no answers to compare", ()
        whole = effect(control, everything)
        words = "; ".join(REMOVALS[name] for name in asked)
        self._write_down(words, control, everything, outcome=whole.outcome, test=whole)
        if not whole.gone and not whole.less:
            if not everything.above:
                groups = explain.count(whole.groups, "group")
                return UNSURE.format(groups=groups), ()
            tokens = {*possible, removals.TOKENS} - set(COMPARED)
            apart = naming.counts_apart(possible) and self._can_take_tokens()
            if apart and self._tried(control, tokens).gone:
                return "", naming.named([removals.TOKENS])
            unread = naming.unread(tokens if apart and self._drift(tokens) is not None else possible)
            remaining = self._remaining(naming, possible, everything, unread=unread)
            return "" if remaining else unread or UNSHOWN, remaining
        causes = self._single(control, everything, whole, asked, less)
        if not causes:
            causes = [*less, *self._back(everything, possible, gone=whole.gone)]
        named = naming.named(list(dict.fromkeys(causes)))
        if not whole.gone:
            known, unread = removals.CACHE in causes, naming.unread(possible)
            named = (*named, *self._remaining(naming, possible, everything, known=known, unread=unread))
        if not named:
            return "with all of it made equal the drift is gone; which of it does that was not shown", ()
        return "", named

    def _remaining(
        self, naming: Naming, possible: Sequence[str], everything: Drift, *, known: bool = False, unread: str = ""
    ) -> tuple[Cause, ...]:
        """Return what remains where the drift stays with all of that taken away, whose drift is ``everything``.

        The constraint of a schema, a prompt cache that no field turns off, else what is excluded. ``known``: that it is
        a prompt cache was shown already. ``unread`` says why both may still read different prompts: then nothing is.
        """
        causes, but = tuple[Cause, ...](), list[str]()
        if removals.ORDER in possible:
            free = Unconstrained(self.pair, possible)
            forced = self._forced(free, everything)
            if forced is not None and (forced.gone or forced.less):
                causes = (free.cause(gone=forced.gone), *naming.named(self._beside(free)))
                if forced.gone:
                    return causes
            but += ["the constraint of the schema"] if free.why else []
        who = "" if known else self._cache_suspected()
        if who:
            again = self._again()
            if again is not None and (again.gone or again.less):
                causes = (*causes, naming.of_cache(who))
                if again.gone:
                    return causes
            elif again is None or not again.before:
                but.append(f"the prompt cache of {who}")
        but += [f"the samplers of {name}" for name in naming.samplers_left()]
        remaining = naming.remaining(possible, but=but)
        if not remaining or unread:
            return causes
        shown, all_of_it = self._by_file(naming, possible, everything)
        if all_of_it:
            return (*causes, *shown)
        return (*causes, *shown, *(remaining if shown else self._by_next_tokens(naming, remaining)))

    def _by_next_tokens(self, naming: Naming, remaining: tuple[Cause, ...]) -> tuple[Cause, ...]:
        """Return what remains, with how far next tokens move where both engines read the same text."""
        words = next_tokens.READ.format(places=next_tokens.PLACES)
        why, measured = next_tokens.untold(self.pair), None
        try:
            measured = None if why else next_tokens.read(self.pair)
        except Spent as spent:  # what is excluded is told all the same
            why = str(spent)
        if measured is None:
            self._write_down(words, None, None, outcome="not tried", why=why or "there are no next tokens to compare")
            return remaining
        self._write_down(words, None, None, outcome="measured", why=naming.moved(measured), n=measured.prompts)
        return tuple(naming.narrowed(cause, measured) for cause in remaining)

    def _by_file(self, naming: Naming, possible: Sequence[str], everything: Drift) -> tuple[tuple[Cause, ...], bool]:
        """Tell weights from engine by the candidate's file on the baseline's engine; nothing where that cannot be.

        Also returned is whether the causes are all of it, or something remains beside them.
        """
        same, (baseline, candidate) = self.same_file, self.pair.adapters
        if same is None:
            return (), False
        try:
            answers, why = same.answers(self.pair, possible), same.why
        except Spent as spent:  # what is excluded is told all the same
            answers, why = None, str(spent)
        if answers is None:
            self._write_down(SAME_FILE, everything, None, outcome="not tried", why=why)
            return (), False
        both = self.pair.answers(possible)
        of_weights = self._of({baseline.name: both[baseline.name], candidate.name: answers})
        of_engine = self._of({baseline.name: answers, candidate.name: both[candidate.name]})
        if of_weights is None or of_engine is None:
            self._write_down(SAME_FILE, everything, None, outcome="not tried", why="there are no answers to compare")
            return (), False
        engine, weights = effect(everything, of_weights), effect(everything, of_engine)
        self._write_down(SAME_ENGINE, everything, of_weights, outcome=engine.outcome, test=engine)
        self._write_down(SAME_FILE, everything, of_engine, outcome=weights.outcome, test=weights)
        causes, either = [], weights.gone != engine.gone  # where each alone brings it below the margin neither is all
        if weights.gone or weights.less:
            causes.append(naming.of_weights(same, gone=weights.gone and either))
        if engine.gone or engine.less:
            causes.append(naming.of_engine(same, gone=engine.gone and either))
        return tuple(causes), weights.gone or engine.gone

    def _forced(self, free: Unconstrained, everything: Drift) -> Effect | None:
        """Ask both engines without the constraint of the schema: is the drift there all the same?"""
        after = self._of(free.find())
        words = REMOVALS[free.way]
        if free.why or after is None:
            why = free.why or "there are no answers to compare"
            self._write_down(words, everything, None, outcome="not tried", why=why)
            return None
        result = effect(everything, after)
        self._write_down(words, everything, after, outcome=result.outcome, test=result)
        return result

    def _beside(self, free: Unconstrained) -> list[str]:
        """Return by name what drifts beside a constraint: what brings drift back where no schema forces anything."""
        alone, everything = self._of(free.answers(())), self._of(free.answers(free.others))
        if alone is None or everything is None:
            return []
        result = effect(alone, everything)
        self._write_down(BESIDE, alone, everything, outcome=result.outcome, test=result)
        if not (result.gone or result.less):
            return []
        causes: list[str] = []
        for name in (name for name in REMOVALS if name in free.others):
            without = self._of(free.answers(free.others - {name}))
            if without is None:
                continue
            test = effect(without, everything)
            if test.less or (test.p <= ALPHA and without.above):
                self._write_down(REMOVALS[name], everything, without, outcome="back", test=test)
                causes.append(name)
        return causes

    def _again(self) -> Effect | None:
        """Ask what nobody was asked before, and the very same again: is there drift the second time only?"""
        first, again = self.pair.first_and_again()
        cold, warm = self._of(first), self._of(again)
        if cold is None or warm is None:
            return None
        result = effect(warm, cold)
        self._write_down(FIRST, warm, cold, outcome=result.outcome, test=result)
        return result

    def _cache_suspected(self) -> str:
        """Return the engine that answered otherwise to what it was asked again, one request at a time both times.

        That with most such answers, an empty text where there is none.
        """
        engines = [self.evidence.engines[adapter.name] for adapter in reversed(self.pair.adapters)]
        changed = {e.name: self._otherwise(e.answers(Phase.COLD), e.answers(Phase.WARM)) for e in engines}
        most = max(changed, key=lambda name: changed[name])
        return most if changed[most] else ""

    def _otherwise(self, cold: Mapping[str, Completion], warm: Mapping[str, Completion]) -> int:
        """Return how many answers to the same requests differ, in text or by more than noise in their logprobs."""
        at_most = self.noise if self.kind == "logprobs" else NOTHING  # other noise is not counted in nats
        return sum(_apart(cold[case], warm[case], at_most=at_most) for case in cold.keys() & warm.keys())

    def _single(
        self, control: Drift, everything: Drift, whole: Effect, asked: Sequence[str], less: list[str]
    ) -> list[str]:
        """Return the one removal after which nothing is left to explain, if one of the most suspected is that.

        Those after which there is less are added to ``less``.
        """
        for name in [name for name in asked if name not in TRIMS][:SUSPECTS]:
            tried = self._tried(control, {name})
            if tried.gone:
                return [name]
            less += [name] * tried.less
            left = self._drift({name})
            # All the others together take no more away.
            if not whole.gone and tried.less and left is not None and effect(left, everything, tries=1).p > ALPHA:
                return [name]
        return []

    def _back(self, everything: Drift, possible: Sequence[str], *, gone: bool) -> list[str]:
        """Return what brings the drift back when it alone is put back; what is not suspected is put back together."""
        groups = [REASONED & set(possible), *({name} for name in possible if name not in REASONED)]
        suspected = [group for group in groups if group & self._suspected]
        others = set[str]().union(*(group for group in groups if not group & self._suspected))
        causes: list[str] = []
        for group in suspected:
            if self._brings_back(group, everything, possible, gone=gone):
                causes += group
        if others and self._brings_back(others, everything, possible, gone=gone):
            causes += [name for name in others if self._brings_back({name}, everything, possible, gone=gone)]
        return causes

    def _brings_back(self, group: set[str], everything: Drift, possible: Sequence[str], *, gone: bool) -> bool:
        without = self._drift([name for name in possible if name not in group])
        if without is None or not group:
            return False
        change = effect(without, everything)  # from "it is back" to "everything is taken away"
        back = change.less or (gone and change.p <= ALPHA and without.above)
        words = "; ".join(words for name, words in REMOVALS.items() if name in group)
        self._write_down(words, everything, without, outcome="back" if back else "stays away", test=change)
        return back

    def _tried(self, control: Drift, removed: set[str]) -> Effect:
        after = self._drift(removed)
        words = "; ".join(words for name, words in REMOVALS.items() if name in removed)
        if after is None:
            self._write_down(words, control, None, outcome="not tried", why="there are no answers to compare")
            return Effect(before=None, after=None, n=0, groups=0, p=1.0, gone=False, less=False)
        result = effect(control, after)
        self._write_down(words, control, after, outcome=result.outcome, test=result)
        return result

    def _shown(self, words: str, answers: Answers, others: Collection[str]) -> bool:
        """Whether the drift goes away with these answers in place of the pair's, ``others`` taken away in both."""
        before, after = self._drift(tuple(others)), self._of(answers)
        if before is None or after is None:
            return False
        result = effect(before, after)
        self._write_down(words, before, after, outcome=result.outcome, test=result)
        return result.gone or result.less

    def _drift(self, removed: Collection[str]) -> Drift | None:
        return self._of(self.pair.answers(frozenset(removed)))

    def _of(self, answers: Answers) -> Drift | None:
        evidence = evidence_of(self.evidence, self.pair.candidate.name, self.pair.cases, answers)
        return drift_of(self.check, self.kind, evidence, noise=self.noise)

    def _write_down(
        self,
        removed: str,
        before: Drift | None,
        after: Drift | None,
        *,
        outcome: str,
        test: Effect | None = None,
        why: str = "",
        n: int = 0,
    ) -> None:
        """Write an experiment down, with what was sent since the one before."""
        spent = self.pair.spent
        self._experiments.append(
            Experiment(
                removed=removed,
                outcome=outcome,
                before=None if before is None else before.verdict.estimate,
                after=None if after is None else after.verdict.estimate,
                n=test.n if test is not None else n if after is None else len(after.by_case),
                groups=0 if test is None else test.groups,
                p=None if test is None else test.p,
                requests=spent - self._began,
                why=why,
            )
        )
        self._began = spent

    def _learn(self) -> None:
        """Take from the answers to the unchanged prompts what experiments need to know of each case."""
        answers = self.pair.answers(())
        ours, theirs = (_completions(answers[adapter.name]) for adapter in self.pair.adapters)
        alike = [
            _length(self.pair.requests[case])
            for case in ours
            if case in theirs and ours[case].prompt_tokens == theirs[case].prompt_tokens
        ]
        for case in self.pair.cases:
            answer = ours.get(case.id)
            tokens = None
            if answer is not None and answer.completion_tokens:
                tokens = answer.completion_tokens - (answer.finish_reason == "stop")
            self.pair.known[case.id] = dataclasses.replace(
                self.pair.known[case.id],
                tokens=tokens,
                keys=removals.keys_of(theirs.get(case.id)),
                characters=max(alike) if alike else None,
            )

    def _possible(self) -> Iterator[str]:
        """Yield what can be taken away from this pair and may matter, the most suspected first."""
        answers = self.pair.answers(())
        ours, theirs = (_completions(answers[adapter.name]) for adapter in self.pair.adapters)
        both = [(ours[case], theirs[case]) for case in ours if case in theirs]
        signs = _Signs(both)
        adapters = self.pair.adapters
        schemas = any(response_schema(case) is not None for case in self.pair.cases)
        can: Mapping[str, bool] = {
            removals.SPACES: signs.spaces,
            removals.CALLS: signs.calls,
            removals.TAGS: signs.tags,
            removals.STOP: signs.ends and self.kind in ("text", "logprobs"),  # a contract cannot hold for a part
            removals.SCHEMA: schemas and all(adapter.schema_field for adapter in adapters),
            removals.ORDER: schemas,
            # Only an engine that has a field of its own for schemas takes one beside a raw prompt.
            removals.PROMPT: self._renders()
            and all(adapter.can.raw_prompt is not False for adapter in adapters)
            and not (schemas and not all(adapter.schema_field for adapter in adapters)),
            removals.LENGTH: signs.cut,
            removals.SAMPLING: all("top_k" in adapter.fields for adapter in adapters),
            removals.PENALTIES: any(adapter.unpenalised for adapter in adapters),
            removals.DEFAULTS: any(adapter.unsampled for adapter in adapters),
            removals.REASONING: signs.reasons and any(adapter.unreasoning for adapter in adapters),
            removals.STREAM: any(adapter.counts_in_streams for adapter in adapters),
            removals.CACHE: any(not adapter.uncached().items() <= adapter.constants.items() for adapter in adapters),
            removals.ALONE: self.pair.concurrency > 1,
        }
        told = any(acting(self.evidence.engines[adapter.name].identity) for adapter in adapters)
        suspected: Mapping[str, bool] = {
            removals.ORDER: schemas,
            removals.SCHEMA: schemas,
            removals.STOP: signs.ends,
            removals.REASONING: signs.reasons,
            removals.CALLS: signs.calls,
            removals.TAGS: signs.tags,
            removals.SPACES: signs.spaces,
            removals.PROMPT: signs.counts,
            removals.LENGTH: signs.cut,
            removals.SAMPLING: signs.sampler or signs.steeper,
            removals.PENALTIES: signs.sampler or signs.repeats,
            removals.DEFAULTS: told or signs.sampler or signs.repeats,
            removals.CACHE: bool(self._cache_suspected()),
        }
        order = sorted(can, key=lambda name: name != removals.PENALTIES) if signs.repeats else list(can)
        if told:
            order.sort(key=lambda name: name != removals.DEFAULTS)
        if suspected[removals.CACHE]:  # an engine that differs from itself says more than how two differ
            order.sort(key=lambda name: name != removals.CACHE)
        self._suspected = frozenset(name for name in can if can[name] and suspected.get(name, False))
        yield from sorted(
            (name for name in can if can[name]), key=lambda name: (not suspected.get(name, False), order.index(name))
        )

    def _can_take_tokens(self) -> bool:
        """Whether both engines are of kinds that tell a prompt's tokens and take them."""
        return all(type(adapter).tokens is not Adapter.tokens for adapter in self.pair.adapters)

    def _renders(self) -> bool:
        chats = (request for request in self.pair.requests.values() if request.messages is not None)
        chat = next((request for request in chats if not request.tools), None)  # no raw prompt has tools
        return chat is not None and bool(self.pair.render(chat))


class _Signs:
    """What two engines' answers to unchanged prompts make suspicious."""

    def __init__(self, both: Sequence[tuple[Completion, Completion]]) -> None:
        self.spaces = any(a.text != b.text and a.text.strip() == b.text.strip() for a, b in both)
        self.tags = any(removals.begins_with_tag(a.text) != removals.begins_with_tag(b.text) for a, b in both)
        self.calls = any(bool(a.tool_calls) != bool(b.tool_calls) and _called(a) == _called(b) for a, b in both)
        bare = [(removals.compared(a, COMPARED), removals.compared(b, COMPARED)) for a, b in both]  # as if not tagged
        ended = [(a, b) if len(a.text) < len(b.text) else (b, a) for a, b in bare if a.text != b.text]
        self.ends = any(longer.text.startswith(shorter.text) and not shorter.cut for shorter, longer in ended)
        self.reasons = self.tags or any(bool(a.reasoning) != bool(b.reasoning) for a, b in both)
        counts = [(a.prompt_tokens, b.prompt_tokens) for a, b in both if a.prompt_tokens and b.prompt_tokens]
        self.counts = any(a != b for a, b in counts)
        self.cut = len({b - a for a, b in counts}) > 1
        self.sampler = any(Logprobs.of(answers).other for answers in ([a for a, _ in both], [b for _, b in both]))
        shape = shape_of(both)
        slope, seen, unseen = (None, None, None) if shape is None else (shape.slope, shape.seen, shape.unseen)
        self.steeper = slope is not None and abs(slope - 1.0) > STEEPER
        self.repeats = seen is not None and unseen is not None and seen > OF_SEEN * max(unseen, SAME)


def _length(request: Request) -> int:
    """Return how long the last message of a chat, or a raw prompt, is in characters."""
    text = request.prompt if request.messages is None else request.messages[-1].get("content")
    return len(text) if isinstance(text, str) else 0


def _apart(cold: Completion, warm: Completion, *, at_most: float) -> bool:
    shift = find_shift(cold, warm)
    return cold.text != warm.text or (shift is not None and shift.most > max(at_most, SAME))


def _called(answer: Completion) -> bool:
    """Whether an answer calls tools, as calls or in its text."""
    return bool(with_calls(answer).tool_calls)


def _completions(samples: Mapping[str, Sample]) -> dict[str, Completion]:
    return {case: sample.completion for case, sample in samples.items() if sample.completion is not None}
