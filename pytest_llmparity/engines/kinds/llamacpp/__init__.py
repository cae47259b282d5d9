"""llama.cpp: ``llama-server`` from PATH, or the ``xllamacpp`` package in a child process, or attached."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from pytest_llmparity.core.errors import LaunchError
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.quantization import normalise
from pytest_llmparity.core.identity.spelling import sampling_defaults
from pytest_llmparity.core.sample import Fact, Request
from pytest_llmparity.engines.facts import files
from pytest_llmparity.engines.start import program
from pytest_llmparity.engines.wire import build
from pytest_llmparity.engines.wire.base import Adapter, Launch
from pytest_llmparity.engines.wire.control import Reply
from pytest_llmparity.settings.specification import DEFAULT_CONCURRENCY, EngineSpec

DEADLINE_S: Final = 60.0
"""llama.cpp's own tests wait this long for a start."""

DEFAULT_CONTEXT: Final = 4096
"""What one request gets when nothing is configured, or the model's trained length if that is shorter: every slot has a
cache of its own, and several full contexts of a modern model do not fit a laptop. A longer prompt is refused aloud."""

_CHILD: Final = Path(__file__).with_name("child.py")


class LlamaCppAdapter(Adapter):
    """One llama.cpp server (``llama-server`` or xllamacpp). It checks no model name, so any name works in a request."""

    kind: ClassVar[str] = "llamacpp"
    fields: ClassVar[Mapping[str, str]] = build.EVERY_SERVER | {
        "top_k": "top_k",
        "min_p": "min_p",
        "repetition_penalty": "repeat_penalty",
    }
    # A prompt half taken from the cache runs in other batch shapes, which moves logits (llama.cpp's README).
    constants: ClassVar[Mapping[str, Any]] = {"cache_prompt": False}
    queues_beyond_slots: ClassVar[bool] = True
    distributions: ClassVar[tuple[str, ...]] = ("xllamacpp",)
    declares: ClassVar[Capabilities] = Capabilities(
        logprobs=True,
        token_ids=True,
        json_schema=True,
        schema_order=True,
        tools=True,
        raw_prompt=True,
        unknown_fields="dropped",
        overflow="refused",
    )
    least_logprobs: ClassVar[int] = 1

    @classmethod
    def wire_model(cls, spec: EngineSpec) -> str:
        """Return the file's name for a local file: a path would make request hashes differ between machines."""
        return spec.model_path.name if spec.model_path is not None else (spec.model or "")

    @classmethod
    def launch(cls, spec: EngineSpec, port: int, workdir: Path, *, environ: Mapping[str, str] = os.environ) -> Launch:
        """Say how to serve the spec's GGUF file.

        ``spec.command``, else ``llama-server`` from PATH, else xllamacpp run by ``spec.python`` or this interpreter.
        llama.cpp shares ``n_ctx`` between its slots, so it gets ``context_length`` times the slots; more requests than
        slots queue. A run launches with a slot for every request in flight where the configuration names no number.
        """
        path = _model_file(spec)
        slots = spec.slots or DEFAULT_CONCURRENCY
        context = spec.context_length
        if context is None:
            context = min(int(files.gguf_header(path).get("context_length", DEFAULT_CONTEXT)), DEFAULT_CONTEXT)
        numbers = {"--port": port, "--ctx-size": context * slots, "--parallel": slots, "--cache-ram": 0}
        flags = [part for name, value in numbers.items() for part in (name, str(value))]
        argv = [
            *_program(spec, environ),
            *("--model", str(path), "--alias", cls.wire_model(spec), "--host", "127.0.0.1"),
            *flags,
            *("--fit", "off", "--no-cache-prompt", "--metrics", "--offline"),
            *spec.args,
        ]
        return Launch(
            argv=tuple(argv),
            env=dict(spec.env) | ({} if spec.download else {"HF_HUB_OFFLINE": "1"}),
            scrub=("LLAMA_ARG_*", "LLAMA_API_KEY"),
            cwd=workdir,
            deadline_s=spec.start_timeout_s if spec.start_timeout_s is not None else DEADLINE_S,
        )

    def limits(self) -> tuple[str, ...]:
        """Return what llama.cpp changes without saying so."""
        said = (
            "any model name is answered by the one model it has.",
            "a sampling value out of range is moved into it instead of refused.",
        )
        if self.spec.launch == "process":
            return said
        cache = "parity asks without the prompt cache; an application's answer to a prompt seen before may differ"
        return (*said, f"{cache} unless the server runs with --no-cache-prompt.")

    def can_stream(self, request: Request) -> bool:
        """Tell whether this request may be streamed: llama.cpp refuses logprobs beside tools in a stream."""
        return not (request.tools and request.top_logprobs is not None)

    def _impostor(self, reply: Reply) -> str | None:
        if self.spec.launch != "process" or self.spec.model_path is None:
            return None
        seen = self.control.ask("/props").get("model_path")
        if isinstance(seen, str) and Path(seen).name != self.spec.model_path.name:
            raise LaunchError(
                f"{self.name}: another llama.cpp answers on its port, serving {seen!r} instead of "
                f"{self.spec.model_path.name!r}. Start again: another port will be taken.",
                engine=self.name,
            )
        return None

    def from_files(self) -> dict[str, Fact]:
        """Return what the GGUF file says that we started the server with, and the cache's type that we chose."""
        path = self.spec.model_path
        if self.spec.launch != "process" or path is None:
            return {}
        facts = {"kv_cache": Fact(value=_kv_cache(self.spec), source="declared")} | files.gguf_facts(path)
        if defaults := files.gguf_header(path).get("sampling"):
            facts["sampling_defaults"] = Fact(value=defaults, source="file")
        return facts

    def reported(self) -> dict[str, Fact]:
        """Return what ``/props`` and ``/v1/models`` say.

        Quantisation, build, context of one slot, slots, template, and the sampling of requests that say nothing.
        """
        props = self.control.ask("/props")
        entry = self._entry()
        meta = entry.get("meta") if isinstance(entry.get("meta"), dict) else {}
        settings = props.get("default_generation_settings")
        context = settings.get("n_ctx") if isinstance(settings, dict) else None
        raw = props.get("model_ftype") or (meta or {}).get("ftype")
        facts: dict[str, Fact] = {}
        if isinstance(raw, str) and raw:
            facts["quantization"] = Fact(value=normalise(raw), source="reported", raw=raw)
        template = props.get("chat_template")
        if isinstance(template, str) and template:
            digest = hashlib.sha256(template.rstrip("\n").encode("utf-8", "replace")).hexdigest()
            facts["template_sha256"] = Fact(value=digest, source="reported")
        plain = {
            "build": props.get("build_info"),
            "model": props.get("model_alias") or entry.get("id"),
            "context_length": context,
            "slots": props.get("total_slots"),
            "sampling_defaults": _sampling(settings.get("params") if isinstance(settings, dict) else None),
        }
        for name, value in plain.items():
            if isinstance(value, (str, int)) and value:
                facts[name] = Fact(value=value, source="reported")
        if props:
            facts["format"] = Fact(value="gguf", source="reported")
        return facts | self._version(facts.get("build"))

    def _version(self, build: Fact | None) -> dict[str, Fact]:
        """Return the version: llama.cpp's build, or the package's, whose builds do not know their number."""
        if build is not None and not str(build.value).startswith("b0-"):
            return {"version": Fact(value=build.value, source="reported")}
        if self.spec.launch == "process" and _embedded(self.spec, os.environ):
            try:
                version = importlib.metadata.version("xllamacpp")
            except importlib.metadata.PackageNotFoundError:
                return {}
            return {"version": Fact(value=version, source="file", raw="xllamacpp")}
        return {}


