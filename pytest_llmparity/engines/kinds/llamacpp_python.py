"""llama-cpp-python: ``python -m llama_cpp.server`` of a configured or this interpreter, or attached.

It is llama.cpp's library behind a server of its own, which is not ``llama-server``: other fields, other defaults, one
request at a time.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from pytest_llmparity.core.errors import BadRequest, ProtocolError
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.spelling import sampling_defaults
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.sample import NEUTRAL, Completion, Fact, JsonObject, Request
from pytest_llmparity.engines.facts import files, serving
from pytest_llmparity.engines.facts.values import facts, mapping, string
from pytest_llmparity.engines.kinds.llamacpp import GgufServer
from pytest_llmparity.engines.start import inside, program
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.wire import build
from pytest_llmparity.engines.wire.refusals import Meaning
from pytest_llmparity.settings.selection import KINDS
from pytest_llmparity.settings.specification import EngineSpec

OWN_DEFAULTS: Final = {
    **NEUTRAL,
    "temperature": 0.8,
    "top_p": 0.95,
    "top_k": 40,
    "min_p": 0.05,
    "repetition_penalty": 1.1,
}
"""What a request that says nothing is sampled with (llama_cpp/server/types.py)."""
_DEFAULTS: Final = sampling_defaults(OWN_DEFAULTS)

_INSTALL: Final = (
    'Give requires = "llama-cpp-python[server]==…" to have it installed (it is compiled) in an environment of its own, '
    'python = "…/bin/python" of one that has it, or base_url of a running server.'
)
# Every setting of the server can come from the environment, and HOST and PORT beat the command line
# (llama_cpp/server/__main__.py, settings.py).
_SETTINGS: Final = (
    *("HOST", "PORT", "CONFIG_FILE", "MODEL", "MODEL_ALIAS", "API_KEY", "ROOT_PATH", "SSL_KEYFILE", "SSL_CERTFILE"),
    *("INTERRUPT_REQUESTS", "DISABLE_PING_EVENTS", "SEED", "N_*", "SPLIT_MODE", "MAIN_GPU", "TENSOR_SPLIT"),
    *("VOCAB_ONLY", "USE_MMAP", "USE_MLOCK", "KV_OVERRIDES", "RPC_SERVERS", "ROPE_*", "YARN_*", "MUL_MAT_Q"),
    *("LOGITS_ALL", "EMBEDDING", "OFFLOAD_KQV", "FLASH_ATTN", "LAST_N_TOKENS_SIZE", "LORA_*", "NUMA", "CHAT_FORMAT"),
    *("CHAT_TEMPLATE_KWARGS", "CLIP_MODEL_PATH", "CACHE", "CACHE_TYPE", "CACHE_SIZE", "HF_TOKENIZER_CONFIG_PATH"),
    *("HF_MODEL_REPO_ID", "HF_PRETRAINED_MODEL_NAME_OR_PATH", "DRAFT_MODEL", "DRAFT_MODEL_NUM_PRED_TOKENS", "TYPE_K"),
    *("TYPE_V", "VERBOSE"),
)


class LlamaCppPythonAdapter(GgufServer):
    """One ``llama_cpp.server``. Its repeat_penalty is 1.1 unless it is told otherwise."""

    kind: ClassVar[str] = "llamacpp-python"
    listens: ClassVar[tuple[str, ...]] = KINDS["llamacpp-python"].listens
    distributions: ClassVar[tuple[str, ...]] = ("llama-cpp-python",)
    # It listens when the weights are mapped into memory; importing the package takes most of a small start.
    deadline_s: ClassVar[float] = 120.0
    scrub: ClassVar[tuple[str, ...]] = _SETTINGS
    names_model: ClassVar[bool] = True
    timings: ClassVar[tuple[str, ...]] = ("openai-processing-ms",)  # of a stream it is the time until it began
    # A request that does not validate comes back as 500.
    meanings: ClassVar[tuple[Meaning, ...]] = (
        Meaning(
            500,
            re.compile(r"\A.{0,24}validation error", re.DOTALL),
            BadRequest,
            "The request was refused as it is; asking again will not help.",
        ),
    )
    other_samplers: ClassVar[bool] = False  # the same types.py: a request that says nothing goes without others
    stream_fields: ClassVar[Mapping[str, Any]] = {"stream": True}
    counts_in_streams: ClassVar[bool] = False
    health_path: ClassVar[str] = "/v1/models"
    ignores: ClassVar[Mapping[str, str]] = {"n": "it is among what llama_cpp/server/types.py calls ignored"}
    # llama_cpp/server/settings.py
    serving_flags: ClassVar[Mapping[str, serving.Flag]] = {
        "adapters": serving.Flag(options=("--lora_path",), default=serving.NONE, read=serving.paths),
        "speculative": serving.Flag(options=("--draft_model",), default=serving.OFF),
        "attention": serving.Flag(options=("--flash_attn",), default="plain", read=serving.flash),
    }
    declares: ClassVar[Capabilities] = Capabilities(
        logprobs=True,
        token_ids=False,
        json_schema=True,
        schema_order=True,
        seed=True,
        raw_prompt=True,
        unknown_fields="dropped",
        overflow="refused",
    )

    @classmethod
    def launch(cls, spec: EngineSpec, port: int, workdir: Path, *, environ: Mapping[str, str] = os.environ) -> Launch:
        """Say how to serve the spec's GGUF file, no request cut off by the next one.

        ``spec.command``, else ``-m llama_cpp.server`` of ``spec.python``, else of this interpreter.
        """
        path = cls.model_file(spec, "llama_cpp.server")
        if spec.slots not in (None, 1):
            raise spec.launch_error(
                f"llama_cpp.server answers one request at a time, so slots = {spec.slots} cannot be; leave it out."
            )
        flags = program.flags(
            {
                "--model": inside.place(spec, path, environ),
                "--model_alias": cls.wire_model(spec),
                "--host": inside.host(spec),
                "--port": port,
                "--n_ctx": cls.context(spec, path),
                "--interrupt_requests": "false",
            }
        )
        return cls.started(spec, workdir, [*_program(spec, environ), *flags])

    def limits(self) -> tuple[str, ...]:
        """Return what ``llama_cpp.server`` drops or does otherwise (llama_cpp/server of 0.3.36, and seen live)."""
        return (
            "requests are answered one at a time, and the prefix a prompt shares with the one before is not read again",
            "a server started without interrupt_requests = false cuts a streamed answer when the next request comes",
            "a schema it cannot convert is replaced by any JSON, without a word",
            "tool calls come back as text unless one function is named in tool_choice",
            "a streamed request that is refused, one too long say, gets 200 and an empty body",
            "streams carry no token counts, and counts leave the end token out",
        )

    # ---- identity --------------------------------------------------------------------------------------------------

    def from_files(self) -> dict[str, Fact]:
        """Return what the GGUF file says that we started the server with, and what we told it."""
        path, args = self.spec.model_path, self.spec.args
        if not self.ours or path is None:
            return {}
        asked = program.option(args, "--n_ctx") or ""
        context = int(asked) if asked.isdecimal() else self.context(self.spec, path)
        known = files.gguf_facts(path)
        if program.option(args, "--chat_format"):
            known.pop("template_sha256", None)
        typed = program.option(args, "--type_k", "--type_v")
        return (
            known
            | facts({"context_length": context}, source="declared", raw="--n_ctx")
            | facts({"slots": 1}, source="declared", raw="one request at a time")
            # F16 is llama.cpp's own, which nothing reports.
            | facts({"kv_cache": None if typed else "F16", "sampling_defaults": _DEFAULTS}, source="declared")
        )

    def reported(self) -> dict[str, Fact]:
        """Return the alias of the model and the package's version, which the description of the routes has."""
        model = string(self._entry().get("id"))
        version = string(mapping(self.control.ask("/openapi.json").get("info")).get("version"))
        return facts({"model": Path(model).name}, raw=model) | facts(
            {"version": version}, raw=f"llama-cpp-python {version}"
        )

    # ---- the wire --------------------------------------------------------------------------------------------------

    def _chat_fields(self, request: Request) -> JsonObject:
        """Return messages, tools and format; a schema goes into ``json_object``, the only type that takes one."""
        if request.tools and request.tool_choice == "required":
            why = "llama_cpp.server lets the model choose (llama_cpp/llama_chat_format.py)"
            raise build.refuse("tool_choice 'required'", why, engine=self.name, case=request.case)
        fields = build.chat_fields(request)
        wanted = request.response_format or {}
        table = wanted.get("json_schema")
        if wanted.get("type") == "json_schema" and isinstance(table, Mapping):
            fields["response_format"] = {"type": "json_object", "schema": table.get("schema", {})}
        return fields

    def read(self, answer: Answer, *, case: str) -> Completion:
        """Read a finished answer; a refused stream is an empty one."""
        if answer.status == 200 and not answer.body.strip():
            raise ProtocolError(
                f"{self.name} answered 200 to case {case!r} with an empty body, which is how llama_cpp.server refuses "
                "a streamed request: most often the prompt does not fit n_ctx. Its log says why; raise context_length "
                "if that is it.",
                engine=self.name,
                case=case,
                status=200,
            )
        return super().read(answer, case=case)


def _program(spec: EngineSpec, environ: Mapping[str, str]) -> list[str]:
    ours = not spec.command and spec.python is None and spec.launch != "container"
    if ours and importlib.util.find_spec("llama_cpp") is not None:
        return [sys.executable, "-m", "llama_cpp.server"]
    module = "llama_cpp.server"
    return program.program(
        spec, environ, command=module, module=module, install=_INSTALL, in_image=("python3", "-m", module)
    )
