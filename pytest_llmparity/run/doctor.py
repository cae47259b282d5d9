"""Examines engines outside a test run: what they are, what they can do, where that breaks a promise, what to change."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Final

from pytest_llmparity.core.errors import EngineError, ParameterNotHonoured, UnsupportedParameter
from pytest_llmparity.core.identity import examination as say
from pytest_llmparity.core.identity.examination import Examination, PromptFit, Setting
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.identity.routes import CASES
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.prompts.parts import media_of
from pytest_llmparity.core.sample import Completion, Request, Sampling, from_json, to_json
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.probe.preflight import PROBES, SEEN, Learnt, compare_routes, learn
from pytest_llmparity.run.probe.probes import asking
from pytest_llmparity.run.session import Session
from pytest_llmparity.settings.specification import EngineSpec

QUESTIONS: Final = (
    "How long does a refund take?",
    "Name three rivers in Europe.",
    "What is 17 plus 25?",
    "Write one sentence about the sea.",
    "Which colour do you get from blue and yellow?",
    "Translate 'good morning' into French.",
    "List the first four months of the year.",
    "Why is the sky blue? Answer in one sentence.",
)
"""What two routes are asked where no prompt file is given."""
CHATS: Final = {
    "a chat with a system message": ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}),
    "a chat without a system message": ({"role": "user", "content": "Hi"},),
}
"""What engines render where no prompt file is given."""
SHOWN: Final = 3
"""How many cases that an engine has no words for are named."""


def examine(
    session: Session,
    spec: EngineSpec,
    *,
    settings: Sequence[Setting] = (),
    prompts: Sequence[PromptSet] = (),
    compared: bool = False,
) -> Examination:
    """Start or attach to one engine of a session, ask every probe anew, and say what is wrong and what could be better.

    ``settings`` are its values and their origins; ``compared`` says that another engine is examined too. The longest
    prompt of each of ``prompts`` is held against its context, and all of them against the words it has. Never raises
    for what an engine does; ``StoreError`` where the answers of probes cannot be remembered. Configured keys are masked
    in everything it returns.
    """
    examination = _examined(session, spec, settings, prompts)
    adapter = session.engaged(spec.name).adapter
    if compared and adapter is not None:
        examination = dataclasses.replace(examination, rendered=_rendered(adapter, prompts))
    return from_json(Examination, session.mask.value(to_json(examination)))


def _examined(
    session: Session, spec: EngineSpec, settings: Sequence[Setting], prompts: Sequence[PromptSet]
) -> Examination:
    engaged = session.engaged(spec.name)
    record = dataclasses.replace(engaged.record, baseline=spec.name == session.baseline)
    if engaged.adapter is None:
        return Examination(engine=record, settings=tuple(settings))
    adapter, identity = engaged.adapter, record.identity
    shown = {name for prompt_set in prompts for case in prompt_set.cases for name in media_of(case.messages)}
    learnt = learn(
        adapter,
        identity,
        names=tuple(name for name in PROBES if name not in SEEN or name in shown),
        store=session.store(),
        version=session.version,
        fresh=True,
    )
    consulting = _Consulting(adapter)
    remarks = dict(learnt.probed.notes)
    if learnt.capabilities.odd_logprobs is not None:
        remarks["logprobs"] = f"{learnt.capabilities.sentence('odd_logprobs')}; check.logprobs() refuses them"
    routes = compare_routes(adapter, _requests(adapter, prompts), say=lambda text: remarks.update(routes=text))
    record = dataclasses.replace(
        record,
        model=spec.model or adapter.model,
        declares=learnt.declares,
        capabilities=learnt.capabilities,
        route_check=routes,
    )
    advice = tuple(consulting.advice(record, prompts))
    return Examination(
        engine=record,
        settings=tuple(settings),
        remarks=remarks,
        limits=adapter.limits(),
        wrong=(*_wrong(record, learnt), *_unsaid(adapter, prompts)),
        advice=advice,
        requests=learnt.requests + consulting.requests + (0 if routes is None else 2 * routes.cases),
    )


def _requests(adapter: Adapter, prompts: Sequence[PromptSet]) -> list[Request]:
    """Return what two routes are asked: some of the given prompts, else questions of ours."""
    given = [case.request(Sampling()) for prompt_set in prompts for case in prompt_set.cases][:CASES]
    ours = [Case(id=text, messages=({"role": "user", "content": text},)).request(Sampling()) for text in QUESTIONS]
    return given or [adapter.own(request) for request in ours]


def _rendered(adapter: Adapter, prompts: Sequence[PromptSet]) -> dict[str, str | None]:
    """Return how an engine renders the first given chat with a system message and the first without one, else ours."""
    given: dict[bool, Case] = {}
    for case in (case for prompt_set in prompts for case in prompt_set.cases):
        if case.messages and not case.tools:
            given.setdefault(case.messages[0].get("role") == "system", case)
    chats = list(given.values()) or [Case(id=name, messages=messages) for name, messages in CHATS.items()]
    rendered: dict[str, str | None] = {}
    for case in chats:
        rendered[case.id] = None
        if adapter.renderings:
            with contextlib.suppress(EngineError):
                rendered[case.id] = adapter.rendered(case.request(Sampling()))
    return rendered


def _wrong(record: EngineRecord, learnt: Learnt) -> Iterator[str]:
    if record.incomparable:
        yield record.incomparable.removeprefix(f"{record.name}: ")
    for finding in record.capabilities.findings(record.name, record.declares):
        yield finding.removeprefix(f"{record.name} ")
    for name, why in learnt.probed.notes.items():
        if name not in learnt.probed.settled:
            yield f"the probe of {name} failed: {why}"


def _unsaid(adapter: Adapter, prompts: Sequence[PromptSet]) -> Iterator[str]:
    """Yield what the route has no field for, of a plain greedy request and of the given prompts."""
    missing: dict[str, None] = {}
    for request in [
        adapter.own(asking(_messages("Hi"), max_tokens=1)),
        *(c.request(Sampling()) for prompt_set in prompts for c in prompt_set.cases),
    ]:
        try:
            adapter.build(request)
        except (ParameterNotHonoured, UnsupportedParameter) as error:
            missing[str(error)] = None
    yield from list(missing)[:SHOWN]
    if len(missing) > SHOWN:
        yield f"{len(missing) - SHOWN} more cases hold what it has no field for"


class _Consulting:
    """Asks one engine what its prompts come to; ``requests`` counts what was asked."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self.requests = 0

    def advice(self, record: EngineRecord, prompts: Sequence[PromptSet]) -> Iterator[str]:
        """Yield what could be better, most concrete first."""
        context = record.identity.get("context_length")
        tokens = context if isinstance(context, int) else None
        for prompt_set in prompts:
            yield from say.on_prompts(self._fit(prompt_set), tokens)
        yield from say.on_context(self._adapter.spec.context_length, tokens)
        yield from (note.removeprefix(f"{record.name}: ") for note in record.notes)
        yield from say.on_capabilities(record.capabilities, tokens)
        if record.route_check is not None and record.route_check.differs:
            yield record.route_check.sentence("it")
        yield from say.on_sampling(record.identity)
        yield from say.on_template(self._tokens(_messages("Hi")), self._tokens(_messages("Hi", system="Hi")))

    def _ask(self, request: Request) -> Completion:
        wire = self._adapter.build(request, stream=False)
        self.requests += 1
        reply = self._adapter.control.post(wire.path, wire.body, timeout_s=self._adapter.spec.request_timeout_s)
        return self._adapter.read(reply, case=request.case)

    def _tokens(self, messages: Sequence[dict[str, Any]]) -> int | None:
        """Return how many tokens the server counts in these messages, ``None`` where it refuses or does not count."""
        try:
            return self._ask(self._adapter.own(asking(messages, max_tokens=8))).prompt_tokens
        except EngineError:
            return None

    def _fit(self, prompts: PromptSet) -> PromptFit:
        """Ask the longest prompt of a set for a short answer and see how many tokens of it the server counts."""
        longest = max(prompts.cases, key=lambda case: len(_text_of(case)))
        asked = longest.request(Sampling())
        fit = PromptFit(
            prompts=prompts.name,
            case=longest.id,
            words=len(_text_of(longest).split()),
            answer=asked.sampling.max_tokens,
        )
        try:
            answer = self._ask(dataclasses.replace(asked, sampling=Sampling(max_tokens=8), response_format=None))
            return dataclasses.replace(fit, tokens=answer.prompt_tokens)
        except EngineError as error:
            return dataclasses.replace(fit, failed=str(error))


def _messages(text: str, *, system: str = "") -> list[dict[str, Any]]:
    spoken: list[dict[str, Any]] = [{"role": "user", "content": text}]
    return [{"role": "system", "content": system}, *spoken] if system else spoken


def _text_of(case: Case) -> str:
    contents = [message.get("content") or "" for message in case.messages or ()]
    parts = [part.get("text", "") for content in contents if isinstance(content, list) for part in content]
    return " ".join([case.prompt or "", *(content for content in contents if isinstance(content, str)), *parts])
