"""How each kind of server says what all of them say: its control routes, its errors, its names for things.

Written after recordings where ``after`` says so, else after documentation and source; only what adapters and
``engines.recognise`` read is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pytest_llmparity.testing.loopback import Refusal, too_long
from pytest_llmparity.testing.speech import error_body


class Posed(Protocol):
    """The engine that poses as a kind, as far as its dialect asks."""

    model: str
    context_length: int
    slots: int
    quantization: str
    api_key: str | None
    loaded: bool


def _flat(status: int, message: str, kind: str) -> dict[str, object]:
    if status == 401:
        return {"error": "Unauthorized"}
    return {"object": "error", "message": message, "type": kind, "param": None, "code": status}


def _plain(status: int, message: str, kind: str) -> dict[str, object]:
    return {"error": message}


def _typed(status: int, message: str, kind: str) -> dict[str, object]:
    return {"error": message, "error_type": kind}


def _detail(status: int, message: str, kind: str) -> dict[str, object]:
    return {"detail": message}


def _unknown(model: str) -> Refusal:
    return 404, f"The model `{model}` does not exist.", "NotFoundError"


def _nothing(ms: float) -> dict[str, object]:
    return {}


def _no_headers(ms: float) -> dict[str, str]:
    return {}


def _listed(engine: Posed, owner: str | None, **more: object) -> dict[str, object]:
    entry: dict[str, object] = {"id": engine.model, "object": "model"}
    if owner is not None:
        entry["owned_by"] = owner
    return {"/v1/models": {"object": "list", "data": [entry | more]}}


def _healthy(engine: Posed, owner: str | None, **more: object) -> dict[str, object]:
    return {"/health": {"status": "ok"}} | _listed(engine, owner, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One kind's words.

    ``routes`` are answers to GET (a number refuses with that status), ``asked`` answers POST of a control route
    (``None`` for what is none). ``keyless`` routes answer without a key. ``server`` is the header of that name.
    ``reasoning`` names the field of that channel. ``shape`` is the body of an error. ``too_long`` refuses a prompt that
    does not fit, ``None`` where the kind answers it; ``missing`` a model that is not there. Timings are made of
    milliseconds: fields of the last chunk, of its choice, headers of unstreamed answers. ``spell`` writes a token as
    the kind does in logprobs, ``ids`` says that its id stands there. ``lazy`` kinds answer before they have loaded a
    model, ``counts`` kinds end a stream with token counts unasked.
    """

    after: str
    routes: Callable[[Posed], dict[str, object]]
    asked: Callable[[Posed, str, Mapping[str, Any]], object | None] | None = None
    keyless: tuple[str, ...] = ("/health",)
    server: str = ""
    reasoning: str = "reasoning_content"
    fingerprint: str = "loopback"
    shape: Callable[[int, str, str], dict[str, object]] = error_body
    too_long: Callable[[int, int], Refusal] | None = too_long
    missing: Callable[[str], Refusal] = _unknown
    timings: Callable[[float], dict[str, object]] = _nothing
    choice_timings: Callable[[float], dict[str, object]] = _nothing
    header_timings: Callable[[float], dict[str, str]] = _no_headers
    spell: Callable[[str], str] | None = None
    ids: bool = False
    lazy: bool = False
    counts: bool = False


# ---- llama.cpp and what holds it -----------------------------------------------------------------------------------


def _llamacpp(engine: Posed) -> dict[str, object]:
    props = {
        "model_path": engine.model,
        "model_alias": engine.model,
        "model_ftype": engine.quantization,
        "build_info": "b0-loopback",
        "total_slots": engine.slots,
        "chat_template": "{{ messages }}",
        "default_generation_settings": {"n_ctx": engine.context_length},
    }
    meta = {"n_ctx": engine.context_length, "ftype": engine.quantization}
    return _healthy(engine, "llamacpp", meta=meta) | {"/props": props}


def _exceeds(words: int, context: int) -> Refusal:
    message = f"request ({words} tokens) exceeds the available context size ({context} tokens), try increasing it"
    return 400, message, "exceed_context_size_error"


def _llama_cpp_python_too_long(words: int, context: int) -> Refusal:
    return 400, f"This model's maximum context length is {context} tokens", "context_length_exceeded"


def _llama_cpp_python(engine: Posed) -> dict[str, object]:
    return _listed(engine, "me") | {"/openapi.json": {"info": {"title": "llama.cpp Python API", "version": "0.0.0"}}}


