"""Putting a request into an OpenAI-shaped server's words: deterministic bytes, nothing left to its defaults."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Final

from pytest_llmparity.core.errors import ParameterNotHonoured
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.prompts import parts
from pytest_llmparity.core.sample import NEUTRAL, JsonObject, Request, Sampling, WireRequest
from pytest_llmparity.engines.wire import responses
from pytest_llmparity.engines.wire.control import API, routed
from pytest_llmparity.settings.specification import EngineSpec, Route

CHAT_PATH: Final = "/v1/chat/completions"
RAW_PATH: Final = "/v1/completions"

_OF_OPENAI: Final = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "stop", "max_tokens")
EVERY_SERVER: Final = {name: name for name in _OF_OPENAI}
"""Sampling fields of OpenAI's own API, our name to the wire's."""

OPEN_SERVERS: Final = EVERY_SERVER | {name: name for name in ("top_k", "min_p", "repetition_penalty")}
"""The same with what servers of open weights have beside it, under the names most of them use."""

ON_ROUTES: Final[Mapping[Route, Mapping[str, Any]]] = {
    "responses": {"raw_prompt": False, "json_schema": None, "schema_order": None, "logprobs": None, "token_ids": None},
    "completions": dict.fromkeys(("tools", "images", "audio", "reasoning_effort", "thinking_switch"), False),
}
"""What no route of that name can do whatever the kind, and what is known of none before its server was asked."""


def sampling_fields(
    sampling: Sampling, fields: Mapping[str, str], *, engine: str, case: str, off: Collection[str] = ()
) -> tuple[JsonObject, tuple[str, ...]]:
    """Return the wire's sampling fields and the names left out.

    ``fields`` is the engine's allow-list. A neutral value it has no word for is left out of a greedy request only:
    ``top_k`` and ``min_p`` cannot change an argmax. (A server that penalises repetition by default could still change
    a greedy answer; nobody can tell from outside, so the name is recorded.) What the engine is known to leave off
    by itself (``off``) is left out of any request, and not recorded: nothing hangs on a default. Anything else raises
    ``ParameterNotHonoured``.
    """
    sent: JsonObject = {}
    omitted: list[str] = []
    for name in Sampling.__dataclass_fields__:
        value = getattr(sampling, name)
        if value is None or value == ():
            continue
        if name in fields:
            sent[fields[name]] = list(value) if isinstance(value, tuple) else value
        elif value != NEUTRAL.get(name):
            raise ParameterNotHonoured(
                f"{engine} has no field for {name}={value!r} of case {case!r}. Leave {name} neutral "
                f"({NEUTRAL.get(name)!r}), or name the engine's kind if it is one that has it.",
                engine=engine,
                case=case,
            )
        elif name in off:
            continue
        elif sampling.temperature > 0:
            raise ParameterNotHonoured(
                f"{engine} has no field for {name}, and case {case!r} samples at temperature {sampling.temperature:g}, "
                f"where the server's unknown default of {name} would change the answer. Ask greedily (temperature 0), "
                "or name the engine's kind if it is one that has it.",
                engine=engine,
                case=case,
            )
        else:
            omitted.append(name)
    return sent, tuple(omitted)


def unseeded(sampling: Sampling, fields: Mapping[str, str]) -> tuple[Sampling, tuple[str, ...]]:
    """Return greedy sampling without a seed that ``fields`` has no word for, and the name of what was left out.

    No seed changes an argmax; sampled answers need theirs.
    """
    if "seed" in fields or sampling.seed is None or sampling.temperature > 0:
        return sampling, ()
    return dataclasses.replace(sampling, seed=None), ("seed",)


def encode(body: Mapping[str, Any]) -> bytes:
    """Return the body's bytes: compact JSON in the order given, UTF-8, lone surrogates as escapes.

    The order is kept because it is meaning: engines force a schema's properties in the order they are declared.
    """
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # JSON's escape of a lone surrogate is spelled like Python's, and UTF-8 has no other way to carry one.
    return text.encode("utf-8", "backslashreplace")


def wire(path: str, body: Mapping[str, Any], omitted: tuple[str, ...]) -> WireRequest:
    """Return the finished request with its hash."""
    encoded = encode(body)
    return WireRequest(path=path, body=encoded, sha256=hashlib.sha256(encoded).hexdigest(), omitted=omitted)


def chat_fields(request: Request) -> JsonObject:
    """Return the chat route's fields that are the request's own: messages, tools, tool choice, format."""
    body: JsonObject = {"messages": parts.sent(request.messages or (), request.attached)}
    if request.tools:
        body["tools"] = list(request.tools)
        if request.tool_choice is not None:
            body["tool_choice"] = request.tool_choice
    if request.response_format is not None:
        body["response_format"] = dict(request.response_format)
    return body


def with_further(body: JsonObject, request: Request, *, engine: str) -> JsonObject:
    """Return the body with the fields that are passed through; ``ParameterNotHonoured`` for one that is sent already.

    What a verdict says of sampling, limits and streams is what is sent: no field of ours gives way. ``options`` of a
    native route stand beside those that are sent.
    """
    further = dict(request.extra_body)
    ours, more = body.get("options"), further.get("options")
    twice = sorted(body.keys() & further.keys() - {"options"})
    if isinstance(ours, Mapping) and "options" in further:
        if not isinstance(more, Mapping):
            twice.append("options")
        else:
            twice += sorted(f"options.{name}" for name in ours.keys() & more.keys())
            further["options"] = {**ours, **more}
    if twice:
        raise ParameterNotHonoured(
            f"extra_body of case {request.case!r} has {twice[0]}, which is sent to {engine} anyway. Say it where it "
            "has its place (sampling, the engine's configuration), or leave it out.",
            engine=engine,
            case=request.case,
        )
    return {**body, **further}


def refuse_ignored(fields: JsonObject, ignores: Mapping[str, str], *, engine: str, case: str) -> JsonObject:
    """Return chat fields without those the engine ignores, name to why; one that asks for something is refused."""
    for name, why in ignores.items():
        asked = fields.get(name)
        if asked not in (None, "auto") and not (isinstance(asked, Mapping) and asked.get("type") == "text"):
            raise refuse(name, why, engine=engine, case=case)
    return {name: value for name, value in fields.items() if name not in ignores}


def refuse(parameter: str, why: str, *, engine: str, case: str) -> ParameterNotHonoured:
    """Return the error of a request that asks for what the engine would ignore; ``why`` names the source of that."""
    return ParameterNotHonoured(
        f"{engine} would ignore {parameter} of case {case!r}: {why}. Leave it out of the case, or compare on an engine "
        "that has it.",
        engine=engine,
        case=case,
    )


def effort_to_template(fields: JsonObject, *, keep: bool) -> JsonObject:
    """Return what is said of reasoning with its effort as an argument of the chat template, which reads it by its name.

    ``none`` turns reasoning off, as templates with a switch take it. What the template is told anyway stays. ``keep``:
    the field itself is sent too.

    >>> effort_to_template({"reasoning_effort": "high"}, keep=False)
    {'chat_template_kwargs': {'reasoning_effort': 'high'}}
    """
    effort = fields.get("reasoning_effort")
    if effort is None:
        return fields
    given = fields.get("chat_template_kwargs")
    argument: JsonObject = {"enable_thinking": False} if effort == "none" else {"reasoning_effort": effort}
    sent: JsonObject = {"reasoning_effort": effort} if keep else {}
    return {**sent, "chat_template_kwargs": argument | (dict(given) if isinstance(given, Mapping) else {})}


class RequestBuilder:
    """The half of an adapter that asks: a request in the words of one kind of server, one way for all of them.

    Kinds say by the attributes below in which words, and by the methods behind :meth:`build` what these do not cover.
    """

    routes: ClassVar[tuple[Route, ...]] = ("openai", "completions")
    """Ways to ask a server of this kind; ``spec.route`` is one of them."""
    declares: ClassVar[Capabilities] = Capabilities()
    """What every server of this kind can do, as far as its documentation or source says; probes correct it."""
    on_routes: ClassVar[Mapping[Route, Mapping[str, Any]]] = {}
    """What of it is otherwise on a route, by field, beside what :data:`ON_ROUTES` says of every kind."""
    fields: ClassVar[Mapping[str, str]] = EVERY_SERVER
    responses_fields: ClassVar[Mapping[str, str]] = responses.FIELDS
    """The same as :attr:`fields` on route ``responses``."""
    constants: ClassVar[Mapping[str, Any]] = {}
    stream_fields: ClassVar[Mapping[str, Any]] = {"stream": True, "stream_options": {"include_usage": True}}
    """What asks for a stream, and in it for token counts where the server knows how to send them."""
    counts_in_streams: ClassVar[bool] = True
    """Whether a stream can carry token counts; answers of other kinds are asked for whole where nothing is timed."""
    raw_honours_format: ClassVar[bool] = False
    ignores: ClassVar[Mapping[str, str]] = {}
    """Fields of a chat it takes and does not read, each with why we know; a request that needs one is refused."""
    least_logprobs: ClassVar[int] = 0
    """The smallest ``top_logprobs`` with which this kind still reports the chosen token."""
    most_logprobs: ClassVar[int | None] = None
    """The largest ``top_logprobs`` this kind takes; a request for more asks for this many. ``None``: nobody knows."""
    warm_up_logprobs: ClassVar[int | None] = None
    """``top_logprobs`` of the warm-up, for kinds that compile that path when it is first asked for."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.api = API if spec.api is None else spec.api
        """What OpenAI's routes start with below the server's root."""

    @property
    def name(self) -> str:
        """The engine's name in this run."""
        return self.spec.name

    @property
    def model(self) -> str:
        """The model's name on the wire."""
        return self.wire_model(self.spec)

    @classmethod
    def wire_model(cls, spec: EngineSpec) -> str:
        """Return the name requests will carry, empty when the server has to be asked.

        Of a file or folder that we serve it is the name: a path would make request hashes differ between machines.
        """
        if spec.model_path is not None and spec.launched:
            return spec.model_path.name
        return spec.model or ""

    @property
    def gives_logprobs(self) -> bool:
        """Whether logprobs may be asked for over this route."""
        return self.on_route().logprobs is not False

    def on_route(self) -> Capabilities:
        """Return what a server of this kind can do over the route that it is asked by: :attr:`declares`, corrected."""
        route = self.spec.route
        return dataclasses.replace(self.declares, **{**ON_ROUTES.get(route, {}), **self.on_routes.get(route, {})})

    def build(self, request: Request, *, stream: bool = True) -> WireRequest:
        """Put a request into this engine's words; ``ParameterNotHonoured`` if it has no word for what matters."""
        if self.spec.route == "responses":
            return self._response(request, stream=stream)
        self._refuse_for_completions(request)
        sampling, omitted = self._sampling_fields(request)
        body: JsonObject = {"model": self.model}
        if request.prompt is not None:
            self._refuse_for_raw(request)
            body["prompt"] = request.prompt
            if request.response_format is not None:
                body["response_format"] = dict(request.response_format)
        else:
            body |= self._chat_fields(request)
        body |= self._thinking_fields(request)
        body |= sampling
        body |= self._choice_fields(request)
        body |= self.constants
        if self.gives_logprobs:
            body |= self._logprob_fields(request)
        if stream and self.can_stream(request):
            body |= self.stream_fields
        else:
            body |= self._unstreamed_fields(request)
        body = with_further(body, request, engine=self.name)
        path = RAW_PATH if request.prompt is not None else CHAT_PATH
        return wire(routed(path, self.api), body, omitted)

    def _response(self, request: Request, *, stream: bool) -> WireRequest:
        """Put a request into the words of OpenAI's Responses route."""
        if request.prompt is not None:
            raise ParameterNotHonoured(
                f"{self.name} is asked over route 'responses', which takes no raw prompt (case {request.case!r}). "
                "Write messages, or use another route.",
                engine=self.name,
                case=request.case,
            )
        if request.n > 1:
            raise self._one_choice(request, "route 'responses' gives one answer to a request (OpenAI's reference)")
        sampling, omitted = self._responses_sampling(request)
        chat = self._chat_fields(request) | self._thinking_fields(request)
        body: JsonObject = {"model": self.model, **responses.body_of(chat, engine=self.name, case=request.case)}
        body |= sampling
        body |= self.constants
        if request.top_logprobs is not None and self.gives_logprobs:
            asked = RequestBuilder._logprob_fields(self, request)
            body |= {"include": [responses.LOGPROBS], "top_logprobs": asked["top_logprobs"]}
        # Said either way: transformers serve streams unless it is told not to.
        body["stream"] = stream and self.can_stream(request)
        body = with_further(body, request, engine=self.name)
        return wire(routed(responses.PATH, self.api), body, omitted)

    def _responses_sampling(self, request: Request) -> tuple[JsonObject, tuple[str, ...]]:
        """Return the sampling in the words of route ``responses``; a seed it has no field for changes no argmax."""
        fields, engine = self.responses_fields, f"{self.name} (route responses)"
        sampling, without = unseeded(request.sampling, fields)
        sent, omitted = sampling_fields(sampling, fields, engine=engine, case=request.case)
        return sent, (*omitted, *without)

    def _sampling_fields(self, request: Request) -> tuple[JsonObject, tuple[str, ...]]:
        """Return the sampling in this engine's words, and our names of what was left out."""
        return sampling_fields(request.sampling, self.fields, engine=self.name, case=request.case)

    def _chat_fields(self, request: Request) -> JsonObject:
        """Return messages, tools and format in this engine's words."""
        return refuse_ignored(chat_fields(request), self.ignores, engine=self.name, case=request.case)

    def _thinking_fields(self, request: Request) -> JsonObject:
        """Return what the request says of reasoning in this engine's words; ``ParameterNotHonoured`` where it has none.

        ``reasoning_effort`` is OpenAI's name, ``chat_template_kwargs`` that of servers of open weights.
        """
        return refuse_ignored(dict(request.thinking), self.ignores, engine=self.name, case=request.case)

    def _choice_fields(self, request: Request) -> JsonObject:
        """Return the field for several choices; ``ParameterNotHonoured`` of a kind that gives one whatever is asked."""
        if request.n > 1 and "n" in self.ignores:
            raise self._one_choice(request, self.ignores["n"])
        return {"n": request.n} if request.n > 1 else {}

    def _one_choice(self, request: Request, why: str) -> ParameterNotHonoured:
        return ParameterNotHonoured(
            f"{self.name} would give one answer to case {request.case!r}, which asks for n = {request.n}: {why}. Leave "
            f"n out and give the marker repeats={request.n}, or compare engines that give several.",
            engine=self.name,
            case=request.case,
        )

    def _logprob_fields(self, request: Request) -> JsonObject:
        """Return the fields that ask for logprobs, none when the request wants none."""
        if request.top_logprobs is None:
            return {}
        top = max(request.top_logprobs, self.least_logprobs)
        if self.most_logprobs is not None:
            top = min(top, self.most_logprobs)
        return {"logprobs": top} if request.prompt is not None else {"logprobs": True, "top_logprobs": top}

    def _unstreamed_fields(self, request: Request) -> JsonObject:
        """Return fields that ask for more than the answer where it comes whole, the server's timings say."""
        return {}

    def can_stream(self, request: Request) -> bool:
        """Tell whether this request may be streamed; one that may not is sent unstreamed, with the same answer."""
        return True

    def own(self, request: Request) -> Request:
        """Return a question of ours as this route can be asked it.

        As a raw prompt where it takes nothing else, and with room for an answer as long as it insists on.
        """
        if self.spec.route == "responses":
            most = max(request.sampling.max_tokens, responses.LEAST_TOKENS)
            return dataclasses.replace(request, sampling=dataclasses.replace(request.sampling, max_tokens=most))
        if self.spec.route != "completions" or request.messages is None:
            return request
        text = "\n".join(str(turn.get("content") or "") for turn in request.messages)
        return dataclasses.replace(request, messages=None, prompt=text)

    def _refuse_for_completions(self, request: Request) -> None:
        if self.spec.route == "completions" and request.prompt is None:
            raise ParameterNotHonoured(
                f"{self.name} is asked over route 'completions', which takes raw prompts alone, and case "
                f"{request.case!r} has messages. Write its text as prompt, or use route = 'openai'.",
                engine=self.name,
                case=request.case,
            )

    def _refuse_for_raw(self, request: Request) -> None:
        lost = "tools" if request.tools else ""
        if request.response_format is not None and not self.raw_honours_format:
            lost = "response_format"
        if lost:
            raise ParameterNotHonoured(
                f"{self.name} takes no {lost} with a raw prompt (case {request.case!r}); use messages for this case.",
                engine=self.name,
                case=request.case,
            )
