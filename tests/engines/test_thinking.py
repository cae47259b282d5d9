"""How much to reason, in the words of each kind of engine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_llmparity.core.errors import ParameterNotHonoured
from pytest_llmparity.core.sample import Request
from pytest_llmparity.engines import registry
from pytest_llmparity.engines.kinds.ollama import native
from pytest_llmparity.settings.specification import EngineSpec

LOW: dict[str, Any] = {"reasoning_effort": "low"}
NONE: dict[str, Any] = {"reasoning_effort": "none"}
OFF: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}}
ON: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": True}}
TOLD: dict[str, Any] = {"chat_template_kwargs": {"date": "2026-01-01"}}
URL = "http://127.0.0.1:9"


def asked(thinking: dict[str, Any]) -> Request:
    return Request(case="c", messages=({"role": "user", "content": "Hi"},), thinking=thinking)


def sent(kind: str, thinking: dict[str, Any]) -> dict[str, Any]:
    """What a kind's requests say of reasoning."""
    route: Any = "native" if kind == "ollama" else "openai"
    adapter = registry.make(EngineSpec(name="a", kind=kind, base_url=URL, model="m", route=route), URL, environ={})
    bodies = [json.loads(adapter.build(asked(each)).body) for each in (thinking, {})]
    return {name: value for name, value in bodies[0].items() if name not in bodies[1]}


@pytest.mark.parametrize("kind", ["openai", "vllm", "sglang", "litellm", "lmstudio", "tgi"])
@pytest.mark.parametrize("thinking", [LOW, OFF, LOW | TOLD])
def test_most_kinds_are_told_as_it_is_said(kind: str, thinking: dict[str, Any]) -> None:
    assert sent(kind, thinking) == thinking


@pytest.mark.parametrize(
    ("kind", "thinking", "expected"),
    [
        ("llamacpp", OFF, OFF),
        ("llamacpp", LOW, LOW | {"chat_template_kwargs": LOW}),
        ("llamacpp", NONE, NONE | OFF),
        ("llamacpp", LOW | TOLD, LOW | {"chat_template_kwargs": {**LOW, **TOLD["chat_template_kwargs"]}}),
        ("mlx", LOW, {"chat_template_kwargs": LOW}),
        ("mlx", NONE, OFF),
        ("transformers", OFF, OFF),
        ("ollama", LOW, {"think": "low"}),
        ("ollama", NONE, {"think": False}),
        ("ollama", OFF, {"think": False}),
        ("ollama", ON, {"think": True}),
        ("ollama", LOW | ON, {"think": "low"}),
    ],
)
def test_others_have_words_of_their_own(kind: str, thinking: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sent(kind, thinking) == expected


@pytest.mark.parametrize(
    ("kind", "thinking", "words"),
    [
        ("transformers", LOW, "a would ignore reasoning_effort of case 'c'"),
        ("ollama", TOLD, r"chat_template_kwargs\.date of case 'c': Ollama has no chat_template_kwargs"),
        ("ollama", {"reasoning_effort": "minimal"}, "its think is on, off, low, medium, high"),
        ("ollama", LOW | OFF, "enable_thinking=false of case 'c': reasoning_effort is 'low' beside it"),
        ("ollama", NONE | ON, "enable_thinking=true of case 'c': reasoning_effort is 'none' beside it"),
    ],
)
def test_what_an_engine_has_no_words_for_is_refused(kind: str, thinking: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterNotHonoured, match=words):
        sent(kind, thinking)


def test_the_openai_route_of_ollama_has_the_effort_alone() -> None:
    levels = [native.effort(asked(thinking), engine="a") for thinking in ({}, LOW, OFF, ON)]

    assert levels == ["", "low", "none", "on"]
