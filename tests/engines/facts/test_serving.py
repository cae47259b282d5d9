"""What flags of an engine that we start say of adapters, drafts, GPUs and caches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.engines.facts.serving import declared, rank_of
from pytest_llmparity.engines.kinds.llamacpp import LlamaCppAdapter
from pytest_llmparity.engines.kinds.mlx import MlxAdapter
from pytest_llmparity.engines.kinds.tgi import TgiAdapter
from pytest_llmparity.engines.kinds.vllm import VllmAdapter
from pytest_llmparity.engines.wire.base import Adapter
from tests.engines.lora import write_adapter

KINDS: Mapping[str, type[Adapter]] = {
    adapter.kind: adapter for adapter in (LlamaCppAdapter, MlxAdapter, TgiAdapter, VllmAdapter)
}


def declared_by(kind: str, *args: str, **env: str) -> dict[str, object]:
    """Return what a kind's flags and variables declare."""
    adapter = KINDS[kind]
    known = declared(adapter.serving_flags, args, env, inherited={}, scrub=adapter.scrub)
    assert {fact.source for fact in known.values()} <= {"declared"}
    return {name: fact.value for name, fact in known.items()}


@pytest.mark.parametrize(
    ("kind", "args", "field", "value"),
    [
        ("vllm", (), "speculative", "off"),
        ("vllm", ("-tp", "2"), "tensor_parallel", 2),
        ("vllm", ("--pipeline-parallel-size=4",), "pipeline_parallel", 4),
        ("vllm", ("--enable-prefix-caching",), "prefix_cache", "on"),
        ("vllm", ("--enable-prefix-caching", "--no-enable-prefix-caching"), "prefix_cache", "off"),
        ("vllm", ("--no-enable-chunked-prefill",), "chunked_prefill", "off"),
        ("vllm", (), "chunked_prefill", None),
        ("vllm", ("--attention-backend", "FLASHINFER"), "attention", "FLASHINFER"),
        (
            "vllm",
            ("--speculative-config", '{"method": "eagle3", "model": "org/draft", "num_speculative_tokens": 3}'),
            "speculative",
            "eagle3 draft x3",
        ),
        ("vllm", ("--speculative-config", "draft.json"), "speculative", "draft.json"),
        ("vllm", ("--config", "serve.yaml"), "speculative", None),  # what stands in that file is not read
        ("vllm", ("--config", "serve.yaml", "-tp", "2"), "tensor_parallel", 2),
        ("mlx", (), "adapters", "none"),
        ("mlx", ("--adapter-path", "adapters/sql"), "adapters", "sql"),
        ("mlx", ("--draft-model", "org/tiny-4bit"), "speculative", "tiny-4bit"),
        ("tgi", ("--lora-adapters", "org/sql,tone=org/b"), "adapters", "sql, tone"),
        ("tgi", ("--num-shard", "8"), "tensor_parallel", 8),
        ("llamacpp", (), "prefix_cache", "off"),
        ("llamacpp", ("-fa", "on"), "attention", "flash"),
        ("llamacpp", ("--flash-attn", "auto"), "attention", None),
    ],
)
def test_flags_say_how_a_model_is_served(kind: str, args: tuple[str, ...], field: str, value: object) -> None:
    assert declared_by(kind, *args).get(field) == value


def test_variables_count_like_flags_unless_they_are_kept_from_the_engine() -> None:
    assert declared_by("tgi", PREFIX_CACHING="1", NUM_SHARD="2") == {
        "adapters": "none",
        "speculative": "off",
        "tensor_parallel": 2,
        "prefix_cache": "on",
    }
    inherited = {"SPECULATE": "3", "NUM_SHARD": "2"}
    known = declared(TgiAdapter.serving_flags, (), {}, inherited=inherited, scrub=TgiAdapter.scrub)
    assert (known["speculative"].value, known["tensor_parallel"].value) == ("off", 2)


@given(st.lists(st.text(max_size=8) | st.sampled_from(["-tp", "--config", "--speculative-config", "-1", "={}"])))
def test_no_command_line_is_too_odd(args: list[str]) -> None:
    for adapter in KINDS.values():
        declared(adapter.serving_flags, args, {}, inherited={}, scrub=())


def test_the_rank_of_an_adapter_stands_in_its_folder_or_file(tmp_path: Path) -> None:
    folder, file = tmp_path / "sql", tmp_path / "sql.gguf"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 16}))
    write_adapter(file, rank=8)

    assert (rank_of(folder), rank_of(file)) == (16, 8)
    assert declared_by("mlx", "--adapter-path", str(folder))["adapters"] == "sql rank 16"


@pytest.mark.parametrize("content", [b"", b"GGUF", b"\xff" * 40])
def test_an_adapter_that_cannot_be_read_has_no_rank(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "adapter_config.json").write_bytes(content)
    (tmp_path / "sql.gguf").write_bytes(content)

    assert rank_of(tmp_path) is None
    assert rank_of(tmp_path / "sql.gguf") is None
    assert rank_of(tmp_path / "gone") is None
