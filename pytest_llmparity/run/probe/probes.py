"""Probes: a few tiny requests that find out what a live server does with what it is sent.

Each probe goes through the adapter's own ``build`` and ``parse``, unmeasured, and answers with the fields of
``core.identity.capabilities.Capabilities`` it settled. None of them touches what reloads a model (load options stay
those of every request) or is known to end a server (``top_logprobs`` above the size of the vocabulary).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from pytest_llmparity.core.checks.drift.logprobs import ALTERNATIVES
from pytest_llmparity.core.compare.shift import Logprobs
from pytest_llmparity.core.errors import (
    AnswerError,
    BadRequest,
    ContextOverflow,
    EmptyAnswer,
    EngineDied,
    EngineError,
    NotAuthorised,
    Overloaded,
    ParameterNotHonoured,
    ProtocolError,
    ServerFailure,
    Timeout,
    Unreachable,
)
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.sample import Completion, Request, Sampling
from pytest_llmparity.engines.wire import build
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.loop import result_of

TIMEOUT_S: Final = 60.0
"""Longest wait for a probe's answer: a first grammar or logprob makes some engines compile for more than 20 s.

A prompt that fills the context is read as long as any other: ``request_timeout_s``.
"""
CASE: Final = "probe"
"""What errors call the case."""
QUESTION: Final = ({"role": "user", "content": "Describe a harbour in the morning."},)
POEM: Final = ({"role": "user", "content": "Write a short poem about anything you like."},)
GREETING: Final = ({"role": "user", "content": "Say hello."},)
LONG_GREETING: Final = (
    {"role": "user", "content": "Say hello to the people of the harbour, and wish each one of them a good morning."},
)
FORM: Final = ({"role": "user", "content": "Fill in the form as compact JSON."},)
SECRET: Final = {"zone": "vq7rk2mx", "area": "hw4tz9bd"}
"""What the schema of the probe forces: no model guesses it, and the names stand in reverse alphabetical order."""
SCHEMA: Final = {
    "type": "object",
    "properties": {name: {"type": "string", "const": value} for name, value in SECRET.items()},
    "required": list(SECRET),
    "additionalProperties": False,
}
PLAIN_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in SECRET.values()},
    "required": list(SECRET.values()),
    "additionalProperties": False,
}
"""A schema every server that enforces any knows; its names are as hard to guess."""
TOOLS: Final = (
    {
        "type": "function",
        "function": {
            "name": "get_tide",
            "description": "Return the height of the tide in a harbour.",
            "parameters": {"type": "object", "properties": {"harbour": {"type": "string"}}, "required": ["harbour"]},
        },
    },
)
CALL_TOKENS: Final = 64
"""Enough for a call of that function in any template's words: a cut one is no call on some servers."""
UNKNOWN: Final = "x_llmparity_probe"
"""A field no server has."""
RAW_TOKENS: Final = 3
"""Most tokens of a one-letter prompt that nothing was put around: a start token, a blank, the letter."""

_GONE = (Unreachable, EngineDied, Timeout, NotAuthorised, Overloaded)
_NO_ROUTE = (404, 405, 501)


class Undecided(Exception):
    """A probe was answered and settled nothing; its text says why."""


class Spent(Exception):
    """The run may send no more requests."""


