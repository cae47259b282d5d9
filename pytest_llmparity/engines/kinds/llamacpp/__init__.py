"""llama.cpp: ``llama-server`` from PATH, or the ``xllamacpp`` package in a child process, or attached."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from pytest_llmparity.core.errors import ProtocolError, Timeout, Unreachable
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.quantization import normalise
from pytest_llmparity.core.identity.spelling import sampling_defaults
from pytest_llmparity.core.prompts.parts import media_of
from pytest_llmparity.core.sample import UNSENT, Fact, JsonObject, Request
from pytest_llmparity.engines.facts import files, serving
from pytest_llmparity.engines.facts.values import decoded, facts, mapping, mappings, quantization, string
from pytest_llmparity.engines.start import inside, program
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.wire import build
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.control import Reply
from pytest_llmparity.extras import plain_command
from pytest_llmparity.settings.selection import ANSWERS, KINDS
from pytest_llmparity.settings.specification import DEFAULT_CONCURRENCY, EngineSpec, Route

DEFAULT_CONTEXT: Final = 4096
"""What one request gets when nothing is configured, or the model's trained length if that is shorter: every slot has a
cache of its own, and several full contexts of a modern model do not fit a laptop. A longer prompt is refused aloud."""

_CHILD: Final = Path(__file__).with_name("child.py")
_INSTALL: Final = (
    "Name llama-server by command = […] or an interpreter that has xllamacpp by python, or install the embedded engine "
    f"with: {plain_command('llamacpp')}"
)


class GgufServer(Adapter):
    """A server of one GGUF file that checks no model name, so any name works in a request."""

    fields: ClassVar[Mapping[str, str]] = build.OPEN_SERVERS | {"repetition_penalty": "repeat_penalty"}
    offline: ClassVar[Mapping[str, str]] = {"HF_HUB_OFFLINE": "1"}

    @classmethod
    def wire_model(cls, spec: EngineSpec) -> str:
        """Return the file's name for a local file, also of a server that somebody else started."""
        return spec.model_path.name if spec.model_path is not None else spec.model or ""

    @classmethod
    def model_file(cls, spec: EngineSpec, program: str) -> Path:
        """Return the file to serve; ``LaunchError`` says that ``program`` needs one."""
        path = spec.model_path
        if path is None or not path.is_file():
            given = spec.model if path is None else str(path)
            raise spec.launch_error(
                f"{program} is started with a local GGUF file, and {given!r} is none. Give model = the "
                "path of the file (fetch one with: hf download REPO FILE.gguf --local-dir .), or base_url of a running "
                "server."
            )
        return path

    @classmethod
    def context(cls, spec: EngineSpec, path: Path) -> int:
        """Return what one request gets: ``context_length``, else :data:`DEFAULT_CONTEXT` or what the file says."""
        if spec.context_length is not None:
            return spec.context_length
        return min(files.gguf_header(path).get("context_length", DEFAULT_CONTEXT), DEFAULT_CONTEXT)


