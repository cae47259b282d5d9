from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.core.compare.order import KeyOrders
from pytest_llmparity.core.diagnosis.layers import layers, order_line, response_schema
from pytest_llmparity.core.identity.capabilities import Capabilities

if TYPE_CHECKING:
    from tests.core.conftest import Factory

LENGTHS = [20, 35, 50, 80, 120, 200, 310, 500]


def test_layers_come_from_the_outside_in(make: Factory) -> None:
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    cases = [make.case(index, response_format=form) for index in range(4)] + [make.case(4)]
    ours = [make.completion('{"b": 1, "a": 2}')] * 4 + [make.completion("plain", reasoning="hm")]
    theirs = [make.completion('{"a": 2, "b": 1}', prompt_tokens=25)] * 4
    theirs += [make.completion("<think>plain", prompt_tokens=25, finish_reason="length")]
    baseline = make.engine(
        "vllm", ours, kind="vllm", identity={"version": "0.33", "context_length": 8192, "template_sha256": "a"}
    )
    candidate = make.engine(
        "ollama",
        theirs,
        kind="ollama",
        quantization="Q4_K_M",
        identity={"version": "0.9", "context_length": 4096, "template_sha256": "b", "kv_cache": "q8_0"},
    )
    lines = layers(make.evidence(baseline, candidate, cases=cases), candidate, floor=0.012)

    assert lines == (
        "engine: vllm 0.33 and ollama 0.9",
        "context limit: 8192 and 4096",
        "chat template: the two engines have different ones",
        "ollama counts 5 tokens more than vllm on every prompt: another chat template, BOS token or system prompt",
        "finish reason: differs on 1 of 5 prompts, mostly stop on vllm, length on ollama (1)",
        "reasoning channel: used in 1 answer of vllm and 0 of ollama",
        "reasoning channel: 1 answer of ollama with <think> in the text",
        "property order: 4 of 4 JSON answers of ollama in another order than declared",
        "cache or concurrency: vllm differs from itself by 1.2 % per token",
        "weights: F16 and Q4_K_M",
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ({"device": "NVIDIA H200"}, {"device": "AMD EPYC"}, ("device: NVIDIA H200 and AMD EPYC",)),
        ({"kv_cache": "fp16"}, {"kv_cache": "F16"}, ()),
        ({"kv_cache": "auto"}, {"kv_cache": "F16"}, ()),
        ({"kv_cache": "q8_0"}, {"kv_cache": "F16"}, ("KV cache: q8_0 and F16",)),
        (
            {"tokenizer_sha256": "a" * 64},
            {"tokenizer_sha256": "b"},
            ("vocabulary: the two engines have different ones",),
        ),
        ({"sampling_defaults": "{}"}, {"sampling_defaults": '{"top_k": 1}'}, ()),
        (
            {"sampling_defaults": '{"top_k": 1, "typical_p": 1}'},
            {"sampling_defaults": '{"dry_multiplier": 0.8, "typical_p": 1}'},
            ("sampler default: b has dry_multiplier 0.8",),
        ),
        ({"sampling_defaults": '{"xtc_probability": 1}'}, {"sampling_defaults": '{"xtc_probability": 1}'}, ()),
        ({"sampling_defaults": "[1]"}, {"sampling_defaults": "}"}, ()),
        ({"attention": "FLASH_ATTN"}, {}, ()),
        ({"adapters": "none"}, {"adapters": "sql rank 8"}, ("LoRA adapters: none and sql rank 8",)),
        ({"speculative": "off"}, {"speculative": "ngram x4"}, ("speculative decoding: off and ngram x4",)),
        ({"tensor_parallel": 1}, {"tensor_parallel": 2}, ("tensor parallel size: 1 and 2",)),
        ({"prefix_cache": "off"}, {"prefix_cache": "on"}, ("prefix cache: off and on",)),
    ],
)
def test_facts_that_can_explain_a_difference_are_named(
    make: Factory, ours: dict[str, str], theirs: dict[str, str], expected: tuple[str, ...]
) -> None:
    baseline, candidate = make.engine("a", ["x"], identity=ours), make.engine("b", ["x"], identity=theirs)

    assert layers(make.evidence(baseline, candidate, cases=1), candidate) == expected