@dataclass
class Prober:
    """Sends one server's probes, one after the other but for :meth:`ask_both`. ``requests`` counts them.

    ``take`` is asked before each whether it may be sent (``Spent`` is raised where it may not). ``declares`` is what is
    known without asking, ``context`` what the server says one request gets, in tokens (``None`` where it says nothing),
    ``known`` what earlier probes settled, ``refusal`` what a server said that refused the last one.
    """

    adapter: Adapter
    declares: Capabilities
    context: int | None = None
    take: Callable[[], bool] = lambda: True
    requests: int = 0
    known: dict[str, object] = field(default_factory=dict)
    refusal: str = ""
    _greeting: int | None = None

    def ask(
        self,
        request: Request,
        *,
        stream: bool = False,
        change: Mapping[str, object] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Completion:
        """Return the answer; ``change`` replaces fields of the wire's body, or adds them. Raises as answers do.

        No longer than a request may take is waited for it, whatever ``timeout_s``.
        """
        return self._asked(request, stream=stream, change=change, timeout_s=timeout_s)()

    def ask_both(self, request: Request) -> tuple[Completion, Completion]:
        """Return the unstreamed and the streamed answer to one request, asked at the same time."""
        whole = self._asked(request)
        try:
            streamed = self._asked(request, stream=True)
        except Spent:  # one more was allowed
            whole()
            raise
        answer: Future[Completion] = Future()

        def ask() -> None:
            try:
                answer.set_result(streamed())
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                answer.set_exception(error)

        threading.Thread(target=ask, name="llmparity-probe", daemon=True).start()
        try:
            return whole(), result_of(answer)
        except EngineError:
            wait((answer,))  # the next request meets none of this probe
            raise

    def _asked(
        self,
        request: Request,
        *,
        stream: bool = False,
        change: Mapping[str, object] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Callable[[], Completion]:
        """Return a function that sends a request, counted now, and returns the answer; ``Spent`` if it may not be."""
        request = self.adapter.own(request)
        wire = self.adapter.build(request, stream=stream)
        if change:
            wire = build.wire(wire.path, _changed(json.loads(wire.body), change), wire.omitted)
        if not self.take():
            raise Spent
        self.requests += 1
        timeout = min(timeout_s, self.adapter.spec.request_timeout_s)

        def answer() -> Completion:
            reply = self.adapter.control.post(wire.path, wire.body, timeout_s=timeout)
            completion = self.adapter.read(reply, case=CASE)
            return msgspec.structs.replace(completion, max_tokens=request.sampling.max_tokens)

        return answer

    def ask_where_taken(self, request: Request) -> Completion | None:
        """Return the answer to a request, ``None`` where the server refused it; ``refusal`` has its words."""
        try:
            return self.ask(request)
        except EngineError as error:
            if self.refused(error):
                return None
            raise

    def refused(self, error: EngineError) -> bool:
        """Tell whether a server said no to what was asked of it, rather than failed at it, and keep its words."""
        no = isinstance(error, BadRequest) or (isinstance(error, AnswerError) and error.status in _NO_ROUTE)
        if no and not isinstance(error, ContextOverflow):
            self.refusal = str(error)
            return True
        return False

    def greeting_tokens(self) -> int | None:
        """Return how many prompt tokens the plain greeting has, ``None`` where the server does not say."""
        if self._greeting is None:
            self._greeting = self.ask(asking(GREETING, max_tokens=8)).prompt_tokens
        return self._greeting


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One question to a server: the fields it may settle, the most requests it takes, and how it is asked."""

    fields: tuple[str, ...]
    requests: int
    run: Callable[[Prober], Mapping[str, object]]


@dataclass(slots=True)
class Probed:
    """What probes of one server brought: ``values`` of fields of its capabilities, by name.

    ``settled`` are the probes that need not be asked again, ``notes`` say, by probe, why one knows nothing.
    """

    values: dict[str, object] = field(default_factory=dict)
    settled: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    requests: int = 0


def asking(messages: Iterable[Mapping[str, Any]], *, max_tokens: int, **more: Any) -> Request:
    """Return a greedy request of a probe."""
    return Request(case=CASE, messages=tuple(messages), sampling=Sampling(max_tokens=max_tokens), **more)


def probe(
    adapter: Adapter,
    probes: Mapping[str, Probe],
    *,
    declares: Capabilities,
    context: int | None = None,
    known: Mapping[str, object] | None = None,
    take: Callable[[], bool] = lambda: True,
) -> Probed:
    """Ask a server these probes in order. Never raises for what the server does.

    A probe that fails settles nothing and leaves a note; once the server is gone, silent or refuses us, the rest is not
    asked. ``declares`` is what is known without asking, ``context`` what one request gets, in tokens, ``known`` what
    earlier probes found. Once ``take`` says that no more may be sent, the rest is left out without a word.
    """
    prober, result = Prober(adapter, declares=declares, context=context, take=take), Probed()
    prober.known.update(known or {})
    for name, question in probes.items():
        prober.refusal = ""
        try:
            fields = dict(question.run(prober))
        except Spent:
            break
        except Undecided as why:
            result.settled.append(name)
            result.notes[name] = f"nothing found out: {why}"
        except ParameterNotHonoured as error:  # known before anything is sent, and no other next time
            result.settled.append(name)
            result.notes[name] = str(error)
        except EngineError as error:
            result.notes[name] = str(error)
            if isinstance(error, _GONE):
                break
        else:
            result.settled.append(name)
            result.values.update(fields)
            prober.known.update(fields)
            if prober.refusal:
                result.notes[name] = prober.refusal
    result.requests = prober.requests
    return result


def _changed(body: dict[str, Any], change: Mapping[str, object]) -> dict[str, Any]:
    """Return a wire body with fields replaced where they are (a native route keeps some in ``options``), else added."""
    for name, value in change.items():
        options = body.get("options")
        home = options if isinstance(options, dict) and name in options else body
        home[name] = value
    return body


def _content(answer: Completion) -> tuple[object, ...]:
    calls = tuple((call.name, call.arguments) for call in answer.tool_calls)
    return answer.text, answer.reasoning, calls, answer.finish_reason


def _reasons(*answers: Completion) -> bool:
    return any(answer.reasoning or answer.reasoning_tokens for answer in answers)


def _stream(prober: Prober) -> Mapping[str, object]:
    """Ask the same twice, unstreamed and streamed; a difference counts when unstreamed answers repeat themselves.

    Side by side first, which saves every run the time of an answer. Where the two differ, or one fails, being asked
    together may be the reason (a batch has other arithmetic, some servers take one request at a time): then each is
    asked again, alone.
    """
    request = asking(QUESTION, max_tokens=24)
    beside = None
    with contextlib.suppress(Overloaded, ServerFailure, ProtocolError):  # what has another reason is raised again below
        beside, streamed = prober.ask_both(request)
        if _content(beside) == _content(streamed):
            return {"stream_equal": True, "reasons": _reasons(beside, streamed)}
    whole, streamed = prober.ask(request), prober.ask(request, stream=True)
    if _content(whole) == _content(streamed):
        return {"stream_equal": True, "reasons": _reasons(whole, streamed)}
    if (beside is None or _content(whole) != _content(beside)) and _content(whole) != _content(prober.ask(request)):
        raise Undecided("two unstreamed greedy answers to one question differ, so a streamed one proves nothing")
    return {"stream_equal": False, "reasons": _reasons(whole, streamed)}


def _unknown(prober: Prober) -> Mapping[str, object]:
    try:
        prober.ask(asking(GREETING, max_tokens=8), change={UNKNOWN: True})
    except EmptyAnswer:
        pass
    except EngineError as error:
        if prober.refused(error):
            return {"unknown_fields": "refused"}
        raise
    return {"unknown_fields": "dropped"}


def _logprobs(prober: Prober) -> Mapping[str, object]:
    """Ask for as many alternatives as the checks do, and say where logprobs are not those of the answer's tokens.

    What is odd counts where a second answer has it too: one in twenty places may be.
    """
    answer = prober.ask_where_taken(asking(QUESTION, max_tokens=24, top_logprobs=ALTERNATIVES))
    if answer is None or not any(token.logprob is not None for token in answer.logprobs):
        return {"logprobs": False}
    known = {"logprobs": True, "token_ids": any(token.id is not None for token in answer.logprobs)}
    if not Logprobs.of([answer]).trouble:
        return known
    second = prober.ask(asking(POEM, max_tokens=24, top_logprobs=ALTERNATIVES))
    if not Logprobs.of([second]).trouble:
        return known
    return {**known, "odd_logprobs": Logprobs.of([answer, second]).trouble}


def _schema(prober: Prober) -> Mapping[str, object]:
    """Force two texts nobody can guess; the prompt says nothing of them, so an answer that has them was forced.

    White space is left out of account: some grammars allow any amount of it between the parts, and a weak model goes on
    with it for ever (vLLM and SGLang with xgrammar), so the first of the two texts is enough where the answer was cut.
    A server that does not force the texts may only lack ``const``: a schema without it has to fail too.
    """
    answer = _formed(prober, SCHEMA)
    if answer is None:
        return _plain_schema(prober)
    text, cut = "".join(answer.text.split()), answer.cut
    for names in (list(SECRET), sorted(SECRET)):
        whole = json.dumps({name: SECRET[name] for name in names}, separators=(",", ":"))
        if text == whole or (cut and whole.startswith(text) and SECRET[names[0]] in text):
            return {"json_schema": True, "schema_order": names == list(SECRET)}
        if cut and whole.startswith(text):
            raise Undecided(f"the answer to a schema was cut after {answer.completion_tokens or 96} tokens")
    return _plain_schema(prober)


def _plain_schema(prober: Prober) -> Mapping[str, object]:
    """Say no where names nobody can guess are not forced either; where they are, only ``const`` is missing."""
    answer = _formed(prober, PLAIN_SCHEMA)
    if answer is None:
        return {"json_schema": False}
    text = "".join(answer.text.split())
    if any(text.startswith(f'{{"{name}":') for name in PLAIN_SCHEMA["required"]):
        raise Undecided("a schema's properties are forced, its const is not")
    if answer.cut and text in ("", "{"):
        raise Undecided(f"the answer to a schema was cut after {answer.completion_tokens or 96} tokens")
    return {"json_schema": False}


def _formed(prober: Prober, schema: Mapping[str, Any]) -> Completion | None:
    """Return the answer under a schema, ``None`` where it was refused."""
    shape = {"type": "json_schema", "json_schema": {"name": "probe", "strict": True, "schema": schema}}
    answer = prober.ask_where_taken(asking(FORM, max_tokens=96, response_format=shape))
    if answer is not None:
        prober.refusal = ""
    return answer


def _seed(prober: Prober) -> Mapping[str, object]:
    """Sample with one seed twice and with another once: equal texts prove something only where another seed differs."""
    first, again = _sampled(prober, 7), _sampled(prober, 7)
    if _content(first) != _content(again):
        return {"seed": False}
    if _content(_sampled(prober, 8)) == _content(first):
        raise Undecided("answers sampled with different seeds are the same, so the seed proves nothing")
    return {"seed": True}


def _sampled(prober: Prober, seed: int) -> Completion:
    """Ask at temperature 1, also of adapters that refuse to sample where a server's defaults are not known."""
    greedy = Sampling(max_tokens=24, seed=seed)
    try:
        sampling = dataclasses.replace(greedy, temperature=1.0)
        return prober.ask(Request(case=CASE, messages=POEM, sampling=sampling))
    except ParameterNotHonoured:
        name = prober.adapter.fields.get("temperature", "temperature")
        return prober.ask(Request(case=CASE, messages=POEM, sampling=greedy), change={name: 1.0})


def _tools(prober: Prober) -> Mapping[str, object]:
    """Offer a function: it must make the prompt longer, or be called; one that does neither was dropped.

    A no is said only by counts that move: some servers count nothing, or the same for every prompt.
    """
    without = prober.greeting_tokens()
    answer = prober.ask_where_taken(asking(GREETING, max_tokens=CALL_TOKENS, tools=TOOLS))
    if answer is None:
        return {"tools": False}
    if answer.tool_calls:
        return {"tools": True}
    if without is None or answer.prompt_tokens is None:
        raise Undecided("the server takes tools, but does not say how many tokens a prompt has: it may drop them")
    if answer.prompt_tokens > without:
        return {"tools": True}
    longer = prober.ask(asking(LONG_GREETING, max_tokens=8)).prompt_tokens
    if longer is None or longer <= without:
        raise Undecided(
            f"the server says {without} tokens of a short prompt and {longer} of a long one: it does not count"
        )
    return {"tools": False}


def _raw(prober: Prober) -> Mapping[str, object]:
    """Send one letter: more than a few prompt tokens mean that something was put around it."""
    answer = prober.ask_where_taken(Request(case=CASE, prompt="a", sampling=Sampling(max_tokens=8)))
    if answer is None:
        return {"raw_prompt": False}
    if answer.prompt_tokens is None:
        raise Undecided("the server does not say how many tokens a raw prompt has")
    return {"raw_prompt": answer.prompt_tokens <= RAW_TOKENS}


STREAM: Final = Probe(fields=("stream_equal", "reasons"), requests=5, run=_stream)
UNKNOWN_FIELDS: Final = Probe(fields=("unknown_fields",), requests=1, run=_unknown)
LOGPROBS: Final = Probe(fields=("logprobs", "token_ids", "odd_logprobs"), requests=2, run=_logprobs)
STRUCTURED: Final = Probe(fields=("json_schema", "schema_order"), requests=2, run=_schema)
SEED: Final = Probe(fields=("seed",), requests=3, run=_seed)
OFFERED: Final = Probe(fields=("tools",), requests=3, run=_tools)
RAW: Final = Probe(fields=("raw_prompt",), requests=1, run=_raw)
