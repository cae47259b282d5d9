"""Text Generation Inference (TGI): ``text-generation-launcher`` from PATH, or attached.

Written from its documentation and source (3.3, ``router/src``); neither a live server nor recordings were at hand.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from pytest_llmparity.core.errors import ModelMissing, ParameterNotHonoured
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.quantization import PLAIN
from pytest_llmparity.core.sample import Fact, JsonObject, Request
from pytest_llmparity.engines.facts import serving
from pytest_llmparity.engines.facts.values import facts
from pytest_llmparity.engines.start import hub, inside, program
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.start.readiness import free_port
from pytest_llmparity.engines.wire import build
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.control import Reply
from pytest_llmparity.engines.wire.refusals import shown
from pytest_llmparity.settings.specification import EngineSpec, Route

ANY_MODEL: Final = "tgi"
"""The model's name on the wire: TGI takes every other one for a LoRA adapter's (router/src/lib.rs, adapter_id)."""

_OFF: Final = frozenset({"top_p", "top_k", "min_p", "presence_penalty", "repetition_penalty"})
"""What a request that leaves it out goes without (router/src/lib.rs, try_into_generate): ``min_p`` does not exist."""

_INSTALL: Final = (
    "The launcher comes with TGI's container or a build from source: name it with command = […], or give base_url of a "
    "running server."
)


class TgiAdapter(Adapter):
    """One TGI server."""

    kind: ClassVar[str] = "tgi"
    listens: ClassVar[tuple[str, ...]] = ("--hostname", "--port", "-p")
    on_routes: ClassVar[Mapping[Route, Mapping[str, Any]]] = {"completions": {"logprobs": False}}
    # TGI states no limit of its own; its warm-up measures how much fits into memory, minutes of work for big models.
    deadline_s: ClassVar[float] = 600.0
    grace_s: ClassVar[float] = 20.0
    offline: ClassVar[Mapping[str, str]] = hub.OFFLINE
    hub_models: ClassVar[bool] = True
    shm_size: ClassVar[str] = "1g"  # its README's docker run, for NCCL between GPUs
    # Every flag of the launcher is read from the environment too.
    scrub: ClassVar[tuple[str, ...]] = (
        *("API_KEY", "QUANTIZE", "DTYPE", "KV_CACHE_DTYPE", "SPECULATE", "REVISION", "LORA_ADAPTERS"),
        *("MAX_INPUT_TOKENS", "MAX_INPUT_LENGTH", "MAX_TOTAL_TOKENS", "TOKENIZER_CONFIG_PATH", "ROPE_*"),
    )
    # Whole milliseconds (router/src/server.rs, generate_internal).
    timings: ClassVar[tuple[str, ...]] = (
        *("x-total-time", "x-validation-time", "x-queue-time", "x-inference-time", "x-time-per-token"),
    )
    # launcher/src/main.rs. Over how many GPUs it spreads unasked depends on what it sees.
    serving_flags: ClassVar[Mapping[str, serving.Flag]] = {
        "adapters": serving.Flag(
            options=("--lora-adapters",), variables=("LORA_ADAPTERS",), default=serving.NONE, read=serving.paths
        ),
        "speculative": serving.Flag(options=("--speculate",), variables=("SPECULATE",), default=serving.OFF),
        "tensor_parallel": serving.Flag(options=("--num-shard",), variables=("NUM_SHARD",), read=serving.whole_number),
        "prefix_cache": serving.Flag(variables=("PREFIX_CACHING",), default=serving.OFF, read=serving.truth),
        "attention": serving.Flag(variables=("ATTENTION",)),
    }
    # presence_penalty is missing on purpose: TGI makes a repetition penalty of it by adding 2 (router/src/lib.rs), so
    # sending a neutral 0 would penalise repetition by 2.
    fields: ClassVar[Mapping[str, str]] = {
        name: word for name, word in build.EVERY_SERVER.items() if name != "presence_penalty"
    }
    ignores: ClassVar[Mapping[str, str]] = {"n": "TGI takes it and does not use it (router/src/lib.rs)"}
    most_logprobs: ClassVar[int | None] = 5  # --max-top-n-tokens; more is refused
    declares: ClassVar[Capabilities] = Capabilities(
        logprobs=True,
        token_ids=False,
        json_schema=True,
        seed=True,
        tools=True,
        raw_prompt=True,
        unknown_fields="dropped",
        overflow="refused",
    )

    @classmethod
    def wire_model(cls, spec: EngineSpec) -> str:
        """Return ``tgi``, whatever is served."""
        return ANY_MODEL

    @classmethod
    def launch(cls, spec: EngineSpec, port: int, workdir: Path, *, environ: Mapping[str, str] = os.environ) -> Launch:
        """Say how to serve the spec's model: no prefix cache, no usage statistics, its own metrics port and sockets.

        ``spec.command``, else ``text-generation-launcher`` from PATH. ``slots`` is not used: TGI fills its batches by
        memory. Without ``download`` the hub is off.
        """
        model = hub.served(spec, environ)
        argv = program.program(
            spec, environ, command="text-generation-launcher", install=_INSTALL, in_image=(inside.OWN_ENTRY,)
        )
        argv += program.flags(
            {
                "--model-id": model,
                "--hostname": inside.host(spec),
                "--port": port,
                # Two launchers on one machine would share the default metrics port and the default sockets.
                "--prometheus-port": free_port(),
                "--shard-uds-path": Path(tempfile.gettempdir()) / f"llmparity-tgi-{port}",
                "--revision": spec.revision,
                "--max-total-tokens": spec.context_length,
            }
        )
        # As variables, because launchers that do not know one of them ignore it; a flag would end the start.
        env = {"PREFIX_CACHING": "0", "USAGE_STATS": "off", "GRACEFUL_TERMINATION_TIMEOUT": "10"}
        return cls.started(spec, workdir, argv, env=env)

    def _impostor(self, reply: Reply) -> str | None:
        """Hold our model against ``/info``: requests carry no name that could fail."""
        serves = self.control.ask("/info").get("model_id")
        path = self.spec.model_path
        wanted = inside.place(self.spec, path, os.environ) if path is not None else self.spec.model
        if not isinstance(serves, str) or not wanted or wanted in (serves, ANY_MODEL):
            return None
        if self.ours:
            raise self._another(serves, instead_of=wanted)
        raise ModelMissing(
            f"{self.name}: {self.base_url} serves {shown(serves, 120)!r} and not {wanted!r}, but would answer all the "
            f"same. Name what it serves, or model = {ANY_MODEL!r} for whatever that is.",
            engine=self.name,
        )

    # ---- identity --------------------------------------------------------------------------------------------------

    def declared(self) -> dict[str, Fact]:
        """Return what only the configuration says; the name on the wire says nothing."""
        model = self.spec.model if self.spec.model != ANY_MODEL else None
        return facts({"model": model, "revision": self.spec.revision}, source="declared")

    def from_files(self) -> dict[str, Fact]:
        """Return what the model folder and the arguments say that we started the server with.

        TGI serves a checkpoint that is not quantised in the type it chooses for the device, not in its own: the
        quantisation is known only from ``--dtype``, ``--quantize`` or a quantised checkpoint.
        """
        folder = self.spec.model_path if self.ours else None
        return program.of_folder(folder, self.spec.args, "--quantize", converted=PLAIN)

    def reported(self) -> dict[str, Fact]:
        """Return what ``/info`` says; ``model_sha`` is the commit on the hub (none for a folder), no weights digest."""
        info = self.control.ask("/info")
        folder = self.spec.model_path if self.ours else None
        known = {
            "version": info.get("version"),
            "build": info.get("sha") or info.get("docker_label"),
            # Of a folder TGI says the whole path, which is another one on every machine.
            "model": folder.name if folder is not None and info.get("model_id") else info.get("model_id"),
            "revision": info.get("model_sha"),
            "context_length": info.get("max_total_tokens"),
            "device": info.get("model_device_type"),
        }
        return facts(known)

    def limits(self) -> tuple[str, ...]:
        """Return what TGI changes without saying so."""
        return (
            "presence_penalty and repetition_penalty are never sent: TGI makes p of the first a repetition penalty of "
            "p + 2, also of 0; a case that sets one of them is refused.",
            "a stop string stays at the end of the text, and is found at the borders of tokens only "
            "(text-generation-inference issues 1724 and 1039).",
            "raw prompts get the tokeniser's special tokens in front, and come without logprobs and without a schema.",
            f"more than {self.most_logprobs} alternatives per token are not asked for, and tokens come as text, so "
            "parts of characters are lost.",
        )

    # ---- the wire --------------------------------------------------------------------------------------------------

    def _sampling_fields(self, request: Request) -> tuple[JsonObject, tuple[str, ...]]:
        # top_p has to be below 1 (router/src/validation.rs), and is off when it is left out.
        left = {"top_p"} if request.sampling.top_p == 1.0 else set()
        fields = {name: word for name, word in self.fields.items() if name not in left}
        return build.sampling_fields(request.sampling, fields, engine=self.name, case=request.case, off=_OFF)

    def _chat_fields(self, request: Request) -> JsonObject:
        """Return messages, tools and format; a schema goes as TGI's own ``json`` grammar, which its versions share."""
        body = build.chat_fields(request)
        body.pop("response_format", None)
        wanted = request.response_format
        if wanted is None or wanted.get("type") == "text":
            return body
        table = wanted.get("json_schema") if wanted.get("type") == "json_schema" else None
        schema = table.get("schema") if isinstance(table, Mapping) else None
        if schema is None or request.tools:
            lost = "tools beside a response_format" if request.tools else f"response_format {wanted.get('type')!r}"
            if wanted.get("type") == "json_schema" and not request.tools:
                lost += " without json_schema = {schema = …}"
            raise ParameterNotHonoured(
                f"{self.name} takes no {lost} (case {request.case!r}): TGI constrains an answer by one JSON schema "
                "with properties, or by tools. Give the case the one or the other.",
                engine=self.name,
                case=request.case,
            )
        return body | {"response_format": {"type": "json", "value": schema}}

    def _logprob_fields(self, request: Request) -> JsonObject:
        return {} if request.prompt is not None else super()._logprob_fields(request)