def test_an_engine_against_its_twin_differs_in_nothing(make: Factory) -> None:
    ours = make.engine("a", ["x"] * 3, identity={"context_length": 8192})
    theirs = make.engine("b", ["x"] * 3)

    assert layers(make.evidence(ours, theirs, cases=3), theirs, floor=0.0) == ()


def test_the_order_of_keys_is_read_against_the_schema_given_or_the_one_asked_for(make: Factory) -> None:
    schema: dict[str, dict[str, dict[str, str]]] = {"properties": {"b": {}, "a": {}}}
    ours, theirs = make.engine("a", ['{"b":1,"a":1}', "no"]), make.engine("b", ['{"a":1,"b":1}', "no"])
    (line,) = layers(make.evidence(ours, theirs, cases=2), theirs, schema=schema)

    assert line == "property order: 1 of 1 JSON answer of b in another order than declared"
    assert order_line("b", [], KeyOrders()) == ""
    asked = make.case(0, response_format={"json_schema": {"schema": {"properties": {"a": {}, "b": {}}}}})
    (line,) = layers(make.evidence(ours, theirs, cases=[asked]), theirs, schema=schema)
    assert line == "property order: 1 of 1 JSON answer of a in another order than declared"
    assert response_schema(make.case(0)) is None
    assert response_schema(make.case(0, response_format={"type": "json_object"})) is None
    assert response_schema(make.case(0, response_format={"json_schema": {"schema": True}})) is None


FORCED = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
PROMISES = Capabilities(json_schema=True, schema_order=True, overflow="refused")


def test_what_an_engine_does_not_do_with_schemas_is_a_layer_where_a_case_has_one(make: Factory) -> None:
    sorts, ignores = PROMISES.corrected({"schema_order": False}), Capabilities(json_schema=False)
    base = make.engine("ollama", ["{}"], capabilities=sorts, declares=PROMISES)
    other = make.engine("mlx", ["{}"], capabilities=ignores, declares=ignores)

    with_schema = layers(make.evidence(base, other, cases=[make.case(0, response_format=FORCED)]), other)
    without = layers(make.evidence(base, other), other)

    assert [line for line in with_schema if line.startswith("structured output")] == [
        "structured output: ollama forces a schema's properties in alphabetical order (probed, declared otherwise)",
        "structured output: mlx does not enforce response_format (declared)",
    ]
    assert not any(line.startswith("structured output") for line in without)


def test_functions_that_never_reach_the_prompt_are_a_layer_where_a_case_has_them(make: Factory) -> None:
    base = make.engine("a", ["x"])
    other = make.engine("b", ["x"], capabilities=Capabilities().corrected({"tools": False}))
    offered = make.evidence(base, other, cases=[make.case(0, tools=({"type": "function"},))])

    assert "tools: b does not take tools (probed)" in layers(offered, other)


def test_how_prompts_were_cut_is_said_of_the_engine_that_cut_them(make: Factory) -> None:
    can = PROMISES.corrected({"overflow": "oldest turns dropped"})

    def lines(can: Capabilities) -> tuple[str, ...]:
        base = make.engine("vllm", [make.completion("x", prompt_tokens=n) for n in LENGTHS])
        other = make.engine(
            "ollama",
            [make.completion("x", prompt_tokens=min(n, 130)) for n in LENGTHS],
            capabilities=can,
            declares=PROMISES,
        )
        return layers(make.evidence(base, other), other)

    cut = next(index for index, line in enumerate(lines(can)) if line.startswith("ollama cut 3 of 8"))
    assert lines(can)[cut + 1] == (
        "truncation: ollama drops the oldest turns of a conversation that does not fit its context "
        "(probed, declared otherwise)"
    )
    assert not any(line.startswith("truncation") for line in lines(PROMISES))


def test_another_route_and_another_stream_are_layers(make: Factory) -> None:
    base = make.engine("a", ["x"], route="a is measured over its native route")
    other = make.engine("b", ["x"], capabilities=Capabilities().corrected({"stream_equal": False}))

    assert layers(make.evidence(base, other), other) == (
        "route: a is measured over its native route",
        "streaming: b answers differently when streamed, and was asked for a stream",
    )
