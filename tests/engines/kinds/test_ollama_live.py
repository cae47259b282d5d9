"""What Ollama alone does, held against a real one: memory, names over one file, template paths, turns of engines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import Request
from pytest_llmparity.engines.registry import make
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.probe.overflow import OVERFLOW
from pytest_llmparity.run.probe.probes import STRUCTURED, probe
from pytest_llmparity.run.records import context_of
from pytest_llmparity.settings.specification import EngineSpec, Route
from pytest_llmparity.transport.exchange import Exchange
from tests.real_ollama import RealOllama

Send = Callable[..., Exchange]

pytestmark = pytest.mark.live

GO = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
CITY = {"properties": {"city": {"type": "string"}}, "required": ["city"]}


def offered(**more: str) -> tuple[dict[str, Any], ...]:
    """Return two functions, ``more`` being what else stands in their parameters."""
    return tuple(
        {"type": "function", "function": {"name": name, "parameters": CITY | more}}
        for name in ("get_weather", "get_time")
    )


ASKED_TWICE = (
    {"role": "user", "content": "What is the weather in Lisbon?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": f"c{at}", "type": "function", "function": {"name": name, "arguments": '{"city": "Lisbon"}'}}
            for at, name in enumerate(("get_weather", "get_time"))
        ],
    },
    {"role": "tool", "tool_call_id": "c0", "content": "sunny"},
    {"role": "tool", "tool_call_id": "c1", "content": "noon"},
)


def adapter_of(daemon: RealOllama, model: str, *, route: Route = "openai", name: str = "e") -> Adapter:
    spec = EngineSpec(name=name, kind="ollama", model=model, base_url=daemon.url, route=route)
    return make(spec, daemon.url, environ={})


def test_a_model_leaves_the_memory_when_it_is_told_to_and_comes_back(real_ollama: RealOllama) -> None:
    adapter = adapter_of(real_ollama, real_ollama.model("F16"))
    adapter.load()
    adapter.warm_up()
    there = real_ollama.loaded()

    adapter.unload()

    assert "tiny:f16" in there
    assert "tiny:f16" not in real_ollama.loaded()
    assert adapter.identity().get("context_length") == there["tiny:f16"]
    adapter.warm_up()
    assert "tiny:f16" in real_ollama.loaded()


def test_engines_that_take_turns_are_never_in_memory_together(real_ollama: RealOllama, tmp_path: Path) -> None:
    def no_keeper() -> NoReturn:
        raise AssertionError("nothing is started here")

    real_ollama.unload()
    models = {"a": real_ollama.model("F16"), "b": real_ollama.model("Q4_0")}
    specs = {
        name: EngineSpec(name=name, kind="ollama", model=model, base_url=real_ollama.url)
        for name, model in models.items()
    }
    fleet = Fleet(specs, keeper=no_keeper, workdir=tmp_path, environ={}, one_at_a_time=True)

    turns = []
    for name in ("a", "b", "a"):
        engaged = fleet.engage(name)
        assert engaged.record.error is None
        turns.append(list(real_ollama.loaded()))

    assert turns == [["tiny:f16"], ["tiny:q4_0"], ["tiny:f16"]]
    fleet.close()


def test_weights_loaded_under_another_name_are_loaded_again_under_ours(real_ollama: RealOllama) -> None:
    real_ollama.unload()
    other = real_ollama.model("F16", "twin:f16", parameters={"num_thread": 1, "top_k": 7})
    adapter_of(real_ollama, other).warm_up()

    adapter_of(real_ollama, real_ollama.model("F16")).warm_up()

    assert list(real_ollama.loaded()) == ["tiny:f16"]


@pytest.mark.parametrize("route", ["openai", "native"])
def test_two_calls_of_one_turn_and_their_answers_reach_the_model(
    route: Route, real_ollama: RealOllama, send: Send
) -> None:
    adapter = adapter_of(real_ollama, real_ollama.model("F16"), route=route)

    answers = [
        adapter.read(send(adapter, Request(case="c", messages=turns, tools=offered(type="object"))), case="c")
        for turns in (ASKED_TWICE[:1], ASKED_TWICE)
    ]

    assert answers[0].finish_reason == "tool_calls"
    assert [(call.name, json.loads(call.arguments)) for call in answers[0].tool_calls] == [
        ("get_weather", {"city": "Lisbon"})
    ]
    assert (answers[1].prompt_tokens or 0) > (answers[0].prompt_tokens or 0) + 20


def test_parameters_of_a_tool_without_a_type_are_refused_with_the_way_out(real_ollama: RealOllama, send: Send) -> None:
    adapter = adapter_of(real_ollama, real_ollama.model("F16"))

    with pytest.raises(errors.UnsupportedParameter, match='Give the parameters of every tool "type": "object"'):
        adapter.read(send(adapter, Request(case="c", messages=ASKED_TWICE[:1], tools=offered())), case="c")


def test_a_go_template_keeps_declared_order_and_drops_the_oldest_turns(start_ollama: Callable[..., RealOllama]) -> None:
    daemon = start_ollama(OLLAMA_GO_TEMPLATE="1", OLLAMA_CONTEXT_LENGTH="256")
    adapter = adapter_of(daemon, daemon.model("F16", "go:f16", template=GO))
    adapter.load()
    adapter.warm_up()
    identity, can = adapter.identity(), adapter.capabilities()
    probes: dict[str, Any] = {"schema": STRUCTURED, "overflow": OVERFLOW}

    probed = probe(adapter, probes, declares=can, context=context_of(adapter.spec, identity))

    assert (identity.get("template_path"), can.schema_order) == ("go-template", True)
    assert probed.values == {"json_schema": True, "schema_order": True, "overflow": "oldest turns dropped"}, (
        probed.notes
    )
