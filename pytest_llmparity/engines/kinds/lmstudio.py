"""LM Studio: attach only.

Its server is a part of the app, or of one daemon per account (``lms daemon up``, ``lms server start --port N``). It
keeps its port and its models in the account's profile, so a second one cannot be started beside a developer's own, and
stopping it would stop theirs. What is done here is to load a model into the running server and to unload it again.

Written from its documentation (lmstudio.ai/docs/developer) and its public issues (lmstudio-ai/lmstudio-bug-tracker);
neither a live server nor recordings were at hand, and the server's source is closed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from pytest_llmparity.core.errors import ModelMissing, ParameterNotHonoured, ProtocolError, Timeout, Unreachable
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.quantization import normalise
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.sample import Fact, JsonObject, Request, WireRequest
from pytest_llmparity.engines.facts.values import facts, mapping, mappings, string
from pytest_llmparity.engines.wire import build
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.control import Reply
from pytest_llmparity.engines.wire.refusals import implied_status, read_refusal, refused, shown
from pytest_llmparity.settings.selection import ANSWERS
from pytest_llmparity.settings.specification import EngineSpec, Route

_MODELS, _LOAD, _UNLOAD = "/api/v1/models", "/api/v1/models/load", "/api/v1/models/unload"
_LOADS: Final = ("context_length", "eval_batch_size", "flash_attention", "num_experts", "offload_kv_cache_to_gpu")
"""Settings of an instance that a load takes (lmstudio.ai/docs/developer/rest/load)."""
_OLD_MODELS, _OLD_CHAT = "/api/v0/models", "/api/v0/chat/completions"
_TOO_OLD: Final = "its server has no /api/v1/models, which came with LM Studio 0.4.0"


class LmStudioAdapter(Adapter):
    """One LM Studio server and one of its models, by key or by the identifier of a loaded instance."""

    kind: ClassVar[str] = "lmstudio"
    routes: ClassVar[tuple[Route, ...]] = ANSWERS
    local_model: ClassVar[bool] = False
    how_to_attach: ClassVar[str] = (
        "LM Studio is one server per account. Start it with: lms daemon up && lms server start --port 1234, and give "
        "base_url = 'http://127.0.0.1:1234'; the model is then loaded for the run"
    )
    log_hint: ClassVar[str] = "lms log stream, and the files in ~/.lmstudio/server-logs"
    unloads: ClassVar[bool] = True
    daemon: ClassVar[bool] = True
    health_path: ClassVar[str] = "/v1/models"
    # To load a model. LM Studio states no limit; Ollama's for a load that stalls is as long.
    deadline_s: ClassVar[float] = 300.0
    # The documented fields of /v1/chat/completions; min_p is not one of them.
    fields: ClassVar[Mapping[str, str]] = build.EVERY_SERVER | {
        "top_k": "top_k",
        "repetition_penalty": "repeat_penalty",
    }
    declares: ClassVar[Capabilities] = Capabilities(
        logprobs=False,
        token_ids=False,
        json_schema=True,
        seed=True,
        tools=True,
        raw_prompt=True,
    )

    def __init__(self, spec: EngineSpec, base_url: str, headers: Mapping[str, str]) -> None:
        super().__init__(spec, base_url, headers)
        self._runtime = ""
        self._before: list[Mapping[str, Any]] | None = None
        """The instances that were loaded when we first asked; ``None`` while nobody has."""
        self._key = ""
        self._in_force: Mapping[str, Any] = {}
        """What our instance was loaded with when we warmed it up: the app may have unloaded it for another since."""

    # ---- readiness and memory --------------------------------------------------------------------------------------

    def _impostor(self, reply: Reply) -> str | None:
        """Look at the answer: LM Studio says 200 to every route, with ``{"error": "Unexpected endpoint …"}``."""
        if isinstance(reply.json().get("data"), list):
            return None
        words = shown(read_refusal(reply.body).message, 120)
        return f"GET {self.health_path} answers without a list of models" + (f" ({words})" if words else "")

    def load(self) -> None:
        """Load the model with the configured context unless an instance of it is there; nothing is downloaded.

        A server before 0.4.0 loads a model when it is first asked for. ``ModelMissing`` says which command fetches the
        model, ``LaunchError`` that somebody has loaded it with another context: it is theirs, so it is left alone.
        """
        listed = _models(self.control.get(_MODELS).json())
        if listed is None:
            return
        self._remember(listed)
        entry = self._ours(listed)
        if not entry:
            known = (
                ", ".join(str(model.get("key")) for model in listed[:20] if model.get("type") != "embedding") or "none"
            )
            raise ModelMissing(
                f"{self.name}: LM Studio has no model {self.model!r} (it has {known}). Fetch it with: "
                f"lms get {self.model}",
                engine=self.name,
            )
        wanted = self.spec.context_length
        instances = self._instances(entry)
        if not instances:
            theirs = self._before[:1] if self._before else []  # unloaded for another engine's turn
            body = next((_settings(instance) for instance in theirs), {}) | {"model": self.model}
            self._post(_LOAD, body | ({} if wanted is None else {"context_length": wanted}))
            return
        seen = _config(instances[0]).get("context_length")
        if wanted is not None and isinstance(seen, int) and seen != wanted:
            raise self.spec.launch_error(
                f"{self.model!r} is loaded with a context of {seen} tokens and {wanted} is configured. "
                f"Unload it (lms unload {instances[0].get('id')}) to have it loaded anew, or set context_length = "
                f"{seen}."
            )

    def unload(self) -> None:
        """Unload every instance of our model, or the one instance that requests are sent to; :meth:`restore` undoes."""
        listed = _models(self.control.get(_MODELS).json())
        if listed is None:
            raise self.spec.launch_error(
                f"LM Studio cannot be told to unload {self.model!r}: {_TOO_OLD}. Update it, or use "
                "residency = 'together'."
            )
        self._remember(listed)
        for instance in self._instances(self._ours(listed)):
            self._post(_UNLOAD, {"instance_id": instance.get("id")})

    def restore(self) -> None:
        """Load again what was loaded when we first asked, with its settings; unload what was not.

        The server chooses the identifiers of instances: ``LaunchError`` says when one has another than it had.
        """
        listed = _models(self.control.ask(_MODELS)) if self._before is not None else None
        if self._before is None or listed is None:
            return
        before, key = self._before, self._key
        if list(map(_loaded_as, self._instances(self._ours(listed)))) == list(map(_loaded_as, before)):
            return
        self.unload()
        now = [self._post(_LOAD, _settings(instance) | {"model": key}).get("instance_id") for instance in before]
        if (ids := [instance.get("id") for instance in before]) != now:
            raise self.spec.launch_error(
                f"LM Studio had {key!r} loaded as {_quoted(ids)} and has it as {_quoted(now)} now. "
                "Load it again under its old identifier: lms load MODEL --identifier NAME"
            )

    def residence(self) -> WireRequest:
        """Return the question for the models and their loaded instances."""
        return WireRequest(method="GET", path=_MODELS, body=b"", sha256="")

    def resident(self, answer: Answer) -> bool | None:
        """Return whether an instance that our requests reach is loaded; servers before 0.4.0 do not say."""
        listed = _models(Reply(status=answer.status, headers=answer.headers, body=answer.body).json())
        return None if listed is None else bool(self._instances(self._ours(listed)))

    def crowds_out(self, other: EngineSpec) -> str | None:
        """Say that one server does not keep both models: of two that were loaded one is gone.

        As the app does with its setting to unload what was loaded on request. Written from the documentation, not seen.
        """
        listed = _models(self.control.ask(_MODELS))
        if listed is None or other.kind != self.kind or (other.base_url or "").rstrip("/") != self.base_url:
            return None
        loaded = [entry for entry in listed if entry.get("loaded_instances")]
        theirs = any(other.model in (entry.get("key"), entry.get("selected_variant")) for entry in loaded)
        both = theirs and self._instances(self._ours(listed))
        return None if both or other.model == self.model else "the server has room for one of their models at a time"

    def warm_up(self) -> None:
        """Ask for one token and drop it; ask the deprecated route for another, which alone names the engine's build."""
        super().warm_up()
        listed = _models(self.control.ask(_MODELS)) or ()
        self._in_force = next((_config(instance) for instance in self._instances(self._ours(listed))), {})
        try:
            reply = self.control.post(_OLD_CHAT, self._first_request().body, timeout_s=self.spec.request_timeout_s)
        except (Unreachable, Timeout, ProtocolError):
            return
        runtime = mapping(reply.json().get("runtime"))
        self._runtime = " ".join(str(runtime[part]) for part in ("name", "version") if runtime.get(part))

    def _post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        reply = self.control.post(path, build.encode(body), timeout_s=self.patience_s(self.spec))
        if reply.status == 200 and "error" not in reply.json():
            return reply.json()
        refusal = read_refusal(reply.body)
        status = reply.status if reply.status != 200 else implied_status(refusal)
        raise refused(refusal, status=status, headers=reply.headers, engine=self.name, case=None)

    def _ours(self, listed: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return our model's entry: the one with our key, else the one with an instance of our name, else nothing."""
        with_key = [entry for entry in listed if self._is_key(entry)]
        return next(iter(with_key or [entry for entry in listed if self._instances(entry)]), {})

    def _remember(self, listed: Sequence[Mapping[str, Any]]) -> None:
        if self._before is None:
            self._before = self._instances(self._ours(listed))
            self._key = str(self._ours(listed).get("key") or self.model)

    def _is_key(self, entry: Mapping[str, Any]) -> bool:
        return self.model in (entry.get("key"), entry.get("selected_variant"))

    def _instances(self, entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Return the loaded instances that requests under our name reach."""
        loaded = mappings(entry.get("loaded_instances"))
        return loaded if self._is_key(entry) else [instance for instance in loaded if instance.get("id") == self.model]

    # ---- identity --------------------------------------------------------------------------------------------------

    def reported(self) -> dict[str, Fact]:
        """Return what ``/api/v1/models`` says (before 0.4.0 ``/api/v0/models``), and the engine's build.

        No weights digest, template or sampling defaults are to be had over HTTP. ``system_fingerprint`` is only the
        model's name, and ``bits_per_weight`` the quantisation's nominal number, so neither is taken.
        """
        listed = _models(self.control.ask(_MODELS))
        entry = self._ours(listed) if listed is not None else self._old_entry()
        config = next((_config(instance) for instance in self._instances(entry)), self._in_force)
        kind = entry.get("format") or entry.get("compatibility_type")
        known = {
            "model": entry.get("key") or entry.get("id"),
            "format": kind,
            "context_length": config.get("context_length") or entry.get("loaded_context_length"),
            "slots": config.get("parallel"),
            "build": self._runtime,
        }
        level = entry.get("quantization")
        raw = string(mapping(level).get("name") or level)
        name = f"mlx-{raw}" if kind == "mlx" and raw[:1].isdigit() else raw
        return facts(known) | facts({"quantization": normalise(name) if name else ""}, raw=raw)

    def _old_entry(self) -> Mapping[str, Any]:
        entries = mappings(self.control.ask(_OLD_MODELS).get("data"))
        return next((entry for entry in entries if entry.get("id") == self.model), {})

    def limits(self) -> tuple[str, ...]:
        """Return what LM Studio drops or leaves to the app."""
        return (
            "min_p is not among the documented fields, and the app's own value is in force where a request samples: "
            "such requests are refused.",
            "a prompt that does not fit may come back as an empty answer (lmstudio-bug-tracker issue 2339).",
            "a schema is enforced by llama.cpp's grammar for GGUF and by Outlines for MLX; response_format json_object "
            "is refused.",
            "there are no logprobs on this route, and no timings of the server's own.",
            "a model that was not loaded is loaded by the first request with the app's context length, and unloaded "
            "after an hour without one.",
        )

    # ---- the wire --------------------------------------------------------------------------------------------------

    def _chat_fields(self, request: Request) -> JsonObject:
        wanted = request.response_format
        if wanted is not None and wanted.get("type") not in ("json_schema", "text"):
            raise ParameterNotHonoured(
                f"{self.name} takes no response_format {wanted.get('type')!r} (case {request.case!r}): LM Studio knows "
                "json_schema and text. Give the case a schema.",
                engine=self.name,
                case=request.case,
            )
        return super()._chat_fields(request)

    def _logprob_fields(self, request: Request) -> JsonObject:
        return {}


def _models(answer: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """Return the downloaded models with their loaded instances, ``None`` where the server does not say."""
    models = answer.get("models")
    return mappings(models) if isinstance(models, list) else None


def _config(instance: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(instance.get("config"))


def _settings(instance: Mapping[str, Any]) -> JsonObject:
    """Return what an instance was loaded with, as far as a load can ask for it."""
    return {name: value for name, value in _config(instance).items() if name in _LOADS and value is not None}


def _loaded_as(instance: Mapping[str, Any]) -> tuple[object, Mapping[str, Any]]:
    return instance.get("id"), _settings(instance)


def _quoted(names: Sequence[object]) -> str:
    return ", ".join(repr(name) for name in names)
