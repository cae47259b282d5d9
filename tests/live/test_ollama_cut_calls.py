"""A tool call that the token limit cuts, on a real Ollama: a cut answer on every route, and functions are offered."""

from __future__ import annotations

import pytest

from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.sample import Request, Sampling
from pytest_llmparity.engines import registry
from pytest_llmparity.run.probe.probes import GREETING, OFFERED, TOOLS, probe
from pytest_llmparity.settings.specification import EngineSpec, Route
from tests.real_ollama import RealOllama

pytestmark = pytest.mark.live

TOO_FEW = 16
"""Tokens that end in the middle of the call the tiny model makes of the greeting."""


@pytest.mark.parametrize("route", ["openai", "native"])
def test_a_cut_tool_call_is_a_cut_answer(real_ollama: RealOllama, route: Route) -> None:
    model = real_ollama.model("F16")
    spec = EngineSpec(name="cand", kind="ollama", model=model, base_url=real_ollama.url, route=route)
    adapter = registry.make(spec, real_ollama.url, environ={})
    request = Request(case="c", messages=GREETING, tools=TOOLS, sampling=Sampling(max_tokens=TOO_FEW))

    for stream in (False, True):
        wire = adapter.build(request, stream=stream)
        reply = adapter.control.post(wire.path, wire.body, timeout_s=300)
        completion = adapter.read(reply, case="c")

        assert reply.status == 500, "Ollama says what it cut by now: this test can go"
        assert (completion.finish_reason, completion.cut, completion.text) == ("length", True, "")
        assert [call.name for call in completion.tool_calls] == ["get_tide"]

    assert probe(adapter, {"tools": OFFERED}, declares=Capabilities()).values == {"tools": True}