# ---- Ollama --------------------------------------------------------------------------------------------------------


def _ollama(engine: Posed) -> dict[str, object]:
    name = engine.model
    entry = {"name": name, "model": name, "digest": "0" * 64, "details": {"quantization_level": engine.quantization}}
    running = [{"name": name, "model": name, "digest": "0" * 64, "context_length": engine.context_length}]
    return _listed(engine, "library") | {
        "/": b"Ollama is running",
        "/api/version": {"version": "0.33.0"},
        "/api/tags": {"models": [entry]},
        "/api/ps": {"models": running if engine.loaded else []},
    }


def _ollama_asked(engine: Posed, path: str, body: Mapping[str, Any]) -> object | None:
    if path == "/api/show":
        return {
            "modelfile": f"FROM /blobs/sha256-{'1' * 64}\n",
            "template": "{{ messages }}",
            "parameters": "",
            "details": {"format": "gguf", "quantization_level": engine.quantization},
            "tensors": [{"name": "t", "type": "F16", "shape": [4]}],
            "capabilities": ["completion", "tools"],
        }
    if path == "/api/generate" and "prompt" not in body:
        engine.loaded = body.get("keep_alive") != 0
        return {"model": engine.model, "done": True, "done_reason": "load" if engine.loaded else "unload"}
    return None


# ---- Python servers ------------------------------------------------------------------------------------------------


def _vllm(engine: Posed) -> dict[str, object]:
    more = {"root": engine.model, "max_model_len": engine.context_length}
    sleeping = {"is_sleeping": not engine.loaded}
    return _healthy(engine, "vllm", **more) | {"/version": {"version": "0.0.0+loopback"}, "/is_sleeping": sleeping}


def _vllm_asked(engine: Posed, path: str, body: Mapping[str, Any]) -> object | None:
    if path in ("/sleep", "/wake_up"):  # of a server started with --enable-sleep-mode
        engine.loaded = path == "/wake_up"
        return {}
    return None


def _sglang(engine: Posed) -> dict[str, object]:
    info = {
        "version": "0.0.0",
        "served_model_name": engine.model,
        "dtype": "bfloat16",
        "max_running_requests": engine.slots,
        "sampling_defaults": "openai",
        "internal_states": [],
        "api_key": engine.api_key,  # it repeats the key to whoever has it
        "launch_command": f"--api-key {engine.api_key}",
    }
    listed = _healthy(engine, "sglang", max_model_len=engine.context_length)
    return listed | {"/ready": b"", "/server_info": info, "/v1/loads": {"accelerator": "cpu"}}


def _sglang_too_long(words: int, context: int) -> Refusal:
    message = f"The input ({words} tokens) is longer than the model's context length ({context} tokens)."
    return 400, message, "BadRequestError"


def _tgi(engine: Posed) -> dict[str, object]:
    info = {"model_id": engine.model, "model_sha": "abc", "version": "3.3.7", "max_total_tokens": engine.context_length}
    return {"/health": b"", "/info": info} | _listed(engine, engine.model)


def _tgi_too_long(words: int, context: int) -> Refusal:
    message = f"Input validation error: `inputs` tokens + `max_new_tokens` must be <= {context}. Given: {words}"
    return 422, message, "validation"


def _mlx_missing(model: str) -> Refusal:
    return 404, f"Repository Not Found for url: https://huggingface.co/api/models/{model}/revision/main.", ""


def _mlx(engine: Posed) -> dict[str, object]:
    return _healthy(engine, None)


def _transformers(engine: Posed) -> dict[str, object]:
    return _healthy(engine, "") | {"/load_model": 405}


def _transformers_missing(model: str) -> Refusal:
    return 400, f"Server is pinned to 'another'; requested '{model}'.", ""


# ---- apps and proxies ----------------------------------------------------------------------------------------------


def _lmstudio(engine: Posed) -> dict[str, object]:
    config = {"context_length": engine.context_length, "parallel": engine.slots}
    entry = {
        "key": engine.model,
        "type": "llm",
        "format": "gguf",
        "quantization": {"name": engine.quantization},
        "loaded_instances": [{"id": engine.model, "config": config}] if engine.loaded else [],
    }
    return _listed(engine, "organization_owner") | {"/api/v1/models": {"models": [entry]}}