class LlamaCppAdapter(GgufServer):
    """One llama.cpp server (``llama-server`` or xllamacpp)."""

    kind: ClassVar[str] = "llamacpp"
    listens: ClassVar[tuple[str, ...]] = KINDS["llamacpp"].listens
    routes: ClassVar[tuple[Route, ...]] = ANSWERS
    # Every field of its own is taken over /v1/responses too, and so is stop. "logprobs" is needed for top_logprobs and
    # then leaves the answer without any, and text.format is taken and not enforced (both seen on b10488).
    responses_fields: ClassVar[Mapping[str, str]] = {**GgufServer.fields, "max_tokens": "max_output_tokens"}
    on_routes: ClassVar[Mapping[Route, Mapping[str, Any]]] = {"responses": {"logprobs": False, "token_ids": False}}
    deadline_s: ClassVar[float] = 60.0  # llama.cpp's own tests wait this long for a start
    scrub: ClassVar[tuple[str, ...]] = ("LLAMA_ARG_*", "LLAMA_API_KEY")
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
    unpenalised: ClassVar[Mapping[str, Any]] = {"repeat_last_n": 0}
    unsampled: ClassVar[Mapping[str, Any]] = UNSENT
    unreasoning: ClassVar[Mapping[str, Any]] = {"chat_template_kwargs": {"enable_thinking": False}}
    call_flags: ClassVar[tuple[str, ...]] = ("--jinja",)
    cache_off: ClassVar[tuple[str, ...]] = ("--no-cache-prompt",)
    # llama.cpp's common/arg.cpp; adapters and drafting are reported. ``auto`` decides by the device: nothing is known.
    serving_flags: ClassVar[Mapping[str, serving.Flag]] = {
        "attention": serving.Flag(
            options=("-fa", "--flash-attn"), variables=("LLAMA_ARG_FLASH_ATTN",), read=serving.flash
        ),
        "prefix_cache": serving.Flag(
            turned_on_by=("--cache-prompt",), turned_off_by=("--no-cache-prompt",), default=serving.OFF
        ),
    }
    schema_field: ClassVar[str] = "json_schema"
    template_flag: ClassVar[str] = "--chat-template-file"
    template_place: ClassVar[str] = "what GET /props calls chat_template"

    def capabilities(self) -> Capabilities:
        """Return what the kind can do, and what ``/props`` says that this model reads beside text."""
        able, modalities = super().capabilities(), mapping(self.control.ask("/props").get("modalities"))
        images, audio = (yes if isinstance(yes := modalities.get(name), bool) else None for name in ("vision", "audio"))
        return dataclasses.replace(
            able,
            images=images if able.images is None else able.images,
            audio=audio if able.audio is None else able.audio,
        )

    def uncached(self) -> Mapping[str, Any]:
        """Return what every request of ours has anyway."""
        return self.constants

    renderings: ClassVar[int] = 1

    def rendered(self, request: Request) -> str | None:
        """Return what ``/apply-template`` makes of a chat; what passed-through fields do to it nobody knows."""
        if request.extra_body or request.thinking or media_of(request.messages):
            return None
        body = build.encode({"messages": list(request.messages or ())})
        prompt = self.control.post("/apply-template", body, timeout_s=self.spec.request_timeout_s).json().get("prompt")
        return prompt if isinstance(prompt, str) else None

    def tokens(self, prompt: str) -> list[int] | None:
        """Return what ``/tokenize`` makes of a raw prompt; ``/v1/completions`` takes that in place of the text."""
        body = build.encode({"content": prompt, "add_special": True, "parse_special": True})
        tokens = self.control.post("/tokenize", body, timeout_s=self.spec.request_timeout_s).json().get("tokens")
        return tokens if isinstance(tokens, list) and all(isinstance(token, int) for token in tokens) else None

    def bos(self) -> str:
        """Return the token that ``/props`` names."""
        return string(self.control.ask("/props").get("bos_token"))

    def eos(self) -> str:
        """Return the token that ``/props`` names."""
        return string(self.control.ask("/props").get("eos_token"))

    @classmethod
    def launch(cls, spec: EngineSpec, port: int, workdir: Path, *, environ: Mapping[str, str] = os.environ) -> Launch:
        """Say how to serve the spec's GGUF file.

        ``spec.command``, else ``llama-server`` from PATH, else xllamacpp run by ``spec.python`` or this interpreter.
        llama.cpp shares ``n_ctx`` between its slots, so it gets ``context_length`` times the slots; more requests than
        slots queue. A run launches with a slot for every request in flight where the configuration names no number.
        """
        path = cls.model_file(spec, "llama.cpp")
        slots = spec.slots or DEFAULT_CONCURRENCY
        flags = program.flags(
            {
                "--model": inside.place(spec, path, environ),
                "--alias": cls.wire_model(spec),
                "--host": inside.host(spec),
                "--port": port,
                "--ctx-size": cls.context(spec, path) * slots,
                "--parallel": slots,
                "--cache-ram": 0,
                "--fit": "off",
                "--no-cache-prompt": True,
                "--metrics": True,
                "--offline": True,
            }
        )
        return cls.started(spec, workdir, [*_program(spec, environ), *flags])

    def limits(self) -> tuple[str, ...]:
        """Return what llama.cpp changes without saying so."""
        always = (
            "any model name is answered by the one model it has.",
            "a sampling value out of range is moved into it instead of refused.",
        )
        cache = (
            "parity asks without the prompt cache; an application's answer to a prompt seen before may differ unless "
            "the server runs with --no-cache-prompt."
        )
        return always if self.ours else (*always, cache)

    def _thinking_fields(self, request: Request) -> JsonObject:
        """Say a level of effort to the template too: the server itself knows ``none`` alone."""
        return build.effort_to_template(super()._thinking_fields(request), keep=True)

    def can_stream(self, request: Request) -> bool:
        """Tell whether this request may be streamed: llama.cpp refuses logprobs beside tools in a stream."""
        return not (request.tools and request.top_logprobs is not None)

    def _impostor(self, reply: Reply) -> str | None:
        path = self.spec.model_path
        serves = string(self.control.ask("/props").get("model_path")) if self.ours and path is not None else ""
        if path is not None and serves and Path(serves).name != path.name:
            raise self._another(serves, instead_of=path.name)
        return None

    def from_files(self) -> dict[str, Fact]:
        """Return what the GGUF file says that we started the server with, and the cache's type that we chose."""
        path = self.spec.model_path
        if not self.ours or path is None:
            return {}
        cache = facts({"kv_cache": _kv_cache(self.spec.args, self.variables)}, source="declared")
        sampling = facts({"sampling_defaults": files.gguf_header(path).get("sampling")}, source="file")
        return cache | files.gguf_facts(path) | sampling

    def reported(self) -> dict[str, Fact]:
        """Return what ``/props`` and ``/v1/models`` say.

        Quantisation, build, context of one slot, slots, template, and the sampling of requests that say nothing.
        """
        props, entry = self.control.ask("/props"), self._entry()
        settings, template = mapping(props.get("default_generation_settings")), string(props.get("chat_template"))
        known = facts(
            {
                "build": props.get("build_info"),
                "model": props.get("model_alias") or entry.get("id"),
                "context_length": settings.get("n_ctx"),
                "slots": props.get("total_slots"),
                "sampling_defaults": sampling_defaults(mapping(settings.get("params"))),
                "template_sha256": files.text_sha256(template) if template else "",
                "format": "gguf" if props else "",
                "adapters": self._adapters(),
                "speculative": _drafting(mapping(settings.get("params"))),
            }
        )
        weights = quantization(props.get("model_ftype") or mapping(entry.get("meta")).get("ftype"))
        return known | weights | self._version(known.get("build"))

    def _adapters(self) -> str:
        """Return what ``/lora-adapters`` lists, those without effect left out; empty of a server without that route.

        A request may name other scales; ours name none. The rank is known where the file is on this machine.
        """
        try:
            reply = self.control.get("/lora-adapters")
        except (Unreachable, Timeout, ProtocolError):
            return ""
        loaded = decoded(reply.body) if reply.status == 200 else None
        if not isinstance(loaded, list):
            return ""
        scales = [(string(entry.get("path")), entry.get("scale", 1.0)) for entry in mappings(loaded)]
        return serving.listed(serving.adapter_at(path, scale=float(scale)) for path, scale in scales if scale)

    def _version(self, build: Fact | None) -> dict[str, Fact]:
        """Return the version: llama.cpp's build, or the package's, whose builds do not know their number."""
        if build is not None and not str(build.value).startswith("b0-"):
            return facts({"version": build.value})
        if self.ours and _embedded(self.spec, os.environ):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                return facts({"version": importlib.metadata.version("xllamacpp")}, source="file", raw="xllamacpp")
        return {}


