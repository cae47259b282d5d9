"""SGLang: ``python -m sglang.launch_server`` or ``sglang serve``, or attached.

Verified on recordings of 0.5.23 (``fixtures/wire/sglang``); starting it was not tried with this adapter.
"""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from pytest_llmparity.core.errors import ModelMissing
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.spelling import sampling_defaults
from pytest_llmparity.core.sample import Fact, JsonObject, Request
from pytest_llmparity.engines.facts import serving
from pytest_llmparity.engines.facts.values import count, facts, names, quantization, sequence, string
from pytest_llmparity.engines.start import hub, inside, program
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.wire import build
from pytest_llmparity.engines.wire.base import LIST, Adapter
from pytest_llmparity.engines.wire.control import Reply
from pytest_llmparity.engines.wire.refusals import shown
from pytest_llmparity.settings.selection import ANSWERS, HOST_AND_PORT
from pytest_llmparity.settings.specification import EngineSpec, Route

NEUTRAL_DEFAULTS: Final = {"min_p": 0.0, "repetition_penalty": 1.0, "temperature": 1.0, "top_k": -1, "top_p": 1.0}
"""What a request that does not say is sampled with under ``--sampling-defaults openai`` (openai/protocol.py)."""

_ASKED: Final = (
    *("version", "served_model_name", "revision", "load_format", "dtype", "quantization", "kv_cache_dtype"),
    *("max_running_requests", "max_total_num_tokens", "attention_backend", "prefill_attention_backend"),
    *("decode_attention_backend", "device", "sampling_defaults", "tool_call_parser", "allow_auto_truncate"),
    *("disable_radix_cache", "enable_deterministic_inference", "chunked_prefill_size", "tp_size", "pp_size"),
    *("lora_paths", "speculative_algorithm", "speculative_draft_model_path", "speculative_num_draft_tokens"),
)
"""What is taken from ``/server_info``. The rest is dropped unread: it holds the server's keys and command line."""

_INSTALL: Final = (
    'Give requires = "sglang==…" to have it installed in an environment of its own, python = "…/bin/python" of one '
    "that has it, or base_url of a running server."
)


