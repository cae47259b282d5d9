"""Which kinds of engine there are, and the adapter of a spec."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Final

from pytest_llmparity.core.errors import EngineSelectionError
from pytest_llmparity.core.selection import KINDS, Kind
from pytest_llmparity.core.settings import EngineSpec
from pytest_llmparity.engines import probe
from pytest_llmparity.engines.base import Adapter, resolve_headers

_HOMES: Final = {
    "litellm": "litellm:LiteLlmAdapter",
    "llamacpp": "llamacpp:LlamaCppAdapter",
    "llamacpp-python": "llamacpp_python:LlamaCppPythonAdapter",
    "lmstudio": "lmstudio:LmStudioAdapter",
    "mlx": "mlx:MlxAdapter",
    "ollama": "ollama:OllamaAdapter",
    "openai": "openai:OpenAIAdapter",
    "sglang": "sglang:SglangAdapter",
    "tgi": "tgi:TgiAdapter",
    "transformers": "transformers:TransformersAdapter",
    "vllm": "vllm:VllmAdapter",
}
"""Where the adapters that come with the package are; loaded when a run names their kind."""

_added: dict[str, type[Adapter]] = {}


def add(adapter: type[Adapter]) -> None:
    """Make a kind known that comes from elsewhere; ``EngineSelectionError`` when its name is taken or unusable.

    Adding the same class again changes nothing.
    """
    kind = adapter.kind
    taken = _added.get(kind) or (_load(kind) if kind in _HOMES else None)
    if taken is adapter:
        return
    if taken is not None:
        raise EngineSelectionError(
            f"{adapter.__module__}.{adapter.__qualname__} brings an engine kind {kind!r}, and {taken.__module__} has "
            "one of that name; give it another name."
        )
    _added[kind] = adapter


def known() -> Mapping[str, Kind]:
    """Return what the core must know of every kind, those from elsewhere included; loads no adapter of ours."""
    return {**KINDS, **{name: facts(adapter) for name, adapter in _added.items()}}


def facts(adapter: type[Adapter]) -> Kind:
    """Return what the core must know of an adapter's kind, read from the class."""
    return Kind(
        starts=adapter.launch.__func__ is not Adapter.launch.__func__,  # type: ignore[attr-defined]
        local_model=adapter.local_model,
        native="native" in adapter.routes,
        unloads=adapter.unloads,
    )


def kinds() -> Mapping[str, type[Adapter]]:
    """Return every kind with its adapter class."""
    return {name: adapter_for(name) for name in sorted({*_HOMES, *_added})}


def adapter_for(kind: str) -> type[Adapter]:
    """Return the adapter class of a kind that was written down; ``EngineSelectionError`` names the nearest one."""
    if kind in _added:
        return _added[kind]
    if kind in _HOMES:
        return _load(kind)
    names = sorted({*_HOMES, *_added})
    near = difflib.get_close_matches(kind, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else " Any server with OpenAI's API can be used as kind 'openai'."
    raise EngineSelectionError(f"There is no engine kind {kind!r}; known are {', '.join(names)}.{hint}")


def make(spec: EngineSpec, base_url: str, *, environ: Mapping[str, str]) -> Adapter:
    """Return the adapter for a spec around the server at ``base_url``.

    Header variables are read from ``environ`` (``ConfigError`` if one is not set). A spec without a kind has its server
    probed.
    """
    headers = resolve_headers(spec, environ)
    if spec.kind is not None:
        return adapter_for(spec.kind)(spec, base_url, headers)
    seen = probe.recognise(base_url, headers, name=spec.name, ca_bundle=spec.ca_bundle, proxy=spec.proxy)
    return adapter_for(seen)(spec, base_url, headers)


def _load(kind: str) -> type[Adapter]:
    module, _, name = _HOMES[kind].partition(":")
    found: type[Adapter] = getattr(importlib.import_module(f"pytest_llmparity.engines.{module}"), name)
    return found
