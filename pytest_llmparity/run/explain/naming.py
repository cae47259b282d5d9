"""What a removal that takes drift away is called: the cause in words, and a line to paste."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from pytest_llmparity.core.checks.base import pair_answers
from pytest_llmparity.core.checks.drift.ladders import about, ladder_of
from pytest_llmparity.core.checks.drift.logprobs import shown_shift
from pytest_llmparity.core.checks.drift.text import SHIFTED
from pytest_llmparity.core.compare.calls import with_calls
from pytest_llmparity.core.diagnosis import removals
from pytest_llmparity.core.diagnosis.layers import response_schema
from pytest_llmparity.core.errors import EngineError
from pytest_llmparity.core.evidence import Evidence
from pytest_llmparity.core.identity.agreed import weights_of
from pytest_llmparity.core.identity.pins import agree
from pytest_llmparity.core.identity.spelling import acting, none_acts
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import Completion, Sample, in_memory
from pytest_llmparity.core.verdict import Cause
from pytest_llmparity.core.words import explain
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.explain import remedies
from pytest_llmparity.run.explain.asking import Pair, Spent, completion
from pytest_llmparity.run.explain.next_tokens import Read
from pytest_llmparity.run.explain.rendered import RenderedPrompt, Shown, offsets_of, same, tokens
from pytest_llmparity.run.explain.same_file import SameFile

UNREAD: Final = (
    "the drift stays with everything made equal that could be, and what both engines read was not shown to be: {why}"
)
TOP_K: Final = "in the parity marker: sampling={'top_k': 1}"
BLOB: Final = len("sha256-") + 12
"""Characters that are shown of the name of a blob."""


class Naming:
    """Names the causes of one pair's drift; where a removal stands for several things it finds out for which.

    ``accepting`` says how other weights are accepted.
    """

    def __init__(self, pair: Pair, evidence: Evidence, shown: Shown, *, accepting: str = "") -> None:
        self._pair = pair
        self._evidence = evidence
        self._shown = shown
        self._accepting = accepting
        self._others: frozenset[str] = frozenset()

    def named(self, causes: Sequence[str]) -> tuple[Cause, ...]:
        """Return the causes behind these removals, each once."""
        # What was found beside a prompt stays away while it is found out what of the prompt it is.
        self._others = frozenset(causes) - {removals.PROMPT, removals.LENGTH}
        prompt = RenderedPrompt(self._pair, self._shown, self._others)
        named = [self._named(name, prompt) for name in causes]
        by_layer = {cause.layer: cause for cause in named if cause is not None}
        return tuple(by_layer.values())

    def remaining(self, tried: Collection[str], *, but: Sequence[str] = ()) -> tuple[Cause, ...]:
        """Return what remains by exclusion; nothing where it was not possible to take the rendered prompt away.

        ``but`` names what may be a cause and could not be taken away.
        """
        if not self._raw(tried):
            return ()
        ours, theirs = (self._evidence.engines[adapter.name] for adapter in self._pair.adapters)
        layer, classes = "weights or arithmetic", self._classes()
        if not classes and weights_of(ours.identity) & weights_of(theirs.identity):
            layer = "arithmetic"
        mine, other = (engine.identity.get("kv_cache") for engine in (ours, theirs))
        if mine is not None and other is not None and not agree("kv_cache", mine, other):
            classes += f" (KV cache: {explain.plain(str(mine), 20)} and {explain.plain(str(other), 20)})"
        untried = f" but {' and '.join(but)}, which could not be taken away" if but else ""
        return (
            Cause(
                layer=layer,
                text=f"{layer}{classes}. The drift stays with everything else made equal{untried}",
                by_exclusion=True,
            ),
        )

    def samplers_left(self) -> tuple[str, ...]:
        """Return the engines that have samplers which no removal takes away, and do not tell that none of them acts."""
        return tuple(
            adapter.name
            for adapter in self._pair.adapters
            if ("top_k" not in adapter.fields or (adapter.other_samplers and not adapter.unsampled))
            and not self._none_acts(adapter)
        )

    def _none_acts(self, adapter: Adapter) -> bool:
        return none_acts(self._evidence.engines[adapter.name].identity)

    def of_cache(self, who: str) -> Cause:
        """Return the cause that is the prompt cache of an engine."""
        flags = self._adapter(who).cache_off
        return Cause(
            layer="prompt cache",
            text=f"{who} answers otherwise where its prompt cache holds a part of the prompt",
            remedy=remedies.started(self._adapter(who), *flags) if flags else "",
        )

    def moved(self, read: Read) -> str:
        """Say how far next tokens moved where both engines read the same text, and what class the answers are about.

        That is by the answers of the gate: a ladder is of whole answers.
        """
        early, late = explain.nats(read.early), explain.nats(read.late)
        words = f"{explain.nats(read.nats)}, {early} early in answers and {late} late"
        whole = shown_shift(self._answers(), self._evidence)
        of_class = "" if whole is None else about(self._evidence, whole.nats)
        return (
            f"{words}; whole answers shift by {explain.nats(whole.nats)}, {of_class}" if whole and of_class else words
        )

    def _answers(self) -> Iterator[tuple[Case, Completion, Completion]]:
        """Yield pairs of answers of the gate to about so many prompts as a verdict shows the shift of."""
        pairs = pair_answers(self._evidence, self._evidence.engines[self._pair.candidate.name]).pairs
        for pair in pairs[:: max(1, len(pairs) // SHIFTED)]:
            yield pair.case, in_memory(pair.baseline), in_memory(pair.candidate)

    def narrowed(self, cause: Cause, read: Read) -> Cause:
        """Return what remains as arithmetic, where next tokens and the model's ladder say so."""
        layer = read.layer(ladder_of(self._evidence)) or cause.layer
        return dataclasses.replace(cause, layer=layer, text=layer + cause.text[len(cause.layer) :])

    def of_weights(self, same: SameFile, *, gone: bool) -> Cause:
        """Return the cause that is the weights: the baseline's engine, serving them, answers as the candidate does."""
        ours, theirs = self._pair.adapters
        classes = ""
        if self._classes():
            mine, other = (self._evidence.engines[name].quantization for name in (ours.name, theirs.name))
            classes = f" ({other}, those of {ours.name} are {mine})"
        file = _of_file(same)
        served = f"{file}, served as {ours.name} is,"
        whole = f"the weights of {theirs.name}{classes}: {served} answers as {theirs.name} does"
        part = f"the weights of {theirs.name}{classes} are part of it: {served} differs less from {theirs.name}"
        return Cause(
            layer="weights",
            text=whole if gone else part,
            remedy="; ".join(filter(None, [f"serve {theirs.name} the weights of {ours.name}", self._accepting])),
        )

    def of_engine(self, same: SameFile, *, gone: bool) -> Cause:
        """Return the cause that is the engine: the candidate's file, served by the baseline's, answers as that does."""
        ours, theirs = self._pair.adapters
        file = _of_file(same)
        served = f"{file}, served as {ours.name} is,"
        whole = f"{theirs.name}'s engine or its settings, not its weights: {served} answers as {ours.name} does"
        part = f"{theirs.name}'s engine or its settings are part of it: {served} differs less from {ours.name}"
        return Cause(
            layer="engine",
            text=whole if gone else part,
            remedy=f"serve {file} by {ours.kind}, as {ours.name} is",
        )

    def _classes(self) -> str:
        """Return both engines' classes of weights where they are known and differ, in parentheses."""
        ours, theirs = (self._evidence.engines[adapter.name].quantization for adapter in self._pair.adapters)
        return "" if ours == theirs or None in (ours, theirs) else f" (weights: {ours} and {theirs})"

    def counts_apart(self, tried: Collection[str]) -> bool:
        """Whether the engines count other numbers of tokens in the very same raw prompts."""
        return self._raw(tried) and any(offsets_of(self._pair, tried).values())

    def unread(self, tried: Collection[str]) -> str:
        """Say why raw prompts, or tokens, may not have arrived as they were sent; empty where both read the same."""
        if not self._raw(tried):
            return ""
        ours, theirs = self._pair.adapters
        offsets = offsets_of(self._pair, tried)
        if differing := sum(offset != 0 for offset in offsets.values()):
            other = f"another number of tokens than {ours.name}"
            more = f"{theirs.name} counts {other} in {differing} of {explain.count(len(offsets), 'raw prompt')}"
            return UNREAD.format(why=f"{more}: it puts something around them, or makes other tokens of the same text")
        unsure = [adapter.name for adapter in (ours, theirs) if adapter.can.raw_prompt is None]
        if offsets or not unsure:
            return ""
        return UNREAD.format(
            why=f"whether {' and '.join(unsure)} took raw prompts as they are no count of tokens tells"
        )

    def _raw(self, tried: Collection[str]) -> bool:
        """Whether no engine rendered a chat: prompts were sent raw in place of chats, or there were none."""
        return removals.PROMPT in tried or not any(request.messages for request in self._pair.requests.values())

    def _of_tokens(self) -> Cause:
        """Name a tokeniser, with the raw prompt that it makes something else of."""
        offsets = offsets_of(self._pair, {removals.PROMPT})
        ours, theirs = self._pair.adapters
        differing = sum(offset != 0 for offset in offsets.values())
        return Cause(
            layer="tokeniser",
            text=f"{theirs.name} makes other tokens of the same text than {ours.name} does, in {differing} of "
            f"{explain.count(len(offsets), 'prompt')}: with the tokens of {ours.name} the drift is gone",
            remedy=f"convert the model of {theirs.name} again: its pre-tokeniser is not that of {ours.name}",
        )

    def _named(self, name: str, prompt: RenderedPrompt) -> Cause | None:
        if name == removals.PROMPT:
            return prompt.cause()
        if name == removals.LENGTH:
            return self._of_length(prompt)
        if name == removals.TOKENS:
            return self._of_tokens()
        if name == removals.ORDER:
            return self._of_order()
        if name == removals.CALLS:
            return self._of_calls()
        if name in (removals.SPACES, removals.TAGS):
            return self._of_text(name)
        if name == removals.SAMPLING:
            return self._of_sampling()
        if name == removals.DEFAULTS:
            return self._of_defaults()
        who = self._culprit(name)
        if name == removals.REASONING:
            return self._of_reasoning(who)
        known: Mapping[str, Cause] = {
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
            removals.CACHE: self.of_cache(who),
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

    def _of_sampling(self) -> Cause:
        """Name a temperature that is not honoured, or a sampler that no request speaks of: ``top_k`` 1 takes both away.

        Where neither is shown to be the one the cause is either.
        """
        others, untold = self._others - {removals.SAMPLING}, ""
        if any(adapter.unsampled for adapter in self._pair.adapters):
            try:
                answers = self._pair.answers(others | {removals.DEFAULTS})
                if self._shown(removals.REMOVALS[removals.DEFAULTS], answers, others):
                    return self._of_defaults()
            except Spent:
                untold = "no request was left to tell them apart"
        who = self._culprit(removals.SAMPLING)
        adapter = self._adapter(who)
        if not adapter.unsampled:
            may = adapter.other_samplers and not self._none_acts(adapter)
            untold = f"nothing that is sent to {who} turns such a default off" if may else ""
        if untold:
            return Cause(
                layer="temperature or sampler default",
                text=f"{who} does not honour the temperature, or applies a default of its own to a sampler that no "
                f"request speaks of: with top_k 1 the drift is gone, and {untold}",
                remedy=TOP_K,
            )
        temperature = next(iter(self._pair.requests.values())).sampling.temperature
        return Cause(
            layer="temperature",
            text=f"{who} does not honour temperature {temperature:g}: with top_k 1 beside it the drift is gone",
            remedy=TOP_K,
        )

    def _of_defaults(self) -> Cause:
        """Name the engine whose default of a sampler acts, with the defaults where it tells them."""
        who = self._culprit(removals.DEFAULTS)
        told = acting(self._evidence.engines[who].identity)
        fields = dict(self._adapter(who).unsampled)
        which = f": {', '.join(told)}" if told else f", which it does not tell: one of {', '.join(fields)}"
        return Cause(
            layer="sampler default",
            text=f"{who} applies a default of its own to a sampler that no request speaks of{which}",
            remedy=f"in your requests: extra_body={json.dumps(fields)}",
        )

    # whose it is ------------------------------------------------------------------------------------------------------

    def _culprit(self, name: str) -> str:
        """Return the engine whose own answers a removal changes most: the other one answered as if it were away.

        Where one of them alone has words for it, the other was asked as before.
        """
        able: Mapping[str, Sequence[str]] = {
            removals.PENALTIES: [adapter.name for adapter in self._pair.adapters if adapter.unpenalised],
            removals.DEFAULTS: [adapter.name for adapter in self._pair.adapters if adapter.unsampled],
        }
        if len(able.get(name, ())) == 1:
            return able[name][0]
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

    def _of_length(self, prompt: RenderedPrompt) -> Cause | None:
        """Name the engine that cuts, where both count alike as soon as prompts are short; else tokens differ."""
        pair, offsets = self._pair, offsets_of(self._pair)
        turns = prompt.turns(offsets) if min(offsets.values(), default=0) < 0 else None
        if turns is not None:
            return turns
        when_short = same(offsets_of(pair, {removals.LENGTH}))
        if when_short is None:
            return None
        beyond = {case: offset - when_short for case, offset in offsets.items()}
        worst = max(beyond, key=lambda case: abs(beyond[case]))
        who, other = (pair.candidate, pair.baseline) if beyond[worst] < 0 else (pair.baseline, pair.candidate)
        control = pair.answers(())
        whole = tokens(control[other.name][worst]) or 0
        return Cause(
            layer="cut",
            text=f"{who.name} cuts long prompts: {explain.plain(worst, 40)} has {whole} tokens on {other.name} and "
            f"{tokens(control[who.name][worst])} there",
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

    def _of_calls(self) -> Cause:
        """Say whose tool calls stand in the text of its answers."""
        answers = self._pair.answers(())
        inside = {
            adapter.name: sum(
                with_calls(answer) is not answer
                for answer in map(completion, answers[adapter.name].values())
                if answer is not None
            )
            for adapter in self._pair.adapters
        }
        who = max(inside, key=lambda engine: inside[engine])
        flags = self._adapter(who).call_flags
        otherwise = f"read the calls out of the text of {who}, or serve a model whose template it knows to have tools"
        return Cause(
            layer="tool calls",
            text=f"{who} leaves its tool calls in the text of its answers",
            remedy=remedies.started(self._adapter(who), *flags) if flags else otherwise,
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
        (least, fewer), (most, more) = sorted(thinking.items(), key=lambda engine: engine[1])
        counts = f"{most} thinks before {explain.count(more, 'answer')}, {least} before {fewer}"
        alone = f"{most} thinks before it answers where the other engine does not"
        return Cause(layer="reasoning", text=counts if fewer else alone, remedy=self._turned_off())

    def _turned_off(self) -> str:
        fields = next((adapter.unreasoning for adapter in reversed(self._pair.adapters) if adapter.unreasoning), {})
        words = f"extra_body={json.dumps(dict(fields))}" if fields else "reasoning_effort='none'"
        return f"in your requests: {words}"


def _of_file(same: SameFile) -> str:
    """Return the name of the file of weights; of Ollama's, which are called by their digest, the first digits."""
    name = "" if same.file is None else explain.plain(same.file.name, 60)
    return f"{name[:BLOB]}…" if name.startswith("sha256-") else name


def _thinks(who: str, remedy: str) -> Cause:
    return Cause(layer="reasoning", text=f"{who} leaves its reasoning in the text of its answers", remedy=remedy)


def _text(sample: Sample | None) -> str | None:
    answer = completion(sample)
    return None if answer is None else answer.text


def _keys(answer: Completion | None) -> list[str]:
    value = removals.keys_of(answer)
    return list(value) if isinstance(value, dict) else []
