"""Which kinds of engine there are, and the adapter of a spec."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from pytest_llmparity.core.errors import EngineSelectionError
from pytest_llmparity.core.settings import EngineSpec
from pytest_llmparity.engines import probe
from pytest_llmparity.engines.base import Adapter, resolve_headers
from pytest_llmparity.engines.llamacpp import LlamaCppAdapter
from pytest_llmparity.engines.openai import OpenAIAdapter
from pytest_llmparity.engines.vllm import VllmAdapter

_KINDS: dict[str, type[Adapter]] = {adapter.kind: adapter for adapter in (LlamaCppAdapter, VllmAdapter, OpenAIAdapter)}


def kinds() -> Mapping[str, type[Adapter]]:
    """Return every kind with its adapter class."""
    return dict(_KINDS)


def adapter_for(kind: str) -> type[Adapter]:
    """Return the adapter class of a kind that was written down; ``EngineSelectionError`` names the nearest one."""
    if kind in _KINDS:
        return _KINDS[kind]
    near = difflib.get_close_matches(kind, _KINDS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else " Any server with OpenAI's API can be used as kind 'openai'."
    raise EngineSelectionError(f"There is no engine kind {kind!r}; known are {', '.join(sorted(_KINDS))}.{hint}")


def make(spec: EngineSpec, base_url: str, *, environ: Mapping[str, str]) -> Adapter:
    """Return the adapter for a spec around the server at ``base_url``.

    Header variables are read from ``environ`` (``ConfigError`` if one is not set). A spec without a kind has its server
    probed; one that is recognised but has no adapter is served by ``openai`` with ``recognised`` saying what it is.
    """
    headers = resolve_headers(spec, environ)
    if spec.kind is not None:
        return adapter_for(spec.kind)(spec, base_url, headers)
    seen = probe.recognise(base_url, headers, name=spec.name, ca_bundle=spec.ca_bundle, proxy=spec.proxy)
    adapter = _KINDS.get(seen, OpenAIAdapter)(spec, base_url, headers)
    adapter.recognised = seen if seen != adapter.kind else ""
    return adapter
