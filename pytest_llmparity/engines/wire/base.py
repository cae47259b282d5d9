"""What every adapter shares: an OpenAI-shaped wire, control calls, and the facts known before anything is sent."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from pytest_llmparity.core.errors import (
    EmptyAnswer,
    EngineError,
    EngineSelectionError,
    LaunchError,
    NotAuthorised,
    ParameterNotHonoured,
    ProtocolError,
    Timeout,
    TlsFailure,
    Unreachable,
)
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.quantization import says_less
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.sample import Completion, Fact, Identity, Request, Sampling, WireRequest
from pytest_llmparity.core.words.hiding import TextMask
from pytest_llmparity.engines.facts import device
from pytest_llmparity.engines.wire import build, read
from pytest_llmparity.engines.wire.control import API, Control, Reply, routed, sent_secrets
from pytest_llmparity.engines.wire.refusals import read_refusal, shown
from pytest_llmparity.settings.specification import EngineSpec, Route

ATTACH_DEADLINE_S: Final = 10.0
"""How long a server somebody else started may take to answer: it is there already, or its address is wrong."""

_LIST: Final = "/v1/models"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How one engine process is started and stopped.

    ``env`` is laid over the inherited environment after every variable that matches a pattern of ``scrub``
    (``fnmatch``) was taken out of it. ``deadline_s`` is the time to become ready; ``stop_signal`` is followed by
    SIGKILL to the whole tree after ``grace_s``.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    scrub: tuple[str, ...] = ()
    cwd: Path
    deadline_s: float
    stop_signal: int = signal.SIGTERM
    grace_s: float = 10.0


class Adapter:
    """Our code for one kind of engine, around one server. Satisfies ``core.ports.Engine``.

    Subclasses set ``kind``, ``fields`` (the allow-list: our sampling name to the wire's) and ``health_path``, and say
    how to launch and identify. ``base_url`` is the server's root, ``headers`` go with every request (they may hold
    secrets: never write them down). ``can`` is what this server can do: ``declares`` until probes have corrected it.
    """

    kind: ClassVar[str] = ""
    fields: ClassVar[Mapping[str, str]] = build.EVERY_SERVER
    constants: ClassVar[Mapping[str, Any]] = {}
    stream_fields: ClassVar[Mapping[str, Any]] = {"stream": True, "stream_options": {"include_usage": True}}
    """What asks for a stream, and in it for token counts where the server knows how to send them."""
    counts_in_streams: ClassVar[bool] = True
    """Whether a stream can carry token counts; answers of other kinds are asked for whole where nothing is timed."""
    health_path: ClassVar[str] = "/health"
    raw_honours_format: ClassVar[bool] = False
    queues_beyond_slots: ClassVar[bool] = False
    """Whether a server of this kind answers a fixed number of requests at once, set at its start; others queue."""
    declares: ClassVar[Capabilities] = Capabilities()
    """What every server of this kind can do, as far as its documentation or source says; probes correct it."""
    routes: ClassVar[tuple[Route, ...]] = ("openai",)
    """Ways to ask a server of this kind; ``spec.route`` is one of them."""
    local_model: ClassVar[bool] = True
    """Whether a model of this kind may be written as a local file or folder."""
    how_to_attach: ClassVar[str] = "give base_url to attach to a running server"
    """What a person does instead where a kind cannot be started by us; ends a sentence."""
    log_hint: ClassVar[str] = "what it printed where it was started (docker logs NAME, journalctl -u NAME)"
    """Where a person finds what a server says that somebody else started."""
    unloads: ClassVar[bool] = False
    """Whether :meth:`unload` can make a server that somebody else started give its memory back."""
    daemon: ClassVar[bool] = False
    """Whether people have one such server running that holds all their models, which a model's name then means."""
    distributions: ClassVar[tuple[str, ...]] = ()
    """Packages that hold a server of this kind; where ``requires`` installs one, its version is the engine's."""
    least_logprobs: ClassVar[int] = 0
    """The smallest ``top_logprobs`` with which this kind still reports the chosen token."""
    most_logprobs: ClassVar[int | None] = None
    """The largest ``top_logprobs`` this kind takes; a request for more asks for this many. ``None``: nobody knows."""
    warm_up_logprobs: ClassVar[int | None] = None
    """``top_logprobs`` of the warm-up, for kinds that compile that path when it is first asked for."""

    def __init__(self, spec: EngineSpec, base_url: str, headers: Mapping[str, str]) -> None:
        self.spec = spec
        self.base_url = base_url.rstrip("/")
        self.api = API if spec.api is None else spec.api
        """What OpenAI's routes start with below :attr:`base_url`."""
        self.headers = dict(headers)
        self.recognised = ""
        """What the server of a bare URL was seen to be (``engines.recognise``); empty while nobody looked."""
        self.can = self.declares
        self.time_left: Callable[[], float | None] = lambda: None
        """Seconds the run may still take, ``None`` for no end: no control call lasts longer."""
        self._model = self.wire_model(spec)
        self._fingerprint = ""
        self._warm_headers: Mapping[str, str] = {}

    @property
    def name(self) -> str:
        """The engine's name in this run."""
        return self.spec.name

    @property
    def openai_base_url(self) -> str:
        """What a client of the ``openai`` package takes as ``base_url``."""
        return self.base_url + self.api

    @property
    def api_key(self) -> str:
        """The key sent with every request; ``EMPTY`` where the server wants none (clients insist on a value)."""
        scheme, _, key = self.headers.get("authorization", "").partition(" ")
        return key if scheme.lower() == "bearer" and key else "EMPTY"

    @property
    def control(self) -> Control:
        """Asks this server unmeasured questions."""
        return Control(
            engine=self.name,
            base_url=self.base_url,
            api=self.api,
            headers=self.headers,
            ca_bundle=self.spec.ca_bundle,
            proxy=self.spec.proxy,
            mask=self.mask,
            time_left=self.time_left,
        )

    @functools.cached_property
    def mask(self) -> TextMask:
        """Hides what the server repeats of the keys it is sent; errors are worded from what it leaves."""
        return TextMask(sent_secrets(self.spec, self.headers))

    @property
    def model(self) -> str:
        """The model's name on the wire: the configured one, else the only one the server lists (asked once)."""
        if not self._model:
            self._model = self._only_model()
        return self._model

    @classmethod
    def wire_model(cls, spec: EngineSpec) -> str:
        """Return the name requests will carry, empty when the server has to be asked."""
        return spec.model or ""

    @classmethod
    def launch(cls, spec: EngineSpec, port: int, workdir: Path, *, environ: Mapping[str, str] = os.environ) -> Launch:
        """Say how to start this engine on a loopback port; ``LaunchError`` says why it cannot be, and what to do."""
        raise LaunchError(
            f"{spec.name}: engines of kind {cls.kind!r} cannot be started from here; {cls.how_to_attach}.",
            engine=spec.name,
        )

    def start_deadline_s(self) -> float:
        """Return how long readiness may take for a server that was not launched by us."""
        return self.spec.start_timeout_s if self.spec.start_timeout_s is not None else ATTACH_DEADLINE_S

    # ---- readiness -------------------------------------------------------------------------------------------------

    def ready(self) -> str | None:
        """Return ``None`` when the server can answer, else why not yet.

        Raises for a final no: ``NotAuthorised``, ``TlsFailure``, or ``LaunchError`` when another server answers on
        our port.
        """
        reply = self._reached(self.health_path)
        if isinstance(reply, str):
            return reply
        return self._impostor(reply) if reply.status == 200 else None

    def _reached(self, path: str) -> Reply | str:
        """Return the 200 answer to GET ``path``, else why there is none; ``NotAuthorised`` when the key is refused.

        A key may be good for answers and not for the list of models. Where the model is known that refusal is returned
        instead of raised: the warm-up tells whether the key is any good.
        """
        try:
            reply = self.control.get(path)
        except TlsFailure:
            raise  # waiting mends no certificate
        except Unreachable:
            return f"nothing listens at {self.base_url}"
        except (Timeout, ProtocolError) as exc:
            return str(exc)
        if reply.status in (401, 403):
            if path == _LIST and self._model:
                return reply
            raise self._not_authorised(path, reply)
        if reply.status == 200:
            return reply
        return _said(routed(path, self.api), reply)

    def _not_authorised(self, path: str, reply: Reply) -> NotAuthorised:
        """Return the error of a refused key, with the server's own words and what would help."""
        advice = "Set api_key_env to the variable that holds its key."
        if "authorization" in self.headers:
            advice = "Look whether the variable named by api_key_env holds a key this server accepts."
        if path == _LIST:
            advice += (
                " A key that may not list models will do where the model is named: "
                f"{self.openai_base_url}#MODEL, or model = in the configuration."
            )
        return NotAuthorised(
            f"{self.name} refused the key: {_said(routed(path, self.api), reply)}. {advice}",
            engine=self.name,
            status=reply.status,
        )

    def _impostor(self, reply: Reply) -> str | None:
        """Raise when the server that answers cannot be the one we started; nothing to say for most kinds."""
        return None

    def _another(self, serves: object, *, instead_of: str) -> LaunchError:
        """Return the error of a port of ours that another server has."""
        return LaunchError(
            f"{self.name}: another server answers on its port, serving {serves!r} instead of {instead_of!r}. "
            "Start again: another port will be taken.",
            engine=self.name,
        )

    def warm_up(self) -> None:
        """Ask for one token and drop it: a first request differs in time, on vLLM in text too. Raises as answers do."""
        self._first_answer(self.spec.request_timeout_s)

    def _first_answer(self, timeout_s: float) -> None:
        """Ask for one token, keep what its answer says about the server, drop the rest."""
        request = Request(
            case="warm-up",
            messages=({"role": "user", "content": "Hi"},),
            sampling=Sampling(max_tokens=1),
            top_logprobs=self.warm_up_logprobs,
        )
        built = self.build(request, stream=False)
        reply = self.control.post(built.path, built.body, timeout_s=timeout_s)
        self._warm_headers = reply.headers
        try:
            self._fingerprint = self.parse(reply, case="warm-up").fingerprint
        except EmptyAnswer:
            return

    def load(self) -> None:
        """Bring the model into a server that answers without it (Ollama, LM Studio); most kinds have it by then.

        Called once between readiness and warm-up, with the deadline of a start. Raises ``LaunchError`` or an
        ``AnswerError`` that says which command fetches the model; nothing is downloaded unless ``spec.download``.
        """

    def unload(self) -> None:
        """Make the server give the model's memory back, keeping the server; ``LaunchError`` says why it cannot."""
        raise LaunchError(
            f"{self.name}: a server of kind {self.kind!r} cannot be told to unload its model; start it from here "
            "(leave base_url out), or use residency = 'together'.",
            engine=self.name,
        )

    def residence(self) -> WireRequest | None:
        """Return the request whose answer tells whether our model is in memory, ``None`` where no route tells.

        Sent before and after every block of a timed phase.
        """
        return None

    def resident(self, answer: Answer) -> bool | None:
        """Return whether the model is in memory, from the answer to :meth:`residence`; ``None`` where it does not say.

        In memory means: a request is answered without loading anything.
        """
        return None

    def met_load(self, completion: Completion) -> bool:
        """Tell whether an answer says of itself that the model was loaded for it."""
        return False

    def crowds_out(self, other: EngineSpec) -> str | None:
        """Say why a request of ours makes a server that answers ``other`` too drop that one's model, ``None`` if none.

        Asked when every engine of the run has been loaded, of those that are attached.
        """
        return None

    def shares_with(self, other: EngineSpec) -> str | None:
        """Say why a request for ``other`` would be answered by the process that answers ours, as another model.

        Asked before :meth:`load`, of every other engine that is attached at the same time; ``None`` when it would not.
        """
        return None

    def capabilities(self) -> Capabilities:
        """Return what this very server can do as far as it says: :attr:`declares`, corrected by its own settings."""
        return self.declares

    def learnt(self, found: Capabilities) -> None:
        """Take note of what this server can do, as probes found it: requests are built for that."""
        self.can = found

    def restore(self) -> None:
        """Let a server that was told to unload serve others again, at the end of a run; raises as :meth:`load` does.

        Nothing to do for kinds that load a model when it is asked for.
        """

    def limits(self) -> tuple[str, ...]:
        """Return what this route silently drops or changes, a sentence each, for people who read ``doctor``."""
        return ()

    # ---- identity --------------------------------------------------------------------------------------------------

    def identity(self) -> Identity:
        """Ask the live server what it is; what it does not say comes from local files, then the configuration.

        Where it only names the method of a quantisation that the files name with its bits, theirs is kept.
        """
        files, reported = self.from_files(), self.reported()
        facts = self.machine() | self.declared() | files | reported
        stored, said = files.get("quantization"), reported.get("quantization")
        if stored and said and stored.source == "file" and says_less(str(said.value), str(stored.value)):
            raw = f"{stored.raw or stored.value}; reported: {said.raw or said.value}"
            facts["quantization"] = dataclasses.replace(stored, raw=raw)
        return Identity(facts={"kind": Fact(value=self.kind, source="declared")} | facts)

    def machine(self) -> dict[str, Fact]:
        """Return what a server that we start computes with: this machine's GPUs and CPU."""
        found = device.of_process(self.spec.env) if self.spec.launch == "process" else ""
        return {"device": Fact(value=found, source="file")} if found else {}

    def declared(self) -> dict[str, Fact]:
        """Return what only the configuration says."""
        facts = {"model": self.model, "revision": self.spec.revision}
        return {name: Fact(value=value, source="declared") for name, value in facts.items() if value}

    def from_files(self) -> dict[str, Fact]:
        """Return what local model files say, where we know that the server reads them."""
        return {}

    def reported(self) -> dict[str, Fact]:
        """Return what the server says about itself."""
        return {}

    def trained_context(self) -> int | None:
        """Return how many tokens the model was trained for, of a server without a limit; ``None`` when not known."""
        return None

    def _entry(self) -> Mapping[str, Any]:
        """Return our model's entry of ``/v1/models``: the one with our name, else the only one."""
        data = self.control.ask(_LIST).get("data")
        entries = [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
        for entry in entries:
            if self._model and entry.get("id") == self._model:
                return entry
        return entries[0] if len(entries) == 1 else {}

    def _only_model(self) -> str:
        reply = self.control.get(_LIST)
        if reply.status in (401, 403):
            raise self._not_authorised(_LIST, reply)
        data = reply.json().get("data")
        how = f"{self.openai_base_url}#MODEL, or model = in the configuration."
        if not isinstance(data, list):
            raise EngineSelectionError(
                f"{self.name}: which models there are cannot be told: {_said(routed(_LIST, self.api), reply)}, no list "
                f"of models. Say which one is meant: {how} If {self.openai_base_url} is not what a client of OpenAI's "
                "API takes as its base URL, correct base_url."
            )
        listed = [entry.get("id") for entry in data if isinstance(entry, dict)]
        names = [name for name in listed if isinstance(name, str) and name]
        if len(names) == 1:
            return names[0]
        if not names:
            raise EngineSelectionError(
                f"{self.name}: {self.control.url(_LIST)} lists no model. Load one there, or say which one it serves "
                f"without listing it: {how}"
            )
        known = ", ".join(shown(name, 80) for name in names[:20])
        raise EngineSelectionError(
            f"{self.name}: {self.base_url} serves {len(names)} models ({known}), so which one is meant must be said: "
            f"{how}"
        )

    # ---- the wire --------------------------------------------------------------------------------------------------

    def build(self, request: Request, *, stream: bool = True) -> WireRequest:
        """Put a request into this engine's words; ``ParameterNotHonoured`` if it has no word for what matters."""
        sampling, omitted = self._sampling_fields(request)
        body: dict[str, Any] = {"model": self.model}
        if request.prompt is not None:
            self._refuse_for_raw(request)
            body["prompt"] = request.prompt
            if request.response_format is not None:
                body["response_format"] = dict(request.response_format)
        else:
            body |= self._chat_fields(request)
        body |= sampling
        body |= self.constants
        body |= self._logprob_fields(request)
        if stream and self.can_stream(request):
            body |= self.stream_fields
        else:
            body |= self._unstreamed_fields(request)
        path = build.RAW_PATH if request.prompt is not None else build.CHAT_PATH
        return build.wire(routed(path, self.api), body, omitted)

    def _sampling_fields(self, request: Request) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return the sampling in this engine's words, and our names of what was left out."""
        return build.sampling_fields(request.sampling, self.fields, engine=self.name, case=request.case)

    def _chat_fields(self, request: Request) -> dict[str, Any]:
        """Return messages, tools and format in this engine's words."""
        return build.chat_fields(request)

    def _logprob_fields(self, request: Request) -> dict[str, Any]:
        """Return the fields that ask for logprobs, none when the request wants none."""
        if request.top_logprobs is None:
            return {}
        top = max(request.top_logprobs, self.least_logprobs)
        if self.most_logprobs is not None:
            top = min(top, self.most_logprobs)
        return {"logprobs": top} if request.prompt is not None else {"logprobs": True, "top_logprobs": top}

    def _unstreamed_fields(self, request: Request) -> dict[str, Any]:
        """Return fields that ask for more than the answer where it comes whole, the server's timings say."""
        return {}

    def can_stream(self, request: Request) -> bool:
        """Tell whether this request may be streamed; one that may not is sent unstreamed, with the same answer."""
        return True

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

    def parse(self, answer: Answer, *, case: str) -> Completion:
        """Read a finished answer, streamed or not; raises an ``AnswerError`` that names engine and case."""
        return read.parse_answer(answer, engine=self.name, case=case)

    def token_ends(self, answer: Answer) -> tuple[int, ...]:
        """Return the body offsets at which events with generated tokens end; empty when not streamed, or no answer.

        :meth:`parse` finds them while it reads. Only an adapter that parses without the base has one of its own.
        """
        try:
            return self.parse(answer, case="").token_ends
        except EngineError:
            return ()

    def read(self, answer: Answer, *, case: str) -> Completion:
        """Read a finished answer together with its token ends; raises as :meth:`parse` does."""
        completion = self.parse(answer, case=case)
        if type(self).token_ends is Adapter.token_ends:
            return completion
        return dataclasses.replace(completion, token_ends=self.token_ends(answer))


def _said(path: str, reply: Reply) -> str:
    """Return what a server answered to a GET, in its own words."""
    words = shown(read_refusal(reply.body).message, 120)
    return f"GET {path} says {reply.status}" + (f" ({words})" if words else "")
