"""Images on real engines: a model of text that refuses them, and one with a vision tower of random weights."""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.prompts.reading import prompts_of
from pytest_llmparity.core.sample import Completion, Sampling
from pytest_llmparity.engines.registry import make
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.probe import media
from pytest_llmparity.run.probe.probes import probe
from pytest_llmparity.transport.exchange import Exchange
from tests.engines.live import PYTHONS, Served, running
from tests.engines.live import gguf as served_gguf

Send = Callable[..., Exchange]

pytestmark = pytest.mark.live

PROBES = {"images": media.IMAGES, "audio": media.AUDIO}
WIDTH, PATCH, SIDE, LAYERS, HEADS, TEXT = 64, 14, 56, 2, 2, 256
"""A vision tower as small as llama.cpp takes one; the last is the width of the tiny model."""
TOKENS = (SIDE // PATCH) ** 2
"""Tokens that it makes of an image."""


def vision_tower(path: Path) -> Path:
    """Write a projector of random weights for the tiny model, in the shape of LLaVA's (llama.cpp, tools/mtmd)."""
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.has_llava_projector", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", False)
    sizes = {"image_size": SIDE, "patch_size": PATCH, "embedding_length": WIDTH, "feed_forward_length": WIDTH}
    for name, size in {**sizes, "projection_dim": TEXT, "block_count": LAYERS, "attention.head_count": HEADS}.items():
        writer.add_uint32(f"clip.vision.{name}", size)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.48, 0.46, 0.41])
    writer.add_array("clip.vision.image_std", [0.27, 0.26, 0.28])

    def weights(name: str, *shape: int, half: bool = True) -> None:
        values = (random.standard_normal(shape) * 0.05).astype(np.float16 if half else np.float32)
        writer.add_tensor(name, values)

    def norm(name: str, size: int = WIDTH) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(size, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(size, np.float32))

    def layer(name: str, rows: int = WIDTH, columns: int = WIDTH) -> None:
        weights(f"{name}.weight", rows, columns)
        writer.add_tensor(f"{name}.bias", np.zeros(rows, np.float32))

    weights("v.class_embd", WIDTH, half=False)
    weights("v.patch_embd.weight", WIDTH, 3, PATCH, PATCH)
    weights("v.position_embd.weight", TOKENS + 1, WIDTH, half=False)
    norm("v.pre_ln")
    norm("v.post_ln")
    for number in range(LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down"):
            layer(f"v.blk.{number}.{part}")
        for part in ("ln1", "ln2"):
            norm(f"v.blk.{number}.{part}")
    layer("mm.0", TEXT, WIDTH)
    layer("mm.2", TEXT, TEXT)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapter]:
    """llama.cpp with the tiny model and that tower."""
    folder = tmp_path_factory.mktemp("seeing")
    args = ("--threads", "1", "--mmproj", str(vision_tower(folder / "mmproj.gguf")))
    with running(
        served_gguf("llamacpp", "seeing", "tiny-F16.gguf", context_length=512, slots=1, args=args), folder
    ) as adapter:
        yield adapter


def question(*, shown: bool) -> Case:
    image = {"type": "image", "file": "x.png"}
    content = [{"type": "text", "text": "What is this?"}, *([image] if shown else [])]
    row = {"id": "a", "messages": [{"role": "user", "content": content}]}
    return prompts_of([row], source="rows", name="p", read=lambda name: media.red_image()).cases[0]


def ask(adapter: Adapter, case: Case, send: Send) -> Completion:
    request = case.request(Sampling(max_tokens=16))
    return adapter.read(send(adapter, request, stream=False), case="a")


def test_a_model_that_sees_reads_an_image_over_each_route_alike(seeing: Adapter, send: Send) -> None:
    other = make(dataclasses.replace(seeing.spec, route="responses"), seeing.base_url, environ=os.environ)

    blind, shown, responded = (
        ask(adapter, question(shown=seen), send) for adapter, seen in ((seeing, False), (seeing, True), (other, True))
    )

    assert (blind.prompt_tokens or 0) + TOKENS == shown.prompt_tokens == responded.prompt_tokens
    assert shown.text == responded.text != blind.text


def test_what_it_reads_is_what_it_says_and_what_a_probe_finds(seeing: Adapter) -> None:
    able = seeing.capabilities()
    assert (able.images, able.audio) == (True, False)

    attached = make(dataclasses.replace(seeing.spec, kind="openai"), seeing.base_url, environ=os.environ)
    probed = probe(attached, PROBES, declares=attached.capabilities()).values

    assert probed == {"images": True, "audio": False}


@pytest.mark.parametrize("served", ["llamacpp", *sorted(PYTHONS), "ollama", "ollama-native"], indirect=True)
def test_a_model_of_text_is_found_to_read_nothing_else(served: Served) -> None:
    adapter = served.adapter

    result = probe(adapter, PROBES, declares=adapter.capabilities())

    heard = {} if adapter.spec.route == "native" else {"audio": False}
    assert result.values == {"images": False, **heard}, result.notes


@pytest.mark.parametrize("served", ["llamacpp", "mlx", "ollama", "vllm"], indirect=True)
def test_an_image_that_is_sent_all_the_same_is_refused_as_what_it_is(served: Served, send: Send) -> None:
    with pytest.raises(errors.UnsupportedParameter, match="Leave these parts out"):
        ask(served.adapter, question(shown=True), send)


def test_the_image_is_what_the_prompt_file_named() -> None:
    (sha,) = question(shown=True).attached

    assert base64.b64encode(question(shown=True).attached[sha])[:8] == b"iVBORw0K"
