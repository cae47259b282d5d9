"""Ollama: ``ollama serve`` from PATH with a store and port of its own, or a running daemon attached.

What is said here of its behaviour was read in its source and held against v0.33.0 itself and recordings of it
(``fixtures/wire/ollama``, ``fixtures/wire/ollama-paths``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from pytest_llmparity.core.errors import AnswerError, BadRequest, ModelMissing, ParameterNotHonoured
from pytest_llmparity.core.identity.capabilities import Capabilities, Overflow
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.sample import Completion, Fact, JsonObject, Request, WireRequest
from pytest_llmparity.engines import daemons
from pytest_llmparity.engines.facts import files, serving
from pytest_llmparity.engines.facts.values import facts, string
from pytest_llmparity.engines.kinds.ollama import about, limits, models, native
from pytest_llmparity.engines.start import inside, program
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.wire import build, responses
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.control import Reply
from pytest_llmparity.settings.selection import ANSWERS
from pytest_llmparity.settings.specification import DEFAULT_CONCURRENCY, EngineSpec, Route

PULL_S: Final = 3600.0
"""How long a download may take that ``download = true`` asked for, unless ``start_timeout_s`` says otherwise."""

DEFAULT_CONTEXT: Final = 4096
"""What one request gets when nothing is configured, or the model's trained length if that is shorter. Ollama's own
default depends on the machine's GPU memory (4,096, 32,768 or 262,144 tokens: server/routes.go, ``Serve``)."""

NUM_BATCH: Final = 512
"""Tokens per batch on the native route: llama.cpp's own micro-batch. Left alone, Ollama chooses 512, 1,024 or 2,048 by
context and free memory (server/sched.go, ``automaticGenerationBatch``), and batch shapes move logits."""

LOADED_MS: Final = 100.0
"""``load_duration`` from which on an answer met a load. Measured with v0.33.0 on a CPU: 0.7 to 2.5 ms without, 257 ms
and more with the smallest model we have; it covers the wait for the scheduler, so it is never 0."""

STORE: Final = f"{inside.FOLDER}/ollama"
"""Where the account's own store is in a container."""
KEEP_ALIVE: Final = "30m"
"""How long a daemon that is not ours keeps the model after the last request: longer than its own 5 minutes, so that it
outlives the other engines' turns, and not for ever."""

_INSTALL: Final = (
    "Install Ollama (https://ollama.com/download), give command = the path of its program, or base_url of a running "
    "daemon."
)


