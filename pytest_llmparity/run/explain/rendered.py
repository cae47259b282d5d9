"""What of a rendered prompt differs between two engines: the things are told apart that a raw prompt takes away."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Final

from pytest_llmparity.core.diagnosis import removals
from pytest_llmparity.core.diagnosis.counts import CountPair, offset_of_bare
from pytest_llmparity.core.diagnosis.effects import Answers
from pytest_llmparity.core.diagnosis.layers import with_system, without_system
from pytest_llmparity.core.diagnosis.removals import Asked
from pytest_llmparity.core.sample import Request, Sample
from pytest_llmparity.core.verdict import Cause
from pytest_llmparity.core.words import explain
from pytest_llmparity.run.explain import remedies
from pytest_llmparity.run.explain.asking import Pair, Spent, completion

Shown = Callable[[str, Answers, Collection[str]], bool]
"""Whether the drift goes away with answers in place of those of the pair; said in words what they are, and what else
is taken away."""
ENOUGH: Final = 5
"""Chats whose token counts tell that the newest messages of them arrived and nothing else."""
MOST_TURNS: Final = 8
"""Longest rest of a chat that is tried where an engine seems to drop its oldest turns."""
PROMPT: Final = "rendered prompt"


class RenderedPrompt:
    """Tells template, BOS token, system prompt and dropped turns apart. ``others`` are taken away besides."""

    def __init__(self, pair: Pair, shown: Shown, others: frozenset[str]) -> None:
        self._pair = pair
        self._shown = shown
        self._others = others

    def cause(self) -> Cause:
        """Return what of the prompt it is, or that it is the prompt where that was not found out."""
        candidate, baseline = self._pair.candidate, self._pair.baseline
        names = f"{candidate.name} and {baseline.name}"
        offsets = offsets_of(self._pair)
        cause: Cause | None = None
        with contextlib.suppress(Spent):  # that it is the prompt was shown, if not what of it
            cause = (
                self._template()
                or (self._bos() if set(offsets.values()) == {1} else None)
                or (self.turns(offsets) if min(offsets.values(), default=0) < 0 else None)
                or self._system(offsets)
                or self._stand_in(offsets)
            )
        return cause or Cause(
            layer=PROMPT,
            text=f"{names} make different prompts of the same chat{_counted(candidate.name, offsets)}: template, "
            "BOS token or hidden text, such as a system prompt",
            remedy=remedies.raw(candidate.name, baseline.name),
        )

    def _template(self) -> Cause | None:
        """Name the template where the baseline, given the prompt as the candidate renders it, answers like that one."""
        pair = self._pair
        other: dict[str, Asked] = {}
        differs: tuple[str, str] | None = None
        for case, request in pair.requests.items():
            ours, theirs = (pair.rendered(adapter, request) for adapter in pair.adapters)
            if ours is None or theirs is None:
                return None
            if ours == theirs and differs is None and len(other) >= 2:
                return None  # a few of them tell
            differs = differs or ((ours, theirs) if ours != theirs else None)
            if (raw := self._raw(case, request, theirs)) is not None:
                other[case] = raw
        if differs is None:
            return None
        answers = self._instead(other)
        if not self._shown(
            f"{pair.baseline.name} given the prompts as {pair.candidate.name} renders them", answers, self._others
        ):
            return None
        at = next((i for i, (a, b) in enumerate(zip(*differs, strict=False)) if a != b), min(map(len, differs)))
        begin = max(0, at - 10)
        shown = [explain.quote(text[begin : at + 30], 40) for text in differs]
        return Cause(
            layer="chat template",
            text=f"{pair.candidate.name} renders chats by another template: {shown[1]} where {pair.baseline.name} has "
            f"{shown[0]}",
            remedy=self._template_remedy(),
        )

    def _template_remedy(self) -> str:
        ours, theirs = self._pair.adapters
        file = f"{ours.name}.jinja"
        folder = "/path/to/" if theirs.ours else ""  # an engine of ours runs in a folder of its own
        flag = remedies.started(theirs, theirs.template_flag, folder + file)
        return f"{flag}, with {ours.template_place} on {ours.name} in {file}"

    def _bos(self) -> Cause | None:
        """Name a doubled BOS token where the baseline, given one more, answers like the candidate."""
        pair = self._pair
        token = pair.candidate.bos() or pair.baseline.bos()
        if not token:
            return None
        doubled = {}
        for case, request in pair.requests.items():
            rendered = pair.render(request)
            if rendered is not None and (raw := self._raw(case, request, token + rendered)) is not None:
                doubled[case] = raw
        answers = self._instead(doubled)
        if not self._shown(
            f"{pair.baseline.name} given one more BOS token ({explain.plain(token, 20)})", answers, self._others
        ):
            return None
        return Cause(
            layer="BOS",
            text=f"{pair.candidate.name} puts one more BOS token in front of every prompt",
            remedy=remedies.started(pair.candidate, "--override-kv", "tokenizer.ggml.add_bos_token=bool:false"),
        )

    def turns(self, offsets: Mapping[str, int]) -> Cause | None:
        """Return dropped turns as the cause where the baseline, asked the newest alone, answers as the candidate."""
        pair = self._pair
        control = pair.answers(())
        fewer = [case for case, offset in offsets.items() if offset < 0]
        for keep in range(1, MOST_TURNS):
            newest = {case: removals.newest(pair.requests[case], keep) for case in fewer}
            asked = {
                case: changed
                for case, request in newest.items()
                if request is not None
                and (changed := removals.apply(request, self._others, pair.known[case])) is not None
            }
            if not asked:
                return None
            first = next(iter(asked))
            if tokens(pair.ask_once(pair.baseline, {first: asked[first]}).get(first)) != tokens(
                control[pair.candidate.name][first]
            ):
                continue
            answers = self._instead(asked)
            messages = explain.count(keep, "message")
            theirs = control[pair.candidate.name]
            counted = [tokens(answers[pair.baseline.name].get(case)) == tokens(theirs[case]) for case in asked]
            words = f"{pair.baseline.name} asked with the last {messages} of each chat alone"
            shown = self._shown(words, answers, self._others)  # written down as an experiment in any case
            if shown or (all(counted) and len(counted) >= ENOUGH):
                return Cause(
                    layer="oldest turns",
                    text=f"{pair.candidate.name} drops the oldest turns: of {len(asked)} of "
                    f"{explain.count(len(pair.cases), 'prompt')} only the last {messages} arrived",
                    remedy=remedies.roomy(
                        pair.candidate, max(tokens(s) or 0 for s in control[pair.baseline.name].values())
                    ),
                )
        return None

    def _system(self, offsets: Mapping[str, int]) -> Cause | None:
        """Name hidden text where the candidate counts as many tokens more on every prompt and renders none.

        Whether it stands in front (a system prompt) or behind (a reminder, a switch) no count of tokens tells. Where an
        engine does not tell how it renders a chat its template may do the same.
        """
        pair = self._pair
        more = same(offsets)
        if more is None or more < 2:
            return None
        request = next(request for request in pair.requests.values() if request.messages is not None)
        ours, theirs = (pair.rendered(adapter, request) for adapter in pair.adapters)
        if ours is None or ours != theirs:
            return None
        return Cause(
            layer="hidden text",
            text=f"{pair.candidate.name} puts {explain.count(more, 'token')} more into every chat that its own "
            "template does not show: hidden text, such as a system prompt",
            remedy=remedies.raw(pair.candidate.name, pair.baseline.name),
        )

    def _stand_in(self, offsets: Mapping[str, int]) -> Cause | None:
        """Name a system prompt that chats without one are given: they alone are longer, all by the same number.

        Chats with one have to be among those that are not: a template adds nothing to raw prompts either.
        """
        bare, own = ({case.id for case in self._pair.cases if of(case)} for of in (without_system, with_system))
        tokens = offset_of_bare([CountPair(case, 0, offset) for case, offset in offsets.items()], bare, own)
        if tokens is None:
            return None
        who = self._pair.candidate if tokens > 0 else self._pair.baseline
        return Cause(
            layer="system prompt",
            text=f"{who.name} gives chats without a system message one of its own, of {abs(tokens)} tokens",
            remedy="in your requests: a system message, which takes its place",
        )

    def _raw(self, case: str, request: Request, rendered: str) -> Asked | None:
        """Return a chat as the raw prompt that it was rendered to, ``None`` where there can be none."""
        known = dataclasses.replace(self._pair.known[case], render=lambda chat: rendered)
        return removals.apply(request, {removals.PROMPT, *self._others}, known)

    def _instead(self, asked: Mapping[str, Asked]) -> Answers:
        """Return the pair's answers with those of the baseline to these requests in place of its own."""
        pair = self._pair
        answers = pair.answers(self._others)
        changed = pair.compared(pair.ask_once(pair.baseline, asked), self._others)
        return {
            pair.baseline.name: {**answers[pair.baseline.name], **changed},
            pair.candidate.name: answers[pair.candidate.name],
        }


def offsets_of(pair: Pair, removed: Collection[str] = ()) -> dict[str, int]:
    """Return by how many tokens the candidate's prompts are longer, by case, where both engines count them."""
    control = pair.answers(removed)
    ours, theirs = (control[adapter.name] for adapter in pair.adapters)
    counts = {case: (tokens(ours[case]), tokens(theirs.get(case))) for case in ours}
    return {case: b - a for case, (a, b) in counts.items() if a and b}


def same(offsets: Mapping[str, int]) -> int | None:
    """Return the offset that all chats have, 0 where none is known, ``None`` where they differ."""
    (offset, *others) = {*offsets.values()} or {0}
    return None if others else offset


def _counted(who: str, offsets: Mapping[str, int]) -> str:
    """Return how many tokens more or fewer an engine counts, where that is the same for every chat."""
    more = same(offsets)
    if not more:
        return ""
    return f" ({explain.count(abs(more), 'token')} {'more' if more > 0 else 'fewer'} on {who}, on every one)"


def tokens(sample: Sample | None) -> int | None:
    """Return how many tokens a prompt had, ``None`` where that is not known."""
    answer = completion(sample)
    return None if answer is None else answer.prompt_tokens