def _sampling(params: object) -> str:
    return sampling_defaults(params) if isinstance(params, dict) else ""


def _kv_cache(spec: EngineSpec) -> str:
    """Return the cache's type as ``K`` or ``K/V``: llama.cpp's own is F16 (common/common.h), and nothing reports it."""
    flags = {"K": ("-ctk", "--cache-type-k"), "V": ("-ctv", "--cache-type-v")}
    kinds = [
        normalise(program.option(spec.args, *names) or spec.env.get(f"LLAMA_ARG_CACHE_TYPE_{half}") or "F16")
        for half, names in flags.items()
    ]
    return "/".join(dict.fromkeys(kinds))


def _model_file(spec: EngineSpec) -> Path:
    path = spec.model_path
    if path is None or not path.is_file():
        named = spec.model if path is None else str(path)
        raise LaunchError(
            f"{spec.name}: llama.cpp is started with a local GGUF file, and {named!r} is none. Give model = the path "
            "of the file (fetch one with: hf download REPO FILE.gguf --local-dir .), or base_url of a running server.",
            engine=spec.name,
        )
    return path


def _embedded(spec: EngineSpec, environ: Mapping[str, str]) -> bool:
    """Tell whether this interpreter's xllamacpp is what is started: nothing else is named or on PATH."""
    named = spec.command or spec.python is not None or spec.requires
    return not named and shutil.which("llama-server", path=environ.get("PATH")) is None


def _program(spec: EngineSpec, environ: Mapping[str, str]) -> list[str]:
    if spec.command:
        program = shutil.which(spec.command[0], path=environ.get("PATH"))
        if program is None:
            raise LaunchError(
                f"{spec.name}: command = {spec.command[0]!r} is not an executable file or on PATH.", engine=spec.name
            )
        return [program, *spec.command[1:]]
    if spec.python is not None:
        program = shutil.which(spec.python, path=environ.get("PATH"))
        if program is None:
            raise LaunchError(f"{spec.name}: python = {spec.python!r} is not an interpreter.", engine=spec.name)
        return [program, "-P", str(_CHILD)]
    if not _embedded(spec, environ):
        return [str(shutil.which("llama-server", path=environ.get("PATH")))]
    if importlib.util.find_spec("xllamacpp") is None:
        raise LaunchError(
            f"{spec.name}: there is no llama-server on PATH and no xllamacpp in {sys.executable}. Install the embedded "
            "engine with: pip install 'pytest-llmparity[llamacpp]'",
            engine=spec.name,
        )
    # -P: nothing of this folder becomes importable there.
    return [sys.executable, "-P", str(_CHILD)]
