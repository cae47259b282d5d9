"""What is behind a URL: cheap tells by which servers give themselves away, asked in a fixed order until one does.

Tells of kinds with recordings are tested on those. LM Studio's and TGI's, LocalAI's, KoboldCpp's, llama-swap's, Ray
Serve's and hosted services' are from documentation and source, named beside each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pytest_llmparity.core.errors import ProtocolError, Timeout, Unreachable
from pytest_llmparity.engines.wire.control import API, Control, Reply
from pytest_llmparity.engines.wire.values import mappings
from pytest_llmparity.settings.selection import KINDS

GENERIC: Final = "openai"
"""What a server is called that gives itself away by nothing."""

OTHERS: Final[Mapping[str, str]] = {
    "hosted": "a hosted service: it names prices, rate limits or OpenAI's own version",
    "koboldcpp": "KoboldCpp",
    "llama-swap": "llama-swap, which starts another server per model",
    "localai": "LocalAI, which serves several backends",
    "ray-serve": "Ray Serve LLM, most often in front of vLLM",
}
"""What else a server may be recognised as; each of them is asked as kind ``openai``."""

_OWNERS: Final = {
    "llamacpp": "llamacpp",
    "vllm": "vllm",
    "sglang": "sglang",
    "koboldcpp": "koboldcpp",  # koboldcpp.py, /v1/models
    "llama-swap": "llama-swap",  # proxy/proxymanager.go, listModelsHandler
    "me": "llamacpp-python",  # llama_cpp/server/app.py
}
_LIMITED: Final = ("openai-version", "openai-organization", "x-ratelimit-limit-requests")
"""Headers of OpenAI's reference ("debugging requests") that self-hosted servers do not send."""


def recognise(
    base_url: str,
    headers: Mapping[str, str] | None = None,
    *,
    api: str | None = None,
    name: str = "",
    ca_bundle: Path | None = None,
    proxy: str | None = None,
    time_left: Callable[[], float | None] = lambda: None,
) -> str:
    """Return what the server at a URL looks like: a kind, one of :data:`OTHERS`, else ``openai``.

    ``api`` is what its OpenAI routes start with (default ``/v1``). Raises ``Unreachable`` or ``Timeout`` when nothing
    answers at all. No question lasts longer than ``time_left``.
    """
    return seen(
        Control(
            engine=name or base_url,
            base_url=base_url.rstrip("/"),
            api=API if api is None else api,
            headers=headers or {},
            ca_bundle=ca_bundle,
            proxy=proxy,
            time_left=time_left,
        )
    )


def kind_of(seen: str) -> str:
    """Return the kind as which a server that was recognised is asked."""
    return seen if seen in KINDS else GENERIC


def seen(control: Control) -> str:
    """Return what a server looks like, as :func:`recognise` does; at most twelve requests, none after the first hit."""
    listed = control.get("/v1/models")
    asked = (ask(control, listed) for ask in _ASKED)
    return _by_list(listed) or next(filter(None, asked), "") or _by_words(listed)


def _entries(listed: Reply) -> list[Mapping[str, object]]:
    return list(mappings(listed.json().get("data")))


def _by_list(listed: Reply) -> str:
    server = listed.headers.get("server", "")
    if any(header.startswith("x-litellm-") for header in listed.headers):
        return "litellm"  # first of all: it speaks for a server we cannot see
    if server == "llama.cpp":
        return "llamacpp"
    if server.startswith(("KoboldCppServer", "ConcedoLlamaForKoboldServer")):
        return "koboldcpp"
    for entry in _entries(listed):
        owner, about = entry.get("owned_by"), entry.get("metadata")
        if isinstance(owner, str) and owner in _OWNERS:
            return _OWNERS[owner]
        # python/ray/llm/_internal/serve: to_model_metadata
        if owner == "organization-owner" and isinstance(about, dict) and "max_request_context_length" in about:
            return "ray-serve"
        if "pricing" in entry:  # OpenRouter's API reference, "list available models"
            return "hosted"
    return "hosted" if any(header in listed.headers for header in _LIMITED) else ""


def _root(control: Control, listed: Reply) -> str:
    reply = _reply(control, "/")
    page = reply.body[:1000] if reply is not None else b""
    if b"<title>LiteLLM" in page:
        return "litellm"
    # LocalAI can be told to say this too (core/http/routes/ollama.go); its list of models names no owner.
    if b"Ollama is running" in page and all("owned_by" in entry for entry in _entries(listed)):
        return "ollama"
    return ""


def _props(control: Control, listed: Reply) -> str:
    return "llamacpp" if "build_info" in control.ask("/props") else ""


def _server_info(control: Control, listed: Reply) -> str:
    # SGLang imitates Ollama's and others' routes, so its own comes before theirs.
    own = control.ask("/server_info").keys() & {"sglang_version", "mem_fraction_static", "internal_states"}
    return "sglang" if own else ""


def _info(control: Control, listed: Reply) -> str:
    return "tgi" if "model_sha" in control.ask("/info") else ""  # router/src/server.rs, get_model_info


def _well_known(control: Control, listed: Reply) -> str:
    # LocalAI's documentation, "API discovery": public since it exists. It has Ollama's routes too, so it comes first.
    return "localai" if "endpoints" in control.ask("/.well-known/localai.json") else ""


def _ollama(control: Control, listed: Reply) -> str:
    return "ollama" if control.ask("/api/version").get("version") and control.ask("/api/tags") else ""


def _lmstudio(control: Control, listed: Reply) -> str:
    # LM Studio's documentation, "REST API": v1, and v0 of older releases. It answers unknown routes with 200.
    for path in ("/api/v1/models", "/api/v0/models"):
        if control.ask(path).keys() & {"models", "data"}:
            return "lmstudio"
    return ""


def _load_model(control: Control, listed: Reply) -> str:
    # transformers/cli/serving/server.py: a route of its own, for POST only.
    reply = _reply(control, "/load_model")
    return "transformers" if reply is not None and reply.status == 405 else ""


def _alive(control: Control, listed: Reply) -> str:
    # litellm/proxy/health_endpoints: what tells it where its documentation page is switched off.
    reply = _reply(control, "/health/liveliness")
    return "litellm" if reply is not None and b"I'm alive!" in reply.body[:100] else ""


_ASKED: Final[tuple[Callable[[Control, Reply], str], ...]] = (
    _root,
    _props,
    _server_info,
    _info,
    _well_known,
    _ollama,
    _lmstudio,
    _load_model,
    _alive,
)
"""Questions in order; each gets the list of models that was asked for first."""


def _by_words(listed: Reply) -> str:
    """Return the kind that the list of models gives away, where no route of its own does."""
    server = listed.headers.get("server", "").lower()
    for entry in _entries(listed):
        model, owner = entry.get("id"), entry.get("owned_by")
        named = isinstance(model, str) and isinstance(owner, str) and owner and model.startswith(f"{owner}/")
        if named and server == "uvicorn":  # releases of transformers without /load_model
            return "transformers"
    # mlx-lm serves from Python's own http.server, names no owner, and breaks off where there is no hub cache to list.
    page = listed.body.lstrip()[:1] == b"<"  # any other program's; it answers every path with one
    if server.startswith("basehttp") and listed.status == 200 and not page:
        return GENERIC if any("owned_by" in entry for entry in _entries(listed)) else "mlx"
    return GENERIC


def _reply(control: Control, path: str) -> Reply | None:
    try:
        return control.get(path)
    except (Unreachable, Timeout, ProtocolError):
        return None
