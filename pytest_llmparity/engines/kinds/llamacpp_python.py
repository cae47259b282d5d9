"""llama-cpp-python: ``python -m llama_cpp.server`` of a configured or this interpreter, or attached.

It is llama.cpp's library behind a server of its own, which is not ``llama-server``: other fields, other defaults, one
request at a time.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from pytest_llmparity.core.errors import BadRequest, LaunchError, ProtocolError
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.spelling import sampling_defaults
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.sample import NEUTRAL, Completion, Fact, Request
from pytest_llmparity.engines.facts import files
from pytest_llmparity.engines.start import program
from pytest_llmparity.engines.wire import build, read
from pytest_llmparity.engines.wire.base import Adapter, Launch
from pytest_llmparity.engines.wire.control import Reply
from pytest_llmparity.engines.wire.refusals import read_refusal, worded
from pytest_llmparity.settings.specification import EngineSpec

DEADLINE_S: Final = 120.0
"""The weights are mapped into memory before the server listens; importing the package takes most of a small start."""

DEFAULT_CONTEXT: Final = 4096
"""What a request gets when nothing is configured, or the model's trained length if that is shorter."""

OWN_DEFAULTS: Final = {
    **NEUTRAL,
    "temperature": 0.8,
    "top_p": 0.95,
    "top_k": 40,
    "min_p": 0.05,
    "repetition_penalty": 1.1,
}
"""What a request that says nothing is sampled with (llama_cpp/server/types.py)."""

_INSTALL: Final = (
    'Give requires = "llama-cpp-python[server]==…" to have it installed (it is compiled) in an environment of its own, '
    'python = "…/bin/python" of one that has it, or base_url of a running server.'
)
# Every setting of the server can come from the environment, and HOST and PORT beat the command line
# (llama_cpp/server/__main__.py, settings.py).
_SETTINGS: Final = (
    *("HOST", "PORT", "CONFIG_FILE", "MODEL", "MODEL_ALIAS", "API_KEY", "ROOT_PATH", "SSL_KEYFILE", "SSL_CERTFILE"),
    *(
        "INTERRUPT_REQUESTS",
        "DISABLE_PING_EVENTS",
        "SEED",
        "N_*",
        "SPLIT_MODE",
        "MAIN_GPU",
        "TENSOR_SPLIT",
        "VOCAB_ONLY",
    ),
    *(
        "USE_MMAP",
        "USE_MLOCK",
        "KV_OVERRIDES",
        "RPC_SERVERS",
        "ROPE_*",
        "YARN_*",
        "MUL_MAT_Q",
        "LOGITS_ALL",
        "EMBEDDING",
    ),
    *("OFFLOAD_KQV", "FLASH_ATTN", "LAST_N_TOKENS_SIZE", "LORA_*", "NUMA", "CHAT_FORMAT", "CHAT_TEMPLATE_KWARGS"),
    *("CLIP_MODEL_PATH", "CACHE", "CACHE_TYPE", "CACHE_SIZE", "HF_TOKENIZER_CONFIG_PATH", "HF_MODEL_REPO_ID"),
    *("HF_PRETRAINED_MODEL_NAME_OR_PATH", "DRAFT_MODEL", "DRAFT_MODEL_NUM_PRED_TOKENS", "TYPE_K", "TYPE_V", "VERBOSE"),
)