def _lmstudio_asked(engine: Posed, path: str, body: Mapping[str, Any]) -> object | None:
    if path in ("/api/v1/models/load", "/api/v1/models/unload"):
        engine.loaded = path.endswith("/load")
        return {"instance_id": engine.model, "status": "loaded" if engine.loaded else "unloaded"}
    if path == "/api/v0/chat/completions":
        return {"runtime": {"name": "loopback", "version": "1.0"}}
    return None


def _litellm(engine: Posed) -> dict[str, object]:
    params = {"model": f"openai/{engine.model}", "api_base": "http://127.0.0.1:9/v1"}
    return _listed(engine, "openai") | {
        "/": b"<html><title>LiteLLM API - Swagger UI</title></html>",
        "/health/readiness": {"status": "healthy"},
        "/health/liveliness": "I'm alive!",
        "/model/info": {"data": [{"model_name": engine.model, "litellm_params": params}]},
    }


def _litellm_missing(model: str) -> Refusal:
    return 400, f"/chat/completions: Invalid model name passed in model={model}.", "invalid_request_error"


def _generic(engine: Posed) -> dict[str, object]:
    return _healthy(engine, "loopback")


def _bare_key(name: str) -> Callable[[float], dict[str, str]]:
    return lambda ms: {name: f"{ms:g}"}


_VLLM_DOCS: Final = "recordings of 0.32.0; keyless routes: docs/usage/security.md"
DIALECTS: Final[Mapping[str, Dialect]] = {
    "openai": Dialect(after="OpenAI's API reference", routes=_generic),
    "llamacpp": Dialect(
        after="recordings of llama.cpp in xllamacpp 2026.10.11549",
        routes=_llamacpp,
        server="llama.cpp",
        too_long=_exceeds,
        timings=lambda ms: {"timings": {"cache_n": 0, "prompt_ms": ms, "predicted_ms": ms}},
        ids=True,
    ),
    "vllm": Dialect(
        after=_VLLM_DOCS,
        routes=_vllm,
        asked=_vllm_asked,
        keyless=("/health", "/version"),
        reasoning="reasoning",
        timings=lambda ms: {"metrics": {"time_to_first_token_ms": ms, "generation_time_ms": ms}},
    ),
    "sglang": Dialect(
        after="recordings of 0.5.23",
        routes=_sglang,
        keyless=("/health", "/ready"),
        shape=_flat,
        too_long=_sglang_too_long,
        choice_timings=lambda ms: {"meta_info": {"e2e_latency": ms / 1000}},
    ),
    "ollama": Dialect(
        after="recordings of 0.33.0 and docs/api.md",
        routes=_ollama,
        asked=_ollama_asked,
        lazy=True,
        keyless=(),
        reasoning="reasoning",
        fingerprint="fp_ollama",
        too_long=_exceeds,
    ),
    "mlx": Dialect(
        after="recordings and server.py of mlx-lm 0.32.2",
        routes=_mlx,
        server="BaseHTTP/0.6 Python/3.11",
        reasoning="reasoning",
        fingerprint="0.32.2-0.32.4-Linux-x86_64",
        shape=_plain,
        too_long=None,
        missing=_mlx_missing,
        spell=lambda token: token.replace(" ", "Ġ"),
        ids=True,
    ),
    "transformers": Dialect(
        after="recordings of transformers serve 5.19",
        routes=_transformers,
        server="uvicorn",
        fingerprint="",
        shape=_detail,
        too_long=None,
        missing=_transformers_missing,
        counts=True,
    ),
    "llamacpp-python": Dialect(
        after="llama_cpp/server of 0.3.36",
        routes=_llama_cpp_python,
        keyless=("/openapi.json",),
        too_long=_llama_cpp_python_too_long,
        header_timings=_bare_key("openai-processing-ms"),
    ),
    "litellm": Dialect(
        after="litellm/proxy of 1.106.2",
        routes=_litellm,
        keyless=("/", "/health/readiness", "/health/liveliness"),
        missing=_litellm_missing,
        header_timings=_bare_key("x-litellm-response-duration-ms"),
    ),
    "lmstudio": Dialect(
        after="LM Studio's documentation of its REST API",
        routes=_lmstudio,
        asked=_lmstudio_asked,
        lazy=True,
        keyless=(),
    ),
    "tgi": Dialect(
        after="router/src of 3.3.7",
        routes=_tgi,
        keyless=("/health", "/info"),
        shape=_typed,
        too_long=_tgi_too_long,
        header_timings=_bare_key("x-total-time"),
    ),
}
"""The words of every kind that comes with the package."""