class OllamaAdapter(Adapter):
    """One model of one Ollama daemon.

    ``route = "openai"`` asks ``/v1/chat/completions``, as applications do; ``"native"`` asks ``/api/chat``, where every
    parameter has a field and a prompt that does not fit is refused. Raw prompts of both go to ``/api/generate`` with
    ``raw``: ``/v1/completions`` puts the chat template around them, as route ``"completions"`` shows.
    """

    kind: ClassVar[str] = "ollama"
    listens: ClassVar[tuple[str, ...]] = ("OLLAMA_HOST",)
    deadline_s: ClassVar[float] = 60.0  # the daemon binds its port before it looks at a model
    # What changes answers comes from the engine's ``env``, never from the shell that happens to run pytest.
    scrub: ClassVar[tuple[str, ...]] = (
        "LLAMA_ARG_*",  # reaches the llama-server behind Ollama
        *("OLLAMA_CONTEXT_LENGTH", "OLLAMA_FLASH_ATTENTION", "OLLAMA_GO_TEMPLATE", "OLLAMA_KV_CACHE_TYPE"),
    )
    health_path: ClassVar[str] = "/api/version"
    routes: ClassVar[tuple[Route, ...]] = (*ANSWERS, "native")
    on_routes: ClassVar[Mapping[Route, Mapping[str, Any]]] = {
        "responses": {"logprobs": False, "token_ids": False, "json_schema": True},
        "completions": {"logprobs": False, "raw_prompt": False, "json_schema": False},
    }
    log_hint: ClassVar[str] = (
        "journalctl -u ollama on Linux, ~/.ollama/logs/server.log on macOS, %LOCALAPPDATA%\\Ollama on Windows"
    )
    unloads: ClassVar[bool] = True
    daemon: ClassVar[bool] = True
    queues_beyond_slots: ClassVar[bool] = True
    raw_honours_format: ClassVar[bool] = True
    ignores: ClassVar[Mapping[str, str]] = {"n": "Ollama reads none, on no route"}
    most_logprobs: ClassVar[int | None] = native.MOST_LOGPROBS
    declares: ClassVar[Capabilities] = Capabilities(
        logprobs=True,
        token_ids=False,
        json_schema=True,
        raw_prompt=True,
        unknown_fields="dropped",
    )

    def __init__(self, spec: EngineSpec, base_url: str, headers: Mapping[str, str]) -> None:
        super().__init__(spec, base_url, headers)
        self._show: about.Show = {}
        self._version = ""
        self._in_memory: Mapping[str, Any] = {}
        """Our model's entry in ``/api/ps`` when we loaded it: another engine may have evicted it since."""

    @classmethod
    def wire_model(cls, spec: EngineSpec) -> str:
        """Return the name the model of a local file is made under: no path, so that hashes are equal everywhere."""
        if spec.model_path is not None and spec.launched:
            return models.name_for(spec.model_path, spec.name)
        return spec.model or ""

    @classmethod
    def launch(cls, spec: EngineSpec, port: int, workdir: Path, *, environ: Mapping[str, str] = os.environ) -> Launch:
        """Say how to start a daemon for the spec's model.

        A model that is a GGUF file goes into a store of our own, ``workdir/ollama``; one that is a name is looked for
        in the account's own store (``OLLAMA_MODELS``, else Ollama's default), which nothing is removed from. The
        spec's ``env`` has the last word on all of it but the address. A container sees the account's store, read-only
        without ``download``; a model made of a file is in the container itself, and goes with it.
        """
        if not spec.model:
            raise spec.launch_error("give model = a name of Ollama's or the path of a GGUF file.")
        if spec.model_path is not None and not spec.model_path.is_file():
            raise spec.launch_error(f"{str(spec.model_path)!r} is no file; Ollama is given one GGUF file.")
        argv = program.program(spec, environ, command="ollama", install=_INSTALL, in_image=(inside.OWN_ENTRY,))
        env = {
            "OLLAMA_HOST": f"{inside.host(spec)}:{port}",
            "OLLAMA_NUM_PARALLEL": str(spec.slots or DEFAULT_CONCURRENCY),
            "OLLAMA_CONTEXT_LENGTH": str(spec.context_length or DEFAULT_CONTEXT),
            "OLLAMA_KEEP_ALIVE": "-1",
            "OLLAMA_NOPRUNE": "1",
            "OLLAMA_NO_CLOUD": "1",
        }
        caches = {}
        if spec.launch == "container" and spec.model_path is None:
            caches = {STORE: Path(environ.get("OLLAMA_MODELS") or Path.home() / ".ollama/models")}
            env["OLLAMA_MODELS"] = STORE
        elif spec.launch != "container" and spec.model_path is not None:
            env["OLLAMA_MODELS"] = str(workdir / "ollama")
        words = [*argv, *(("serve",) if len(argv) == 1 else ())]
        return cls.started(spec, workdir, words, env=env, reads=(), caches=caches)

    # ---- the model -------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Make sure that the daemon has the model: made from its file, found, or pulled when ``download`` allows it."""
        path = self.spec.model_path
        if path is not None and not self.ours:
            raise self.spec.launch_error(
                f"a file can only be served by an Ollama that is started from here. Leave base_url out, "
                f"or make a model of it (ollama create NAME, with FROM {path.name} in the Modelfile) and name that."
            )
        if path is not None:
            models.make(self.control, self.model, path, timeout_s=self._patience())
        elif not self._shown():
            if not self.spec.download:
                raise self._missing()
            models.pull(self.control, self.model, timeout_s=self.patience_s(self.spec, PULL_S))

    def _missing(self) -> ModelMissing:
        """Return the error of a model this daemon lacks; it names the running one that has it, if ours lacks it."""
        theirs = daemons.holder(self.kind, self.model, os.environ) if self.ours else ""
        if not theirs:
            return models.missing(self.name, self.model)
        return ModelMissing(
            f"{self.name}: the Ollama started here reads another store than the one that runs at {theirs}, which has "
            f"{self.model!r}. To use that one give base_url = {theirs!r} (or leave launch, command, args and env "
            "out); to start our own on its models give env = { OLLAMA_MODELS = 'its folder' }.",
            engine=self.name,
            status=404,
        )

    def warm_up(self) -> None:
        """Load the model with the options every later request has, then ask for one token."""
        fields: JsonObject = {"keep_alive": -1 if self.ours else KEEP_ALIVE}
        if self.spec.route == "native":
            fields |= {"options": self._load_options(), "shift": False}
        with self._advising():
            self._in_memory = models.load(self.control, self.model, fields, timeout_s=self._patience())
        with contextlib.suppress(ParameterNotHonoured):  # said of every case it concerns
            super().warm_up()

    def unload(self) -> None:
        """Make the daemon let go of the model, and wait until it has."""
        models.unload(self.control, self.model)

    def residence(self) -> WireRequest:
        """Return the question for what is loaded."""
        return WireRequest(method="GET", path="/api/ps", body=b"", sha256="")

    def resident(self, answer: Answer) -> bool | None:
        """Return whether ``/api/ps`` lists our model; models in Ollama's cloud are never listed."""
        if answer.status != 200 or self._shown().get("remote_host"):
            return None
        reply = Reply(status=answer.status, headers=answer.headers, body=answer.body)
        return bool(about.entry(reply.json(), self.model))

    def met_load(self, completion: Completion) -> bool:
        """Tell whether the native route's ``load_duration`` is that of a load; ``/v1`` says nothing of it."""
        return completion.server.get("load_duration", 0.0) >= LOADED_MS

    def crowds_out(self, other: EngineSpec) -> str | None:
        """Say why one daemon cannot keep both: two routes of one model, or no room for two models.

        The routes' load options differ (server/sched.go, ``needsReload``). Whether there is room shows in ``/api/ps``
        once both were loaded: with ``OLLAMA_MAX_LOADED_MODELS=1``, or too little memory, one of the two is gone.
        """
        if other.kind != self.kind or not other.model or _daemon(other.base_url or "") != _daemon(self.base_url):
            return None
        if about.entry({"models": [{"name": other.model}]}, self.model):
            reason = f"the load options of route {self.spec.route!r} are not those of route {other.route!r}"
            return reason if (other.route == "native") != (self.spec.route == "native") else None
        if self._shown().get("remote_host") or models.show(self.control, other.model).get("remote_host"):
            return None
        loaded = self.control.ask("/api/ps")
        both = all(about.entry(loaded, model) for model in (self.model, other.model))
        return None if both or not loaded else "the daemon has room for one of their models at a time"

    def shares_with(self, other: EngineSpec) -> str | None:
        """Say that another model of this daemon has the same weights: the first one's process answers for both.

        With the first one's template (server/sched.go, ``schedulerModelKey``; seen with v0.33.0).
        """
        if other.kind != self.kind or not other.model or _daemon(other.base_url or "") != _daemon(self.base_url):
            return None
        if not models.one_process(self.control, self.model, other.model):
            return None
        return (
            f"{self.name} ({self.model}) and {other.name} ({other.model}) have the same weights on one Ollama, which "
            "answers for both with one process and the template of the model that was loaded first. Use residency = "
            "'one-at-a-time', another daemon for one of them, or two copies of the weights."
        )

    def _patience(self) -> float:
        """Return how long a load or a file may take: the daemon says nothing while it works."""
        return max(self.spec.request_timeout_s, self.spec.start_timeout_s or 0.0)

    def _load_options(self) -> dict[str, int]:
        """Return the options that belong to the loaded model: any other value makes Ollama load it again."""
        context = {} if self.spec.context_length is None else {"num_ctx": self.spec.context_length}
        return context | {"num_batch": NUM_BATCH}

    # ---- identity --------------------------------------------------------------------------------------------------

    # envconfig/config.go; ``auto`` decides by the device.
    serving_flags: ClassVar[Mapping[str, serving.Flag]] = {
        "attention": serving.Flag(variables=("OLLAMA_FLASH_ATTENTION",), read=serving.flash),
    }

    def from_files(self) -> dict[str, Fact]:
        """Return what the GGUF file says that the model was made from, without its template: it may not be in force."""
        if not self.ours or self.spec.model_path is None:
            return {}
        known = files.gguf_facts(self.spec.model_path)
        return {name: fact for name, fact in known.items() if name != "template_sha256"}

    def declared(self) -> dict[str, Fact]:
        """Return what only the configuration says; of a daemon we start, also the type of its cache."""
        cache = self.variables.get("OLLAMA_KV_CACHE_TYPE", "f16")
        own = {"kv_cache": cache, "slots": self.spec.slots} if self.ours else {}
        return super().declared() | facts(own, source="declared")

    def reported(self) -> dict[str, Fact]:
        """Return what ``/api/version``, ``/api/tags``, ``/api/show`` and (when we loaded the model) ``/api/ps`` say.

        ``digest`` is the manifest's (weights, template, parameters and configuration), as ``ollama list`` shows it; its
        ``raw`` is the weights' blob, which differs from the file's own sha256 where Ollama rewrote the file.
        ``tensor_types`` survives that.
        """
        listed = about.entry(self.control.ask("/api/tags"), self.model)
        loaded = self._in_memory or about.entry(self.control.ask("/api/ps"), self.model)
        show = self._shown() or {"details": listed.get("details")}
        digest = string(listed.get("digest") or loaded.get("digest"))
        known = {
            "version": self._release(),
            "model": listed.get("name"),
            "context_length": loaded.get("context_length"),
            "adapters": about.adapters(show),
        }
        return (
            about.model_facts(show, version=self._release(), route=self.spec.route)
            | facts({"digest": digest and f"sha256:{digest.removeprefix('sha256:')}"}, raw=about.weights(show))
            | facts(known)
        )

    def capabilities(self) -> Capabilities:
        """Return what this model can do by its template path and route; a probe knows better."""
        show = self._shown()
        path, gguf = about.template_path(show), about.served_by_llama(show)
        offered = show.get("capabilities")
        route = self.spec.route
        overflow: Overflow = "refused" if route == "native" else "oldest turns dropped"
        able = self.on_route()
        return dataclasses.replace(
            able,
            schema_order=path != "jinja" if path and gguf else None,
            images="vision" in offered if isinstance(offered, list) and able.images is None else able.images,
            audio=False if route == "native" else able.audio,
            tools="tools" in offered if isinstance(offered, list) and able.tools is None else able.tools,
            overflow=overflow if gguf and route != "completions" else None,
        )

    def weights_file(self) -> Path | None:
        """Return the blob that the Modelfile names, in the daemon's store on this machine."""
        return super().weights_file() or about.blob(self._shown())

    def limits(self) -> tuple[str, ...]:
        """Return what the route drops, and what the model's own template and Modelfile change."""
        return limits.of_route(self.spec.route) + limits.of_model(
            self._shown(), version=self._release(), route=self.spec.route
        )

    def _shown(self) -> about.Show:
        """Return ``/api/show``, asked once; empty while it cannot be had."""
        if not self._show:
            self._show = models.show(self.control, self.model)
        return self._show

    def _release(self) -> str:
        if not self._version:
            self._version = string(self.control.ask("/api/version").get("version"))
        return self._version

    # ---- the wire --------------------------------------------------------------------------------------------------

    def build(self, request: Request, *, stream: bool = True) -> WireRequest:
        """Put a request into the route's words; raw prompts into ``/api/generate``'s on both.

        On the openai route a raw prompt carries no load option, because ``/v1`` cannot, and alternating between two
        sets makes Ollama load the model each time. The default parameters of this daemon decide what ``/v1`` may leave
        out, so the first request asks it for them.
        """
        native.refuse_choice(request, engine=self.name)
        native.refuse_addresses(request, engine=self.name)
        self._choice_fields(request)  # refused where it asks for several
        if self.spec.route in ("responses", "completions"):
            self._refuse_format(request)
            return super().build(request, stream=stream)
        if request.prompt is None and self.spec.route == "openai":
            native.schema_or_json(request, engine=self.name)
            return super().build(request, stream=stream)
        if request.prompt is not None:
            self._refuse_for_raw(request)
        options, omitted = build.sampling_fields(request.sampling, native.OPTIONS, engine=self.name, case=request.case)
        on_native = self.spec.route == "native"
        body = native.body(
            request,
            model=self.model,
            options=options | (self._load_options() if on_native else {}),
            stream=stream,
            engine=self.name,
        )
        body |= {"truncate": False} | ({"shift": False} if on_native else {})
        path = native.CHAT_PATH if request.prompt is None else native.RAW_PATH
        return build.wire(path, build.with_further(body, request, engine=self.name), omitted)

    def _refuse_format(self, request: Request) -> None:
        """Raise ``ParameterNotHonoured`` for a format that the newer or the older route of ``/v1`` would drop."""
        wanted = native.schema_or_json(request, engine=self.name)
        if wanted is None or (self.spec.route == "responses" and wanted != "json"):
            return
        path = responses.PATH if self.spec.route == "responses" else build.RAW_PATH
        parameter = "response_format of type json_object" if wanted == "json" else "response_format"
        raise build.refuse(parameter, f"Ollama's {path} drops it", engine=self.name, case=request.case)

    def _responses_sampling(self, request: Request) -> tuple[JsonObject, tuple[str, ...]]:
        defaults = about.sampling_defaults(self._shown(), self._release(), self.spec.route)
        sampling, unseeded = build.unseeded(request.sampling, self.responses_fields)
        sent, omitted = about.openai_sampling(
            sampling, defaults, engine=self.name, case=request.case, fields=self.responses_fields
        )
        return sent, (*omitted, *unseeded)

    def _sampling_fields(self, request: Request) -> tuple[JsonObject, tuple[str, ...]]:
        defaults = about.sampling_defaults(self._shown(), self._release(), "openai")
        return about.openai_sampling(request.sampling, defaults, engine=self.name, case=request.case)

    def _thinking_fields(self, request: Request) -> JsonObject:
        """Return ``reasoning_effort``, which ``/v1`` has; it reasons by itself, so being told to is nothing to send."""
        level = native.effort(request, engine=self.name)
        return {"reasoning_effort": level} if level not in ("", "on") else {}

    def _chat_fields(self, request: Request) -> JsonObject:
        return build.chat_fields(dataclasses.replace(request, tool_choice=None))

    def read(self, answer: Answer, *, case: str) -> Completion:
        """Read a finished answer in either shape: the raw prompts of the openai route are answered in Ollama's own."""
        with self._advising():
            if native.is_native(answer, otherwise=self.spec.route == "native"):
                return native.parse(answer, engine=self.name, case=case)
            return super().read(answer, case=case)

    @contextlib.contextmanager
    def _advising(self) -> Iterator[None]:
        """Add to an error what only somebody who knows Ollama can say."""
        try:
            yield
        except AnswerError as error:
            advice = _advice(error, self.model)
            if not advice:
                raise
            # Ollama answers 500 to a format it does not know, which asking again does not change.
            kind = BadRequest if "invalid format" in str(error) else type(error)
            raise kind(
                f"{error} {advice}",
                engine=error.engine,
                case=error.case,
                status=error.status,
                retry_after_s=error.retry_after_s,
            ) from error


def _daemon(url: str) -> str:
    return url.rstrip("/").replace("//localhost", "//127.0.0.1")


def _advice(error: AnswerError, model: str) -> str:
    text = str(error)
    if isinstance(error, ModelMissing):
        return f"Fetch it with: ollama pull {model}"
    if "requires --jinja" in text:
        return (
            f"Ollama keeps one process per weights: they were loaded for another model, whose template Ollama renders "
            f"itself. Unload that one (ollama ps, then ollama stop NAME) and load {model} first."
        )
    if 'Unrecognized schema: {"type":""' in text:
        return 'Give the parameters of every tool "type": "object": Ollama makes an empty type of one that is missing.'
    if "llama-server" in text and "terminated" in text:
        return "Ollama itself is alive; the llama-server it started for this model is not."
    return "format takes json or a JSON Schema." if "invalid format" in text else ""