class LlamaCppPythonAdapter(Adapter):
    """One ``llama_cpp.server``. It checks no model name, so any name works in a request."""

    kind: ClassVar[str] = "llamacpp-python"
    distributions: ClassVar[tuple[str, ...]] = ("llama-cpp-python",)
    # Its repeat_penalty is 1.1 unless it is told otherwise.
    fields: ClassVar[Mapping[str, str]] = build.EVERY_SERVER | {
        "top_k": "top_k",
        "min_p": "min_p",
        "repetition_penalty": "repeat_penalty",
    }
    stream_fields: ClassVar[Mapping[str, Any]] = {"stream": True}
    counts_in_streams: ClassVar[bool] = False
    health_path: ClassVar[str] = "/v1/models"
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
    def wire_model(cls, spec: EngineSpec) -> str:
        """Return the file's name for a local file: a path would make request hashes differ between machines."""
        return spec.model_path.name if spec.model_path is not None else (spec.model or "")

    @classmethod
    def launch(cls, spec: EngineSpec, port: int, workdir: Path, *, environ: Mapping[str, str] = os.environ) -> Launch:
        """Say how to serve the spec's GGUF file, no request cut off by the next one.

        ``spec.command``, else ``-m llama_cpp.server`` of ``spec.python``, else of this interpreter.
        """
        path = spec.model_path
        if path is None or not path.is_file():
            named = spec.model if path is None else str(path)
            raise LaunchError(
                f"{spec.name}: llama_cpp.server is started with a local GGUF file, and {named!r} is none. Give model = "
                "the path of the file (fetch one with: hf download REPO FILE.gguf --local-dir .), or base_url of a "
                "running server.",
                engine=spec.name,
            )
        if spec.slots not in (None, 1):
            raise LaunchError(
                f"{spec.name}: llama_cpp.server answers one request at a time, so slots = {spec.slots} cannot be; "
                "leave it out.",
                engine=spec.name,
            )
        flags = {"--model": path, "--model_alias": cls.wire_model(spec), "--host": "127.0.0.1", "--port": port}
        flags |= {"--n_ctx": _context(spec, path), "--interrupt_requests": "false"}
        return Launch(
            argv=(*_program(spec, environ), *(str(part) for flag in flags.items() for part in flag), *spec.args),
            env=({} if spec.download else {"HF_HUB_OFFLINE": "1"}) | dict(spec.env),
            scrub=_SETTINGS,
            cwd=workdir,
            deadline_s=spec.start_timeout_s if spec.start_timeout_s is not None else DEADLINE_S,
        )

    def _impostor(self, reply: Reply) -> str | None:
        if self.spec.launch != "process":
            return None
        seen = self._entry().get("id")
        if seen != self.model:
            raise self._another(seen, instead_of=self.model)
        return None

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
        path = self.spec.model_path
        if self.spec.launch != "process" or path is None:
            return {}
        told = program.option(self.spec.args, "--n_ctx")
        context = int(told) if told is not None and told.isdecimal() else _context(self.spec, path)
        facts = files.gguf_facts(path)
        if program.option(self.spec.args, "--chat_format"):
            facts.pop("template_sha256", None)
        if not program.option(self.spec.args, "--type_k", "--type_v"):
            facts["kv_cache"] = Fact(value="F16", source="declared")  # llama.cpp's own, which nothing reports
        return facts | {
            "context_length": Fact(value=context, source="declared", raw="--n_ctx"),
            "slots": Fact(value=1, source="declared", raw="one request at a time"),
            "sampling_defaults": Fact(value=sampling_defaults(OWN_DEFAULTS), source="declared"),
        }

    def reported(self) -> dict[str, Fact]:
        """Return the alias of the model and the package's version, which the description of the routes has."""
        facts: dict[str, Fact] = {}
        name = self._entry().get("id")
        if isinstance(name, str) and name:
            facts["model"] = Fact(value=Path(name).name, source="reported", raw=name)
        about = self.control.ask("/openapi.json").get("info")
        version = about.get("version") if isinstance(about, dict) else None
        if isinstance(version, str) and version:
            facts["version"] = Fact(value=version, source="reported", raw=f"llama-cpp-python {version}")
        return facts

    # ---- the wire --------------------------------------------------------------------------------------------------

    def _chat_fields(self, request: Request) -> dict[str, Any]:
        """Return messages, tools and format; a schema goes into ``json_object``, the only type that takes one."""
        if request.tools and request.tool_choice == "required":
            why = "llama_cpp.server lets the model choose (llama_cpp/llama_chat_format.py)"
            raise build.refuse("tool_choice 'required'", why, engine=self.name, case=request.case)
        fields = build.chat_fields(request)
        wanted = fields.get("response_format", {})
        named = wanted.get("json_schema")
        if wanted.get("type") == "json_schema" and isinstance(named, Mapping):
            fields["response_format"] = {"type": "json_object", "schema": named.get("schema", {})}
        return fields

    def parse(self, answer: Answer, *, case: str) -> Completion:
        """Read a finished answer; a request that does not validate comes back as 500, a refused stream as nothing."""
        refusal = read_refusal(answer.body) if answer.status == 500 else None
        if refusal is not None and "validation error" in refusal.message[:40]:
            advice = "The request was refused as it is; asking again will not help."
            raise worded(BadRequest, advice, refusal, status=500, headers=answer.headers, engine=self.name, case=case)
        if answer.status == 200 and not answer.body.strip():
            raise ProtocolError(
                f"{self.name} answered 200 to case {case!r} with an empty body, which is how llama_cpp.server refuses "
                "a streamed request: most often the prompt does not fit n_ctx. Its log says why; raise context_length "
                "if that is it.",
                engine=self.name,
                case=case,
                status=200,
            )
        found = super().parse(answer, case=case)
        took = answer.headers.get("openai-processing-ms", "")
        if read.is_stream(answer) or not took.isdecimal():  # of a stream it is the time until it began
            return found
        return dataclasses.replace(found, server={**found.server, "openai-processing-ms": float(took)})


def _context(spec: EngineSpec, path: Path) -> int:
    if spec.context_length is not None:
        return spec.context_length
    return min(int(files.gguf_header(path).get("context_length", DEFAULT_CONTEXT)), DEFAULT_CONTEXT)


def _program(spec: EngineSpec, environ: Mapping[str, str]) -> list[str]:
    if not spec.command and spec.python is None and importlib.util.find_spec("llama_cpp") is not None:
        return [sys.executable, "-m", "llama_cpp.server"]
    module = "llama_cpp.server"
    return program.program(spec, environ, command=module, module=module, install=_INSTALL)
