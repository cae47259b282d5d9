"""A LoRA adapter on the tiny model, for engines that take one as a GGUF file."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np


def write_adapter(path: Path, *, rank: int, width: int = 256, layers: int = 4, strength: float = 0.1) -> None:
    """Write a LoRA adapter on the attention's queries of the tiny model, of random numbers that are always the same."""
    draw = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 2.0 * rank)
    for layer in range(layers):
        for half, shape in {"a": (rank, width), "b": (width, rank)}.items():
            values = draw.normal(scale=strength, size=shape).astype(np.float32)
            writer.add_tensor(f"blk.{layer}.attn_q.weight.lora_{half}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
