"""What is behind a URL: cheap tells by which servers give themselves away, asked in a fixed order until one does.

Tells of kinds with recordings are tested on those. LM Studio's and TGI's, LocalAI's, KoboldCpp's, llama-swap's, Ray
Serve's and hosted services' are from documentation and source, named beside each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pytest_llmparity.core.errors import ProtocolError, Timeout, Unreachable
from pytest_llmparity.engines.facts.values import mappings
from pytest_llmparity.engines.wire.control import Control, Reply
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


def kind_of(seen: str) -> str:
    """Return the kind as which a server that was recognised is asked."""
    return seen if seen in KINDS else GENERIC


def seen(control: Control) -> str:
    """Return what a server looks like: a kind, one of :data:`OTHERS`, else ``openai``.

    At most twelve requests, none after the first hit; raises ``Unreachable`` or ``Timeout`` when nothing answers.
    """
    listed = control.get("/v1/models")
    return _by_list(listed) or _by_root(control, listed) or _by_route(control) or _by_words(listed)


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


def _by_root(control: Control, listed: Reply) -> str:
    reply = _reply(control, "/")
    page = reply.body[:1000] if reply is not None else b""
    if b"<title>LiteLLM" in page:
        return "litellm"
    # LocalAI can be told to say this too (core/http/routes/ollama.go); its list of models names no owner.
    if b"Ollama is running" in page and all("owned_by" in entry for entry in _entries(listed)):
        return "ollama"
    return ""


_TELLS: Final = (
    ("llamacpp", "/props", {"build_info"}),
    # SGLang imitates Ollama's and others' routes, so its own comes before theirs.
    ("sglang", "/server_info", {"sglang_version", "mem_fraction_static", "internal_states"}),
    ("tgi", "/info", {"model_sha"}),  # router/src/server.rs, get_model_info
    # LocalAI's documentation, "API discovery": public since it exists. It has Ollama's routes too, so it comes first.
    ("localai", "/.well-known/localai.json", {"endpoints"}),
    ("ollama", "/api/version", {"version"}),
    # LM Studio's documentation, "REST API": v1, and v0 of older releases. It answers unknown routes with 200.
    ("lmstudio", "/api/v1/models", {"models", "data"}),
    ("lmstudio", "/api/v0/models", {"models", "data"}),
)
"""Who gives itself away by one of these keys in the answer to a route, in the order in which they are asked."""


def _by_route(control: Control) -> str:
    for seen, path, keys in _TELLS:
        if keys & control.ask(path).keys() and (seen != "ollama" or control.ask("/api/tags")):
            return seen
    reply = _reply(control, "/load_model")  # transformers/cli/serving/server.py: a route of its own, for POST only
    if reply is not None and reply.status == 405:
        return "transformers"
    # litellm/proxy/health_endpoints: what tells it where its documentation page is switched off.
    reply = _reply(control, "/health/liveliness")
    return "litellm" if reply is not None and b"I'm alive!" in reply.body[:100] else ""


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
