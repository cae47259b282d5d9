"""Asks the two engines of a pair the same prompts in one way after another; each way once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from pytest_llmparity.core.diagnosis import removals
from pytest_llmparity.core.diagnosis.effects import Answers
from pytest_llmparity.core.diagnosis.removals import Asked, Known
from pytest_llmparity.core.errors import EngineError, LLMParityError
from pytest_llmparity.core.prompts import Case, unseen
from pytest_llmparity.core.sample import Completion, Phase, Request, Sample, WireRequest, to_json
from pytest_llmparity.engines.wire import build
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.ledger import Allowance
from pytest_llmparity.run.loop import LoopThread
from pytest_llmparity.run.plan import Job, wire_of
from pytest_llmparity.run.sending.sender import client_of, send

Requests = Mapping[str, Asked]
"""What one engine is asked, by case."""


class Spent(LLMParityError):
    """No more requests may be sent."""


class Pair:
    """A baseline and a candidate that can be asked, and some cases: the same in every experiment on them.

    ``requests`` are the gate's own, by case. ``concurrency`` is that of the gate, ``gone`` says why an engine's process
    is no more, ``allowance`` how much may be sent, ``tell`` takes how many requests were sent as each is answered.
    """

    def __init__(
        self,
        adapters: tuple[Adapter, Adapter],
        cases: Sequence[Case],
        requests: Mapping[str, Request],
        *,
        concurrency: int,
        loop: LoopThread,
        allowance: Allowance,
        gone: Callable[[str], str | None],
        tell: Callable[[int], None] = lambda sent: None,
    ) -> None:
        self.baseline, self.candidate = adapters
        self.cases = tuple(cases)
        self.requests = requests
        self.concurrency = concurrency
        self.known: dict[str, Known] = {case.id: Known(render=self.render) for case in cases}
        self._loop = loop
        self._allowance = allowance
        self._gone = gone
        self._tell = tell
        self._rendered: dict[tuple[str, str], str | None] = {}
        self._tokenised: dict[str, list[int] | None] = {}
        self._asked: dict[frozenset[str], Answers] = {}
        self._once: dict[str, Mapping[str, Sample]] = {}

    @property
    def spent(self) -> int:
        """How many requests were sent by now."""
        return self._allowance.sent

    @property
    def adapters(self) -> tuple[Adapter, Adapter]:
        """Both engines, the baseline first."""
        return self.baseline, self.candidate

    def answers(self, removed: Collection[str]) -> Answers:
        """Return what both engines answer with these things taken away, compared as they say.

        ``Spent`` when no more requests may be sent.
        """
        asked = frozenset(removed) - frozenset(removals.COMPARED)
        if asked not in self._asked:
            requests = self.requests_without(asked)
            self._asked[asked] = {adapter.name: self.ask(adapter, requests) for adapter in self.adapters}
        return {name: self.compared(by_case, removed) for name, by_case in self._asked[asked].items()}

    def requests_without(self, removed: Collection[str]) -> Requests:
        """Return what is asked with these things taken away, by case; a case with which that cannot be is left out."""
        return {
            case.id: changed
            for case in self.cases
            if (changed := removals.apply(self.requests[case.id], removed, self.known[case.id])) is not None
        }

    def refuse_beyond(self, requests: int) -> None:
        """Raise ``Spent`` where so many requests may not be sent any more."""
        if not self._allowance.take(requests, purpose="an experiment"):
            raise Spent(self._allowance.reason or "no more requests may be sent")
        self._allowance.give_back(requests)

    def first_and_again(self) -> tuple[Answers, Answers]:
        """Return what both engines answer to the prompts behind numbers that no prompt had, and to the same again.

        Between the two nothing differs but that the prompts were asked before.
        """
        token = uuid.uuid4().hex
        requests = {
            case.id: Asked(request=numbered)
            for case in self.cases
            if (numbered := unseen.behind(unseen.number(token, case.id), self.requests[case.id])) is not None
        }
        both = [{adapter.name: self.ask(adapter, requests) for adapter in self.adapters} for _ in range(2)]
        first, again = ({name: self.compared(by_case, ()) for name, by_case in asked.items()} for asked in both)
        return first, again

    def compared(self, samples: Mapping[str, Sample], removed: Collection[str]) -> Mapping[str, Sample]:
        """Return answers as they are compared where something is left out of the comparison."""
        return {case: _compared(sample, removed) for case, sample in samples.items()}

    def ask_once(self, adapter: Adapter, requests: Requests) -> Mapping[str, Sample]:
        """Return one engine's answers to requests, those of earlier where it was asked the same."""
        key = json.dumps([adapter.name, *((case, to_json(asked.request)) for case, asked in requests.items())])
        if key not in self._once:
            self._once[key] = self.ask(adapter, requests)
        return self._once[key]

    def ask(self, adapter: Adapter, requests: Requests) -> dict[str, Sample]:
        """Return one engine's answers to these; a case it has no words for is left out, one that fails is a failure."""
        jobs = []
        concurrency = self.concurrency
        for case, asked in requests.items():
            concurrency = 1 if removals.ALONE in asked.names else self.concurrency
            if (wire := self._wire(adapter, asked)) is not None:
                jobs.append(Job(case=case, wire=wire, phase=Phase.MAIN, repeat=0, concurrency=concurrency))
        self.refuse_beyond(len(jobs))
        samples: dict[str, Sample] = {}

        def deliver(sample: Sample) -> None:
            samples[sample.case] = sample
            self._tell(self.spent)

        async def ask() -> None:
            client = client_of(adapter)
            try:
                await send(
                    adapter,
                    client,
                    jobs,
                    concurrency=concurrency,
                    allowance=self._allowance,
                    gone=lambda: self._gone(adapter.name),
                    deliver=deliver,
                )
            finally:
                await client.aclose()

        self._loop.run(ask())
        return samples

    def render(self, request: Request) -> str | None:
        """Return a chat as the baseline renders it, or the candidate where the baseline does not tell."""
        return next((text for adapter in self.adapters if (text := self.rendered(adapter, request))), None)

    def rendered(self, adapter: Adapter, request: Request) -> str | None:
        """Return a chat as one engine renders it, asked once."""
        if request.messages is None:
            return request.prompt
        if not adapter.renderings:
            return None  # its kind does not tell
        key = (adapter.name, json.dumps(request.messages, sort_keys=True))
        if key not in self._rendered:
            if not self._allowance.take(adapter.renderings, purpose="a rendered prompt"):
                raise Spent(self._allowance.reason or "no more requests may be sent")
            try:
                self._rendered[key] = adapter.rendered(request)
            except EngineError:
                self._rendered[key] = None
        return self._rendered[key]

    def _tokens(self, request: Request) -> list[int] | None:
        """Return the baseline's tokens of a raw prompt, asked once; ``None`` where it does not tell."""
        if request.prompt is None:
            return None
        if request.prompt not in self._tokenised:
            if not self._allowance.take(purpose="the tokens of a prompt"):
                raise Spent(self._allowance.reason or "no more requests may be sent")
            try:
                self._tokenised[request.prompt] = self.baseline.tokens(request.prompt)
            except EngineError:
                self._tokenised[request.prompt] = None
        return self._tokenised[request.prompt]

    def _wire(self, adapter: Adapter, asked: Asked) -> WireRequest | None:
        """Return a request of an experiment in an engine's words, ``None`` where it has none."""
        further: dict[str, Any] = {}
        if removals.PENALTIES in asked.names:
            further |= adapter.unpenalised
        if removals.DEFAULTS in asked.names:
            further |= adapter.unsampled
        if removals.REASONING in asked.names:
            further |= adapter.unreasoning
        if removals.CACHE in asked.names:
            further |= adapter.uncached()
        if asked.schema is not None:
            if not adapter.schema_field:
                return None
            further[adapter.schema_field] = asked.schema
        if removals.TOKENS in asked.names:
            if (tokens := self._tokens(asked.request)) is None:
                return None
            further["prompt"] = tokens
        stream = adapter.counts_in_streams and removals.STREAM not in asked.names
        try:
            wire = wire_of(adapter, asked.request, stream=stream)
        except LLMParityError:
            return None
        if not further:
            return wire
        body = build.encode({**json.loads(wire.body), **further})
        return dataclasses.replace(wire, body=body, sha256=hashlib.sha256(body).hexdigest())


def completion(sample: Sample | None) -> Completion | None:
    """Return the answer of a sample, ``None`` where there is none."""
    return None if sample is None else sample.completion


def _compared(sample: Sample, removed: Collection[str]) -> Sample:
    if sample.completion is None:
        return sample
    answer = removals.compared(_without_its_end(sample.completion), removed)
    return sample if answer is sample.completion else msgspec.structs.replace(sample, completion=answer)


def _without_its_end(answer: Completion) -> Completion:
    """Return an answer without the record of its end token, which llama.cpp lists of whole answers and not of streams.

    A shift over one position more is another shift, of which no experiment may say that it is less.
    """
    spelled = len(answer.logprobs)
    while spelled and not answer.logprobs[spelled - 1].token:
        spelled -= 1
    if spelled == len(answer.logprobs):
        return answer
    return msgspec.structs.replace(answer, logprobs=tuple(answer.logprobs[:spelled]))
