"""What a removal that takes drift away is called: the cause in words, and a line to paste."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from pytest_llmparity.core.diagnosis import removals
from pytest_llmparity.core.diagnosis.counts import CountPair, offset_of_bare
from pytest_llmparity.core.diagnosis.effects import Answers
from pytest_llmparity.core.diagnosis.layers import response_schema, with_system, without_system
from pytest_llmparity.core.diagnosis.removals import Asked
from pytest_llmparity.core.errors import EngineError
from pytest_llmparity.core.evidence import Evidence
from pytest_llmparity.core.identity.pins import agree
from pytest_llmparity.core.sample import Completion, Request, Sample
from pytest_llmparity.core.verdict import Cause
from pytest_llmparity.core.words import explain
from pytest_llmparity.engines.wire.base import Adapter
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


class Naming:
    """Names the causes of one pair's drift; where a removal stands for several things it finds out for which."""

    def __init__(self, pair: Pair, evidence: Evidence, shown: Shown) -> None:
        self._pair = pair
        self._evidence = evidence
        self._shown = shown
        self._others: frozenset[str] = frozenset()

    def named(self, causes: Sequence[str]) -> tuple[Cause, ...]:
        """Return the causes behind these removals, each once."""
        # What was found beside a prompt stays away while it is found out what of the prompt it is.
        self._others = frozenset(causes) - {removals.PROMPT, removals.LENGTH}
        named = [self._named(name, causes) for name in causes]
        by_layer = {cause.layer: cause for cause in named if cause is not None}
        return tuple(by_layer.values())

    def remaining(self, tried: Iterable[str]) -> tuple[Cause, ...]:
        """Return what remains by exclusion; nothing where it was not possible to take the rendered prompt away."""
        if removals.PROMPT not in tried and any(request.messages for request in self._pair.requests.values()):
            return ()
        ours, theirs = (self._evidence.engines[adapter.name] for adapter in self._pair.adapters)
        layer, what = "weights or arithmetic", ""
        if ours.quantization != theirs.quantization and None not in (ours.quantization, theirs.quantization):
            what = f" (weights: {ours.quantization} and {theirs.quantization})"
        elif (digest := ours.identity.get("digest")) is not None and digest == theirs.identity.get("digest"):
            layer = "arithmetic"
        mine, other = (engine.identity.get("kv_cache") for engine in (ours, theirs))
        if mine is not None and other is not None and not agree("kv_cache", mine, other):
            what += f" (KV cache: {explain.plain(str(mine), 20)} and {explain.plain(str(other), 20)})"
        return (
            Cause(
                layer=layer,
                text=f"{layer}{what}. The drift stays with everything else made equal",
                by_exclusion=True,
            ),
        )

    def counts_apart(self, tried: Collection[str]) -> bool:
        """Whether the engines count other numbers of tokens in the very same raw prompts."""
        return removals.PROMPT in tried and any(self._offsets(tried).values())

    def _of_tokens(self) -> Cause:
        """Name a tokeniser, with the raw prompt that it makes something else of."""
        offsets = self._offsets({removals.PROMPT})
        ours, theirs = self._pair.adapters
        differing = sum(offset != 0 for offset in offsets.values())
        return Cause(
            layer="tokeniser",
            text=f"{theirs.name} makes other tokens of the same text than {ours.name} does, in {differing} of "
            f"{explain.count(len(offsets), 'prompt')}: with the tokens of {ours.name} the drift is gone",
            remedy=f"convert the model of {theirs.name} again: its pre-tokeniser is not that of {ours.name}",
        )

    def _named(self, name: str, causes: Sequence[str]) -> Cause | None:
        if name == removals.PROMPT:
            return self._of_prompt()
        if name == removals.LENGTH:
            return self._of_length()
        if name == removals.TOKENS:
            return self._of_tokens()
        if name == removals.ORDER:
            return self._of_order()
        if name in (removals.SPACES, removals.TAGS):
            return self._of_text(name)
        who = self._culprit(name)
        if name == removals.REASONING:
            return self._of_reasoning(who)
        temperature = next(iter(self._pair.requests.values())).sampling.temperature
        known: Mapping[str, Cause] = {
            removals.SAMPLING: Cause(
                layer="temperature",
                text=f"{who} does not honour temperature {temperature:g}: with top_k 1 beside it the drift is gone",
                remedy="in the parity marker: sampling={'top_k': 1}",
            ),
            removals.PENALTIES: Cause(
                layer="repetition penalty",
                text=f"{who} applies a repetition penalty although none is asked for",
                remedy=f"in your requests: extra_body={json.dumps(dict(self._adapter(who).unpenalised))}",
            ),
            removals.STREAM: Cause(
                layer="streaming",
                text=f"{who} streams another answer than it gives whole",
                remedy="in your requests: stream=False",
            ),
            removals.ALONE: Cause(
                layer="concurrency",
                text=f"{who} answers otherwise beside other requests than alone",
                remedy="in the parity marker: concurrency=1",
            ),
            removals.SCHEMA: Cause(
                layer="structured output",
                text=f"{who} does not enforce the schema of response_format; in its own field it does",
                remedy=f"in your requests: extra_body={{'{self._adapter(who).schema_field}': schema}}",
            ),
            removals.STOP: self._of_stop(who),
        }
        return known[name]

    # whose it is ------------------------------------------------------------------------------------------------------

    def _culprit(self, name: str) -> str:
        """Return the engine whose own answers a removal changes most: the other one answered as if it were away."""
        before, after = self._pair.answers(()), self._pair.answers({name})
        changed = {
            adapter.name: sum(
                _text(before[adapter.name].get(case)) != _text(sample) for case, sample in after[adapter.name].items()
            )
            for adapter in self._pair.adapters
        }
        baseline, candidate = (adapter.name for adapter in self._pair.adapters)
        if name == removals.STOP:
            lengths = {
                adapter.name: sum(len(_text(s) or "") for s in before[adapter.name].values())
                for adapter in self._pair.adapters
            }
            return baseline if lengths[baseline] > lengths[candidate] else candidate
        return baseline if changed[baseline] > changed[candidate] else candidate

    def _adapter(self, name: str) -> Adapter:
        return next(adapter for adapter in self._pair.adapters if adapter.name == name)

    # the rendered prompt ----------------------------------------------------------------------------------------------

    def _of_prompt(self) -> Cause:
        """Tell the things apart that a raw prompt takes away: template, BOS, system prompt, turns that are dropped."""
        candidate, baseline = self._pair.candidate, self._pair.baseline
        names = f"{candidate.name} and {baseline.name}"
        offsets = self._offsets()
        told: Cause | None = None
        with contextlib.suppress(Spent):  # that it is the prompt was shown, if not what of it
            told = (
                self._template()
                or (self._bos() if set(offsets.values()) == {1} else None)
                or (self._turns(offsets) if min(offsets.values(), default=0) < 0 else None)
                or self._system(offsets)
                or self._stand_in(offsets)
            )
        return told or Cause(
            layer=PROMPT,
            text=f"{names} make different prompts of the same chat{_counted(candidate.name, offsets)}: template, "
            "BOS token or a system prompt",
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
        flag = remedies.started(theirs, theirs.template_flag, file)
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

    def _turns(self, offsets: Mapping[str, int]) -> Cause | None:
        """Name turns that are dropped where the baseline, asked with the newest alone, answers like the candidate."""
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
            if _tokens(pair.ask_once(pair.baseline, {first: asked[first]}).get(first)) != _tokens(
                control[pair.candidate.name][first]
            ):
                continue
            answers = self._instead(asked)
            messages = explain.count(keep, "message")
            theirs = control[pair.candidate.name]
            counted = [_tokens(answers[pair.baseline.name].get(case)) == _tokens(theirs[case]) for case in asked]
            words = f"{pair.baseline.name} asked with the last {messages} of each chat alone"
            shown = self._shown(words, answers, self._others)  # written down as an experiment in any case
            if shown or (all(counted) and len(counted) >= ENOUGH):
                return Cause(
                    layer="oldest turns",
                    text=f"{pair.candidate.name} drops the oldest turns: of {len(asked)} of "
                    f"{explain.count(len(pair.cases), 'prompt')} only the last {messages} arrived",
                    remedy=remedies.roomy(
                        pair.candidate, max(_tokens(s) or 0 for s in control[pair.baseline.name].values())
                    ),
                )
        return None

    def _system(self, offsets: Mapping[str, int]) -> Cause | None:
        """Name a system prompt where the candidate counts as many tokens more on every prompt and renders none.

        Where an engine does not tell how it renders a chat its template may do the same.
        """
        pair = self._pair
        more = _same(offsets)
        if more is None or more < 2:
            return None
        request = next(request for request in pair.requests.values() if request.messages is not None)
        ours, theirs = (pair.rendered(adapter, request) for adapter in pair.adapters)
        if ours is None or ours != theirs:
            return None
        return Cause(
            layer="system prompt",
            text=f"{pair.candidate.name} puts {explain.count(more, 'token')} more in front of every chat that its own "
            "template does not show: a hidden system prompt",
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

    def _offsets(self, removed: Collection[str] = ()) -> dict[str, int]:
        """Return by how many tokens the candidate's prompts are longer, by case, where both engines count them."""
        control = self._pair.answers(removed)
        ours, theirs = (control[adapter.name] for adapter in self._pair.adapters)
        counts = {case: (_tokens(ours[case]), _tokens(theirs.get(case))) for case in ours}
        return {case: b - a for case, (a, b) in counts.items() if a and b}

    # the rest ---------------------------------------------------------------------------------------------------------

    def _of_stop(self, who: str) -> Cause:
        """Say that a stop token is missing, where nothing ends as it does on the other engine."""
        ours, theirs = (self._pair.answers(())[adapter.name] for adapter in self._pair.adapters)
        both = [(completion(sample), completion(theirs.get(case))) for case, sample in ours.items()]
        if (keeps := self._keeps_the_stop(ours, theirs)) is not None:
            text = f"{keeps} leaves the stop string at the end of its answers"
            return Cause(layer="stop string", text=text, remedy="answer.removesuffix(stop)")
        if any(a and b and a.text and a.text == b.text and not (a.cut or b.cut) for a, b in both):
            return Cause(
                layer="stop token",
                text=f"{who} goes on where the other engine ends some of its answers, and ends others where that does: "
                "its weights may prefer to go on, or one of several stop tokens is missing",
                by_exclusion=True,
            )
        end = "<the end token of the chat template>"
        with contextlib.suppress(EngineError):
            end = next((of for adapter in self._pair.adapters if (of := adapter.eos())), end)
        return Cause(
            layer="stop token",
            text=f"{who} goes on where the other engine ends its answers: a stop token is missing",
            remedy=f"in the parity marker: sampling={{'stop': [{json.dumps(end)}]}}",
        )

    def _keeps_the_stop(self, ours: Mapping[str, Sample], theirs: Mapping[str, Sample]) -> str | None:
        """Return the engine whose answers, where they differ at all, are the other's and one of the stop strings."""
        keepers = set()
        for case, request in self._pair.requests.items():
            a, b = completion(ours.get(case)), completion(theirs.get(case))
            if a is None or b is None or a.text == b.text:
                continue
            more, less = (b, a) if len(b.text) > len(a.text) else (a, b)
            if more.text.removeprefix(less.text) not in request.sampling.stop:
                return None
            keepers.add((self._pair.candidate if more is b else self._pair.baseline).name)
        return keepers.pop() if len(keepers) == 1 else None

    def _of_length(self) -> Cause | None:
        """Name the engine that cuts, where both count alike as soon as prompts are short; else tokens differ."""
        pair, offsets = self._pair, self._offsets()
        turns = self._turns(offsets) if min(offsets.values(), default=0) < 0 else None
        if turns is not None:
            return turns
        when_short = _same(self._offsets({removals.LENGTH}))
        if when_short is None:
            return None
        beyond = {case: offset - when_short for case, offset in offsets.items()}
        worst = max(beyond, key=lambda case: abs(beyond[case]))
        who, other = (pair.candidate, pair.baseline) if beyond[worst] < 0 else (pair.baseline, pair.candidate)
        control = pair.answers(())
        whole = _tokens(control[other.name][worst]) or 0
        return Cause(
            layer="cut",
            text=f"{who.name} cuts long prompts: {explain.plain(worst, 40)} has {whole} tokens on {other.name} and "
            f"{_tokens(control[who.name][worst])} there",
            remedy=remedies.roomy(who, whole),
        )

    def _of_order(self) -> Cause:
        """Say who answers in another order than declared: the one whose first answer shows it."""
        control = self._pair.answers(())
        who, answered = self._pair.candidate.name, list[str]()
        for adapter in reversed(self._pair.adapters):
            for case in self._pair.cases:
                keys = _keys(completion(control[adapter.name].get(case.id)))
                declared = [key for key in (response_schema(case) or {}).get("properties", ()) if key in keys]
                if declared and declared != [key for key in keys if key in declared]:
                    who, answered = adapter.name, keys
                    break
            if answered:
                break
        if not answered:
            return Cause(
                layer="property order",
                text=f"{who} answers the properties of nested objects in another order than declared",
                remedy=f"declare the properties of nested objects in the order in which {who} answers them",
            )
        return Cause(
            layer="property order",
            text=f"{who} answers the schema's properties in another order than declared: {', '.join(answered[:6])}",
            remedy=f"declare the properties in this order: {', '.join(answered)}",
        )

    def _of_text(self, name: str) -> Cause:
        """Say whose answers have less white space, or begin with something in tags."""
        pair = self._pair
        answers = pair.answers(())
        if name == removals.TAGS:
            tagged = {
                adapter.name: sum(removals.begins_with_tag(_text(s) or "") for s in answers[adapter.name].values())
                for adapter in pair.adapters
            }
            return _thinks(max(tagged, key=lambda engine: tagged[engine]), self._turned_off())
        bare = {
            adapter.name: sum((t := _text(s) or "") == t.strip() for s in answers[adapter.name].values())
            for adapter in pair.adapters
        }
        who = max(bare, key=lambda engine: (bare[engine], engine == pair.candidate.name))
        return Cause(
            layer="white space", text=f"{who} strips the white space around its answers", remedy="answer.strip()"
        )

    def _of_reasoning(self, who: str) -> Cause:
        """Say that reasoning stands in the text where answers begin so, else that one engine alone thinks."""
        answers = self._pair.answers(())
        if any(removals.begins_with_tag(_text(sample) or "") for of in answers.values() for sample in of.values()):
            return _thinks(who, self._turned_off())
        thinking = {
            name: sum(bool(answer and answer.reasoning) for answer in map(completion, of.values()))
            for name, of in answers.items()
        }
        most = max(thinking, key=lambda engine: thinking[engine])
        return Cause(
            layer="reasoning",
            text=f"{most} thinks before it answers where the other engine does not",
            remedy=self._turned_off(),
        )

    def _turned_off(self) -> str:
        fields = next((adapter.unreasoning for adapter in reversed(self._pair.adapters) if adapter.unreasoning), {})
        words = f"extra_body={json.dumps(dict(fields))}" if fields else "reasoning_effort='none'"
        return f"in your requests: {words}"


def _thinks(who: str, remedy: str) -> Cause:
    return Cause(layer="reasoning", text=f"{who} leaves its reasoning in the text of its answers", remedy=remedy)


def _same(offsets: Mapping[str, int]) -> int | None:
    """Return the offset that all chats have, 0 where none is known, ``None`` where they differ."""
    (offset, *others) = {*offsets.values()} or {0}
    return None if others else offset


def _counted(who: str, offsets: Mapping[str, int]) -> str:
    """Return how many tokens more or fewer an engine counts, where that is the same for every chat."""
    more = _same(offsets)
    if not more:
        return ""
    return f" ({explain.count(abs(more), 'token')} {'more' if more > 0 else 'fewer'} on {who}, on every one)"


def _text(sample: Sample | None) -> str | None:
    answer = completion(sample)
    return None if answer is None else answer.text


def _tokens(sample: Sample | None) -> int | None:
    answer = completion(sample)
    return None if answer is None else answer.prompt_tokens


def _keys(answer: Completion | None) -> list[str]:
    value = removals.keys_of(answer)
    return list(value) if isinstance(value, dict) else []
