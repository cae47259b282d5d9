"""What every adapter shares: an OpenAI-shaped wire, control calls, and the facts known before anything is sent."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from pytest_llmparity.core import errors
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.quantization import says_less
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.recorded.playing import Purpose
from pytest_llmparity.core.sample import Completion, Fact, Identity, Request, Sampling, WireRequest
from pytest_llmparity.core.words.hiding import TextMask
from pytest_llmparity.engines.facts import device, files, serving
from pytest_llmparity.engines.facts.values import facts, mappings, names
from pytest_llmparity.engines.start import hub, inside
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.wire import read, responses
from pytest_llmparity.engines.wire.build import RequestBuilder
from pytest_llmparity.engines.wire.control import Control, Reply, routed, sent_secrets
from pytest_llmparity.engines.wire.experiments import Experimental
from pytest_llmparity.engines.wire.refusals import Meaning, meant, read_refusal, shown
from pytest_llmparity.settings.specification import EngineSpec

ATTACH_DEADLINE_S: Final = 10.0
"""How long a server somebody else started may take to answer: it is there already, or its address is wrong."""

LIST: Final = "/v1/models"


class Adapter(RequestBuilder, Experimental):
    """Our code for one kind of engine, around one server. Satisfies ``core.ports.AdapterProtocol``.

    Subclasses set ``kind``, ``fields`` (the allow-list: our sampling name to the wire's) and ``health_path``, and say
    how to launch and identify. ``base_url`` is the server's root, ``headers`` go with every request (they may hold
    secrets: never write them down). ``can`` is what this server can do: ``declares`` until probes have corrected it.
    """

    kind: ClassVar[str] = ""

    # How it is started: :meth:`started` puts a launch together of these.
    deadline_s: ClassVar[float] = 120.0
    """How long a start may take where ``start_timeout_s`` says nothing."""
    scrub: ClassVar[tuple[str, ...]] = ()
    """Patterns of variables that a process of ours does not inherit."""
    offline: ClassVar[Mapping[str, str]] = {}
    """Variables that keep it from downloading, set unless ``spec.download``."""
    hub_models: ClassVar[bool] = False
    """Whether a model's name is one of the Hugging Face hub, read from its cache on this machine."""
    shm_size: ClassVar[str] = ""
    """Shared memory its server needs in a container, where runtimes give 64 MB."""
    sockets_variable: ClassVar[str] = ""
    """Variable that names the folder of its sockets, where those of a server that is killed would stay for ever."""
    stop_signal: ClassVar[int] = signal.SIGTERM
    grace_s: ClassVar[float] = 10.0
    names_model: ClassVar[bool] = False
    """Whether ``/v1/models`` of a server that we started lists our model: one that lists others is somebody else's."""

    health_path: ClassVar[str] = "/health"
    timings: ClassVar[tuple[str, ...]] = ()
    """Headers of unstreamed answers that hold the server's own timings in milliseconds."""
    stream_timings: ClassVar[tuple[str, ...]] = ()
    """The same of streamed answers."""
    meanings: ClassVar[tuple[Meaning, ...]] = ()
    """Refusals of this kind that mean something else than their status says."""

    queues_beyond_slots: ClassVar[bool] = False
    """Whether a server of this kind answers a fixed number of requests at once, set at its start; others queue."""
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
    listens: ClassVar[tuple[str, ...]] = ()
    """Options, or variables, that say where or how it listens: :meth:`launch` gives those it needs, nobody else any."""
    distributions: ClassVar[tuple[str, ...]] = ()
    """Packages that hold a server of this kind; where ``requires`` installs one, its version is the engine's."""
    serving_flags: ClassVar[Mapping[str, serving.Flag]] = {}
    """By field of an identity the flags that say how a server that we start serves its model."""

    def __init__(self, spec: EngineSpec, base_url: str, headers: Mapping[str, str]) -> None:
        super().__init__(spec)
        self.base_url = base_url.rstrip("/")
        self.headers = dict(headers)
        self.image_env: Mapping[str, str] = {}
        """Variables of the image that a server of ours runs from, which its own are laid over."""
        self.recognised = ""
        """What the server of a bare URL was seen to be (``engines.recognise``); empty while nobody looked."""
        self.can = self.on_route()
        self.time_left: Callable[[], float | None] = lambda: None
        """Seconds the run may still take, ``None`` for no end: no control call lasts longer."""
        self._model = self.wire_model(spec)
        self._fingerprint = ""
        self._warm_headers: Mapping[str, str] = {}

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

    @property
    def ours(self) -> bool:
        """Whether we started this server: then it reads the files of this machine, with the arguments we gave it."""
        return self.spec.launched

    @property
    def variables(self) -> dict[str, str]:
        """What a server of ours finds in its environment by our doing or its image's."""
        return {**self.image_env, **self.spec.env}

    @classmethod
    def launch(cls, spec: EngineSpec, port: int, workdir: Path, *, environ: Mapping[str, str] = os.environ) -> Launch:
        """Say how to start this engine on a loopback port; ``LaunchError`` says why it cannot be, and what to do."""
        raise spec.launch_error(f"engines of kind {cls.kind!r} cannot be started from here; {cls.how_to_attach}.")

    @classmethod
    def started(
        cls,
        spec: EngineSpec,
        workdir: Path,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        deadline_s: float | None = None,
        reads: Sequence[Path] | None = None,
        caches: Mapping[str, Path] | None = None,
    ) -> Launch:
        """Return the launch of a command line, the spec's own arguments behind it and its variables over ``env``.

        It reads the spec's model where that is a file or folder, or what ``reads`` says instead.
        """
        model = () if spec.model_path is None else (spec.model_path,)
        return Launch(
            argv=(*argv, *spec.args),
            env={**({} if spec.download else cls.offline), **(env or {}), **spec.env},
            scrub=cls.scrub,
            cwd=workdir,
            deadline_s=cls.patience_s(spec, deadline_s),
            stop_signal=cls.stop_signal,
            grace_s=cls.grace_s,
            reads=model if reads is None else tuple(reads),
            caches=caches or {},
            beside_model=spec.model_path is not None and workdir == spec.model_path.parent,
        )

    @classmethod
    def patience_s(cls, spec: EngineSpec, otherwise_s: float | None = None) -> float:
        """Return ``start_timeout_s``, else ``otherwise_s``, else what a start of this kind may take."""
        if spec.start_timeout_s is not None:
            return spec.start_timeout_s
        return cls.deadline_s if otherwise_s is None else otherwise_s

    def start_deadline_s(self) -> float:
        """Return how long readiness may take for a server that was not launched by us."""
        return self.patience_s(self.spec, ATTACH_DEADLINE_S)

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
        except errors.TlsFailure:
            raise  # waiting mends no certificate
        except errors.Unreachable:
            return f"nothing listens at {self.base_url}"
        except (errors.Timeout, errors.ProtocolError) as exc:
            return str(exc)
        if reply.status in (401, 403):
            if path == LIST and self._model:
                return reply
            raise self._not_authorised(path, reply)
        if reply.status == 200:
            return reply
        return _refusal_words(routed(path, self.api), reply)

    def _not_authorised(self, path: str, reply: Reply) -> errors.NotAuthorised:
        """Return the error of a refused key, with the server's own words and what would help."""
        advice = "Set api_key_env to the variable that holds its key."
        if "authorization" in self.headers:
            advice = "Look whether the variable named by api_key_env holds a key this server accepts."
        if path == LIST:
            advice += (
                " A key that may not list models will do where the model is named: "
                f"{self.openai_base_url}#MODEL, or model = in the configuration."
            )
        return errors.NotAuthorised(
            f"{self.name} refused the key: {_refusal_words(routed(path, self.api), reply)}. {advice}",
            engine=self.name,
            status=reply.status,
        )

    def _impostor(self, reply: Reply) -> str | None:
        """Raise when the server that answers cannot be the one we started, or say why it is not ready after all."""
        listed = self._listed() if self.names_model and self.ours else []
        if listed and self.model not in listed:
            raise self._another(listed[0], instead_of=self.model)
        return None

    def _another(self, serves: object, *, instead_of: str) -> errors.LaunchError:
        """Return the error of a port of ours that another server has."""
        return self.spec.launch_error(
            f"another server answers on its port, serving {serves!r} instead of {instead_of!r}. "
            "Start again: another port will be taken."
        )

    def warm_up(self) -> None:
        """Ask for one token and drop it: a first request differs in time, on vLLM in text too. Raises as answers do."""
        self._first_answer(self.spec.request_timeout_s)

    def _first_answer(self, timeout_s: float) -> None:
        """Ask for one token, keep what its answer says about the server, drop the rest."""
        first = self._first_request()
        reply = self.control.post(first.path, first.body, timeout_s=timeout_s)
        self._warm_headers = reply.headers
        try:
            self._fingerprint = self.read(reply, case="warm-up").fingerprint
        except errors.EmptyAnswer:
            return

    def _first_request(self) -> WireRequest:
        """Return the request for one token that warms up."""
        request = Request(
            case="warm-up",
            messages=({"role": "user", "content": "Hi"},),
            sampling=Sampling(max_tokens=1),
            top_logprobs=self.warm_up_logprobs if self.can.logprobs else None,
        )
        return self.build(self.own(request), stream=False)

    def load(self) -> None:
        """Bring the model into a server that answers without it (Ollama, LM Studio); most kinds have it by then.

        Called once between readiness and warm-up, with the deadline of a start. Raises ``LaunchError`` or an
        ``AnswerError`` that says which command fetches the model; nothing is downloaded unless ``spec.download``.
        """

    def unload(self) -> None:
        """Make the server give the model's memory back, keeping the server; ``LaunchError`` says why it cannot."""
        raise self.spec.launch_error(
            f"a server of kind {self.kind!r} cannot be told to unload its model; start it from here "
            "(leave base_url out), or use residency = 'together'."
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

    def weights_file(self) -> Path | None:
        """Return the file or folder of the weights that are served, ``None`` where it is not known here."""
        return self.spec.model_path

    def capabilities(self) -> Capabilities:
        """Return what this very server can do as far as it says: :meth:`on_route`, corrected by its own settings."""
        return self.on_route()

    def learnt(self, able: Capabilities) -> None:
        """Take note of what this server can do, as probes found it: requests are built for that."""
        self.can = able

    def restore(self) -> None:
        """Let a server that was told to unload serve others again, at the end of a run; raises as :meth:`load` does.

        Nothing to do for kinds that load a model when it is asked for.
        """

    def addressed(self, path: str, purpose: Purpose) -> str:
        """Return the path under which a request is sent for a purpose: its own, whatever that is."""
        return path

    def limits(self) -> tuple[str, ...]:
        """Return what this route silently drops or changes, a sentence each, for people who read ``doctor``."""
        return ()

    # ---- identity --------------------------------------------------------------------------------------------------

    def identity(self) -> Identity:
        """Ask the live server what it is; what it does not say comes from local files, then the configuration.

        Where it only names the method of a quantisation that the files name with its bits, theirs is kept.
        """
        files, reported = self.from_files(), self.reported()
        known = self.machine() | self.served() | self.declared() | files | reported
        stored, now = files.get("quantization"), reported.get("quantization")
        if stored and now and stored.source == "file" and says_less(str(now.value), str(stored.value)):
            raw = f"{stored.raw or stored.value}; reported: {now.raw or now.value}"
            known["quantization"] = dataclasses.replace(stored, raw=raw)
        return Identity(facts={"kind": Fact(value=self.kind, source="declared")} | known)

    def machine(self) -> dict[str, Fact]:
        """Return what a server that we start computes with: this machine's GPUs and CPU."""
        sees = inside.visible(self.spec) if self.spec.launch == "container" else None
        environ = {**os.environ, **self.variables, **({} if sees is None else {"CUDA_VISIBLE_DEVICES": sees})}
        return facts({"device": device.describe(environ) if self.ours else ""}, source="file")

    def served(self) -> dict[str, Fact]:
        """Return how a server that we start serves its model, by its flags: adapters, drafting, GPUs, caches."""
        if not self.ours:
            return {}
        words = [*self.spec.command, *self.spec.args]
        inherited = {} if self.spec.launch == "container" else os.environ
        return serving.declared(self.serving_flags, words, self.variables, inherited=inherited, scrub=self.scrub)

    def declared(self) -> dict[str, Fact]:
        """Return what only the configuration says."""
        return facts({"model": self.model, "revision": self.spec.revision}, source="declared")

    def from_files(self) -> dict[str, Fact]:
        """Return what local model files say, where we know that the server reads them."""
        return {}

    def reported(self) -> dict[str, Fact]:
        """Return what the server says about itself."""
        return {}

    def trained_context(self) -> int | None:
        """Return how many tokens the model's folder says that it was trained for; ``None`` where nothing says it."""
        folder = self._folder()
        return None if folder is None else files.hf_trained(folder)

    def _folder(self) -> Path | None:
        """Return the folder of the model we serve, local or in the hub's cache; ``None`` of somebody else's server."""
        return hub.snapshot(self.spec, hub.environ_of(self.spec, os.environ)) if self.ours else None

    def _listed(self) -> list[str]:
        """Return the names in ``/v1/models``, none where it says none."""
        return names(self.control.ask(LIST))

    def _entry(self) -> Mapping[str, Any]:
        """Return our model's entry of ``/v1/models``: the one with our name, else the only one."""
        entries = mappings(self.control.ask(LIST).get("data"))
        ours = [entry for entry in entries if self._model and entry.get("id") == self._model]
        return next(iter(ours or (entries if len(entries) == 1 else ())), {})

    def _only_model(self) -> str:
        reply = self.control.get(LIST)
        if reply.status in (401, 403):
            raise self._not_authorised(LIST, reply)
        how = f"{self.openai_base_url}#MODEL, or model = in the configuration."
        if not isinstance(reply.json().get("data"), list):
            raise errors.EngineSelectionError(
                f"{self.name}: which models there are cannot be told: {_refusal_words(routed(LIST, self.api), reply)}, "
                f"no list of models. Say which one is meant: {how} If {self.openai_base_url} is not what a client of "
                "OpenAI's API takes as its base URL, correct base_url."
            )
        listed = names(reply.json())
        if len(listed) == 1:
            return listed[0]
        if not listed:
            raise errors.EngineSelectionError(
                f"{self.name}: {self.control.url(LIST)} lists no model. Load one there, or say which one it serves "
                f"without listing it: {how}"
            )
        known = ", ".join(shown(name, 80) for name in listed[:20])
        raise errors.EngineSelectionError(
            f"{self.name}: {self.base_url} serves {len(listed)} models ({known}), so which one is meant must be said: "
            f"{how}"
        )

    # ---- the wire --------------------------------------------------------------------------------------------------

    def read(self, answer: Answer, *, case: str) -> Completion:
        """Read a finished answer, streamed or not; raises an ``AnswerError`` that names engine and case."""
        meant(answer, self.meanings, engine=self.name, case=case)
        parse = responses.parse if self.spec.route == "responses" else read.parse_answer
        completion = parse(answer, engine=self.name, case=case)
        return read.timed(completion, answer, self.stream_timings if read.is_stream(answer) else self.timings)


def _refusal_words(path: str, reply: Reply) -> str:
    """Return what a server answered to a GET, in its own words."""
    words = shown(read_refusal(reply.body).message, 120)
    return f"GET {path} says {reply.status}" + (f" ({words})" if words else "")