class SglangAdapter(Adapter):
    """One SGLang server.

    ``/health`` runs a real request, so it is not what is polled: ``/ready`` is. That one is only a flag, and it turns
    later than the first answers come, so the warm-up is what proves the server.
    """

    kind: ClassVar[str] = "sglang"
    listens: ClassVar[tuple[str, ...]] = HOST_AND_PORT
    routes: ClassVar[tuple[Route, ...]] = ANSWERS
    # SGLang's own tests wait this long for a launch (sglang/test/test_utils.py, DEFAULT_TIMEOUT_FOR_SERVER_LAUNCH).
    deadline_s: ClassVar[float] = 600.0
    grace_s: ClassVar[float] = 20.0
    offline: ClassVar[Mapping[str, str]] = hub.OFFLINE
    hub_models: ClassVar[bool] = True
    shm_size: ClassVar[str] = "32g"  # its own docker run examples (docs/get_started/install.md); a limit, not taken
    # SGLANG_PORT seeds ports inside SGLang, SGLANG_GRPC_PORT opens one more.
    scrub: ClassVar[tuple[str, ...]] = ("SGLANG_PORT", "SGLANG_GRPC_PORT")
    distributions: ClassVar[tuple[str, ...]] = ("sglang",)
    health_path: ClassVar[str] = "/ready"
    fields: ClassVar[Mapping[str, str]] = build.OPEN_SERVERS
    other_samplers: ClassVar[bool] = False  # sampling/sampling_params.py has those of fields that a gate sends
    raw_honours_format: ClassVar[bool] = True
    # Asked for more alternatives than the vocabulary has tokens, 0.5.23's scheduler dies and the server with it. Over
    # HTTP nothing says how many that is; no model has fewer than OpenAI's own limit.
    most_logprobs: ClassVar[int | None] = 20
    declares: ClassVar[Capabilities] = Capabilities(
        logprobs=True,
        token_ids=False,
        json_schema=True,
        schema_order=True,
        seed=False,
        raw_prompt=True,
        unknown_fields="dropped",
        overflow="refused",
    )

    call_flags: ClassVar[tuple[str, ...]] = ("--tool-call-parser", "hermes")
    cache_off: ClassVar[tuple[str, ...]] = ("--disable-radix-cache",)

    def __init__(self, spec: EngineSpec, base_url: str, headers: Mapping[str, str]) -> None:
        super().__init__(spec, base_url, headers)
        self._about: dict[str, Any] = {}

    @classmethod
    def launch(cls, spec: EngineSpec, port: int, workdir: Path, *, environ: Mapping[str, str] = os.environ) -> Launch:
        """Say how to serve the spec's model: no prefix cache, no sampling defaults of the model's own, seed 0.

        ``spec.command``, else ``spec.python -m sglang.launch_server``, else ``sglang serve`` from PATH. Without
        ``download`` the hub is off. A name with a tag (``qwen3:8b``) is refused: SGLang reads what follows the colon
        as the name of a LoRA adapter.
        """
        if spec.model_path is None and ":" in (spec.model or ""):
            raise spec.launch_error(
                f"{spec.model!r} is a name with a tag, as Ollama has them; SGLang serves a Hugging Face "
                "id or a folder, and reads what follows a colon as a LoRA adapter. Give model = such an id."
            )
        model = hub.served(spec, environ)
        argv = program.program(
            spec,
            environ,
            command="sglang",
            module="sglang.launch_server",
            install=_INSTALL,
            in_image=("python3", "-m", "sglang.launch_server"),
        )
        argv += [] if spec.command or spec.python is not None or spec.launch == "container" else ["serve"]
        argv += program.flags(
            {
                "--model-path": model,
                "--served-model-name": cls.wire_model(spec),
                "--host": inside.host(spec),
                "--port": port,
                "--sampling-defaults": "openai",
                "--disable-radix-cache": True,
                "--random-seed": 0,
                "--revision": spec.revision,
                "--context-length": spec.context_length,
                "--max-running-requests": spec.slots,
            }
        )
        return cls.started(spec, workdir, argv)

    # ---- readiness -------------------------------------------------------------------------------------------------

    def ready(self) -> str | None:
        """Return ``None`` when the flag of ``/ready`` is up (``/health`` on servers without it) and ours answers."""
        not_yet = super().ready()
        if not_yet is not None and not_yet.startswith("GET /ready says 404"):
            reply = self._reached("/health")
            return reply if isinstance(reply, str) else self._impostor(reply)
        return not_yet

    def _impostor(self, reply: Reply) -> str | None:
        """Hold our model against the list: neither ``/ready`` asks for a key, nor does a request for another name fail.

        SGLang answers requests for any model with the one it has (openai/serving_base.py, _parse_model_parameter).
        """
        answer = self._reached(LIST)
        if isinstance(answer, str):
            return answer
        if answer.status != 200:  # one key opens all routes, and without the list nobody knows who would answer
            raise self._not_authorised(LIST, answer)
        listed = names(answer.json())
        if not listed or self.model in listed or self._is_adapter(listed):
            return None
        if self.ours:
            raise self._another(listed[0], instead_of=self.model)
        _, colon, tag = self.model.partition(":")
        known = ", ".join(shown(name, 80) for name in listed[:20])
        raise ModelMissing(
            f"{self.name}: {self.base_url} serves {known} and not {self.model!r}, but would answer under that name"
            + (f", with the LoRA adapter {tag!r}" if colon else "")
            + f". Name what it serves: model = {listed[0]!r}.",
            engine=self.name,
        )

    def _is_adapter(self, listed: list[str]) -> bool:
        """Tell whether our model is one the server lists with a LoRA adapter it lists, ``base:adapter``."""
        base, _, adapter = self.model.rpartition(":")
        return base in listed and adapter in listed

    # ---- what the server says of itself ----------------------------------------------------------------------------

    def _server(self) -> Mapping[str, Any]:
        """Return the fields named in ``_ASKED`` of ``/server_info`` (``/get_server_info`` on old servers)."""
        if not self._about:
            answer = self.control.ask("/server_info") or self.control.ask("/get_server_info")
            self._about = {name: answer[name] for name in _ASKED if answer.get(name) is not None}
        return self._about

    def capabilities(self) -> Capabilities:
        """Return what SGLang can do, and this server by its own flags: seeds, cut prompts, parsed tool calls."""
        about = self._server()
        able = self.on_route()
        return dataclasses.replace(
            able,
            seed=about.get("enable_deterministic_inference") is True,
            overflow="end cut" if about.get("allow_auto_truncate") is True else able.overflow,
            tools=bool(about.get("tool_call_parser")) if about and able.tools is None else able.tools,
        )

    def limits(self) -> tuple[str, ...]:
        """Return what this server changes or drops by its flags."""
        about = self._server()
        changes = []
        if about.get("enable_deterministic_inference") is not True:
            changes.append(
                "seed is checked and then ignored: answers sampled at a temperature above 0 differ from run to run "
                "(--enable-deterministic-inference honours it)."
            )
        if about.get("sampling_defaults") == "model":
            changes.append(
                "an application that leaves a sampling parameter out gets the model's generation_config.json, and its "
                "repetition_penalty applies at temperature 0 too (--sampling-defaults openai ends that)."
            )
        if about.get("allow_auto_truncate") is True:
            changes.append("a prompt that does not fit loses its end without a word (--allow-auto-truncate).")
        if about.get("disable_radix_cache") is False:
            changes.append(
                "the prefix cache is on: an answer to a prompt seen before may differ (--disable-radix-cache)."
            )
        if about and not about.get("tool_call_parser"):
            changes.append("tool calls come back as text: the server runs without --tool-call-parser.")
        changes.append(f"more than {self.most_logprobs} alternatives per token are not asked for.")
        changes.append(
            "logprobs are those after temperature, grammar and logit_bias, unless the whole batch is greedy."
        )
        return tuple(changes)

    def uncached(self) -> Mapping[str, Any]:
        """Return a salt: it is a part of the radix cache's keys (openai/protocol.py, cache_salt)."""
        return {"cache_salt": uuid.uuid4().hex}

    def from_files(self) -> dict[str, Fact]:
        """Return what the model folder says that we started the server with, after the types SGLang makes of it."""
        folder = self.spec.model_path if self.ours else None
        # --dtype auto serves FP32 checkpoints as FP16 (configs/model_config.py), Gemma's as BF16.
        return program.of_folder(folder, self.spec.args, "--quantization", converted=("F32",))

    def reported(self) -> dict[str, Fact]:
        """Return what ``/server_info``, ``/v1/models`` and ``/v1/loads`` say; never a key or the command line."""
        about, entry = self._server(), self._entry()
        lengths = [count(entry.get("max_model_len")), count(about.get("max_total_num_tokens"))]
        openai, size = about.get("sampling_defaults") == "openai", about.get("chunked_prefill_size")
        known = {
            "version": about.get("version"),
            "model": about.get("served_model_name") or entry.get("id"),
            "revision": about.get("revision"),
            "context_length": min((length for length in lengths if length), default=None),
            "slots": about.get("max_running_requests"),
            "kv_cache": about.get("kv_cache_dtype"),
            "attention": _attention(about),
            "adapters": _adapter(self.model, about.get("lora_paths")) if about else None,
            "speculative": _drafting(about) if about else None,
            "tensor_parallel": about.get("tp_size"),
            "pipeline_parallel": about.get("pp_size"),
            "prefix_cache": serving.switched(_not(about.get("disable_radix_cache"))),
            "chunked_prefill": serving.switched(size > 0 if isinstance(size, int) else None),
            "device": self.control.ask("/v1/loads").get("accelerator") or about.get("device"),
            "format": about.get("load_format") if about.get("load_format") in ("gguf", "safetensors") else None,
            "sampling_defaults": sampling_defaults(NEUTRAL_DEFAULTS) if openai else None,
        }
        return facts(known) | quantization(about.get("quantization") or program.dtype(about.get("dtype")))

    # ---- the wire --------------------------------------------------------------------------------------------------

    def _sampling_fields(self, request: Request) -> tuple[JsonObject, tuple[str, ...]]:
        sent, omitted = super()._sampling_fields(request)
        if sent["top_k"] == 0:
            sent["top_k"] = -1  # 0 is refused, but for greedy requests (sampling/sampling_params.py, verify)
        return sent, omitted

    def _unstreamed_fields(self, request: Request) -> JsonObject:
        # Refused in streams and unknown to the raw route; holds the timing and how much of the prompt was cached.
        return {} if request.prompt is not None else {"return_meta_info": True}


def _not(value: object) -> object:
    return not value if isinstance(value, bool) else None


def _adapter(model: str, loaded: object) -> str:
    """Return the adapter that a model's name asks for: what stands behind its colon, where one of that name is loaded.

    ``loaded`` is ``lora_paths`` of srt/server_args.py: paths by name, or a list of paths. No server with one was seen.
    """
    paths = loaded if isinstance(loaded, dict) else {path: path for path in map(string, sequence(loaded))}
    name = model.partition(":")[2]
    return serving.listed([serving.adapter_at(string(paths[name]), name=name)] if name in paths else [])


def _drafting(about: Mapping[str, Any]) -> str:
    method = string(about.get("speculative_algorithm"))
    model, tokens = about.get("speculative_draft_model_path"), about.get("speculative_num_draft_tokens")
    return serving.drafted({"method": method, "model": model, "num_speculative_tokens": tokens}) or serving.OFF


def _attention(about: Mapping[str, Any]) -> str:
    """Return the attention backend, or the two of them where prompt and answer have different ones."""
    chosen = about.get("attention_backend")
    names = [about.get(f"{step}_attention_backend") or chosen for step in ("prefill", "decode")]
    return "+".join(dict.fromkeys(name for name in names if isinstance(name, str)))
