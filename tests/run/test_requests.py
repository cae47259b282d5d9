from __future__ import annotations

import json

import pytest

from pytest_llmparity.core.evidence import Needs
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Sampling
from pytest_llmparity.engines.registry import adapter_for
from pytest_llmparity.run.plan import Unit, requests_of
from pytest_llmparity.settings.specification import EngineSpec


@pytest.mark.parametrize(
    ("kind", "timed", "streamed"),
    [("vllm", 0, True), ("llamacpp-python", 0, False), ("llamacpp-python", 128, True)],
)
def test_streams_without_token_counts_are_asked_for_only_where_they_are_timed(
    kind: str, timed: int, streamed: bool
) -> None:
    adapter = adapter_for(kind)(EngineSpec(name="cand", kind=kind, model="m"), "http://127.0.0.1:1", {})
    cases = (Case(id="a", messages=({"role": "user", "content": "Hi"},)),)
    unit = Unit(
        prompts=PromptSet(name="set", cases=cases),
        sampling=Sampling(),
        concurrency=1,
        repeats=1,
        needs=Needs(timed=timed),
    )

    (wire,) = requests_of(adapter, unit).values()

    assert json.loads(wire.body).get("stream", False) is streamed
    assert wire.max_tokens == json.loads(wire.body)["max_tokens"] == Sampling().max_tokens
