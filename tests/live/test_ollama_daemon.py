"""The real Ollama that live tests share: it serves the tiny model, and is a daemon of the tests' own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.real_ollama import RealOllama

pytestmark = pytest.mark.live


def test_models_are_made_and_held_apart_by_name(real_ollama: RealOllama) -> None:
    names = [real_ollama.model(quantization) for quantization in ("F16", "Q4_0", "F16")]

    assert names == ["tiny:f16", "tiny:q4_0", "tiny:f16"]
    assert set(names) <= set(real_ollama.names())


def test_daemon_with_room_for_one_model_lets_go_of_the_other(start_ollama: Callable[..., RealOllama]) -> None:
    daemon = start_ollama(OLLAMA_MAX_LOADED_MODELS="1")

    seen = []
    for quantization in ("F16", "Q4_0"):
        daemon.call("/api/generate", model=daemon.model(quantization), stream=False)
        seen.append(list(daemon.loaded()))

    assert seen == [["tiny:f16"], ["tiny:q4_0"]]