def _drafting(params: Mapping[str, Any]) -> str:
    """Return the kinds of drafts that ``/props`` names, empty of a server that does not say."""
    kinds = string(params.get("speculative.types"))
    return serving.OFF if kinds == "none" else kinds


def _kv_cache(args: tuple[str, ...], env: Mapping[str, str]) -> str:
    """Return the cache's type as ``K`` or ``K/V``: llama.cpp's own is F16 (common/common.h), and nothing reports it."""
    flags = {"K": ("-ctk", "--cache-type-k"), "V": ("-ctv", "--cache-type-v")}
    kinds = [
        normalise(program.option(args, *names) or env.get(f"LLAMA_ARG_CACHE_TYPE_{half}") or "F16")
        for half, names in flags.items()
    ]
    return "/".join(dict.fromkeys(kinds))


def _embedded(spec: EngineSpec, environ: Mapping[str, str]) -> bool:
    """Tell whether this interpreter's xllamacpp is what is started: nothing else is named or on PATH."""
    named = spec.command or spec.python is not None or spec.requires or spec.launch == "container"
    return not named and shutil.which("llama-server", path=environ.get("PATH")) is None


def _program(spec: EngineSpec, environ: Mapping[str, str]) -> list[str]:
    if spec.launch == "container":
        return inside.entry(spec, inside.OWN_ENTRY)
    if spec.command or spec.python is not None:
        argv = program.program(spec, environ, command="llama-server", module="xllamacpp", install=_INSTALL)
        return argv if spec.command else [argv[0], "-P", str(_CHILD)]
    if not _embedded(spec, environ):
        return [str(shutil.which("llama-server", path=environ.get("PATH")))]
    if importlib.util.find_spec("xllamacpp") is None:
        raise spec.launch_error(
            f"there is no llama-server on PATH and no xllamacpp in {sys.executable}. Install the embedded "
            f"engine with: {plain_command('llamacpp')}"
        )
    # -P: nothing of this folder becomes importable there.
    return [sys.executable, "-P", str(_CHILD)]
